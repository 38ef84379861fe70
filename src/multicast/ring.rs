//! What a relay keeps, and whom it sends what. No IO.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    leg::encode_frame,
    queue::{FRAME_COST, QueueWriter},
    relay::RelayOptions,
};
use crate::{
    dmls::place_of,
    error::{Error, PeerMisbehaved},
    wire::{DmlsMessageType, LEG_VERSION, LegFrame, LegHello, LegMessage, NO_MEMBER, WantedPlace},
};

/// Legs of one member at once.
const LEGS_PER_MEMBER: usize = 4;

pub(super) type LegId = u64;
/// Numbers frames in the order in which they came.
type Arrival = u64;

pub(super) struct State {
    options: RelayOptions,
    kept: BTreeMap<Arrival, Kept>,
    origins: BTreeMap<u16, Origin>,
    legs: BTreeMap<LegId, Leg>,
    counter: u64,
}

struct Kept {
    origin: u16,
    destination: u16,
    /// Frames for all have one.
    place: Option<u64>,
    message_type: u8,
    records: Bytes,
}

/// What is kept of one member: the newest of what it sent.
#[derive(Default)]
struct Origin {
    arrivals: BTreeSet<Arrival>,
    places: BTreeMap<u64, Arrival>,
    /// Frames to one member, by that and their type: the newest of each is kept.
    to_one: BTreeMap<(u16, u8), Arrival>,
    bytes: usize,
}

struct Leg {
    member: u16,
    /// The first place that it lacks of each member. A flood of frames is compared with it.
    wanted: BTreeMap<u16, u64>,
    queue: QueueWriter,
    /// The first kept frame that it was not sent, if it is behind.
    cursor: Option<Arrival>,
    /// When a frame came over it last.
    used: u64,
}

impl State {
    pub(super) fn new(options: RelayOptions) -> Self {
        Self {
            options,
            kept: BTreeMap::new(),
            origins: BTreeMap::new(),
            legs: BTreeMap::new(),
            counter: 0,
        }
    }

    /// A member has said who it is.
    pub(super) fn attach(&mut self, hello: LegHello, queue: QueueWriter) -> LegId {
        let member = hello.member;
        let same = || self.legs.iter().filter(|(_, leg)| leg.member == member);
        if hello.universe_id.is_empty() && same().count() == 0 {
            // It begins anew; what it sent belongs to an earlier universe.
            self.forget(member, |_| true);
        } else if same().count() >= LEGS_PER_MEMBER
            && let Some((id, _)) = same().min_by_key(|(id, leg)| (leg.used, **id))
        {
            let id = *id;
            self.legs.remove(&id);
        }
        let next = self.origins.get(&member).and_then(|origin| origin.places.last_key_value());
        let next = next.map_or(0, |(place, _)| place.saturating_add(1));
        let answer = LegMessage::Hello(LegHello {
            version: LEG_VERSION,
            universe_id: Vec::new(),
            member: NO_MEMBER,
            wanted: vec![WantedPlace { member, next }],
        });
        if let Ok(records) = answer.encode() {
            queue.push(records);
        }
        self.counter += 1;
        let id = self.counter;
        let wanted = wanted_of(&hello);
        self.legs.insert(id, Leg { member, wanted, queue, cursor: Some(0), used: id });
        self.catch_up(id);
        id
    }

    /// A member that had no universe has one now. `false`: it is another one.
    pub(super) fn hello_again(&mut self, id: LegId, hello: LegHello) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return true };
        if leg.member != hello.member {
            return false;
        }
        leg.wanted = wanted_of(&hello);
        leg.cursor = Some(0);
        self.catch_up(id);
        true
    }

    pub(super) fn detach(&mut self, id: LegId) {
        let Some(leg) = self.legs.remove(&id) else { return };
        let member = leg.member;
        if self.legs.values().all(|leg| leg.member != member) {
            // Their private keys go with their sender.
            self.forget(member, |kept| kept.message_type == u8::from(DmlsMessageType::KeyPackages));
        }
    }

    /// Takes a frame, keeps it if somebody may want it later, and puts it into the queues of others.
    pub(super) fn copy(&mut self, id: LegId, frame: &LegFrame) -> Result<(), Error> {
        let LegFrame { origin, destination, frame } = frame;
        let (origin, destination) = (*origin, *destination);
        self.counter += 1;
        let arrival = self.counter;
        let Some(leg) = self.legs.get_mut(&id) else { return Ok(()) };
        leg.used = arrival;
        if origin != leg.member {
            return Err(PeerMisbehaved::UnexpectedMessage("frame of another member").into());
        }
        let place = place_of(frame);
        let message_type = frame.first().copied().unwrap_or_default();
        if destination == NO_MEMBER && place.is_none() {
            return Err(PeerMisbehaved::UnexpectedMessage("frame without a place for all").into());
        }
        let records = encode_frame(origin, destination, frame.clone())?;
        let kept = Kept { origin, destination, place, message_type, records };
        if kept.is_worth_keeping() && !self.keep(arrival, &kept) {
            return Ok(());
        }
        let is_kept = kept.is_worth_keeping();
        for leg in self.legs.values_mut().filter(|leg| leg.wants(&kept) && leg.cursor.is_none()) {
            if !leg.queue.is_full() {
                leg.queue.push(kept.records.clone());
            } else if is_kept {
                leg.cursor = Some(arrival);
            }
        }
        Ok(())
    }

    /// Puts kept frames into the queue of a leg that is behind, as many as there is room for.
    pub(super) fn catch_up(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(cursor) = leg.cursor else { return };
        leg.cursor = None;
        for (&arrival, kept) in self.kept.range(cursor..) {
            if !leg.wants(kept) {
                continue;
            }
            if leg.queue.is_full() {
                leg.cursor = Some(arrival);
                return;
            }
            leg.queue.push(kept.records.clone());
        }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.origins.values().map(|origin| origin.bytes).sum()
    }

    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// `false`: the same is there already.
    fn keep(&mut self, arrival: Arrival, kept: &Kept) -> bool {
        let origin = self.origins.entry(kept.origin).or_default();
        if let Some(place) = kept.place {
            let known = origin.places.get(&place).and_then(|arrival| self.kept.get(arrival));
            if known.is_some_and(|known| known.records == kept.records) {
                return false;
            }
        } else if let Some(&older) = origin.to_one.get(&kept.kind())
            && let Some(kept) = self.kept.remove(&older)
        {
            origin.drop(older, &kept);
        }
        origin.arrivals.insert(arrival);
        origin.bytes += kept.cost();
        match kept.place {
            Some(place) => origin.places.insert(place, arrival),
            None => origin.to_one.insert(kept.kind(), arrival),
        };
        let copy = Kept { records: kept.records.clone(), ..*kept };
        self.kept.insert(arrival, copy);
        while origin.bytes > self.options.kept_bytes && origin.arrivals.len() > 1 {
            let Some(&oldest) = origin.arrivals.first() else { break };
            if let Some(kept) = self.kept.remove(&oldest) {
                origin.drop(oldest, &kept);
            }
        }
        true
    }

    /// Keeps no longer what `is_unwanted` of a member.
    fn forget(&mut self, member: u16, is_unwanted: impl Fn(&Kept) -> bool) {
        let Some(origin) = self.origins.get_mut(&member) else { return };
        for arrival in origin.arrivals.clone() {
            if self.kept.get(&arrival).is_some_and(&is_unwanted)
                && let Some(kept) = self.kept.remove(&arrival)
            {
                origin.drop(arrival, &kept);
            }
        }
    }
}

impl Origin {
    fn drop(&mut self, arrival: Arrival, kept: &Kept) {
        self.arrivals.remove(&arrival);
        self.bytes -= kept.cost();
        match kept.place {
            Some(place) if self.places.get(&place) == Some(&arrival) => {
                self.places.remove(&place);
            }
            None => {
                self.to_one.remove(&kept.kind());
            }
            Some(_) => {}
        }
    }
}

impl Kept {
    /// What it takes of `kept_bytes`: a short frame takes more than its bytes.
    fn cost(&self) -> usize {
        FRAME_COST + self.records.len()
    }

    fn kind(&self) -> (u16, u8) {
        (self.destination, self.message_type)
    }

    /// A Resend is asked again, and what it is answered with is kept as it was sent first.
    fn is_worth_keeping(&self) -> bool {
        match self.destination {
            NO_MEMBER => true,
            _ => [DmlsMessageType::KeyPackages, DmlsMessageType::LeafUpdate]
                .into_iter()
                .any(|message_type| self.message_type == u8::from(message_type)),
        }
    }
}

impl Leg {
    fn wants(&self, kept: &Kept) -> bool {
        let next = || self.wanted.get(&kept.origin).copied().unwrap_or(0);
        let is_lacking =
            kept.place.is_none_or(|place| kept.destination != NO_MEMBER || place >= next());
        let is_for_it = [NO_MEMBER, self.member].contains(&kept.destination);
        kept.origin != self.member && is_for_it && is_lacking
    }
}

/// Of a member that is named twice, the first place counts, as for members.
fn wanted_of(hello: &LegHello) -> BTreeMap<u16, u64> {
    hello.wanted.iter().rev().map(|wanted| (wanted.member, wanted.next)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        multicast::queue::{Outgoing, QueueReader, queue},
        wire::{Frame, FrameHeader, Opaque},
    };

    const KEPT: usize = 5500;

    fn state() -> State {
        State::new(RelayOptions { kept_bytes: KEPT, ..RelayOptions::default() })
    }

    fn join(state: &mut State, member: u16, universe_id: &[u8], next: u64) -> (LegId, QueueReader) {
        let (writer, reader) = queue(1 << 20);
        let wanted = (0..3).map(|member| WantedPlace { member, next }).collect();
        let universe_id = universe_id.to_vec();
        let hello = LegHello { version: LEG_VERSION, universe_id, member, wanted };
        (state.attach(hello, writer), reader)
    }

    /// What has a form that tells its place, as the sealed messages of a Send Group have.
    fn message(place: u64, length: usize) -> Bytes {
        let header = FrameHeader {
            message_type: DmlsMessageType::Message.into(),
            sequence: place,
            resumed_from: None,
            imports: Vec::new(),
            digest: Opaque::default(),
        };
        let header = crate::wire::encode_frame_part(&header).unwrap();
        // MLSMessage(PrivateMessage): version, wire format, group ID, epoch, content type.
        let mut body = vec![0, 1, 0, 2, 1, b'g', 0, 0, 0, 0, 0, 0, 0, 1, 1];
        body.push(u8::try_from(header.len()).unwrap());
        body.extend_from_slice(&header);
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        body.extend_from_slice(&[1, 0, 0x40 | high, low]);
        body.extend(std::iter::repeat_n(7, length));
        Frame::new(DmlsMessageType::Message, &body).unwrap().encoded().clone()
    }

    fn send(state: &mut State, leg: LegId, origin: u16, frame: &Bytes) -> Result<(), Error> {
        state.copy(leg, &LegFrame { origin, destination: NO_MEMBER, frame: frame.clone() })
    }

    /// The frames that a leg is given.
    async fn frames(state: &State, reader: &mut QueueReader) -> Vec<(u16, Bytes)> {
        let mut leg = crate::multicast::leg::Leg::new(state.options.max_frame_size);
        while !reader.is_empty() {
            if let Some(Outgoing::Records(records)) = reader.next().await {
                leg.input().extend_from_slice(&records);
            }
        }
        let mut frames = Vec::new();
        while let Some(message) = leg.next().unwrap() {
            if let LegMessage::Frame(LegFrame { origin, frame, .. }) = message {
                frames.push((origin, frame));
            }
        }
        frames
    }

    // MC-05, CH-10: short frames take more memory than their bytes.
    #[test]
    fn a_flood_of_short_frames_is_bounded() {
        let mut state = state();
        let (near, _queue) = join(&mut state, 0, b"universe", 0);
        for place in 1..=1000 {
            send(&mut state, near, 0, &message(place, 64)).unwrap();
        }
        let held = |state: &State| -> usize {
            state.kept.values().map(|kept| FRAME_COST + kept.records.len()).sum()
        };
        assert!(held(&state) <= KEPT, "{} frames", state.kept.len());
        // Of frames to one member the newest is there, and nothing is left of the others.
        for length in 0..1000 {
            let body = vec![0; length % 7];
            let frame = Frame::new(DmlsMessageType::LeafUpdate, &body).unwrap().encoded().clone();
            state.copy(near, &LegFrame { origin: 0, destination: 1, frame }).unwrap();
        }
        let to_one = || state.kept.values().filter(|kept| kept.place.is_none());
        assert_eq!(to_one().count(), 1);
        assert_eq!(state.origins[&0].arrivals.len(), state.kept.len());
        assert_eq!(state.kept_bytes(), held(&state));
    }

    // MC-05
    #[tokio::test]
    async fn the_newest_frames_are_kept_for_those_who_come_later() {
        let mut state = state();
        let (near, _queue) = join(&mut state, 0, b"universe", 0);
        for place in 1..=20 {
            send(&mut state, near, 0, &message(place, 900)).unwrap();
            assert!(state.kept_bytes() <= KEPT);
        }
        let (_, mut late) = join(&mut state, 1, b"universe", 0);
        let all: Vec<_> = (16..=20).map(|place| (0, message(place, 900))).collect();
        assert_eq!(frames(&state, &mut late).await, all);
        let (_, mut later) = join(&mut state, 2, b"universe", 19);
        assert_eq!(frames(&state, &mut later).await, all[3..]);
    }

    // MC-05
    #[tokio::test]
    async fn what_is_the_same_is_copied_once_and_what_only_claims_to_be_is_not_the_same() {
        let mut state = state();
        let (near, _queue) = join(&mut state, 0, b"universe", 0);
        let (_, mut far) = join(&mut state, 1, b"universe", 0);
        let (first, second) = (message(1, 100), message(1, 101));
        for frame in [&first, &first, &second, &second] {
            send(&mut state, near, 0, frame).unwrap();
        }
        assert_eq!(frames(&state, &mut far).await, [(0, first.clone()), (0, second)]);
        assert!(send(&mut state, near, 1, &first).is_err());
        assert!(send(&mut state, near, 0, &Bytes::from_static(b"no place")).is_err());
    }

    // MC-05
    #[tokio::test]
    async fn key_packages_go_with_their_sender_and_old_universes_with_a_new_one() {
        let mut state = state();
        let (near, queue) = join(&mut state, 1, b"", 0);
        let offer = Frame::new(DmlsMessageType::KeyPackages, b"keys").unwrap().encoded().clone();
        let to_first = LegFrame { origin: 1, destination: 0, frame: offer.clone() };
        state.copy(near, &to_first).unwrap();
        state.copy(near, &to_first).unwrap();
        send(&mut state, near, 1, &message(1, 100)).unwrap();
        let (host, mut offers) = join(&mut state, 0, b"", 0);
        assert_eq!(frames(&state, &mut offers).await, [(1, offer), (1, message(1, 100))]);
        state.detach(host);
        state.detach(near);
        drop(queue);
        let (_, mut offers) = join(&mut state, 0, b"", 0);
        assert_eq!(frames(&state, &mut offers).await, [(1, message(1, 100))]);
        join(&mut state, 1, b"", 0);
        assert_eq!(state.kept_bytes(), 0);
        assert!(state.kept.is_empty());
    }

    #[test]
    fn legs_of_one_member_are_few() {
        let mut state = state();
        let mut queues = Vec::new();
        for _ in 0..20 {
            queues.push(join(&mut state, 1, b"universe", 0));
        }
        assert_eq!(state.legs(), LEGS_PER_MEMBER);
    }
}
