//! The examples as their users run them: as processes, with files, pipes and exit codes.

#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    thread,
};

use mls_channel::CryptoProvider;
use tempfile::TempDir;

/// `target/<profile>/examples/<name>`; this test is in `target/<profile>/deps`.
fn example(name: &str) -> Command {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: cargo build --examples makes it", path.display());
    Command::new(path)
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Contents that show when pieces are lost, doubled or swapped.
fn contents(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A directory with the identities of a server and of two clients, of which the server knows one.
struct Setup {
    directory: TempDir,
}

impl Setup {
    fn new() -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap() };
        setup.generate("echo_server", "server");
        setup.generate("echo_client", "client");
        setup.generate("echo_client", "stranger");
        setup
    }

    /// Makes `name`.pem, and `name`.keys with its public line.
    fn generate(&self, program: &str, name: &str) {
        let pem = self.path(&format!("{name}.pem"));
        let output = run(example(program).arg("--generate").arg("--identity").arg(&pem));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with(&format!("{name} ")), "{output:?}");
        fs::write(self.path(&format!("{name}.keys")), output.stdout).unwrap();
        assert!(pem.exists());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a server that knows the client.
    fn server(&self) -> Server {
        let mut child = example("echo_server")
            .args(["--listen", "127.0.0.1:0", "--rekey-every", "256KiB", "--identity"])
            .arg(self.path("server.pem"))
            .arg("--authorized")
            .arg(self.path("client.keys"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, stderr, address: String::new() };
        let line = server.wait_for("listening on ");
        server.address = line.trim_start_matches("listening on ").to_owned();
        server
    }

    /// A client that is called `name` and believes the server whose line is in `known`.
    fn client(&self, server: &Server, name: &str, known: &Path) -> Command {
        let mut command = example("echo_client");
        command
            .args(["--connect", &server.address, "--rekey-every", "192KiB", "--identity"])
            .arg(self.path(&format!("{name}.pem")))
            .arg("--known")
            .arg(known)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Pipes `input` through the client that the server knows.
    fn pipe(&self, server: &Server, input: Vec<u8>) -> Output {
        let mut client = self.client(server, "client", &self.path("server.keys"));
        let mut child = client.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    }
}

/// A server process, which is killed at the end of the test.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    /// Reads what the server says up to the first line that contains `part`.
    fn wait_for(&mut self, part: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.stderr.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "the server ended and did not say {part:?}, but:\n{said}");
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
            said.push_str(&line);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn echo_sends_a_file_there_and_back() {
    let output = run(example("echo").args(["--size", "2MiB", "--rekey-every", "256KiB"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("The hashes match"), "{said}");
    assert!(said.contains("2.0 MiB there and back"), "{said}");
    assert!(!said.contains(" 0 rekeys of its own"), "{said}");
    assert!(output.stderr.is_empty(), "a pipe sees no progress: {}", text(&output.stderr));
}

// 2P-20
#[test]
fn echo_works_with_every_suite() {
    for suite in CryptoProvider::default().cipher_suites() {
        let number = format!("{:#06x}", suite.id());
        let output = run(example("echo")
            .args(["--size", "1MiB", "--rekey-every", "128KiB"])
            .args(["--suite", &number]));
        let stdout = text(&output.stdout);
        assert!(output.status.success(), "{suite}: {output:?}");
        assert!(stdout.contains(&format!("suite       {suite}\n")), "{suite}: {stdout}");
        assert!(stdout.contains("The hashes match"), "{suite}: {stdout}");
    }
    let output = run(example("echo").args(["--suite", "0x0007"]));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("the suites are 0x0001 MLS_128"), "{output:?}");
}

#[test]
fn echo_takes_a_file_of_the_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for length in [0, 1, 100_000] {
        fs::write(&path, contents(length)).unwrap();
        let output = run(example("echo").arg(&path));
        assert!(output.status.success(), "{length}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("The hashes match"));
    }
    let output = run(example("echo").arg(directory.path().join("nothing")));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing: "), "{}", text(&output.stderr));
}

#[test]
fn client_and_server_pipe_files_unchanged() {
    let setup = Setup::new();
    let mut server = setup.server();
    for length in [0, 1, 16_384, 16_385, 3_000_001] {
        let input = contents(length);
        let output = setup.pipe(&server, input.clone());
        assert!(output.status.success(), "{length}: {}", text(&output.stderr));
        assert!(output.stdout == input, "{length} bytes came back changed");
        assert!(text(&output.stderr).contains(" there and back"), "{}", text(&output.stderr));
        let line = server.wait_for(" has ended: ");
        assert!(line.contains(" client has ended: "), "{line}");
    }
}

#[test]
fn server_serves_several_clients_at_once() {
    let setup = Setup::new();
    let mut server = setup.server();
    let known = setup.path("server.keys");
    let start = |_| setup.client(&server, "client", &known).spawn().unwrap();
    let mut clients: Vec<Child> = (0..3).map(start).collect();
    // All of them are connected when the first of them gets its answer.
    for _ in &clients {
        server.wait_for(" is client, ");
    }
    for client in &mut clients {
        client.stdin.as_mut().unwrap().write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    for client in clients {
        assert!(client.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn unauthorized_client_fails_and_the_server_goes_on() {
    let setup = Setup::new();
    let mut server = setup.server();
    let output = run(&mut setup.client(&server, "stranger", &setup.path("server.keys")));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("the server does not know this client"), "{said}");
    let public_line = fs::read_to_string(setup.path("stranger.keys")).unwrap();
    assert!(said.contains(public_line.trim_end()), "{said}");
    let line = server.wait_for(" was not let in: ");
    assert!(line.contains("not known"), "{line}");

    let output = setup.pipe(&server, b"still there?".to_vec());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"still there?");
}

#[test]
fn client_with_another_server_key_fails() {
    let setup = Setup::new();
    let mut server = setup.server();
    // The right name, with the key of somebody else.
    let stranger = fs::read_to_string(setup.path("stranger.keys")).unwrap();
    let wrong = setup.path("wrong.keys");
    fs::write(&wrong, stranger.replacen("stranger", "server", 1)).unwrap();
    let output = run(&mut setup.client(&server, "client", &wrong));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains("not the server that was asked for"), "{said}");
    server.wait_for(" was not let in: ");

    assert!(setup.pipe(&server, Vec::new()).status.success());
}

#[test]
fn client_notices_that_the_server_is_gone() {
    let setup = Setup::new();
    let mut server = setup.server();
    let known = setup.path("server.keys");
    let mut client = setup.client(&server, "client", &known).spawn().unwrap();
    server.wait_for(" is client, ");
    drop(server);
    // The client's stdin is open all the time.
    let mut said = String::new();
    client.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(said.contains("error: "), "{said}");
}

#[cfg(unix)]
#[test]
fn certified_client_and_server_pipe_a_file() {
    use std::os::unix::fs::PermissionsExt;

    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let output = run(command.current_dir(directory.path()).args(arguments.split(' ')));
        assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
    };
    let key = |name: &str| {
        openssl(&format!("genpkey -algorithm ED25519 -out {name}.key"));
        fs::set_permissions(path(&format!("{name}.key")), fs::Permissions::from_mode(0o600))
            .unwrap();
    };
    key("root");
    openssl("req -x509 -new -key root.key -out root.crt -subj /CN=root -days 30");
    for name in ["server", "client"] {
        key(name);
        fs::write(path("names.cnf"), format!("subjectAltName=DNS:{name}.example")).unwrap();
        openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -out {name}.crt -days 20 -extfile names.cnf -CA root.crt \
             -CAkey root.key -CAcreateserial"
        ));
    }
    let options = |program: &str, name: &str| {
        let mut command = example(program);
        for (option, ending) in [("--key", "key"), ("--cert", "crt")] {
            command.arg(option).arg(path(&format!("{name}.{ending}")));
        }
        command.arg("--roots").arg(path("root.crt"));
        command
    };
    let mut child = options("echo_server", "server")
        .args(["--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut server = Server { child, stderr, address: String::new() };
    let line = server.wait_for("listening on ");
    let address = line.rsplit(' ').next().unwrap();
    let ask = |name: &str| {
        let mut client = options("echo_client", "client")
            .args(["--connect", address, "--server-name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The client may have ended already.
        let _ = client.stdin.take().unwrap().write_all(b"hello");
        client.wait_with_output().unwrap()
    };
    let output = ask("server.example");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"hello");
    let line = server.wait_for(" has ended: ");
    assert!(line.contains(" client.example has ended: "), "{line}");
    let output = ask("other.example");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("instead of \"other.example\""), "{said}");
}

#[cfg(unix)]
#[test]
fn server_ends_at_ctrl_c() {
    let setup = Setup::new();
    let mut server = setup.server();
    let known = setup.path("server.keys");
    let mut client = setup.client(&server, "client", &known).spawn().unwrap();
    server.wait_for(" is client, ");
    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
    let mut said = String::new();
    client.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(said.contains("the server stopped before the end of the input"), "{said}");
}

#[test]
fn identity_is_not_overwritten() {
    let setup = Setup::new();
    let pem = setup.path("server.pem");
    let before = fs::read(&pem).unwrap();
    let output = run(example("echo_server").arg("--generate").arg("--identity").arg(&pem));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not overwritten"), "{}", text(&output.stderr));
    assert_eq!(fs::read(&pem).unwrap(), before);
}

#[test]
fn missing_identity_says_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("nobody.pem");
    let mut command = example("echo_client");
    let output = run(command.arg("--identity").arg(&pem).args(["--server-key", "server A"]));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("--generate --identity"), "{said}");
}

#[test]
fn rekey_watch_prints_a_line_for_each_rekey() {
    let output = run(example("rekey_watch").args(["--rekeys", "7", "--interval-bytes", "64KiB"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let rows = said.lines().filter(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|epoch| epoch.parse::<u64>().is_ok())
            && matches!(words.next(), Some("client" | "server"))
    });
    assert_eq!(rows.count(), 7, "{said}");
    assert!(said.contains("7 rekeys, "), "{said}");
}

/// Runs `rekey_throughput` on two connections; gives what it printed, its CSV and its SVG.
fn throughput(arguments: &[&str]) -> (String, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let (csv, svg) = (directory.path().join("rekeys.csv"), directory.path().join("rekeys.svg"));
    let mut command = example("rekey_throughput");
    command.args(["--connections", "2", "--duration", "0.5"]).args(arguments);
    let output = run(command.arg("--csv").arg(&csv).arg("--svg").arg(&svg));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let [csv, svg] = [csv, svg].map(|path| fs::read_to_string(path).unwrap());
    (text(&output.stdout).to_owned(), csv, svg)
}

/// The number in front of `unit`, in the line that begins with `label`.
fn printed(said: &str, label: &str, unit: &str) -> f64 {
    let line = said.lines().find_map(|line| line.strip_prefix(label));
    let line = line.unwrap_or_else(|| panic!("no {label}: {said}"));
    let (number, _) = line.split_once(unit).unwrap_or((line, ""));
    number.trim().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn rekey_throughput_measures_each_direction() {
    for direction in ["client", "server", "both", "crossing"] {
        for payload in ["0", "8KiB"] {
            let (said, csv, svg) =
                throughput(&["--direction", direction, "--payload", payload, "--suite", "0x0003"]);
            assert!(said.contains("CHACHA20POLY1305"), "{said}");
            assert!(printed(&said, "throughput ", " rekeys/s") > 0.0, "{said}");
            #[cfg(unix)]
            assert!(printed(&said, "CPU ", " us per rekey") > 0.0, "{said}");
            assert!(said.contains("time/us "), "{said}");
            assert_eq!(said.contains("only with data"), payload == "0", "{said}");

            let mut rows = csv.lines();
            let header = "completed_s,connection,asked_by,time_us,stall_us,crossed";
            assert_eq!(rows.next(), Some(header));
            let rows: Vec<Vec<&str>> = rows.map(|row| row.split(',').collect()).collect();
            assert_eq!(printed(&said, "throughput ", " in "), rows.len() as f64, "{said}");
            let mut crossed = 0;
            for row in &rows {
                let [completed, connection, asked_by, time, stall, crossing] = row[..] else {
                    panic!("{row:?}");
                };
                assert!(completed.parse::<f64>().unwrap() > 0.0, "{row:?}");
                assert!(matches!(connection, "0" | "1"), "{row:?}");
                assert!(time.parse::<f64>().unwrap() > 0.0, "{row:?}");
                match payload {
                    "0" => assert_eq!(stall, "", "{row:?}"),
                    _ => assert!(stall.parse::<f64>().unwrap() > 0.0, "{row:?}"),
                }
                if matches!(direction, "client" | "server") {
                    assert_eq!(asked_by, direction, "{row:?}");
                }
                crossed += crossing.parse::<u64>().unwrap();
            }
            let asked = |side| rows.iter().filter(|row| row[2] == side).count();
            match direction {
                "client" | "server" => assert_eq!(crossed, 0),
                // Each connection stops after a turn of its own.
                "both" => assert!(asked("client").abs_diff(asked("server")) <= 2, "{csv}"),
                _ => assert_eq!(asked("client"), asked("server"), "{csv}"),
            }
            // Both rows of a crossing say so.
            assert_eq!(2.0 * printed(&said, "crossings ", ","), crossed as f64, "{said}");

            assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("rekeys per second") && svg.contains("time per rekey"), "{svg}");
            assert_eq!(svg.contains("stall"), payload != "0");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}

#[test]
fn rekey_throughput_says_what_is_wrong_with_its_arguments() {
    let cases: [(&[&str], &str); 5] = [
        (&["--connections", "0"], "0 is not in 1..=10000"),
        (&["--suite", "0x0004"], "the suites are 0x0001 MLS_128_"),
        (&["--duration", "0"], "write seconds"),
        (&["--payload", "much"], "write a size like"),
        (&["--csv", "missing/file"], "missing/file: "),
    ];
    for (arguments, expected) in cases {
        let output = run(example("rekey_throughput").args(arguments));
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

// 2P-14, TL-08
#[cfg(feature = "redb")]
#[test]
fn resume_finishes_a_transfer_that_is_cut() {
    let output = run(example("resume").args(["--size", "3MiB", "--cuts", "3"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let kinds: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("connection ")?.get(4..11)).collect();
    assert_eq!(kinds, ["full   ", "resumed", "resumed", "resumed"], "{said}");
    assert!(said.contains("resumed     3 of 4 connections"), "{said}");
    assert!(said.contains("hashes      equal at both ends"), "{said}");
}

// MC-01, MC-02, MC-03
#[test]
fn multicast_keeps_what_it_says() {
    let output = run(example("multicast").args(["--members", "4"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for word in ["talk ", "update ", "incorporate ", "come back ", "remove ", "leave "] {
        assert!(said.lines().any(|line| line.starts_with(word)), "{said}");
    }
}

/// A member of a chat, which is killed at the end of the test.
struct Chat {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Chat {
    /// Somebody whose identity is `name`.pem.
    fn start(directory: &Path, name: &str, arguments: &[String]) -> Self {
        let mut command = example("multicast_chat");
        command
            .arg("--identity")
            .arg(directory.join(format!("{name}.pem")))
            .arg("--members")
            .arg(directory.join("members.keys"))
            .args(arguments);
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits for a line of stderr.
    fn wait_for(&mut self, part: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.stderr.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "it ended and did not say {part:?}, but:\n{said}");
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
            said.push_str(&line);
        }
    }

    fn address(&mut self) -> String {
        self.wait_for("listening on ").trim_start_matches("listening on ").to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends its input.
    fn leave(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MEMBERS: [&str; 3] = ["anna", "bert", "carl"];

/// A directory with the identities of three members.
fn chat_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for name in MEMBERS {
        let pem = directory.path().join(format!("{name}.pem"));
        let output = run(example("multicast_chat").arg("--generate").arg("--identity").arg(pem));
        assert!(output.status.success(), "{}", text(&output.stderr));
        lines.extend(output.stdout);
    }
    fs::write(directory.path().join("members.keys"), lines).unwrap();
    directory
}

/// Everyone says something, and everyone else hears it.
fn converse(mut chats: [Chat; 3]) {
    for chat in &mut chats {
        chat.wait_for("connected with all: anna, bert, carl");
    }
    for (speaker, name) in MEMBERS.iter().enumerate() {
        for words in ["good morning", "h\u{e4}?", ""] {
            chats[speaker].say(words);
            for (listener, chat) in chats.iter_mut().enumerate() {
                if listener != speaker {
                    assert_eq!(chat.hear(), format!("{name}: {words}").trim_end());
                }
            }
        }
    }
    let [mut anna, bert, mut carl] = chats;
    bert.leave();
    anna.say("bert is gone");
    assert_eq!(carl.hear(), "anna: bert is gone");
    carl.say("I go as well");
    carl.leave();
    assert_eq!(anna.hear(), "carl: I go as well");
    anna.leave();
}

// MC-01, MC-04
#[test]
fn three_chat_in_a_mesh() {
    let directory = chat_directory();
    let start = |name: &str, arguments: &[String]| Chat::start(directory.path(), name, arguments);
    let listen = ["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    let mut anna = start("anna", &listen);
    let to_anna = ["--peer".to_owned(), format!("anna={}", anna.address())];
    let mut bert = start("bert", &[&listen[..], &to_anna].concat());
    let to_bert = ["--peer".to_owned(), format!("bert={}", bert.address())];
    let carl = start("carl", &[to_anna, to_bert].concat());
    converse([anna, bert, carl]);
}

// MC-05
#[test]
fn three_chat_behind_a_relay() {
    let directory = chat_directory();
    let mut relay = Chat::spawn(example("relay").args(["--listen", "127.0.0.1:0"]));
    let arguments = ["--relay".to_owned(), relay.address()];
    // One after the other has a universe of its own at the same relay.
    for _ in 0..2 {
        converse(MEMBERS.map(|name| Chat::start(directory.path(), name, &arguments)));
    }
}

// MC-04
#[test]
fn a_stranger_does_not_get_into_a_chat() {
    let directory = chat_directory();
    let listen = ["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    let mut anna = Chat::start(directory.path(), "anna", &listen);
    let others = chat_directory();
    let lines = fs::read_to_string(others.path().join("members.keys")).unwrap();
    let known = fs::read_to_string(directory.path().join("members.keys")).unwrap();
    // The stranger believes anna, and anna does not believe the stranger.
    let anna_line = known.lines().next().unwrap();
    let rest: Vec<_> = lines.lines().skip(1).collect();
    fs::write(others.path().join("members.keys"), [&[anna_line], &rest[..]].concat().join("\n"))
        .unwrap();
    let to_anna = ["--peer".to_owned(), format!("anna={}", anna.address())];
    let mut stranger = Chat::start(others.path(), "bert", &to_anna);
    anna.wait_for("was not let in");
    stranger.wait_for("not there yet");
}
