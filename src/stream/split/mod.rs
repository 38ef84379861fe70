//! [`MlsStream::into_split`]: two owned halves that work at full duplex.
//!
//! Each half owns its direction: reading and writing share no lock. Only when a control message
//! has to cross from one direction to the other (an update to answer, a key to switch to) does a
//! half borrow what belongs to the other one, and it never blocks: if the other half is busy just
//! then, it is woken afterwards.

mod facts;
mod read_half;
mod transports;
mod write_half;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use self::write_half::Holding;
pub use self::{read_half::OwnedReadHalf, write_half::OwnedWriteHalf};
use super::{
    io::MlsStream,
    read_side::{Closing, Goal, Progress, ReadSide},
    wake::{Direction, Lent, Side},
    write_side::WriteSide,
};
use crate::{
    error::{ApiMisuse, Error},
    identity::Identity,
    two_party::{Outcome, Shared},
};

/// A transport that comes apart into a reader and a writer without a lock between them.
///
/// Implemented for tokio's sockets and for [`tokio::io::Join`], which makes a transport of any
/// reader and writer: `connector.connect(name, tokio::io::join(reader, writer))`.
pub trait IntoSplit: AsyncRead + AsyncWrite + Unpin {
    /// The reader.
    type ReadHalf: AsyncRead + Unpin;
    /// The writer.
    type WriteHalf: AsyncWrite + Unpin;

    /// Takes the transport apart.
    fn into_split(self) -> (Self::ReadHalf, Self::WriteHalf);
}

struct Inner<IO: IntoSplit> {
    read: Lent<(IO::ReadHalf, ReadSide)>,
    write: Lent<(IO::WriteHalf, WriteSide)>,
    reading: Direction,
    writing: Direction,
    shared: Arc<Shared>,
    /// Sealed bytes wait for the transport.
    has_output: AtomicBool,
    /// [`Closing`] of the sending half: closed, and lingering.
    closed: AtomicBool,
    lingering: AtomicBool,
    /// The sending half waits for an answer, which the reading half may leave unopened behind its
    /// data.
    expecting: AtomicBool,
    /// When the rekey policy has to be looked at, or the peer be revisited.
    deadline: Mutex<Option<Instant>>,
}

impl<IO: IntoSplit> MlsStream<IO> {
    /// Takes the stream apart into two halves for two tasks (CH-02). They do not come together again.
    ///
    /// Early data of the peer goes with the stream: [take it](MlsStream::take_early_data) before.
    pub fn into_split(self) -> (OwnedReadHalf<IO>, OwnedWriteHalf<IO>) {
        let Self { io, read, write, reading, writing, shared, early_data: _ } = self;
        let (read_io, write_io) = io.into_split();
        let inner = Arc::new(Inner {
            has_output: AtomicBool::new(write.has_output()),
            closed: AtomicBool::new(write.closing() != Closing::Open),
            lingering: AtomicBool::new(write.closing() == Closing::Lingering),
            expecting: AtomicBool::new(false),
            deadline: Mutex::new(write.sender.timeout()),
            read: Lent::new((read_io, read)),
            write: Lent::new((write_io, write)),
            reading,
            writing,
            shared,
        });
        let read = OwnedReadHalf { inner: Arc::clone(&inner), front: BytesMut::new() };
        (read, OwnedWriteHalf { inner })
    }
}

impl<IO: IntoSplit> Inner<IO> {
    /// Publishes what the reading half has to know about the sending half.
    fn publish(&self, write: &WriteSide) {
        self.has_output.store(write.has_output(), Ordering::Release);
        let closing = write.closing();
        self.lingering.store(closing == Closing::Lingering, Ordering::Release);
        self.closed.store(closing != Closing::Open, Ordering::Release);
    }

    /// After a control message or an update: the deadline may have changed, and somebody may be
    /// waiting for the update.
    fn publish_update(&self, write: &WriteSide) {
        self.publish(write);
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = write.sender.timeout();
        self.reading.wake();
        self.writing.wake();
    }

    /// Reads ahead on behalf of a reading half that has not been polled lately, or that is gone:
    /// then what arrives is discarded.
    fn help_reading(
        &self,
        write_io: &mut IO::WriteHalf,
        write: &mut WriteSide,
        alone: bool,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.read.poll_take(Side::Helper, cx));
        let (io, read) = &mut *guard;
        loop {
            if alone {
                read.discard();
            } else if read.check_read_ahead().is_err() {
                // Whoever has the reading half reads on, finds the answer, and wakes this task.
                return Poll::Pending;
            }
            let mut rest = Holding { io, write_io, write, inner: self };
            let progress =
                read.poll_progress(&mut rest, &self.reading, Side::Helper, Goal::Answer, cx);
            match ready!(progress)? {
                Progress::Data | Progress::Input => {}
                Progress::Control => return Poll::Ready(Ok(())),
                Progress::End => {
                    return Poll::Ready(Err(Error::from(ApiMisuse::PeerClosed).into()));
                }
            }
        }
    }

    /// Asks for an update.
    fn poll_request(&self, side: Side, cx: &Context<'_>) -> Poll<Result<u64, Error>> {
        self.poll_start(side, cx, WriteSide::request_update)
    }

    /// Asks for a change of identity, once: `next` is taken.
    fn poll_rotation(
        &self,
        next: &mut Option<Identity>,
        side: Side,
        cx: &Context<'_>,
    ) -> Poll<Result<Outcome, Error>> {
        self.poll_start(side, cx, |write| {
            let next = next.take().ok_or(ApiMisuse::RotationOutstanding)?;
            write.request_rotation(next)
        })
    }

    fn poll_start<T>(
        &self,
        side: Side,
        cx: &Context<'_>,
        start: impl FnOnce(&mut WriteSide) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        let mut guard = ready!(self.write.poll_take(side, cx));
        let (io, write) = &mut *guard;
        let started = start(write);
        let _ = write.poll_drain(io, &self.writing, side, cx);
        self.publish_update(write);
        Poll::Ready(started)
    }
}
