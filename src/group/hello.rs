//! The KeyPackage: the initiator's offer, and what the responder makes of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openmls::prelude::{
    Extensions, GroupId, KeyPackage, KeyPackageVerifyError, Lifetime, MlsGroup, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProtocolVersion,
    tls_codec::DeserializeBytes as _,
};

use openmls_traits::random::OpenMlsRand as _;

use super::{
    Claim, Group, Provider, capabilities, check_credential_types, ciphersuite, credential,
    credential_type, join_config, parameters_extension, signer,
    storage::{Retention, Storage},
};
use crate::{
    auth::{Authenticated, Role},
    crypto::{CipherSuite, CryptoProvider},
    error::{CryptoError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    identity::Identity,
    wire::{GroupParameters, InitiatorParameters, TRANSPORT_PARAMETERS},
};

/// How long a KeyPackage may be answered. It is made for one connection, so this only has to cover
/// the difference between two clocks.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Length of a group ID in bytes.
const GROUP_ID_LEN: usize = 16;

/// Longest lifetime that a responder accepts in a KeyPackage.
const MAX_LIFETIME: u64 = 24 * 3600;

/// The initiator's KeyPackage with its private keys, until the Welcome comes.
pub(crate) struct Offer {
    pub(super) provider: Provider,
    pub(super) suite: CipherSuite,
    pub(super) identity: Identity,
    pub(super) parameters: InitiatorParameters,
    message: Vec<u8>,
}

/// A KeyPackage that verified. Whose it is remains to be asked.
pub(crate) struct Hello {
    key_package: KeyPackage,
    suite: CipherSuite,
    parameters: InitiatorParameters,
    claim: Claim,
}

impl Offer {
    pub(crate) fn new(
        crypto: &CryptoProvider,
        suite: CipherSuite,
        identity: &Identity,
        parameters: InitiatorParameters,
        retention: Retention,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let provider = Provider { crypto: crypto.for_group(), storage: Storage::new(retention) };
        let crypto = &provider.crypto;
        let extension = parameters_extension(parameters.encode().map_err(|_| INTERNAL)?);
        let bundle = KeyPackage::builder()
            .key_package_lifetime(lifetime(now))
            .leaf_node_capabilities(capabilities(suite))
            .leaf_node_extensions(Extensions::single(extension).map_err(|_| INTERNAL)?)
            .build(ciphersuite(suite), &provider, &signer(identity, crypto), credential(identity))
            .map_err(|_| INTERNAL)?;
        let message =
            MlsMessageOut::from(bundle.into_key_package()).to_bytes().map_err(|_| INTERNAL)?;
        Ok(Self { provider, suite, identity: identity.clone(), parameters, message })
    }

    /// The MLSMessage for the ClientHello (2P-01).
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }
}

impl Hello {
    /// Parses and verifies the MLSMessage of a ClientHello (2P-02).
    pub(crate) fn parse(
        crypto: &CryptoProvider,
        allowed: &[CipherSuite],
        message: &[u8],
        now: SystemTime,
    ) -> Result<Self, Error> {
        // A suite that this build does not know would be reported as undecodable, though the
        // message is fine: the suite stands at a fixed place, so look first.
        let suite = allowed_suite(allowed, message)?;
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("KeyPackage"))?;
        let MlsMessageBodyIn::KeyPackage(key_package) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("KeyPackage").into());
        };
        let crypto = crypto.watched();
        let key_package =
            key_package.validate(&crypto, ProtocolVersion::Mls10).map_err(|error| match error {
                KeyPackageVerifyError::LifetimeError(_) => PeerMisbehaved::InvalidLifetime.into(),
                _ => crypto.blame(PeerMisbehaved::InvalidKeyPackage),
            })?;
        check_lifetime(key_package.life_time(), now)?;
        let leaf = key_package.leaf_node();
        let parameters = leaf
            .extensions()
            .unknown(TRANSPORT_PARAMETERS)
            .ok_or(PeerMisbehaved::MissingTransportParameters("leaf node"))?;
        let parameters = InitiatorParameters::decode(&parameters.0)?;
        let capabilities = leaf.capabilities();
        if !capabilities.ciphersuites().contains(&ciphersuite(suite).into()) {
            return Err(PeerIncompatible::Capabilities("the offered cipher suite").into());
        }
        check_preference(allowed, suite, &parameters)?;
        let claim = Claim::of_leaf(leaf, suite)?;
        check_credential_types(leaf, [claim.credential_type()])?;
        Ok(Self { key_package, suite, parameters, claim })
    }

    /// Creates the group, adds the initiator, and gives the MLSMessage for the ServerHello (2P-04).
    ///
    /// The initiator must have been authenticated (2P-03).
    pub(crate) fn answer(
        self,
        _initiator: &Authenticated,
        crypto: &CryptoProvider,
        identity: &Identity,
        parameters: &GroupParameters,
        retention: Retention,
        now: SystemTime,
    ) -> Result<(Group, Vec<u8>), Error> {
        self.claim.differs_from(identity)?;
        check_credential_types(self.key_package.leaf_node(), [credential_type(identity)])?;
        let crypto = &crypto.watched();
        let provider = Provider { crypto: crypto.for_group(), storage: Storage::new(retention) };
        let signer = signer(identity, crypto);
        // OpenMLS would choose one like this, and panic if there is no randomness.
        let group_id = crypto.random_array::<GROUP_ID_LEN>()?;
        let extension = parameters_extension(parameters.encode().map_err(|_| INTERNAL)?);
        let mut mls = MlsGroup::builder()
            .ciphersuite(ciphersuite(self.suite))
            .with_group_id(GroupId::from_slice(&group_id))
            // Nobody receives the Add commit: it need not be encrypted.
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .with_capabilities(capabilities(self.suite))
            .lifetime(lifetime(now))
            .max_past_epochs(0)
            .number_of_resumption_psks(0)
            .with_group_context_extensions(Extensions::single(extension).map_err(|_| INTERNAL)?)
            .build(&provider, &signer, credential(identity))
            .map_err(|_| INTERNAL)?;
        let welcome = mls
            .commit_builder()
            .propose_adds([self.key_package])
            .load_psks(&provider.storage)
            .map_err(|_| INTERNAL)?
            .use_ratchet_tree_extension(true)
            .create_group_info(false)
            .build(crypto, crypto, &signer, |_| true)
            // The group is as it must be, so what does not fit it is the KeyPackage.
            .map_err(|_| crypto.blame(PeerIncompatible::Capabilities("what the group requires")))?
            .stage_commit(&provider)
            .map_err(|_| INTERNAL)?
            .to_welcome_msg()
            .ok_or(INTERNAL)?
            .to_bytes()
            .map_err(|_| INTERNAL)?;
        mls.merge_pending_commit(&provider).map_err(|_| INTERNAL)?;
        mls.set_configuration(&provider.storage, &join_config()).map_err(|_| INTERNAL)?;
        let group = Group {
            mls,
            provider,
            suite: self.suite,
            identity: identity.clone(),
            next_identity: None,
            role: Role::Responder,
        };
        Ok((group, welcome))
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    pub(crate) fn parameters(&self) -> &InitiatorParameters {
        &self.parameters
    }

    /// Who the initiator says it is.
    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }
}

const INTERNAL: Error = Error::Crypto(CryptoError::Internal("creating the group"));

fn lifetime(now: SystemTime) -> Lifetime {
    let now = seconds(now);
    let span = LIFETIME.as_secs();
    Lifetime::init(now.saturating_sub(span), now.saturating_add(span))
}

fn check_lifetime(lifetime: &Lifetime, now: SystemTime) -> Result<(), Error> {
    let span = lifetime.not_after().saturating_sub(lifetime.not_before());
    if lifetime.validate_with_time(now).is_err() || span > MAX_LIFETIME {
        return Err(PeerMisbehaved::InvalidLifetime.into());
    }
    Ok(())
}

/// The suite of a KeyPackage, if it is allowed here.
///
/// MLSMessage: version (2 bytes), wire format (2), KeyPackage: version (2), cipher suite (2).
fn allowed_suite(allowed: &[CipherSuite], message: &[u8]) -> Result<CipherSuite, Error> {
    let Some(&[_, _, 0, 5, _, _, high, low]) = message.get(..8) else {
        return match message.get(2..4) {
            Some([0, 5]) | None => Err(InvalidMessage::Malformed("KeyPackage").into()),
            Some(_) => Err(InvalidMessage::UnexpectedWireFormat("KeyPackage").into()),
        };
    };
    let id = u16::from_be_bytes([high, low]);
    CipherSuite::from_id(id)
        .filter(|suite| allowed.contains(suite))
        .ok_or_else(|| PeerIncompatible::CipherSuite(id).into())
}

/// Refuses a suite when the initiator would rather have had another one that is allowed here: then
/// somebody between the two made it try the lesser one.
fn check_preference(
    allowed: &[CipherSuite],
    suite: CipherSuite,
    parameters: &InitiatorParameters,
) -> Result<(), Error> {
    for &id in &parameters.cipher_suites {
        if id == suite.id() {
            return Ok(());
        }
        if CipherSuite::from_id(id).is_some_and(|better| allowed.contains(&better)) {
            return Err(PeerMisbehaved::Downgrade.into());
        }
    }
    Err(InvalidMessage::Malformed("transport parameters: the offered suite is not listed").into())
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
