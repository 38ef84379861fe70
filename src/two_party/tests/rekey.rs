//! The rekey exchange, row by row of its table, and what starts it.

use super::*;
use crate::{
    error::PeerMisbehaved,
    two_party::rekey::{OnUpdate, on_update},
    wire::{ContentType, TwoPartyMessage},
};

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];

// 2P-08, 2P-09, 2P-10
#[test]
fn the_table_of_crossing_updates() {
    for role in BOTH {
        assert_eq!(on_update(role, false), OnUpdate::Apply);
    }
    assert_eq!(on_update(Role::Initiator, true), OnUpdate::Ignore);
    assert_eq!(on_update(Role::Responder, true), OnUpdate::DropOwnThenApply);
}

// 2P-08, 2P-11, 2P-12
#[test]
pub(super) fn an_update_switches_both_directions() {
    for role in BOTH {
        let mut pair = Pair::connected();
        let ticket = pair.rekey(role);
        assert_eq!(pair.epochs(), (1, 1), "nothing changes before the peer has confirmed");
        pair.deliver(role);
        assert_eq!(pair.end(role.peer()).epoch(), 2);
        assert_eq!(pair.end(role).epoch(), 1);
        pair.deliver(role.peer());
        assert_eq!(pair.epochs(), (2, 2));
        assert_eq!(pair.end(role).statistics().own_updates, ticket);
        assert_eq!(pair.end(role.peer()).statistics().peer_updates, 1);
        pair.assert_works();
        for role in BOTH {
            pair.end(role).expect(Event::EpochChanged { epoch: 2 });
        }
    }
}

// 2P-12: data flows in both directions at every point of the exchange.
#[test]
pub(super) fn data_flows_while_an_update_is_outstanding() {
    for role in BOTH {
        let mut pair = Pair::connected();
        pair.write(role, b"1");
        pair.write(role.peer(), b"a");
        pair.rekey(role);
        pair.write(role, b"2");
        pair.write(role.peer(), b"b");
        pair.deliver(role);
        // The peer has answered and sends under the new epoch; this side does not know yet.
        pair.write(role, b"3");
        pair.write(role.peer(), b"c");
        pair.deliver(role);
        assert_eq!(pair.end(role.peer()).received, b"123");
        pair.deliver(role.peer());
        pair.write(role, b"4");
        pair.write(role.peer(), b"d");
        pair.drive();
        assert_eq!(pair.end(role).received, b"abcd");
        assert_eq!(pair.end(role.peer()).received, b"1234");
        pair.assert_works();
    }
}

// 2P-09, 2P-10
#[test]
pub(super) fn when_updates_cross_the_initiators_wins_and_the_responders_follows() {
    let mut pair = Pair::connected();
    let first = pair.rekey(Role::Initiator);
    let second = pair.rekey(Role::Responder);
    let from_initiator = pair.intercept(Role::Initiator);
    let from_responder = pair.intercept(Role::Responder);
    pair.inject(Role::Responder, &from_initiator);
    pair.inject(Role::Initiator, &from_responder);
    assert_eq!(pair.initiator.epoch(), 1, "the initiator goes on waiting");
    assert_eq!(pair.responder.epoch(), 2, "the responder has given way");
    pair.drive();
    // The responder's wish was not lost: a second update followed.
    assert_eq!(pair.epochs(), (3, 3));
    assert_eq!(pair.initiator.statistics().own_updates, first);
    assert_eq!(pair.responder.statistics().own_updates, second);
    assert_eq!(pair.initiator.statistics().crossed_updates, 1);
    assert_eq!(pair.responder.statistics().crossed_updates, 1);
    pair.assert_works();
}

// 2P-07
#[test]
fn one_update_at_a_time_and_requests_that_come_meanwhile_share_the_next() {
    for role in BOTH {
        let mut pair = Pair::connected();
        let first = pair.rekey(role);
        let sent = pair.end(role).out.len();
        let second = pair.rekey(role);
        let third = pair.rekey(role);
        assert_eq!(pair.end(role).out.len(), sent, "nothing is sent while one is outstanding");
        assert_eq!((first, second, third), (1, 2, 2));
        pair.drive();
        assert_eq!(pair.epochs(), (3, 3));
        assert_eq!(pair.end(role).statistics().own_updates, 2);
    }
}

// 2P-11, TL-04: an EpochKeyUpdate is the last record of the old epoch in each direction.
#[test]
pub(super) fn old_keys_are_erased_as_soon_as_they_are_not_needed() {
    for role in BOTH {
        let mut pair = Pair::connected();
        let holds_both = |end: &mut End| end.established().receiver.path().keys().1.is_some();
        pair.rekey(role);
        pair.deliver(role);
        assert!(holds_both(pair.end(role.peer())), "both epochs may arrive now");
        pair.deliver(role.peer());
        assert!(!holds_both(pair.end(role)), "the answer was the last record of the old epoch");
        assert!(holds_both(pair.end(role.peer())));
        // The record that follows the answer shows the peer that the old key is done with.
        pair.deliver(role);
        assert!(!holds_both(pair.end(role.peer())));
        pair.assert_works();
    }
}

// TL-04: what was sealed under a replaced key does not open any more, on either side.
#[test]
pub(super) fn a_record_of_the_old_epoch_does_not_open_after_the_switch() {
    for role in BOTH {
        let mut pair = Pair::connected();
        pair.write(role.peer(), b"held back");
        let late = pair.intercept(role.peer());
        pair.rekey(role);
        // The update is answered, but the record before the answer never arrives.
        pair.deliver(role);
        let answer = pair.intercept(role.peer());
        pair.inject(role, &answer);
        pair.inject(role, &late);
        pair.assert_failed(role, PeerMisbehaved::BadRecordMac);
    }
}

// CH-06
#[test]
fn bytes_in_either_direction_start_an_update() {
    let policy = RekeyPolicy::manual().with_bytes(10_000);
    for (role, sending) in BOTH.into_iter().flat_map(|role| BOTH.map(|sending| (role, sending))) {
        let identities = Identities::new();
        let (mut client, mut server) = (identities.client(), identities.server());
        match role {
            Role::Initiator => client = client.rekey_policy(policy),
            Role::Responder => server = server.rekey_policy(policy),
        }
        let mut pair = Pair::connect(client, server);
        pair.write(sending, &[1; 9_999]);
        pair.drive();
        assert_eq!(pair.epochs(), (1, 1));
        pair.write(sending, &[1]);
        pair.drive();
        assert_eq!(pair.epochs(), (2, 2));
        assert_eq!(pair.end(role).statistics().own_updates, 1);
        // The count starts anew.
        pair.write(sending, &[1; 9_999]);
        pair.drive();
        assert_eq!(pair.epochs(), (2, 2));
        pair.write(sending.peer(), &[1; 1]);
        pair.drive();
        assert_eq!(pair.epochs(), (3, 3));
    }
}

// CH-06
#[test]
fn records_in_either_direction_start_an_update() {
    let identities = Identities::new();
    let policy = RekeyPolicy::manual().with_records(4);
    let mut pair = Pair::connect(identities.client().rekey_policy(policy), identities.server());
    for role in [Role::Initiator, Role::Responder, Role::Responder] {
        pair.write(role, b"x");
        pair.drive();
    }
    assert_eq!(pair.epochs(), (1, 1));
    pair.write(Role::Responder, b"x");
    pair.drive();
    assert_eq!(pair.epochs(), (2, 2));
}

// CH-06
#[test]
fn time_starts_an_update_if_data_moved() {
    let interval = Duration::from_secs(60);
    let policy = RekeyPolicy::manual().with_interval(interval);
    let identities = Identities::new();
    let mut pair = Pair::connect(identities.client().rekey_policy(policy), identities.server());
    pair.write(Role::Responder, b"data");
    pair.drive();
    pair.advance(interval - Duration::from_nanos(1));
    pair.drive();
    assert_eq!(pair.epochs(), (1, 1));
    pair.advance(Duration::from_nanos(1));
    pair.drive();
    assert_eq!(pair.epochs(), (2, 2));

    // Nothing moved since: an idle connection stays idle, and costs no timer.
    pair.advance(interval);
    pair.drive();
    assert_eq!(pair.epochs(), (2, 2));
    assert_eq!(pair.initiator.connection.poll_timeout(), None);
    // The first data after that is followed by the update that was due; either direction counts.
    for (epoch, role) in [(3, Role::Initiator), (4, Role::Responder)] {
        pair.write(role, b"data");
        pair.drive();
        assert_eq!(pair.epochs(), (epoch, epoch));
        pair.advance(interval);
        pair.drive();
        assert_eq!(pair.epochs(), (epoch, epoch));
    }
}

#[test]
fn a_worn_key_is_replaced_whatever_the_policy_says() {
    let mut pair = Pair::connected();
    let limit = pair.initiator.connection.cipher_suite().unwrap().aead().record_limit();
    let number = limit / 2 - 1;
    set_sequence_numbers(&mut pair, number);
    pair.write(Role::Initiator, b"the last one before half of the limit");
    pair.drive();
    assert_eq!(pair.epochs(), (2, 2));
    pair.assert_works();
}

// CH-06: a hard error at the limit.
#[test]
fn at_the_limit_of_the_aead_nothing_more_is_sealed() {
    let mut pair = Pair::connected();
    let limit = pair.initiator.connection.cipher_suite().unwrap().aead().record_limit();
    set_sequence_numbers(&mut pair, limit - 1025);
    let end = &mut pair.initiator;
    // The update that this starts is never answered.
    end.connection.write(b"the last record of data", &mut end.out).unwrap();
    let refused = end.connection.write(b"one too many", &mut end.out);
    assert_eq!(refused, Err(Error::KeyExhausted));
    // The peer is told: there is a reserve for that.
    pair.drive();
    let alert = crate::wire::AlertDescription::InternalError;
    assert_eq!(pair.responder.error, Some(Error::AlertReceived(alert)));
    assert_eq!(pair.responder.received, b"the last record of data");
}

fn set_sequence_numbers(pair: &mut Pair, number: u64) {
    let sender = &mut pair.initiator.established().sender;
    sender.path_mut().key_mut().set_sequence_number(number);
    pair.responder.established().receiver.path_mut().current_mut().set_sequence_number(number);
}

// CH-09, CH-10
#[test]
fn ten_thousand_updates_without_data_are_a_flood() {
    let identities = Identities::new();
    let limits = Limits::default();
    let mut pair = Pair::connect(identities.client(), identities.server().limits(limits));
    let mut updates = 0;
    while pair.responder.error.is_none() && updates < 10_000 {
        pair.rekey(Role::Initiator);
        pair.drive();
        updates += 1;
    }
    assert_eq!(updates, limits.max_updates_without_data + 1);
    pair.assert_failed(Role::Responder, PeerMisbehaved::TooManyUpdates);
}

// CH-09: the count starts anew with data in either direction, and with time.
#[test]
fn updates_with_data_or_time_between_them_are_no_flood() {
    let identities = Identities::new();
    let limits = Limits::default().with_max_updates_without_data(3);
    let mut pair = Pair::connect(identities.client(), identities.server().limits(limits));
    for round in 0..40 {
        if round % 3 == 0 {
            match (round / 3) % 3 {
                0 => pair.write(Role::Initiator, b"x"),
                1 => pair.write(Role::Responder, b"x"),
                _ => pair.advance(limits.update_interval),
            }
        }
        pair.rekey(Role::Initiator);
        pair.drive();
        assert_eq!(pair.responder.error, None, "round {round}");
    }
    pair.assert_works();
}

#[test]
fn empty_records_are_a_flood() {
    let mut pair = Pair::connected();
    let end = &mut pair.initiator;
    for _ in 0..100 {
        let mut out = BytesMut::new();
        end.established().sender.path_mut().seal_empty(&mut out).unwrap();
        end.out.unsplit(out);
    }
    pair.assert_failed(Role::Responder, PeerMisbehaved::TooManyEmptyRecords);
}

/// Sends a message that an honest party would not send now.
fn send(pair: &mut Pair, role: Role, message: &TwoPartyMessage) {
    let end = pair.end(role);
    let mut out = BytesMut::new();
    let encoded = message.encode().unwrap();
    let path = end.established().sender.path_mut();
    path.seal_control(ContentType::Handshake, &encoded, &mut out).unwrap();
    end.out.unsplit(out);
}

// The row "EpochKeyUpdate, not waiting".
#[test]
fn an_epoch_key_update_out_of_nowhere_is_refused() {
    for role in BOTH {
        let mut pair = Pair::connected();
        send(&mut pair, role, &TwoPartyMessage::EpochKeyUpdate { epoch: 2 });
        pair.assert_failed(role.peer(), PeerMisbehaved::UnsolicitedEpochKeyUpdate);
    }
}

#[test]
fn an_epoch_key_update_with_another_epoch_is_refused() {
    for role in BOTH {
        for got in [0, 1, 3, u64::MAX] {
            let mut pair = Pair::connected();
            pair.rekey(role);
            drop(pair.intercept(role));
            send(&mut pair, role.peer(), &TwoPartyMessage::EpochKeyUpdate { epoch: got });
            pair.deliver(role.peer());
            assert_eq!(
                pair.end(role).error,
                Some(PeerMisbehaved::WrongEpoch { expected: 2, got }.into())
            );
        }
    }
}

#[test]
fn a_repeated_epoch_key_update_is_refused() {
    for role in BOTH {
        let mut pair = Pair::connected();
        pair.rekey(role);
        pair.deliver(role);
        send(&mut pair, role.peer(), &TwoPartyMessage::EpochKeyUpdate { epoch: 2 });
        pair.assert_failed(role, PeerMisbehaved::UnsolicitedEpochKeyUpdate);
    }
}

// 2P-07
#[test]
fn a_second_update_of_a_party_that_waits_is_refused() {
    // While the initiator waits, too: the first is ignored, the second is one too many.
    let mut pair = Pair::connected();
    pair.rekey(Role::Initiator);
    drop(pair.intercept(Role::Initiator));
    for _ in 0..2 {
        send(&mut pair, Role::Responder, &TwoPartyMessage::ConnectionUpdate { commit: vec![1] });
    }
    pair.deliver(Role::Responder);
    let error = PeerMisbehaved::UnexpectedMessage("ConnectionUpdate");
    assert_eq!(pair.initiator.error, Some(error.into()));

    // While it does not: a message of the old epoch after the answer.
    for role in BOTH {
        let mut pair = Pair::connected();
        pair.rekey(role);
        pair.deliver(role);
        send(&mut pair, role, &TwoPartyMessage::ConnectionUpdate { commit: vec![1] });
        pair.deliver(role);
        let error = PeerMisbehaved::UnexpectedMessage("ConnectionUpdate");
        assert_eq!(pair.end(role.peer()).error, Some(error.into()));
    }
}

#[test]
fn messages_of_the_handshake_have_no_place_in_the_channel() {
    let messages = [
        TwoPartyMessage::ClientHello { key_package: vec![1] },
        TwoPartyMessage::ServerHello { welcome: vec![1] },
        TwoPartyMessage::ResumptionRequest {
            commit: vec![1],
            early_data_length: 0,
            binder: [0; 32],
        },
        TwoPartyMessage::ResumptionResponse { commit: vec![1] },
    ];
    for message in messages {
        for role in BOTH {
            let mut pair = Pair::connected();
            send(&mut pair, role, &message);
            let error = PeerMisbehaved::UnexpectedMessage(message.name());
            pair.assert_failed(role.peer(), error);
        }
    }
}

// TL-07
#[test]
fn a_message_may_span_records_but_not_share_one_or_be_interrupted() {
    let fragments = |pair: &mut Pair, pieces: &[(ContentType, &[u8])]| {
        let end = &mut pair.initiator;
        let mut out = BytesMut::new();
        for (content_type, piece) in pieces {
            let path = end.established().sender.path_mut();
            path.seal_control(*content_type, piece, &mut out).unwrap();
        }
        end.out.unsplit(out);
    };
    let mut genuine = Pair::connected();
    let commit = genuine.initiator.established().sender.group_mut().start_update().unwrap();
    let message = TwoPartyMessage::ConnectionUpdate { commit }.encode().unwrap();

    // In pieces of one byte it is still one message.
    let pieces: Vec<_> = message.chunks(1).map(|piece| (ContentType::Handshake, piece)).collect();
    fragments(&mut genuine, &pieces);
    genuine.deliver(Role::Initiator);
    assert_eq!(genuine.responder.error, None);
    assert_eq!(genuine.responder.epoch(), 2);

    let (head, tail) = message.split_at(100);
    let two = [&message[..], &message[..5]].concat();
    for pieces in [
        vec![(ContentType::Handshake, &two[..])],
        vec![
            (ContentType::Handshake, head),
            (ContentType::ApplicationData, b"x"),
            (ContentType::Handshake, tail),
        ],
        vec![
            (ContentType::Handshake, head),
            (ContentType::Alert, &[1, 0]),
            (ContentType::Handshake, tail),
        ],
    ] {
        let mut pair = Pair::connected();
        fragments(&mut pair, &pieces);
        pair.assert_failed(Role::Responder, PeerMisbehaved::MisalignedMessage);
    }
}

// 2P-12, TL-02: the records before a change of keys cannot be taken away unnoticed, in either
// direction and however many.
#[test]
pub(super) fn records_cut_off_at_the_end_of_an_epoch_are_missed() {
    for role in BOTH {
        for cut in [role, role.peer()] {
            let mut pair = Pair::connected();
            pair.rekey(role);
            if cut != role {
                pair.write(cut, b"lost");
                drop(pair.intercept(cut));
            }
            pair.deliver(role);
            if cut == role {
                pair.write(cut, b"lost");
                drop(pair.intercept(cut));
            }
            pair.drive();
            let error = Some(PeerMisbehaved::BadRecordMac.into());
            assert_eq!(pair.end(cut.peer()).error, error, "{role:?} updates, {cut:?} loses");
        }
    }
}
