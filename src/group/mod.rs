//! The two-member MLS group of a channel. The only module that names OpenMLS.
//!
//! [`Offer`] is the initiator before the Welcome, [`Hello`] the responder before its answer; both
//! become a [`Group`]. Nothing a peer claims about itself is applied without an
//! [`Authenticated`](crate::auth::Authenticated), which only the authentication service can
//! produce: the steps that need one take it as an argument.

mod hello;
mod resume;
pub(crate) mod send;
mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod welcome;

pub(crate) use hello::{Hello, Offer};
pub(crate) use resume::CommitHeader;
pub(crate) use update::StagedUpdate;

use openmls::prelude::{
    Capabilities, Ciphersuite, Credential, CredentialType, CredentialWithKey, Extension,
    ExtensionType, LeafNode, LeafNodeIndex, MlsGroup, MlsGroupJoinConfig, OpenMlsProvider,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, UnknownExtension, WireFormatPolicy,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use self::storage::Retention;
use self::storage::Storage;
use crate::{
    auth::{AuthenticationError, PresentedIdentity, Role},
    crypto::{CipherSuite, CryptoProvider, MlsSigner, SignatureScheme},
    error::{CryptoError, Error, PeerIncompatible, PeerMisbehaved},
    identity::Identity,
    record::TrafficSecret,
    wire::{GroupParameters, InvalidCertificates, TRANSPORT_PARAMETERS, decode_certificates},
};

/// Handshake messages of the group are always encrypted: a commit sent inside the channel may have
/// to be repeated in the clear when a session is resumed.
const WIRE_FORMAT: WireFormatPolicy = PURE_CIPHERTEXT_WIRE_FORMAT_POLICY;

/// The creator of a group is the responder, at leaf 0.
const RESPONDER_LEAF: u32 = 0;
const INITIATOR_LEAF: u32 = 1;

/// What every party can read, whether its authentication service believes it or not.
const CREDENTIAL_TYPES: [CredentialType; 2] = [CredentialType::Basic, CredentialType::X509];

/// A group of two with this party in it.
pub(crate) struct Group {
    mls: MlsGroup,
    provider: Provider,
    suite: CipherSuite,
    identity: Identity,
    /// Who this party is once the pending update is applied, if that changes.
    next_identity: Option<Identity>,
    role: Role,
}

/// The traffic secrets of one epoch (TL-01).
pub(crate) struct EpochSecrets {
    pub(crate) epoch: u64,
    pub(crate) client: TrafficSecret,
    pub(crate) server: TrafficSecret,
}

/// A claimed identity, copied out of a leaf.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    credential: ClaimedCredential,
    signature_key: Vec<u8>,
    scheme: SignatureScheme,
}

/// The credential of a claim.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClaimedCredential {
    Basic(Vec<u8>),
    X509(Vec<Vec<u8>>),
}

/// What OpenMLS needs to work on one group.
struct Provider {
    crypto: CryptoProvider,
    storage: Storage,
}

impl Group {
    /// The group ID.
    pub(crate) fn id(&self) -> &[u8] {
        self.mls.group_id().as_slice()
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.mls.epoch().as_u64()
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    pub(crate) fn crypto(&self) -> &CryptoProvider {
        &self.provider.crypto
    }

    /// Exports from the current epoch (RFC 9420, section 8.5).
    pub(crate) fn export(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.mls
            .export_secret(&self.provider.crypto, label, context, length)
            .map(Zeroizing::new)
            .map_err(|_| CryptoError::Internal("the exporter").into())
    }

    /// The traffic secrets of the current epoch.
    pub(crate) fn traffic_secrets(&self) -> Result<EpochSecrets, Error> {
        EpochSecrets::export(self.epoch(), |label| self.export(label, &[], self.suite.hash_len()))
    }

    /// The hash of the ClientHello with which the group began.
    pub(crate) fn client_hello_hash(&self) -> Result<Vec<u8>, Error> {
        let parameters = self.mls.extensions().unknown(TRANSPORT_PARAMETERS);
        let parameters = parameters.ok_or(CryptoError::Internal("the group context"))?;
        Ok(GroupParameters::decode(&parameters.0)?.client_hello_hash)
    }

    /// Who this party is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The claim in the peer's leaf.
    pub(crate) fn peer_claim(&self) -> Result<Claim, Error> {
        Claim::of_leaf(self.peer_leaf()?, self.suite)
    }

    fn peer_leaf(&self) -> Result<&LeafNode, Error> {
        let index = match self.role {
            Role::Initiator => RESPONDER_LEAF,
            Role::Responder => INITIATOR_LEAF,
        };
        self.mls
            .public_group()
            .leaf(LeafNodeIndex::new(index))
            .ok_or_else(|| CryptoError::Internal("the ratchet tree").into())
    }

    /// What a thief of [`Group::snapshot`] and of the signature key can make of it.
    #[cfg(test)]
    pub(crate) fn steal(&self) -> Self {
        let storage = Storage::restore(&self.snapshot().unwrap()).unwrap();
        let mls = MlsGroup::load(&storage, self.mls.group_id()).unwrap().unwrap();
        Self {
            mls,
            provider: Provider { crypto: self.provider.crypto.clone(), storage },
            suite: self.suite,
            identity: self.identity.clone(),
            next_identity: self.next_identity.clone(),
            role: self.role,
        }
    }
}

impl EpochSecrets {
    fn export(
        epoch: u64,
        secret: impl Fn(&str) -> Result<Zeroizing<Vec<u8>>, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            epoch,
            client: TrafficSecret::new(secret("MLS-TLS c ap traffic")?),
            server: TrafficSecret::new(secret("MLS-TLS s ap traffic")?),
        })
    }
}

impl Claim {
    fn of_leaf(leaf: &LeafNode, suite: CipherSuite) -> Result<Self, Error> {
        Self::new(leaf.credential(), leaf.signature_key().as_slice(), suite)
    }

    /// What a leaf of a group with this suite says.
    fn new(
        credential: &Credential,
        signature_key: &[u8],
        suite: CipherSuite,
    ) -> Result<Self, Error> {
        let content = credential.serialized_content();
        let credential = match credential.credential_type() {
            CredentialType::Basic => ClaimedCredential::Basic(content.to_vec()),
            CredentialType::X509 => ClaimedCredential::X509(decode_certificates(content).map_err(
                |error| match error {
                    InvalidCertificates::Malformed => AuthenticationError::MalformedCredential,
                    InvalidCertificates::TooLong => AuthenticationError::ChainTooLong,
                },
            )?),
            _ => return Err(AuthenticationError::UnsupportedCredential("unknown").into()),
        };
        Ok(Self::restore(credential, signature_key.to_vec(), suite.signature_scheme()))
    }

    /// A claim that was checked before it was stored.
    pub(crate) fn restore(
        credential: ClaimedCredential,
        signature_key: Vec<u8>,
        scheme: SignatureScheme,
    ) -> Self {
        Self { credential, signature_key, scheme }
    }

    pub(crate) fn credential(&self) -> &ClaimedCredential {
        &self.credential
    }

    pub(crate) fn presented(&self) -> PresentedIdentity<'_> {
        let presented = match &self.credential {
            ClaimedCredential::Basic(name) => PresentedIdentity::new(name, &self.signature_key),
            ClaimedCredential::X509(certificates) => {
                PresentedIdentity::x509(certificates, &self.signature_key)
            }
        };
        presented.with_signature_scheme(self.scheme)
    }

    fn credential_type(&self) -> CredentialType {
        match self.credential {
            ClaimedCredential::Basic(_) => CredentialType::Basic,
            ClaimedCredential::X509(_) => CredentialType::X509,
        }
    }

    /// The same identity at both ends means a reflected message or a misconfiguration; MLS forbids
    /// one signature key at two leaves.
    fn differs_from(&self, identity: &Identity) -> Result<(), Error> {
        if self.signature_key == identity.public_key().as_bytes() {
            return Err(PeerMisbehaved::OwnKey.into());
        }
        Ok(())
    }
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = CryptoProvider;
    type RandProvider = CryptoProvider;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &CryptoProvider {
        &self.crypto
    }

    fn rand(&self) -> &CryptoProvider {
        &self.crypto
    }
}

fn ciphersuite(suite: CipherSuite) -> Ciphersuite {
    suite.mls()
}

/// How every group of this protocol goes on: handshake messages encrypted, nothing kept of the past.
fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(WIRE_FORMAT)
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .build()
}

fn credential_type(identity: &Identity) -> CredentialType {
    match identity.certificates() {
        None => CredentialType::Basic,
        Some(_) => CredentialType::X509,
    }
}

fn credential(identity: &Identity) -> CredentialWithKey {
    let content = match identity.certificates() {
        None => identity.name().as_bytes().to_vec(),
        Some(encoded) => encoded.to_vec(),
    };
    CredentialWithKey {
        credential: Credential::new(credential_type(identity), content),
        signature_key: identity.public_key().as_bytes().to_vec().into(),
    }
}

fn signer<'a>(identity: &'a Identity, crypto: &'a CryptoProvider) -> MlsSigner<'a> {
    MlsSigner { key: identity.key(), provider: crypto }
}

/// The credentials of all members have to be among those that a leaf lists (RFC 9420, section 7.3).
fn check_credential_types(
    leaf: &LeafNode,
    in_use: impl IntoIterator<Item = CredentialType>,
) -> Result<(), PeerIncompatible> {
    let listed = leaf.capabilities().credentials();
    match in_use.into_iter().find(|used| !listed.contains(used)) {
        None => Ok(()),
        Some(CredentialType::Basic) => Err(PeerIncompatible::Capabilities("basic credentials")),
        Some(_) => Err(PeerIncompatible::Capabilities("X.509 credentials")),
    }
}

/// What every leaf of this protocol can do.
fn capabilities(suite: CipherSuite) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![ciphersuite(suite)])
        .extensions(vec![ExtensionType::Unknown(TRANSPORT_PARAMETERS)])
        .credentials(CREDENTIAL_TYPES.to_vec())
        .build()
}

fn parameters_extension(encoded: Vec<u8>) -> Extension {
    Extension::Unknown(TRANSPORT_PARAMETERS, UnknownExtension(encoded))
}
