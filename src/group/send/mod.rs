//! Send Groups: MLS groups in which one member, the owner at leaf 0, sends and commits (DM-01).
//!
//! ```text
//!   KeyPackages of the members ──► SendGroup::create     the owner's
//!   Welcome ──► KeyPackages::open_welcome ──► join       everyone else's
//!
//!   owner     commit (PSKs, leaves, removals, own path), seal
//!   others    stage, apply, open; propose_leaf when they have a new leaf of their own
//! ```
//!
//! A member that updates in its own Send Group gets the same leaf in the others: it signs an Update
//! proposal for each of them, with the encryption key that its own commit made. OpenMLS takes the
//! material of that key from `OpenMlsRand::random_vec`, so a source that remembers and repeats one
//! call gives the same key again ([`random`]).

mod commit;
mod header;
mod join;
mod key_packages;
mod random;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use openmls::prelude::{
    Extensions, GroupId, LeafNode, LeafNodeIndex, MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessMessageError, ProcessedMessage,
    ProcessedMessageContent, ProtocolMessage, Sender, SenderRatchetConfiguration,
    tls_codec::{DeserializeBytes as _, Serialize as _, VLBytes},
};
use openmls_traits::crypto::OpenMlsCrypto as _;
use zeroize::Zeroizing;

pub(crate) use self::{
    commit::{CommitPlan, LeafProposal, Psk, StagedSendCommit},
    header::{ContentType, MessageHeader},
    join::JoinedSendGroup,
    key_packages::{KeyPackages, MemberKeyPackage},
    random::LeafSeed,
};
use super::{
    CREDENTIAL_TYPES, Capabilities, Claim, Extension, ExtensionType, Provider, UnknownExtension,
    WIRE_FORMAT, check_credential_types, ciphersuite, credential, credential_type, signer,
    storage::{Retention, Storage, StorageError},
};
use crate::{
    crypto::{CipherSuite, CryptoProvider},
    error::{CryptoError, Error, InvalidMessage, PeerMisbehaved},
    identity::Identity,
    wire::UNIVERSE_PARAMETERS,
};

/// The owner's leaf.
pub(crate) const OWNER_LEAF: u32 = 0;

/// How far a sender's ratchet may be turned on for one message. The owner's messages come in order,
/// and others send it a few proposals of which it passes on the last. A member that was restored has
/// the ratchet of the epoch's beginning.
///
/// The owner accepts fewer steps than the others: a member that skips generations is refused by the
/// owner before what the owner passes on is too far ahead for anyone else.
const FORWARD_OF_OWNER: u32 = 16;
const FORWARD_OF_MEMBER: u32 = 1 << 16;

/// Proposals of one member that an owner looks at in one epoch; the sum of their steps stays below
/// what the others accept.
const MAX_PROPOSALS_OF_EPOCH: u32 = 32;

/// Every so many messages the ratchets of an epoch are stored, so that a member that was restored need
/// not turn them further than it may.
const STORED_RATCHETS: u32 = 1024;

const _: () = assert!((FORWARD_OF_OWNER + 1) * MAX_PROPOSALS_OF_EPOCH < FORWARD_OF_MEMBER);

const INTERNAL: Error = Error::Crypto(CryptoError::Internal("a Send Group"));

/// One Send Group, as its owner or as one of the others.
pub(crate) struct SendGroup {
    mls: MlsGroup,
    provider: Provider,
    suite: CipherSuite,
    identity: Identity,
    /// How many proposals of each leaf the owner has looked at in this epoch.
    proposals: BTreeMap<u32, u32>,
    /// Messages that were opened since the ratchets were written down.
    opened: u32,
}

/// A Send Group that is to be made.
pub(crate) struct NewSendGroup<'a> {
    pub(crate) id: &'a [u8],
    /// The content of the extension that says which universe the group belongs to.
    pub(crate) parameters: &'a [u8],
    pub(crate) members: Vec<MemberKeyPackage>,
}

/// What has to be the same in all Send Groups of one member (DM-06).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) encryption_key: Vec<u8>,
    /// Many leaves of one member are remembered, and certificates are long.
    pub(crate) claim: Arc<Claim>,
}

/// A message of the owner, opened.
pub(crate) struct Opened {
    pub(crate) authenticated_data: Vec<u8>,
    pub(crate) data: Zeroizing<Vec<u8>>,
}

impl SendGroup {
    /// Creates a group, adds the members at the leaves 1, 2, ... and gives the MLSMessage with the
    /// Welcome for all of them.
    pub(crate) fn create(
        crypto: &CryptoProvider,
        suite: CipherSuite,
        identity: &Identity,
        plan: NewSendGroup<'_>,
        retention: Retention,
        now: SystemTime,
    ) -> Result<(Self, Vec<u8>), Error> {
        let provider = Provider { crypto: crypto.for_group(), storage: Storage::new(retention) };
        let signer = signer(identity, crypto);
        let types = plan.members.iter().map(|member| member.claim().credential_type());
        let types: Vec<_> = types.chain([credential_type(identity)]).collect();
        for member in &plan.members {
            check_credential_types(member.key_package.leaf_node(), types.iter().copied())?;
        }
        let mut mls = MlsGroup::builder()
            .with_group_id(GroupId::from_slice(plan.id))
            .ciphersuite(ciphersuite(suite))
            // Nobody receives the Add commit: it need not be encrypted.
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .with_capabilities(send_capabilities(suite))
            .with_leaf_node_extensions(leaf_extensions()?)
            .map_err(|_| INTERNAL)?
            .lifetime(key_packages::lifetime(now))
            .max_past_epochs(0)
            .number_of_resumption_psks(0)
            .with_group_context_extensions(
                Extensions::single(parameters_extension(plan.parameters)).map_err(|_| INTERNAL)?,
            )
            .build(&provider, &signer, credential(identity))
            .map_err(|_| INTERNAL)?;
        let welcome = mls
            .commit_builder()
            .propose_adds(plan.members.into_iter().map(|member| member.key_package))
            .load_psks(&provider.storage)
            .map_err(|_| INTERNAL)?
            .use_ratchet_tree_extension(true)
            .create_group_info(false)
            .build(crypto, crypto, &signer, |_| true)
            // The group is as it must be, so what does not fit it are the KeyPackages.
            .map_err(|_| PeerMisbehaved::InvalidKeyPackage)?
            .stage_commit(&provider)
            .map_err(|_| INTERNAL)?
            .to_welcome_msg()
            .ok_or(INTERNAL)?
            .to_bytes()
            .map_err(|_| INTERNAL)?;
        mls.merge_pending_commit(&provider).map_err(|_| INTERNAL)?;
        mls.set_configuration(&provider.storage, &join_config(FORWARD_OF_OWNER))
            .map_err(|_| INTERNAL)?;
        Ok((Self::new(mls, provider, suite, identity), welcome))
    }

    fn new(mls: MlsGroup, provider: Provider, suite: CipherSuite, identity: &Identity) -> Self {
        Self {
            mls,
            provider,
            suite,
            identity: identity.clone(),
            proposals: BTreeMap::new(),
            opened: 0,
        }
    }

    /// The group that a snapshot was cut from. `None`: it is no such snapshot, or another party's.
    pub(crate) fn restore(
        snapshot: &[u8],
        id: &[u8],
        suite: CipherSuite,
        identity: &Identity,
        crypto: &CryptoProvider,
    ) -> Option<Self> {
        let mut storage = Storage::restore(snapshot).ok()?;
        storage.set_retention(Retention::Epochs);
        let mls = MlsGroup::load(&storage, &GroupId::from_slice(id)).ok()??;
        let own = mls.own_leaf_node()?;
        let fits = own.signature_key().as_slice() == identity.public_key().as_bytes()
            && mls.ciphersuite() == ciphersuite(suite);
        let provider = Provider { crypto: crypto.for_group(), storage };
        fits.then(|| Self::new(mls, provider, suite, identity))
    }

    /// Seals an application message (DM-09). Only the owner does.
    pub(crate) fn seal(
        &mut self,
        authenticated_data: Vec<u8>,
        data: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let Self { mls, provider, identity, .. } = self;
        mls.set_aad(authenticated_data);
        // A restored owner commits before it sends, so where the ratchet stands need not be stored.
        provider.storage.ratchets_are_passing(true);
        let sealed = mls.create_message(provider, &signer(identity, &provider.crypto), data);
        provider.storage.ratchets_are_passing(false);
        sealed.map_err(|_| INTERNAL)?.to_bytes().map_err(|_| INTERNAL)
    }

    /// Opens an application message of the owner (DM-10).
    pub(crate) fn open(&mut self, message: &[u8]) -> Result<Opened, Error> {
        // Repeated messages are found out by their sequence numbers.
        let is_passing = self.opened % STORED_RATCHETS != STORED_RATCHETS - 1;
        self.provider.storage.ratchets_are_passing(is_passing);
        let processed = self.process(message);
        self.provider.storage.ratchets_are_passing(false);
        let processed = processed?;
        if *processed.sender() != Sender::Member(LeafNodeIndex::new(OWNER_LEAF)) {
            return Err(PeerMisbehaved::NotTheOwner.into());
        }
        let authenticated_data = processed.aad().to_vec();
        let ProcessedMessageContent::ApplicationMessage(data) = processed.into_content() else {
            return Err(InvalidMessage::UnexpectedWireFormat("application message").into());
        };
        self.opened = self.opened.wrapping_add(1);
        Ok(Opened { authenticated_data, data: Zeroizing::new(data.into_bytes()) })
    }

    /// Decrypts and verifies a PrivateMessage of the current epoch.
    fn process(&mut self, message: &[u8]) -> Result<ProcessedMessage, Error> {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("MLSMessage"))?;
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("PrivateMessage").into());
        };
        let message = ProtocolMessage::from(message);
        if message.group_id() != self.mls.group_id() {
            return Err(PeerMisbehaved::UnknownSendGroup.into());
        }
        if message.epoch() != self.mls.epoch() {
            return Err(PeerMisbehaved::CommitForWrongEpoch.into());
        }
        self.mls.process_message(&self.provider, message).map_err(refused)
    }

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

    /// This party's leaf.
    pub(crate) fn own_leaf_index(&self) -> u32 {
        self.mls.own_leaf_index().u32()
    }

    /// What the leaf at `index` holds, if there is one.
    pub(crate) fn leaf(&self, index: u32) -> Result<Option<Leaf>, Error> {
        self.mls
            .public_group()
            .leaf(LeafNodeIndex::new(index))
            .map(|leaf| Leaf::of(leaf, self.suite))
            .transpose()
    }

    /// The encryption keys of all leaves, by leaf.
    pub(crate) fn encryption_keys(&self) -> impl Iterator<Item = (u32, Vec<u8>)> {
        self.mls.members().map(|member| (member.index.u32(), member.encryption_key))
    }

    /// The confirmed transcript hash: two members that are in one epoch by different commits have
    /// different ones.
    pub(crate) fn transcript(&self) -> &[u8] {
        self.mls.public_group().group_context().confirmed_transcript_hash()
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
            .map_err(|_| INTERNAL)
    }

    /// Everything that has to be stored of the group, as one blob.
    pub(crate) fn snapshot(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.provider.storage.snapshot().map_err(|_| INTERNAL)
    }

    /// The same group once more, as an owner who shows two members different commits has it.
    #[cfg(test)]
    pub(crate) fn steal(&self) -> Self {
        let storage = self.provider.storage.copy(Retention::Epochs);
        let mls = MlsGroup::load(&storage, self.mls.group_id()).unwrap().unwrap();
        let provider = Provider { crypto: self.provider.crypto.for_group(), storage };
        Self::new(mls, provider, self.suite, &self.identity)
    }

    /// Forgets private keys of proposals that no commit can take up any more.
    fn erase_proposed_keys(&self) {
        self.provider.storage.erase_encryption_keys();
        self.provider.crypto.forget();
    }
}

impl Leaf {
    fn of(leaf: &LeafNode, suite: CipherSuite) -> Result<Self, Error> {
        let encryption_key =
            leaf.encryption_key().tls_serialize_detached().map_err(|_| INTERNAL)?;
        Ok(Self { encryption_key, claim: Arc::new(Claim::of_leaf(leaf, suite)?) })
    }

    /// The encryption key as the KEM has it.
    pub(crate) fn hpke_key(&self) -> Result<Vec<u8>, Error> {
        let key = VLBytes::tls_deserialize_exact_bytes(&self.encryption_key);
        key.map(Into::into).map_err(|_| INTERNAL)
    }

    /// Whether something can be encrypted to it: not to a point of small order, for example. An owner
    /// that took such a leaf could never commit again.
    fn can_be_encrypted_to(&self, crypto: &CryptoProvider, suite: CipherSuite) -> bool {
        let config = ciphersuite(suite).hpke_config();
        self.hpke_key().is_ok_and(|key| crypto.hpke_seal(config, &key, &[], &[], &[]).is_ok())
    }
}

/// What every leaf of a Send Group can do.
fn send_capabilities(suite: CipherSuite) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![ciphersuite(suite)])
        .extensions(vec![ExtensionType::LastResort, ExtensionType::Unknown(UNIVERSE_PARAMETERS)])
        .credentials(CREDENTIAL_TYPES.to_vec())
        .build()
}

/// Marks a leaf as made for this protocol.
fn leaf_extensions() -> Result<Extensions<LeafNode>, Error> {
    Extensions::single(parameters_extension(&[])).map_err(|_| INTERNAL)
}

fn parameters_extension(content: &[u8]) -> Extension {
    Extension::Unknown(UNIVERSE_PARAMETERS, UnknownExtension(content.to_vec()))
}

fn join_config(forward: u32) -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(WIRE_FORMAT)
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .sender_ratchet_configuration(SenderRatchetConfiguration::new(0, forward))
        .build()
}

fn refused(error: ProcessMessageError<StorageError>) -> Error {
    match error {
        ProcessMessageError::LibraryError(_) | ProcessMessageError::StorageError(_) => INTERNAL,
        _ => PeerMisbehaved::InvalidCommit.into(),
    }
}
