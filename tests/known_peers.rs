//! Several processes that use one file of known peers, and are killed while they write it.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStderr, ChildStdin, Command, Stdio},
    time::SystemTime,
};

use mls_channel::{
    AuthenticationRequest, AuthenticationService, FirstUse, Identity, KnownPeers, PinnedKeys,
    PresentedIdentity, PublicKey, Purpose, Role, error::AuthenticationError,
};

const PATH: &str = "KNOWN_PEERS_PATH";
const NUMBER: &str = "KNOWN_PEERS_NUMBER";

/// How many peers of its own each process meets.
const PEERS: usize = 40;

fn meet(peers: &KnownPeers, name: &str, key: &PublicKey) -> Result<(), AuthenticationError> {
    let request = AuthenticationRequest::new(
        PresentedIdentity::new(name.as_bytes(), key.as_bytes()),
        Role::Initiator,
        None,
        Purpose::Handshake,
        SystemTime::now(),
    );
    peers.authenticate(&request).map(|peer| assert_eq!(peer.public_key(), key))
}

#[test]
#[ignore = "the processes that the other tests start"]
fn child_process() {
    let (path, number) = (env::var_os(PATH).unwrap(), env::var(NUMBER).unwrap());
    let peers = KnownPeers::open(path, |_| FirstUse::Remember).unwrap();
    let say = |line: &str| {
        let mut stderr = std::io::stderr().lock();
        // In one piece: the parent reads lines.
        stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    say("ready");
    assert_eq!(std::io::stdin().lines().next().unwrap().unwrap(), "go");
    for index in 0.. {
        let identity = Identity::generate(&format!("peer{number}.{index}")).unwrap();
        meet(&peers, identity.name(), identity.public_key()).unwrap();
        say(&format!("remembered {}", identity.public_line()));
        // Every process meets these, each with another key.
        let shared = format!("shared{index}");
        match meet(&peers, &shared, identity.public_key()) {
            Ok(()) => say(&format!("remembered {shared} {}", identity.public_key().to_base64())),
            Err(AuthenticationError::KeyChanged(_)) => say("changed"),
            Err(error) => panic!("{error}"),
        }
    }
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    output: BufReader<ChildStderr>,
    remembered: Vec<String>,
    changed: usize,
}

impl Process {
    fn start(path: &Path, number: usize) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process", "--ignored", "--nocapture"])
            .env(PATH, path)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stderr.take().unwrap());
        let stdin = child.stdin.take().unwrap();
        let mut process = Self { child, stdin, output, remembered: Vec::new(), changed: 0 };
        assert_eq!(process.line().unwrap(), "ready");
        process
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line).unwrap();
        (length > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
    }

    /// Takes the next thing that it says. False: it has ended.
    fn take(&mut self) -> bool {
        let Some(line) = self.line() else { return false };
        match line.strip_prefix("remembered ") {
            Some(peer) => self.remembered.push(peer.to_owned()),
            None => {
                assert_eq!(line, "changed");
                self.changed += 1;
            }
        }
        true
    }
}

// CH-08
#[test]
fn processes_killed_while_they_remember_leave_a_whole_file_with_all_that_was_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known");
    fs::write(&path, "# by hand\n").unwrap();
    for round in 0..3 {
        let mut processes: Vec<Process> =
            (0..2).map(|number| Process::start(&path, 10 * round + number)).collect();
        let before = fs::read_to_string(&path).unwrap();
        // Neither begins before both are there.
        for process in &mut processes {
            process.stdin.write_all(b"go\n").unwrap();
        }
        for process in &mut processes {
            while process.remembered.len() < PEERS {
                assert!(process.take());
            }
            process.child.kill().unwrap();
        }
        let mut remembered = Vec::new();
        let mut changed = 0;
        for process in &mut processes {
            // What it said before it died counts, too.
            while process.take() {}
            process.child.wait().unwrap();
            remembered.append(&mut process.remembered);
            changed += process.changed;
        }

        let content = fs::read_to_string(&path).unwrap();
        assert!(content.starts_with(&before), "round {round}: {content}");
        assert!(content.ends_with('\n'));
        let known = PinnedKeys::parse(&content).unwrap();
        let mut names: HashMap<&str, usize> = HashMap::new();
        known.iter().for_each(|(name, _)| *names.entry(name).or_default() += 1);
        assert!(names.values().all(|keys| *keys == 1), "a name has two keys: {content}");
        for peer in &remembered {
            let line = format!("{peer}\n");
            assert!(content.contains(&line), "round {round}: {line} is not in {content}");
        }
        assert!(changed > 0, "the processes did not meet the same peers");
    }
}
