//! Members behind a relay (MC-05).

use std::{sync::Arc, time::Duration};

use futures::future::{join_all, try_join, try_join_all};
use mls_channel::{
    Config, DmlsEvent, LegEnd, LegPeer, MlsAcceptor, MlsConnector, Multicast, MulticastEvent,
    MulticastOptions, Relay, RelayOptions, ServerName,
};
use tokio::io::DuplexStream;

use crate::{recovery::Cut, world::*};

/// A leg to the relay.
fn to_relay(relay: &Relay) -> DuplexStream {
    let (near, far) = pipe();
    let relay = relay.clone();
    tokio::spawn(async move { relay.serve(far).await });
    near
}

fn relayed(count: usize, relay: &Relay) -> Vec<Multicast> {
    let members = members(count, MulticastOptions::default());
    for member in &members {
        member.add_relay(to_relay(relay)).unwrap();
    }
    members
}

async fn through_relay(relay: &Relay, configs: &[Arc<Config>]) -> Vec<Multicast> {
    let names: Vec<_> = configs[1..].iter().map(|config| config.identity().name()).collect();
    let host = config_of(&configs[0]);
    let join = (1..).zip(&configs[1..]).map(async |(place, config)| {
        config_of(config).join_through_relay(to_relay(relay), index(place)).await
    });
    let invite = host.invite_through_relay(to_relay(relay), &names);
    let (first, others) = try_join(invite, try_join_all(join)).await.unwrap();
    let mut members = vec![first];
    members.extend(others);
    members
}

// MC-05
#[tokio::test]
async fn members_behind_a_relay_talk_as_in_a_mesh() {
    let relay = Relay::new(RelayOptions::default());
    let mut members = relayed(4, &relay);
    assert_all_talk(&mut members, "hello").await;
    for member in &members {
        member.update().await.unwrap();
    }
    assert_all_talk(&mut members, "renewed").await;
    // The leaves have come, too.
    let incorporated = |event| match event {
        MulticastEvent::Universe(DmlsEvent::EpochChanged { member, incorporated, .. })
            if member == index(0) && !incorporated.is_empty() =>
        {
            Some(incorporated.len())
        }
        _ => None,
    };
    while !members[0].commit().await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert!(wait_for(&mut members[3], incorporated).await > 0);
    let leaver = members.remove(3);
    leaver.leave().await;
    assert_eq!(relay.legs(), 3);
    assert_all_talk(&mut members, "we three").await;
}

// MC-05, DM-03
#[tokio::test]
async fn a_universe_is_brought_together_through_a_relay_and_another_one_after_it() {
    let relay = Relay::new(RelayOptions::default());
    let configs = configs(3);
    let mut members = through_relay(&relay, &configs).await;
    assert_all_talk(&mut members, "hello").await;
    let first = members[0].universe_id().to_vec();
    join_all(members.into_iter().map(Multicast::leave)).await;
    let mut members = through_relay(&relay, &configs).await;
    assert_ne!(members[2].universe_id(), first);
    assert_all_talk(&mut members, "again").await;
}

// MC-03, MC-05
#[tokio::test]
async fn a_member_that_comes_back_gets_from_the_relay_what_it_lacks() {
    let relay = Relay::new(RelayOptions::default());
    let mut members = relayed(3, &relay);
    assert_all_talk(&mut members, "hello").await;
    let mut late = members.pop().unwrap();
    // Its leg breaks again and again, in the middle of whatever comes.
    for round in 0..20 {
        let cut = Cut { io: to_relay(&relay), left: 100 + 150 * round };
        late.add_relay(cut).unwrap();
        members[0].send(format!("{round}")).await.unwrap();
        members[1].update().await.unwrap();
        assert_eq!(message(&mut members[1]).await, (0, round.to_string().into_bytes()));
    }
    let said = messages(&mut late, 0, 20).await;
    assert!((0..).zip(said).all(|(round, said): (u32, _)| said == round.to_string().into_bytes()));
    members.push(late);
    assert_all_talk(&mut members, "all here").await;
}

// MC-05: the relay has the frames of a member that is gone.
#[tokio::test]
async fn what_was_sent_to_nobody_waits_at_the_relay() {
    let relay = Relay::new(RelayOptions::default());
    let mut members = members(2, MulticastOptions::default());
    let (far, near) = (members.pop().unwrap(), members.pop().unwrap());
    near.add_relay(to_relay(&relay)).unwrap();
    near.update().await.unwrap();
    near.send("left behind").await.unwrap();
    near.leave().await;
    assert_eq!(relay.legs(), 0);
    let mut far = far;
    far.add_relay(to_relay(&relay)).unwrap();
    assert_eq!(message(&mut far).await, (0, b"left behind".to_vec()));
}

// MC-05
#[tokio::test]
async fn the_memory_of_a_relay_is_bounded_and_members_ask_each_other_for_the_rest() {
    let mut options = RelayOptions::default();
    options.kept_bytes = 20_000;
    options.leg_queue = 20_000;
    let relay = Relay::new(options);
    let mut members = members(2, MulticastOptions::default());
    let (mut late, early) = (members.pop().unwrap(), members.pop().unwrap());
    early.add_relay(to_relay(&relay)).unwrap();
    for number in 0..100_u8 {
        early.send(vec![number; 5000]).await.unwrap();
    }
    while relay.kept_bytes() < 10_000 {
        tokio::task::yield_now().await;
    }
    late.add_relay(to_relay(&relay)).unwrap();
    let received = messages(&mut late, 0, 100).await;
    assert!((0..).zip(received).all(|(number, data)| data == vec![number; 5000]));
    assert!(relay.kept_bytes() < 2 * (20_000 + 6000), "{}", relay.kept_bytes());
}

// MC-05
#[tokio::test]
async fn what_comes_over_a_relay_and_directly_is_taken_once() {
    let relay = Relay::new(RelayOptions::default());
    let mut members = relayed(3, &relay);
    mesh(&members);
    for round in 0..10 {
        assert_all_talk(&mut members, &format!("round {round}:")).await;
    }
}

// MC-03, MC-05: an Acknowledge that comes twice is not acknowledged, or it would never end.
#[tokio::test(start_paused = true)]
async fn two_ways_do_not_keep_each_other_busy() {
    let relay = Relay::new(RelayOptions::default());
    let mut members = relayed(2, &relay);
    mesh(&members);
    assert_all_talk(&mut members, "hello").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let kept = relay.kept_bytes();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(relay.kept_bytes(), kept);
}

// MC-04, MC-05
#[tokio::test]
async fn a_relay_can_be_reached_over_channels() {
    let configs = configs(3);
    let relay = Relay::new(RelayOptions::default());
    let universe = sessions(&configs[..2], policy());
    let members = universe.into_iter().map(|s| Multicast::new(s, MulticastOptions::default()));
    let mut members: Vec<_> = members.collect();
    for (place, member) in members.iter().enumerate() {
        let (near, far) = pipe();
        let name = ServerName::new("member2").unwrap();
        let connector = MlsConnector::from(Arc::clone(&configs[place]));
        let acceptor = MlsAcceptor::from(Arc::clone(&configs[2]));
        let (near, far) =
            try_join(connector.connect(name, near), acceptor.accept(far)).await.unwrap();
        let expected = if far.peer().name() == "member0" { index(0) } else { index(1) };
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve_member(expected, far).await });
        member.add_relay(near).unwrap();
    }
    assert_all_talk(&mut members, "within channels").await;

    // Another place than one's own is refused.
    let (near, far) = pipe();
    members[0].add_relay(near).unwrap();
    let end = relay.serve_member(index(1), far).await;
    assert!(matches!(end, LegEnd::Refused(_)), "{end}");
    loop {
        let (peer, end) = leg_down(&mut members[0]).await;
        if peer == LegPeer::Unknown {
            assert!(matches!(end, LegEnd::Broken(_)), "{end}");
            break;
        }
    }
}
