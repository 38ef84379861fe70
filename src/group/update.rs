//! Self-updates: this party's, pending until the peer answers, and the peer's.

use openmls::{
    framing::errors::MessageDecryptionError,
    prelude::{
        MlsMessageBodyIn, MlsMessageIn, NewSignerBundle, ProcessMessageError,
        ProcessedMessageContent, ProtocolMessage, Sender, StagedCommit, ValidationError,
        tls_codec::DeserializeBytes as _,
    },
};
use openmls_traits::signatures::Signer as _;

use super::{
    Claim, Group, check_credential_types, ciphersuite, credential, credential_type, signer,
};
use crate::{
    auth::Authenticated,
    error::{ApiMisuse, CryptoError, Error, InvalidMessage, PeerMisbehaved},
    identity::Identity,
    wire::TRANSPORT_PARAMETERS,
};

/// The peer's update, verified, but not yet applied.
///
/// One that keeps the peer's credential can be applied at once; one that changes it needs the
/// authentication service first (2P-13).
pub(crate) enum StagedUpdate {
    SameCredential(Verified),
    NewCredential(Unverified),
}

/// An update that may be applied.
pub(crate) struct Verified(Box<StagedCommit>);

/// An update that claims a new credential.
pub(crate) struct Unverified {
    commit: Box<StagedCommit>,
    claim: Claim,
}

impl Unverified {
    /// Who the peer says it is from now on.
    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The authentication service has accepted the claim.
    pub(crate) fn authenticated(self, _peer: &Authenticated) -> Verified {
        Verified(self.commit)
    }
}

impl Group {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn start_update(&mut self) -> Result<Vec<u8>, Error> {
        self.start_update_saying(&[], None)
    }

    /// Stages an update of this party's own keys and gives the MLSMessage for it, with
    /// `authenticated_data`. The group stays in its epoch. With `next` this party becomes somebody
    /// else: the commit is signed with the old key, its leaf with the new one (RFC 9420, section
    /// 12.4).
    pub(crate) fn start_update_saying(
        &mut self,
        authenticated_data: &[u8],
        next: Option<&Identity>,
    ) -> Result<Vec<u8>, Error> {
        let Self { mls, provider, identity, .. } = self;
        let crypto = &provider.crypto;
        mls.set_aad(authenticated_data.to_vec());
        let builder = mls
            .commit_builder()
            .force_self_update(true)
            .load_psks(&provider.storage)
            .map_err(|_| INTERNAL)?
            // Nobody reads a GroupInfo; building one costs more than the rest of the commit.
            .create_group_info(false);
        let old_signer = signer(identity, crypto);
        let built = match next {
            None => builder.build(crypto, crypto, &old_signer, |_| true),
            Some(next) => {
                let new_signer = NewSignerBundle {
                    signer: &signer(next, crypto),
                    credential_with_key: credential(next),
                };
                builder.build_with_new_signer(crypto, crypto, &old_signer, new_signer, |_| true)
            }
        };
        let commit = built
            .map_err(|_| INTERNAL)?
            .stage_commit(provider)
            .map_err(|_| INTERNAL)?
            .into_commit()
            .to_bytes()
            .map_err(|_| INTERNAL)?;
        self.next_identity = next.cloned();
        Ok(commit)
    }

    /// Whether this party could become `next` in this group.
    pub(crate) fn check_identity(&self, next: &Identity) -> Result<(), Error> {
        let scheme = signer(next, &self.provider.crypto).signature_scheme();
        if scheme != ciphersuite(self.suite).signature_algorithm() {
            return Err(ApiMisuse::SignatureScheme.into());
        }
        let peer = self.peer_leaf()?;
        if peer.signature_key().as_slice() == next.public_key().as_bytes() {
            return Err(ApiMisuse::PeersKey.into());
        }
        check_credential_types(peer, [credential_type(next)])
            .map_err(|_| ApiMisuse::CredentialType)?;
        Ok(())
    }

    /// The pending update changes who this party is.
    pub(crate) fn is_rotating(&self) -> bool {
        self.next_identity.is_some()
    }

    /// The epoch to which the pending update leads.
    pub(crate) fn pending_epoch(&self) -> Option<u64> {
        self.mls.pending_commit().map(|commit| commit.epoch().as_u64())
    }

    /// Drops the pending update (2P-10).
    pub(crate) fn drop_update(&mut self) -> Result<(), Error> {
        self.next_identity = None;
        self.mls.clear_pending_commit(&self.provider.storage).map_err(|_| INTERNAL)
    }

    /// Applies the pending update: the peer has confirmed it.
    pub(crate) fn merge_update(&mut self) -> Result<(), Error> {
        self.mls.merge_pending_commit(&self.provider).map_err(|_| INTERNAL)?;
        // The key of the own leaf is replaced.
        self.provider.crypto.forget();
        if let Some(next) = self.next_identity.take() {
            self.identity = next;
        }
        Ok(())
    }

    /// Verifies the MLSMessage of a ConnectionUpdate (2P-06). The group stays in its epoch.
    pub(crate) fn receive_update(&mut self, message: &[u8]) -> Result<StagedUpdate, Error> {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("commit"))?;
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("PrivateMessage").into());
        };
        let message = ProtocolMessage::from(message);
        if message.group_id() != self.mls.group_id() {
            return Err(PeerMisbehaved::InvalidCommit.into());
        }
        if message.epoch() != self.mls.epoch() {
            return Err(PeerMisbehaved::CommitForWrongEpoch.into());
        }
        let processed =
            self.mls.process_message(&self.provider, message).map_err(|error| match error {
                ProcessMessageError::ValidationError(ValidationError::WrongEpoch) => {
                    Error::from(PeerMisbehaved::CommitForWrongEpoch)
                }
                // What says whose it is has been opened, but its key was used before, or is too far.
                ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(
                    MessageDecryptionError::SecretTreeError(_),
                )) => self.provider.crypto.blame(PeerMisbehaved::NoKeyForCommit),
                ProcessMessageError::LibraryError(_) | ProcessMessageError::StorageError(_) => {
                    INTERNAL
                }
                _ => self.provider.crypto.blame(PeerMisbehaved::InvalidCommit),
            })?;
        let from_member = matches!(processed.sender(), Sender::Member(_));
        let ProcessedMessageContent::StagedCommitMessage(commit) = processed.into_content() else {
            return Err(PeerMisbehaved::NotASelfUpdate("not a commit").into());
        };
        if !from_member {
            return Err(PeerMisbehaved::NotASelfUpdate("from outside of the group").into());
        }
        if commit.queued_proposals().next().is_some() {
            return Err(PeerMisbehaved::NotASelfUpdate("it carries proposals").into());
        }
        let Some(leaf) = commit.update_path_leaf_node() else {
            return Err(PeerMisbehaved::NotASelfUpdate("it has no update path").into());
        };
        let current = self.peer_leaf()?;
        // The marker and the parameters are agreed for the whole connection (TL-06).
        if leaf.extensions().unknown(TRANSPORT_PARAMETERS)
            != current.extensions().unknown(TRANSPORT_PARAMETERS)
        {
            return Err(PeerMisbehaved::NotASelfUpdate("it changes transport parameters").into());
        }
        let claim = Claim::of_leaf(leaf, self.suite)?;
        if claim == Claim::of_leaf(current, self.suite)? {
            return Ok(StagedUpdate::SameCredential(Verified(commit)));
        }
        claim.differs_from(&self.identity)?;
        Ok(StagedUpdate::NewCredential(Unverified { commit, claim }))
    }

    /// Applies the peer's update. A pending update of this party is gone with the old epoch.
    pub(crate) fn apply(&mut self, Verified(commit): Verified) -> Result<(), Error> {
        self.next_identity = None;
        self.mls.merge_staged_commit(&self.provider, *commit).map_err(|_| INTERNAL)
    }
}

const INTERNAL: Error = Error::Crypto(CryptoError::Internal("updating the group"));
