//! Starts the client and the server, tells them when to die, and looks at what they leave behind.

use std::{
    collections::HashSet,
    env,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use mls_channel::{HandshakeKind, Identity, RedbStore};
use tempfile::TempDir;

use crate::{child, log};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Client,
    Server,
}

/// Who begins a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The client connects to its server.
    Connect,
    /// The server calls its client back.
    Call,
}

/// One connection, and when its ends are killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// How many messages the client sends. After each second one it renews its keys, and the server
    /// does when they are more than one.
    pub(crate) messages: u64,
    /// Both ends close in good order, rather than that the client drops the stream.
    pub(crate) close: bool,
    pub(crate) client: Option<u64>,
    pub(crate) server: Option<u64>,
}

/// What came of a connection.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How it began, if the client came to know that.
    pub(crate) kind: Option<HandshakeKind>,
    /// The client is done with it.
    pub(crate) done: bool,
    pub(crate) client_killed: bool,
    pub(crate) server_killed: bool,
}

/// A client, a server and their files.
pub(crate) struct World {
    directory: TempDir,
    client: Process,
    server: Process,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// At what kind of step somebody was killed.
    pub(crate) killed: HashSet<String>,
    /// Own updates of the client, and of the server, on connections that came to their end.
    pub(crate) rekeys: [u64; 2],
    /// All that happened, for the case that something is wrong.
    story: String,
}

struct Process {
    /// `None`: dead.
    running: Option<(Child, ChildStdin)>,
    address: String,
}

/// A line that a process says, or its end.
type Event = (Party, Option<String>);

impl Plan {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, messages: 4, close: true, client: None, server: None }
    }

    pub(crate) fn killing(self, party: Party, step: u64) -> Self {
        match party {
            Party::Client => Self { client: Some(step), ..self },
            Party::Server => Self { server: Some(step), ..self },
        }
    }
}

impl Outcome {
    pub(crate) fn somebody_was_killed(&self) -> bool {
        self.client_killed || self.server_killed
    }
}

impl World {
    /// Two parties that have never met.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["client", "server"] {
            let identity = Identity::generate(name).unwrap();
            identity.write_pem_file(directory.path().join(format!("{name}.pem"))).unwrap();
        }
        let (sender, events) = mpsc::channel();
        let process = || Process { running: None, address: String::new() };
        let mut world = Self {
            directory,
            client: process(),
            server: process(),
            sender,
            events,
            killed: HashSet::new(),
            rekeys: [0; 2],
            story: String::new(),
        };
        world.revive();
        world
    }

    /// Two parties with a session.
    pub(crate) fn with_session() -> Self {
        let mut world = Self::new();
        let outcome = world.connection(Plan::new(Way::Connect));
        assert_eq!(outcome.kind, Some(HandshakeKind::Full), "{world}");
        world
    }

    /// Makes a connection to its end, or to that of a process, and checks what is left of it. If
    /// nobody dies, it has to come to a good end.
    pub(crate) fn connection(&mut self, plan: Plan) -> Outcome {
        let _ = writeln!(self.story, "{plan:?}");
        self.arm(Party::Client, plan.client);
        self.arm(Party::Server, plan.server);
        let what = format!("{} {}", plan.messages, if plan.close { "close" } else { "drop" });
        let mut outcome = Outcome::default();
        let mut called = None;
        match plan.way {
            Way::Connect => {
                let command = format!("connect {} {what}", self.server.address);
                self.client.tell(&command);
            }
            Way::Call => {
                self.client.tell(&format!("listen {what}"));
                let line = self.wait_for(Party::Client, "listening ");
                let address = line.trim_start_matches("listening ").to_owned();
                self.server.tell(&format!("call {address}"));
                called = Some(address);
            }
        }
        while !outcome.done && !outcome.client_killed {
            let (party, line) = self.next();
            let Some(line) = line else {
                self.bury(party, &mut outcome);
                // The client may still wait for the call.
                if let (Party::Server, Some(address)) = (party, &called) {
                    drop(TcpStream::connect(address));
                }
                continue;
            };
            match (party, line.split(' ').collect::<Vec<_>>().as_slice()) {
                (Party::Client, ["connected", "Full"]) => outcome.kind = Some(HandshakeKind::Full),
                (Party::Client, ["connected", _]) => outcome.kind = Some(HandshakeKind::Resumed),
                (Party::Client, ["rekeyed", own, peer]) => {
                    self.rekeys[0] += own.parse::<u64>().unwrap();
                    self.rekeys[1] += peer.parse::<u64>().unwrap();
                }
                (Party::Client, ["done"]) => outcome.done = true,
                (Party::Client, ["cut", ..]) => break,
                _ => {}
            }
        }
        if !outcome.server_killed {
            self.server.tell("settle");
            loop {
                match self.next() {
                    (Party::Server, Some(line)) if line == "settled" => break,
                    (Party::Server, None) => {
                        self.bury(Party::Server, &mut outcome);
                        break;
                    }
                    (Party::Client, None) => self.bury(Party::Client, &mut outcome),
                    _ => {}
                }
            }
        }
        assert!(outcome.done || outcome.somebody_was_killed(), "nobody has cut it\n{self}");
        self.check();
        outcome
    }

    /// Kills a process between two connections.
    pub(crate) fn kill(&mut self, party: Party) {
        let Some((child, _)) = &mut self.process(party).running else {
            return;
        };
        child.kill().unwrap();
        loop {
            if self.next() == (party, None) {
                break;
            }
        }
        self.bury(party, &mut Outcome::default());
    }

    /// Starts who is dead. What it left behind must be whole.
    pub(crate) fn revive(&mut self) {
        for party in [Party::Client, Party::Server] {
            if self.process(party).running.is_some() {
                continue;
            }
            self.check_store(party);
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "child_process", "--ignored", "--nocapture"])
                .env(child::ROLE, party.name())
                .env(child::DIRECTORY, self.directory.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let stderr = BufReader::new(child.stderr.take().unwrap());
            let sender = self.sender.clone();
            thread::spawn(move || {
                for line in stderr.lines() {
                    let _ = sender.send((party, Some(line.unwrap())));
                }
                let _ = sender.send((party, None));
            });
            let stdin = child.stdin.take().unwrap();
            self.process(party).running = Some((child, stdin));
            let line = self.wait_for(party, "ready");
            line.trim_start_matches("ready").trim().clone_into(&mut self.process(party).address);
        }
    }

    fn arm(&mut self, party: Party, step: Option<u64>) {
        let at = step.map_or_else(|| "never".to_owned(), |step| step.to_string());
        self.process(party).tell(&format!("arm {at}"));
        self.wait_for(party, "armed");
    }

    fn process(&mut self, party: Party) -> &mut Process {
        match party {
            Party::Client => &mut self.client,
            Party::Server => &mut self.server,
        }
    }

    fn next(&mut self) -> Event {
        let (party, line) = self.events.recv().unwrap();
        let _ = writeln!(self.story, "  {party:?}: {}", line.as_deref().unwrap_or("(the end)"));
        if let Some(what) = line.as_deref().and_then(|line| line.strip_prefix("killed ")) {
            self.killed.insert(what.to_owned());
        }
        (party, line)
    }

    /// What the party says next that begins in this way.
    fn wait_for(&mut self, from: Party, beginning: &str) -> String {
        loop {
            match self.next() {
                (party, Some(line)) if party == from && line.starts_with(beginning) => return line,
                (party, None) if party == from => panic!("it ended\n{self}"),
                _ => {}
            }
        }
    }

    /// A process has ended: it must have been killed.
    fn bury(&mut self, party: Party, outcome: &mut Outcome) {
        let (mut child, _) = self.process(party).running.take().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{status}\n{self}");
        match party {
            Party::Client => outcome.client_killed = true,
            Party::Server => outcome.server_killed = true,
        }
    }

    /// 2P-21, TL-08: what was acknowledged was delivered, and nothing twice.
    fn check(&self) {
        let client = log::read(&self.directory.path().join("client.log"));
        let server = log::read(&self.directory.path().join("server.log"));
        let delivered = log::with_word(&server, "delivered");
        let acknowledged = log::with_word(&client, "acknowledged");
        let in_order = |numbers: &[&str]| {
            numbers.iter().enumerate().all(|(at, number)| number.parse() == Ok(at))
        };
        assert!(in_order(&delivered) && in_order(&acknowledged), "{self}");
        assert!(acknowledged.len() <= delivered.len(), "acknowledged, not delivered\n{self}");

        let early = log::with_word(&server, "early");
        let once: HashSet<&str> = early.iter().copied().collect();
        assert_eq!(once.len(), early.len(), "early data twice\n{self}");
        for number in log::with_word(&client, "accepted") {
            assert!(once.contains(number), "early data {number} was accepted and is lost\n{self}");
        }
        for number in log::with_word(&client, "rejected") {
            assert!(!once.contains(number), "early data {number} was rejected and came\n{self}");
        }
    }

    /// What a dead process has stored can be opened, and every page of it is whole.
    fn check_store(&self, party: Party) {
        let original = self.path(party, "sessions");
        if !original.exists() {
            return;
        }
        // The process itself has to repair what is to be repaired.
        let copy = self.path(party, "copy");
        fs::copy(&original, &copy).unwrap();
        let store =
            RedbStore::open_without_sync(&copy).unwrap_or_else(|error| panic!("{error}\n{self}"));
        let sessions = store.len().unwrap_or_else(|error| panic!("{error}\n{self}"));
        assert!(party == Party::Client || sessions <= 1, "{sessions} sessions\n{self}");
        drop(store);
        fs::copy(&original, &copy).unwrap();
        let mut database = redb::Database::open(&copy).unwrap();
        let whole = database.check_integrity();
        assert!(matches!(whole, Ok(true)), "{whole:?}\n{self}");
    }

    fn path(&self, party: Party, ending: &str) -> PathBuf {
        self.directory.path().join(format!("{}.{ending}", party.name()))
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.story.lines().count().saturating_sub(60);
        self.story.lines().skip(from).try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Process {
    fn tell(&mut self, command: &str) {
        // Whoever is dead does not listen, and its end is an event.
        if let Some((_, stdin)) = &mut self.running {
            let _ = writeln!(stdin, "{command}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Party {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}
