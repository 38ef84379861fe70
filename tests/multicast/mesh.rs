//! A mesh in which nothing goes wrong.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::try_join};
use mls_channel::{
    DmlsEvent, Error, LegEnd, LegPeer, Multicast, MulticastEvent, MulticastOptions,
    error::ApiMisuse,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::world::*;

// MC-01
#[tokio::test]
async fn everyone_talks_to_everyone_over_raw_legs() {
    let mut members = members(4, MulticastOptions::default());
    mesh(&members);
    assert_all_talk(&mut members, "hello").await;
    for member in &members {
        member.update().await.unwrap();
    }
    assert_all_talk(&mut members, "renewed").await;
    for member in &members {
        assert_eq!(member.members().await.unwrap().len(), 4);
        for place in 0..4 {
            assert!(member.epoch(index(place)).await.unwrap().unwrap() >= 2);
        }
    }
}

// MC-01
#[tokio::test]
async fn a_message_is_protected_once_for_all_legs() {
    let members = members(3, MulticastOptions::default());
    let mut ends = Vec::new();
    for place in [1, 2] {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        members[0].add_leg(index(place), near).unwrap();
        let place = u16::try_from(place).unwrap();
        far.write_all(&crate::hostile::hello(b"universe", place, &[])).await.unwrap();
        ends.push(far);
    }
    members[0].send("once").await.unwrap();
    // Each has the hello, the Welcome and the message, byte for byte the same.
    let mut seen = Vec::new();
    for mut end in ends {
        let mut records = Vec::new();
        for _ in 0..3 {
            let mut record = vec![0; 5];
            end.read_exact(&mut record).await.unwrap();
            let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
            record.resize(5 + length, 0);
            end.read_exact(&mut record[5..]).await.unwrap();
            records.push(record);
        }
        seen.push(records);
    }
    assert!(seen[0] == seen[1]);
    // Type, length, origin, destination, and the envelope of a message.
    let message = &seen[0][2];
    assert_eq!([message[5], message[13]], [33, 6], "{message:?}");
    assert_eq!(message[9..13], [0, 0, 0xff, 0xff]);
}

// MC-01
#[tokio::test]
async fn messages_that_wait_together_go_into_one_frame() {
    let mut members = members(3, MulticastOptions::default());
    link(&members, 0, 1);
    let (near, mut end) = tokio::io::duplex(1 << 20);
    members[0].add_leg(index(2), near).unwrap();
    end.write_all(&crate::hostile::hello(b"universe", 2, &[])).await.unwrap();
    while leg_up(&mut members[0]).await != LegPeer::Member(index(2)) {}
    for number in 0..100 {
        members[0].feed(Bytes::from(vec![number; 10])).await.unwrap();
    }
    SinkExt::<Bytes>::flush(&mut members[0]).await.unwrap();
    let received = messages(&mut members[1], 0, 100).await;
    assert!((0..).zip(received).all(|(number, received)| received == [number; 10]));
    members[0].send("alone").await.unwrap();
    assert_eq!(message(&mut members[1]).await, (0, b"alone".to_vec()));
    let leave = tokio::spawn(members.remove(0).leave());
    let mut records = Vec::new();
    end.read_to_end(&mut records).await.unwrap();
    drop(end);
    leave.await.unwrap();
    let mut rest = &records[..];
    let mut frames = 0;
    while !rest.is_empty() {
        let (record, behind) =
            rest.split_at(5 + usize::from(u16::from_be_bytes([rest[3], rest[4]])));
        // A frame, and the envelope of a message.
        frames += usize::from(record.len() > 13 && [record[5], record[13]] == [33, 6]);
        rest = behind;
    }
    assert_eq!(frames, 2);
}

// MC-01
#[tokio::test]
async fn it_is_a_sink_and_a_stream_and_can_be_split() {
    let mut members = members(2, MulticastOptions::default());
    mesh(&members);
    let (far, near) = (members.pop().unwrap(), members.pop().unwrap());
    let (mut sender, _events) = near.into_split();
    let mut also = sender.clone();
    let (_quiet, receiver) = far.into_split();
    let send = async {
        let numbers = (0..500).map(|number: u32| Ok(Bytes::from(number.to_be_bytes().to_vec())));
        sender.send_all(&mut futures::stream::iter(numbers)).await.unwrap();
        also.feed(Bytes::from_static(b"the last")).await.unwrap();
        SinkExt::<Bytes>::flush(&mut also).await.unwrap();
    };
    let messages = receiver.filter_map(async |event| match event.unwrap() {
        MulticastEvent::Message { data, .. } => Some(data),
        _ => None,
    });
    let ((), received) = tokio::join!(send, messages.take(501).collect::<Vec<_>>());
    for (number, data) in (0_u32..500).zip(&received) {
        assert_eq!(data[..], number.to_be_bytes());
    }
    assert_eq!(received[500], "the last");
    SinkExt::<Bytes>::close(&mut sender).await.unwrap();
    assert_eq!(sender.feed(Bytes::new()).await, Err(Error::ApiMisuse(ApiMisuse::Closed)));
}

// MC-01
#[tokio::test]
async fn a_failure_of_the_sink_is_told() {
    let mut members = members(2, MulticastOptions::default());
    let long = Bytes::from(vec![0; 3 << 20]);
    let too_long = Err(Error::ApiMisuse(ApiMisuse::MessageTooLong));
    assert_eq!(SinkExt::send(&mut members[0], long.clone()).await, too_long);
    assert_eq!(SinkExt::send(&mut members[0], Bytes::from_static(b"short")).await, Ok(()));
    assert_eq!(members[0].send(long).await, too_long);
}

// DM-03
#[tokio::test]
async fn a_universe_is_brought_together_over_legs_and_meshed_afterwards() {
    let configs = configs(4);
    let (mut inviting, mut joining) = (Vec::new(), Vec::new());
    for config in &configs[1..] {
        let (near, far) = pipe();
        inviting.push(near);
        joining.push((config_of(config), far));
    }
    let host = config_of(&configs[0]);
    let join = joining.into_iter().map(async |(config, leg)| config.join(leg).await);
    let (first, others) =
        try_join(host.invite(inviting), futures::future::try_join_all(join)).await.unwrap();
    let mut members = vec![first];
    members.extend(others);
    for (place, member) in members.iter().enumerate() {
        assert_eq!(member.me(), index(place));
        assert_eq!(member.universe_id(), members[0].universe_id());
    }
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        link(&members, a, b);
    }
    assert_all_talk(&mut members, "hello").await;
}

// MC-04
#[tokio::test]
async fn legs_can_be_channels_whose_peers_are_the_members() {
    let configs = configs(4);
    let (near1, far1) = channel(&configs[0], &configs[1]).await;
    let (near2, far2) = channel(&configs[0], &configs[2]).await;
    let host = config_of(&configs[0]);
    let (one, two) = (config_of(&configs[1]), config_of(&configs[2]));
    let join = try_join(one.join_over_channel(far1), two.join_over_channel(far2));
    let (first, (second, third)) =
        try_join(host.invite_over_channels(vec![near1, near2]), join).await.unwrap();
    let mut members = vec![first, second, third];
    let (near, far) = channel(&configs[1], &configs[2]).await;
    assert_eq!(members[1].add_channel(near).await, Ok(index(2)));
    assert_eq!(members[2].add_channel(far).await, Ok(index(1)));
    assert_all_talk(&mut members, "in channels").await;

    // A channel with somebody else is no leg.
    let (near, far) = channel(&configs[0], &configs[3]).await;
    let unknown = Err(Error::ApiMisuse(ApiMisuse::UnknownMember));
    assert_eq!(members[0].add_channel(near).await, unknown);
    drop(far);
}

// MC-04
#[tokio::test]
async fn channels_in_the_wrong_order_do_not_make_a_universe() {
    let configs = configs(3);
    let (near1, far1) = channel(&configs[0], &configs[1]).await;
    let (near2, far2) = channel(&configs[0], &configs[2]).await;
    // Each offers over a raw leg what the other one is believed to offer: the KeyPackages are good,
    // but those of somebody else than the channel's peer.
    let (two, one) = (config_of(&configs[1]), config_of(&configs[2]));
    let host = config_of(&configs[0]);
    let error = tokio::select! {
        result = host.invite_over_channels(vec![near1, near2]) => result.unwrap_err(),
        _ = try_join(one.join(far1), two.join(far2)) => panic!("a universe came into being"),
    };
    assert!(error.to_string().contains("other members than its channels'"), "{error}");
}

// MC-01
#[tokio::test]
async fn it_works_over_tcp() {
    let mut members = members(3, MulticastOptions::default());
    for a in 0..3 {
        for b in a + 1..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let connect = TcpStream::connect(listener.local_addr().unwrap());
            let (near, (far, _)) = try_join(connect, listener.accept()).await.unwrap();
            members[a].add_leg(index(b), near).unwrap();
            // The one who accepts is told.
            members[b].accept_leg(far).unwrap();
        }
    }
    assert_all_talk(&mut members, "over TCP").await;
    let long = vec![7; 1 << 20];
    members[0].send(long.clone()).await.unwrap();
    for member in &mut members[1..] {
        assert_eq!(message(member).await, (0, long.clone()));
    }
}

// MC-03
#[tokio::test]
async fn who_leaves_is_told_from_who_breaks_off() {
    let mut members = members(3, MulticastOptions::default());
    mesh(&members);
    assert_all_talk(&mut members, "hello").await;
    let leaver = members.pop().unwrap();
    for number in 0..100 {
        leaver.send(format!("farewell {number}")).await.unwrap();
    }
    leaver.leave().await;
    for member in &mut members {
        let said = messages(member, 2, 100).await;
        assert_eq!(said[99], b"farewell 99");
        let (peer, end) = leg_down(member).await;
        assert_eq!(peer, LegPeer::Member(index(2)));
        assert!(matches!(end, LegEnd::Goodbye), "{end}");
    }
    drop(members.pop());
    let (peer, end) = leg_down(&mut members[0]).await;
    assert_eq!(peer, LegPeer::Member(index(1)));
    let LegEnd::Broken(error) = end else { panic!("{end}") };
    assert_eq!(Error::from_io(&error), Some(&Error::Truncated));
}

// DM-12
#[tokio::test]
async fn a_member_is_removed_everywhere() {
    let mut members = members(3, MulticastOptions::default());
    mesh(&members);
    assert_all_talk(&mut members, "hello").await;
    members[0].remove(index(2)).await.unwrap();
    let removed = |event| match event {
        MulticastEvent::Universe(DmlsEvent::Removed { member, .. }) => Some(member),
        _ => None,
    };
    assert_eq!(wait_for(&mut members[1], removed).await, index(2));
    let told = |event| match event {
        MulticastEvent::Universe(DmlsEvent::RemovedSelf { by }) => Some(by),
        _ => None,
    };
    assert_eq!(wait_for(&mut members[2], told).await, index(0));
    assert_eq!(members[2].send("still here").await, Err(Error::ApiMisuse(ApiMisuse::Closed)));
    let mut rest: Vec<Multicast> = members.drain(..2).collect();
    assert_all_talk(&mut rest, "among us").await;
}
