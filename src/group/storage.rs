//! What OpenMLS stores of one group, in memory, with one snapshot of everything.
//!
//! OpenMLS writes a merge as a dozen separate values and knows no transactions. Here they go into a
//! map, and [`Storage::snapshot`] cuts one blob of it when an operation is complete. Values are
//! postcard: the JSON of OpenMLS's own memory storage is four to six times slower to write. Without a
//! session store nobody asks for a snapshot, and most values are not even encoded: see [`Retention`].

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

const V: u16 = CURRENT_VERSION;

/// Version of the layout of a snapshot.
const SNAPSHOT_VERSION: u16 = 1;

/// The values of one group. A value that is overwritten or removed is zeroized.
pub(super) struct Storage {
    retention: Retention,
    /// What is written now are ratchets that turn within an epoch.
    ratchets_pass: AtomicBool,
    values: Mutex<Values>,
}

/// What is kept of what OpenMLS writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Everything, so that a snapshot can be cut.
    Everything,
    /// Everything, but message secrets only as an epoch begins with them, or as a handshake message
    /// leaves them. They grow with the group, and OpenMLS writes all of them for each application
    /// message. Whoever loads such a snapshot may not send application messages in the epoch.
    Epochs,
    /// Only what OpenMLS reads back while the group is in memory, which are keys. Encoding the rest
    /// would cost as much as a signature in each rekey, and nobody would ever look at it.
    Keys,
}

type Values = BTreeMap<(Kind, Vec<u8>), Zeroizing<Vec<u8>>>;

/// What a value is. The numbers are part of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
enum Kind {
    JoinConfig,
    Tree,
    GroupContext,
    InterimTranscriptHash,
    ConfirmationTag,
    GroupState,
    MessageSecrets,
    ResumptionPsks,
    OwnLeafIndex,
    EpochSecrets,
    OwnLeafNodes,
    Proposals,
    SignatureKeyPair,
    EncryptionKeyPair,
    EpochKeyPairs,
    KeyPackage,
    Psk,
}

/// A value could not be encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored value could not be encoded or decoded")]
pub(crate) struct StorageError;

impl Kind {
    /// OpenMLS reads it only to load a group.
    fn is_for_loading(self) -> bool {
        match self {
            Self::JoinConfig
            | Self::Tree
            | Self::GroupContext
            | Self::InterimTranscriptHash
            | Self::ConfirmationTag
            | Self::GroupState
            | Self::MessageSecrets
            | Self::ResumptionPsks
            | Self::OwnLeafIndex
            | Self::EpochSecrets
            | Self::OwnLeafNodes
            | Self::Proposals => true,
            Self::SignatureKeyPair
            | Self::EncryptionKeyPair
            | Self::EpochKeyPairs
            | Self::KeyPackage
            | Self::Psk => false,
        }
    }
}

impl Storage {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, ratchets_pass: AtomicBool::new(false), values: Mutex::default() }
    }

    /// The same values, kept apart from now on.
    pub(super) fn copy(&self, retention: Retention) -> Self {
        let values = self.lock().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { values: Mutex::new(values), ..Self::new(retention) }
    }

    pub(super) fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// What is written until this is taken back is the turning of ratchets by application messages.
    pub(super) fn ratchets_are_passing(&self, passing: bool) {
        self.ratchets_pass.store(passing, Ordering::Relaxed);
    }

    /// Erases private keys that belong to no epoch: of KeyPackages and of proposals. The keys of the
    /// current epoch are kept elsewhere.
    pub(super) fn erase_encryption_keys(&self) {
        self.lock().retain(|(kind, _), _| *kind != Kind::EncryptionKeyPair);
    }

    /// How many of them there are.
    #[cfg(test)]
    pub(super) fn encryption_keys(&self) -> usize {
        self.lock().keys().filter(|(kind, _)| *kind == Kind::EncryptionKeyPair).count()
    }

    pub(super) fn erase_key_packages(&self) {
        self.lock().retain(|(kind, _), _| *kind != Kind::KeyPackage);
    }

    /// Everything, as one blob; an error if not everything is kept.
    pub(super) fn snapshot(&self) -> Result<Zeroizing<Vec<u8>>, StorageError> {
        match self.retention {
            Retention::Everything | Retention::Epochs => encode(&(SNAPSHOT_VERSION, &*self.lock())),
            Retention::Keys => Err(StorageError),
        }
    }

    fn keeps(&self, kind: Kind) -> bool {
        match self.retention {
            Retention::Everything => true,
            Retention::Epochs => {
                kind != Kind::MessageSecrets || !self.ratchets_pass.load(Ordering::Relaxed)
            }
            Retention::Keys => !kind.is_for_loading(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, kind: Kind, key: &impl Serialize, value: &impl Serialize) -> Outcome {
        if !self.keeps(kind) {
            return Ok(());
        }
        let value = encode(value)?;
        self.lock().insert((kind, plain(key)?), value);
        Ok(())
    }

    fn take<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &impl Serialize,
    ) -> Result<Option<T>, StorageError> {
        match self.lock().get(&(kind, plain(key)?)) {
            Some(value) => postcard::from_bytes(value).map(Some).map_err(|_| StorageError),
            None => Ok(None),
        }
    }

    fn erase(&self, kind: Kind, key: &impl Serialize) -> Outcome {
        if !self.keeps(kind) {
            return Ok(());
        }
        self.lock().remove(&(kind, plain(key)?));
        Ok(())
    }

    /// Appends to a list of encoded values.
    fn append(&self, kind: Kind, key: &impl Serialize, value: &impl Serialize) -> Outcome {
        if !self.keeps(kind) {
            return Ok(());
        }
        let mut list: Vec<Vec<u8>> = self.take(kind, key)?.unwrap_or_default();
        list.push(encode(value)?.to_vec());
        self.put(kind, key, &list)
    }

    fn list<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &impl Serialize,
    ) -> Result<Vec<T>, StorageError> {
        let list: Vec<Vec<u8>> = self.take(kind, key)?.unwrap_or_default();
        list.iter().map(|value| postcard::from_bytes(value).map_err(|_| StorageError)).collect()
    }
}

impl Storage {
    /// The storage that a snapshot was cut from.
    pub(super) fn restore(snapshot: &[u8]) -> Result<Self, StorageError> {
        match postcard::from_bytes::<(u16, BTreeMap<(Kind, Vec<u8>), Vec<u8>>)>(snapshot) {
            Ok((SNAPSHOT_VERSION, values)) => Ok(Self {
                retention: Retention::Everything,
                ratchets_pass: AtomicBool::new(false),
                values: Mutex::new(
                    values.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect(),
                ),
            }),
            _ => Err(StorageError),
        }
    }
}

type Outcome = Result<(), StorageError>;

/// Measured first: a buffer that grows leaves copies of secrets behind.
fn encode(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StorageError> {
    let size = postcard::experimental::serialized_size(value).map_err(|_| StorageError)?;
    postcard::to_extend(value, Vec::with_capacity(size))
        .map(Zeroizing::new)
        .map_err(|_| StorageError)
}

fn plain(key: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    postcard::to_allocvec(key).map_err(|_| StorageError)
}

/// A value of which a group has one: write, read, delete.
macro_rules! value {
    ($write:ident, $read:ident, $delete:ident, $group:ident, $value:ident, $kind:expr) => {
        fn $write<$group: traits::$group<V>, $value: traits::$value<V>>(
            &self,
            key: &$group,
            value: &$value,
        ) -> Outcome {
            self.put($kind, key, value)
        }

        fn $read<$group: traits::$group<V>, $value: traits::$value<V>>(
            &self,
            key: &$group,
        ) -> Result<Option<$value>, StorageError> {
            self.take($kind, key)
        }

        fn $delete<$group: traits::$group<V>>(&self, key: &$group) -> Outcome {
            self.erase($kind, key)
        }
    };
}

impl StorageProvider<CURRENT_VERSION> for Storage {
    type Error = StorageError;

    value!(write_tree, tree, delete_tree, GroupId, TreeSync, Kind::Tree);
    value!(
        write_interim_transcript_hash,
        interim_transcript_hash,
        delete_interim_transcript_hash,
        GroupId,
        InterimTranscriptHash,
        Kind::InterimTranscriptHash
    );
    value!(write_context, group_context, delete_context, GroupId, GroupContext, Kind::GroupContext);
    value!(
        write_confirmation_tag,
        confirmation_tag,
        delete_confirmation_tag,
        GroupId,
        ConfirmationTag,
        Kind::ConfirmationTag
    );
    value!(
        write_message_secrets,
        message_secrets,
        delete_message_secrets,
        GroupId,
        MessageSecrets,
        Kind::MessageSecrets
    );
    value!(
        write_resumption_psk_store,
        resumption_psk_store,
        delete_all_resumption_psk_secrets,
        GroupId,
        ResumptionPskStore,
        Kind::ResumptionPsks
    );
    value!(
        write_own_leaf_index,
        own_leaf_index,
        delete_own_leaf_index,
        GroupId,
        LeafNodeIndex,
        Kind::OwnLeafIndex
    );
    value!(
        write_group_epoch_secrets,
        group_epoch_secrets,
        delete_group_epoch_secrets,
        GroupId,
        GroupEpochSecrets,
        Kind::EpochSecrets
    );
    value!(
        write_signature_key_pair,
        signature_key_pair,
        delete_signature_key_pair,
        SignaturePublicKey,
        SignatureKeyPair,
        Kind::SignatureKeyPair
    );
    value!(
        write_key_package,
        key_package,
        delete_key_package,
        HashReference,
        KeyPackage,
        Kind::KeyPackage
    );

    // Read only through `deserialize_any`, which postcard does not have. Written once for a group.
    fn write_mls_join_config<G: traits::GroupId<V>, C: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
        config: &C,
    ) -> Outcome {
        if !self.keeps(Kind::JoinConfig) {
            return Ok(());
        }
        let json = serde_json::to_string(config).map_err(|_| StorageError)?;
        self.put(Kind::JoinConfig, group, &json)
    }

    fn mls_group_join_config<G: traits::GroupId<V>, C: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
    ) -> Result<Option<C>, StorageError> {
        let json: Option<String> = self.take(Kind::JoinConfig, group)?;
        json.map(|json| serde_json::from_str(&json).map_err(|_| StorageError)).transpose()
    }

    fn delete_group_config<G: traits::GroupId<V>>(&self, group: &G) -> Outcome {
        self.erase(Kind::JoinConfig, group)
    }

    // The trait names these generics in another order on reading.
    fn write_group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        state: &S,
    ) -> Outcome {
        self.put(Kind::GroupState, group, state)
    }

    fn group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<S>, StorageError> {
        self.take(Kind::GroupState, group)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Outcome {
        self.erase(Kind::GroupState, group)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<V>, P: traits::HpkeKeyPair<V>>(
        &self,
        public_key: &K,
        key_pair: &P,
    ) -> Outcome {
        self.put(Kind::EncryptionKeyPair, public_key, key_pair)
    }

    fn encryption_key_pair<P: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        public_key: &K,
    ) -> Result<Option<P>, StorageError> {
        self.take(Kind::EncryptionKeyPair, public_key)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<V>>(&self, public_key: &K) -> Outcome {
        self.erase(Kind::EncryptionKeyPair, public_key)
    }

    fn write_psk<I: traits::PskId<V>, P: traits::PskBundle<V>>(&self, id: &I, psk: &P) -> Outcome {
        self.put(Kind::Psk, id, psk)
    }

    fn psk<P: traits::PskBundle<V>, I: traits::PskId<V>>(
        &self,
        id: &I,
    ) -> Result<Option<P>, StorageError> {
        self.take(Kind::Psk, id)
    }

    fn delete_psk<I: traits::PskId<V>>(&self, id: &I) -> Outcome {
        self.erase(Kind::Psk, id)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        P: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[P],
    ) -> Outcome {
        self.put(Kind::EpochKeyPairs, &(group, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        P: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<Vec<P>, StorageError> {
        Ok(self.take(Kind::EpochKeyPairs, &(group, epoch, leaf_index))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Outcome {
        self.erase(Kind::EpochKeyPairs, &(group, epoch, leaf_index))
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf_node: &L,
    ) -> Outcome {
        self.append(Kind::OwnLeafNodes, group, leaf_node)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<L>, StorageError> {
        self.list(Kind::OwnLeafNodes, group)
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Outcome {
        self.erase(Kind::OwnLeafNodes, group)
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        P: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
        reference: &R,
        proposal: &P,
    ) -> Outcome {
        self.append(Kind::Proposals, group, &(reference, proposal))
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<R>, StorageError> {
        let list: Vec<Vec<u8>> = self.take(Kind::Proposals, group)?.unwrap_or_default();
        list.iter()
            .map(|pair| {
                postcard::take_from_bytes(pair)
                    .map(|(reference, _)| reference)
                    .map_err(|_| StorageError)
            })
            .collect()
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        P: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
    ) -> Result<Vec<(R, P)>, StorageError> {
        self.list(Kind::Proposals, group)
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Outcome {
        let reference = plain(reference)?;
        let mut list: Vec<Vec<u8>> = self.take(Kind::Proposals, group)?.unwrap_or_default();
        list.retain(|pair| !pair.starts_with(&reference));
        self.put(Kind::Proposals, group, &list)
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Outcome {
        self.erase(Kind::Proposals, group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // TL-04: a buffer that had to grow would have left its first, shorter one behind, with secrets in it.
    #[test]
    fn a_value_is_encoded_into_a_buffer_of_its_size() {
        for length in [0, 100, 511, 512, 513, 2049, 70_000] {
            let encoded = encode(&vec![7_u8; length]).unwrap();
            assert_eq!(encoded.capacity(), encoded.len());
        }
    }
}
