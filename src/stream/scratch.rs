//! Buffers that a thread lends to the stream that it polls.
//!
//! Much at once is cheap to read and to write, but a stream that waits needs no buffer. So a stream has
//! one only as long as something is in it; an idle connection holds none.

use std::{cell::Cell, mem};

use bytes::BytesMut;

use crate::{
    record::Output,
    wire::{HEADER_LEN, MAX_PLAINTEXT, TAG_LEN},
};

/// One read of the transport: four records of full size. More at once keeps the sender waiting, less
/// costs more calls.
pub(super) const READ_CAPACITY: usize = 4 * (HEADER_LEN + MAX_PLAINTEXT + 1 + TAG_LEN);

/// Room for sealed records: at least, and what is kept of a buffer that a stream made longer.
const WRITE_CAPACITY: usize = 72 * 1024;
const MAX_WRITE_CAPACITY: usize = 512 * 1024;

thread_local! {
    static READ: Cell<BytesMut> = Cell::default();
    static WRITE: Cell<Vec<u8>> = Cell::default();
}

/// An empty buffer to read into.
pub(super) fn take_read() -> BytesMut {
    // A thread that is about to end has none.
    let mut buffer = READ.try_with(Cell::take).unwrap_or_default();
    buffer.reserve(READ_CAPACITY);
    buffer
}

/// Takes a buffer back that nothing is left in.
pub(super) fn give_read(buffer: &mut BytesMut) {
    let mut buffer = mem::take(buffer);
    buffer.clear();
    // One whose content is still in somebody's hands is theirs.
    if buffer.try_reclaim(READ_CAPACITY) {
        let _ = READ.try_with(|place| place.set(buffer));
    }
}

/// Sealed records that wait for the transport, in a buffer of the thread's as long as there are any.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Written once, so that it need not be cleared for each record. What waits is in the middle.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many bytes of it are sent.
    pub(super) fn advance(&mut self, sent: usize) {
        self.start = self.end.min(self.start + sent);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            let buffer = mem::take(&mut self.buffer);
            if (1..=MAX_WRITE_CAPACITY).contains(&buffer.len()) {
                let _ = WRITE.try_with(|place| place.set(buffer));
            }
        }
    }
}

impl Output for Outgoing {
    fn extend(&mut self, length: usize) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = WRITE.try_with(Cell::take).unwrap_or_default();
        }
        if self.buffer.len() - self.end < length {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
            let needed = WRITE_CAPACITY.max(self.end + length);
            if self.buffer.len() < needed {
                self.buffer.resize(needed.next_power_of_two(), 0);
            }
        }
        let start = self.end;
        self.end += length;
        &mut self.buffer[start..self.end]
    }

    fn retract(&mut self, length: usize) {
        self.end = self.start.max(self.end.saturating_sub(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back() {
        let mut buffer = take_read();
        assert!(buffer.capacity() >= READ_CAPACITY);
        let address = buffer.as_ptr();
        buffer.extend_from_slice(b"data");
        give_read(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let again = take_read();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn what_somebody_holds_is_not_taken_back() {
        let mut buffer = take_read();
        buffer.extend_from_slice(b"data");
        let held = buffer.split_to(2);
        give_read(&mut buffer);
        let mut other = take_read();
        other.extend_from_slice(b"other");
        assert_eq!(held, b"da"[..]);
    }

    #[test]
    fn what_waits_is_what_was_written_and_not_sent() {
        let mut outgoing = Outgoing::default();
        let mut expected = Vec::new();
        for round in 0..200 {
            let data = vec![u8::try_from(round).unwrap(); 1 + round * 37];
            outgoing.extend(data.len()).copy_from_slice(&data);
            expected.extend_from_slice(&data);
            assert_eq!((outgoing.len(), outgoing.waiting()), (expected.len(), &expected[..]));
            let sent = if round % 50 == 49 { expected.len() } else { round * 31 };
            outgoing.advance(sent);
            expected.drain(..sent);
            assert_eq!(outgoing.is_empty(), expected.is_empty());
            assert_eq!(outgoing.buffer.is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn one_that_has_grown_is_not_kept() {
        let mut outgoing = Outgoing::default();
        outgoing.extend(MAX_WRITE_CAPACITY + 1);
        outgoing.advance(MAX_WRITE_CAPACITY + 1);
        outgoing.extend(1);
        assert!(outgoing.buffer.len() <= MAX_WRITE_CAPACITY);
    }
}
