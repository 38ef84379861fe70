//! Directories with keys, and processes that use them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio},
    thread::{self, JoinHandle},
};

use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mls-channel");

pub(crate) fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// A directory with the keys of a server, a client and a stranger.
pub(crate) struct Setup {
    directory: TempDir,
}

/// A process that listens. It is killed at the end of the test.
pub(crate) struct Listener {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<BufReader<ChildStderr>>,
    said: String,
    pub(crate) address: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["server", "client", "stranger"] {
            let output = setup.run(&["keygen", &format!("{name}.pem")]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            setup.write(&format!("{name}.keys"), &output.stdout);
        }
        setup
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The public line of a key that was made at the beginning.
    pub(crate) fn line(&self, name: &str) -> String {
        self.read(&format!("{name}.keys")).trim_end().to_owned()
    }

    /// The program, in the directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.directory.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it with this on stdin.
    pub(crate) fn pipe(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // Whoever is refused does not read it.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// `connect` of the client, with these options.
    pub(crate) fn connect(&self, to: &Listener, options: &[&str], input: &[u8]) -> Output {
        let mut arguments = vec!["connect", &to.address, "--server-name", "server"];
        if !options.contains(&"--identity") {
            arguments.extend(["--identity", "client.pem"]);
        }
        arguments.extend(options);
        self.pipe(&arguments, input)
    }

    /// `listen` of the server, with these options.
    pub(crate) fn listen(&self, options: &[&str], input: &[u8]) -> Listener {
        let arguments = [&["listen", "127.0.0.1:0", "--identity", "server.pem"], options].concat();
        Listener::start(self.command(&arguments), input)
    }
}

impl Listener {
    pub(crate) fn start(command: Command, input: &[u8]) -> Self {
        let mut listener = Self::start_open(command);
        let mut stdin = listener.stdin();
        let input = input.to_vec();
        thread::spawn(move || drop(stdin.write_all(&input)));
        listener
    }

    /// Its stdin stays open.
    pub(crate) fn start_open(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut content = Vec::new();
            stdout.read_to_end(&mut content).unwrap();
            content
        });
        let stderr = child.stderr.take().map(BufReader::new);
        let said = String::new();
        let mut listener =
            Self { child, stdout: Some(stdout), stderr, said, address: String::new() };
        let line = listener.wait_for("listening on ");
        listener.address = line.trim_start_matches("listening on ").to_owned();
        listener
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Reads what it says up to the first line that contains `part`.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
            assert_ne!(length, 0, "it ended and did not say {part:?}, but:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// What it says from now on, nobody reads.
    pub(crate) fn be_deaf(&mut self) {
        self.stderr = None;
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end: the exit code, its stdout, and all that it has said.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<u8>, String) {
        self.stderr.as_mut().unwrap().read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code();
        let content = self.stdout.take().unwrap().join().unwrap();
        (code, content, std::mem::take(&mut self.said))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It ended with this code, and said all of this.
pub(crate) fn assert_failed(output: &Output, code: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

pub(crate) fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Contents that show when pieces are lost, doubled or swapped.
pub(crate) fn contents(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Whether the program is there. If not, the test is skipped.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}
