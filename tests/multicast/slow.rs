//! Legs that do not keep up (MC-02).

use futures::FutureExt;
use mls_channel::{Error, LegEnd, LegPeer, Multicast, MulticastOptions, SlowLeg, error::ApiMisuse};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional};

use crate::world::*;

const SIZE: usize = 10_000;

/// Three members; between 0 and 2 there is somebody who passes on what `far` and `near` give only when
/// told to.
fn members_with_a_stuck_leg(slow_leg: SlowLeg) -> (Vec<Multicast>, DuplexStream, DuplexStream) {
    let mut options = MulticastOptions::default();
    options.slow_leg = slow_leg;
    options.leg_queue = 5 * SIZE;
    let members = members(3, options);
    link(&members, 0, 1);
    link(&members, 1, 2);
    let (near, near_end) = tokio::io::duplex(1024);
    let (far, far_end) = tokio::io::duplex(1024);
    members[0].add_leg(index(2), near).unwrap();
    members[2].add_leg(index(0), far).unwrap();
    (members, near_end, far_end)
}

/// Lets the hello of 2 through, and nothing else.
async fn introduce(
    members: &mut [Multicast],
    near_end: &mut DuplexStream,
    far_end: &mut DuplexStream,
) {
    let mut header = [0; 5];
    far_end.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    far_end.read_exact(&mut body).await.unwrap();
    near_end.write_all(&[&header[..], &body].concat()).await.unwrap();
    while leg_up(&mut members[0]).await != LegPeer::Member(index(2)) {}
}

fn data(number: u8) -> Vec<u8> {
    vec![number; SIZE]
}

// MC-02, MC-03: the default.
#[tokio::test]
async fn a_slow_leg_delays_nobody_and_catches_up() {
    let (mut members, mut near_end, mut far_end) = members_with_a_stuck_leg(SlowLeg::CatchUp);
    introduce(&mut members, &mut near_end, &mut far_end).await;
    for number in 0..100 {
        members[0].send(data(number)).await.unwrap();
    }
    assert_eq!(messages(&mut members[1], 0, 100).await[99], data(99));
    tokio::spawn(async move { copy_bidirectional(&mut near_end, &mut far_end).await });
    let received = messages(&mut members[2], 0, 100).await;
    assert!((0..).zip(received).all(|(number, received)| received == data(number)));
    assert_all_talk(&mut members, "level again").await;
}

// MC-02
#[tokio::test]
async fn messages_can_wait_for_the_slowest_leg() {
    let (mut members, mut near_end, mut far_end) = members_with_a_stuck_leg(SlowLeg::Wait);
    introduce(&mut members, &mut near_end, &mut far_end).await;
    let (sender, mut events) = members.remove(0).into_split();
    tokio::spawn(async move { while events.next_event().await.is_some() {} });
    let mut sent = 0;
    let all = async {
        for number in 0..100 {
            sender.send(data(number)).await.unwrap();
            sent += 1;
        }
    };
    let mut all = Box::pin(all);
    // The queue is full; the other leg gets what was protected, and no more.
    let first = tokio::select! {
        () = &mut all => panic!("nothing waits"),
        first = messages(&mut members[0], 0, 5) => first,
    };
    assert_eq!(first[4], data(4));
    assert!(all.as_mut().now_or_never().is_none());
    tokio::spawn(async move { copy_bidirectional(&mut near_end, &mut far_end).await });
    all.await;
    assert_eq!(sent, 100);
    assert_eq!(messages(&mut members[1], 0, 100).await[99], data(99));
    assert_eq!(messages(&mut members[0], 0, 95).await[94], data(99));
}

// MC-02, MC-03
#[tokio::test]
async fn a_slow_leg_can_be_dropped_and_come_back() {
    let (mut members, mut near_end, mut far_end) = members_with_a_stuck_leg(SlowLeg::Drop);
    introduce(&mut members, &mut near_end, &mut far_end).await;
    for number in 0..20 {
        members[0].send(data(number)).await.unwrap();
    }
    let (peer, end) = leg_down(&mut members[0]).await;
    assert_eq!(peer, LegPeer::Member(index(2)));
    assert!(matches!(end, LegEnd::Slow), "{end}");
    assert_eq!(messages(&mut members[1], 0, 20).await[19], data(19));
    link(&members, 0, 2);
    assert_eq!(messages(&mut members[2], 0, 20).await[19], data(19));
    drop((near_end, far_end));
}

// MC-02
#[tokio::test]
async fn a_slow_leg_can_be_an_error() {
    let (mut members, mut near_end, mut far_end) = members_with_a_stuck_leg(SlowLeg::Error);
    introduce(&mut members, &mut near_end, &mut far_end).await;
    let mut sent = 0;
    let error = loop {
        match members[0].send(data(sent)).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::ApiMisuse(ApiMisuse::SlowLeg));
    assert!((3..20).contains(&sent), "{sent}");
    tokio::spawn(async move { copy_bidirectional(&mut near_end, &mut far_end).await });
    let expected = data(sent - 1);
    assert_eq!(messages(&mut members[1], 0, sent.into()).await.pop(), Some(expected.clone()));
    assert_eq!(messages(&mut members[2], 0, sent.into()).await.pop(), Some(expected));
    // What was refused was not sent.
    loop {
        match members[0].send("at last").await {
            Ok(()) => break,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    assert_eq!(message(&mut members[1]).await, (0, b"at last".to_vec()));
}

// MC-02: an application that does not read is not fed, and its peers are not held up by it.
#[tokio::test]
async fn an_application_that_does_not_read_holds_back_its_own_legs_only() {
    let mut options = MulticastOptions::default();
    options.event_queue = SIZE;
    options.leg_input = SIZE;
    let mut members = members(3, options);
    mesh(&members);
    for number in 0..200 {
        members[0].send(data(number)).await.unwrap();
        assert_eq!(message(&mut members[1]).await, (0, data(number)));
    }
    assert_eq!(messages(&mut members[2], 0, 200).await[199], data(199));
}

// MC-02: nothing is left of a leg that was given up, even if its peer never reads again.
#[tokio::test(start_paused = true)]
async fn a_slow_leg_that_is_given_up_is_gone() {
    let mut options = MulticastOptions::default();
    options.slow_leg = SlowLeg::Drop;
    options.leg_queue = 5 * SIZE;
    let mut members = members(2, options);
    let (near, mut far) = tokio::io::duplex(64);
    let (near, gone) = watched(near);
    members[0].add_leg(index(1), near).unwrap();
    far.write_all(&crate::hostile::hello(b"universe", 1, &[])).await.unwrap();
    while leg_up(&mut members[0]).await != LegPeer::Member(index(1)) {}
    for number in 0..20 {
        members[0].send(data(number)).await.unwrap();
    }
    let (_, end) = leg_down(&mut members[0]).await;
    assert!(matches!(end, LegEnd::Slow), "{end}");
    gone.wait().await;
}
