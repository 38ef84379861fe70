//! Record protection: the TLS 1.3 record layer (RFC 8446, section 5) with keys from MLS.
//!
//! Sending and receiving share nothing: a [`SendPath`] seals, a [`ReceivePath`] opens. Both work in
//! place. A key that is replaced is dropped, and dropping erases it (TL-04).

mod keys;
mod open;
mod seal;

use bytes::BytesMut;

pub(crate) use keys::{RecordKey, TrafficSecret};
pub(crate) use open::{Opened, ReceivePath};
pub(crate) use seal::SendPath;

/// Where sealed records go.
pub(crate) trait Output {
    /// Appends so many bytes, whatever they are, to be written over.
    fn extend(&mut self, length: usize) -> &mut [u8];

    /// Takes so many bytes away that were appended last.
    fn retract(&mut self, length: usize);
}

impl Output for BytesMut {
    fn extend(&mut self, length: usize) -> &mut [u8] {
        let start = self.len();
        self.resize(start + length, 0);
        &mut self[start..]
    }

    fn retract(&mut self, length: usize) {
        self.truncate(self.len().saturating_sub(length));
    }
}
