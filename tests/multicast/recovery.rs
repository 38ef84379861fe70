//! Legs that break and come back (MC-03).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use mls_channel::{
    Backoff, DmlsEvent, DmlsSession, LegEnd, MemoryStore, Multicast, MulticastEvent,
    MulticastOptions, Time,
};
use tokio::io::{self, AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::world::*;

/// A transport that fails after so many bytes were read from it.
pub(crate) struct Cut {
    pub(crate) io: DuplexStream,
    pub(crate) left: usize,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut piece = vec![0; self.left.min(buffer.remaining())];
        let mut limited = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut limited))?;
        buffer.put_slice(limited.filled());
        self.left -= limited.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Sends messages, an update and an own commit over a leg that fails when `cut` bytes have arrived at
/// one end, and then over another one. Gives whether the first one failed.
async fn transfer(mut members: Vec<Multicast>, cut: usize, cut_at: usize) -> bool {
    let (near, far) = pipe();
    let mut ends = [Cut { io: near, left: usize::MAX }, Cut { io: far, left: usize::MAX }];
    ends[cut_at].left = cut;
    let [near, far] = ends;
    members[0].add_leg(index(1), near).unwrap();
    members[1].add_leg(index(0), far).unwrap();
    members[0].send("first").await.unwrap();
    members[0].update().await.unwrap();
    members[1].send("answer").await.unwrap();
    members[0].send("second").await.unwrap();
    let mut received = Vec::new();
    let mut has_failed = false;
    let wanted: [&[u8]; 2] = [b"first", b"second"];
    while received.len() < 2 && !has_failed {
        let event = wait_for(&mut members[1], |event| match event {
            MulticastEvent::Message { data, .. } => Some(Some(data)),
            MulticastEvent::LegDown { end: LegEnd::Broken(_), .. } => Some(None),
            MulticastEvent::LegUp { .. } => None,
            MulticastEvent::Universe(DmlsEvent::Joined { .. }) => None,
            MulticastEvent::Universe(DmlsEvent::EpochChanged { .. }) => None,
            other => panic!("{cut}: {other:?}"),
        });
        match event.await {
            Some(data) => received.push(data),
            None => has_failed = true,
        }
    }
    link(&members, 0, 1);
    while received.len() < 2 {
        received.push(message(&mut members[1]).await.1.into());
    }
    assert_eq!(received, wanted, "{cut}");
    assert_eq!(message(&mut members[0]).await, (1, b"answer".to_vec()), "{cut}");
    // Commits are there as well: what comes next is in their epochs.
    members[0].update().await.unwrap();
    assert_all_talk(&mut members, "on and on").await;
    assert_eq!(members[1].epoch(index(0)).await, members[0].epoch(index(0)).await);
    has_failed
}

/// Cuts at every byte of the hello and the first frames, and at every seventh of the rest.
async fn cut_everywhere(cut_at: usize, end: usize) {
    let configs: Vec<_> = configs(2)
        .into_iter()
        .map(|config| {
            let suites = [config.cipher_suites()[0]];
            Arc::new(config.to_builder().cipher_suites(suites).build().unwrap())
        })
        .collect();
    let mut failed = 0;
    for cut in (0..150).chain((150..end).step_by(7)) {
        let sessions = sessions(&configs, policy());
        let options = MulticastOptions::default();
        let members = sessions.into_iter().map(|session| Multicast::new(session, options));
        failed += usize::from(transfer(members.collect(), cut, cut_at).await);
    }
    assert!(failed > 100, "{failed}");
}

// MC-03
#[tokio::test]
async fn a_leg_cut_anywhere_on_the_way_there_comes_back_and_nothing_is_lost() {
    cut_everywhere(1, 2000).await;
}

// MC-03
#[tokio::test]
async fn a_leg_cut_anywhere_on_the_way_back_comes_back_and_nothing_is_lost() {
    cut_everywhere(0, 600).await;
}

// MC-03
#[tokio::test]
async fn what_is_sent_while_there_is_no_leg_arrives_later() {
    let mut members = members(3, MulticastOptions::default());
    link(&members, 0, 1);
    for number in 0..50 {
        members[0].send(format!("{number}")).await.unwrap();
    }
    members[0].update().await.unwrap();
    members[0].send("after the update").await.unwrap();
    assert_eq!(messages(&mut members[1], 0, 51).await[50], b"after the update");
    link(&members, 0, 2);
    link(&members, 1, 2);
    assert_eq!(messages(&mut members[2], 0, 51).await[50], b"after the update");
    assert_all_talk(&mut members, "hello").await;
}

// MC-03
#[tokio::test]
async fn a_kept_leg_comes_back_by_itself() {
    let mut members = members(2, MulticastOptions::default());
    let accepting = members.pop().unwrap();
    let mut keeping = members.pop().unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let (sender, counted) = (accepting, Arc::clone(&attempts));
    let (mut receiver_side, mut receiver) = {
        let (sender, receiver) = sender.into_split();
        (sender, receiver)
    };
    let accept = receiver_side.clone();
    let mut backoff = Backoff::default();
    backoff.first = std::time::Duration::from_millis(1);
    keeping.keep_leg(index(1), backoff, move || {
        let attempt = counted.fetch_add(1, Relaxed);
        let accept = accept.clone();
        async move {
            let (near, far) = pipe();
            match attempt {
                0 => Err(io::ErrorKind::ConnectionRefused.into()),
                // Breaks in the middle of something.
                1..6 => {
                    accept.accept_leg(far).unwrap();
                    Ok(Cut { io: near, left: 200 * attempt })
                }
                _ => {
                    accept.accept_leg(far).unwrap();
                    Ok(Cut { io: near, left: usize::MAX })
                }
            }
        }
    });
    receiver_side.send("first").await.unwrap();
    receiver_side.update().await.unwrap();
    receiver_side.send("second").await.unwrap();
    assert_eq!(messages(&mut keeping, 1, 2).await, [&b"first"[..], b"second"]);
    assert!(attempts.load(Relaxed) > 2);

    // After a goodbye it does not come back.
    receiver_side.leave().await;
    let goodbye = |event| match event {
        MulticastEvent::LegDown { end: LegEnd::Goodbye, .. } => Some(()),
        _ => None,
    };
    wait_for(&mut keeping, goodbye).await;
    while receiver.next_event().await.is_some() {}
    receiver_side = keeping.into_split().0;
    assert!(receiver_side.members().await.is_ok());
}

// MC-03: a member whose process has ended goes on from what it has stored.
#[tokio::test]
async fn a_member_that_was_restored_goes_on() {
    let configs: Vec<_> = configs(2)
        .into_iter()
        .map(|config| {
            let store = MemoryStore::default();
            Arc::new(config.to_builder().session_store(store).build().unwrap())
        })
        .collect();
    let options = MulticastOptions::default();
    let universe = sessions(&configs, policy());
    let mut members: Vec<_> =
        universe.into_iter().map(|session| Multicast::new(session, options)).collect();
    link(&members, 0, 1);
    assert_all_talk(&mut members, "before").await;
    for _ in 0..3 {
        let mut gone = members.pop().unwrap();
        gone.update().await.unwrap();
        gone.leave().await;
        // Nobody is there to hear it.
        members[0].update().await.unwrap();
        members[0].send("meanwhile").await.unwrap();
        let now = Time::now();
        let session =
            DmlsSession::restore(Arc::clone(&configs[1]), policy(), b"universe", now).unwrap();
        gone = Multicast::new(session, options);
        members.push(gone);
        link(&members, 0, 1);
        // Messages that came after the last write come again.
        while message(&mut members[1]).await.1 != b"meanwhile" {}
        assert_all_talk(&mut members, "after").await;
    }
}
