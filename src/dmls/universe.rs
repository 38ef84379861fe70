//! The universe: who belongs to it, and which leaf of which Send Group is whose (DM-02, DM-03).
//!
//! Members have the numbers 0, 1, ... in an order that all share. In the Send Group of a member, its
//! owner is at leaf 0 and the others follow in that order. Nobody is ever added, so a leaf belongs to
//! the same member for ever.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use crate::{
    auth::{self, AuthenticationRequest, PeerIdentity, Purpose, Role},
    config::Config,
    crypto::CipherSuite,
    error::{ConfigError, Error, PeerIncompatible, PeerMisbehaved},
    group::{
        Claim,
        send::{KeyPackages, MemberKeyPackage, SendGroup},
    },
    time::Time,
    wire::{
        DmlsMessageType, Frame, KeyPackagesFrame, Opaque, UniverseFrame, UniverseParameters,
        encode_frame_part,
    },
};

/// Version of this protocol.
pub(super) const VERSION: u16 = 1;

/// Members of one universe at most.
pub(super) const MAX_MEMBERS: usize = 1024;

/// The exporter label of the other Send Groups' IDs (DM-03).
const DERIVED_ID_LABEL: &str = "derivedGroupId";

/// Length in bytes of derived group IDs.
const DERIVED_ID_LEN: usize = 32;

/// The place of a member in the order of its universe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs)] // a number
pub struct MemberIndex(pub u16);

/// This member's KeyPackages for one universe, one for each suite of the configuration, with their
/// private keys.
///
/// The KeyPackages are valid for a day.
pub struct DmlsKeyPackages {
    pub(super) inner: KeyPackages,
    frame: Bytes,
}

/// A universe as an application defines it (DM-02). All members must be given the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DmlsUniverse {
    /// Names the universe: 1 to 255 bytes that no other universe has, random ones for example.
    pub id: Vec<u8>,
    /// Who belongs to it, 2 to 1024 members, in the same order everywhere.
    pub members: Vec<DmlsMember>,
    /// The suites that Send Groups may have, all of one signature scheme, and with `leaf_replacement`
    /// of one KEM. The owner of each chooses; see [`DmlsUniverse::new`].
    pub cipher_suites: Vec<CipherSuite>,
    /// Length in bytes of the keys that pass from one Send Group to another: the KDF.Nh of all the
    /// suites. 32 for those of this build.
    pub export_key_length: u16,
    /// Leaves are replaced together with the import of a pre-shared key (DM-06). Without it a commit
    /// that imports keys is smaller and need not renew its owner's leaf, but the leaf keys of the
    /// others in a Send Group stay what they were in the beginning. Then the imported keys alone shut
    /// a thief of those leaf keys out: one who gets hold of such a key later is in again.
    pub leaf_replacement: bool,
}

/// A member of a universe that an application defines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // the two things that RFC and draft ask for
pub struct DmlsMember {
    /// What [`DmlsKeyPackages::frame`] gave at that member.
    pub key_packages: Bytes,
    /// The group ID of the member's Send Group: 1 to 255 bytes that no other group has.
    pub send_group_id: Vec<u8>,
}

/// The universe, checked.
pub(super) struct Roster {
    pub(super) parameters: UniverseParameters,
    pub(super) suites: Vec<CipherSuite>,
    pub(super) members: Vec<Member>,
    pub(super) me: u16,
}

/// A member that the authentication service has believed.
pub(super) struct Member {
    pub(super) identity: PeerIdentity,
    /// What all its leaves say.
    pub(super) claim: Arc<Claim>,
    pub(super) group_id: Vec<u8>,
}

/// A member's KeyPackages, verified.
pub(super) struct Candidate {
    pub(super) identity: PeerIdentity,
    pub(super) claim: Arc<Claim>,
    key_packages: Vec<MemberKeyPackage>,
}

impl DmlsKeyPackages {
    /// Makes KeyPackages at `now`.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`].
    pub fn new(config: &Config, now: Time) -> Result<Self, Error> {
        let suites = usable(config);
        let inner = KeyPackages::new(&config.crypto, &suites, &config.identity, now.calendar)?;
        let body = encode_frame_part(&KeyPackagesFrame {
            key_packages: inner.messages().iter().cloned().map(Opaque).collect(),
        })?;
        let frame = Frame::new(DmlsMessageType::KeyPackages, &body)?.encoded().clone();
        Ok(Self { inner, frame })
    }

    /// The KeyPackages frame, for whoever brings the universe together.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }
}

/// The suites that this member can use: those of its first identity.
pub(super) fn usable(config: &Config) -> Vec<CipherSuite> {
    let scheme = config.identity.public_key().scheme();
    let suites = config.cipher_suites.iter().copied();
    suites.filter(|suite| suite.signature_scheme() == scheme).collect()
}

impl std::fmt::Debug for DmlsKeyPackages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmlsKeyPackages").finish_non_exhaustive()
    }
}

impl DmlsUniverse {
    /// A universe with the suites of X25519 and Ed25519, their key length, and leaf replacement. For
    /// members whose keys are of another scheme, put other suites in.
    ///
    /// A member's Send Group has the first suite of its configuration that the universe allows, and
    /// every member needs a KeyPackage for it.
    pub fn new(id: impl Into<Vec<u8>>, members: Vec<DmlsMember>) -> Self {
        Self {
            id: id.into(),
            members,
            cipher_suites: vec![
                CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
                CipherSuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
            ],
            export_key_length: 32,
            leaf_replacement: true,
        }
    }

    pub(super) fn parameters(&self) -> UniverseParameters {
        UniverseParameters {
            version: VERSION,
            universe_id: self.id.clone(),
            export_key_length: self.export_key_length,
            leaf_replacement: self.leaf_replacement.into(),
        }
    }
}

impl Candidate {
    /// Verifies what a KeyPackages frame holds, and asks the authentication service whose it is.
    pub(super) fn parse(
        config: &Config,
        suites: &[CipherSuite],
        frame: &KeyPackagesFrame,
        now: Time,
    ) -> Result<Self, Error> {
        let mut key_packages: Vec<MemberKeyPackage> = Vec::new();
        for message in frame.key_packages.iter().take(2 * CipherSuite::ALL.len()) {
            match MemberKeyPackage::parse(&config.crypto, suites, &message.0, now.calendar) {
                Ok(package) => key_packages.push(package),
                // It is for those who have the suite.
                Err(Error::PeerIncompatible(PeerIncompatible::CipherSuite(_))) => {}
                Err(error) => return Err(error),
            }
        }
        let first = key_packages.first().ok_or(PeerIncompatible::Capabilities("any suite"))?;
        if key_packages.iter().any(|package| package.claim() != first.claim()) {
            return Err(PeerMisbehaved::InvalidKeyPackage.into());
        }
        let request = AuthenticationRequest::new(
            first.claim().presented(),
            Role::Initiator,
            None,
            Purpose::Handshake,
            now.calendar,
        );
        let own = &config.identity;
        let presented = first.claim().presented();
        let identity = if presented.signature_key == own.public_key().as_bytes() {
            PeerIdentity::new(own.name(), own.public_key().clone())
                .with_credential(first.claim().presented().credential)
        } else {
            auth::validate(&*config.authentication_service, &request)?.into_peer()
        };
        let claim = Arc::clone(&first.leaf.claim);
        Ok(Self { identity, claim, key_packages })
    }

    /// The member whose Send Group has this ID.
    pub(super) fn into_member(self, group_id: Vec<u8>) -> (Member, Vec<MemberKeyPackage>) {
        let Self { identity, claim, key_packages } = self;
        (Member { identity, claim, group_id }, key_packages)
    }
}

impl Roster {
    /// Brings the universe together.
    pub(super) fn new(
        config: &Config,
        parameters: UniverseParameters,
        suites: Vec<CipherSuite>,
        members: Vec<Member>,
    ) -> Result<Self, Error> {
        let length = usize::from(parameters.export_key_length);
        let out_of_range = |what| Err(ConfigError::OutOfRange(what).into());
        if suites.is_empty() {
            return Err(ConfigError::NoCipherSuite.into());
        }
        // DM-15
        if suites.iter().any(|suite| suite.hash_len() != length) {
            return out_of_range("export_key_length must be the KDF.Nh of every suite");
        }
        // A member has one credential in all its leaves, and a leaf that is replaced one key.
        let first = suites[0];
        if suites.iter().any(|suite| suite.signature_scheme() != first.signature_scheme()) {
            return out_of_range("the suites of a universe have one signature scheme");
        }
        if parameters.leaf_replacement == 1 && suites.iter().any(|suite| suite.kem() != first.kem())
        {
            return out_of_range("with leaf replacement the suites of a universe have one KEM");
        }
        if !(2..=MAX_MEMBERS).contains(&members.len()) {
            return out_of_range("a universe has 2 to 1024 members");
        }
        if !(1..=255).contains(&parameters.universe_id.len()) {
            return out_of_range("the ID of a universe has 1 to 255 bytes");
        }
        let ids: HashSet<_> = members.iter().map(|member| &member.group_id).collect();
        let keys: HashSet<_> = members.iter().map(|member| member.identity.public_key()).collect();
        if ids.len() != members.len() || ids.iter().any(|id| !(1..=255).contains(&id.len())) {
            return out_of_range("each Send Group has an ID of its own, of 1 to 255 bytes");
        }
        if keys.len() != members.len() {
            return out_of_range("each member has a key of its own");
        }
        let own = config.identity.public_key();
        let me = (0..)
            .zip(&members)
            .find(|(_, member)| member.identity.public_key() == own)
            .map(|(index, _)| index);
        let Some(me) = me else {
            return out_of_range("this party is no member");
        };
        Ok(Self { parameters, suites, members, me })
    }

    pub(super) fn len(&self) -> u16 {
        u16::try_from(self.members.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn leaf_replacement(&self) -> bool {
        self.parameters.leaf_replacement == 1
    }

    /// The others.
    pub(super) fn others(&self) -> impl Iterator<Item = u16> + use<> {
        let me = self.me;
        (0..self.len()).filter(move |member| *member != me)
    }

    pub(super) fn member(&self, member: u16) -> Option<&Member> {
        self.members.get(usize::from(member))
    }

    /// The members in the order of the leaves of a Send Group.
    pub(super) fn in_group_of(&self, owner: u16) -> impl Iterator<Item = u16> + use<> {
        std::iter::once(owner).chain((0..self.len()).filter(move |member| *member != owner))
    }

    pub(super) fn leaf_in(owner: u16, member: u16) -> u32 {
        match member {
            _ if member == owner => 0,
            _ if member < owner => u32::from(member) + 1,
            _ => u32::from(member),
        }
    }

    pub(super) fn member_at(&self, owner: u16, leaf: u32) -> Option<u16> {
        (0..self.len()).find(|member| Self::leaf_in(owner, *member) == leaf)
    }
}

/// The ID of a member's Send Group in a universe that is declared over the wire (DM-03).
pub(super) fn derived_id(first: &SendGroup, member: &PeerIdentity) -> Result<Vec<u8>, Error> {
    let id = first.export(DERIVED_ID_LABEL, member.public_key().as_bytes(), DERIVED_ID_LEN)?;
    Ok(id.to_vec())
}

/// The KeyPackages in a frame of that type.
pub(super) fn parse_key_packages(frame: &Bytes, limit: usize) -> Result<KeyPackagesFrame, Error> {
    let frame = Frame::parse(frame.clone(), limit)?;
    if frame.message_type != DmlsMessageType::KeyPackages {
        return Err(PeerMisbehaved::UnexpectedMessage(frame.message_type.name()).into());
    }
    Ok(KeyPackagesFrame::decode(frame.body())?)
}

/// What a Universe frame declares, and the suites of it that this build has.
pub(super) fn parse_universe(
    data: &[u8],
    config: &Arc<Config>,
) -> Result<(UniverseFrame, Vec<CipherSuite>), Error> {
    let universe = UniverseFrame::decode(data)?;
    if universe.parameters.version != VERSION {
        return Err(PeerIncompatible::Version(universe.parameters.version).into());
    }
    if universe.parameters.leaf_replacement > 1 {
        return Err(PeerMisbehaved::UnexpectedUniverse("an unknown kind").into());
    }
    let mut suites: Vec<CipherSuite> = Vec::new();
    for id in &universe.cipher_suites {
        let suite = CipherSuite::from_id(*id)
            .filter(|suite| config.cipher_suites.contains(suite))
            .ok_or(PeerIncompatible::CipherSuite(*id))?;
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    Ok((universe, suites))
}

#[cfg(test)]
mod tests {
    use super::*;

    // DM-01, DM-06
    #[test]
    fn a_leaf_and_a_member_belong_together() {
        for owner in 0..5 {
            let leaves: Vec<_> = (0..5).map(|member| Roster::leaf_in(owner, member)).collect();
            assert_eq!(leaves[usize::from(owner)], 0);
            let mut sorted = leaves.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_eq!([0, 1, 2, 3].map(|member| Roster::leaf_in(2, member)), [1, 2, 0, 3]);
    }
}
