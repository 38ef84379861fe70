//! The Welcome of another member's Send Group.

use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, StagedWelcome, WelcomeError,
    tls_codec::{DeserializeBytes as _, Size as _},
};

use super::{
    Claim, FORWARD_OF_MEMBER, INTERNAL, KeyPackages, OWNER_LEAF, Provider, Retention, SendGroup,
    StorageError, UNIVERSE_PARAMETERS, ciphersuite, join_config,
};
use crate::{
    crypto::CipherSuite,
    error::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
};

/// A Send Group as its Welcome describes it, checked, but not yet joined: whether it is the one that
/// this party waits for remains to be compared.
pub(crate) struct JoinedSendGroup {
    staged: StagedWelcome,
    provider: Provider,
    suite: CipherSuite,
    identity: crate::identity::Identity,
    id: Vec<u8>,
    parameters: Vec<u8>,
    claims: Vec<Claim>,
}

impl KeyPackages {
    /// Opens an MLSMessage with a Welcome to a group of at most `max_members`.
    pub(crate) fn open_welcome(
        &self,
        allowed: &[CipherSuite],
        message: &[u8],
        max_members: usize,
        retention: Retention,
    ) -> Result<JoinedSendGroup, Error> {
        let unexpected = |what| Error::from(PeerMisbehaved::UnexpectedGroup(what));
        let provider = self.provider(retention);
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("Welcome"))?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("Welcome").into());
        };
        let id = u16::from(welcome.ciphersuite());
        let suite = CipherSuite::from_id(id)
            .filter(|suite| allowed.contains(suite))
            .ok_or(PeerIncompatible::CipherSuite(id))?;
        let config = join_config(FORWARD_OF_MEMBER);
        let processed =
            ProcessedWelcome::new_from_welcome(&provider, &config, welcome).map_err(refused)?;
        if !processed.psks().is_empty() {
            return Err(unexpected("pre-shared keys"));
        }
        // OpenMLS walks the tree before it has verified anything of it, and asserts on the way that
        // it is sound. A tree of leaves without gaps and without parents cannot be otherwise.
        let tree = processed
            .unverified_group_info()
            .extensions()
            .ratchet_tree()
            .ok_or(PeerMisbehaved::UnexpectedGroup("no ratchet tree"))?
            .ratchet_tree();
        let count = tree.leaves().count();
        if !(2..=max_members).contains(&count) {
            return Err(unexpected("another number of members"));
        }
        if tree.parents().next().is_some() {
            return Err(unexpected("a parent node"));
        }
        // Each leaf has a byte for its presence and one for its kind; between two there is a blank.
        let leaves: usize = tree.leaves().map(|leaf| 2 + leaf.tls_serialized_len()).sum();
        if tree.tls_serialized_len() > leaves + (count - 1) + 4 {
            return Err(unexpected("blank nodes"));
        }
        let staged = processed.into_staged_welcome(&provider, None).map_err(refused)?;
        if staged.welcome_sender_index().u32() != OWNER_LEAF
            || staged.own_leaf_index().u32() == OWNER_LEAF
        {
            return Err(unexpected("its owner is not at leaf 0"));
        }
        let mut claims = Vec::with_capacity(count);
        for (position, member) in (0..).zip(staged.members()) {
            if member.index.u32() != position {
                return Err(unexpected("members in other places"));
            }
            claims.push(Claim::new(&member.credential, &member.signature_key, suite)?);
        }
        let context = staged.group_context();
        if context.ciphersuite() != ciphersuite(suite) {
            return Err(unexpected("another cipher suite"));
        }
        if context.epoch().as_u64() != 1 {
            return Err(unexpected("not the first epoch"));
        }
        let parameters = context
            .extensions()
            .unknown(UNIVERSE_PARAMETERS)
            .ok_or(PeerMisbehaved::UnexpectedGroup("no universe"))?
            .0
            .clone();
        if context.extensions().iter().count() != 1 {
            return Err(unexpected("unknown extensions"));
        }
        let id = context.group_id().as_slice().to_vec();
        let identity = self.identity().clone();
        Ok(JoinedSendGroup { staged, provider, suite, identity, id, parameters, claims })
    }
}

impl JoinedSendGroup {
    /// Joins.
    pub(crate) fn join(self) -> Result<SendGroup, Error> {
        let mls = self.staged.into_group(&self.provider).map_err(|_| INTERNAL)?;
        self.provider.storage.erase_key_packages();
        let group = SendGroup::new(mls, self.provider, self.suite, &self.identity);
        group.erase_proposed_keys();
        Ok(group)
    }

    pub(crate) fn id(&self) -> &[u8] {
        &self.id
    }

    /// What the group says of its universe.
    pub(crate) fn parameters(&self) -> &[u8] {
        &self.parameters
    }

    /// Who the members say they are, the owner first.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.claims
    }
}

fn refused(error: WelcomeError<StorageError>) -> Error {
    match error {
        WelcomeError::StorageError(_) | WelcomeError::LibraryError(_) => INTERNAL,
        _ => PeerMisbehaved::InvalidWelcome.into(),
    }
}
