//! Renews the keys of a channel again and again while data flows in both directions.
//!
//! ```text
//! cargo run --release --example rekey_watch
//! cargo run --release --example rekey_watch -- --rekeys 100 --interval-bytes 64KiB
//! ```
//!
//! The rekeys are asked for by the client, by the server, and now and then by both at once. Then
//! the updates cross on the way: the client's goes first, and the server's follows it. Every line
//! is one rekey. Its time runs from the call to the moment when both directions use the new epoch,
//! so it holds a round trip and whatever data is in the way.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use mls_channel::{
    Config, Identity, MlsAcceptor, MlsConnector, MlsStream, OwnedWriteHalf, PinnedKeys,
    RekeyPolicy, ServerName,
};
use tokio::{
    io::{AsyncWriteExt, sink},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    task::JoinHandle,
};

use crate::size::Size;

#[path = "common/size.rs"]
mod size;

/// How much is written at once.
const BLOCK: [u8; 16 * 1024] = [0x5a; 16 * 1024];

/// Shows what rekeys cost while data flows.
#[derive(Parser)]
struct Arguments {
    /// How many rekeys to do
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    rekeys: u32,
    /// How many bytes each side sends for every turn, besides what it sends during a rekey
    #[arg(long, default_value = "4MiB", value_name = "SIZE")]
    interval_bytes: Size,
}

/// One end of the channel. A task of its own reads and drops what the other end sends.
struct End {
    name: &'static str,
    sender: OwnedWriteHalf<TcpStream>,
    reading: JoinHandle<io::Result<u64>>,
    /// What both ends have sent.
    moved: Arc<AtomicU64>,
}

/// One rekey, as the end saw it that asked for it.
struct Rekey {
    who: &'static str,
    time: Duration,
    completed: Instant,
    /// What both ends had sent by then.
    moved: u64,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut out = io::stdout();
    let (client, server) = connect().await?;
    writeln!(out, "{} over TCP, epoch {}", client.cipher_suite(), client.epoch())?;
    writeln!(out, "{:>8}  {:<6}  {:>10}  {:>10}", "epoch", "who", "time/us", "bytes")?;
    let moved = Arc::new(AtomicU64::new(0));
    let mut client = End::new("client", client, &moved);
    let mut server = End::new("server", server, &moved);

    let start = Instant::now();
    let bytes = arguments.interval_bytes.0;
    let mut moved_before = 0;
    let mut crossings = 0;
    let mut times = Vec::new();
    for turn in 0_u64.. {
        let left = (arguments.rekeys as usize).saturating_sub(times.len());
        // Each side alone, then both, unless only one rekey is left to do.
        let (client_asks, server_asks) = match (left, turn % 3) {
            (0, _) => break,
            (_, 0) => (true, false),
            (_, 1) => (false, true),
            (_, _) => (true, left > 1),
        };
        let mut epoch = client.sender.epoch();
        let crossed_before = client.crossed() + server.crossed();
        // Whoever asks waits at the barrier for the other one that does.
        let barrier = Arc::new(Barrier::new(usize::from(client_asks) + usize::from(server_asks)));
        let client_turn = client.turn(bytes, client_asks.then(|| Arc::clone(&barrier)));
        let server_turn = server.turn(bytes, server_asks.then_some(barrier));
        let turns = tokio::try_join!(tokio::spawn(client_turn), tokio::spawn(server_turn))?;
        let (by_client, by_server);
        (client, by_client) = turns.0?;
        (server, by_server) = turns.1?;
        let crossed = client.crossed() + server.crossed() > crossed_before;

        // If they crossed, the client's went first, whatever was noticed first.
        let mut rekeys: Vec<Rekey> = by_client.into_iter().chain(by_server).collect();
        if crossed {
            crossings += 1;
        } else {
            rekeys.sort_by_key(|rekey| rekey.completed);
        }
        for Rekey { who, time, moved, .. } in rekeys {
            epoch += 1;
            let bytes = Size(moved.saturating_sub(moved_before)).to_string();
            let note = if crossed { "  crossed" } else { "" };
            writeln!(out, "{epoch:>8}  {who:<6}  {:>10}  {bytes:>10}{note}", time.as_micros())?;
            moved_before = moved_before.max(moved);
            times.push(time);
        }
    }
    let elapsed = start.elapsed();

    tokio::try_join!(client.sender.shutdown(), server.sender.shutdown())?;
    let received = client.reading.await?? + server.reading.await??;
    if received != moved.load(Relaxed) {
        return Err(format!("{received} bytes arrived of {moved:?}").into());
    }
    times.sort();
    writeln!(
        out,
        "{} rekeys, {crossings} times both at once; median {:.1?}, 95 of 100 within {:.1?}",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 95),
    )?;
    let moved = Size(received);
    writeln!(out, "{moved} moved in {elapsed:.2?}, {}/s", moved.per_second(elapsed))?;
    Ok(())
}

impl End {
    fn new(name: &'static str, stream: MlsStream<TcpStream>, moved: &Arc<AtomicU64>) -> Self {
        let (mut receiver, sender) = stream.into_split();
        let reading =
            tokio::spawn(async move { tokio::io::copy_buf(&mut receiver, &mut sink()).await });
        Self { name, sender, reading, moved: Arc::clone(moved) }
    }

    /// Sends `bytes`, with a rekey in the middle if this end is to ask for one.
    async fn turn(
        mut self,
        bytes: u64,
        asks: Option<Arc<Barrier>>,
    ) -> io::Result<(Self, Option<Rekey>)> {
        let half = bytes / 2;
        self.send(half).await?;
        let mut rekey = None;
        if let Some(barrier) = asks {
            barrier.wait().await;
            rekey = Some(self.rekey().await?);
        }
        self.send(bytes - half).await?;
        Ok((self, rekey))
    }

    /// Asks for a rekey and goes on sending until it is done. Where there is nothing to send, that
    /// is `self.sender.rekey().await`.
    async fn rekey(&mut self) -> io::Result<Rekey> {
        let start = Instant::now();
        let ticket = self.sender.request_rekey().await?;
        while self.sender.statistics().own_updates < ticket {
            self.send_block(BLOCK.len()).await?;
        }
        let completed = Instant::now();
        let moved = self.moved.load(Relaxed);
        Ok(Rekey { who: self.name, time: completed - start, completed, moved })
    }

    async fn send(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            left -= self.send_block(usize::try_from(left).unwrap_or(usize::MAX)).await?;
        }
        Ok(())
    }

    async fn send_block(&mut self, limit: usize) -> io::Result<u64> {
        let sent = self.sender.write(&BLOCK[..limit.min(BLOCK.len())]).await? as u64;
        self.moved.fetch_add(sent, Relaxed);
        Ok(sent)
    }

    /// How often this end saw updates cross.
    fn crossed(&self) -> u64 {
        self.sender.statistics().crossed_updates
    }
}

/// A channel over TCP between two new identities that know each other.
async fn connect() -> Result<(MlsStream<TcpStream>, MlsStream<TcpStream>), Failure> {
    let (client, server) = (Identity::generate("client")?, Identity::generate("server")?);
    let connector = MlsConnector::from(config(&client, &server)?);
    let acceptor = MlsAcceptor::from(config(&server, &client)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let name = ServerName::new("server")?;
    Ok(tokio::try_join!(connector.connect(name, near), acceptor.accept(far))?)
}

/// A configuration that renews keys only when asked.
fn config(own: &Identity, peer: &Identity) -> Result<Arc<Config>, Failure> {
    let config = Config::builder()
        .identity(own.clone())
        .authentication_service(PinnedKeys::parse(&peer.public_line())?)
        .rekey_policy(RekeyPolicy::manual())
        .build()?;
    Ok(Arc::new(config))
}

/// The time within which `percent` of the sorted times lie.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}
