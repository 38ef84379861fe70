//! Members in memory, with a simulated clock and simulated links.

mod attack;
mod attack_universe;
mod capture;
mod forward;
mod operations;
mod removal;
mod simulation;
mod store;
#[cfg(feature = "x509")]
mod x509;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use super::*;
use crate::{
    Identity, MemoryStore, PinnedKeys, SignatureScheme, auth::danger::AcceptAnyone,
    config::ConfigBuilder, error::PeerMisbehaved,
};

const SUITE: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A generator of the numbers of a test that can be repeated (SplitMix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// A universe with the frames that are on their way.
pub(super) struct World {
    pub(super) members: Vec<Node>,
    pub(super) now: Time,
    /// What is on the way from one member to another.
    links: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    /// Every frame that was ever sent, by its sender.
    pub(super) recorded: Vec<(usize, Bytes)>,
    /// Links that carry nothing, and lose what they have.
    pub(super) cut: Vec<(usize, usize)>,
}

pub(super) struct Node {
    pub(super) session: DmlsSession,
    pub(super) config: Arc<Config>,
    pub(super) policy: DmlsPolicy,
    pub(super) events: Vec<DmlsEvent>,
    /// Data by its sender.
    pub(super) received: BTreeMap<u16, Vec<Vec<u8>>>,
    pub(super) errors: Vec<Error>,
}

pub(super) struct Setup {
    pub(super) policy: DmlsPolicy,
    pub(super) leaf_replacement: bool,
    pub(super) stores: bool,
    pub(super) suites: Vec<Vec<CipherSuite>>,
    /// The only suite of the universe, if it is not of the default ones.
    pub(super) suite: Option<CipherSuite>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: DmlsPolicy::manual(),
            leaf_replacement: true,
            stores: false,
            suites: Vec::new(),
            suite: None,
        }
    }
}

impl Setup {
    pub(super) fn configs(&self, count: usize) -> Vec<Arc<Config>> {
        let scheme = self.suite.map_or(SignatureScheme::ED25519, CipherSuite::signature_scheme);
        let identity = |i| Identity::generate_with(&format!("member{i}"), scheme).unwrap();
        let identities: Vec<_> = (0..count).map(identity).collect();
        let pins: String =
            identities.iter().map(|identity| identity.public_line() + "\n").collect();
        let config = |(place, identity): (usize, Identity)| {
            let mut builder: ConfigBuilder<Identity, Arc<dyn crate::AuthenticationService>> =
                Config::builder()
                    .identity(identity)
                    .authentication_service(PinnedKeys::parse(&pins).unwrap());
            if self.stores {
                builder = builder.session_store(MemoryStore::default());
            }
            if let Some(suites) = self.suites.get(place) {
                builder = builder.cipher_suites(suites.clone());
            }
            if let Some(suite) = self.suite {
                builder = builder.cipher_suites([suite]);
            }
            Arc::new(builder.build().unwrap())
        };
        identities.into_iter().enumerate().map(config).collect()
    }

    /// A universe that the application defines, its Welcomes not delivered yet.
    pub(super) fn create(&self, count: usize) -> World {
        self.create_with(self.configs(count))
    }

    pub(super) fn create_with(&self, configs: Vec<Arc<Config>>) -> World {
        let now = start();
        let packages: Vec<_> =
            configs.iter().map(|config| DmlsKeyPackages::new(config, now).unwrap()).collect();
        let members = packages
            .iter()
            .enumerate()
            .map(|(place, packages)| DmlsMember {
                key_packages: packages.frame().clone(),
                send_group_id: format!("send group {place}").into_bytes(),
            })
            .collect();
        let mut universe = DmlsUniverse::new("universe", members);
        universe.leaf_replacement = self.leaf_replacement;
        if let Some(suite) = self.suite {
            universe.cipher_suites = vec![suite];
            universe.export_key_length = u16::try_from(suite.hash_len()).unwrap();
        }
        let sessions = configs.iter().zip(packages).map(|(config, packages)| {
            let config = Arc::clone(config);
            DmlsSession::create(config, self.policy, &universe, packages, now).unwrap()
        });
        let sessions = sessions.collect();
        World::new(sessions, configs, self.policy, now)
    }

    /// A universe in which everyone has joined everything.
    pub(super) fn joined(&self, count: usize) -> World {
        let mut world = self.create(count);
        world.deliver_all();
        for member in 0..count {
            assert_eq!(world.epochs(member), vec![Some(1); count]);
        }
        world.clear();
        world
    }
}

pub(super) fn start() -> Time {
    Time::at(Instant::now(), SystemTime::now())
}

pub(super) fn index(member: usize) -> MemberIndex {
    MemberIndex(u16::try_from(member).unwrap())
}

impl World {
    pub(super) fn new(
        sessions: Vec<DmlsSession>,
        configs: Vec<Arc<Config>>,
        policy: DmlsPolicy,
        now: Time,
    ) -> Self {
        let members = sessions
            .into_iter()
            .zip(configs)
            .map(|(session, config)| Node {
                session,
                config,
                policy,
                events: Vec::new(),
                received: BTreeMap::new(),
                errors: Vec::new(),
            })
            .collect();
        let mut world =
            Self { members, now, links: BTreeMap::new(), recorded: Vec::new(), cut: Vec::new() };
        for member in 0..world.members.len() {
            world.collect(member);
        }
        world
    }

    /// Puts what a member has to send onto the links.
    pub(super) fn collect(&mut self, member: usize) {
        while let Some((destination, frame)) = self.members[member].session.poll_frame().unwrap() {
            self.recorded.push((member, frame.clone()));
            let to: Vec<usize> = match destination {
                Destination::All => (0..self.members.len()).filter(|to| *to != member).collect(),
                Destination::One(to) => vec![usize::from(to.0)],
            };
            for to in to {
                self.links.entry((member, to)).or_default().push_back(frame.clone());
            }
        }
        let node = &mut self.members[member];
        while let Some(event) = node.session.poll_event() {
            if let DmlsEvent::Message { from, data } = &event {
                node.received.entry(from.0).or_default().push(data.to_vec());
            }
            node.events.push(event);
        }
    }

    pub(super) fn act<T>(
        &mut self,
        member: usize,
        act: impl FnOnce(&mut DmlsSession, Time) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let result = act(&mut self.members[member].session, self.now);
        self.collect(member);
        result
    }

    /// Delivers the first frame of one link.
    pub(super) fn deliver(&mut self, from: usize, to: usize) {
        let Some(frame) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        if !self.cut.contains(&(from, to)) {
            self.hand(from, to, frame);
        }
    }

    pub(super) fn hand(&mut self, from: usize, to: usize, frame: Bytes) {
        let result = self.members[to].session.handle_frame(self.now, index(from), frame);
        if let Err(error) = result {
            self.members[to].errors.push(error);
        }
        self.collect(to);
    }

    pub(super) fn deliver_all(&mut self) {
        while let Some(&(from, to)) =
            self.links.iter().find(|(_, frames)| !frames.is_empty()).map(|(link, _)| link)
        {
            self.deliver(from, to);
        }
    }

    /// A link that has something, by chance.
    pub(super) fn deliver_one(&mut self, numbers: &mut Numbers) -> bool {
        self.deliver_one_but(numbers, usize::MAX)
    }

    /// The same, of anybody but one member.
    pub(super) fn deliver_one_but(&mut self, numbers: &mut Numbers, stalled: usize) -> bool {
        let links = self.links.iter().filter(|((from, _), _)| *from != stalled);
        let busy: Vec<_> =
            links.filter(|(_, frames)| !frames.is_empty()).map(|(link, _)| *link).collect();
        if busy.is_empty() {
            return false;
        }
        let (from, to) = busy[numbers.below(busy.len())];
        self.deliver(from, to);
        true
    }

    /// Loses what is on a link.
    pub(super) fn lose(&mut self, from: usize, to: usize) {
        self.links.remove(&(from, to));
    }

    pub(super) fn on_link(&self, from: usize, to: usize) -> usize {
        self.links.get(&(from, to)).map_or(0, VecDeque::len)
    }

    /// Lets time pass, with everything delivered and every timer served.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            self.deliver_all();
            let next = self.members.iter().filter_map(|node| node.session.poll_timeout()).min();
            match next {
                Some(at) if at <= end.monotonic => {
                    let step = at.saturating_duration_since(self.now.monotonic);
                    self.now = self.now.after(step);
                    self.serve_timers();
                }
                _ => break,
            }
        }
        self.now = end;
        self.deliver_all();
    }

    pub(super) fn serve_timers(&mut self) {
        for member in 0..self.members.len() {
            let due = self.members[member].session.poll_timeout();
            if due.is_some_and(|due| due <= self.now.monotonic) {
                self.act(member, DmlsSession::handle_timeout).unwrap();
            }
        }
    }

    /// The member's process dies, and another one goes on with what is stored.
    pub(super) fn restore(&mut self, member: usize) {
        let node = &mut self.members[member];
        let config = Arc::clone(&node.config);
        node.session = DmlsSession::restore(config, node.policy, b"universe", self.now).unwrap();
    }

    pub(super) fn protect(&mut self, member: usize, data: &[u8]) {
        self.act(member, |session, now| session.protect(now, data)).unwrap();
    }

    pub(super) fn epochs(&self, member: usize) -> Vec<Option<u64>> {
        (0..self.members.len()).map(|of| self.members[member].session.epoch(index(of))).collect()
    }

    /// Everyone among `members` agrees on the epochs of all of them.
    pub(super) fn agree(&self, members: &[usize]) {
        for &of in members {
            let owner = &self.members[of].session;
            for &at in members {
                let session = &self.members[at].session;
                assert_eq!(
                    session.epoch(index(of)),
                    owner.epoch(index(of)),
                    "member {at} and the owner of {of}"
                );
                let group = session.group_of(index(of).0).unwrap();
                assert_eq!(group.transcript(), owner.own.as_ref().unwrap().transcript());
            }
        }
    }

    pub(super) fn clear(&mut self) {
        for node in &mut self.members {
            node.events.clear();
            node.received.clear();
            node.errors.clear();
        }
    }

    pub(super) fn data(&self, at: usize, from: usize) -> Vec<Vec<u8>> {
        self.members[at].received.get(&index(from).0).cloned().unwrap_or_default()
    }
}

/// How many bytes and things a session holds on behalf of others.
pub(super) fn held(session: &DmlsSession) -> (usize, usize) {
    let frames = session.peers.values().map(|peer| peer.inbound.waiting());
    frames.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}
