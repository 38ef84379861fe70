//! Streams whose peer or transport does not behave.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports, unused_macros, reason = "each test uses a part of it")]
#[path = "support/providers.rs"]
mod providers;
#[allow(dead_code, reason = "each test uses a part of it")]
mod support;

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use mls_channel::{
    Error, Limits,
    error::{ApiMisuse, PeerMisbehaved},
};
use support::{Configs, connect, pipe, poll_some};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

/// A pipe whose sending direction can be spoiled.
struct Spoiled {
    io: DuplexStream,
    spoilt: Arc<AtomicBool>,
    how: How,
    /// How much of what is offered the other end has seen.
    seen: usize,
}

#[derive(Clone, Copy)]
enum How {
    /// Every write fails.
    Breaks,
    /// The next write is taken as a whole, and every later one fails.
    TakesOne,
    /// Nothing is ever taken, but the other end sees it.
    Watches,
}

impl Spoiled {
    fn new(io: DuplexStream, how: How) -> (Self, Arc<AtomicBool>) {
        let spoilt = Arc::new(AtomicBool::new(false));
        (Self { io, spoilt: Arc::clone(&spoilt), how, seen: 0 }, spoilt)
    }
}

impl AsyncRead for Spoiled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Spoiled {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match (this.spoilt.load(Ordering::SeqCst), this.how) {
            (false, _) => Pin::new(&mut this.io).poll_write(cx, buf),
            (true, How::TakesOne) if this.seen == 0 => {
                let polled = Pin::new(&mut this.io).poll_write(cx, buf);
                assert!(matches!(polled, Poll::Ready(Ok(length)) if length == buf.len()));
                this.seen = buf.len();
                polled
            }
            (true, How::Breaks | How::TakesOne) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            (true, How::Watches) => {
                let new = buf.get(this.seen..).unwrap_or_default();
                if let Poll::Ready(Ok(seen)) = Pin::new(&mut this.io).poll_write(cx, new) {
                    this.seen += seen;
                }
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// CH-10, 2P-07: a peer that updates again before it has taken the answer to its last update would make
// answers pile up. This one looks at them without taking them.
#[tokio::test]
async fn answers_that_nobody_takes_do_not_pile_up() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (far, watched) = Spoiled::new(far, How::Watches);
    let (mut attacker, mut victim) = connect(&Configs::new(), near, far).await;
    watched.store(true, Ordering::SeqCst);
    let mut buffer = [0; 8];
    let mut attacks = pin!(async {
        for _ in 0..2 {
            attacker.write_all(b"x").await?;
            attacker.rekey().await?;
        }
        io::Result::Ok(())
    });
    let error = loop {
        tokio::select! {
            attacked = &mut attacks => panic!("a second update was answered: {attacked:?}"),
            read = victim.read(&mut buffer) => match read {
                Ok(length) => assert_eq!(length, 1),
                Err(error) => break error,
            },
        }
    };
    assert_eq!(Error::from_io(&error), Some(&PeerMisbehaved::TooManyUpdates.into()));
}

// CH-05: a long write is handed over while it is sealed, and what was accepted before the transport broke
// is reported once.
#[tokio::test]
async fn a_transport_that_breaks_in_the_middle_of_a_write() {
    const RECORD: usize = 16 * 1024;
    let (near, far) = tokio::io::duplex(1 << 20);
    let (near, spoilt) = Spoiled::new(near, How::TakesOne);
    let (mut writer, mut reader) = connect(&Configs::new(), near, far).await;
    spoilt.store(true, Ordering::SeqCst);
    let data = vec![7; 8 * RECORD];
    assert_eq!(writer.write(&data).await.unwrap(), 4 * RECORD);
    let error = writer.write(&data).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(writer);
    let mut received = Vec::new();
    let error = reader.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(Error::from_io(&error), Some(&Error::Truncated));
    assert_eq!(received, data[..2 * RECORD]);
}

// CH-05: nothing is accepted that cannot be sent any more.
#[tokio::test]
async fn a_broken_transport_fails_the_next_write() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (near, broken) = Spoiled::new(near, How::Breaks);
    let (mut client, _server) = connect(&Configs::new(), near, far).await;
    broken.store(true, Ordering::SeqCst);
    // What finds out is reported as written: it was accepted before.
    let _ = client.write(b"found out").await;
    for _ in 0..3 {
        let error = client.write(b"lost").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

// CH-05: records of one byte take more memory than their byte.
#[tokio::test]
async fn short_records_cannot_fill_the_memory_behind_read_ahead() {
    const READ_AHEAD: usize = 8 * 1024;
    let configs = Configs::new().limits(Limits::default().with_read_ahead(READ_AHEAD));
    let (mut client, mut server) = pipe(&configs, 1 << 16).await;
    let flood = pin!(async {
        for _ in 0..100_000 {
            client.write_all(b"x").await.unwrap();
        }
    });
    let mut flood = Box::pin(flood);
    // The server only asks for an update and waits for it: it reads ahead.
    let error = loop {
        assert!(poll_some(100, &mut flood).await.is_none(), "the flood met no bound");
        if let Some(done) = poll_some(1, server.rekey()).await {
            break done.unwrap_err();
        }
    };
    assert_eq!(Error::from_io(&error), Some(&ApiMisuse::UnreadData.into()));
    let received = usize::try_from(server.statistics().bytes_received).unwrap();
    assert!(received * 50 < READ_AHEAD + 100, "{received} records were kept");
}

// CH-05: the reading half asks for an update, too, and gives up: the writing half is woken all the same.
#[tokio::test]
async fn a_rekey_that_was_given_up_takes_no_wake_up_away() {
    let (client, mut server) = pipe(&Configs::new(), 1 << 16).await;
    let (mut reading, mut writing) = client.into_split();
    let mut rekey = tokio::spawn(async move {
        writing.rekey().await.unwrap();
        writing
    });
    assert!(poll_some(10, &mut rekey).await.is_none());
    // In a task of its own, which ends: its waker is nobody's.
    let given_up = tokio::spawn(async move {
        assert!(poll_some(10, reading.rekey()).await.is_none());
        reading
    });
    let _reading = given_up.await.unwrap();
    let mut buffer = [0; 1];
    tokio::select! {
        done = rekey => drop(done.unwrap()),
        read = server.read(&mut buffer) => panic!("nothing was sent: {read:?}"),
    }
}
