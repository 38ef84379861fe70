//! The Welcome: the initiator joins the group that the responder made.

use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, StagedWelcome, WelcomeError,
    tls_codec::{DeserializeBytes as _, Size as _},
};

use super::{
    Claim, Group, INITIATOR_LEAF, Offer, Provider, RESPONDER_LEAF, ciphersuite, join_config,
    storage::StorageError,
};
use crate::{
    auth::{Authenticated, Role},
    crypto::CipherSuite,
    error::{CryptoError, Error, InvalidMessage, PeerMisbehaved},
    identity::Identity,
    wire::{GroupParameters, TRANSPORT_PARAMETERS},
};

/// The group as the Welcome describes it, checked, but not yet joined: whose group it is remains to
/// be asked.
pub(crate) struct Joined {
    staged: StagedWelcome,
    provider: Provider,
    suite: CipherSuite,
    identity: Identity,
    parameters: GroupParameters,
    claim: Claim,
}

impl Offer {
    /// Opens the MLSMessage of a ServerHello and checks the group in it (2P-05).
    ///
    /// `client_hello_hash` ties the group to the hello that this party sent.
    pub(crate) fn open_welcome(
        self,
        message: &[u8],
        client_hello_hash: &[u8],
    ) -> Result<Joined, Error> {
        let Self { provider, suite, identity, parameters: offered, .. } = self;
        let message = MlsMessageIn::tls_deserialize_exact_bytes(message)
            .map_err(|_| InvalidMessage::Malformed("Welcome"))?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(InvalidMessage::UnexpectedWireFormat("Welcome").into());
        };
        if welcome.ciphersuite() != ciphersuite(suite) {
            return Err(PeerMisbehaved::UnexpectedGroup("another cipher suite").into());
        }
        let processed = ProcessedWelcome::new_from_welcome(&provider, &join_config(), welcome)
            .map_err(|error| refused(&provider, error))?;
        if !processed.psks().is_empty() {
            return Err(PeerMisbehaved::UnexpectedGroup("pre-shared keys").into());
        }
        // OpenMLS walks the tree before it has verified anything of it, and asserts on the way that
        // it is sound. A tree of two leaves and nothing else has no room to be otherwise.
        let tree = processed
            .unverified_group_info()
            .extensions()
            .ratchet_tree()
            .ok_or(PeerMisbehaved::UnexpectedGroup("no ratchet tree"))?
            .ratchet_tree();
        if tree.leaves().count() != 2 {
            return Err(PeerMisbehaved::UnexpectedGroup("not exactly two members").into());
        }
        if tree.parents().next().is_some() {
            return Err(PeerMisbehaved::UnexpectedGroup("a parent node").into());
        }
        // Two leaves with a byte for their presence and one for their kind, a blank, and the length.
        let leaves: usize = tree.leaves().map(|leaf| 2 + leaf.tls_serialized_len()).sum();
        if tree.tls_serialized_len() > leaves + 1 + 4 {
            return Err(PeerMisbehaved::UnexpectedGroup("blank nodes").into());
        }
        let staged = processed
            .into_staged_welcome(&provider, None)
            .map_err(|error| refused(&provider, error))?;

        let mut members = staged.members();
        let (Some(creator), Some(own), None) = (members.next(), members.next(), members.next())
        else {
            return Err(PeerMisbehaved::UnexpectedGroup("not exactly two members").into());
        };
        drop(members);
        if creator.index.u32() != RESPONDER_LEAF
            || own.index.u32() != INITIATOR_LEAF
            || staged.welcome_sender_index().u32() != RESPONDER_LEAF
            || staged.own_leaf_index().u32() != INITIATOR_LEAF
        {
            return Err(PeerMisbehaved::UnexpectedGroup("members in other places").into());
        }
        let context = staged.group_context();
        if context.ciphersuite() != ciphersuite(suite) {
            return Err(PeerMisbehaved::UnexpectedGroup("another cipher suite").into());
        }
        if context.epoch().as_u64() != 1 {
            return Err(PeerMisbehaved::UnexpectedGroup("not the first epoch").into());
        }
        let parameters = context
            .extensions()
            .unknown(TRANSPORT_PARAMETERS)
            .ok_or(PeerMisbehaved::MissingTransportParameters("group context"))?;
        let parameters = GroupParameters::decode(&parameters.0)?;
        if context.extensions().iter().count() != 1 {
            return Err(PeerMisbehaved::UnexpectedGroup("unknown extensions").into());
        }
        if parameters.client_hello_hash != client_hello_hash {
            return Err(PeerMisbehaved::UnexpectedGroup("made for another hello").into());
        }
        if !parameters.alpn.is_empty() && !offered.alpn.contains(&parameters.alpn) {
            return Err(PeerMisbehaved::UnofferedAlpn.into());
        }
        let claim = Claim::new(&creator.credential, &creator.signature_key, suite)?;
        claim.differs_from(&identity)?;
        Ok(Joined { staged, provider, suite, identity, parameters, claim })
    }
}

impl Joined {
    /// Joins. The responder must have been authenticated (2P-05).
    pub(crate) fn join(self, _responder: &Authenticated) -> Result<Group, Error> {
        let mls = self
            .staged
            .into_group(&self.provider)
            .map_err(|_| CryptoError::Internal("joining the group"))?;
        self.provider.crypto.forget();
        Ok(Group {
            mls,
            provider: self.provider,
            suite: self.suite,
            identity: self.identity,
            next_identity: None,
            role: Role::Initiator,
        })
    }

    pub(crate) fn parameters(&self) -> &GroupParameters {
        &self.parameters
    }

    /// Who the responder says it is.
    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }
}

fn refused(provider: &Provider, error: WelcomeError<StorageError>) -> Error {
    match error {
        WelcomeError::StorageError(_) | WelcomeError::LibraryError(_) => {
            CryptoError::Internal("joining the group").into()
        }
        _ => provider.crypto.blame(PeerMisbehaved::InvalidWelcome),
    }
}
