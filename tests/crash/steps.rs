//! The steps of a process, at one of which it kills itself.

use std::{
    hint, io,
    pin::Pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    thread,
};

use mls_channel::{
    RedbStore, Revision, SessionKey, SessionStore, StoredSession, error::StoreError,
};
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No step has this number.
const NONE: u64 = u64::MAX;

/// A commit is this many steps besides the one before and the one after.
const DURING: usize = 3;

/// In the middle of a commit, the killer waits for less than this many turns of a loop: about as
/// long as a commit takes.
const MAX_TURNS: u64 = 3_000;

static REACHED: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(NONE);

/// Counts from 0 again, and makes this step the last one.
pub(crate) fn arm(step: Option<u64>) {
    LAST.store(step.unwrap_or(NONE), SeqCst);
    REACHED.store(0, SeqCst);
}

/// A step is reached.
pub(crate) fn step(what: &str) {
    if is_last() {
        die(what);
    }
}

fn is_last() -> bool {
    REACHED.fetch_add(1, SeqCst) == LAST.load(SeqCst)
}

fn die(what: &str) -> ! {
    eprintln!("killed {what}");
    kill();
    wait_for_death()
}

fn kill() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

fn wait_for_death() -> ! {
    loop {
        thread::park();
    }
}

/// A step before, some during and one after.
fn around_commit<T>(what: &str, commit: impl FnOnce() -> T) -> T {
    step(&format!("before {what}"));
    for _ in 0..DURING {
        if is_last() {
            eprintln!("killed during {what}");
            // At each step another moment.
            let turns = LAST.load(SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15) % MAX_TURNS;
            let start = Arc::new(Barrier::new(2));
            let started = Arc::clone(&start);
            thread::spawn(move || {
                started.wait();
                (0..turns).for_each(|_| hint::spin_loop());
                kill();
            });
            start.wait();
            commit();
            wait_for_death();
        }
    }
    let result = commit();
    step(&format!("after {what}"));
    result
}

/// A store whose operations are steps.
pub(crate) struct SteppingStore(pub(crate) Arc<RedbStore>, pub(crate) Arc<AtomicU64>);

impl SessionStore for SteppingStore {
    fn load(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let stored = self.0.load(key)?;
        // The other entries are lists of names.
        if stored.as_ref().is_some_and(|stored| stored.blob.starts_with(b"mlsc")) {
            self.1.fetch_add(1, SeqCst);
        }
        step("after load");
        Ok(stored)
    }

    fn commit(
        &self,
        key: &SessionKey,
        expected: Option<Revision>,
        blob: &[u8],
    ) -> Result<Revision, StoreError> {
        around_commit("commit", || self.0.commit(key, expected, blob))
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        around_commit("remove", || self.0.remove(key))
    }
}

/// A transport whose reads and writes are steps.
pub(crate) struct SteppingIo<IO>(pub(crate) IO);

impl<IO: AsyncRead + Unpin> AsyncRead for SteppingIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        if buf.filled().len() > filled {
            step("after read");
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for SteppingIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        step("before write");
        if is_last() {
            // Whether the half of it leaves or not: what follows never does.
            let _ = Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len() / 2]);
            die("during write");
        }
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, buf))?;
        step("after write");
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
