//! A leg over a stream of bytes: one task reads and writes it.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
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

/// Times that bound what a leg may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the other end may take to say hello.
    pub(crate) hello: Duration,
    /// How long a goodbye may take.
    pub(crate) goodbye: Duration,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> LegIo<IO> {
    pub(crate) fn new(io: IO, max_frame_size: usize) -> Self {
        Self { io, leg: Leg::new(max_frame_size) }
    }

    /// The next message; `None` after a goodbye. Cancel-safe.
    pub(crate) async fn read(&mut self) -> io::Result<Option<LegMessage>> {
        read(&mut self.io, &mut self.leg).await
    }

    pub(crate) async fn write(&mut self, message: &LegMessage) -> io::Result<()> {
        let records = message.encode().map_err(Error::from)?;
        self.io.write_all(&records).await?;
        self.io.flush().await
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
        let read = read_all(&mut reader, &mut leg, handler, hello_is_due, patience);
        let write = write_all(&mut writer, &mut queue, handler);
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

async fn read<R: AsyncRead + Unpin>(io: &mut R, leg: &mut Leg) -> io::Result<Option<LegMessage>> {
    loop {
        if let Some(message) = leg.next()? {
            return Ok(Some(message));
        }
        // Not more than one read of the transport beyond what is complete.
        let mut limited = AsyncReadExt::take(&mut *io, READ_SIZE as u64);
        if limited.read_buf(leg.input()).await? == 0 {
            leg.handle_eof()?;
            return Ok(None);
        }
    }
}

async fn read_all<R: AsyncRead + Unpin>(
    io: &mut R,
    leg: &mut Leg,
    handler: &impl LegHandler,
    hello_is_due: bool,
    patience: Patience,
) -> Ended {
    let mut due = hello_is_due;
    loop {
        let message = if due {
            match timeout(patience.hello, read(io, leg)).await {
                Ok(message) => message,
                Err(_) => Err(Error::HandshakeTimeout(patience.hello).into()),
            }
        } else {
            read(io, leg).await
        };
        match message {
            Ok(Some(LegMessage::Hello(hello))) => {
                due = false;
                handler.handle_hello(hello).await;
            }
            Ok(Some(LegMessage::Frame(frame))) => handler.handle_frame(frame).await,
            Ok(Some(LegMessage::Goodbye) | None) => return Ended::Goodbye,
            Err(error) => return Ended::Broken(error),
        }
    }
}

/// Gives whether it was a goodbye that ended it.
async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    queue: &mut QueueReader,
    handler: &impl LegHandler,
) -> io::Result<bool> {
    while let Some(outgoing) = queue.next().await {
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
    Ok(false)
}
