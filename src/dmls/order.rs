//! The frames of one other member, in order (DM-13, DM-14).
//!
//! A frame that comes before its time waits in a bounded queue: for earlier frames of the same
//! member, or for epochs of others that it refers to. What does not fit is dropped, and asked for
//! again when its time comes; so a flood of future frames costs its sender and nobody else.

use std::{collections::BTreeMap, time::Instant};

use super::policy::{DmlsPolicy, MAX_BACKOFF};
use crate::{
    error::Error,
    wire::{Frame, FrameHeader, ResendFrame},
};

/// What has come of one member's frames.
pub(super) struct Inbound {
    /// The place of the frame that is processed next.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    /// The place of the last frame that has come, whether or not there was room for it.
    last: Option<u64>,
    /// A frame of another member waits for one of this member that has not come.
    wanted: bool,
    /// Since when something waits for a frame that has not come.
    gap_since: Option<Instant>,
    /// How often it has been asked for in vain.
    asked: u32,
    /// Nothing of this member is processed any more.
    closed: Option<Error>,
}

pub(super) struct Waiting {
    pub(super) header: FrameHeader,
    pub(super) frame: Frame,
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
            wanted: false,
            gap_since: None,
            asked: 0,
            closed: None,
        }
    }

    pub(super) fn offer(
        &mut self,
        policy: &DmlsPolicy,
        header: FrameHeader,
        frame: Frame,
    ) -> Offer {
        let sequence = header.sequence;
        if self.closed.is_some() {
            return Offer::Dropped;
        }
        if sequence < self.next || self.waiting.contains_key(&sequence) {
            return Offer::Duplicate;
        }
        self.last = self.last.max(Some(sequence));
        let resumes = header.resumed_from.is_some_and(|from| from <= self.next);
        let window = u64::try_from(policy.max_waiting_frames).unwrap_or(u64::MAX);
        if sequence - self.next >= window && !resumes {
            return Offer::Dropped;
        }
        let length = frame.encoded().len();
        // The frame at the front has precedence over any that is further back.
        while self.bytes + length > policy.max_waiting_bytes
            || self.waiting.len() >= policy.max_waiting_frames
        {
            match self.waiting.last_entry() {
                Some(last) if *last.key() > sequence => {
                    self.bytes -= last.remove().frame.encoded().len();
                }
                _ => return Offer::Dropped,
            }
        }
        self.bytes += length;
        self.waiting.insert(sequence, Waiting { header, frame });
        Offer::Queued
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
            self.bytes -= waiting.frame.encoded().len();
            self.asked = 0;
            self.next = sequence.saturating_add(1);
        }
    }

    /// Whether a frame of another member waits for one of this member.
    pub(super) fn set_wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Sees whether something is missing at `now`.
    pub(super) fn look_for_gap(&mut self, now: Instant) {
        let is_missing = self.wanted || self.last.is_some_and(|last| last >= self.next);
        if is_missing && self.head().is_none() && self.closed.is_none() {
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
        let end = match (self.waiting.first_key_value(), self.last) {
            (Some((sequence, _)), _) => *sequence,
            (None, Some(last)) if last >= self.next => last.saturating_add(1),
            _ => u64::MAX,
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
    use crate::wire::DmlsMessageType;

    fn offer(inbound: &mut Inbound, sequence: u64, length: usize, from: Option<u64>) -> Offer {
        let policy =
            DmlsPolicy { max_waiting_frames: 10, max_waiting_bytes: 5000, ..DmlsPolicy::default() };
        let header =
            FrameHeader { message_type: 6, sequence, resumed_from: from, imports: Vec::new() };
        let frame = Frame::new(DmlsMessageType::Message, &vec![0; length]).unwrap();
        inbound.offer(&policy, header, frame)
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
}
