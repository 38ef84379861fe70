//! The frames of one other member, in order (DM-13, DM-14).
//!
//! A frame that comes before its time waits in a bounded queue: for earlier frames of the same
//! member, or for epochs of others that it refers to. What does not fit is dropped, and asked for
//! again when its time comes; so a flood of future frames costs its sender and nobody else.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::policy::{DmlsPolicy, MAX_BACKOFF};
use crate::{
    error::Error,
    wire::{Frame, FrameHeader, ResendFrame},
};

/// After so many questions without an answer others are asked, too.
const ASKED_IN_VAIN: u32 = 2;

/// What has come of one member's frames.
pub(super) struct Inbound {
    /// The place of the frame that is processed next.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    /// The place of the last frame that has come, whether or not there was room for it.
    last: Option<u64>,
    /// The place behind the last frame that another member says it has.
    known: u64,
    /// A frame of another member waits for one of this member that has not come.
    wanted: bool,
    /// Since when something waits for a frame that has not come.
    gap_since: Option<Instant>,
    /// How often it has been asked for in vain.
    asked: u32,
    /// Nothing of this member is processed any more.
    closed: Option<Error>,
    /// Frames that were processed, for others who have not got them.
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
}

pub(super) struct Waiting {
    pub(super) header: FrameHeader,
    pub(super) frame: Frame,
    pub(super) source: Source,
}

/// Where a frame has come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From its sender, as the transport knows.
    Sender,
    /// From somebody else, who may have changed it or made it up.
    Forwarder,
}

/// What became of a frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Queued,
    /// It was there before.
    Duplicate,
    /// There is no room for it now.
    Dropped,
}

impl Inbound {
    pub(super) fn starting_at(next: u64) -> Self {
        Self {
            next,
            waiting: BTreeMap::new(),
            bytes: 0,
            last: None,
            known: 0,
            wanted: false,
            gap_since: None,
            asked: 0,
            closed: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    pub(super) fn offer(
        &mut self,
        policy: &DmlsPolicy,
        header: FrameHeader,
        frame: Frame,
        source: Source,
    ) -> Offer {
        let sequence = header.sequence;
        if self.closed.is_some() {
            return Offer::Dropped;
        }
        if sequence < self.next {
            return Offer::Duplicate;
        }
        match self.waiting.get_mut(&sequence) {
            Some(known) if known.source == Source::Sender => return Offer::Duplicate,
            Some(known) if known.frame == frame => {
                // From now on it is its sender's.
                known.source = source;
                return Offer::Duplicate;
            }
            // One of the two is not genuine. The later one may be what was asked for.
            Some(_) => self.remove(sequence),
            None => {}
        }
        if source == Source::Sender {
            self.last = self.last.max(Some(sequence));
        }
        let resumes = header.resumed_from.is_some_and(|from| from <= self.next);
        let window = u64::try_from(policy.max_waiting_frames).unwrap_or(u64::MAX);
        if sequence - self.next >= window && !resumes {
            return Offer::Dropped;
        }
        let length = frame.encoded().len();
        while self.bytes + length > policy.max_waiting_bytes
            || self.waiting.len() >= policy.max_waiting_frames
        {
            match self.dispensable(sequence, source) {
                Some(place) => self.remove(place),
                None => return Offer::Dropped,
            }
        }
        self.bytes += length;
        self.waiting.insert(sequence, Waiting { header, frame, source });
        Offer::Queued
    }

    /// The place of a frame that makes room for one at `sequence`. The front has precedence over what is
    /// further back, and what has come from its sender over what others have passed on.
    fn dispensable(&self, sequence: u64, source: Source) -> Option<u64> {
        let mut places = self.waiting.iter().rev().filter(|(place, _)| **place != self.next);
        let last = places.clone().next().map(|(place, _)| *place).filter(|last| *last > sequence);
        match source {
            Source::Forwarder if sequence == self.next => last,
            Source::Forwarder => None,
            Source::Sender => places
                .find(|(_, waiting)| waiting.source == Source::Forwarder)
                .map(|(place, _)| *place)
                .or(last),
        }
    }

    fn remove(&mut self, place: u64) {
        if let Some(waiting) = self.waiting.remove(&place) {
            self.bytes -= waiting.frame.encoded().len();
        }
    }

    /// The frame whose turn it is.
    pub(super) fn head(&self) -> Option<&Waiting> {
        let (&sequence, waiting) = self.waiting.first_key_value()?;
        let is_next = sequence == self.next
            || waiting.header.resumed_from.is_some_and(|from| from <= self.next);
        is_next.then_some(waiting)
    }

    /// The frame at the front has been processed.
    pub(super) fn advance(&mut self) {
        if let Some((sequence, waiting)) = self.waiting.pop_first() {
            let frame = waiting.frame.encoded();
            self.bytes -= frame.len();
            // Who got the last one from somebody else need not wait for its sender so long again.
            self.asked = match waiting.source {
                Source::Sender => 0,
                Source::Forwarder => self.asked.min(ASKED_IN_VAIN),
            };
            self.next = sequence.saturating_add(1);
            self.kept_bytes += frame.len();
            self.kept.push_back((sequence, frame.clone()));
        }
    }

    /// The frame at the front is not genuine.
    pub(super) fn drop_head(&mut self) {
        if let Some((sequence, _)) = self.waiting.first_key_value() {
            self.remove(*sequence);
        }
    }

    /// Forgets frames that all have by now.
    pub(super) fn trim_kept(&mut self, next: u64) {
        while self.kept.front().is_some_and(|(sequence, _)| *sequence < next) {
            self.drop_kept();
        }
    }

    /// Forgets the oldest of the frames that are kept for others.
    pub(super) fn drop_kept(&mut self) {
        if let Some((_, frame)) = self.kept.pop_front() {
            self.kept_bytes -= frame.len();
        }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The kept frames from `first` up to, not including, `end`.
    pub(super) fn kept(&self, first: u64, end: u64) -> impl Iterator<Item = Bytes> {
        let start = self.kept.partition_point(|(sequence, _)| *sequence < first);
        let frames = self.kept.range(start..).take_while(move |(sequence, _)| *sequence < end);
        frames.map(|(_, frame)| frame.clone())
    }

    /// Somebody has what comes before this place, as it says.
    pub(super) fn note_known(&mut self, known: u64) {
        self.known = self.known.max(known);
    }

    /// What others have said counts no more.
    pub(super) fn forget_known(&mut self) {
        self.known = 0;
    }

    /// Whether a frame of another member waits for one of this member.
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Sees whether something is missing at `now`.
    pub(super) fn look_for_gap(&mut self, now: Instant) {
        let is_missing = self.wanted
            || self.known > self.next
            || self.last.is_some_and(|last| last >= self.next)
            || !self.waiting.is_empty();
        // A frame that waits although it is its turn may be made up.
        let has_head = self.head().is_some_and(|waiting| waiting.source == Source::Sender);
        if is_missing && !has_head && self.closed.is_none() {
            self.gap_since.get_or_insert(now);
        } else {
            self.gap_since = None;
        }
    }

    /// What is missing, if it has been for long enough; the next time counts from `now`.
    pub(super) fn ask(&mut self, policy: &DmlsPolicy, now: Instant) -> Option<ResendFrame> {
        if self.gap_due(policy)? > now {
            return None;
        }
        self.gap_since = Some(now);
        self.asked = self.asked.saturating_add(1);
        let end = match self.waiting.first_key_value() {
            Some((sequence, _)) => (*sequence).max(self.next.saturating_add(1)),
            None if self.wanted => u64::MAX,
            None => self.last.map_or(0, |last| last.saturating_add(1)).max(self.known),
        };
        Some(ResendFrame { first: self.next, end })
    }

    /// Ends the processing of this member's frames.
    pub(super) fn close(&mut self, error: Error) {
        self.closed = Some(error);
        self.waiting.clear();
        self.bytes = 0;
        self.gap_since = None;
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How often the sender has been asked in vain, beyond what is usual: others may have more.
    pub(super) fn in_vain(&self) -> Option<u32> {
        self.asked.checked_sub(ASKED_IN_VAIN)
    }

    pub(super) fn closed(&self) -> Option<&Error> {
        self.closed.as_ref()
    }

    /// When to ask for what is missing.
    pub(super) fn gap_due(&self, policy: &DmlsPolicy) -> Option<Instant> {
        let factor = 2_u32.saturating_pow(self.asked).min(MAX_BACKOFF);
        self.gap_since?.checked_add(policy.resend_after.saturating_mul(factor))
    }

    /// How many frames and bytes wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{DmlsMessageType, Opaque};

    fn offer(inbound: &mut Inbound, sequence: u64, length: usize, from: Option<u64>) -> Offer {
        offer_from(inbound, sequence, length, from, Source::Sender)
    }

    fn offer_from(
        inbound: &mut Inbound,
        sequence: u64,
        length: usize,
        from: Option<u64>,
        source: Source,
    ) -> Offer {
        let policy =
            DmlsPolicy { max_waiting_frames: 10, max_waiting_bytes: 5000, ..DmlsPolicy::default() };
        let header = FrameHeader {
            message_type: 6,
            sequence,
            resumed_from: from,
            imports: Vec::new(),
            digest: Opaque::default(),
        };
        let frame = Frame::new(DmlsMessageType::Message, &vec![0; length]).unwrap();
        inbound.offer(&policy, header, frame, source)
    }

    fn take(inbound: &mut Inbound) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(waiting) = inbound.head() {
            taken.push(waiting.header.sequence);
            inbound.advance();
        }
        taken
    }

    // DM-13
    #[test]
    fn frames_are_taken_in_order_and_once() {
        let mut inbound = Inbound::starting_at(3);
        for sequence in [5, 3, 4] {
            assert_eq!(offer(&mut inbound, sequence, 1, None), Offer::Queued);
        }
        assert_eq!(offer(&mut inbound, 5, 1, None), Offer::Duplicate);
        assert_eq!(take(&mut inbound), [3, 4, 5]);
        assert_eq!(offer(&mut inbound, 4, 1, None), Offer::Duplicate);
        assert_eq!(inbound.waiting(), (0, 0));
    }

    // DM-13, DM-19
    #[test]
    fn the_queue_is_bounded_and_the_next_frame_always_fits() {
        let mut inbound = Inbound::starting_at(0);
        assert_eq!(offer(&mut inbound, 10, 1, None), Offer::Dropped);
        let (policy, now) = (DmlsPolicy::default(), Instant::now());
        inbound.look_for_gap(now);
        let ask = inbound.ask(&policy, now + policy.resend_after);
        assert_eq!(ask, Some(ResendFrame { first: 0, end: 11 }));
        for sequence in (1..10).rev() {
            offer(&mut inbound, sequence, 1000, None);
        }
        assert!(inbound.waiting().1 <= 5000);
        assert_eq!(offer(&mut inbound, 9, 1000, None), Offer::Dropped);
        assert_eq!(offer(&mut inbound, 0, 1000, None), Offer::Queued);
        assert!(inbound.waiting().1 <= 5000);
        assert_eq!(take(&mut inbound), [0, 1, 2, 3]);
    }

    // DM-14
    #[test]
    fn a_gap_is_noticed_and_asked_for_again_and_again() {
        let policy = DmlsPolicy::default();
        let start = Instant::now();
        let mut inbound = Inbound::starting_at(0);
        offer(&mut inbound, 4, 1, None);
        inbound.look_for_gap(start);
        assert_eq!(inbound.ask(&policy, start), None);
        for rounds in [1, 3, 7] {
            let now = start + policy.resend_after * rounds;
            assert_eq!(inbound.ask(&policy, now), Some(ResendFrame { first: 0, end: 4 }));
            assert_eq!(inbound.ask(&policy, now + Duration::from_millis(1)), None);
        }
        for sequence in 0..4 {
            offer(&mut inbound, sequence, 1, None);
        }
        inbound.look_for_gap(start);
        assert_eq!(inbound.gap_due(&policy), None);
    }

    #[test]
    fn a_sender_that_lost_its_memory_is_followed_from_where_it_begins_again() {
        let mut inbound = Inbound::starting_at(2);
        assert_eq!(offer(&mut inbound, 1 << 40, 1, Some(3)), Offer::Dropped);
        assert_eq!(offer(&mut inbound, 2, 1, None), Offer::Queued);
        assert_eq!(take(&mut inbound), [2]);
        assert_eq!(offer(&mut inbound, 1 << 40, 1, Some(3)), Offer::Queued);
        assert_eq!(take(&mut inbound), [1 << 40]);
        assert_eq!(inbound.next(), (1 << 40) + 1);
    }

    // DM-19
    #[test]
    fn what_others_pass_on_gives_way_to_what_its_sender_sends() {
        let mut inbound = Inbound::starting_at(0);
        for sequence in 1..6 {
            offer_from(&mut inbound, sequence, 900, None, Source::Forwarder);
        }
        assert_eq!(offer_from(&mut inbound, 6, 900, None, Source::Forwarder), Offer::Dropped);
        assert_eq!(offer_from(&mut inbound, 3, 901, None, Source::Forwarder), Offer::Queued);
        assert_eq!(offer_from(&mut inbound, 3, 901, None, Source::Forwarder), Offer::Duplicate);
        assert_eq!(offer(&mut inbound, 6, 900, None), Offer::Queued);
        assert_eq!(offer(&mut inbound, 2, 900, None), Offer::Duplicate);
        assert_eq!(offer_from(&mut inbound, 2, 901, None, Source::Forwarder), Offer::Duplicate);
        assert!(inbound.waiting().1 <= 5000);
        // Even the frame at the front is asked for as long as it waits.
        assert_eq!(offer_from(&mut inbound, 0, 900, None, Source::Forwarder), Offer::Queued);
        let (policy, now) = (DmlsPolicy::default(), Instant::now());
        inbound.look_for_gap(now);
        let ask = inbound.ask(&policy, now + policy.resend_after);
        assert_eq!(ask, Some(ResendFrame { first: 0, end: 1 }));
        inbound.drop_head();
        assert!(inbound.head().is_none());
    }

    #[test]
    fn processed_frames_are_kept_for_others() {
        let mut inbound = Inbound::starting_at(0);
        for sequence in 0..4 {
            offer(&mut inbound, sequence, 100, None);
        }
        take(&mut inbound);
        assert_eq!((inbound.kept(1, 3).count(), inbound.kept_bytes()), (2, 4 * 104));
        inbound.trim_kept(3);
        assert_eq!((inbound.kept(0, u64::MAX).count(), inbound.kept_bytes()), (1, 104));
    }
}
