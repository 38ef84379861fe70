//! A chat without a server: what one types, all others read.
//!
//! Everybody makes an identity, and all have one file with the public lines of all:
//!
//! ```text
//! cargo run --release --example multicast_chat -- --generate --identity anna.pem >> members.keys
//! cargo run --release --example multicast_chat -- --generate --identity bert.pem >> members.keys
//! cargo run --release --example multicast_chat -- --generate --identity carl.pem >> members.keys
//! ```
//!
//! The first in the file invites and waits for the others; then all are connected with each other. A
//! line of `members.keys` stands for who listens at the address given for it:
//!
//! ```text
//! ... --identity anna.pem --members members.keys --listen 127.0.0.1:5001
//! ... --identity bert.pem --members members.keys --listen 127.0.0.1:5002 --peer anna=127.0.0.1:5001
//! ... --identity carl.pem --members members.keys \
//!       --peer anna=127.0.0.1:5001 --peer bert=127.0.0.1:5002
//! ```
//!
//! Who cannot reach each other use a relay (`relay.rs`), to which all of them connect:
//!
//! ```text
//! ... --identity anna.pem --members members.keys --relay 127.0.0.1:4434
//! ```
//!
//! Direct connections are channels of this crate, that to the relay is bare TCP: the relay could not
//! read it anyway. What is said goes to stdout, everything else to stderr. At the end of stdin one
//! leaves, when the others have got what one said.

use std::{
    collections::HashSet, error::Error, io, path::PathBuf, process::ExitCode, str::FromStr,
    sync::Arc,
};

use clap::Parser;
use mls_channel::{
    Backoff, Config, DmlsEvent, Identity, LegEnd, LegPeer, MemberIndex, MlsAcceptor, MlsConnector,
    MlsListener, MlsStream, Multicast, MulticastConfig, MulticastEvent, MulticastSender,
    PinnedKeys, ServerName,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    runtime::Runtime,
};

use crate::identity::IdentityOptions;

#[path = "common/identity.rs"]
mod identity;

/// A chat in which everybody is connected with everybody, or with a relay.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    identity: IdentityOptions,
    /// The file with the public lines of all members, the same for all; the first one invites
    #[arg(long, value_name = "FILE", required_unless_present = "generate")]
    members: Option<PathBuf>,
    /// Where to listen for members; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A member that listens, and where
    #[arg(long, value_name = "NAME=ADDRESS")]
    peer: Vec<Peer>,
    /// The relay that all members use instead
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["listen", "peer"])]
    relay: Option<String>,
}

#[derive(Clone)]
struct Peer {
    name: String,
    address: String,
}

type Failure = Box<dyn Error + Send + Sync>;
type Channel = MlsStream<TcpStream>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.members {
        Some(members) if !arguments.identity.generate => {
            Runtime::new().map_err(Failure::from).and_then(|runtime| {
                let result = runtime.block_on(run(&arguments, members));
                // A read of stdin that is under way cannot be called off; do not wait for it.
                runtime.shutdown_background();
                result
            })
        }
        _ => arguments.identity.generate(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, path: &PathBuf) -> Result<(), Failure> {
    let identity = arguments.identity.load()?;
    let lines = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let names: Vec<String> = lines
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let me = names.iter().position(|name| name == identity.name()).ok_or_else(|| {
        format!(
            "{} has no line of {}:\n{}",
            path.display(),
            identity.name(),
            identity.public_line()
        )
    })?;
    let config = config(identity, &lines)?;
    let multicast = MulticastConfig::new(Arc::clone(&config));

    let mut multicast = match &arguments.relay {
        Some(relay) => over_relay(&multicast, relay, &names, me).await?,
        None => in_a_mesh(arguments, &multicast, &config, &names, me).await?,
    };
    // Who says something and leaves at once should have been heard by all.
    let legs = if arguments.relay.is_some() { 1 } else { names.len() - 1 };
    let mut peers = HashSet::new();
    while peers.len() < legs {
        if let MulticastEvent::LegUp { peer } = multicast.next_event().await.ok_or("the end")?? {
            peers.insert(peer);
        }
    }
    eprintln!("connected with all: {}", names.join(", "));
    chat(multicast, &names).await
}

fn config(identity: Identity, lines: &str) -> Result<Arc<Config>, Failure> {
    let config = Config::builder()
        .identity(identity)
        .authentication_service(PinnedKeys::parse(lines)?)
        .build()?;
    Ok(Arc::new(config))
}

/// Copies what is typed to all, and what comes to stdout.
async fn chat(multicast: Multicast, names: &[String]) -> Result<(), Failure> {
    let (sender, mut events) = multicast.into_split();
    let name =
        |member: MemberIndex| names.get(usize::from(member.0)).map_or("somebody", String::as_str);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    loop {
        tokio::select! {
            line = lines.next_line() => match line.map_err(|error| format!("stdin: {error}"))? {
                Some(line) => sender.send(line).await?,
                None => break,
            },
            event = events.next_event() => match event {
                Some(Ok(MulticastEvent::Message { from, data })) => {
                    let line = format!("{}: {}\n", name(from), String::from_utf8_lossy(&data));
                    stdout.write_all(line.as_bytes()).await?;
                    stdout.flush().await?;
                }
                Some(Ok(event)) => tell(&event, name),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
    // The goodbye comes behind everything that was said.
    let leave = sender.leave();
    tokio::pin!(leave);
    loop {
        tokio::select! {
            () = &mut leave => return Ok(()),
            Some(_) = events.next_event() => {}
        }
    }
}

fn tell<'a>(event: &MulticastEvent, name: impl Fn(MemberIndex) -> &'a str) {
    let peer = |peer: LegPeer| match peer {
        LegPeer::Member(member) => name(member).to_owned(),
        LegPeer::Relay => "the relay".to_owned(),
        LegPeer::Unknown => "somebody".to_owned(),
    };
    match event {
        MulticastEvent::LegUp { peer: with } => eprintln!("connected with {}", peer(*with)),
        MulticastEvent::LegDown { peer: with, end: LegEnd::Goodbye } => {
            eprintln!("{} has left", peer(*with));
        }
        MulticastEvent::LegDown { peer: with, end } => eprintln!("{}: {end}", peer(*with)),
        MulticastEvent::Universe(DmlsEvent::Removed { member, by }) => {
            eprintln!("{} was removed by {}", name(*member), name(*by));
        }
        MulticastEvent::Universe(DmlsEvent::RemovedSelf { by }) => {
            eprintln!("{} has removed this member", name(*by));
        }
        MulticastEvent::Universe(DmlsEvent::Refused { member, error }) => {
            eprintln!("{} breaks the rules: {error}", name(*member));
        }
        _ => {}
    }
}

async fn over_relay(
    multicast: &MulticastConfig,
    relay: &str,
    names: &[String],
    me: usize,
) -> Result<Multicast, Failure> {
    let address = relay.to_owned();
    let connect = move || {
        let address = address.clone();
        async move {
            let socket = TcpStream::connect(&address).await?;
            socket.set_nodelay(true)?;
            Ok(socket)
        }
    };
    let first = retry(&connect).await;
    eprintln!("waiting for the others");
    let multicast = match me {
        0 => multicast.invite_through_relay(first, &names[1..]).await?,
        _ => multicast.join_through_relay(first, MemberIndex(u16::try_from(me)?)).await?,
    };
    // Another leg, which comes back when it breaks.
    multicast.keep_relay(Backoff::default(), connect);
    Ok(multicast)
}

async fn in_a_mesh(
    arguments: &Arguments,
    multicast: &MulticastConfig,
    config: &Arc<Config>,
    names: &[String],
    me: usize,
) -> Result<Multicast, Failure> {
    let mut listener = match &arguments.listen {
        Some(address) => {
            let acceptor = MlsAcceptor::from(Arc::clone(config));
            let listener = MlsListener::bind(address, acceptor)
                .await
                .map_err(|error| format!("cannot listen on {address}: {error}"))?
                .on_failure(|address, error| eprintln!("{address} was not let in: {error}"));
            eprintln!("listening on {}", listener.local_addr()?);
            Some(listener)
        }
        None => None,
    };
    let connector = MlsConnector::from(Arc::clone(config));
    let multicast = match (me, &mut listener) {
        (0, Some(listener)) => {
            let channels = gather(listener, &names[1..]).await?;
            multicast.invite_over_channels(channels).await?
        }
        (0, None) => return Err("the first member invites: say where to listen".into()),
        _ => {
            let first = arguments.peer.iter().find(|peer| peer.name == names[0]);
            let first = first.ok_or_else(|| format!("say where {} is, with --peer", names[0]))?;
            let channel = retry(&connect(&connector, first)?).await;
            multicast.join_over_channel(channel).await?
        }
    };
    for peer in &arguments.peer {
        let place = names.iter().position(|name| *name == peer.name);
        let place = place.ok_or_else(|| format!("{} is no member", peer.name))?;
        let member = MemberIndex(u16::try_from(place)?);
        multicast.keep_channel(member, Backoff::default(), connect(&connector, peer)?);
    }
    if let Some(listener) = listener {
        tokio::spawn(accept(listener, multicast.sender()));
    }
    Ok(multicast)
}

/// Waits for a channel with each of the others.
async fn gather(listener: &mut MlsListener, others: &[String]) -> Result<Vec<Channel>, Failure> {
    let mut channels: Vec<Option<Channel>> = others.iter().map(|_| None).collect();
    while channels.iter().any(Option::is_none) {
        let (channel, _) = listener.accept().await?;
        let place = others.iter().position(|name| name == channel.peer().name());
        if let Some(place) = place.and_then(|place| channels.get_mut(place)) {
            eprintln!("{} is here", channel.peer().name());
            *place = Some(channel);
        }
    }
    Ok(channels.into_iter().flatten().collect())
}

/// Members who connect later, or again.
async fn accept(mut listener: MlsListener, multicast: MulticastSender) {
    while let Ok((channel, address)) = listener.accept().await {
        if let Err(error) = multicast.add_channel(channel).await {
            eprintln!("{address} was not let in: {error}");
        }
    }
}

/// How to connect with a member.
fn connect(
    connector: &MlsConnector,
    peer: &Peer,
) -> Result<impl Fn() -> futures::future::BoxFuture<'static, io::Result<Channel>> + use<>, Failure>
{
    let (connector, address) = (connector.clone(), peer.address.clone());
    let name = ServerName::new(&peer.name)?;
    Ok(move || {
        let (connector, address, name) = (connector.clone(), address.clone(), name.clone());
        let connect = async move {
            let socket = TcpStream::connect(&address).await?;
            socket.set_nodelay(true)?;
            connector.connect(name, socket).await
        };
        Box::pin(connect) as _
    })
}

/// Tries until it works: the other side may not be there yet.
async fn retry<IO, F: Future<Output = io::Result<IO>>>(connect: &impl Fn() -> F) -> IO {
    let mut told = false;
    loop {
        match connect().await {
            Ok(io) => return io,
            Err(error) if !told => {
                eprintln!("not there yet: {error}");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

impl FromStr for Peer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS")?;
        Ok(Self { name: name.to_owned(), address: address.to_owned() })
    }
}
