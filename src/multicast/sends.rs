//! What the application sends, as much at a time as goes into one frame.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    driver::{EVENT_COST, Outcome, Send},
    queue::Gauge,
};
use crate::dmls::{LENGTH_LEN, MAX_BATCH};

/// Content of a frame of several messages. Longer ones save hardly anything, and whoever receives
/// one can begin only when all of it is there.
const TOGETHER: usize = 256 << 10;

/// Where the messages of the application come out.
pub(crate) struct Sends {
    receiver: mpsc::UnboundedReceiver<Send>,
    /// The bytes of what was not protected yet.
    gauge: Arc<Gauge>,
    /// What did not go with those before it.
    held: Option<Send>,
    /// Bytes of messages that go together, with their lengths.
    limit: usize,
}

/// What is to be done next.
pub(crate) enum Next {
    /// At least one; if they are several, they go into one frame.
    Messages(Vec<(Bytes, Outcome)>),
    Flush(oneshot::Sender<()>),
}

impl Sends {
    /// `max_content`: bytes that fit into a frame.
    pub(crate) fn new(
        receiver: mpsc::UnboundedReceiver<Send>,
        gauge: Arc<Gauge>,
        max_content: usize,
    ) -> Self {
        Self { receiver, gauge, held: None, limit: max_content.min(TOGETHER) }
    }

    /// The next messages, those that wait already; `None` after the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Next> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.receiver.recv().await?,
        };
        Some(self.gather(first))
    }

    /// The same, but `None` if there is nothing now.
    pub(crate) fn try_next(&mut self) -> Option<Next> {
        let first = self.held.take().or_else(|| self.receiver.try_recv().ok())?;
        Some(self.gather(first))
    }

    fn gather(&mut self, first: Send) -> Next {
        let (data, outcome) = match first {
            Send::Message { data, outcome } => (data, outcome),
            Send::Flush(done) => return Next::Flush(done),
        };
        let mut bytes = LENGTH_LEN + data.len();
        let mut messages = vec![(data, outcome)];
        while messages.len() < MAX_BATCH {
            match self.receiver.try_recv() {
                Ok(Send::Message { data, outcome })
                    if bytes + LENGTH_LEN + data.len() <= self.limit =>
                {
                    bytes += LENGTH_LEN + data.len();
                    messages.push((data, outcome));
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        Next::Messages(messages)
    }

    /// A message has been protected, or refused.
    pub(crate) fn release(&self, data: &Bytes) {
        self.gauge.release(EVENT_COST + data.len());
    }
}

impl Drop for Sends {
    /// Nobody waits for a party that is gone.
    fn drop(&mut self) {
        self.receiver.close();
        self.gauge.release(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn sends(limit: usize) -> (mpsc::UnboundedSender<Send>, Sends) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Sends::new(receiver, Gauge::new(usize::MAX), limit))
    }

    fn message(length: usize) -> Send {
        let (reply, _) = oneshot::channel();
        Send::Message { data: Bytes::from(vec![7; length]), outcome: Outcome::Reply(reply) }
    }

    /// The lengths of the messages that go together; none: a flush.
    fn next(sends: &mut Sends) -> Vec<usize> {
        match sends.next().now_or_never().expect("nothing waits").expect("the end") {
            Next::Messages(messages) => messages.iter().map(|(data, _)| data.len()).collect(),
            Next::Flush(_) => Vec::new(),
        }
    }

    // MC-01
    #[test]
    fn messages_that_wait_go_together_as_far_as_they_fit() {
        let (sender, mut sends) = sends(100);
        for length in [10, 20, 54, 10, 500, 100, 96, 0] {
            assert!(sender.send(message(length)).is_ok());
        }
        let taken: Vec<_> = (0..6).map(|_| next(&mut sends)).collect();
        assert_eq!(taken, [vec![10, 20, 54], vec![10], vec![500], vec![100], vec![96], vec![0]]);
        assert!(sends.next().now_or_never().is_none());
        assert!(sender.send(message(1)).is_ok());
        assert_eq!(next(&mut sends), [1]);
        drop(sender);
        assert!(sends.next().now_or_never().is_some_and(|end| end.is_none()));
    }

    // MC-01
    #[test]
    fn a_frame_has_a_bounded_number_of_messages_and_bytes() {
        let (sender, mut sends) = sends(usize::MAX);
        for _ in 0..MAX_BATCH + 1 {
            assert!(sender.send(message(0)).is_ok());
        }
        assert_eq!(next(&mut sends).len(), MAX_BATCH);
        assert_eq!(next(&mut sends), [0]);
        for _ in 0..5 {
            assert!(sender.send(message(64 << 10)).is_ok());
        }
        assert_eq!(next(&mut sends).len(), 3);
        assert_eq!(next(&mut sends).len(), 2);
    }

    // MC-01
    #[test]
    fn a_flush_keeps_its_place() {
        let (sender, mut sends) = sends(100);
        let (done, _) = oneshot::channel();
        let sent = [message(1), message(2), Send::Flush(done), message(3)];
        assert!(sent.into_iter().all(|send| sender.send(send).is_ok()));
        let taken: Vec<_> = (0..3).map(|_| next(&mut sends)).collect();
        assert_eq!(taken, [vec![1, 2], vec![], vec![3]]);
    }
}
