//! Commits of the owner, and the leaves that others propose for them (DM-04 to DM-08).

use std::collections::BTreeMap;

use openmls::{
    prelude::{
        LeafNodeIndex, LeafNodeParameters, PreSharedKeyProposal, ProcessedMessageContent, Proposal,
        QueuedProposal, Sender, StagedCommit,
        tls_codec::{DeserializeBytes as _, Serialize as _, VLByteSlice},
    },
    schedule::{PreSharedKeyId, Psk as MlsPsk},
};
use openmls_traits::{
    crypto::OpenMlsCrypto as _, random::OpenMlsRand as _, signatures::Signer as _,
    storage::StorageProvider as _,
};

use super::{
    INTERNAL, Leaf, LeafSeed, MAX_PROPOSALS_OF_EPOCH, OWNER_LEAF, SendGroup, UNIVERSE_PARAMETERS,
    ciphersuite,
    random::{Recorder, Repeater},
    signer,
};
use crate::error::{Error, InvalidMessage, PeerMisbehaved};

/// What tells a signature of a Commit frame from those of MLS.
const LABEL: &[u8] = b"MLS 1.0 DmlsCommit";

/// A pre-shared key for one commit.
#[derive(Clone, Copy)]
pub(crate) struct Psk<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) secret: &'a [u8],
}

/// What a commit of the owner is to do.
#[derive(Default)]
pub(crate) struct CommitPlan<'a> {
    pub(crate) psks: Vec<Psk<'a>>,
    /// Proposals that [`SendGroup::receive_proposal`] has given in this epoch.
    pub(crate) leaves: Vec<&'a LeafProposal>,
    /// Leaves to remove.
    pub(crate) removals: Vec<u32>,
    /// Renew the owner's own leaf. Leaves and removals need it too.
    pub(crate) update: bool,
    pub(crate) authenticated_data: Vec<u8>,
    /// What the own leaf is made of.
    #[cfg(test)]
    pub(crate) leaf: Option<LeafSeed>,
}

/// A verified proposal of another member for its leaf in this party's Send Group.
pub(crate) struct LeafProposal {
    pub(crate) leaf_index: u32,
    pub(crate) leaf: Leaf,
    epoch: u64,
    queued: QueuedProposal,
}

/// A commit of the owner, verified, but not yet compared with what it refers to.
pub(crate) struct StagedSendCommit {
    commit: Box<StagedCommit>,
    /// The IDs of the pre-shared keys.
    pub(crate) psks: Vec<Vec<u8>>,
    /// The leaves that it replaces, beside the owner's own.
    pub(crate) leaves: BTreeMap<u32, Leaf>,
    /// The leaves that it removes.
    pub(crate) removals: Vec<u32>,
    /// The owner's new leaf, if the commit renews it.
    pub(crate) update: Option<Leaf>,
    /// It removes this party.
    pub(crate) self_removed: bool,
}

impl LeafProposal {
    /// It can be committed in this epoch.
    pub(crate) fn is_for(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }
}

impl SendGroup {
    /// Commits, and is in the next epoch: nobody else can commit here. Gives the MLSMessage, and the
    /// seed of the own leaf if that was renewed.
    ///
    /// An error that says that the peer misbehaved means that the proposed leaves do not fit
    /// together; nothing has changed then.
    pub(crate) fn commit(
        &mut self,
        plan: CommitPlan<'_>,
    ) -> Result<(Vec<u8>, Option<LeafSeed>), Error> {
        let Self { mls, provider, identity, suite, .. } = self;
        let storage = &provider.storage;
        let crypto = &provider.crypto;
        for proposal in &plan.leaves {
            if proposal.epoch != mls.epoch().as_u64() {
                return Err(INTERNAL);
            }
            mls.store_pending_proposal(storage, proposal.queued.clone()).map_err(|_| INTERNAL)?;
        }
        let mut proposals = Vec::with_capacity(plan.psks.len());
        let mut ids = Vec::with_capacity(plan.psks.len());
        for psk in &plan.psks {
            // DM-05
            let nonce = crypto.random_vec(suite.hash_len())?;
            let id = PreSharedKeyId::external(psk.id.to_vec(), nonce);
            id.store(provider, psk.secret).map_err(|_| INTERNAL)?;
            proposals.push(Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(id.clone()))));
            ids.push(id);
        }
        mls.set_aad(plan.authenticated_data);
        let path = plan.update || !plan.leaves.is_empty() || !plan.removals.is_empty();
        #[cfg_attr(not(test), allow(unused_mut))]
        let mut recorder = Recorder::new(crypto);
        #[cfg(test)]
        recorder.leaf.clone_from(&plan.leaf);
        let signer = signer(identity, crypto);
        let built = mls
            .commit_builder()
            .force_self_update(path)
            .add_proposals(proposals)
            .propose_removals(plan.removals.into_iter().map(LeafNodeIndex::new))
            .load_psks(storage)
            .map_err(|_| INTERNAL)?
            // Nobody reads a GroupInfo.
            .create_group_info(false)
            .build(&recorder, crypto, &signer, |_| true);
        let message = match built {
            Ok(built) => built.stage_commit(provider).map_err(|_| INTERNAL)?.into_commit(),
            Err(_) if !plan.leaves.is_empty() => {
                mls.clear_pending_proposals(storage).map_err(|_| INTERNAL)?;
                erase_psks(provider, &ids)?;
                return Err(PeerMisbehaved::InvalidLeaf("it does not fit the group").into());
            }
            Err(_) => return Err(INTERNAL),
        };
        mls.merge_pending_commit(provider).map_err(|_| INTERNAL)?;
        erase_psks(provider, &ids)?;
        let seed = if path { Some(recorder.into_leaf_seed().ok_or(INTERNAL)?) } else { None };
        let message = message.to_bytes().map_err(|_| INTERNAL)?;
        self.proposals.clear();
        self.erase_proposed_keys();
        Ok((message, seed))
    }

    /// Signs a proposal that puts the leaf of `seed` in the place of this party's leaf (DM-06). It is
    /// good for the current epoch.
    pub(crate) fn propose_leaf(
        &mut self,
        seed: &LeafSeed,
        authenticated_data: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let Self { mls, provider, identity, .. } = self;
        mls.set_aad(authenticated_data);
        let repeater = Repeater::new(provider, seed);
        let (message, _) = mls
            .propose_self_update(
                &repeater,
                &signer(identity, &provider.crypto),
                LeafNodeParameters::default(),
            )
            .map_err(|_| INTERNAL)?;
        message.to_bytes().map_err(|_| INTERNAL)
    }

    /// Verifies a proposal of another member for its leaf. For the owner.
    pub(crate) fn receive_proposal(&mut self, message: &[u8]) -> Result<LeafProposal, Error> {
        let proposal = self.verify_proposal(message)?.ok_or(PeerMisbehaved::NotTheOwner)?;
        let count = self.proposals.entry(proposal.leaf_index).or_default();
        if *count >= MAX_PROPOSALS_OF_EPOCH {
            return Err(PeerMisbehaved::InvalidLeaf("too many in one epoch").into());
        }
        *count += 1;
        if !proposal.leaf.can_be_encrypted_to(&self.provider.crypto, self.suite) {
            return Err(PeerMisbehaved::InvalidLeaf("a key that cannot be").into());
        }
        Ok(proposal)
    }

    /// Signs a commit with the proposals beside it, as the owner.
    pub(crate) fn sign_commit(
        &self,
        proposals: &[Vec<u8>],
        commit: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let signer = signer(&self.identity, &self.provider.crypto);
        signer.sign(&signed_content(proposals, commit)?).map_err(|_| INTERNAL)
    }

    /// Whether the owner has put these proposals beside its commit. They are looked at only then: each
    /// can be opened once, and none that was signed before another one.
    fn is_signed(
        &self,
        proposals: &[Vec<u8>],
        commit: &[u8],
        signature: &[u8],
    ) -> Result<bool, Error> {
        let owner = self.leaf(OWNER_LEAF)?.ok_or(INTERNAL)?;
        let key = owner.claim.presented().signature_key;
        let scheme = ciphersuite(self.suite).signature_algorithm();
        let content = signed_content(proposals, commit)?;
        Ok(self.provider.crypto.verify_signature(scheme, &content, key, signature).is_ok())
    }

    /// Verifies the owner's commit with the proposals that it refers to. The group stays in its epoch.
    /// After an error the same can be tried again, with other pre-shared keys.
    pub(crate) fn stage(
        &mut self,
        proposals: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        psks: &[Psk<'_>],
    ) -> Result<StagedSendCommit, Error> {
        if !self.is_signed(proposals, message, signature)? {
            return Err(PeerMisbehaved::InvalidCommit.into());
        }
        let own: Vec<QueuedProposal> = self.mls.pending_proposals().cloned().collect();
        let staged = self.try_stage(proposals, message, psks);
        if staged.is_err() {
            self.mls.clear_pending_proposals(&self.provider.storage).map_err(|_| INTERNAL)?;
            for proposal in own {
                self.mls
                    .store_pending_proposal(&self.provider.storage, proposal)
                    .map_err(|_| INTERNAL)?;
            }
        }
        staged
    }

    fn try_stage(
        &mut self,
        proposals: &[Vec<u8>],
        message: &[u8],
        psks: &[Psk<'_>],
    ) -> Result<StagedSendCommit, Error> {
        for proposal in proposals {
            // Of this party's own proposals nothing has to be learned.
            if let Some(proposal) = self.verify_proposal(proposal)? {
                self.mls
                    .store_pending_proposal(&self.provider.storage, proposal.queued)
                    .map_err(|_| INTERNAL)?;
            }
        }
        let mut ids = Vec::with_capacity(psks.len());
        for psk in psks {
            let id = PreSharedKeyId::external(psk.id.to_vec(), Vec::new());
            id.store(&self.provider, psk.secret).map_err(|_| INTERNAL)?;
            ids.push(id);
        }
        let processed = self.process(message);
        erase_psks(&self.provider, &ids)?;
        let processed = processed?;
        if *processed.sender() != Sender::Member(LeafNodeIndex::new(OWNER_LEAF)) {
            return Err(PeerMisbehaved::NotTheOwner.into());
        }
        let ProcessedMessageContent::StagedCommitMessage(commit) = processed.into_content() else {
            return Err(InvalidMessage::UnexpectedWireFormat("commit").into());
        };
        self.inspect(commit)
    }

    /// Refuses what no Send Group has.
    fn inspect(&self, commit: Box<StagedCommit>) -> Result<StagedSendCommit, Error> {
        let mut psks = Vec::new();
        let mut leaves = BTreeMap::new();
        let mut removals = Vec::new();
        for queued in commit.queued_proposals() {
            match queued.proposal() {
                Proposal::PreSharedKey(psk) => {
                    // OpenMLS keeps the ID to itself; the proposal is nothing else.
                    let id = psk.tls_serialize_detached().map_err(|_| INTERNAL)?;
                    let id =
                        PreSharedKeyId::tls_deserialize_exact_bytes(&id).map_err(|_| INTERNAL)?;
                    let MlsPsk::External(id) = id.psk() else {
                        return Err(PeerMisbehaved::UnexpectedProposal("a resumption PSK").into());
                    };
                    psks.push(id.psk_id().to_vec());
                }
                Proposal::Update(update) => {
                    let Sender::Member(sender) = queued.sender() else {
                        return Err(PeerMisbehaved::InvalidCommit.into());
                    };
                    leaves.insert(sender.u32(), Leaf::of(update.leaf_node(), self.suite)?);
                }
                Proposal::Remove(removal) => removals.push(removal.removed().u32()),
                _ => return Err(PeerMisbehaved::UnexpectedProposal("none of its kind").into()),
            }
        }
        let mut update = None;
        if let Some(leaf) = commit.update_path_leaf_node() {
            let current = self.leaf(OWNER_LEAF)?.ok_or(INTERNAL)?;
            let new = Leaf::of(leaf, self.suite)?;
            if new.claim != current.claim {
                return Err(PeerMisbehaved::InvalidLeaf("it changes the credential").into());
            }
            if leaf.extensions().unknown(UNIVERSE_PARAMETERS).is_none() {
                return Err(PeerMisbehaved::InvalidLeaf("it lacks the marker").into());
            }
            update = Some(new);
        }
        let self_removed = commit.self_removed();
        Ok(StagedSendCommit { commit, psks, leaves, removals, update, self_removed })
    }

    /// Applies the owner's commit.
    pub(crate) fn apply(&mut self, staged: StagedSendCommit) -> Result<(), Error> {
        self.mls.merge_staged_commit(&self.provider, *staged.commit).map_err(|_| INTERNAL)?;
        self.erase_proposed_keys();
        Ok(())
    }

    /// An Update proposal of its sender's leaf; `None` for one of this party's own.
    fn verify_proposal(&mut self, message: &[u8]) -> Result<Option<LeafProposal>, Error> {
        let processed = self.process(message)?;
        let &Sender::Member(sender) = processed.sender() else {
            return Err(PeerMisbehaved::UnexpectedProposal("from outside").into());
        };
        let epoch = processed.epoch().as_u64();
        let queued = match processed.into_content() {
            ProcessedMessageContent::ProposalMessage(queued) => *queued,
            ProcessedMessageContent::OwnPrivateMessage => return Ok(None),
            _ => return Err(InvalidMessage::UnexpectedWireFormat("proposal").into()),
        };
        let Proposal::Update(update) = queued.proposal() else {
            return Err(PeerMisbehaved::UnexpectedProposal("other than an Update").into());
        };
        let leaf_node = update.leaf_node();
        let leaf = Leaf::of(leaf_node, self.suite)?;
        let current = self.leaf(sender.u32())?.ok_or(PeerMisbehaved::InvalidCommit)?;
        if leaf.claim != current.claim {
            return Err(PeerMisbehaved::InvalidLeaf("it changes the credential").into());
        }
        if leaf_node.extensions().unknown(UNIVERSE_PARAMETERS).is_none() {
            return Err(PeerMisbehaved::InvalidLeaf("it lacks the marker").into());
        }
        Ok(Some(LeafProposal { leaf_index: sender.u32(), leaf, epoch, queued }))
    }
}

/// SignContent (RFC 9420, section 5.1.2) of a commit and the proposals beside it.
fn signed_content(proposals: &[Vec<u8>], commit: &[u8]) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    for part in proposals.iter().map(Vec::as_slice).chain([commit]) {
        VLByteSlice(part).tls_serialize(&mut content).map_err(|_| INTERNAL)?;
    }
    let mut signed = Vec::new();
    for part in [LABEL, &content] {
        VLByteSlice(part).tls_serialize(&mut signed).map_err(|_| INTERNAL)?;
    }
    Ok(signed)
}

/// OpenMLS keeps them for ever.
fn erase_psks(provider: &super::Provider, ids: &[PreSharedKeyId]) -> Result<(), Error> {
    ids.iter().try_for_each(|id| provider.storage.delete_psk(id.psk())).map_err(|_| INTERNAL)
}
