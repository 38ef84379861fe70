//! Transports that die without saying so (MC-03).

use std::{io, time::Duration};

use futures::FutureExt;
use mls_channel::{
    Backoff, LegEnd, LegPeer, Multicast, MulticastEvent, MulticastOptions, Relay, RelayOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{hostile::hello, world::*};

const INTERVAL: Duration = Duration::from_secs(30);
const PING: [u8; 9] = [22, 3, 3, 0, 4, 35, 0, 0, 0];
const PONG: [u8; 9] = [22, 3, 3, 0, 4, 36, 0, 0, 0];

fn keeping_alive() -> MulticastOptions {
    let mut options = MulticastOptions::default();
    options.keep_alive_interval = Some(INTERVAL);
    options
}

fn members_with(options: [MulticastOptions; 2]) -> Vec<Multicast> {
    let sessions = sessions(&configs(2), policy()).into_iter();
    sessions.zip(options).map(|(session, options)| Multicast::new(session, options)).collect()
}

fn assert_timed_out(end: &LegEnd) {
    let LegEnd::Broken(error) = end else { panic!("{end}") };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// Nothing has been heard of the end of a leg.
fn assert_no_leg_down(member: &mut Multicast) {
    while let Some(event) = member.next_event().now_or_never() {
        let event = event.unwrap().unwrap();
        assert!(!matches!(event, MulticastEvent::LegDown { .. }), "{event:?}");
    }
}

// MC-03
#[tokio::test(start_paused = true)]
async fn a_leg_that_dies_silently_is_noticed() {
    let mut members = members(2, keeping_alive());
    let (near, mut far) = pipe();
    members[0].add_leg(index(1), near).unwrap();
    far.write_all(&hello(b"universe", 1, &[])).await.unwrap();
    assert_eq!(leg_up(&mut members[0]).await, LegPeer::Member(index(1)));
    // Whatever comes shows that somebody is there: an answer, or a question.
    for said in [PONG, PING, PONG] {
        tokio::time::sleep(INTERVAL + Duration::from_secs(19)).await;
        far.write_all(&said).await.unwrap();
    }
    assert_no_leg_down(&mut members[0]);
    let (peer, end) = leg_down(&mut members[0]).await;
    assert_eq!(peer, LegPeer::Member(index(1)));
    assert_timed_out(&end);
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    // It has asked each time, and answered the question.
    let count = |message| said.windows(9).filter(|said| *said == message).count();
    assert_eq!((count(PING), count(PONG)), (4, 1));
}

/// Two members with a leg and a relay between them, and an hour without a word.
async fn nothing_happens(options: [MulticastOptions; 2]) {
    let mut of_relay = RelayOptions::default();
    of_relay.keep_alive_interval = Some(INTERVAL);
    let relay = Relay::new(of_relay);
    let mut members = members_with(options);
    mesh(&members);
    for member in &members {
        let (near, far) = pipe();
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve(far).await });
        member.add_relay(near).unwrap();
    }
    assert_all_talk(&mut members, "before").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    members.iter_mut().for_each(assert_no_leg_down);
    assert_eq!(relay.legs(), 2);
    assert_all_talk(&mut members, "after").await;
}

// MC-03
#[tokio::test(start_paused = true)]
async fn a_leg_on_which_nothing_happens_stays() {
    nothing_happens([keeping_alive(), keeping_alive()]).await;
}

// MC-03
#[tokio::test(start_paused = true)]
async fn who_does_not_ask_answers_all_the_same() {
    nothing_happens([keeping_alive(), MulticastOptions::default()]).await;
}

// MC-03
#[tokio::test(start_paused = true)]
async fn a_kept_leg_that_died_silently_comes_back() {
    let mut members = members(2, keeping_alive());
    let accept = members[1].sender();
    let mut unseen = Vec::new();
    members[0].keep_leg(index(1), Backoff::default(), move || {
        let (near, mut far) = pipe();
        if unseen.is_empty() {
            // It says hello, and then nothing.
            far.write_all(&hello(b"universe", 1, &[])).now_or_never().unwrap().unwrap();
            unseen.push(far);
        } else {
            accept.accept_leg(far).unwrap();
        }
        async move { Ok(near) }
    });
    assert_all_talk(&mut members, "in the end").await;
}

// MC-02, MC-03: who does not take its events is slow, not dead.
#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_does_not_look_dead() {
    let mut options = keeping_alive();
    options.event_queue = 10_000;
    options.leg_input = 1;
    let mut members = members_with([keeping_alive(), options]);
    link(&members, 0, 1);
    assert_all_talk(&mut members, "before").await;
    // Until it owes nothing, and says nothing by itself. The first message fills the queue of events.
    for wait in [60, 60, 3000] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        for _ in 0..3 {
            members[0].send(vec![7; 10_000]).await.unwrap();
        }
    }
    assert_no_leg_down(&mut members[0]);
    messages(&mut members[1], 0, 9).await;
}

// MC-03, MC-05
#[tokio::test(start_paused = true)]
async fn a_relay_notices_who_has_died() {
    let mut options = RelayOptions::default();
    options.keep_alive_interval = Some(INTERVAL);
    let relay = Relay::new(options);
    let (mut near, far) = pipe();
    let served = {
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve(far).await })
    };
    near.write_all(&hello(b"universe", 1, &[])).await.unwrap();
    assert_timed_out(&soon(served).await.unwrap());
    assert_eq!(relay.legs(), 0);
}
