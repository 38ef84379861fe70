//! The essential tests with every cipher suite, on every provider that has it.
//!
//! All tests run with the best classical suite where they are; here some of them are mounted again.

use std::cell::Cell;

use super::*;
use crate::{
    SignatureScheme,
    crypto::tests::custom::{Fault, OwnLibrary},
};

thread_local! {
    /// The only suite of both parties of the tests in this thread.
    static SUITE: Cell<Option<CipherSuite>> = const { Cell::new(None) };
}

/// The scheme of the identities.
pub(super) fn scheme() -> SignatureScheme {
    SUITE.get().map_or(SignatureScheme::ED25519, CipherSuite::signature_scheme)
}

/// The suites of both parties, if they are not the default ones.
pub(super) fn suites() -> Option<[CipherSuite; 1]> {
    SUITE.get().map(|suite| [suite])
}

/// The suites that all libraries have.
pub(super) fn of_every_provider() -> Vec<CipherSuite> {
    CryptoProvider::rust_crypto().cipher_suites()
}

fn with(suite: CipherSuite, test: fn()) {
    for crypto in [CryptoProvider::default(), CryptoProvider::rust_crypto()] {
        if crypto.cipher_suites().contains(&suite) {
            SUITE.set(Some(suite));
            providers::with([crypto.clone(), crypto], test);
            SUITE.set(None);
        }
    }
}

macro_rules! mount {
    ($($(#[$attribute:meta])* $name:ident => $suite:ident;)*) => {
        $($(#[$attribute])*
        mod $name {
            use super::*;

            essential! {
                $suite
                handshake::the_exporter_depends_on_label_context_and_epoch,
                handshake::the_handshake_works_byte_by_byte,
                handshake::an_unknown_initiator_is_refused,
                rekey::an_update_switches_both_directions,
                rekey::data_flows_while_an_update_is_outstanding,
                rekey::when_updates_cross_the_initiators_wins_and_the_responders_follows,
                rekey::old_keys_are_erased_as_soon_as_they_are_not_needed,
                rekey::a_record_of_the_old_epoch_does_not_open_after_the_switch,
                rekey::records_cut_off_at_the_end_of_an_epoch_are_missed,
                attack::a_replayed_hello_is_answered_but_never_confirmed,
                attack::records_in_another_order_are_refused,
                attack_commit::a_commit_that_does_not_belong_here_is_refused,
                capture::after_both_have_updated_a_thief_reads_nothing,
                capture::the_stored_group_keeps_nothing_of_earlier_epochs,
                close::one_direction_closes_and_the_other_goes_on_rekeys_included,
                resumption::a_session_goes_on_over_another_connection,
                resumption::the_server_of_the_old_connection_can_resume_too,
                resumption::an_unanswered_update_is_sent_again_as_the_request,
                resumption::early_data_comes_with_the_request_and_once,
                resumption::nothing_is_sent_that_could_not_be_stored,
                attack_resumption::a_resumption_heals,
            }
        })*
    };
}

macro_rules! essential {
    ($suite:ident $($module:ident::$test:ident,)*) => {
        $(#[test]
        fn $test() {
            with(CipherSuite::$suite, super::super::$module::$test);
        })*
    };
}

mount! {
    p256 => MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
    chacha => MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    #[cfg(feature = "post-quantum")]
    hybrid_aes128 => MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;
    #[cfg(feature = "post-quantum")]
    hybrid_aes256 => MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;
    #[cfg(feature = "post-quantum")]
    hybrid_chacha => MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519;
    #[cfg(feature = "post-quantum")]
    ml_kem_768_ed25519 => MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519;
    #[cfg(feature = "post-quantum")]
    ml_kem_768_p256 => MLS_128_MLKEM768_AES256GCM_SHA384_P256;
    #[cfg(feature = "post-quantum")]
    hybrid_ml_dsa_44 => MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44;
    #[cfg(feature = "post-quantum")]
    ml_kem_768_ml_dsa_65 => MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65;
    #[cfg(feature = "post-quantum")]
    ml_kem_1024_ml_dsa_87 => MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87;
    #[cfg(feature = "post-quantum")]
    ml_kem_1024_ml_dsa_87_sha512 => MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87;
}

// A Welcome shows the initiator its own leaf. No two ECDSA signatures are the same, and still it
// knows its own again.
#[test]
fn an_initiator_does_not_verify_its_own_leaf_in_any_scheme() {
    let verified = |scheme| {
        let identities = Identities::of(scheme);
        let (crypto, calls) = OwnLibrary::broken(usize::MAX, Fault::Failure);
        let client = identities.client().crypto_provider(crypto);
        drop(Pair::connect(client, identities.server()));
        let names = calls.names();
        names.iter().filter(|name| **name == "verify_signature").count()
    };
    for &scheme in SignatureScheme::ALL {
        // The responder's leaf, and its GroupInfo.
        assert_eq!(verified(scheme), 2, "{scheme}");
    }
}
