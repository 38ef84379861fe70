//! The essential tests with every provider and with different ones at the two ends, and providers
//! that break down.
//!
//! All tests run with the default provider where they are; here some of them are mounted again.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use openmls_rust_crypto::OpenMlsRustCrypto;

use super::*;
use crate::{
    crypto::tests::custom::{Fault, OwnLibrary},
    error::CryptoError,
};

thread_local! {
    /// What the client and the server of the tests in this thread compute with.
    static PROVIDERS: RefCell<Option<[CryptoProvider; 2]>> = const { RefCell::new(None) };
}

pub(super) fn client() -> CryptoProvider {
    configured(0)
}

pub(super) fn server() -> CryptoProvider {
    configured(1)
}

fn configured(end: usize) -> CryptoProvider {
    PROVIDERS.with_borrow(|providers| match providers {
        Some(providers) => providers[end].clone(),
        None => CryptoProvider::default(),
    })
}

pub(super) fn with(providers: [CryptoProvider; 2], test: fn()) {
    PROVIDERS.set(Some(providers));
    test();
}

fn custom() -> CryptoProvider {
    CryptoProvider::from_openmls("custom", OpenMlsRustCrypto::default())
}

macro_rules! mount {
    ($($(#[$attribute:meta])* $name:ident => [$client:expr, $server:expr];)*) => {
        $($(#[$attribute])*
        mod $name {
            use super::*;

            essential! {
                [$client, $server]
                handshake::both_ends_agree_on_everything,
                handshake::the_exporter_depends_on_label_context_and_epoch,
                handshake::records_on_the_wire_have_the_form_of_tls,
                handshake::the_handshake_works_byte_by_byte,
                handshake::the_initiator_falls_back_to_a_suite_that_both_have,
                handshake::without_a_common_suite_both_sides_say_so,
                handshake::an_unknown_initiator_is_refused,
                handshake::the_keys_on_the_wire_are_those_of_the_drafts,
                rekey::an_update_switches_both_directions,
                rekey::data_flows_while_an_update_is_outstanding,
                rekey::when_updates_cross_the_initiators_wins_and_the_responders_follows,
                rekey::old_keys_are_erased_as_soon_as_they_are_not_needed,
                rekey::a_record_of_the_old_epoch_does_not_open_after_the_switch,
                rekey::records_cut_off_at_the_end_of_an_epoch_are_missed,
                rotation::an_identity_changes_inside_a_channel,
                rotation::a_refused_identity_changes_nothing,
                rotation_sessions::a_session_goes_on_under_the_new_identity,
                key_log::logged_secrets_open_what_was_captured,
                attack::a_replayed_hello_is_answered_but_never_confirmed,
                attack::no_flipped_bit_of_a_record_goes_unnoticed,
                attack::records_in_another_order_are_refused,
                attack::sealed_records_of_wrong_shape_are_refused,
                attack_commit::what_is_no_bare_self_update_is_refused,
                attack_commit::a_commit_that_does_not_belong_here_is_refused,
                attack_group::a_group_that_the_profile_does_not_prescribe_is_refused,
                attack_hello::a_bad_hpke_key_is_refused,
                capture::after_both_have_updated_a_thief_reads_nothing,
                capture::the_stored_group_keeps_nothing_of_earlier_epochs,
                close::one_direction_closes_and_the_other_goes_on_rekeys_included,
                resumption::a_session_goes_on_over_another_connection,
                resumption::the_server_of_the_old_connection_can_resume_too,
                resumption::an_unanswered_update_is_sent_again_as_the_request,
                resumption::early_data_comes_with_the_request_and_once,
                attack_resumption::a_response_cannot_be_presented_as_a_request,
                resumption::nothing_is_sent_that_could_not_be_stored,
                attack_resumption::a_resumption_heals,
            }
        })*
    };
}

macro_rules! essential {
    ($providers:tt $($module:ident::$test:ident,)*) => {
        $(#[test]
        fn $test() {
            with($providers, super::super::$module::$test);
        })*
    };
}

mount! {
    #[cfg(feature = "aws-lc")]
    rust_crypto => [CryptoProvider::rust_crypto(), CryptoProvider::rust_crypto()];
    #[cfg(feature = "aws-lc")]
    aws_lc_to_rust_crypto => [CryptoProvider::aws_lc(), CryptoProvider::rust_crypto()];
    #[cfg(feature = "aws-lc")]
    rust_crypto_to_aws_lc => [CryptoProvider::rust_crypto(), CryptoProvider::aws_lc()];
    own_library => [custom(), custom()];
    own_library_to_default => [custom(), CryptoProvider::default()];
}

/// A handshake, data, and an update of each end, until something fails at `role`, which computes
/// with `crypto`.
fn run(role: Role, crypto: CryptoProvider, identities: &Identities) -> Result<(), Error> {
    let (mut client, mut server) = (identities.client(), identities.server());
    match role {
        Role::Initiator => client = client.crypto_provider(crypto),
        Role::Responder => server = server.crypto_provider(crypto),
    }
    let (client, server) = (Arc::new(client.build()?), Arc::new(server.build()?));
    let name = ServerName::new(SERVER_NAME)?;
    let (now, mut out) = (start(), BytesMut::new());
    let mut initiator = End::new(Connection::initiator(client, name, now, &mut out)?);
    initiator.out = out;
    let responder = End::new(Connection::responder(server, now));
    let mut pair = Pair { initiator, responder, now };

    let result = go_through(&mut pair, role);
    pair.drive();
    for end in [&pair.initiator, &pair.responder] {
        assert!(!contains(&end.sent, PLAINTEXT));
    }
    result
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

const PLAINTEXT: &[u8] = b"nobody else may read this";

fn go_through(pair: &mut Pair, role: Role) -> Result<(), Error> {
    let drive = |pair: &mut Pair| {
        pair.drive();
        // If only the peer fails, it has been given something wrong.
        match pair.end(role).error.clone().or_else(|| pair.end(role.peer()).error.clone()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    };
    drive(pair)?;
    for role in [role, role.peer()] {
        let end = pair.end(role);
        end.connection.write(PLAINTEXT, &mut end.out)?;
        end.connection.rekey(&mut end.out)?;
        drive(pair)?;
        let end = pair.end(role);
        end.connection.write(PLAINTEXT, &mut end.out)?;
        drive(pair)?;
    }
    Ok(())
}

/// What may fail because of what the peer has sent. Nobody knows whether it did.
const PEERS: [&str; 4] = ["aead_decrypt", "hpke_open", "hpke_seal", "verify_signature"];

#[test]
fn a_library_that_breaks_down_ends_the_connection_and_is_blamed() {
    let identities = Identities::new();
    for role in [Role::Initiator, Role::Responder] {
        let (crypto, calls) = OwnLibrary::broken(usize::MAX, Fault::Failure);
        run(role, crypto, &identities).unwrap();
        let count = calls.names().len();
        assert!(count > 150, "{role:?} {count}");
        for (call, fault) in
            (0..count).flat_map(|call| [(call, Fault::Failure), (call, Fault::ShortResult)])
        {
            let (crypto, calls) = OwnLibrary::broken(call, fault);
            let result = catch_unwind(AssertUnwindSafe(|| run(role, crypto, &identities)));
            let name = calls.names()[call];
            let context = format!("{role:?} {fault:?} in call {call}, {name}: {result:?}");
            match result {
                // The first one is made when the configuration is, to save time later.
                Ok(Ok(())) => assert!(call == 0 || (name, fault) == NOTHING, "{context}"),
                Ok(Err(Error::Crypto(_))) => {}
                Ok(Err(Error::PeerMisbehaved(_) | Error::PeerIncompatible(_))) => {
                    assert!(PEERS.contains(&name), "{context}");
                }
                Ok(Err(_)) => panic!("{context}"),
                Err(panic) => {
                    let message = panic.downcast_ref::<&str>();
                    assert_eq!(message, Some(&DEBUG_ASSERTION), "{context}");
                    assert!(cfg!(debug_assertions) && name == "hash", "{context}");
                }
            }
        }
    }
}

/// A verification has no result that could be short.
const NOTHING: (&str, Fault) = ("verify_signature", Fault::ShortResult);

/// OpenMLS checks its own work once more in debug builds, and takes a failure for a mistake in it.
const DEBUG_ASSERTION: &str =
    "assertion failed: self.verify_parent_hashes(crypto, ciphersuite).is_ok()";

#[test]
fn a_record_that_cannot_be_sealed_leaves_no_plaintext() {
    let identities = Identities::new();
    for fault in [Fault::Failure, Fault::ShortResult] {
        let (crypto, calls) = OwnLibrary::broken(usize::MAX, fault);
        let client = identities.client().crypto_provider(crypto);
        drop(Pair::connect(client, identities.server()));
        let (crypto, _) = OwnLibrary::broken(calls.names().len(), fault);
        let client = identities.client().crypto_provider(crypto);
        let mut pair = Pair::connect(client, identities.server());
        let mut out = BytesMut::new();
        let error = CryptoError::Internal("sealing a record").into();
        assert_eq!(pair.initiator.connection.write(PLAINTEXT, &mut out), Err(error));
        assert!(!contains(&out, PLAINTEXT));
    }
}
