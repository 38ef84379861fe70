//! [`OwnedWriteHalf`]: the half that sends.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{BufMut as _, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::{
    super::{
        read_side::{Closing, Ends, Goal, Progress},
        wake::Side,
        write_side::WriteSide,
    },
    Inner, IntoSplit,
};
use crate::{
    error::Error,
    identity::Identity,
    two_party::{Control, Counters, KeyChange},
};

/// The half of a split [`MlsStream`](crate::MlsStream) that sends.
///
/// Dropping it does not close anything; `shutdown` sends the close_notify.
pub struct OwnedWriteHalf<IO: IntoSplit> {
    pub(super) inner: Arc<Inner<IO>>,
}

/// The rest of the stream for the writing half when it reads on behalf of an idle reader.
pub(super) struct Holding<'a, IO: IntoSplit> {
    pub(super) io: &'a mut IO::ReadHalf,
    pub(super) write_io: &'a mut IO::WriteHalf,
    pub(super) write: &'a mut WriteSide,
    pub(super) inner: &'a Inner<IO>,
}

impl<IO: IntoSplit> OwnedWriteHalf<IO> {
    /// As [`MlsStream::rekey`](crate::MlsStream::rekey). If nobody polls the reading half, this
    /// future reads ahead for it, as far as it may; then it waits for the reading half to be read.
    /// What arrives when that half has been dropped is discarded.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::PeerClosed`](crate::error::ApiMisuse::PeerClosed) when the transport ended, and
    /// the error that ended the channel.
    pub async fn rekey(&mut self) -> io::Result<()> {
        let ticket = poll_fn(|cx| self.inner.poll_request(Side::Owner, cx)).await?;
        let is_done = |counters: &Counters| counters.own_updates.value() >= ticket;
        poll_fn(|cx| self.poll_until(is_done, cx)).await
    }

    /// As [`MlsStream::rotate_identity`](crate::MlsStream::rotate_identity), and as
    /// [`OwnedWriteHalf::rekey`] for what has to be read.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::rotate_identity`](crate::MlsStream::rotate_identity).
    pub async fn rotate_identity(&mut self, next: Identity) -> io::Result<()> {
        let mut next = Some(next);
        let outcome = poll_fn(|cx| self.inner.poll_rotation(&mut next, Side::Owner, cx)).await?;
        poll_fn(|cx| self.poll_until(|_| outcome.get().is_some(), cx)).await?;
        Ok(outcome.get().unwrap_or(Ok(()))?)
    }

    /// As [`MlsStream::request_rotation`](crate::MlsStream::request_rotation).
    ///
    /// # Errors
    ///
    /// As [`MlsStream::request_rotation`](crate::MlsStream::request_rotation).
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
    /// [`Statistics::own_updates`](crate::Statistics::own_updates) at which it is in use.
    ///
    /// # Errors
    ///
    /// As [`MlsStream::request_rekey`](crate::MlsStream::request_rekey).
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

impl<IO: IntoSplit> fmt::Debug for OwnedWriteHalf<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedWriteHalf").field("peer", &self.peer()).finish_non_exhaustive()
    }
}
