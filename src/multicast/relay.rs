//! [`Relay`]: copies frames between members who cannot reach each other (MC-05).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    io::{Ended, KeepAlive, LegHandler, LegIo, Patience},
    options::LegEnd,
    queue::{QueueWriter, queue},
    ring::{LegId, State},
};
use crate::{
    dmls::MemberIndex,
    error::{Error, PeerMisbehaved},
    wire::{LegFrame, LegHello},
};

/// What a [`Relay`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Members with higher numbers are refused. Default: 1024, what a universe has at most. For each
    /// one that has come, `kept_bytes` and a few queues are held.
    pub max_members: u16,
    /// Bytes of frames of one member that are kept for others who come back, and 128 for each of them;
    /// one frame more may.
    /// Default: 4 MiB. What is no longer kept, members ask each other for.
    pub kept_bytes: usize,
    /// Bytes that wait for one leg, and 128 for each frame; one frame more may. Default: 1 MiB.
    pub leg_queue: usize,
    /// Longest frame, in bytes. Default: 2 MiB, as [`DmlsPolicy`](crate::DmlsPolicy) has it.
    pub max_frame_size: usize,
    /// How long a member may take to say who it is. Default: 10 s.
    pub hello_timeout: Duration,
    /// How long the answer to a goodbye may take. Default: 5 s.
    pub goodbye_timeout: Duration,
    /// As [`MulticastOptions::keep_alive_interval`](super::MulticastOptions::keep_alive_interval).
    /// Default: `None`.
    pub keep_alive_interval: Option<Duration>,
    /// As [`MulticastOptions::keep_alive_timeout`](super::MulticastOptions::keep_alive_timeout).
    /// Default: 20 s.
    pub keep_alive_timeout: Duration,
}

/// A server in the middle that only copies frames, for one universe (MC-05).
///
/// It has no key, and is not trusted: it cannot read or forge. It can lose, delay and reorder what goes
/// through it, which members mend as far as they have other ways or it relents. It keeps the newest
/// frames of each member, and sends a member who comes back those that it lacks.
///
/// It believes members who they are. On raw legs anybody can therefore take a member's place here for
/// a while, though not be taken for that member by others. Serve [`MlsStream`](crate::MlsStream)s, with
/// [`Relay::serve_member`], where that matters.
///
/// Clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    state: Arc<Mutex<State>>,
    options: RelayOptions,
}

struct Task {
    relay: Relay,
    expected: Option<u16>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Until the member has said who it is.
    queue: Option<QueueWriter>,
    id: Option<LegId>,
    refused: Option<Error>,
}

impl Relay {
    /// A relay that nobody has come to yet.
    pub fn new(options: RelayOptions) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(options))), options }
    }

    /// Serves a member until its leg ends.
    pub async fn serve<IO>(&self, io: IO) -> LegEnd
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_expected(None, io).await
    }

    /// Serves this very member until its leg ends. Who it is the caller knows, from
    /// [`MlsStream::peer`](crate::MlsStream::peer) for example.
    pub async fn serve_member<IO>(&self, member: MemberIndex, io: IO) -> LegEnd
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_expected(Some(member.0), io).await
    }

    /// How many bytes of frames are kept, with 128 for each of them.
    pub fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes()
    }

    /// How many legs have said whose they are.
    pub fn legs(&self) -> usize {
        self.lock().legs()
    }

    async fn serve_expected<IO>(&self, expected: Option<u16>, io: IO) -> LegEnd
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (writer, reader) = queue(self.options.leg_queue);
        let inner = Inner { queue: Some(writer), ..Inner::default() };
        let task = Task { relay: self.clone(), expected, inner: Mutex::new(inner) };
        let timeout = self.options.keep_alive_timeout;
        let keep_alive = self.options.keep_alive_interval;
        let patience = Patience {
            hello: self.options.hello_timeout,
            goodbye: self.options.goodbye_timeout,
            keep_alive: keep_alive.map(|interval| KeepAlive { interval, timeout }),
        };
        let ended =
            LegIo::new(io, self.options.max_frame_size).run(reader, &task, true, patience).await;
        let refused = task.lock().refused.take();
        match (ended, refused) {
            (_, Some(error)) => LegEnd::Refused(error),
            (Ended::Goodbye, None) => LegEnd::Goodbye,
            (Ended::Left, None) => LegEnd::Left,
            (Ended::GivenUp, None) => LegEnd::Replaced,
            (Ended::Broken(error), None) => LegEnd::Broken(Arc::new(error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the leg.
    fn refuse(&self, inner: &mut Inner, error: Error) {
        inner.refused.get_or_insert(error);
        inner.queue = None;
        if let Some(id) = inner.id.take() {
            self.relay.lock().detach(id);
        }
    }
}

impl LegHandler for Task {
    async fn handle_hello(&self, hello: LegHello) {
        let mut inner = self.lock();
        let is_expected = self.expected.is_none_or(|expected| expected == hello.member);
        if hello.member >= self.relay.options.max_members || !is_expected {
            let what = "a leg of another member";
            return self.refuse(&mut inner, PeerMisbehaved::UnexpectedUniverse(what).into());
        }
        match (inner.id, inner.queue.take()) {
            (None, Some(queue)) => inner.id = Some(self.relay.lock().attach(hello, queue)),
            (Some(id), _) => {
                if !self.relay.lock().hello_again(id, hello) {
                    let what = "a leg of another member";
                    self.refuse(&mut inner, PeerMisbehaved::UnexpectedUniverse(what).into());
                }
            }
            (None, None) => {}
        }
    }

    async fn handle_frame(&self, frame: LegFrame) {
        let mut inner = self.lock();
        let Some(id) = inner.id else { return };
        let result = self.relay.lock().copy(id, &frame);
        if let Err(error) = result {
            self.refuse(&mut inner, error);
        }
    }

    fn drained(&self) {
        if let Some(id) = self.lock().id {
            self.relay.lock().catch_up(id);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(id) = self.lock().id.take() {
            self.relay.lock().detach(id);
        }
    }
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            max_members: 1024,
            kept_bytes: 4 << 20,
            leg_queue: 1 << 20,
            max_frame_size: 2 << 20,
            hello_timeout: Duration::from_secs(10),
            goodbye_timeout: Duration::from_secs(5),
            keep_alive_interval: None,
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("legs", &self.legs()).finish_non_exhaustive()
    }
}
