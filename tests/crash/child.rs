//! The client and the server, each a process that may be killed at any moment.
//!
//! The client sends numbered messages, and the server sends each back. A connection begins with the
//! client's question how many have arrived; if a session is resumed, a numbered piece of early data
//! goes along, and is the question.
//!
//! Commands come as lines on stdin, and what happens is told as lines on stderr. What must never
//! happen is a panic, and the parent finds out.

use std::{
    env, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use mls_channel::{
    Config, EarlyDataStatus, HandshakeKind, Identity, Limits, MlsAcceptor, MlsConnector, MlsStream,
    PinnedKeys, RedbStore, RekeyPolicy, ServerName, SessionId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, UnboundedReceiver},
};

use crate::{
    log::{Log, with_word},
    steps::{SteppingIo, SteppingStore, arm, step},
};

/// Tells a process which one it is.
pub(crate) const ROLE: &str = "MLS_CHANNEL_CRASH_ROLE";

/// Tells a process where its files are.
pub(crate) const DIRECTORY: &str = "MLS_CHANNEL_CRASH_DIRECTORY";

/// Length of a message, and of early data.
const MESSAGE: usize = 512;

/// The server renews its keys when this many bytes have moved, a little more than one message there
/// and back; the client does it when it wants to.
const SERVER_REKEY_BYTES: u64 = 1500;

type Stream = MlsStream<SteppingIo<TcpStream>>;

struct Client {
    setup: Setup,
    log: Log,
    next_early: u64,
    /// How many messages the server has acknowledged.
    acknowledged: u64,
}

struct Server {
    setup: Setup,
    log: Log,
    /// How many messages have been delivered.
    delivered: u64,
    session: Option<SessionId>,
}

struct Setup {
    config: Arc<Config>,
    store: Arc<RedbStore>,
    /// How many sessions were found in the store.
    found: Arc<AtomicU64>,
}

/// Does what the parent says, if this is a child.
pub(crate) fn run() {
    let (Ok(role), Some(directory)) = (env::var(ROLE), env::var_os(DIRECTORY)) else {
        return;
    };
    let directory = Path::new(&directory);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match &*role {
            "client" => Client::new(directory).run().await,
            "server" => Server::new(directory).run().await,
            _ => panic!("{role}"),
        }
    });
}

impl Client {
    fn new(directory: &Path) -> Self {
        let setup = Setup::new(directory, ["client", "server"], RekeyPolicy::manual());
        let (log, lines) = Log::open(&directory.join("client.log"));
        let next_early = with_word(&lines, "tried").len() as u64;
        let acknowledged = with_word(&lines, "acknowledged").len() as u64;
        Self { setup, log, next_early, acknowledged }
    }

    async fn run(mut self) {
        say("ready");
        let mut commands = commands();
        while let Some(command) = commands.recv().await {
            let words: Vec<&str> = command.split(' ').collect();
            let result = match *words {
                ["arm", at] => {
                    arm(at.parse().ok());
                    say("armed");
                    continue;
                }
                ["connect", address, messages, ending] => {
                    self.connect(address, messages, ending).await
                }
                ["listen", messages, ending] => self.listen(messages, ending).await,
                _ => panic!("{command}"),
            };
            match result {
                Ok(()) => say("done"),
                Err(error) => say(&format!("cut {error}")),
            }
        }
    }

    async fn connect(&mut self, address: &str, messages: &str, ending: &str) -> io::Result<()> {
        let number = self.next_early;
        self.next_early += 1;
        self.log.write(&format!("tried {number}"));
        let early_data = message(number);
        let socket = transport(TcpStream::connect(address).await?);
        let connector = MlsConnector::from(Arc::clone(&self.setup.config));
        let found = self.setup.found.load(SeqCst);
        let name = ServerName::new("server").unwrap();
        let connecting = connector.connect_with_early_data(name, socket?, &early_data);
        let found = self.setup.found.load(SeqCst) - found;
        let stream = connecting.await?;
        // 2P-14: a session that is stored is resumed, or it is said why not.
        if stream.handshake_kind() == HandshakeKind::Full {
            assert!(found == 0 || stream.not_resumed().is_some(), "a session was passed over");
        }
        let status = stream.early_data().unwrap();
        self.log.write(&format!("{} {number}", format!("{status:?}").to_lowercase()));
        self.exchange(stream, status == EarlyDataStatus::Accepted, messages, ending).await
    }

    async fn listen(&mut self, messages: &str, ending: &str) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&format!("listening {}", listener.local_addr()?));
        let (socket, _) = listener.accept().await?;
        let acceptor = MlsAcceptor::from(Arc::clone(&self.setup.config));
        let stream = acceptor.accept(transport(socket)?).await?;
        assert_eq!(stream.handshake_kind(), HandshakeKind::Resumed);
        self.exchange(stream, false, messages, ending).await
    }

    async fn exchange(
        &mut self,
        mut stream: Stream,
        asked: bool,
        messages: &str,
        ending: &str,
    ) -> io::Result<()> {
        say(&format!("connected {:?}", stream.handshake_kind()));
        if !asked {
            stream.write_u8(b'?').await?;
        }
        let delivered = stream.read_u64().await?;
        assert!(delivered >= self.acknowledged, "what was acknowledged is lost");
        // Their echo was lost.
        while self.acknowledged < delivered {
            self.acknowledge();
        }
        for count in 0..messages.parse().unwrap() {
            let message = message(self.acknowledged);
            stream.write_all(&message).await?;
            if count % 2 == 1 {
                stream.rekey().await?;
            }
            let mut echo = [0; MESSAGE];
            stream.read_exact(&mut echo).await?;
            assert!(echo == message, "another echo than was sent");
            self.acknowledge();
        }
        let statistics = stream.statistics();
        say(&format!("rekeyed {} {}", statistics.own_updates, statistics.peer_updates));
        if ending == "close" {
            stream.shutdown().await?;
            assert_eq!(stream.read(&mut [0]).await?, 0);
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        step("before an echo is noted");
        self.log.write(&format!("acknowledged {}", self.acknowledged));
        self.acknowledged += 1;
    }
}

impl Server {
    fn new(directory: &Path) -> Self {
        let policy = RekeyPolicy::manual().with_bytes(SERVER_REKEY_BYTES);
        let setup = Setup::new(directory, ["server", "client"], policy);
        let (log, lines) = Log::open(&directory.join("server.log"));
        let delivered = with_word(&lines, "delivered").len() as u64;
        let session = with_word(&lines, "session").last().map(|hex| {
            let digits = hex.as_bytes().chunks(2);
            let bytes = digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16));
            SessionId::new(bytes.collect::<Result<Vec<_>, _>>().unwrap())
        });
        Self { setup, log, delivered, session }
    }

    /// One connection at a time: the next one is not answered before all that the last one brought
    /// has been delivered.
    async fn run(mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&format!("ready {}", listener.local_addr().unwrap()));
        let mut commands = commands();
        loop {
            let result = tokio::select! {
                biased;
                socket = listener.accept() => self.accept(socket.unwrap().0).await,
                command = commands.recv() => match command.as_deref() {
                    None => return,
                    Some("settle") => {
                        say("settled");
                        continue;
                    }
                    Some(command) => match command.split_once(' ') {
                        Some(("arm", at)) => {
                            arm(at.parse().ok());
                            say("armed");
                            continue;
                        }
                        Some(("call", address)) => self.call(address).await,
                        _ => panic!("{command}"),
                    }
                }
            };
            if let Err(error) = result {
                say(&format!("cut {error}"));
            }
        }
    }

    async fn accept(&mut self, socket: TcpStream) -> io::Result<()> {
        let acceptor = MlsAcceptor::from(Arc::clone(&self.setup.config));
        let (early_data, accept) = acceptor.accept_with_early_data(transport(socket)?).await?;
        // TL-08: the client learns that its data was accepted when it has been delivered.
        if let Some(early_data) = &early_data {
            let number = number_of(early_data);
            step("before early data is delivered");
            self.log.write(&format!("early {number}"));
            step("after early data is delivered");
        }
        let stream = accept.await?;
        // 2P-14: no full handshake while there is a session. A client that has begun this one never
        // forgets it, for it has stored it before the first record that it sent.
        assert!(self.setup.store.len().unwrap() <= 1, "a session was passed over");
        let session = stream.session_id().unwrap();
        if self.session.as_ref() != Some(session) {
            self.log.write(&format!("session {session}"));
            self.session = Some(session.clone());
        }
        self.exchange(stream, early_data.is_some()).await
    }

    async fn call(&mut self, address: &str) -> io::Result<()> {
        let session = self.session.clone().unwrap();
        let socket = transport(TcpStream::connect(address).await?)?;
        let connector = MlsConnector::from(Arc::clone(&self.setup.config));
        let stream = connector.resume(&session, socket).await?;
        assert_eq!(stream.handshake_kind(), HandshakeKind::Resumed);
        self.exchange(stream, false).await
    }

    async fn exchange(&mut self, mut stream: Stream, asked: bool) -> io::Result<()> {
        if !asked {
            assert_eq!(stream.read_u8().await?, b'?');
        }
        stream.write_u64(self.delivered).await?;
        loop {
            let mut received = [0; MESSAGE];
            let length = stream.read(&mut received).await?;
            if length == 0 {
                return stream.shutdown().await;
            }
            stream.read_exact(&mut received[length..]).await?;
            // 2P-21: none is lost and none comes twice.
            assert_eq!(number_of(&received), self.delivered);
            step("before a message is delivered");
            self.log.write(&format!("delivered {}", self.delivered));
            self.delivered += 1;
            step("after a message is delivered");
            stream.write_all(&received).await?;
        }
    }
}

impl Setup {
    fn new(directory: &Path, [own, peer]: [&str; 2], policy: RekeyPolicy) -> Self {
        let identity = |name: &str| {
            Identity::read_pem_file(name, directory.join(format!("{name}.pem"))).unwrap()
        };
        // What a process has written stays when it is killed, whether the disk has it or not.
        let path = directory.join(format!("{own}.sessions"));
        let store = Arc::new(RedbStore::open_without_sync(path).unwrap());
        let found = Arc::new(AtomicU64::new(0));
        let pinned = PinnedKeys::parse(&identity(peer).public_line()).unwrap();
        let config = Config::builder()
            .identity(identity(own))
            .authentication_service(pinned)
            .rekey_policy(policy)
            .limits(Limits::default().with_max_early_data(1024))
            .session_store(SteppingStore(Arc::clone(&store), Arc::clone(&found)))
            .build()
            .unwrap();
        Self { config: Arc::new(config), store, found }
    }
}

fn transport(socket: TcpStream) -> io::Result<SteppingIo<TcpStream>> {
    socket.set_nodelay(true)?;
    Ok(SteppingIo(socket))
}

/// What the parent says. Its end is the end of the channel.
fn commands() -> UnboundedReceiver<String> {
    let (sender, commands) = mpsc::unbounded_channel();
    // A thread, for tokio's stdin would keep a process alive that has panicked.
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    commands
}

fn say(line: &str) {
    eprintln!("{line}");
}

/// A message of this number.
fn message(number: u64) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    let (head, body) = message.split_at_mut(8);
    head.copy_from_slice(&number.to_be_bytes());
    for (place, byte) in body.iter_mut().zip((0..=250).cycle().skip(head[7].into())) {
        *place = byte;
    }
    message
}

fn number_of(received: &[u8]) -> u64 {
    let number = u64::from_be_bytes(received[..8].try_into().unwrap());
    assert!(received == message(number), "another message than was sent");
    number
}
