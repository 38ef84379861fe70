//! KeyPackages: what a member gives to the owners of the other Send Groups (DM-02).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openmls::prelude::{
    KeyPackage, KeyPackageVerifyError, Lifetime, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    ProtocolVersion, tls_codec::DeserializeBytes as _,
};

use super::{
    Claim, INTERNAL, Leaf, Provider, Retention, Storage, UNIVERSE_PARAMETERS,
    check_credential_types, ciphersuite, credential, leaf_extensions, send_capabilities, signer,
};
use crate::{
    crypto::{CipherSuite, CryptoProvider},
    error::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    identity::Identity,
};

/// How long a KeyPackage may be answered: all members of a universe have to come together.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How far the clock of another member may be behind.
const SKEW: Duration = Duration::from_secs(3600);

/// Longest lifetime that is accepted in a KeyPackage, in seconds.
const MAX_LIFETIME: u64 = 7 * 24 * 3600;

/// This member's KeyPackages, one for each suite, with their private keys.
///
/// One KeyPackage answers for all Send Groups of one universe, so it is marked as one of last resort
/// (RFC 9420, section 16.8). The private keys are erased when the last Welcome has come.
pub(crate) struct KeyPackages {
    provider: Provider,
    identity: Identity,
    messages: Vec<Vec<u8>>,
}

/// A member's KeyPackage that verified. Whose it is remains to be asked.
pub(crate) struct MemberKeyPackage {
    pub(super) key_package: KeyPackage,
    pub(crate) suite: CipherSuite,
    pub(crate) leaf: Leaf,
}

impl KeyPackages {
    pub(crate) fn new(
        crypto: &CryptoProvider,
        suites: &[CipherSuite],
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let storage = Storage::new(Retention::Everything);
        let provider = Provider { crypto: crypto.for_group(), storage };
        let mut messages = Vec::with_capacity(suites.len());
        for &suite in suites {
            let bundle = KeyPackage::builder()
                .key_package_lifetime(lifetime(now))
                .mark_as_last_resort()
                .leaf_node_capabilities(send_capabilities(suite))
                .leaf_node_extensions(leaf_extensions()?)
                .build(
                    ciphersuite(suite),
                    &provider,
                    &signer(identity, &provider.crypto),
                    credential(identity),
                )
                .map_err(|_| INTERNAL)?;
            let message = MlsMessageOut::from(bundle.into_key_package());
            messages.push(message.to_bytes().map_err(|_| INTERNAL)?);
        }
        Ok(Self { provider, identity: identity.clone(), messages })
    }

    /// What a snapshot was cut from.
    pub(crate) fn restore(
        snapshot: &[u8],
        messages: Vec<Vec<u8>>,
        identity: &Identity,
        crypto: &CryptoProvider,
    ) -> Option<Self> {
        let storage = Storage::restore(snapshot).ok()?;
        let provider = Provider { crypto: crypto.for_group(), storage };
        Some(Self { provider, identity: identity.clone(), messages })
    }

    /// The private keys.
    pub(crate) fn snapshot(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        self.provider.storage.snapshot().map_err(|_| INTERNAL)
    }

    /// The MLSMessages.
    pub(crate) fn messages(&self) -> &[Vec<u8>] {
        &self.messages
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A storage that has the private keys, for one group.
    pub(super) fn provider(&self, retention: Retention) -> Provider {
        Provider {
            crypto: self.provider.crypto.for_group(),
            storage: self.provider.storage.copy(retention),
        }
    }
}

impl MemberKeyPackage {
    /// Parses and verifies an MLSMessage with a KeyPackage.
    pub(crate) fn parse(
        crypto: &CryptoProvider,
        allowed: &[CipherSuite],
        message: &[u8],
        now: SystemTime,
    ) -> Result<Self, Error> {
        let suite = suite_of(message)?;
        let suite = CipherSuite::from_id(suite)
            .filter(|known| allowed.contains(known))
            .ok_or(PeerIncompatible::CipherSuite(suite))?;
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("KeyPackage"))?;
        let MlsMessageBodyIn::KeyPackage(key_package) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("KeyPackage").into());
        };
        let key_package =
            key_package.validate(crypto, ProtocolVersion::Mls10).map_err(|error| match error {
                KeyPackageVerifyError::LifetimeError(_) => PeerMisbehaved::InvalidLifetime,
                _ => PeerMisbehaved::InvalidKeyPackage,
            })?;
        let lifetime = key_package.life_time();
        let span = lifetime.not_after().saturating_sub(lifetime.not_before());
        if lifetime.validate_with_time(now).is_err() || span > MAX_LIFETIME {
            return Err(PeerMisbehaved::InvalidLifetime.into());
        }
        let leaf = key_package.leaf_node();
        // A KeyPackage for something else, a channel of two for example, is not for this.
        if leaf.extensions().unknown(UNIVERSE_PARAMETERS).is_none_or(|marker| !marker.0.is_empty())
        {
            return Err(PeerMisbehaved::InvalidKeyPackage.into());
        }
        let capabilities = leaf.capabilities();
        if !capabilities.ciphersuites().contains(&ciphersuite(suite).into()) {
            return Err(PeerIncompatible::Capabilities("the offered cipher suite").into());
        }
        let claim = Claim::of_leaf(leaf, suite)?;
        check_credential_types(leaf, [claim.credential_type()])?;
        let leaf = Leaf::of(leaf, suite)?;
        if !leaf.can_be_encrypted_to(crypto, suite) {
            return Err(PeerMisbehaved::InvalidKeyPackage.into());
        }
        Ok(Self { key_package, suite, leaf })
    }

    /// Who the member says it is.
    pub(crate) fn claim(&self) -> &Claim {
        &self.leaf.claim
    }
}

/// MLSMessage: version (2 bytes), wire format (2), KeyPackage: version (2), cipher suite (2). A suite
/// that this build does not know would be reported as undecodable, though the message is fine.
fn suite_of(message: &[u8]) -> Result<u16, Error> {
    match message.get(..8) {
        Some(&[_, _, 0, 5, _, _, high, low]) => Ok(u16::from_be_bytes([high, low])),
        Some(_) => Err(InvalidMessage::UnexpectedWireFormat("KeyPackage").into()),
        None => Err(InvalidMessage::Malformed("KeyPackage").into()),
    }
}

pub(super) fn lifetime(now: SystemTime) -> Lifetime {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Lifetime::init(now.saturating_sub(SKEW.as_secs()), now.saturating_add(LIFETIME.as_secs()))
}
