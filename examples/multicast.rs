//! Members of a universe who talk over TCP, each to all the others.
//!
//! ```text
//! cargo run --release --example multicast
//! cargo run --release --example multicast -- --members 8
//! ```
//!
//! The first member invites the others over TCP; then there is a leg between each two. They talk,
//! renew their keys and take over each other's. One loses all its legs and comes back: nothing is
//! lost. One falls silent for good, and is removed. Each claim that is printed has been checked.

use std::{
    collections::BTreeSet,
    error::Error,
    io,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use mls_channel::{
    Backoff, Config, DmlsEvent, DmlsPolicy, Identity, MemberIndex, Multicast, MulticastConfig,
    MulticastEvent, PinnedKeys,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Who acknowledges nothing for so long is removed.
const SILENCE: Duration = Duration::from_secs(3);

/// Members who talk, renew their keys, lose their legs and one of their own.
#[derive(Parser)]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=50))]
    members: u16,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let count = arguments.members;
    let start = Instant::now();
    let (mut members, plugs) = universe(count).await?;
    println!("{count} members, a TCP connection between each two: {:.1?}", start.elapsed());

    everyone_talks(&mut members, "hello").await?;
    println!("talk         each has sent a message, protected once, and has those of all others");

    for member in &members {
        member.update().await?;
    }
    for member in &mut members {
        let mut missing: BTreeSet<u16> = (0..count).collect();
        while !missing.is_empty() {
            let event = next(member, is_update).await?;
            missing.remove(&event.0);
        }
    }
    println!("update       each has renewed its keys, and everybody has followed");

    for place in 0..members.len() {
        incorporate(&mut members, place).await?;
    }
    everyone_talks(&mut members, "with everybody's new keys").await?;
    println!(
        "incorporate  each has taken over the new keys of all others: who was robbed has healed"
    );

    // The last one is cut off from everybody while the others go on.
    let last = members.len() - 1;
    plugs[last].send_replace(false);
    legs(&mut members[last], usize::from(count) - 1, is_down).await?;
    for number in 0..10 {
        members[0].send(format!("{number}")).await?;
    }
    members[0].update().await?;
    members[0].send("after an update").await?;
    members[last].send("written while nobody could hear").await?;
    plugs[last].send_replace(true);
    let mut said = Vec::new();
    for _ in 0..11 {
        let (from, data) = next(&mut members[last], is_message).await?;
        check(from == MemberIndex(0), "somebody else spoke")?;
        said.push(String::from_utf8(data)?);
    }
    let expected: Vec<_> =
        (0..10).map(|number| number.to_string()).chain(["after an update".to_owned()]).collect();
    check(said == expected, "something was lost")?;
    for member in &mut members[..last] {
        while next(member, is_message).await?.0 != MemberIndex(count - 1) {}
    }
    println!(
        "come back    one had lost all its legs; 11 messages and a commit have come afterwards"
    );

    // And this time it stays away.
    plugs[last].send_replace(false);
    let silent = members.pop().ok_or("nobody is left")?;
    let since = Instant::now();
    for member in &members {
        member.send("are you all there?").await?;
    }
    for member in &mut members {
        let removed = next(member, is_removal).await?;
        check(removed == MemberIndex(count - 1), "the wrong member was removed")?;
    }
    let took = since.elapsed();
    // It may have been owing an acknowledgement already.
    check(took >= SILENCE / 2, "it was removed too soon")?;
    println!("remove       one has fallen silent; after {took:.1?} it was removed from all groups");

    let secret = "without the one who is gone";
    members[0].send(secret).await?;
    for member in &mut members[1..] {
        while next(member, is_message).await?.1 != secret.as_bytes() {}
        check(member.members().await?.len() == usize::from(count) - 1, "it is still a member")?;
    }
    drop(silent);
    for member in members {
        member.leave().await;
    }
    println!("leave        the others go on without it, and leave with a goodbye");
    println!("all in       {:.1?}", start.elapsed());
    Ok(())
}

/// The members, and for each one the plug of all its legs.
async fn universe(count: u16) -> Result<(Vec<Multicast>, Vec<watch::Sender<bool>>), Failure> {
    let mut identities = Vec::new();
    for place in 0..count {
        identities.push(Identity::generate(&format!("member{place}"))?);
    }
    let known: String = identities.iter().map(|identity| identity.public_line() + "\n").collect();
    let mut policy = DmlsPolicy::default();
    policy.acknowledge_after = Duration::from_millis(200);
    policy.acknowledge_updates_after = Duration::from_millis(50);
    policy.remove_unacknowledged_after = Some(SILENCE);
    let mut configs = Vec::new();
    for identity in identities {
        let config = Config::builder()
            .identity(identity)
            .authentication_service(PinnedKeys::parse(&known)?)
            .build()?;
        configs.push(MulticastConfig::new(Arc::new(config)).policy(policy));
    }

    // The legs of the invitation last until the others are there.
    let (invited, plug) = watch::channel(true);
    let mut inviting = Vec::new();
    let mut joining = Vec::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    for config in configs.split_off(1) {
        let leg = TcpStream::connect(listener.local_addr()?).await?;
        inviting.push(wire(listener.accept().await?.0, plug.clone())?);
        joining.push(tokio::spawn(async move { config.join(leg).await }));
    }
    let host = configs.pop().ok_or("nobody invites")?;
    let mut members = vec![host.invite(inviting).await?];
    for joining in joining {
        members.push(joining.await??);
    }

    // Between each two there is a leg that comes back when it has broken.
    let plugs: Vec<_> = members.iter().map(|_| watch::channel(true).0).collect();
    let mut addresses = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        let accept = member.sender();
        let plug = plugs[place].subscribe();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if *plug.borrow() && accept.accept_leg(wire(socket, plug.clone())?).is_err() {
                    break;
                }
            }
            io::Result::Ok(())
        });
    }
    let mut backoff = Backoff::default();
    backoff.first = Duration::from_millis(20);
    backoff.longest = Duration::from_millis(200);
    for (from, member) in (0..).zip(&members) {
        for (to, address) in (0_u16..).zip(&addresses).skip(from + 1) {
            let (address, plug) = (*address, plugs[from].subscribe());
            member.keep_leg(MemberIndex(to), backoff, move || connect(address, plug.clone()));
        }
    }
    // The first has two legs with each of the others, until those of the invitation go.
    let others = usize::from(count) - 1;
    for (place, member) in members.iter_mut().enumerate() {
        legs(member, if place == 0 { 2 * others } else { others + 1 }, is_up).await?;
    }
    invited.send_replace(false);
    for (place, member) in members.iter_mut().enumerate() {
        legs(member, if place == 0 { others } else { 1 }, is_down).await?;
    }
    Ok((members, plugs))
}

async fn connect(
    address: SocketAddr,
    plug: watch::Receiver<bool>,
) -> io::Result<tokio::io::DuplexStream> {
    if !*plug.borrow() {
        return Err(io::ErrorKind::NetworkUnreachable.into());
    }
    wire(TcpStream::connect(address).await?, plug)
}

/// A TCP connection that ends when it is unplugged.
fn wire(
    mut socket: TcpStream,
    mut plug: watch::Receiver<bool>,
) -> io::Result<tokio::io::DuplexStream> {
    socket.set_nodelay(true)?;
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut socket, &mut far) => {}
            _ = plug.wait_for(|is_in| !is_in) => {}
        }
    });
    Ok(near)
}

async fn everyone_talks(members: &mut [Multicast], word: &str) -> Result<(), Failure> {
    for member in &*members {
        member.send(format!("{word}, says {}", member.me().0)).await?;
    }
    let everyone: BTreeSet<u16> = members.iter().map(|member| member.me().0).collect();
    for member in members {
        let mut heard = BTreeSet::from([member.me().0]);
        while heard != everyone {
            let (from, data) = next(member, is_message).await?;
            check(data == format!("{word}, says {}", from.0).as_bytes(), "other words")?;
            check(heard.insert(from.0), "somebody was heard twice")?;
        }
    }
    Ok(())
}

/// Has a member commit until it has the newest keys of all others.
async fn incorporate(members: &mut [Multicast], place: usize) -> Result<(), Failure> {
    let me = members[place].me();
    let mut missing: BTreeSet<u16> = members.iter().map(|member| member.me().0).collect();
    missing.remove(&me.0);
    while !missing.is_empty() {
        // An update is taken over when all have acknowledged it.
        while !members[place].commit().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let incorporated = next(&mut members[place], |event| match event {
            MulticastEvent::Universe(DmlsEvent::EpochChanged { member, incorporated, .. }) => {
                (member == me && !incorporated.is_empty()).then_some(incorporated)
            }
            _ => None,
        });
        for member in incorporated.await? {
            missing.remove(&member.0);
        }
    }
    Ok(())
}

/// Waits until so many legs have come, or gone.
async fn legs(
    member: &mut Multicast,
    count: usize,
    which: fn(MulticastEvent) -> Option<()>,
) -> Result<(), Failure> {
    for _ in 0..count {
        next(member, which).await?;
    }
    Ok(())
}

fn is_up(event: MulticastEvent) -> Option<()> {
    matches!(event, MulticastEvent::LegUp { .. }).then_some(())
}

fn is_down(event: MulticastEvent) -> Option<()> {
    matches!(event, MulticastEvent::LegDown { .. }).then_some(())
}

/// The next event that `select` wants, if it comes soon.
async fn next<T>(
    member: &mut Multicast,
    select: impl Fn(MulticastEvent) -> Option<T>,
) -> Result<T, Failure> {
    let wait = async {
        loop {
            let event = member.next_event().await.ok_or("a member has ended")??;
            if let MulticastEvent::Universe(DmlsEvent::Refused { member, error }) = &event {
                return Err(format!("member {} was refused: {error}", member.0).into());
            }
            if let Some(found) = select(event) {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.map_err(|_| "it does not come")?
}

fn is_message(event: MulticastEvent) -> Option<(MemberIndex, Vec<u8>)> {
    match event {
        MulticastEvent::Message { from, data } => Some((from, data.to_vec())),
        _ => None,
    }
}

fn is_update(event: MulticastEvent) -> Option<MemberIndex> {
    match event {
        MulticastEvent::Universe(DmlsEvent::EpochChanged { member, update: true, .. }) => {
            Some(member)
        }
        _ => None,
    }
}

fn is_removal(event: MulticastEvent) -> Option<MemberIndex> {
    match event {
        MulticastEvent::Universe(DmlsEvent::Removed { member, .. }) => Some(member),
        _ => None,
    }
}

fn check(claim: bool, otherwise: &'static str) -> Result<(), Failure> {
    if claim { Ok(()) } else { Err(otherwise.into()) }
}
