//! What the task of a leg tells the one that owns the session.

use std::{pin::pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    driver::{EVENT_COST, FromLeg},
    io::{Ended, LegHandler, LegIo, Patience},
    legs::LegId,
    options::LegEnd,
    queue::{FRAME_COST, QueueReader},
};
use crate::wire::{LegFrame, LegHello, WantedPlace};

/// The connection between a leg's task and the session's.
pub(crate) struct LegTask {
    id: LegId,
    driver: mpsc::UnboundedSender<FromLeg>,
    drained: Arc<Notify>,
    input: Input,
}

/// Room for what came over legs and was not processed. Legs that wait for it take turns.
#[derive(Clone)]
pub(crate) struct Input {
    room: Arc<Semaphore>,
    limit: u32,
}

impl Input {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        let room = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(room)), limit }
    }

    /// Room for so many bytes, or all of it. Dropping it gives it back.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limit);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }
}

impl LegTask {
    pub(crate) fn new(
        id: LegId,
        driver: mpsc::UnboundedSender<FromLeg>,
        drained: Arc<Notify>,
        input: Input,
    ) -> Self {
        Self { id, driver, drained, input }
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
    async fn handle_hello(&self, hello: LegHello) {
        let length = hello.wanted.len() * size_of::<WantedPlace>();
        if let Some(room) = self.input.take(EVENT_COST + length).await {
            let _ = self.driver.send(FromLeg::Hello(self.id, hello, room));
        }
    }

    async fn handle_frame(&self, frame: LegFrame) {
        if let Some(room) = self.input.take(FRAME_COST + frame.frame.len()).await {
            let _ = self.driver.send(FromLeg::Frame(self.id, frame, room));
        }
    }

    fn drained(&self) {
        self.drained.notify_one();
    }
}
