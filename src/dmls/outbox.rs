//! The own frames, kept until everyone has them (DM-14).

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How far a restored session moves on: more frames than it can have sent since it was stored.
const RESUMPTION_STEP: u64 = 1 << 32;

/// The own frames that have a place in the order.
#[derive(Default)]
pub(super) struct Outbox {
    /// The place of the next frame.
    next: u64,
    /// What the next frame has to say of places that were lost.
    resumed_from: Option<u64>,
    kept: VecDeque<Sent>,
    bytes: usize,
    /// The place behind the last frame that the others are expected to acknowledge.
    awaited: u64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sent {
    sequence: u64,
    #[serde(with = "frame")]
    frame: Bytes,
}

/// A frame is stored as its bytes.
mod frame {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(frame: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        (**frame).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Vec::deserialize(from).map(Bytes::from)
    }
}

impl Outbox {
    /// The outbox that was stored with these values.
    pub(super) fn restore(next: u64, awaited: u64, kept: Vec<Sent>) -> Self {
        let bytes = kept.iter().map(|sent| sent.frame.len()).sum();
        Self {
            next: next.saturating_add(RESUMPTION_STEP),
            resumed_from: Some(next),
            kept: kept.into(),
            bytes,
            awaited,
        }
    }

    /// One whose next frame has this place.
    #[cfg(test)]
    pub(super) fn at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// The place of the next frame, and what its header says of lost places.
    pub(super) fn place(&self) -> (u64, Option<u64>) {
        (self.next, self.resumed_from)
    }

    /// Keeps the next frame. `is_awaited`: it is to be acknowledged.
    pub(super) fn push(&mut self, frame: &Bytes, is_awaited: bool, max_bytes: usize) {
        self.kept.push_back(Sent { sequence: self.next, frame: frame.clone() });
        self.bytes += frame.len();
        self.next = self.next.saturating_add(1);
        self.resumed_from = None;
        if is_awaited {
            self.awaited = self.next;
        }
        while self.bytes > max_bytes && self.kept.len() > 1 {
            self.drop_front();
        }
    }

    /// Everyone has what comes before `next`.
    pub(super) fn trim(&mut self, next: u64) {
        while self.kept.front().is_some_and(|sent| sent.sequence < next) {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some(sent) = self.kept.pop_front() {
            self.bytes -= sent.frame.len();
        }
    }

    /// The kept frames from `first` up to, not including, `end`.
    pub(super) fn range(&self, first: u64, end: u64) -> impl Iterator<Item = Bytes> {
        let start = self.kept.partition_point(|sent| sent.sequence < first);
        self.kept
            .range(start..)
            .take_while(move |sent| sent.sequence < end)
            .map(|sent| sent.frame.clone())
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn awaited(&self) -> u64 {
        self.awaited
    }

    pub(super) fn kept(&self) -> Vec<Sent> {
        self.kept.iter().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_kept_until_they_are_acknowledged_or_too_many() {
        let mut outbox = Outbox::default();
        for byte in 0..10 {
            outbox.push(&Bytes::from(vec![byte; 100]), byte % 2 == 0, 500);
        }
        assert_eq!((outbox.next(), outbox.awaited(), outbox.len()), (10, 9, 5));
        let firsts: Vec<_> = outbox.range(0, 8).map(|frame| frame[0]).collect();
        assert_eq!(firsts, [5, 6, 7]);
        outbox.trim(8);
        assert_eq!(outbox.len(), 2);
        let restored = Outbox::restore(outbox.next(), outbox.awaited(), outbox.kept());
        assert_eq!(restored.place(), (10 + RESUMPTION_STEP, Some(10)));
        assert_eq!(restored.range(0, u64::MAX).count(), 2);
    }
}
