//! Buffers that a thread lends to the stream that it polls.
//!
//! Much at once is cheap to read and to write, but a stream that waits needs no buffer. So a stream has
//! one only as long as something is in it; an idle connection holds none.

use std::{cell::Cell, thread::LocalKey};

use bytes::BytesMut;

/// Room for what arrives: sixteen records of full size.
pub(super) const READ_CAPACITY: usize = 256 * 1024;

/// Room for sealed records. A stream may make it longer; above the second number it is not taken back.
const WRITE_CAPACITY: usize = 72 * 1024;
const MAX_WRITE_CAPACITY: usize = 512 * 1024;

thread_local! {
    static READ: Cell<BytesMut> = Cell::default();
    static WRITE: Cell<BytesMut> = Cell::default();
}

/// An empty buffer to read into.
pub(super) fn take_read() -> BytesMut {
    take(&READ, READ_CAPACITY)
}

/// Takes a buffer back that nothing is left in.
pub(super) fn give_read(buffer: &mut BytesMut) {
    give(&READ, buffer, READ_CAPACITY, READ_CAPACITY);
}

/// An empty buffer to seal into.
pub(super) fn take_write() -> BytesMut {
    take(&WRITE, WRITE_CAPACITY)
}

/// Takes a buffer back of which everything is sent.
pub(super) fn give_write(buffer: &mut BytesMut) {
    give(&WRITE, buffer, WRITE_CAPACITY, MAX_WRITE_CAPACITY);
}

fn take(place: &'static LocalKey<Cell<BytesMut>>, capacity: usize) -> BytesMut {
    // A thread that is about to end has none.
    let mut buffer = place.try_with(Cell::take).unwrap_or_default();
    buffer.reserve(capacity);
    buffer
}

fn give(
    place: &'static LocalKey<Cell<BytesMut>>,
    buffer: &mut BytesMut,
    least: usize,
    most: usize,
) {
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    // One whose content is still in somebody's hands is theirs.
    if buffer.try_reclaim(least) && buffer.capacity() <= most {
        let _ = place.try_with(|place| place.set(buffer));
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
    fn one_that_has_grown_is_not_kept() {
        let mut buffer = take_write();
        buffer.resize(MAX_WRITE_CAPACITY + 1, 0);
        give_write(&mut buffer);
        assert!(take_write().capacity() <= MAX_WRITE_CAPACITY);
    }
}
