//! Attacks by a thief of the state (2P-19, TL-04).
//!
//! The thief records every byte on the wire and once takes everything that one end has: the stored
//! group, the signature key, and the keys of the record layer. The thief is passive and knows the
//! protocol. Before the theft nothing may be readable (forward secrecy); after each end has updated
//! once, nothing may be readable any more (post-compromise security).

use super::*;
use crate::{
    group::{Group, StagedUpdate},
    record::{ReceivePath, RecordKey},
    two_party::sender::record_keys,
    wire::{ContentType, MessageAssembler, Record, TwoPartyMessage},
};

const SECRET: &[u8] = b"the secret of this epoch";

/// What was taken from one end, and what the thief makes of it.
struct Thief {
    victim: Role,
    group: Group,
    /// Every key that the thief has, for what each party sends.
    keys: Vec<(Role, ReceivePath)>,
}

impl Thief {
    fn steal(pair: &mut Pair, victim: Role) -> Self {
        let established = pair.end(victim).established();
        let group = established.sender.group().steal();
        let sent = established.sender.path_mut().key_mut().sequence_number();
        let received = established.receiver.path_mut().current_mut().sequence_number();
        let mut thief = Self { victim, group, keys: Vec::new() };
        thief.learn();
        // The group gives the keys of the epoch; the sequence numbers are in the record layer.
        thief.keys[0].1.current_mut().set_sequence_number(sent);
        thief.keys[1].1.current_mut().set_sequence_number(received);
        thief
    }

    /// Derives the keys of the epoch in which the stolen group is.
    fn learn(&mut self) {
        let secrets = self.group.traffic_secrets().unwrap();
        let (send, receive) = record_keys(None, &self.group, self.victim, secrets).unwrap();
        self.keys.push((self.victim, ReceivePath::new(send)));
        self.keys.push((self.victim.peer(), ReceivePath::new(receive)));
    }

    /// Reads a recorded direction as far as it can, following every update that it can follow.
    /// Returns the data that it read.
    fn read(&mut self, from: Role, wire: &[u8]) -> Vec<u8> {
        let mut input = BytesMut::from(wire);
        let mut data = Vec::new();
        let mut assembler = MessageAssembler::new(1 << 16);
        while let Ok(Some(record)) = Record::split_from(&mut input) {
            let mut keys = self.keys.iter_mut().filter(|(sender, _)| *sender == from);
            let Some(opened) = keys.find_map(|(_, key)| key.open(record.clone()).ok()) else {
                continue;
            };
            match opened.content_type {
                ContentType::ApplicationData => data.extend_from_slice(&opened.content),
                ContentType::Handshake => {
                    assembler.push(&opened.content).unwrap();
                    if let Some(message) = assembler.next().unwrap()
                        && let TwoPartyMessage::ConnectionUpdate { commit } =
                            message.decode().unwrap()
                    {
                        self.follow(&commit);
                    }
                }
                _ => {}
            }
        }
        data
    }

    /// Does what the victim would do with an update of its peer. An update of the victim itself
    /// cannot be processed: its secrets were never in the stolen state.
    fn follow(&mut self, commit: &[u8]) {
        if let Ok(StagedUpdate::SameCredential(update)) = self.group.receive_update(commit) {
            self.group.apply(update).unwrap();
            self.learn();
        }
    }

    /// Tries the stolen keys at another place of the recording.
    fn rewind(&mut self, number: u64) {
        for (_, key) in &mut self.keys {
            key.current_mut().set_sequence_number(number);
        }
    }
}

/// One exchange: both ends update if they are to, then both send the secret. What went over the
/// wire, by sender, in the order of the exchange.
fn exchange(pair: &mut Pair, updates: &[Role]) -> Vec<(Role, Vec<u8>)> {
    let mut wire = Vec::new();
    let mut flow = |pair: &mut Pair| {
        loop {
            let mut silent = true;
            for role in [Role::Initiator, Role::Responder] {
                let bytes = pair.intercept(role);
                silent &= bytes.is_empty();
                pair.inject(role.peer(), &bytes);
                wire.push((role, bytes.to_vec()));
            }
            if silent {
                return;
            }
        }
    };
    for &role in updates {
        pair.rekey(role);
        flow(pair);
    }
    for role in [Role::Initiator, Role::Responder] {
        pair.write(role, SECRET);
        flow(pair);
    }
    wire
}

fn read_all(thief: &mut Thief, wire: &[(Role, Vec<u8>)]) -> Vec<u8> {
    wire.iter().flat_map(|(from, bytes)| thief.read(*from, bytes)).collect()
}

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];

// The attack works: without updates, and with updates of the other end alone, the thief reads all.
#[test]
fn a_thief_reads_on_until_the_victim_updates() {
    for victim in BOTH {
        for updates in [&[][..], &[victim.peer()], &[victim.peer(), victim.peer()]] {
            let mut pair = Pair::stored();
            exchange(&mut pair, &[]);
            let mut thief = Thief::steal(&mut pair, victim);
            let wire = exchange(&mut pair, updates);
            assert_eq!(read_all(&mut thief, &wire), SECRET.repeat(2), "{victim:?} {updates:?}");
        }
    }
}

// 2P-19, PCS: after each end has updated once, in any order, the thief is out for good.
#[test]
pub(super) fn after_both_have_updated_a_thief_reads_nothing() {
    for victim in BOTH {
        for first in BOTH {
            let mut pair = Pair::stored();
            exchange(&mut pair, &[]);
            let mut thief = Thief::steal(&mut pair, victim);
            let wire = exchange(&mut pair, &[first, first.peer()]);
            assert_eq!(read_all(&mut thief, &wire), b"", "{victim:?}, {first:?} first");
            let wire = exchange(&mut pair, &[victim.peer()]);
            assert_eq!(read_all(&mut thief, &wire), b"");
        }
    }
}

// 2P-19, FS: what was recorded before an update cannot be read with what is held after it.
#[test]
fn a_thief_cannot_read_what_was_recorded_before_the_last_update() {
    for victim in BOTH {
        for updating in BOTH {
            let mut pair = Pair::stored();
            let recorded = exchange(&mut pair, &[]);
            exchange(&mut pair, &[updating]);
            let mut thief = Thief::steal(&mut pair, victim);
            // Any sequence number: the thief may try them all.
            for number in 0..8 {
                thief.rewind(number);
                assert_eq!(read_all(&mut thief, &recorded), b"", "{victim:?}, {updating:?}");
            }
        }
    }
}

// The control for the test above: the keys of the epoch of the theft itself read what was recorded
// in that epoch.
#[test]
fn a_thief_reads_what_was_recorded_in_the_epoch_of_the_theft() {
    let mut pair = Pair::stored();
    let recorded = exchange(&mut pair, &[Role::Initiator]);
    let mut thief = Thief::steal(&mut pair, Role::Responder);
    thief.rewind(0);
    assert_eq!(read_all(&mut thief, &recorded), SECRET.repeat(2));
}

// 2P-19, TL-04: the record layer of an end holds no key that opens what it received or sent in an
// earlier epoch, and neither does the stored group hold a secret of one.
#[test]
fn the_paths_hold_no_key_of_an_earlier_epoch() {
    for victim in BOTH {
        let mut pair = Pair::stored();
        let recorded = exchange(&mut pair, &[]);
        let exported = pair.end(victim).connection.export_secret("x", b"", 32).unwrap();
        for updating in BOTH {
            exchange(&mut pair, &[updating]);
        }
        let established = pair.end(victim).established();
        let snapshot = established.sender.group().snapshot().unwrap();
        assert!(!snapshot.windows(32).any(|window| window == &exported[..]));
        let (_, next) = established.receiver.path().keys();
        assert!(next.is_none());
        for (from, bytes) in &recorded {
            let mut input = BytesMut::from(&bytes[..]);
            while let Some(record) = Record::split_from(&mut input).unwrap() {
                let established = pair.end(victim).established();
                for number in 0..4 {
                    let key: &mut RecordKey = if *from == victim {
                        established.sender.path_mut().key_mut()
                    } else {
                        established.receiver.path_mut().current_mut()
                    };
                    key.set_sequence_number(number);
                    assert!(!key.opens(&record), "a key of the first epoch is still held");
                }
            }
        }
    }
}

// 2P-19, TL-04: what is stored about the group does not pile up: keys of earlier epochs are deleted.
#[test]
pub(super) fn the_stored_group_keeps_nothing_of_earlier_epochs() {
    for victim in BOTH {
        let mut pair = Pair::stored();
        let stored =
            |pair: &mut Pair| pair.end(victim).established().sender.group().snapshot().unwrap();
        // OpenMLS fills a store of 32 resumption secrets first, from which no traffic key comes.
        for _ in 0..17 {
            exchange(&mut pair, &BOTH);
        }
        let early = stored(&mut pair).len();
        for _ in 0..10 {
            exchange(&mut pair, &BOTH);
        }
        let late = stored(&mut pair).len();
        assert!(late <= early + 64, "{victim:?}: {early} bytes became {late}");
    }
}

// 2P-19: without a store the storage of the group holds keys and nothing else.
#[test]
fn a_group_that_is_not_stored_cannot_be() {
    for victim in BOTH {
        let mut pair = Pair::connected();
        exchange(&mut pair, &BOTH);
        assert!(pair.end(victim).established().sender.group().snapshot().is_err());
    }
}

// 2P-19: the parsed key of the own leaf is kept as long as the leaf, and no longer.
#[cfg(feature = "aws-lc")]
#[test]
fn the_parsed_key_of_a_replaced_leaf_is_erased() {
    for victim in BOTH {
        let mut pair = Pair::connected();
        let remembers = |pair: &mut Pair| {
            pair.end(victim).established().sender.group().crypto().remembers_hpke_key()
        };
        assert!(!remembers(&mut pair), "the init key of the handshake");
        exchange(&mut pair, &[victim.peer()]);
        assert!(remembers(&mut pair));
        exchange(&mut pair, &[victim.peer()]);
        assert!(remembers(&mut pair));
        exchange(&mut pair, &[victim]);
        assert!(!remembers(&mut pair));
    }
}
