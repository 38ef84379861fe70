//! Resumption over a link that does what the fuzzer wants, and the next attempt over one that does not.

use std::sync::Arc;

use super::{CLIENT, Input, MAX_EDITED, SERVER, connection::End};
use crate::{Config, HandshakeKind, Limits, MemoryStore, Time};

const EARLY_DATA: &[u8] = b"early data";

/// Messages that go back and forth at most in an attempt.
const MAX_FLIGHTS: usize = 8;

/// A session is resumed, and the input says which of the messages are edited, and how. Whatever that
/// does, the next connection finds both ends in step, or a full handshake takes place.
pub fn resumption(data: &[u8]) {
    let mut input = Input::new(data);
    let now = Time::now();
    let configs = [stored(&CLIENT), stored(&SERVER)];
    assert_eq!(connect(&configs, now), HandshakeKind::Full);

    let by_server = input.flag();
    let order = if by_server { [1, 0] } else { [0, 1] };
    let [initiating, responding] = order.map(|index| &configs[index]);
    let mut initiator = match by_server {
        // The server knows no name by which it would find the session: it begins anew.
        true => End::initiate(Arc::clone(initiating), None, now),
        false => End::initiate(Arc::clone(initiating), Some(EARLY_DATA), now),
    };
    let mut responder = End::respond(Arc::clone(responding), now);
    for _ in 0..MAX_FLIGHTS {
        carry(&mut input, &mut initiator, &mut responder, now);
        carry(&mut input, &mut responder, &mut initiator, now);
    }
    initiator.assert_sticky(now);
    responder.assert_sticky(now);
    drop((initiator, responder));

    connect(&configs, now);
    assert_eq!(connect(&configs, now), HandshakeKind::Resumed);
}

/// One flight, edited if the input says so.
fn carry(input: &mut Input<'_>, from: &mut End, to: &mut End, now: Time) {
    let mut flight = from.out.split().to_vec();
    if flight.is_empty() {
        return;
    }
    for _ in 0..input.byte() % 4 {
        input.edit(&mut flight);
        flight.truncate(MAX_EDITED);
    }
    to.receive(now, &flight);
}

fn stored(config: &Arc<Config>) -> Arc<Config> {
    let config = config
        .to_builder()
        .session_store(MemoryStore::default())
        .limits(Limits::default().with_max_early_data(1024))
        .build();
    Arc::new(config.expect("the values are in range"))
}

/// A connection of which nothing is edited, and how it began.
fn connect([client, server]: &[Arc<Config>; 2], now: Time) -> HandshakeKind {
    let mut initiator = End::initiate(Arc::clone(client), None, now);
    let mut responder = End::respond(Arc::clone(server), now);
    for _ in 0..MAX_FLIGHTS {
        responder.receive(now, &initiator.out.split());
        initiator.receive(now, &responder.out.split());
    }
    assert!(initiator.established && responder.established, "the handshake is complete");
    let kind = initiator.connection.handshake_kind();
    assert_eq!(kind, responder.connection.handshake_kind());
    kind.expect("established")
}
