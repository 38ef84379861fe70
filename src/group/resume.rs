//! What resumption needs of a group: to be stored and restored, to export from an epoch that is only
//! pending, and to tell what a commit is before it is processed.

use openmls::prelude::{
    ContentType, CredentialWithKey, GroupId, MlsGroup, MlsMessageBodyIn, MlsMessageIn,
    ProtocolMessage, tls_codec::DeserializeBytes as _,
};
use zeroize::Zeroizing;

use super::{EpochSecrets, Group, Provider, credential, storage::Storage};
use crate::{
    auth::Role,
    crypto::{CipherSuite, CryptoProvider},
    error::{CryptoError, Error, InvalidMessage, SessionError},
    identity::Identity,
};

/// What an encrypted commit says of itself in the clear. None of it is authenticated yet.
pub(crate) struct CommitHeader {
    pub(crate) group_id: Vec<u8>,
    pub(crate) epoch: u64,
    pub(crate) authenticated_data: Vec<u8>,
}

impl CommitHeader {
    /// Reads it from an MLSMessage.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Error> {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("commit"))?;
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("PrivateMessage").into());
        };
        let authenticated_data = message.aad().to_vec();
        let message = ProtocolMessage::from(message);
        if message.content_type() != ContentType::Commit {
            return Err(InvalidMessage::UnexpectedWireFormat("commit").into());
        }
        Ok(Self {
            group_id: message.group_id().as_slice().to_vec(),
            epoch: message.epoch().as_u64(),
            authenticated_data,
        })
    }
}

impl Group {
    /// Everything that has to be stored of the group, a pending update included, as one blob.
    pub(crate) fn snapshot(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.provider.storage.snapshot().map_err(|_| CryptoError::Internal("the snapshot").into())
    }

    /// The group that a snapshot was cut from, if it is that of one of these identities. `None`: it is
    /// no such snapshot.
    pub(crate) fn restore(
        snapshot: &[u8],
        id: &[u8],
        initial_role: Role,
        suite: CipherSuite,
        identities: &[Identity],
        crypto: &CryptoProvider,
    ) -> Option<Result<Self, SessionError>> {
        let storage = Storage::restore(snapshot).ok()?;
        let mls = MlsGroup::load(&storage, &GroupId::from_slice(id)).ok()??;
        let own = CredentialWithKey::from(mls.own_leaf_node()?);
        let next = match mls.pending_commit() {
            Some(commit) => Some(CredentialWithKey::from(commit.update_path_leaf_node()?)),
            None => None,
        };
        let fits = mls.ciphersuite() == super::ciphersuite(suite)
            && mls.own_leaf_index().u32()
                == match initial_role {
                    Role::Responder => super::RESPONDER_LEAF,
                    Role::Initiator => super::INITIATOR_LEAF,
                };
        if !fits {
            return None;
        }
        // A certificate may have been renewed since, with the same key.
        let find = |leaf: &CredentialWithKey| {
            let key = leaf.signature_key.as_slice();
            let same = identities.iter().find(|identity| credential(identity) == *leaf);
            let identity = same.or_else(|| {
                identities.iter().find(|identity| identity.public_key().as_bytes() == key)
            });
            identity.cloned().ok_or(SessionError::Configuration("its identity"))
        };
        let next_identity = next.filter(|next| *next != own).map(|next| find(&next)).transpose();
        Some(find(&own).and_then(|identity| {
            Ok(Self {
                mls,
                provider: Provider { crypto: crypto.for_group(), storage },
                suite,
                identity,
                next_identity: next_identity?,
                role: initial_role,
            })
        }))
    }

    /// Exports from the epoch to which the pending update leads.
    pub(crate) fn export_pending(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        const FAILED: Error = Error::Crypto(CryptoError::Internal("the pending update"));
        self.mls
            .pending_commit()
            .ok_or(FAILED)?
            .export_secret(&self.provider.crypto, label, context, length)
            .map(Zeroizing::new)
            .map_err(|_| FAILED)
    }

    /// The traffic secrets of the epoch to which the pending update leads.
    pub(crate) fn pending_traffic_secrets(&self) -> Result<EpochSecrets, Error> {
        let epoch = self.pending_epoch().ok_or(CryptoError::Internal("the pending update"))?;
        EpochSecrets::export(epoch, |label| self.export_pending(label, &[], self.suite.hash_len()))
    }
}
