//! Closing: each direction by itself (CH-04).

use super::*;
use crate::{error::PeerMisbehaved, wire::ContentType};

#[test]
pub(super) fn one_direction_closes_and_the_other_goes_on_rekeys_included() {
    for closing in [Role::Initiator, Role::Responder] {
        let mut pair = Pair::connected();
        pair.write(closing, b"last words");
        pair.close(closing);
        pair.drive();
        let other = pair.end(closing.peer());
        other.expect(Event::PeerClosed);
        assert_eq!(other.received, b"last words");

        // Both may still update.
        for (round, role) in [closing, closing.peer(), closing].into_iter().enumerate() {
            pair.write(closing.peer(), b"more");
            pair.rekey(role);
            pair.drive();
            assert_eq!(pair.epochs(), (round as u64 + 2, round as u64 + 2));
        }
        assert_eq!(pair.end(closing).received, b"moremoremore");

        let end = pair.end(closing);
        let refused = end.connection.write(b"too late", &mut end.out);
        assert_eq!(refused, Err(ApiMisuse::Closed.into()));
        pair.close(closing.peer());
        pair.drive();
        pair.end(closing).expect(Event::PeerClosed);
        assert!(pair.initiator.connection.is_closed() && pair.responder.connection.is_closed());
        assert_eq!(pair.initiator.connection.handle_eof(), Ok(()));
        assert_eq!(pair.responder.connection.handle_eof(), Ok(()));
    }
}

#[test]
fn closing_twice_sends_one_close_notify() {
    let mut pair = Pair::connected();
    pair.close(Role::Initiator);
    let length = pair.initiator.out.len();
    pair.close(Role::Initiator);
    assert_eq!(pair.initiator.out.len(), length);
}

// CH-04: the answer to the last update has to arrive before the transport may go.
#[test]
fn a_connection_is_closed_when_the_last_update_is_answered() {
    for role in [Role::Initiator, Role::Responder] {
        let mut pair = Pair::connected();
        pair.rekey(role);
        pair.close(role);
        pair.deliver(role);
        pair.close(role.peer());
        assert!(!pair.end(role.peer()).connection.is_closed(), "the peer's switch is awaited");
        let answer = pair.intercept(role.peer());
        assert!(!pair.end(role).connection.is_closed(), "the answer is awaited");
        pair.inject(role, &answer);
        assert!(pair.end(role).connection.is_closed());
        pair.drive();
        assert!(pair.end(role.peer()).connection.is_closed());
    }
}

#[test]
fn no_update_starts_when_both_have_closed() {
    let mut pair = Pair::connected();
    pair.close(Role::Initiator);
    pair.close(Role::Responder);
    pair.drive();
    let end = &mut pair.initiator;
    assert_eq!(end.connection.rekey(&mut end.out), Err(ApiMisuse::Closed.into()));
    assert_eq!(end.connection.poll_timeout(), None);
}

// CH-04
#[test]
fn a_peer_that_vanishes_is_a_truncation() {
    let mut pair = Pair::connected();
    assert_eq!(pair.responder.connection.handle_eof(), Err(Error::Truncated));
    // And it stays one.
    let end = &mut pair.responder;
    assert_eq!(end.connection.write(b"x", &mut end.out), Err(Error::Truncated));
}

#[test]
fn a_stream_cut_inside_a_record_is_a_truncation() {
    let mut pair = Pair::connected();
    pair.close(Role::Initiator);
    let bytes = pair.intercept(Role::Initiator);
    for cut in 0..bytes.len() {
        let mut pair = Pair::connected();
        pair.close(Role::Initiator);
        let bytes = pair.intercept(Role::Initiator);
        pair.inject(Role::Responder, &bytes[..cut]);
        assert_eq!(pair.responder.connection.handle_eof(), Err(Error::Truncated));
    }
}

#[test]
fn data_after_the_close_notify_is_refused() {
    let mut pair = Pair::connected();
    pair.close(Role::Initiator);
    let end = &mut pair.initiator;
    let Established { sender, .. } = end.established();
    let mut out = BytesMut::new();
    sender.path_mut().seal_data(b"after the end", &mut out).unwrap();
    end.out.unsplit(out);
    pair.assert_failed(Role::Responder, PeerMisbehaved::DataAfterClose);
}

#[test]
fn a_second_close_notify_is_refused() {
    let mut pair = Pair::connected();
    pair.close(Role::Initiator);
    let end = &mut pair.initiator;
    let mut out = BytesMut::new();
    end.established()
        .sender
        .path_mut()
        .seal_control(ContentType::Alert, &[1, 0], &mut out)
        .unwrap();
    end.out.unsplit(out);
    pair.assert_failed(Role::Responder, PeerMisbehaved::DataAfterClose);
}

#[test]
fn a_fatal_alert_ends_both_directions() {
    let mut pair = Pair::connected();
    let end = &mut pair.initiator;
    let mut out = BytesMut::new();
    end.established()
        .sender
        .path_mut()
        .seal_control(ContentType::Alert, &[2, 80], &mut out)
        .unwrap();
    pair.inject(Role::Responder, &out);
    let error = Error::AlertReceived(crate::wire::AlertDescription::InternalError);
    assert_eq!(pair.responder.error, Some(error.clone()));
    let end = &mut pair.responder;
    assert!(end.out.is_empty(), "an alert is not answered");
    assert_eq!(end.connection.write(b"x", &mut end.out), Err(error));
}
