//! [`MlsStream::into_split`]: two owned halves that work at full duplex.
//!
//! Each half owns its direction: reading and writing share no lock. Only when a control message
//! has to cross from one direction to the other (an update to answer, a key to switch to) does a
//! half borrow what belongs to the other one, and it never blocks: if the other half is busy just
//! then, it is woken afterwards.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, DuplexStream, Join, ReadBuf, ReadHalf, WriteHalf},
    net::{TcpStream, tcp},
};
use tokio_util::io::poll_read_buf;
use zeroize::Zeroizing;

use super::{
    io::MlsStream,
    read_side::{Closing, Ends, Goal, Progress, ReadSide},
    wake::{Direction, Lent, LentGuard, Side},
    write_side::WriteSide,
};
use crate::{
    auth::{PeerIdentity, Role},
    crypto::CipherSuite,
    error::{ApiMisuse, Error},
    identity::Identity,
    name::ServerName,
    two_party::{Control, Counters, KeyChange, Outcome, Shared, Statistics},
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

/// The half of a split [`MlsStream`] that receives.
///
/// Dropping it does not close anything.
pub struct OwnedReadHalf<IO: IntoSplit> {
    inner: Arc<Inner<IO>>,
    /// Data that was opened under the read lock and is handed out by `poll_fill_buf`.
    front: BytesMut,
}

/// The half of a split [`MlsStream`] that sends.
///
/// Dropping it does not close anything; `shutdown` sends the close_notify.
pub struct OwnedWriteHalf<IO: IntoSplit> {
    inner: Arc<Inner<IO>>,
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
    /// The sending half waits for an answer, which the reading half may leave unopened behind its data.
    expecting: AtomicBool,
    /// When the rekey policy has to be looked at, or the peer be revisited.
    deadline: Mutex<Option<Instant>>,
}

/// The rest of the stream for a half that reads, with the sending half to be borrowed.
struct Borrowing<'a, IO: IntoSplit> {
    io: &'a mut IO::ReadHalf,
    inner: &'a Inner<IO>,
}

/// The rest of the stream for the writing half when it reads on behalf of an idle reader.
struct Holding<'a, IO: IntoSplit> {
    io: &'a mut IO::ReadHalf,
    write_io: &'a mut IO::WriteHalf,
    write: &'a mut WriteSide,
    inner: &'a Inner<IO>,
}

impl<IO: IntoSplit> MlsStream<IO> {
    /// Takes the stream apart into two halves for two tasks (CH-02).
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

impl<IO: IntoSplit> OwnedReadHalf<IO> {
    /// As [`MlsStream::rekey`]. Data that arrives meanwhile is kept for the next read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rekey`].
    pub async fn rekey(&mut self) -> io::Result<()> {
        let ticket = poll_fn(|cx| self.inner.poll_request(Side::Helper, cx)).await?;
        self.until(|counters| counters.own_updates.value() >= ticket).await
    }

    /// As [`MlsStream::rotate_identity`]. Data that arrives meanwhile is kept for the next read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rotate_identity`].
    pub async fn rotate_identity(&mut self, next: Identity) -> io::Result<()> {
        let mut next = Some(next);
        let outcome = poll_fn(|cx| self.inner.poll_rotation(&mut next, Side::Helper, cx)).await?;
        self.until(|_| outcome.get().is_some()).await?;
        Ok(outcome.get().unwrap_or(Ok(()))?)
    }

    async fn until(&self, is_done: impl Fn(&Counters) -> bool) -> io::Result<()> {
        poll_fn(|cx| {
            self.inner.reading.visit();
            self.poll_until(&is_done, cx)
        })
        .await
    }

    fn poll_until(
        &self,
        is_done: impl Fn(&Counters) -> bool,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &*self.inner;
        loop {
            if is_done(&inner.shared.counters) {
                return Poll::Ready(Ok(()));
            }
            let mut guard = ready!(inner.read.poll_take(Side::Owner, cx));
            let (io, read) = &mut *guard;
            read.check_read_ahead()?;
            let mut rest = Borrowing { io, inner };
            let (side, goal) = (Side::Owner, Goal::Answer);
            let progress = read.poll_progress(&mut rest, &inner.reading, side, goal, cx);
            if let Progress::End = ready!(progress)? {
                return Poll::Ready(Err(Error::from(ApiMisuse::PeerClosed).into()));
            }
        }
    }

    /// Works until there is data, or the end.
    fn poll_read_with<T>(
        &self,
        cx: &Context<'_>,
        mut take: impl FnMut(&mut ReadSide) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>> {
        let inner = &*self.inner;
        inner.reading.visit();
        let taken = self.poll_take_with(cx, &mut take);
        // The guard is back: either the other half has looked since, or it is woken to look.
        if taken.is_ready()
            && inner.expecting.load(Ordering::Acquire)
            && inner.expecting.swap(false, Ordering::AcqRel)
        {
            inner.writing.wake();
        }
        taken
    }

    fn poll_take_with<T>(
        &self,
        cx: &Context<'_>,
        take: &mut impl FnMut(&mut ReadSide) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>> {
        let inner = &*self.inner;
        let mut guard: LentGuard<'_, _> = ready!(inner.read.poll_take(Side::Owner, cx));
        let (io, read) = &mut *guard;
        loop {
            if let Some(taken) = take(read) {
                return Poll::Ready(Ok(Some(taken)));
            }
            let mut rest = Borrowing { io, inner };
            let progress =
                read.poll_progress(&mut rest, &inner.reading, Side::Owner, Goal::Data, cx);
            if let Progress::End = ready!(progress)? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Whether the other half belongs to the same stream.
    pub fn is_pair_of(&self, other: &OwnedWriteHalf<IO>) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether this party connected or accepted.
    pub fn role(&self) -> Role {
        self.inner.shared.info.role
    }

    /// The cipher suite.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.inner.shared.info.suite
    }

    /// The application protocol that was selected, if any.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.inner.shared.info.alpn.as_deref()
    }

    /// The name of the service that the initiator asked for.
    pub fn server_name(&self) -> Option<&ServerName> {
        self.inner.shared.info.server_name.as_ref()
    }

    /// As [`MlsStream::channel_binding`].
    pub fn channel_binding(&self) -> [u8; 32] {
        self.inner.shared.info.channel_binding
    }

    /// As [`MlsStream::export_secret`]; waits while the other half is at work.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::export_secret`].
    pub async fn export_secret(
        &mut self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let guard = poll_fn(|cx| self.inner.write.poll_take(Side::Helper, cx)).await;
        guard.1.sender.export_secret(label, context, length)
    }

    /// Who the peer is.
    pub fn peer(&self) -> PeerIdentity {
        self.inner.shared.peer()
    }

    /// The epoch of the group.
    pub fn epoch(&self) -> u64 {
        self.inner.shared.counters.epoch.value()
    }

    /// Counters since the handshake.
    pub fn statistics(&self) -> Statistics {
        self.inner.shared.statistics()
    }
}

impl<IO: IntoSplit> OwnedWriteHalf<IO> {
    /// As [`MlsStream::rekey`]. If nobody polls the reading half, this future reads ahead for it, as
    /// far as it may; then it waits for the reading half to be read. What arrives when that half has
    /// been dropped is discarded.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::PeerClosed`] when the transport ended, and the error that ended the channel.
    pub async fn rekey(&mut self) -> io::Result<()> {
        let ticket = poll_fn(|cx| self.inner.poll_request(Side::Owner, cx)).await?;
        let is_done = |counters: &Counters| counters.own_updates.value() >= ticket;
        poll_fn(|cx| self.poll_until(is_done, cx)).await
    }

    /// As [`MlsStream::rotate_identity`], and as [`OwnedWriteHalf::rekey`] for what has to be read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rotate_identity`].
    pub async fn rotate_identity(&mut self, next: Identity) -> io::Result<()> {
        let mut next = Some(next);
        let outcome = poll_fn(|cx| self.inner.poll_rotation(&mut next, Side::Owner, cx)).await?;
        poll_fn(|cx| self.poll_until(|_| outcome.get().is_some(), cx)).await?;
        Ok(outcome.get().unwrap_or(Ok(()))?)
    }

    /// As [`MlsStream::request_rotation`].
    ///
    /// # Errors
    ///
    /// As [`MlsStream::request_rotation`].
    pub async fn request_rotation(&mut self, next: Identity) -> io::Result<()> {
        let mut next = Some(next);
        poll_fn(|cx| self.inner.poll_rotation(&mut next, Side::Owner, cx)).await?;
        Ok(())
    }

    fn poll_until(
        &self,
        is_done: impl Fn(&Counters) -> bool,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &*self.inner;
        inner.writing.visit();
        inner.writing.register(Side::Owner, cx);
        inner.expecting.store(true, Ordering::Release);
        loop {
            let mut guard = ready!(inner.write.poll_take(Side::Owner, cx));
            let (io, write) = &mut *guard;
            write.sender.check_failed()?;
            let _ = write.poll_drain(io, &inner.writing, Side::Owner, cx)?;
            inner.publish(write);
            if is_done(&inner.shared.counters) {
                return Poll::Ready(Ok(()));
            }
            ready!(inner.help_reading(io, write, self.is_alone(), cx))?;
        }
    }

    /// The reading half has been dropped.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// Asks for an update without waiting for it. Gives the value of
    /// [`Statistics::own_updates`] at which it is in use.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::request_rekey`].
    pub async fn request_rekey(&mut self) -> io::Result<u64> {
        Ok(poll_fn(|cx| self.inner.poll_request(Side::Owner, cx)).await?)
    }

    fn poll_with<T>(
        &self,
        cx: &Context<'_>,
        work: impl FnOnce(&mut IO::WriteHalf, &mut WriteSide) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let inner = &*self.inner;
        inner.writing.visit();
        let mut guard = ready!(inner.write.poll_take(Side::Owner, cx));
        let (io, write) = &mut *guard;
        while inner.reading.needs_help() {
            let alone = self.is_alone();
            if !matches!(inner.help_reading(io, write, alone, cx), Poll::Ready(Ok(()))) {
                break;
            }
        }
        let updates = write.sender.is_waiting();
        let result = work(io, write);
        if write.sender.is_waiting() == updates {
            inner.publish(write);
        } else {
            inner.publish_update(write);
        }
        result
    }

    /// Whether this party connected or accepted.
    pub fn role(&self) -> Role {
        self.inner.shared.info.role
    }

    /// The cipher suite.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.inner.shared.info.suite
    }

    /// The application protocol that was selected, if any.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.inner.shared.info.alpn.as_deref()
    }

    /// The name of the service that the initiator asked for.
    pub fn server_name(&self) -> Option<&ServerName> {
        self.inner.shared.info.server_name.as_ref()
    }

    /// As [`MlsStream::channel_binding`].
    pub fn channel_binding(&self) -> [u8; 32] {
        self.inner.shared.info.channel_binding
    }

    /// As [`MlsStream::export_secret`]; waits while the other half is at work.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::export_secret`].
    pub async fn export_secret(
        &mut self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let guard = poll_fn(|cx| self.inner.write.poll_take(Side::Owner, cx)).await;
        guard.1.sender.export_secret(label, context, length)
    }

    /// Who the peer is.
    pub fn peer(&self) -> PeerIdentity {
        self.inner.shared.peer()
    }

    /// The epoch of the group.
    pub fn epoch(&self) -> u64 {
        self.inner.shared.counters.epoch.value()
    }

    /// Counters since the handshake.
    pub fn statistics(&self) -> Statistics {
        self.inner.shared.statistics()
    }
}

impl<IO: IntoSplit> Drop for OwnedReadHalf<IO> {
    fn drop(&mut self) {
        // A rekey of the other half may be waiting for this one to read.
        self.inner.writing.wake();
    }
}

impl<IO: IntoSplit> Ends for Borrowing<'_, IO> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut *self.io), cx, &mut buf.limit(limit))
    }

    fn poll_control(
        &mut self,
        control: &mut Option<Control>,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<KeyChange>, Error>> {
        let inner = self.inner;
        let mut guard = ready!(inner.write.poll_take(Side::Helper, cx));
        let (io, write) = &mut *guard;
        let result = control.take().map_or(Ok(None), |control| write.handle(control));
        let _ = write.poll_drain(io, &inner.writing, Side::Helper, cx);
        inner.publish_update(write);
        Poll::Ready(result)
    }

    fn drain(&mut self, cx: &Context<'_>) {
        let inner = self.inner;
        if !inner.has_output.load(Ordering::Acquire) {
            return;
        }
        // If the writing half is at it, it drains by itself; what it leaves is looked at afterwards.
        if let Poll::Ready(mut guard) = inner.write.poll_take(Side::Helper, cx) {
            let (io, write) = &mut *guard;
            let _ = write.poll_drain(io, &inner.writing, Side::Helper, cx);
            inner.publish(write);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        *self.inner.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closing(&self) -> Closing {
        let Inner { closed, lingering, .. } = self.inner;
        match (closed.load(Ordering::Acquire), lingering.load(Ordering::Acquire)) {
            (false, _) => Closing::Open,
            (true, true) => Closing::Lingering,
            (true, false) => Closing::Closed,
        }
    }
}

impl<IO: IntoSplit> Ends for Holding<'_, IO> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut *self.io), cx, &mut buf.limit(limit))
    }

    fn poll_control(
        &mut self,
        control: &mut Option<Control>,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<KeyChange>, Error>> {
        let result = control.take().map_or(Ok(None), |control| self.write.handle(control));
        self.drain(cx);
        self.inner.publish_update(self.write);
        Poll::Ready(result)
    }

    fn drain(&mut self, cx: &Context<'_>) {
        let _ = self.write.poll_drain(self.write_io, &self.inner.writing, Side::Owner, cx);
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn closing(&self) -> Closing {
        self.write.closing()
    }
}

impl<IO: IntoSplit> AsyncRead for OwnedReadHalf<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.front.is_empty() {
            let length = this.front.len().min(buf.remaining());
            buf.put_slice(&this.front[..length]);
            Pin::new(this).consume(length);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.poll_read_with(cx, |read| read.copy_to(buf).then_some(())).map_ok(|_| ())
    }
}

impl<IO: IntoSplit> AsyncBufRead for OwnedReadHalf<IO> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            let data = ready!(this.poll_read_with(cx, ReadSide::pop))?;
            this.front = data.unwrap_or_default();
        }
        Poll::Ready(Ok(&this.front))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        let amount = amount.min(this.front.len());
        this.front.advance(amount);
        if this.front.is_empty() {
            // An empty handle still owns the buffer.
            this.front = BytesMut::new();
        }
    }
}

impl<IO: IntoSplit> AsyncWrite for OwnedWriteHalf<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let writing = &self.inner.writing;
        self.poll_with(cx, |io, write| write.poll_write(bufs, io, writing, cx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writing = &self.inner.writing;
        self.poll_with(cx, |io, write| {
            write.sender.check_failed()?;
            write.poll_drain(io, writing, Side::Owner, cx)
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &*self.inner;
        self.poll_with(cx, |io, write| {
            ready!(write.poll_close(io, &inner.writing, cx))?;
            // If the reading half is at work, it waits for what there is to wait for.
            let Some(mut guard) = inner.read.try_take(Side::Helper) else {
                return Poll::Ready(Ok(()));
            };
            let (read_io, read) = &mut *guard;
            if !read.is_closed() {
                return Poll::Ready(Ok(()));
            }
            while !read.is_settled(write.closing()) {
                let mut rest = Holding { io: read_io, write_io: io, write, inner };
                match ready!(read.poll_progress(
                    &mut rest,
                    &inner.reading,
                    Side::Helper,
                    Goal::Answer,
                    cx
                )) {
                    Ok(Progress::Data | Progress::Control | Progress::Input) => {}
                    // Nothing more will come to be waited for.
                    Ok(Progress::End) | Err(_) => break,
                }
            }
            write.poll_shut_down(io, &inner.writing, cx)
        })
    }
}

impl IntoSplit for TcpStream {
    type ReadHalf = tcp::OwnedReadHalf;
    type WriteHalf = tcp::OwnedWriteHalf;

    fn into_split(self) -> (tcp::OwnedReadHalf, tcp::OwnedWriteHalf) {
        self.into_split()
    }
}

#[cfg(unix)]
impl IntoSplit for tokio::net::UnixStream {
    type ReadHalf = tokio::net::unix::OwnedReadHalf;
    type WriteHalf = tokio::net::unix::OwnedWriteHalf;

    fn into_split(self) -> (Self::ReadHalf, Self::WriteHalf) {
        self.into_split()
    }
}

/// For tests: an in-memory pipe has locks of its own.
impl IntoSplit for DuplexStream {
    type ReadHalf = ReadHalf<Self>;
    type WriteHalf = WriteHalf<Self>;

    fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> IntoSplit for Join<R, W> {
    type ReadHalf = R;
    type WriteHalf = W;

    fn into_split(self) -> (R, W) {
        self.into_inner()
    }
}

impl<IO: IntoSplit> IntoSplit for MlsStream<IO> {
    type ReadHalf = OwnedReadHalf<IO>;
    type WriteHalf = OwnedWriteHalf<IO>;

    fn into_split(self) -> (OwnedReadHalf<IO>, OwnedWriteHalf<IO>) {
        self.into_split()
    }
}

impl<IO: IntoSplit> fmt::Debug for OwnedReadHalf<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedReadHalf").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl<IO: IntoSplit> fmt::Debug for OwnedWriteHalf<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedWriteHalf").field("peer", &self.peer()).finish_non_exhaustive()
    }
}
