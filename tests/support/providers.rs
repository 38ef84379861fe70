//! What the two parties of a test compute with, and tests that are mounted once for each choice.

use std::cell::RefCell;

use mls_channel::CryptoProvider;
use openmls_rust_crypto::OpenMlsRustCrypto;

thread_local! {
    /// The providers of the client and the server of the test in this thread.
    static PROVIDERS: RefCell<Option<[CryptoProvider; 2]>> = const { RefCell::new(None) };
}

pub(crate) fn client() -> CryptoProvider {
    configured(0)
}

pub(crate) fn server() -> CryptoProvider {
    configured(1)
}

fn configured(party: usize) -> CryptoProvider {
    PROVIDERS.with_borrow(|providers| match providers {
        Some(providers) => providers[party].clone(),
        None => CryptoProvider::default(),
    })
}

/// Runs a test with these providers instead of the default one.
pub(crate) fn with(providers: [CryptoProvider; 2], test: fn()) {
    PROVIDERS.set(Some(providers));
    test();
}

/// A provider as a user would bring it.
pub(crate) fn custom() -> CryptoProvider {
    CryptoProvider::from_openmls("custom", OpenMlsRustCrypto::default())
}

/// Mounts tests of the crate's root with RustCrypto, with a custom provider, and with different
/// ones at the two ends.
macro_rules! mount_on_every_provider {
    ($($test:ident,)*) => {
        mod on_every_provider {
            use mls_channel::CryptoProvider;

            use crate::providers::{custom, with};

            $(mod $test {
                use super::*;

                #[test]
                fn rust_crypto() {
                    let client = CryptoProvider::rust_crypto();
                    with([client, CryptoProvider::rust_crypto()], crate::$test);
                }

                #[test]
                fn own_library() {
                    with([custom(), custom()], crate::$test);
                }

                #[test]
                fn default_to_rust_crypto() {
                    let client = CryptoProvider::default();
                    with([client, CryptoProvider::rust_crypto()], crate::$test);
                }

                #[test]
                fn own_library_to_default() {
                    with([custom(), CryptoProvider::default()], crate::$test);
                }
            })*
        }
    };
}
pub(crate) use mount_on_every_provider;
