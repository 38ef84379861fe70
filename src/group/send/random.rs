//! Randomness that is remembered, and randomness that is repeated.

use std::sync::{Mutex, PoisonError};

use openmls::prelude::OpenMlsProvider;
use openmls_traits::random::OpenMlsRand;
use zeroize::Zeroizing;

use super::{Provider, Storage};
use crate::{crypto::CryptoProvider, error::CryptoError};

/// The random bytes from which OpenMLS derived the encryption key of a leaf.
#[derive(Clone)]
pub(crate) struct LeafSeed(pub(super) Zeroizing<Vec<u8>>);

/// Remembers what [`OpenMlsRand::random_vec`] gave.
pub(super) struct Recorder<'a> {
    crypto: &'a CryptoProvider,
    given: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    /// What the leaf is made of, for members that break the rules.
    #[cfg(test)]
    pub(super) leaf: Option<LeafSeed>,
}

/// Gives a seed at the first call of [`OpenMlsRand::random_vec`], and randomness afterwards.
pub(super) struct Repeater<'a> {
    provider: &'a Provider,
    seed: Mutex<Option<Zeroizing<Vec<u8>>>>,
}

impl LeafSeed {
    /// From what [`LeafSeed::as_bytes`] gave.
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// For the store. Secret.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Recorder<'a> {
    pub(super) fn new(crypto: &'a CryptoProvider) -> Self {
        Self {
            crypto,
            given: Mutex::default(),
            #[cfg(test)]
            leaf: None,
        }
    }

    /// The seed of the leaf of an update path: OpenMLS asks for the path secret, then for the leaf.
    pub(super) fn into_leaf_seed(self) -> Option<LeafSeed> {
        let given = self.given.into_inner().unwrap_or_else(PoisonError::into_inner);
        match <[_; 2]>::try_from(given) {
            Ok([_path_secret, leaf]) => Some(LeafSeed(leaf)),
            Err(_) => None,
        }
    }
}

impl<'a> Repeater<'a> {
    pub(super) fn new(provider: &'a Provider, seed: &LeafSeed) -> Self {
        Self { provider, seed: Mutex::new(Some(seed.0.clone())) }
    }
}

impl OpenMlsRand for Recorder<'_> {
    type Error = CryptoError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], CryptoError> {
        self.crypto.random_array()
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, CryptoError> {
        let bytes = self.crypto.random_vec(len)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(test)]
        let bytes = match &self.leaf {
            Some(leaf) if given.len() == 1 => leaf.0.to_vec(),
            _ => bytes,
        };
        given.push(Zeroizing::new(bytes.clone()));
        Ok(bytes)
    }
}

impl OpenMlsRand for Repeater<'_> {
    type Error = CryptoError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], CryptoError> {
        self.provider.crypto.random_array()
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, CryptoError> {
        match self.seed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(seed) if seed.len() == len => Ok(seed.to_vec()),
            Some(_) => Err(CryptoError::Unsupported("one leaf key in groups of different suites")),
            None => self.provider.crypto.random_vec(len),
        }
    }
}

impl OpenMlsProvider for Repeater<'_> {
    type CryptoProvider = CryptoProvider;
    type RandProvider = Self;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.provider.storage
    }

    fn crypto(&self) -> &CryptoProvider {
        &self.provider.crypto
    }

    fn rand(&self) -> &Self {
        self
    }
}
