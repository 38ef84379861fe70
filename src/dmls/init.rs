//! INIT: a universe begins, as the application defines it (DM-02) or over the wire (DM-03).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    DmlsEvent, DmlsKeyPackages, DmlsPolicy, DmlsSession, DmlsUniverse, MemberIndex, Outbox,
    message::split_bulk,
    peer::Peer,
    psk::Epochs,
    store::Stored,
    universe::{
        Candidate, MAX_MEMBERS, Roster, derived_id, parse_key_packages, parse_universe, usable,
    },
};
use crate::{
    config::Config,
    crypto::CipherSuite,
    error::{ConfigError, CryptoError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved},
    group::{
        Retention,
        send::{
            ContentType, JoinedSendGroup, KeyPackages, MemberKeyPackage, MessageHeader,
            NewSendGroup, SendGroup,
        },
    },
    time::Time,
    wire::{
        CommitFrame, DmlsMessageType, Frame, FrameHeader, Opaque, UniverseFrame,
        UniverseParameters, encode_frame_part,
    },
};

/// Bytes of a universe ID that is chosen here.
const ID_LEN: usize = 32;

/// A member that waits for the declaration of its universe (DM-03).
///
/// It takes the first two frames of the member that invites: the Welcome to its Send Group, and the
/// declaration. Frames of others that come earlier can be thrown away; they come again.
pub struct DmlsInvitation {
    config: Arc<Config>,
    policy: DmlsPolicy,
    key_packages: KeyPackages,
    group: Option<SendGroup>,
    parameters: Option<UniverseParameters>,
    claims: Vec<crate::group::Claim>,
}

impl DmlsSession {
    /// Begins a universe that the application has defined (DM-02). Every member does this with the
    /// same `universe`, and each sends the Welcome to its Send Group.
    ///
    /// The authentication service is asked about each of the others, as about an initiator of a
    /// channel ([`Role::Initiator`](crate::Role::Initiator)) and without a server name.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a universe that cannot be, or to which this party does not belong;
    /// otherwise what is wrong with a member's KeyPackages, or that the authentication service does
    /// not believe one.
    pub fn create(
        config: Arc<Config>,
        policy: DmlsPolicy,
        universe: &DmlsUniverse,
        key_packages: DmlsKeyPackages,
        now: Time,
    ) -> Result<Self, Error> {
        policy.check()?;
        let mut members = Vec::new();
        let mut packages = Vec::new();
        for member in &universe.members {
            let frame = parse_key_packages(&member.key_packages, policy.max_frame_size)?;
            let candidate = Candidate::parse(&config, &universe.cipher_suites, &frame, now)?;
            let group_id = member.send_group_id.clone();
            let (member, key_packages) = candidate.into_member(group_id);
            members.push(member);
            packages.push(key_packages);
        }
        let suites = universe.cipher_suites.clone();
        let roster = Roster::new(&config, universe.parameters(), suites, members)?;
        let mut session = Self::begin(config, policy, roster, packages, now)?;
        session.key_packages = Some(key_packages.inner);
        Ok(session)
    }

    /// Begins a universe, and declares it to the others over the wire (DM-03): this party is member
    /// 0, the others follow in the order of `others`, which are their KeyPackages frames.
    ///
    /// # Errors
    ///
    /// As [`DmlsSession::create`].
    pub fn invite(
        config: Arc<Config>,
        policy: DmlsPolicy,
        others: &[Bytes],
        key_packages: DmlsKeyPackages,
        leaf_replacement: bool,
        now: Time,
    ) -> Result<Self, Error> {
        policy.check()?;
        let suites = compatible(usable(&config), leaf_replacement);
        let mut id = vec![0; ID_LEN];
        config.crypto.fill_random(&mut id)?;
        let export_key_length = suites.first().map_or(0, |suite| suite.hash_len());
        let parameters = UniverseParameters {
            version: super::universe::VERSION,
            universe_id: id.clone(),
            export_key_length: u16::try_from(export_key_length)
                .map_err(|_| ConfigError::NoCipherSuite)?,
            leaf_replacement: leaf_replacement.into(),
        };
        let mut frames = vec![parse_key_packages(key_packages.frame(), policy.max_frame_size)?];
        for other in others {
            frames.push(parse_key_packages(other, policy.max_frame_size)?);
        }
        let mut members = Vec::new();
        let mut packages = Vec::new();
        for (place, frame) in frames.iter().enumerate() {
            let candidate = Candidate::parse(&config, &suites, frame, now)?;
            // The IDs of the others are known when the group is.
            let group_id = if place == 0 { id.clone() } else { place.to_be_bytes().to_vec() };
            let (member, key_packages) = candidate.into_member(group_id);
            members.push(member);
            packages.push(key_packages);
        }
        let roster = Roster::new(&config, parameters.clone(), suites, members)?;
        if roster.me != 0 {
            return Err(
                ConfigError::OutOfRange("the one who invites is not among the others").into()
            );
        }
        let mut session = Self::begin(config, policy, roster, packages, now)?;
        session.key_packages = Some(key_packages.inner);
        if let Some(own) = &session.own {
            for member in session.roster.members.iter_mut().skip(1) {
                member.group_id = derived_id(own, &member.identity)?;
            }
        }
        let declaration = UniverseFrame {
            parameters,
            cipher_suites: session.roster.suites.iter().map(|suite| suite.id()).collect(),
            members: frames,
        };
        let declaration = encode_frame_part(&declaration)?;
        session.send_sealed(now, DmlsMessageType::Universe, &declaration)?;
        Ok(session)
    }

    /// Makes the own Send Group, and the Welcome to it.
    fn begin(
        config: Arc<Config>,
        policy: DmlsPolicy,
        roster: Roster,
        packages: Vec<Vec<MemberKeyPackage>>,
        now: Time,
    ) -> Result<Self, Error> {
        if policy.max_frame_size < 4096 + 1024 * roster.members.len() {
            let reason = "max_frame_size must be at least 4096 bytes and 1024 for each member";
            return Err(ConfigError::OutOfRange(reason).into());
        }
        let suite = config
            .cipher_suites
            .iter()
            .copied()
            .find(|suite| roster.suites.contains(suite))
            .ok_or(ConfigError::NoCipherSuite)?;
        let mut members = Vec::new();
        for (place, packages) in (0..).zip(packages) {
            if place != roster.me {
                let package = packages.into_iter().find(|package| package.suite == suite);
                members.push(package.ok_or_else(|| PeerIncompatible::CipherSuite(suite.id()))?);
            }
        }
        let own_id = roster.member(roster.me).map(|member| member.group_id.clone());
        let own_id = own_id.ok_or(CryptoError::Internal("the universe"))?;
        let parameters = encode_frame_part(&roster.parameters)?;
        let plan = NewSendGroup { id: &own_id, parameters: &parameters, members };
        let retention = retention(&config);
        let (own, welcome) = SendGroup::create(
            &config.crypto,
            suite,
            &config.identity,
            plan,
            retention,
            now.calendar,
        )?;
        let stored = Stored::new(&config, &roster.parameters.universe_id)?;
        let mut session = Self {
            peers: roster.others().map(|member| (member, Peer::new(now.monotonic))).collect(),
            epochs: (0..roster.len()).map(|member| (member, Epochs::new(now.monotonic))).collect(),
            config,
            policy,
            roster,
            own: Some(own),
            outbox: Outbox::default(),
            seed: None,
            key_packages: None,
            incorporated: BTreeMap::new(),
            removals: BTreeSet::new(),
            messages_since_update: 0,
            looked_at: None,
            watching: false,
            acknowledgements: false,
            updated_at: now.monotonic,
            committed_at: None,
            acknowledge_at: None,
            must_commit: false,
            removed_by: None,
            dead: None,
            stored,
            dirty: true,
            out: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.send_in_order(now, DmlsMessageType::Welcome, &welcome)?;
        Ok(session)
    }

    /// Joins the Send Group of `member` by its Welcome.
    pub(super) fn join(&mut self, member: u16, welcome: &[u8]) -> Result<(), Error> {
        const UNWANTED: Error =
            Error::PeerMisbehaved(PeerMisbehaved::UnexpectedMessage("second Welcome"));
        let key_packages = self.key_packages.as_ref().ok_or(UNWANTED)?;
        let joined = key_packages.open_welcome(
            &self.roster.suites,
            welcome,
            self.roster.members.len(),
            retention(&self.config),
        )?;
        self.check_joined(member, &joined)?;
        let group = joined.join()?;
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.group = Some(group);
        }
        self.events.push_back(DmlsEvent::Joined { member: MemberIndex(member) });
        self.dirty = true;
        if self.peers.values().all(|peer| peer.group.is_some() || !peer.is_active()) {
            self.key_packages = None;
        }
        self.propose_leaf_to(member)
    }

    /// The group is the one that the universe has for this member.
    fn check_joined(&self, member: u16, joined: &JoinedSendGroup) -> Result<(), Error> {
        let unexpected = |what| Err(PeerMisbehaved::UnexpectedUniverse(what).into());
        let Some(expected) = self.roster.member(member) else {
            return unexpected("an unknown member");
        };
        if joined.id() != expected.group_id {
            return unexpected("another group ID");
        }
        if joined.parameters() != encode_frame_part(&self.roster.parameters)? {
            return unexpected("other parameters");
        }
        if joined.claims().len() != self.roster.members.len() {
            return unexpected("another number of members");
        }
        for (claim, place) in joined.claims().iter().zip(self.roster.in_group_of(member)) {
            if self.roster.member(place).is_none_or(|known| *known.claim != *claim) {
                return unexpected("other members");
            }
        }
        Ok(())
    }
}

/// The suites that can be in one universe with the best of them.
fn compatible(mut suites: Vec<CipherSuite>, leaf_replacement: bool) -> Vec<CipherSuite> {
    if let Some(&first) = suites.first() {
        suites.retain(|suite| {
            suite.hash_len() == first.hash_len()
                && (suite.kem() == first.kem() || !leaf_replacement)
        });
    }
    suites
}

impl DmlsInvitation {
    /// Waits for an invitation. The KeyPackages are those whose frame the inviting member got.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the policy has values that cannot be.
    pub fn new(
        config: Arc<Config>,
        policy: DmlsPolicy,
        key_packages: DmlsKeyPackages,
    ) -> Result<Self, Error> {
        policy.check()?;
        Ok(Self {
            config,
            policy,
            key_packages: key_packages.inner,
            group: None,
            parameters: None,
            claims: Vec::new(),
        })
    }

    /// Takes the Welcome.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Another Welcome may be tried afterwards.
    pub fn handle_welcome(&mut self, frame: impl Into<Bytes>) -> Result<(), Error> {
        let frame = Frame::parse(frame.into(), self.policy.max_frame_size)?;
        if frame.message_type != DmlsMessageType::Welcome || self.group.is_some() {
            return Err(PeerMisbehaved::UnexpectedMessage(frame.message_type.name()).into());
        }
        let suites: &[CipherSuite] = &self.config.cipher_suites;
        let joined = self.key_packages.open_welcome(
            suites,
            frame.body(),
            MAX_MEMBERS,
            retention(&self.config),
        )?;
        let parameters = UniverseParameters::decode(joined.parameters())?;
        if parameters.universe_id != joined.id() {
            return Err(PeerMisbehaved::UnexpectedUniverse("another ID than its group").into());
        }
        self.claims = joined.claims().to_vec();
        self.parameters = Some(parameters);
        self.group = Some(joined.join()?);
        Ok(())
    }

    /// Takes the declaration, and begins.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or that the authentication service does not believe a member. The
    /// invitation is used up.
    pub fn handle_universe(self, frame: impl Into<Bytes>, now: Time) -> Result<DmlsSession, Error> {
        let unexpected = |what| Error::from(PeerMisbehaved::UnexpectedUniverse(what));
        let frame = Frame::parse(frame.into(), self.policy.max_frame_size)?;
        let (Some(mut first), Some(agreed)) = (self.group, self.parameters) else {
            return Err(PeerMisbehaved::UnexpectedMessage(frame.message_type.name()).into());
        };
        if frame.message_type != DmlsMessageType::Universe {
            return Err(PeerMisbehaved::UnexpectedMessage(frame.message_type.name()).into());
        }
        let opened = first.open(frame.body())?;
        let header = FrameHeader::decode(&opened.authenticated_data)?;
        if header.message_type != u8::from(frame.message_type) || header.sequence != 1 {
            return Err(PeerMisbehaved::InvalidHeader("of a Universe").into());
        }
        let (universe, suites) = parse_universe(&opened.data, &self.config)?;
        if universe.parameters != agreed {
            return Err(unexpected("other parameters than its group's"));
        }
        if universe.members.len() != self.claims.len() {
            return Err(unexpected("another number of members"));
        }
        let mut members = Vec::new();
        let mut packages = Vec::new();
        for (place, frame) in universe.members.iter().enumerate() {
            let candidate = Candidate::parse(&self.config, &suites, frame, now)?;
            if self.claims.get(place) != Some(&*candidate.claim) {
                return Err(unexpected("other members than its group's"));
            }
            let group_id = match place {
                0 => first.id().to_vec(),
                _ => derived_id(&first, &candidate.identity)?,
            };
            let (member, key_packages) = candidate.into_member(group_id);
            members.push(member);
            packages.push(key_packages);
        }
        let roster = Roster::new(&self.config, universe.parameters, suites, members)
            .map_err(|_| unexpected("one that cannot be"))?;
        let mut session = DmlsSession::begin(self.config, self.policy, roster, packages, now)?;
        session.key_packages = (session.roster.len() > 2).then_some(self.key_packages);
        if let Some(peer) = session.peers.get_mut(&0) {
            peer.group = Some(first);
            peer.inbound = super::order::Inbound::starting_at(2);
        }
        session.events.push_back(DmlsEvent::Joined { member: MemberIndex(0) });
        session.owe_acknowledgement(now, false);
        Ok(session)
    }
}

impl std::fmt::Debug for DmlsInvitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmlsInvitation").finish_non_exhaustive()
    }
}

/// Whether the groups have to be stored.
pub(super) fn retention(config: &Config) -> Retention {
    match config.sessions {
        Some(_) => Retention::Epochs,
        None => Retention::Keys,
    }
}

/// The header of a frame that has a place in the order, and the ID of the group it is for.
pub(super) fn header_of(frame: &Frame) -> Result<(FrameHeader, Option<Vec<u8>>), Error> {
    if frame.message_type == DmlsMessageType::Welcome {
        let header = FrameHeader {
            message_type: frame.message_type.into(),
            sequence: 0,
            resumed_from: None,
            imports: Vec::new(),
            digest: Opaque::default(),
        };
        return Ok((header, None));
    }
    let commit;
    let message = match frame.message_type {
        DmlsMessageType::Commit => {
            commit = CommitFrame::decode(frame.body())?.commit;
            MessageHeader::parse(&commit.0)?
        }
        DmlsMessageType::BulkMessage => MessageHeader::parse(split_bulk(frame.body())?.0)?,
        _ => MessageHeader::parse(frame.body())?,
    };
    let header = FrameHeader::decode(message.authenticated_data)?;
    if header.message_type != u8::from(frame.message_type) {
        return Err(PeerMisbehaved::InvalidHeader("another type").into());
    }
    let expected = match frame.message_type {
        DmlsMessageType::Commit => ContentType::Commit,
        _ => ContentType::Application,
    };
    if message.content_type != expected {
        return Err(InvalidMessage::UnexpectedWireFormat(frame.message_type.name()).into());
    }
    if (frame.message_type == DmlsMessageType::BulkMessage) == header.digest.0.is_empty() {
        return Err(PeerMisbehaved::InvalidHeader("the digest").into());
    }
    if header.sequence == 0 || header.sequence == u64::MAX {
        return Err(InvalidMessage::Malformed("place of a frame").into());
    }
    Ok((header, Some(message.group_id.to_vec())))
}
