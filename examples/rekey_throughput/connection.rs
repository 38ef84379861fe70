//! One connection: two ends that rekey turn by turn, and send each other messages meanwhile.

use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use mls_channel::{MlsStream, OwnedReadHalf, OwnedWriteHalf};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Barrier, Semaphore},
    task::JoinHandle,
};

use crate::{
    Failure,
    record::{Recorder, Rekey},
};

/// What is written at once: one record.
const MESSAGE: [u8; 1024] = [0x5a; 1024];

/// How many bytes may be on their way in one direction. More would wait in the buffers of the
/// sockets, and the rekey behind them.
const WINDOW: usize = 16 * MESSAGE.len();

/// Who asks for rekeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// The client
    Client,
    /// The server
    Server,
    /// Each in turn
    Both,
    /// Both at the same moment
    Crossing,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What each connection does.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) direction: Direction,
    /// What each side sends between two rekeys.
    pub(crate) payload: u64,
    /// No rekey begins after it.
    pub(crate) deadline: Instant,
}

/// What a connection did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rekeys: u64,
    /// Times that the updates of both sides crossed.
    pub(crate) crossings: u64,
    /// Application data that has arrived, in both directions.
    pub(crate) bytes: u64,
}

/// What the two ends share.
struct Turns {
    barrier: Barrier,
    over: AtomicBool,
    /// How many rekeys are done, of both sides.
    done: AtomicU64,
    to_server: Flow,
    to_client: Flow,
}

/// The messages that go one way.
struct Flow {
    window: Semaphore,
    /// One for each side that may be waiting for a rekey.
    gaps: Mutex<[Gap; 2]>,
}

/// The longest time without an arrival since a rekey was asked for.
struct Gap {
    last: Instant,
    longest: Duration,
    /// When the rekey was done.
    end: Option<Instant>,
}

struct End {
    side: Side,
    /// The number of the connection.
    connection: usize,
    sender: OwnedWriteHalf<TcpStream>,
    plan: Plan,
    turns: Arc<Turns>,
    recorder: Arc<Recorder>,
}

/// Starts the tasks of a connection. What is returned waits for them to end.
pub(crate) fn start(
    connection: usize,
    client: MlsStream<TcpStream>,
    server: MlsStream<TcpStream>,
    plan: Plan,
    recorder: &Arc<Recorder>,
) -> impl Future<Output = Result<Outcome, Failure>> {
    let turns = Arc::new(Turns {
        barrier: Barrier::new(2),
        over: AtomicBool::new(false),
        done: AtomicU64::new(0),
        to_server: Flow::new(),
        to_client: Flow::new(),
    });
    let spawn = |side, stream: MlsStream<TcpStream>| {
        let (receiver, sender) = stream.into_split();
        let (turns, recorder) = (Arc::clone(&turns), Arc::clone(recorder));
        let reading = tokio::spawn(receive(side, receiver, Arc::clone(&turns)));
        let end = End { side, connection, sender, plan, turns, recorder };
        (tokio::spawn(end.run()), reading)
    };
    let (client, client_reading) = spawn(Side::Client, client);
    let (server, server_reading) = spawn(Side::Server, server);
    async fn result<T>(task: JoinHandle<io::Result<T>>) -> Result<T, Failure> {
        Ok(task.await??)
    }
    async move {
        // The first error ends all: the others might wait for that end for ever.
        let (client, server, at_client, at_server) = tokio::try_join!(
            result(client),
            result(server),
            result(client_reading),
            result(server_reading)
        )?;
        let (client, server) = (client.statistics(), server.statistics());
        if client.bytes_sent + server.bytes_sent != at_client + at_server {
            return Err("not all data has arrived".into());
        }
        Ok(Outcome {
            rekeys: client.own_updates + server.own_updates,
            // Each end counts every crossing.
            crossings: client.crossed_updates,
            bytes: at_client + at_server,
        })
    }
}

/// Reads until the peer has closed, and gives the number of bytes.
async fn receive(
    side: Side,
    mut receiver: OwnedReadHalf<TcpStream>,
    turns: Arc<Turns>,
) -> io::Result<u64> {
    let flow = turns.flow_to(side);
    let mut buffer = vec![0; WINDOW];
    let mut total = 0;
    loop {
        let length = receiver.read(&mut buffer).await?;
        if length == 0 {
            return Ok(total);
        }
        flow.arrived(length);
        total += length as u64;
    }
}

impl End {
    async fn run(mut self) -> io::Result<OwnedWriteHalf<TcpStream>> {
        let mut expected = 0;
        for turn in 0.. {
            let mut left = self.plan.payload;
            while left > 0 && Instant::now() < self.plan.deadline {
                left -= self.send(left).await?;
            }
            // One of the two decides, so that both take the same number of turns.
            if self.side == Side::Client && Instant::now() >= self.plan.deadline {
                self.turns.over.store(true, Ordering::Release);
            }
            self.turns.barrier.wait().await;
            if self.turns.over.load(Ordering::Acquire) {
                break;
            }
            let (asks, rekeys) = self.plan.direction.asks(self.side, turn);
            expected += rekeys;
            if asks {
                let rekey = self.rekey().await?;
                self.recorder.record(&rekey)?;
                self.turns.done.fetch_add(1, Ordering::AcqRel);
            }
            while self.plan.payload > 0 && self.turns.done.load(Ordering::Acquire) < expected {
                self.send(u64::MAX).await?;
            }
        }
        self.sender.shutdown().await?;
        Ok(self.sender)
    }

    async fn rekey(&mut self) -> io::Result<Rekey> {
        let crossed_before = self.sender.statistics().crossed_updates;
        let asked = Instant::now();
        let (completed, stall) = match self.plan.payload {
            0 => {
                self.sender.rekey().await?;
                (Instant::now(), None)
            }
            _ => self.rekey_with_data(asked).await?,
        };
        Ok(Rekey {
            connection: self.connection,
            side: self.side,
            completed,
            time: completed - asked,
            stall,
            crossed: self.sender.statistics().crossed_updates > crossed_before,
        })
    }

    /// Goes on sending until the rekey is done and a message has arrived at both ends since.
    async fn rekey_with_data(&mut self, asked: Instant) -> io::Result<(Instant, Option<Duration>)> {
        let turns = Arc::clone(&self.turns);
        let flows = [&turns.to_server, &turns.to_client];
        flows.iter().for_each(|flow| flow.watch(self.side, asked));
        let ticket = self.sender.request_rekey().await?;
        while self.sender.statistics().own_updates < ticket {
            self.send(u64::MAX).await?;
        }
        let completed = Instant::now();
        flows.iter().for_each(|flow| flow.complete(self.side, completed));
        loop {
            if let [Some(one), Some(other)] = flows.map(|flow| flow.stall(self.side)) {
                return Ok((completed, Some(one.max(other))));
            }
            self.send(u64::MAX).await?;
        }
    }

    /// Sends a message of at most `limit` bytes when the window has room for it.
    async fn send(&mut self, limit: u64) -> io::Result<u64> {
        let length = usize::try_from(limit).map_or(MESSAGE.len(), |limit| limit.min(MESSAGE.len()));
        let permits = u32::try_from(length).map_err(io::Error::other)?;
        let flow = self.turns.flow_to(self.side.other());
        flow.window.acquire_many(permits).await.map_err(io::Error::other)?.forget();
        self.sender.write_all(&MESSAGE[..length]).await?;
        Ok(length as u64)
    }
}

impl Turns {
    fn flow_to(&self, side: Side) -> &Flow {
        match side {
            Side::Client => &self.to_client,
            Side::Server => &self.to_server,
        }
    }
}

impl Flow {
    fn new() -> Self {
        let now = Instant::now();
        let gaps = [(); 2].map(|()| Gap { last: now, longest: Duration::ZERO, end: None });
        Self { window: Semaphore::new(WINDOW), gaps: Mutex::new(gaps) }
    }

    fn arrived(&self, length: usize) {
        let now = Instant::now();
        for gap in &mut *self.gaps.lock().unwrap_or_else(PoisonError::into_inner) {
            if gap.end.is_none_or(|end| gap.last < end) {
                gap.longest = gap.longest.max(now.saturating_duration_since(gap.last));
            }
            gap.last = now;
        }
        self.window.add_permits(length);
    }

    /// `side` asks for a rekey.
    fn watch(&self, side: Side, asked: Instant) {
        self.with(side, |gap| *gap = Gap { last: asked, longest: Duration::ZERO, end: None });
    }

    /// The rekey is done.
    fn complete(&self, side: Side, completed: Instant) {
        self.with(side, |gap| gap.end = Some(completed));
    }

    /// The longest gap, when something has arrived since the rekey was done.
    fn stall(&self, side: Side) -> Option<Duration> {
        self.with(side, |gap| gap.end.is_some_and(|end| gap.last >= end).then_some(gap.longest))
    }

    fn with<T>(&self, side: Side, work: impl FnOnce(&mut Gap) -> T) -> T {
        let [client, server] = &mut *self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        match side {
            Side::Client => work(client),
            Side::Server => work(server),
        }
    }
}

impl Direction {
    /// Whether `side` asks for a rekey in this turn, and how many of the two do.
    fn asks(self, side: Side, turn: u64) -> (bool, u64) {
        let one = match self {
            Self::Client => Side::Client,
            Self::Server => Side::Server,
            Self::Both if turn.is_multiple_of(2) => Side::Client,
            Self::Both => Side::Server,
            Self::Crossing => return (true, 2),
        };
        (side == one, 1)
    }
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
