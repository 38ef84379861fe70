//! Queues that are bounded in bytes (MC-02).

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a frame costs besides its bytes.
pub(crate) const FRAME_COST: usize = 128;

/// Counts bytes that are somewhere, and lets wait until they are few enough.
///
/// Whoever adds looks first, so the limit is exceeded by one item at most.
#[derive(Debug)]
pub(crate) struct Gauge {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: usize,
    waiting: Vec<Waker>,
}

/// What a leg is to write.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    /// Records.
    Records(Bytes),
    /// The goodbye, and nothing after it.
    Goodbye,
}

/// Where frames for a leg go in.
#[derive(Debug)]
pub(crate) struct QueueWriter {
    sender: mpsc::UnboundedSender<Outgoing>,
    gauge: Arc<Gauge>,
    _given_up: DropGuard,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct QueueReader {
    receiver: mpsc::UnboundedReceiver<Outgoing>,
    sender: mpsc::WeakUnboundedSender<Outgoing>,
    gauge: Arc<Gauge>,
    /// The writer is gone.
    given_up: CancellationToken,
}

impl Gauge {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), inner: Mutex::default() })
    }

    pub(crate) fn add(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.held = inner.held.saturating_add(bytes);
    }

    pub(crate) fn release(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.held = inner.held.saturating_sub(bytes);
        if inner.held < self.limit {
            let waiting = std::mem::take(&mut inner.waiting);
            drop(inner);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().held >= self.limit
    }

    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.held < self.limit {
            return Poll::Ready(());
        }
        if !inner.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            inner.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) async fn room(&self) {
        poll_fn(|cx| self.poll_room(cx)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue that is full from `limit` bytes on.
pub(crate) fn queue(limit: usize) -> (QueueWriter, QueueReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (gauge, given_up) = (Gauge::new(limit), CancellationToken::new());
    let reader = QueueReader {
        receiver,
        sender: sender.downgrade(),
        gauge: Arc::clone(&gauge),
        given_up: given_up.clone(),
    };
    (QueueWriter { sender, gauge, _given_up: given_up.drop_guard() }, reader)
}

impl QueueWriter {
    /// Adds records, whether or not there is room.
    pub(crate) fn push(&self, records: Bytes) {
        let cost = FRAME_COST + records.len();
        self.gauge.add(cost);
        if self.sender.send(Outgoing::Records(records)).is_err() {
            self.gauge.release(cost);
        }
    }

    pub(crate) fn say_goodbye(&self) {
        let _ = self.sender.send(Outgoing::Goodbye);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.gauge.is_full()
    }

    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.gauge.poll_room(cx)
    }
}

impl QueueReader {
    /// What is to be written next; `None` when the writer is gone.
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        self.receiver.recv().await
    }

    /// These records were written.
    pub(crate) fn written(&self, records: &Bytes) {
        self.gauge.release(FRAME_COST + records.len());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Says goodbye after what is in the queue by then.
    pub(crate) fn farewell(&self) -> impl FnOnce() + use<> {
        let sender = self.sender.clone();
        move || {
            let _ = sender.upgrade().map(|sender| sender.send(Outgoing::Goodbye));
        }
    }

    /// Cancelled when the writer is gone, and what is here need not be written any more.
    pub(crate) fn given_up(&self) -> CancellationToken {
        self.given_up.clone()
    }
}

impl Drop for QueueReader {
    /// Nobody waits for a leg that is gone.
    fn drop(&mut self) {
        self.receiver.close();
        self.gauge.release(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    // MC-02
    #[tokio::test]
    async fn a_full_queue_has_room_again_when_its_reader_has_written() {
        let (writer, mut reader) = queue(2 * FRAME_COST + 10);
        writer.push(Bytes::from_static(&[0; 9]));
        assert!(!writer.is_full());
        writer.push(Bytes::from_static(&[0; 9]));
        assert!(writer.is_full());
        let mut room = Box::pin(writer.gauge.room());
        assert!(room.as_mut().now_or_never().is_none());
        let Some(Outgoing::Records(first)) = reader.next().await else { panic!() };
        reader.written(&first);
        room.await;
        drop(reader);
        for _ in 0..2 {
            writer.push(Bytes::from_static(&[0; 9]));
        }
        assert!(!writer.is_full());
    }

    // MC-02, CH-10: short frames take more memory than their bytes.
    #[test]
    fn a_flood_of_short_frames_fills_a_queue() {
        let (writer, _reader) = queue(100 * FRAME_COST);
        let pushed = (0..1000).take_while(|_| !writer.is_full());
        assert_eq!(pushed.inspect(|_| writer.push(Bytes::from_static(&[0]))).count(), 100);
    }
}
