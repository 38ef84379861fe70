//! How it ends: nothing is left behind, nobody waits for ever, and who leaves says so (MC-02, MC-03).

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, future::join_all};
use mls_channel::{
    Backoff, Error, LegPeer, Multicast, MulticastEvent, MulticastOptions, SlowLeg, error::ApiMisuse,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::oneshot,
};

use crate::{hostile::hello, recovery::Cut, world::*};

const SIZE: usize = 10_000;

/// A goodbye, in records.
const GOODBYE: [u8; 9] = [22, 3, 3, 0, 4, 34, 0, 0, 0];

/// Two members, and a leg of member 0 whose other end has said that it is member 1 and reads nothing.
async fn with_a_stuck_leg(options: MulticastOptions) -> (Vec<Multicast>, DuplexStream, Gone) {
    let mut members = members(2, options);
    let (near, mut far) = tokio::io::duplex(64);
    let (near, gone) = watched(near);
    members[0].add_leg(index(1), near).unwrap();
    far.write_all(&hello(b"universe", 1, &[])).await.unwrap();
    while leg_up(&mut members[0]).await != LegPeer::Member(index(1)) {}
    (members, far, gone)
}

fn waiting_for_slow_legs() -> MulticastOptions {
    let mut options = MulticastOptions::default();
    options.slow_leg = SlowLeg::Wait;
    options.leg_queue = 3 * SIZE;
    options
}

// MC-02: who leaves takes no events, and is sent as much as there is.
#[tokio::test(start_paused = true)]
async fn events_are_bounded_while_a_party_leaves() {
    let mut options = MulticastOptions::default();
    options.event_queue = 2 * SIZE;
    let mut members = members(2, options);
    // What member 1 says, to be repeated.
    let (near, mut far) = tokio::io::duplex(2 << 20);
    far.write_all(&hello(b"universe", 0, &[])).await.unwrap();
    members[1].add_leg(index(0), near).unwrap();
    for _ in 0..100 {
        members[1].send(vec![7; SIZE]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(members.pop());
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();

    let (near, mut far) = tokio::io::duplex(2 << 20);
    members[0].add_leg(index(1), near).unwrap();
    let (first, rest) = said.split_at(said.len() / 100);
    far.write_all(first).await.unwrap();
    assert_eq!(leg_up(&mut members[0]).await, LegPeer::Member(index(1)));
    let (mut sender, mut receiver) = members.remove(0).into_split();
    let close = tokio::spawn(async move { SinkExt::<Bytes>::close(&mut sender).await });
    tokio::task::yield_now().await;
    far.write_all(rest).await.unwrap();
    soon(close).await.unwrap().unwrap();
    let mut received = 0;
    while let Some(event) = receiver.next_event().await {
        received += usize::from(matches!(event, Ok(MulticastEvent::Message { .. })));
    }
    assert!((1..=3).contains(&received), "{received}");
}

/// Reads the records of a leg to its end. Gives the first byte of each.
async fn read_to_end(far: &mut DuplexStream) -> Vec<u8> {
    let mut records = Vec::new();
    soon(far.read_to_end(&mut records)).await.unwrap();
    let mut types = Vec::new();
    let mut rest = &records[..];
    while let Some(&[22, 3, 3, high, low, message_type, ..]) = rest.first_chunk::<6>() {
        types.push(message_type);
        rest = &rest[5 + usize::from(u16::from_be_bytes([high, low]))..];
    }
    assert_eq!(rest, b"");
    types
}

// MC-03: what the other end has on its way is there when it says goodbye.
#[tokio::test(start_paused = true)]
async fn a_goodbye_is_answered_after_what_was_begun() {
    let (members, mut far, _) = with_a_stuck_leg(MulticastOptions::default()).await;
    for _ in 0..3 {
        members[0].send(vec![7; SIZE]).await.unwrap();
    }
    far.write_all(&GOODBYE).await.unwrap();
    tokio::task::yield_now().await;
    // A hello, the Welcome, three messages.
    assert_eq!(read_to_end(&mut far).await, [32, 33, 33, 33, 33, 34]);
}

// MC-02
#[tokio::test(start_paused = true)]
async fn who_waits_to_send_is_told_of_the_end() {
    let mut options = waiting_for_slow_legs();
    options.send_queue = SIZE;
    let (mut members, _far, _) = with_a_stuck_leg(options).await;
    let sends: Vec<_> = (0..20)
        .map(|_| {
            let sender = members[0].sender();
            tokio::spawn(async move { sender.send(vec![7; SIZE]).await })
        })
        .collect();
    let mut sink = members[0].sender();
    let sink = tokio::spawn(async move { SinkExt::<Bytes>::feed(&mut sink, Bytes::new()).await });
    tokio::task::yield_now().await;
    members.remove(0).leave().await;
    let ends = soon(join_all(sends.into_iter().chain([sink]))).await;
    let closed = Err(Error::ApiMisuse(ApiMisuse::Closed));
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert!(ends.iter().all(|end| end.is_ok() || *end == closed), "{ends:?}");
    assert!(ends.contains(&closed));
}

// MC-02
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_party_that_is_dropped_while_it_waits_for_a_leg() {
    let (mut members, _far, gone) = with_a_stuck_leg(waiting_for_slow_legs()).await;
    for _ in 0..20 {
        members[0].feed(Bytes::from(vec![7; SIZE])).await.unwrap();
    }
    drop(members.remove(0));
    gone.wait().await;
}

// MC-03
#[tokio::test(start_paused = true)]
async fn a_party_that_is_dropped_does_not_connect_any_more() {
    let members = members(2, MulticastOptions::default());
    let mut backoff = Backoff::default();
    backoff.first = Duration::from_secs(3600);
    backoff.longest = backoff.first;
    let (held, connecting) = oneshot::channel();
    members[0].keep_leg::<_, _, DuplexStream>(index(1), backoff, move || {
        assert!(!held.is_closed());
        std::future::pending()
    });
    let (held, pausing) = oneshot::channel();
    members[0].keep_leg::<_, _, DuplexStream>(index(1), backoff, move || {
        assert!(!held.is_closed());
        async { Err(io::ErrorKind::ConnectionRefused.into()) }
    });
    tokio::task::yield_now().await;
    drop(members);
    Gone(connecting).wait().await;
    Gone(pausing).wait().await;
}

// MC-03
#[tokio::test(start_paused = true)]
async fn who_only_receives_keeps_its_legs() {
    let mut members = members(2, MulticastOptions::default());
    let accept = members[0].sender();
    let (sender, mut receiver) = members.remove(1).into_split();
    let mut attempt = 0;
    sender.keep_leg(index(0), Backoff::default(), move || {
        let (near, far) = pipe();
        accept.accept_leg(far).unwrap();
        attempt += 1;
        let left = if attempt < 4 { 50 * attempt } else { usize::MAX };
        async move { Ok(Cut { io: near, left }) }
    });
    drop(sender);
    members[0].send("to one who is silent").await.unwrap();
    let message = async {
        while !matches!(receiver.next_event().await, Some(Ok(MulticastEvent::Message { .. }))) {}
    };
    soon(message).await;
}

// MC-02
#[tokio::test(start_paused = true)]
async fn who_no_longer_takes_events_still_acknowledges() {
    let mut options = MulticastOptions::default();
    options.event_queue = SIZE;
    let mut members = members(2, options);
    mesh(&members);
    assert_all_talk(&mut members, "hello").await;
    let (_sender, receiver) = members.remove(0).into_split();
    // Until nothing is owed, so that no timer wakes it.
    let quiet = Duration::from_secs(60);
    tokio::time::sleep(quiet).await;
    // Fills the queue of events; and what comes now is not received.
    members[0].send(vec![7; SIZE]).await.unwrap();
    tokio::time::sleep(quiet).await;
    members[0].update().await.unwrap();
    tokio::time::sleep(quiet).await;
    assert_eq!(members[0].acknowledged(index(0)).await, Ok(0));
    drop(receiver);
    let acknowledged = async {
        while members[0].acknowledged(index(0)).await == Ok(0) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), acknowledged).await.unwrap();
}

// MC-02
#[tokio::test(start_paused = true)]
async fn a_flush_that_was_given_up_does_not_stand_for_the_next_one() {
    let (mut members, _far, _) = with_a_stuck_leg(waiting_for_slow_legs()).await;
    let mut sender = members[0].sender();
    sender.feed(Bytes::from_static(b"first")).await.unwrap();
    assert!(SinkExt::<Bytes>::flush(&mut sender).now_or_never().is_none());
    for _ in 0..20 {
        sender.feed(Bytes::from(vec![7; SIZE])).await.unwrap();
    }
    // The first ones are protected, and the rest waits.
    let flush = SinkExt::<Bytes>::flush(&mut sender);
    assert!(tokio::time::timeout(Duration::from_secs(60), flush).await.is_err());
    members.clear();
}

// MC-02
#[tokio::test(start_paused = true)]
async fn a_sink_can_be_closed_whatever_its_legs_do_and_again() {
    let (mut members, _far, gone) = with_a_stuck_leg(waiting_for_slow_legs()).await;
    for _ in 0..20 {
        members[0].feed(Bytes::from(vec![7; SIZE])).await.unwrap();
    }
    assert_eq!(soon(SinkExt::<Bytes>::close(&mut members[0])).await, Ok(()));
    assert_eq!(SinkExt::<Bytes>::close(&mut members[0]).await, Ok(()));
    gone.wait().await;
    assert_eq!(SinkExt::<Bytes>::close(&mut members[0].sender()).await, Ok(()));
    let long = Bytes::from(vec![0; 3 << 20]);
    members[1].feed(long).await.unwrap();
    let too_long = Err(Error::ApiMisuse(ApiMisuse::MessageTooLong));
    assert_eq!(SinkExt::<Bytes>::close(&mut members[1]).await, too_long);
}

// MC-03
#[tokio::test(start_paused = true)]
async fn who_leaves_says_so_to_those_who_read_whatever_others_do() {
    let mut options = waiting_for_slow_legs();
    options.goodbye_timeout = Duration::from_secs(30);
    let mut members = members(3, options);
    link(&members, 0, 1);
    let (near, mut far) = tokio::io::duplex(64);
    members[0].add_leg(index(2), near).unwrap();
    far.write_all(&hello(b"universe", 2, &[])).await.unwrap();
    while leg_up(&mut members[0]).await != LegPeer::Member(index(2)) {}
    for number in 0..20 {
        members[0].feed(Bytes::from(vec![number; SIZE])).await.unwrap();
    }
    let leaving = tokio::spawn(members.remove(0).leave());
    assert_eq!(messages(&mut members[0], 0, 20).await[19], vec![19; SIZE]);
    let end = leg_down(&mut members[0]).await.1;
    assert!(matches!(end, mls_channel::LegEnd::Goodbye), "{end}");
    soon(leaving).await.unwrap();
}

// MC-03
#[tokio::test(start_paused = true)]
async fn leaving_may_take_as_long_as_it_takes_and_for_all_who_do_it() {
    let mut options = MulticastOptions::default();
    options.goodbye_timeout = Duration::MAX;
    let (mut members, mut far, _) = with_a_stuck_leg(options).await;
    let also = members[0].sender();
    let (first, second) = (members.remove(0).leave(), also.leave());
    tokio::pin!(first, second);
    let types = tokio::select! {
        () = &mut first => panic!("it has not heard a goodbye"),
        () = &mut second => panic!("it has not heard a goodbye"),
        types = read_to_end(&mut far) => types,
    };
    assert_eq!(types.last(), Some(&34));
    far.write_all(&GOODBYE).await.unwrap();
    soon(async { tokio::join!(first, second) }).await;
}
