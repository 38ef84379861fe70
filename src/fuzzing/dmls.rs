//! Three members of a universe, of which the last one has genuine keys and does what the fuzzer wants.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;

use super::Input;
use crate::{
    Config, Destination, DmlsEvent, DmlsKeyPackages, DmlsMember, DmlsPolicy, DmlsSession,
    DmlsUniverse, Identity, MemberIndex, PinnedKeys, Time,
    wire::{DmlsMessageType, EpochRef, Frame, ResendFrame, ResendOfFrame, encode_frame_part},
};

const MALLORY: usize = 2;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    let identities: Vec<_> = (0..3)
        .map(|member| Identity::generate(&format!("member{member}")).expect("a key"))
        .collect();
    let lines: String = identities.iter().map(|own| own.public_line() + "\n").collect();
    let pinned = PinnedKeys::parse(&lines).expect("lines of our own");
    let config = |identity| {
        let builder = Config::builder().identity(identity);
        Arc::new(builder.authentication_service(pinned.clone()).build().expect("defaults"))
    };
    identities.into_iter().map(config).collect()
});

/// Whatever Mallory sends, the other two go on with each other, in bounded memory.
pub fn dmls(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    while !input.is_empty() {
        world.act(&mut input);
    }
    world.check();
}

/// A universe of three.
pub(super) fn sessions(now: Time) -> Vec<DmlsSession> {
    let packages: Vec<_> = CONFIGS
        .iter()
        .map(|config| DmlsKeyPackages::new(config, now).expect("KeyPackages"))
        .collect();
    let members = packages.iter().enumerate().map(|(place, packages)| DmlsMember {
        key_packages: packages.frame().clone(),
        send_group_id: vec![u8::try_from(place).expect("three")],
    });
    let universe = DmlsUniverse::new("universe", members.collect());
    let policy = DmlsPolicy {
        acknowledge_wait: Duration::ZERO,
        max_frame_size: 8192,
        max_waiting_frames: 32,
        max_waiting_bytes: 1 << 16,
        max_forwarded_bytes: 1 << 16,
        ..DmlsPolicy::manual()
    };
    let create = |(config, packages)| {
        DmlsSession::create(Arc::clone(config), policy, &universe, packages, now)
            .expect("a universe")
    };
    CONFIGS.iter().zip(packages).map(create).collect()
}

struct World {
    sessions: Vec<DmlsSession>,
    now: Time,
    /// What is on the way between members who keep the rules, and to Mallory.
    frames: Vec<(usize, Destination, Bytes)>,
    /// What was ever sent.
    recorded: Vec<(usize, Bytes)>,
    /// How many messages each of the first two has sent, and got from the other one.
    sent: [usize; 2],
    received: [usize; 2],
}

impl World {
    fn new() -> Self {
        let now = Time::now();
        let sessions = sessions(now);
        let (frames, recorded) = (Vec::new(), Vec::new());
        let mut world = Self { sessions, now, frames, recorded, sent: [0; 2], received: [0; 2] };
        world.deliver();
        world
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let operation = input.byte() % 13;
        let honest = usize::from(input.byte() % 2);
        match operation {
            0 => {
                let data = vec![7; input.number() % 6000];
                self.sessions[honest].protect(self.now, &data).expect("it is short");
                self.sent[honest] += 1;
            }
            // Refused only while Mallory does not acknowledge.
            1 => drop(self.sessions[honest].update_and_commit(self.now)),
            2 => drop(self.sessions[honest].commit(self.now)),
            3 => self.pass(Duration::from_millis(u64::from(input.byte()) * 100)),
            // Any bytes, or a frame that was sent, edited.
            4 | 5 => {
                let (_, frame) = self.recorded(input);
                let (frame, _) = input.part(|| frame.to_vec());
                self.hand(MALLORY, honest, frame);
            }
            6 => {
                let (from, frame) = self.recorded(input);
                let (frame, _) = input.part(|| frame.to_vec());
                if let Ok(frame) = DmlsSession::forward(index(from), &frame) {
                    self.hand(MALLORY, honest, frame.to_vec());
                }
            }
            // Genuine seals around any content: messages, acknowledgements, places in the future.
            7 | 8 => {
                let types = [
                    DmlsMessageType::Message,
                    DmlsMessageType::Acknowledge,
                    DmlsMessageType::BulkMessage,
                    DmlsMessageType::Commit,
                ];
                let message_type = types[usize::from(input.byte() % 4)];
                let skipped = if operation == 8 { u64::from(input.byte() % 64) } else { 0 };
                let length = usize::from(input.byte());
                let content = input.bytes(length);
                let forged = self.sessions[MALLORY].forge(message_type, skipped, content);
                self.hand_to_both(forged.expect("Mallory's own group").as_ref());
            }
            9 => {
                let import = EpochRef {
                    member: u16::from(input.byte() % 4),
                    epoch: u64::from(input.byte() % 8),
                    digest: [input.byte(); 16],
                };
                let keys = vec![vec![input.byte()]; usize::from(input.byte() % 2)];
                let count = usize::from(input.byte() % 2);
                let proposals: Vec<_> = (0..count)
                    .map(|_| self.recorded(input).1.get(4..).unwrap_or_default().to_vec())
                    .collect();
                let forged = self.sessions[MALLORY].forge_commit(vec![import], &keys, proposals);
                self.hand_to_both(forged.expect("Mallory's own group").as_ref());
            }
            10 | 11 => {
                let (first, member) = (u64::from(input.byte()), u16::from(input.byte() % 4));
                let wanted = ResendFrame { first, end: first + u64::from(input.byte()) };
                let (message_type, body) = match operation {
                    10 => (DmlsMessageType::Resend, encode_frame_part(&wanted)),
                    _ => {
                        let body = ResendOfFrame { member, wanted };
                        (DmlsMessageType::ResendOf, encode_frame_part(&body))
                    }
                };
                let frame = Frame::new(message_type, &body.expect("short")).expect("short");
                self.hand(MALLORY, honest, frame.encoded().to_vec());
            }
            _ => self.deliver(),
        }
        self.collect();
    }

    /// A frame that was sent by somebody.
    fn recorded(&self, input: &mut Input<'_>) -> (usize, Bytes) {
        let place = input.number() % self.recorded.len();
        self.recorded[self.recorded.len() - 1 - place].clone()
    }

    fn hand(&mut self, from: usize, to: usize, frame: Vec<u8>) {
        let result = self.sessions[to].handle_frame(self.now, index(from), frame);
        assert!(from == MALLORY || result.is_ok(), "{from} to {to}: {result:?}");
        self.collect();
    }

    fn hand_to_both(&mut self, frame: &[u8]) {
        for to in [0, 1] {
            self.hand(MALLORY, to, frame.to_vec());
        }
    }

    fn collect(&mut self) {
        for (member, session) in self.sessions.iter_mut().enumerate() {
            while let Some((to, frame)) = session.poll_frame().expect("there is no store") {
                self.recorded.push((member, frame.clone()));
                self.frames.push((member, to, frame));
            }
            while let Some(event) = session.poll_event() {
                match event {
                    DmlsEvent::Message { from, .. } if from != index(MALLORY) && member < 2 => {
                        self.received[member] += 1;
                    }
                    DmlsEvent::Refused { member: refused, error } if member < 2 => {
                        assert_eq!(refused, index(MALLORY), "refused for {error}");
                    }
                    DmlsEvent::Removed { .. } | DmlsEvent::RemovedSelf { .. } if member < 2 => {
                        panic!("nobody can have been removed")
                    }
                    _ => {}
                }
            }
        }
        assert!(self.recorded.len() < 100_000);
    }

    fn deliver(&mut self) {
        self.collect();
        while !self.frames.is_empty() {
            for (from, destination, frame) in std::mem::take(&mut self.frames) {
                let to = (0..3).filter(|to| *to != from).filter(|to| match destination {
                    Destination::All => true,
                    Destination::One(one) => one == index(*to),
                });
                for to in to {
                    if to == MALLORY {
                        // What it has forged may have confused it.
                        let session = &mut self.sessions[MALLORY];
                        let _ = session.handle_frame(self.now, index(from), frame.clone());
                    } else {
                        self.hand(from, to, frame.to_vec());
                    }
                }
            }
            self.collect();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for session in &mut self.sessions {
            if session.poll_timeout().is_some_and(|at| at <= self.now.monotonic) {
                let _ = session.handle_timeout(self.now);
            }
        }
        self.deliver();
    }

    /// The first two can do all that they could before.
    fn check(mut self) {
        for _ in 0..5 {
            self.pass(Duration::from_secs(12));
        }
        for member in [0, 1] {
            let _ = self.sessions[member].update_and_commit(self.now);
            self.sessions[member].protect(self.now, b"unharmed").expect("it is short");
            self.sent[member] += 1;
        }
        for _ in 0..5 {
            self.pass(Duration::from_secs(12));
        }
        for (member, other) in [(0, 1), (1, 0)] {
            assert_eq!(self.received[other], self.sent[member], "of member {member}");
            let epoch = |at: usize| self.sessions[at].epoch(index(member));
            assert_eq!(epoch(0), epoch(1));
        }
    }
}

pub(super) fn index(member: usize) -> MemberIndex {
    MemberIndex(u16::try_from(member).expect("three"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DMLS_FUZZ=100 cargo test --lib fuzzing` runs a hundred times as many.
    fn random_inputs(mut state: u64) {
        let factor = std::env::var("DMLS_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        let mut byte = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.to_be_bytes()[0]
        };
        for _ in 0..500 * factor {
            let length = usize::from(byte());
            let input: Vec<u8> = (0..length).map(|_| byte()).collect();
            dmls(&input);
        }
    }

    // CH-10, DM-19
    #[test]
    fn random_inputs_find_nothing() {
        random_inputs(1);
    }

    // CH-10, DM-19
    #[test]
    fn more_random_inputs_find_nothing() {
        random_inputs(2);
    }

    #[test]
    fn seeds_find_nothing() {
        for (_, input) in crate::fuzzing::seeds().iter().filter(|(target, _)| *target == "dmls") {
            dmls(input);
        }
    }
}
