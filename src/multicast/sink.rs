//! [`Multicast`] and its halves as [`Sink`] and [`Stream`].

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{FutureExt, Sink, Stream};
use tokio::sync::oneshot;

use super::{
    driver::{Outcome, Send as Sending},
    handle::{Multicast, MulticastReceiver, MulticastSender, closed},
    options::MulticastEvent,
};
use crate::error::Error;

impl Sink<Bytes> for MulticastSender {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.check()?;
        if self.sends.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        self.gauge.poll_room(cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, data: Bytes) -> Result<(), Error> {
        // One that is on its way is ahead of this message.
        self.flush = None;
        self.queue(data, Outcome::Sink(Arc::clone(&self.failure)))
    }

    /// Ready when all messages have been protected, and are in the queues of the legs.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.flush.is_none() {
            let (flushed, flush) = oneshot::channel();
            self.sends.send(Sending::Flush(flushed)).map_err(|_| closed())?;
            self.flush = Some(flush);
        }
        if let Some(flush) = &mut self.flush {
            let result = ready!(flush.poll_unpin(cx));
            self.flush = None;
            self.check()?;
            result.map_err(|_| closed())?;
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves: see [`MulticastSender::leave`].
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut left = self.left.take().unwrap_or_else(|| self.begin_to_leave());
        if left.poll_unpin(cx).is_pending() {
            self.left = Some(left);
            return Poll::Pending;
        }
        Poll::Ready(self.check())
    }
}

impl Stream for MulticastReceiver {
    type Item = Result<MulticastEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(self.events.poll_recv(cx));
        self.taken(event.as_ref());
        Poll::Ready(event)
    }
}

impl Sink<Bytes> for Multicast {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, data: Bytes) -> Result<(), Error> {
        Pin::new(&mut self.sender).start_send(data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_close(cx)
    }
}

impl Stream for Multicast {
    type Item = Result<MulticastEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}
