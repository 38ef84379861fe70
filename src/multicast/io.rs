//! A leg over a stream of bytes: one task reads and writes it.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use super::{
    leg::{Leg, READ_SIZE},
    queue::{Outgoing, QueueReader},
};
use crate::{
    error::Error,
    wire::{LegFrame, LegHello, LegMessage},
};

/// A stream of bytes with what has been read of it.
#[derive(Debug)]
pub(crate) struct LegIo<IO> {
    io: IO,
    leg: Leg,
}

/// What a leg's task tells of it.
pub(crate) trait LegHandler: Send + Sync + 'static {
    /// The other end has said hello.
    fn handle_hello(&self, hello: LegHello) -> impl Future<Output = ()> + Send;

    /// Takes a frame, when there is room for it.
    fn handle_frame(&self, frame: LegFrame) -> impl Future<Output = ()> + Send;

    /// Everything has been written.
    fn drained(&self);
}

/// How a leg's task came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The other end has said goodbye.
    Goodbye,
    /// This end has said goodbye.
    Left,
    /// This end gave the leg up, and knows why.
    GivenUp,
    Broken(io::Error),
}

/// Who cannot process what comes says so often that it is still there: it does not read what it is asked.
const STALLED: Duration = Duration::from_secs(10);

/// What the reader of a leg has the writer say.
#[derive(Default)]
struct Pulse {
    ping: Notify,
    pong: Notify,
}

/// Times that bound what a leg may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the other end may take to say hello.
    pub(crate) hello: Duration,
    /// How long a goodbye may take.
    pub(crate) goodbye: Duration,
    pub(crate) keep_alive: Option<KeepAlive>,
}

/// Asks whether the other end is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// When nothing has come for so long.
    pub(crate) interval: Duration,
    /// How long after that something may take to come.
    pub(crate) timeout: Duration,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> LegIo<IO> {
    pub(crate) fn new(io: IO, max_frame_size: usize) -> Self {
        Self { io, leg: Leg::new(max_frame_size) }
    }

    /// The next message; `None` after a goodbye. Answers pings.
    pub(crate) async fn read(&mut self) -> io::Result<Option<LegMessage>> {
        loop {
            match read(&mut self.io, &mut self.leg, None, &Pulse::default()).await? {
                Some(LegMessage::Ping) => self.write(&LegMessage::Pong).await?,
                Some(LegMessage::Pong) => {}
                message => return Ok(message),
            }
        }
    }

    pub(crate) async fn write(&mut self, message: &LegMessage) -> io::Result<()> {
        write_now(&mut self.io, message).await
    }

    /// Reads and writes until one end has had enough. `hello_is_due`: the other end has not said who
    /// it is.
    pub(crate) async fn run(
        self,
        queue: QueueReader,
        handler: &impl LegHandler,
        hello_is_due: bool,
        patience: Patience,
    ) -> Ended {
        let given_up = queue.given_up();
        let run = self.run_to_the_end(queue, handler, hello_is_due, patience);
        // Whatever the other end does: it may be that it has stopped reading.
        given_up.run_until_cancelled(run).await.unwrap_or(Ended::GivenUp)
    }

    async fn run_to_the_end(
        self,
        mut queue: QueueReader,
        handler: &impl LegHandler,
        hello_is_due: bool,
        patience: Patience,
    ) -> Ended {
        let Self { io, mut leg } = self;
        let (mut reader, mut writer) = tokio::io::split(io);
        let farewell = queue.farewell();
        let pulse = Pulse::default();
        let read = read_all(&mut reader, &mut leg, handler, &pulse, hello_is_due, patience);
        let write = write_all(&mut writer, &mut queue, handler, &pulse);
        tokio::pin!(read, write);
        tokio::select! {
            end = &mut read => {
                // The other end still takes what was on its way when it said so.
                if matches!(end, Ended::Goodbye) {
                    farewell();
                    let _ = timeout(patience.goodbye, write).await;
                }
                end
            }
            written = &mut write => match written {
                Ok(true) => {
                    let _ = timeout(patience.goodbye, read).await;
                    Ended::Left
                }
                Ok(false) => Ended::GivenUp,
                Err(error) => Ended::Broken(error),
            }
        }
    }
}

/// Cancel-safe.
async fn read<R: AsyncRead + Unpin>(
    io: &mut R,
    leg: &mut Leg,
    keep_alive: Option<KeepAlive>,
    pulse: &Pulse,
) -> io::Result<Option<LegMessage>> {
    loop {
        if let Some(message) = leg.next()? {
            return Ok(Some(message));
        }
        // Not more than one read of the transport beyond what is complete.
        let mut limited = AsyncReadExt::take(&mut *io, READ_SIZE as u64);
        let read = limited.read_buf(leg.input());
        let length = match keep_alive {
            None => read.await?,
            Some(KeepAlive { interval, timeout: answer }) => {
                tokio::pin!(read);
                match timeout(interval, &mut read).await {
                    Ok(length) => length?,
                    Err(_) => {
                        pulse.ping.notify_one();
                        timeout(answer, read).await.map_err(|_| io::ErrorKind::TimedOut)??
                    }
                }
            }
        };
        if length == 0 {
            leg.handle_eof()?;
            return Ok(None);
        }
    }
}

async fn read_all<R: AsyncRead + Unpin>(
    io: &mut R,
    leg: &mut Leg,
    handler: &impl LegHandler,
    pulse: &Pulse,
    hello_is_due: bool,
    patience: Patience,
) -> Ended {
    let mut due = hello_is_due;
    loop {
        let message = if due {
            match timeout(patience.hello, read(io, leg, None, pulse)).await {
                Ok(message) => message,
                Err(_) => Err(Error::HandshakeTimeout(patience.hello).into()),
            }
        } else {
            read(io, leg, patience.keep_alive, pulse).await
        };
        match message {
            Ok(Some(LegMessage::Hello(hello))) => {
                due = false;
                stalling(handler.handle_hello(hello), pulse).await;
            }
            Ok(Some(LegMessage::Frame(frame))) => {
                stalling(handler.handle_frame(frame), pulse).await;
            }
            Ok(Some(LegMessage::Ping)) => pulse.pong.notify_one(),
            Ok(Some(LegMessage::Pong)) => {}
            Ok(Some(LegMessage::Goodbye) | None) => return Ended::Goodbye,
            Err(error) => return Ended::Broken(error),
        }
    }
}

/// Waits for `handled`, and does not look dead meanwhile.
async fn stalling(handled: impl Future<Output = ()>, pulse: &Pulse) {
    tokio::pin!(handled);
    while timeout(STALLED, &mut handled).await.is_err() {
        pulse.pong.notify_one();
    }
}

/// Gives whether it was a goodbye that ended it.
async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    queue: &mut QueueReader,
    handler: &impl LegHandler,
    pulse: &Pulse,
) -> io::Result<bool> {
    loop {
        let next = tokio::select! {
            // The hello is first, and whatever is written shows that somebody is there.
            biased;
            next = queue.next() => next,
            () = pulse.pong.notified() => {
                write_now(io, &LegMessage::Pong).await?;
                continue;
            }
            () = pulse.ping.notified() => {
                write_now(io, &LegMessage::Ping).await?;
                continue;
            }
        };
        let Some(outgoing) = next else { return Ok(false) };
        match outgoing {
            Outgoing::Records(records) => {
                io.write_all(&records).await?;
                if queue.is_empty() {
                    io.flush().await?;
                }
                queue.written(&records);
            }
            Outgoing::Goodbye => {
                io.write_all(&LegMessage::Goodbye.encode().map_err(Error::from)?).await?;
                io.shutdown().await?;
                return Ok(true);
            }
        }
        if queue.is_empty() {
            handler.drained();
        }
    }
}

async fn write_now<W: AsyncWrite + Unpin>(io: &mut W, message: &LegMessage) -> io::Result<()> {
    io.write_all(&message.encode().map_err(Error::from)?).await?;
    io.flush().await
}
