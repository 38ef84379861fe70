//! Legs and relays that lie (MC-03, MC-05): they are refused, and nobody else notices.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use mls_channel::{
    Error, LegEnd, LegPeer, Multicast, MulticastEvent, MulticastOptions, Relay, RelayOptions,
    error::{InvalidMessage, PeerMisbehaved},
    wire::encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::world::*;

/// A message of a leg, in records.
fn leg_message(message_type: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut out = BytesMut::new();
    encode_frame(&[&[message_type, high, middle, low], body].concat(), &mut out);
    out.to_vec()
}

pub(crate) fn hello(universe: &[u8], member: u16, wanted: &[(u16, u64)]) -> Vec<u8> {
    let mut body = vec![0, 1, u8::try_from(universe.len()).unwrap()];
    body.extend_from_slice(universe);
    body.put_u16(member);
    assert!(wanted.len() < 6, "a longer vector has a longer length");
    body.put_u8(u8::try_from(wanted.len() * 10).unwrap());
    for (member, next) in wanted {
        body.put_u16(*member);
        body.put_u64(*next);
    }
    leg_message(32, &body)
}

fn frame(origin: u16, destination: u16, frame: &[u8]) -> Vec<u8> {
    let body = [&origin.to_be_bytes(), &destination.to_be_bytes(), frame].concat();
    leg_message(33, &body)
}

/// What a stranger says on a leg, and how the leg ends.
async fn end_of(member: &mut Multicast, said: &[u8]) -> LegEnd {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    member.accept_leg(near).unwrap();
    far.write_all(said).await.unwrap();
    leg_down(member).await.1
}

fn broken_by(end: LegEnd) -> Error {
    match end {
        LegEnd::Broken(error) => Error::from_io(&error).unwrap().clone(),
        LegEnd::Refused(error) => error,
        end => panic!("{end}"),
    }
}

// MC-02, MC-03
#[tokio::test]
async fn what_is_no_leg_is_refused_and_nobody_notices() {
    let mut members = members(3, MulticastOptions::default());
    mesh(&members);
    assert_all_talk(&mut members, "before").await;
    let misbehaved = |what| Error::from(PeerMisbehaved::UnexpectedUniverse(what));
    let cases: Vec<(Vec<u8>, Error)> = vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), InvalidMessage::UnknownContentType(b'G').into()),
        (vec![22, 3, 3, 0xff, 0xff], InvalidMessage::RecordTooLong(0xffff).into()),
        (frame(1, 0, b"x"), PeerMisbehaved::UnexpectedMessage("frame").into()),
        (hello(b"another", 1, &[]), misbehaved("a leg of another one")),
        (hello(b"", 1, &[]), misbehaved("a leg of another one")),
        // Itself, nobody, and a relay where none is expected.
        (hello(b"universe", 0, &[]), misbehaved("a leg of another member")),
        (hello(b"universe", 3, &[]), misbehaved("a leg of another member")),
        (hello(b"universe", 0xffff, &[]), misbehaved("a leg of another member")),
        // Somebody else's frame.
        (
            [hello(b"universe", 1, &[]), frame(2, 0, b"x")].concat(),
            PeerMisbehaved::UnexpectedMessage("frame of another member").into(),
        ),
    ];
    for (said, expected) in cases {
        let error = broken_by(end_of(&mut members[0], &said).await);
        assert_eq!(error, expected);
    }
    // A length that is not possible is refused when it is announced.
    let gigantic =
        [hello(b"universe", 1, &[]), vec![22, 3, 3, 0, 4, 33, 0xff, 0xff, 0xff]].concat();
    let error = broken_by(end_of(&mut members[0], &gigantic).await);
    assert!(
        matches!(
            error,
            Error::InvalidMessage(InvalidMessage::MessageTooLong { length: 0xff_ffff, .. })
        ),
        "{error}"
    );
    assert_all_talk(&mut members, "after").await;
}

// MC-02
#[tokio::test(start_paused = true)]
async fn who_does_not_say_who_it_is_is_not_waited_for() {
    let mut members = members(2, MulticastOptions::default());
    let (near, mut far) = pipe();
    members[0].accept_leg(near).unwrap();
    let said = hello(b"universe", 1, &[]);
    // One byte each second.
    let trickle = tokio::spawn(async move {
        for byte in said {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if far.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let (peer, end) = leg_down(&mut members[0]).await;
    assert_eq!(peer, LegPeer::Unknown);
    assert_eq!(broken_by(end), Error::HandshakeTimeout(Duration::from_secs(10)));
    trickle.await.unwrap();
}

/// A leg of somebody who claims to be member 1 to member 0, and reads all that it gets.
async fn impostor(member: &Multicast, wanted: u64) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    member.accept_leg(near).unwrap();
    far.write_all(&hello(b"universe", 1, &[(0, wanted)])).await.unwrap();
    far
}

// MC-03: neither lies about places nor many legs push the true member out.
#[tokio::test]
async fn who_claims_to_be_a_member_does_not_take_its_place() {
    let mut members = members(2, MulticastOptions::default());
    mesh(&members);
    assert_all_talk(&mut members, "before").await;
    let mut impostors = Vec::new();
    for number in 0..50 {
        impostors.push(impostor(&members[0], [0, 1, u64::MAX][number % 3]).await);
        assert_eq!(leg_up(&mut members[0]).await, LegPeer::Member(index(1)));
        if number >= 3 {
            // Three of them at once, the newest; the true one has been sending good frames.
            let (_, end) = leg_down(&mut members[0]).await;
            assert!(matches!(end, LegEnd::Replaced), "{end}");
        }
    }
    for round in 0..5 {
        assert_all_talk(&mut members, &format!("round {round}")).await;
    }
    // Frames that MLS refuses, until it is enough.
    let mut last = impostors.pop().unwrap();
    let junk = frame(1, 0xffff, &[6, 0, 0, 3, 1, 2, 3]);
    for _ in 0..300 {
        if last.write_all(&junk).await.is_err() {
            break;
        }
    }
    let (_, end) = leg_down(&mut members[0]).await;
    assert!(matches!(end, LegEnd::Refused(Error::InvalidMessage(_))), "{end}");
    assert_all_talk(&mut members, "after").await;
}

// MC-03: an old leg that is broken without anybody knowing does not keep the member out.
#[tokio::test]
async fn a_member_whose_legs_have_died_unseen_comes_back() {
    let mut members = members(2, MulticastOptions::default());
    let mut unseen = Vec::new();
    for _ in 0..10 {
        let (near, far) = pipe();
        members[0].add_leg(index(1), near).unwrap();
        let (other, end) = pipe();
        members[1].add_leg(index(0), other).unwrap();
        // Both pass a while, and then nothing does.
        let (mut far, mut end) = (far, end);
        let pass = tokio::io::copy_bidirectional(&mut far, &mut end);
        let talk = assert_all_talk(&mut members, "while it lasts");
        tokio::select! {
            _ = pass => panic!("it ended"),
            () = talk => {}
        }
        unseen.push((far, end));
    }
}

// MC-02
#[tokio::test]
async fn a_flood_of_frames_is_held_back() {
    let mut options = MulticastOptions::default();
    options.leg_input = 10_000;
    let mut members = members(2, options);
    mesh(&members);
    let (near, mut far) = tokio::io::duplex(1000);
    members[0].accept_leg(near).unwrap();
    far.write_all(&hello(b"universe", 1, &[])).await.unwrap();
    // Messages of the future, with places that may be: they wait, within bounds.
    let flood = tokio::spawn(async move {
        let junk = frame(1, 0, &[8, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let mut written = 0_usize;
        while far.write_all(&junk).await.is_ok() && written < 20_000 {
            written += 1;
        }
        written
    });
    for round in 0..20 {
        assert_all_talk(&mut members, &format!("round {round}")).await;
    }
    flood.abort();
}

/// What a relay does to a frame.
type Mischief = fn(u64, &Bytes) -> Vec<Bytes>;

/// A relay that knows each record on a leg of its own. What passes it comes out as `mischief` says.
async fn pass(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mischief: Mischief,
) {
    let mut number = 0;
    loop {
        let mut message = vec![0; 5];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length = usize::from(u16::from_be_bytes([message[3], message[4]]));
        message.resize(5 + length, 0);
        if from.read_exact(&mut message[5..]).await.is_err() {
            return;
        }
        let out = match message[5] {
            33 => {
                number += 1;
                mischief(number, &message.into())
            }
            _ => vec![message.into()],
        };
        for message in out {
            if to.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

fn behind_hostile_relay(mischief: Mischief) -> Vec<Multicast> {
    let relay = Relay::new(RelayOptions::default());
    let members = members(3, MulticastOptions::default());
    for member in &members {
        let (near, near_end) = pipe();
        let (far, far_end) = pipe();
        member.add_relay(near).unwrap();
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve(far).await });
        let (near_read, near_write) = tokio::io::split(near_end);
        let (far_read, far_write) = tokio::io::split(far_end);
        tokio::spawn(pass(near_read, far_write, |_, frame| vec![frame.clone()]));
        tokio::spawn(pass(far_read, near_write, mischief));
    }
    members
}

// MC-05
#[tokio::test]
async fn a_relay_that_doubles_loses_reorders_and_forges_delays_at_most() {
    let mischiefs: [(&str, Mischief); 4] = [
        ("doubles", |_, frame| vec![frame.clone(), frame.clone()]),
        ("loses", |number, frame| if number % 3 == 0 { vec![] } else { vec![frame.clone()] }),
        ("forges", |number, frame| {
            let mut forged = frame.to_vec();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            // Another sender's, something of its own, and a changed one; and then the true one.
            let mut other = frame.to_vec();
            other[10] ^= 1;
            let own = self::frame(u16::try_from(number % 3).unwrap(), 0xffff, b"\x06\0\0\x01x");
            let mut out = vec![other.into(), own.into(), forged.into(), frame.clone()];
            out.rotate_left(usize::try_from(number % 4).unwrap());
            out
        }),
        ("swaps with old ones", |number, frame| {
            thread_local! {
                static HELD: std::cell::RefCell<Option<Bytes>> = const { std::cell::RefCell::new(None) };
            }
            HELD.with_borrow_mut(|held| match held.take() {
                Some(old) => vec![frame.clone(), old],
                None if number % 2 == 0 => {
                    *held = Some(frame.clone());
                    vec![]
                }
                None => vec![frame.clone()],
            })
        }),
    ];
    for (name, mischief) in mischiefs {
        println!("{name}");
        let mut members = behind_hostile_relay(mischief);
        for round in 0..5 {
            assert_all_talk(&mut members, &format!("round {round}:")).await;
            members[round % 3].update().await.unwrap();
        }
        assert_all_talk(&mut members, "after all").await;
    }
}

// MC-05
#[tokio::test]
async fn who_lies_to_a_relay_hurts_nobody_for_good() {
    let relay = Relay::new(RelayOptions::default());
    let connect = || {
        let (near, far) = tokio::io::duplex(1 << 20);
        let relay = relay.clone();
        let served = tokio::spawn(async move { relay.serve(far).await });
        (near, served)
    };
    let mut members = members(2, MulticastOptions::default());
    // Somebody is there first, with the number of member 1 and a frame in a far place.
    let (mut early, _served) = connect();
    let far_place = [&[6, 0, 0, 0][..], &[0; 40]].concat();
    early.write_all(&hello(b"universe", 1, &[(0, u64::MAX)])).await.unwrap();
    let refused = frame(1, 0xffff, &far_place);
    early.write_all(&refused).await.unwrap();
    for member in &members {
        member.add_relay(connect().0).unwrap();
    }
    assert_all_talk(&mut members, "all the same").await;
    let before = relay.kept_bytes();

    for said in [
        frame(0, 1, b"no hello"),
        hello(b"universe", 2000, &[]),
        hello(b"universe", 0xffff, &[]),
        [hello(b"universe", 1, &[]), frame(0, 0xffff, b"somebody else's")].concat(),
        [hello(b"universe", 1, &[]), frame(1, 0xffff, b"no place")].concat(),
        b"junk".to_vec(),
    ] {
        let (mut near, served) = connect();
        near.write_all(&said).await.unwrap();
        let end = served.await.unwrap();
        assert!(matches!(end, LegEnd::Refused(_) | LegEnd::Broken(_)), "{end}");
    }
    assert_eq!(relay.kept_bytes(), before);
    assert_all_talk(&mut members, "and after").await;
}

// MC-05: nothing is left of legs that were replaced, whether or not somebody reads at their other ends.
#[tokio::test(start_paused = true)]
async fn a_relay_does_not_wait_for_those_who_do_not_read() {
    let relay = Relay::new(RelayOptions::default());
    let mut legs = Vec::new();
    for _ in 0..5 {
        let (mut near, far) = tokio::io::duplex(16);
        let relay = relay.clone();
        let served = tokio::spawn(async move { relay.serve(far).await });
        near.write_all(&hello(b"universe", 1, &[])).await.unwrap();
        legs.push((near, served));
    }
    let (_near, served) = legs.remove(0);
    let end = soon(served).await.unwrap();
    assert!(matches!(end, LegEnd::Replaced), "{end}");
}

// MC-04: a member that is silent is not pushed off its channel.
#[tokio::test(start_paused = true)]
async fn who_claims_to_be_a_member_does_not_push_out_its_channel() {
    let configs = configs(2);
    let (near, far) = channel(&configs[0], &configs[1]).await;
    let universe = sessions(&configs, policy()).into_iter();
    let mut members: Vec<_> =
        universe.map(|session| Multicast::new(session, MulticastOptions::default())).collect();
    link(&members, 0, 1);
    assert_all_talk(&mut members, "before").await;
    // All there is has come over the first leg.
    tokio::time::sleep(Duration::from_secs(60)).await;
    members[0].add_channel(near).await.unwrap();
    members[1].add_channel(far).await.unwrap();
    assert_eq!(leg_up(&mut members[0]).await, LegPeer::Member(index(1)));
    assert_eq!(leg_up(&mut members[1]).await, LegPeer::Member(index(0)));
    let mut impostors = Vec::new();
    for _ in 0..20 {
        impostors.push(impostor(&members[0], 0).await);
        assert_eq!(leg_up(&mut members[0]).await, LegPeer::Member(index(1)));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    while let Some(event) = members[1].next_event().now_or_never() {
        let event = event.unwrap().unwrap();
        assert!(!matches!(event, MulticastEvent::LegDown { .. }), "{event:?}");
    }
    assert_all_talk(&mut members, "after").await;
}

// MC-02: strangers who say nothing do not push out the legs that this party has opened.
#[tokio::test]
async fn a_leg_that_was_opened_has_time_whoever_else_comes() {
    let mut members = members(2, MulticastOptions::default());
    let (near, far) = pipe();
    members[0].add_leg(index(1), near).unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        let (near, far) = pipe();
        members[0].accept_leg(near).unwrap();
        silent.push(far);
    }
    for _ in 0..36 {
        let (peer, end) = leg_down(&mut members[0]).await;
        assert!(peer == LegPeer::Unknown && matches!(end, LegEnd::Replaced), "{end}");
    }
    members[1].add_leg(index(0), far).unwrap();
    assert_all_talk(&mut members, "all the same").await;
}

// MC-05, DM-19: the relay is not to blame for what a member sends.
#[tokio::test]
async fn who_floods_a_relay_with_forged_frames_does_not_cut_others_off() {
    let relay = Relay::new(RelayOptions::default());
    let connect = |place| {
        let (near, far) = tokio::io::duplex(1 << 20);
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve_member(index(place), far).await });
        near
    };
    let mut members = members(3, MulticastOptions::default());
    let _silent = members.pop();
    for (place, member) in members.iter().enumerate() {
        member.add_relay(connect(place)).unwrap();
    }
    let mut hostile = connect(2);
    hostile.write_all(&hello(b"universe", 2, &[])).await.unwrap();
    for _ in 0..1000 {
        for place in [0, 1] {
            hostile.write_all(&frame(2, place, &[6, 0, 0, 3, 1, 2, 3])).await.unwrap();
        }
    }
    for round in 0..5 {
        assert_all_talk(&mut members, &format!("round {round}")).await;
    }
}

// MC-02: what came over a leg that is gone counts as long as it is there.
#[tokio::test(start_paused = true)]
async fn what_came_over_many_legs_is_bounded() {
    let mut options = MulticastOptions::default();
    options.event_queue = 1;
    let members = members(2, options);
    let junk = frame(1, 0, &[[6, 0, 4, 0].to_vec(), vec![0; 1024]].concat());
    let mut taken = 0;
    for _ in 0..200 {
        let (near, mut far) = tokio::io::duplex(1000);
        members[0].accept_leg(near).unwrap();
        far.write_all(&hello(b"universe", 1, &[])).await.unwrap();
        let flood = async {
            while far.write_all(&junk).await.is_ok() {
                taken += junk.len();
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), flood).await;
    }
    assert!(taken < 8 << 20, "{taken}");
}
