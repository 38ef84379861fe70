//! Who is woken when, and who may touch what: the two things that the halves of a stream share.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        atomic::{AtomicBool, AtomicU32, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// The waker with which one direction of the transport is polled.
///
/// A transport remembers one waker for each direction, but two tasks may care: the one that reads,
/// and one that only writes and yet needs the peer's answers read (CH-03), or the other way round.
/// So the transport always gets this waker, and it wakes both.
pub(super) struct Direction {
    signal: Arc<Signal>,
    waker: Waker,
    /// How often the owner came by when the helper last looked.
    seen: AtomicU32,
}

struct Signal {
    /// The task to which the direction belongs: the reader's or the writer's.
    owner: AtomicWaker,
    /// The task of the other direction.
    helper: AtomicWaker,
    /// The transport may have something, and nobody has looked yet.
    ready: AtomicBool,
    /// Counts the owner's visits.
    visits: AtomicU32,
}

/// Which of two tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Owner,
    Helper,
}

impl Direction {
    pub(super) fn new() -> Self {
        let signal = Arc::new(Signal {
            owner: AtomicWaker::new(),
            helper: AtomicWaker::new(),
            ready: AtomicBool::new(true),
            visits: AtomicU32::new(0),
        });
        let waker = Waker::from(Arc::clone(&signal));
        Self { signal, waker, seen: AtomicU32::new(0) }
    }

    /// The owner comes by.
    pub(super) fn visit(&self) {
        let visits = self.signal.visits.load(Ordering::Relaxed);
        self.signal.visits.store(visits.wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether the helper should do the owner's work: there may be some, and the owner has not come
    /// by since the helper last asked.
    pub(super) fn needs_help(&self) -> bool {
        if !self.signal.ready.load(Ordering::Acquire) {
            return false;
        }
        let visits = self.signal.visits.load(Ordering::Relaxed);
        self.seen.swap(visits, Ordering::Relaxed) == visits
    }

    /// Registers a task to be woken.
    pub(super) fn register(&self, side: Side, cx: &Context<'_>) {
        match side {
            Side::Owner => self.signal.owner.register(cx.waker()),
            Side::Helper => self.signal.helper.register(cx.waker()),
        }
    }

    /// Polls the transport; `side` is woken when it is ready, along with the other side if that
    /// one has registered.
    pub(super) fn poll<T>(
        &self,
        side: Side,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.register(side, cx);
        // Cleared first: a wake-up that comes while polling must not be lost.
        self.signal.ready.store(false, Ordering::Release);
        let result = poll(&mut Context::from_waker(&self.waker));
        if result.is_ready() {
            self.signal.ready.store(true, Ordering::Release);
        }
        result
    }

    /// What wakes both sides.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Wakes both sides.
    pub(super) fn wake(&self) {
        self.waker.wake_by_ref();
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, Ordering::Release);
        self.owner.wake();
        self.helper.wake();
    }
}

/// A value that belongs to one task and is lent to another now and then.
///
/// Nobody ever blocks: who finds the value taken is woken when it is free. The owner of an unshared
/// moment pays one uncontended compare-and-swap.
pub(super) struct Lent<T> {
    value: Mutex<T>,
    waiting: [Waiting; 2],
}

#[derive(Default)]
struct Waiting {
    flag: AtomicBool,
    waker: AtomicWaker,
}

pub(super) struct LentGuard<'a, T> {
    guard: Option<MutexGuard<'a, T>>,
    other: &'a Waiting,
}

impl<T> Lent<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), waiting: Default::default() }
    }

    /// Takes the value if nobody has it.
    pub(super) fn try_take(&self, side: Side) -> Option<LentGuard<'_, T>> {
        let guard = match self.value.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(LentGuard { guard: Some(guard), other: self.waiting(side.other()) })
    }

    /// Takes the value, or is woken when it is free.
    pub(super) fn poll_take(&self, side: Side, cx: &Context<'_>) -> Poll<LentGuard<'_, T>> {
        if let Some(guard) = self.try_take(side) {
            return Poll::Ready(guard);
        }
        let waiting = self.waiting(side);
        waiting.waker.register(cx.waker());
        waiting.flag.store(true, Ordering::Relaxed);
        // Either this sees that the value has been given back, or who gives it back sees the flag.
        fence(Ordering::SeqCst);
        match self.try_take(side) {
            Some(guard) => {
                waiting.flag.store(false, Ordering::Relaxed);
                Poll::Ready(guard)
            }
            None => Poll::Pending,
        }
    }

    fn waiting(&self, side: Side) -> &Waiting {
        match side {
            Side::Owner => &self.waiting[0],
            Side::Helper => &self.waiting[1],
        }
    }
}

impl<T> Drop for LentGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        fence(Ordering::SeqCst);
        if self.other.flag.load(Ordering::Relaxed) {
            self.other.flag.store(false, Ordering::Relaxed);
            self.other.waker.wake();
        }
    }
}

impl<T> Deref for LentGuard<'_, T> {
    type Target = T;

    #[allow(clippy::expect_used)]
    fn deref(&self) -> &T {
        self.guard.as_deref().expect("present until dropped")
    }
}

impl<T> DerefMut for LentGuard<'_, T> {
    #[allow(clippy::expect_used)]
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("present until dropped")
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Owner => Self::Helper,
            Self::Helper => Self::Owner,
        }
    }
}
