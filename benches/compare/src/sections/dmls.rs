//! Distributed MLS: members of a universe in memory, who hand each other their frames.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use mls_channel::{
    Config, Destination, DmlsEvent, DmlsKeyPackages, DmlsMember, DmlsPolicy, DmlsSession,
    DmlsUniverse, Identity, MemberIndex, PinnedKeys, Time,
};

use super::micros;
use crate::{
    measure::{Cost, Effort, Stopwatch},
    report::{Goal, Report},
    support::{AES, Result},
};

pub(super) const UNIVERSE_ID: &str = "universe";

/// The members, and the bytes that they have sent since somebody asked.
pub(super) struct Universe {
    pub(super) sessions: Vec<DmlsSession>,
    now: Time,
    bytes: usize,
}

/// Sending costs the same however many receive; renewing keys does not.
pub(super) fn dmls(effort: Effort, report: &mut Report) -> Result<()> {
    protecting(effort, report)?;
    bulk(effort, report)?;
    for members in [2, 8, 32] {
        updating(effort, report, members)?;
    }
    Ok(())
}

fn protecting(effort: Effort, report: &mut Report) -> Result<()> {
    let messages = effort.amount(2_000);
    let [mut many, mut few] = [Universe::with_one_owner(128)?, Universe::with_one_owner(2)?];
    let [many, few] = effort
        .alternate([&mut || many.timed_protect(messages, &[7; 1024]), &mut || {
            few.timed_protect(messages, &[7; 1024])
        }])?;
    let [many, few] = [many, few].map(|samples| micros(&samples, messages));
    report.add("protect 1 KiB for 128 members / for 2", "us", many, few, Goal::AtMost(1.2));

    let [mut together, mut alone] = [Universe::with_one_owner(2)?, Universe::with_one_owner(2)?];
    let batches = (messages / 16).max(1);
    let [together, alone] = effort.alternate([
        &mut || together.timed_protect_all(batches, &[&[7; 128][..]; 16]),
        &mut || alone.timed_protect(16 * batches, &[7; 128]),
    ])?;
    let [together, alone] = [together, alone].map(|samples| micros(&samples, 16 * batches));
    report.add("protect 128 B, 16 together / alone", "us", together, alone, Goal::None);
    Ok(())
}

/// 64 KiB to one receiver, and the AEAD at both ends.
fn bulk(effort: Effort, report: &mut Report) -> Result<()> {
    const SIZE: usize = 64 << 10;
    let messages = effort.amount(1_000);
    let data = vec![7; SIZE];
    let [mut universe, mut receiver] = [Universe::joined(2)?, Universe::joined(2)?];
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16])?);
    let sealed_and_opened = || -> Result<Cost> {
        let mut buffer = data.clone();
        let stopwatch = Stopwatch::start();
        for number in 0..messages as u128 {
            let nonce: [u8; 12] = std::array::from_fn(|i| number.to_be_bytes()[i + 4]);
            let nonce = || Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut buffer)?;
            key.open_in_place(nonce(), Aad::empty(), &mut buffer)?;
            buffer.truncate(SIZE);
        }
        Ok(stopwatch.stop())
    };
    let [protect, unprotect, aead] = effort.alternate([
        &mut || universe.timed_protect(messages, &data),
        &mut || receiver.timed_unprotect(messages, &data),
        &mut { sealed_and_opened },
    ])?;
    let [protect, unprotect, aead] =
        [protect, unprotect, aead].map(|samples| micros(&samples, messages));
    report.add("protect 64 KiB / seal and open", "us", protect, aead, Goal::None);
    report.add("unprotect 64 KiB / seal and open", "us", unprotect, aead, Goal::None);
    Ok(())
}

/// One update, and its incorporation by all others: what it costs all of them beside its share.
fn updating(effort: Effort, report: &mut Report, members: usize) -> Result<()> {
    let mut universe = Universe::joined(members)?;
    let rounds = effort.amount(400 / (members * members)).max(1);
    let mut bytes = 0;
    let [all] = effort.alternate([&mut || {
        universe.bytes = 0;
        let stopwatch = Stopwatch::start();
        for _ in 0..rounds {
            universe.update_everywhere()?;
        }
        let cost = stopwatch.stop();
        bytes = universe.bytes / rounds;
        Ok(cost)
    }])?;
    let cpu = micros(&all, rounds);
    let (each, share) = (cpu / members as f64, bytes as f64 / members as f64);
    let name = format!("an update and its incorporation, {members} members / each");
    report.add(&name, "us", cpu, each, Goal::None);
    report.add(&name, "B", bytes as f64, share, Goal::None);
    Ok(())
}

fn configs(members: usize) -> Result<Vec<Arc<Config>>> {
    let identities = (0..members).map(|member| Identity::generate(&format!("member{member}")));
    let identities = identities.collect::<std::result::Result<Vec<_>, _>>()?;
    let lines: String = identities.iter().map(|own| own.public_line() + "\n").collect();
    let pinned = PinnedKeys::parse(&lines)?;
    let config = |identity| -> Result<_> {
        let builder = Config::builder().identity(identity);
        let builder = builder.authentication_service(pinned.clone()).cipher_suites([AES]);
        Ok(Arc::new(builder.build()?))
    };
    identities.into_iter().map(config).collect()
}

impl Universe {
    /// The sessions of `count` of the members.
    pub(super) fn new(members: usize, count: usize) -> Result<Self> {
        let now = Time::now();
        let configs = configs(members)?;
        let packages = configs.iter().map(|config| DmlsKeyPackages::new(config, now));
        let packages = packages.collect::<std::result::Result<Vec<_>, _>>()?;
        let listed = packages.iter().enumerate().map(|(place, packages)| DmlsMember {
            key_packages: packages.frame().clone(),
            send_group_id: place.to_be_bytes().to_vec(),
        });
        let universe = DmlsUniverse::new(UNIVERSE_ID, listed.collect());
        let sessions = configs.into_iter().zip(packages).take(count).map(|(config, packages)| {
            DmlsSession::create(config, DmlsPolicy::manual(), &universe, packages, now)
        });
        let sessions = sessions.collect::<std::result::Result<_, _>>()?;
        Ok(Self { sessions, now, bytes: 0 })
    }

    /// Only the first member is there: protecting needs nobody else.
    fn with_one_owner(members: usize) -> Result<Self> {
        let mut universe = Self::new(members, 1)?;
        universe.sessions[0].update(universe.now)?;
        universe.collect(0)?;
        Ok(universe)
    }

    fn joined(members: usize) -> Result<Self> {
        let mut universe = Self::new(members, members)?;
        universe.deliver_all()?;
        Ok(universe)
    }

    fn collect(&mut self, member: usize) -> Result<Vec<(Destination, Bytes)>> {
        let mut frames = Vec::new();
        while let Some((to, frame)) = self.sessions[member].poll_frame()? {
            let receivers = match to {
                Destination::All => self.sessions.len() - 1,
                Destination::One(_) => 1,
            };
            self.bytes += frame.len() * receivers;
            frames.push((to, frame));
        }
        while let Some(event) = self.sessions[member].poll_event() {
            if let DmlsEvent::Refused { error, .. } = event {
                return Err(error.into());
            }
        }
        Ok(frames)
    }

    fn deliver_all(&mut self) -> Result<()> {
        loop {
            let mut moved = false;
            for from in 0..self.sessions.len() {
                for (to, frame) in self.collect(from)? {
                    moved = true;
                    self.deliver(from, to, &frame)?;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self, from: usize, to: Destination, frame: &Bytes) -> Result<()> {
        let from = MemberIndex(u16::try_from(from)?);
        for (place, session) in (0..).zip(&mut self.sessions) {
            let place = MemberIndex(place);
            if place != from && (to == Destination::All || to == Destination::One(place)) {
                session.handle_frame(self.now, from, frame.clone())?;
            }
        }
        Ok(())
    }

    /// Lets time pass, with all that is due.
    fn pass(&mut self, time: Duration) -> Result<()> {
        self.now = self.now.after(time);
        for session in &mut self.sessions {
            if session.poll_timeout().is_some_and(|at| at <= self.now.monotonic) {
                session.handle_timeout(self.now)?;
            }
        }
        self.deliver_all()
    }

    /// The first member updates, all acknowledge it, and all others commit with it.
    fn update_everywhere(&mut self) -> Result<()> {
        self.sessions[0].update(self.now)?;
        self.deliver_all()?;
        self.pass(Duration::from_secs(1))?;
        for member in 1..self.sessions.len() {
            if !self.sessions[member].commit(self.now)? {
                return Err("there was nothing to incorporate".into());
            }
            self.deliver_all()?;
        }
        // The others acknowledge those, and nobody has to keep anything.
        self.pass(Duration::from_secs(11))
    }

    fn timed_protect(&mut self, messages: usize, data: &[u8]) -> Result<Cost> {
        self.timed_protect_all(messages, &[data])
    }

    fn timed_protect_all(&mut self, times: usize, messages: &[&[u8]]) -> Result<Cost> {
        self.sessions[0].update(self.now)?;
        self.deliver_all()?;
        self.pass(Duration::from_secs(11))?;
        let stopwatch = Stopwatch::start();
        for _ in 0..times {
            self.sessions[0].protect_all(self.now, messages)?;
            while self.sessions[0].poll_frame()?.is_some() {}
        }
        Ok(stopwatch.stop())
    }

    fn timed_unprotect(&mut self, messages: usize, data: &[u8]) -> Result<Cost> {
        for _ in 0..messages {
            self.sessions[0].protect(self.now, data)?;
        }
        let frames = self.collect(0)?;
        let stopwatch = Stopwatch::start();
        for (_, frame) in frames {
            self.sessions[1].handle_frame(self.now, MemberIndex(0), frame)?;
            while self.sessions[1].poll_event().is_some() {}
        }
        let cost = stopwatch.stop();
        self.pass(Duration::from_secs(11))?;
        Ok(cost)
    }
}
