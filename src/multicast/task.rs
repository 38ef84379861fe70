//! What the task of a leg tells the one that owns the session.

use std::{pin::pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
};

use super::{
    driver::{FRAME_COST, FromLeg},
    io::{Ended, LegHandler, LegIo, Patience},
    legs::LegId,
    options::LegEnd,
    queue::{Gauge, QueueReader},
};
use crate::wire::{LegFrame, LegHello};

/// The connection between a leg's task and the session's.
pub(crate) struct LegTask {
    id: LegId,
    driver: mpsc::UnboundedSender<FromLeg>,
    drained: Arc<Notify>,
    /// What came over this leg and was not processed.
    gauge: Arc<Gauge>,
}

impl LegTask {
    pub(crate) fn new(
        id: LegId,
        driver: mpsc::UnboundedSender<FromLeg>,
        drained: Arc<Notify>,
        limit: usize,
    ) -> Self {
        Self { id, driver, drained, gauge: Gauge::new(limit) }
    }

    /// The leg's task.
    pub(crate) async fn run<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        io: LegIo<IO>,
        queue: QueueReader,
        hello_is_due: bool,
        patience: Patience,
    ) {
        // The session's task may be gone while this one waits for the other end.
        let closed = self.driver.clone();
        let run = pin!(io.run(queue, &self, hello_is_due, patience));
        let ended = tokio::select! {
            ended = run => ended,
            () = closed.closed() => return,
        };
        let end = match ended {
            Ended::Goodbye => LegEnd::Goodbye,
            Ended::Left => LegEnd::Left,
            Ended::Broken(error) => LegEnd::Broken(Arc::new(error)),
            Ended::GivenUp => return,
        };
        let _ = self.driver.send(FromLeg::Ended(self.id, end));
    }
}

impl LegHandler for LegTask {
    fn handle_hello(&self, hello: LegHello) {
        let _ = self.driver.send(FromLeg::Hello(self.id, hello));
    }

    async fn handle_frame(&self, frame: LegFrame) {
        self.gauge.room().await;
        self.gauge.add(FRAME_COST + frame.frame.len());
        let _ = self.driver.send(FromLeg::Frame(self.id, frame, Arc::clone(&self.gauge)));
    }

    fn drained(&self) {
        self.drained.notify_one();
    }
}
