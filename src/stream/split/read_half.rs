//! [`OwnedReadHalf`]: the half that receives.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    super::{
        read_side::{Closing, Ends, Goal, Progress, ReadSide},
        wake::{LentGuard, Side},
    },
    Inner, IntoSplit, OwnedWriteHalf,
};
use crate::{
    error::{ApiMisuse, Error},
    identity::Identity,
    two_party::{Control, Counters, KeyChange},
};

/// The half of a split [`MlsStream`](crate::MlsStream) that receives.
///
/// Dropping it does not close anything.
pub struct OwnedReadHalf<IO: IntoSplit> {
    pub(super) inner: Arc<Inner<IO>>,
    /// Data that was opened under the read lock and is handed out by `poll_fill_buf`.
    pub(super) front: BytesMut,
}

/// The rest of the stream for a half that reads, with the sending half to be borrowed.
struct Borrowing<'a, IO: IntoSplit> {
    io: &'a mut IO::ReadHalf,
    inner: &'a Inner<IO>,
}

impl<IO: IntoSplit> OwnedReadHalf<IO> {
    /// As [`MlsStream::rekey`](crate::MlsStream::rekey). Data that arrives meanwhile is kept for
    /// the next read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rekey`](crate::MlsStream::rekey).
    pub async fn rekey(&mut self) -> io::Result<()> {
        let ticket = poll_fn(|cx| self.inner.poll_request(Side::Helper, cx)).await?;
        self.until(|counters| counters.own_updates.value() >= ticket).await
    }

    /// As [`MlsStream::rotate_identity`](crate::MlsStream::rotate_identity). Data that arrives
    /// meanwhile is kept for the next read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rotate_identity`](crate::MlsStream::rotate_identity).
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

impl<IO: IntoSplit> fmt::Debug for OwnedReadHalf<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedReadHalf").field("peer", &self.peer()).finish_non_exhaustive()
    }
}
