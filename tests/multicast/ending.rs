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
