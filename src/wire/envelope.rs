//! The envelope of handshake messages, and how messages come out of records (TL-05, TL-07).
//!
//! The drafts leave the envelope open. Ours is that of TLS: a type and the body's length.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};

use super::MAX_PLAINTEXT;
use crate::error::InvalidMessage;

/// Length in bytes of the envelope's header.
pub(crate) const ENVELOPE_LEN: usize = 4;

/// The longest body in bytes that the envelope can announce.
const MAX_BODY_LEN: usize = 0xff_ffff;

/// Which message of the two-party profile an envelope holds (TL-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum TwoPartyMessageType {
    /// The initiator's KeyPackage.
    ClientHello = 1,
    /// The responder's Welcome.
    ServerHello = 2,
    /// A commit that updates its sender's keys.
    ConnectionUpdate = 3,
    /// The answer to a ConnectionUpdate, last under the old keys.
    EpochKeyUpdate = 4,
    /// A commit that asks to resume a session.
    ResumptionRequest = 5,
    /// The answer to a ResumptionRequest.
    ResumptionResponse = 6,
    /// The answer to a ConnectionUpdate whose new identity is not accepted.
    UpdateRefused = 7,
}

impl TwoPartyMessageType {
    /// The name in the two-party profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientHello => "ClientHello",
            Self::ServerHello => "ServerHello",
            Self::ConnectionUpdate => "ConnectionUpdate",
            Self::EpochKeyUpdate => "EpochKeyUpdate",
            Self::ResumptionRequest => "ResumptionRequest",
            Self::ResumptionResponse => "ResumptionResponse",
            Self::UpdateRefused => "UpdateRefused",
        }
    }
}

impl TryFrom<u8> for TwoPartyMessageType {
    type Error = InvalidMessage;

    fn try_from(number: u8) -> Result<Self, InvalidMessage> {
        match number {
            1 => Ok(Self::ClientHello),
            2 => Ok(Self::ServerHello),
            3 => Ok(Self::ConnectionUpdate),
            4 => Ok(Self::EpochKeyUpdate),
            5 => Ok(Self::ResumptionRequest),
            6 => Ok(Self::ResumptionResponse),
            7 => Ok(Self::UpdateRefused),
            other => Err(InvalidMessage::UnknownMessageType(other)),
        }
    }
}

impl From<TwoPartyMessageType> for u8 {
    fn from(message_type: TwoPartyMessageType) -> Self {
        message_type as Self
    }
}

/// What an envelope can name. Distributed MLS has other messages in the same envelope.
pub(crate) trait MessageType: Copy + Into<u8> + TryFrom<u8, Error = InvalidMessage> {}

impl<T: Copy + Into<u8> + TryFrom<u8, Error = InvalidMessage>> MessageType for T {}

/// Puts `body` into its envelope.
///
/// # Errors
///
/// [`InvalidMessage::MessageTooLong`] if the length does not fit the uint24.
pub(crate) fn seal<T: MessageType>(
    message_type: T,
    body: &[u8],
) -> Result<Vec<u8>, InvalidMessage> {
    let length = body.len();
    let too_long = InvalidMessage::MessageTooLong { length, limit: MAX_BODY_LEN };
    let [0, high, middle, low] = u32::try_from(length).map_err(|_| too_long)?.to_be_bytes() else {
        return Err(too_long);
    };
    let mut encoded = Vec::with_capacity(ENVELOPE_LEN + length);
    encoded.extend_from_slice(&[message_type.into(), high, middle, low]);
    encoded.extend_from_slice(body);
    Ok(encoded)
}

/// A whole message, its body not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawMessage<T = TwoPartyMessageType> {
    message_type: T,
    encoded: Bytes,
}

impl<T: MessageType> RawMessage<T> {
    pub(crate) fn message_type(&self) -> T {
        self.message_type
    }

    /// Header and body as they were received: what a hash of the message covers.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.encoded.get(ENVELOPE_LEN..).unwrap_or_default()
    }

    /// The body, by value.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_body(mut self) -> Bytes {
        self.encoded.split_off(ENVELOPE_LEN)
    }
}

/// Puts messages together from the content of handshake records.
///
/// After every [`push`](Self::push), take messages with [`next`](Self::next) until there is none.
/// Then at most one incomplete message is kept, of no more than `limit` bytes and its header
/// (CH-09); together with one record this bounds what a peer can make this party hold (CH-10).
///
/// A message that must not share its record with a later one, or that changes the keys, has to
/// leave the assembler [empty](Self::is_empty); so has every record before a change of keys.
#[derive(Debug)]
pub(crate) struct MessageAssembler<T = TwoPartyMessageType> {
    buffer: BytesMut,
    /// Something has been taken from the front of the buffer's memory.
    is_used: bool,
    limit: usize,
    message_type: PhantomData<T>,
}

impl<T: MessageType> MessageAssembler<T> {
    /// An assembler that accepts bodies of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), is_used: false, limit, message_type: PhantomData }
    }

    /// Accepts bodies of another length from now on.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds the content of one record.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::RecordTooShort`] for an empty fragment, which RFC 8446, section 5.1
    /// forbids in the clear and under keys;
    /// [`InvalidMessage::RecordTooLong`] for one that no record can hold;
    /// [`InvalidMessage::UnknownMessageType`] and [`InvalidMessage::MessageTooLong`] as soon as
    /// the header shows it. Nothing beyond the header is stored then.
    pub(crate) fn push(&mut self, fragment: &[u8]) -> Result<(), InvalidMessage> {
        debug_assert!(!matches!(self.front(), Ok(Some((_, end))) if self.buffer.len() >= end));
        if fragment.is_empty() {
            return Err(InvalidMessage::RecordTooShort);
        }
        if fragment.len() > MAX_PLAINTEXT {
            return Err(InvalidMessage::RecordTooLong(fragment.len()));
        }
        let of_header = ENVELOPE_LEN.saturating_sub(self.buffer.len()).min(fragment.len());
        let (header, rest) = fragment.split_at(of_header);
        self.buffer.extend_from_slice(header);
        self.front()?;
        self.buffer.extend_from_slice(rest);
        Ok(())
    }

    /// Takes the message at the front, if it is complete.
    ///
    /// # Errors
    ///
    /// What [`push`](Self::push) says of a header, for the message at the front now.
    pub(crate) fn next(&mut self) -> Result<Option<RawMessage<T>>, InvalidMessage> {
        let Some((message_type, end)) = self.front()? else {
            return Ok(None);
        };
        if self.buffer.len() < end {
            return Ok(None);
        }
        // A message that is kept must not keep the memory of others, so it shares none.
        let encoded = if self.buffer.len() > end || self.is_used {
            self.is_used = true;
            let encoded = Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default());
            self.buffer.advance(end);
            encoded
        } else {
            std::mem::take(&mut self.buffer).freeze()
        };
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.is_used = false;
        }
        Ok(Some(RawMessage { message_type, encoded }))
    }

    /// No byte of a message waits for the rest of it, or to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// How many bytes wait.
    #[cfg(all(test, feature = "tokio"))]
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The type of the message at the front, and where it ends in the buffer.
    fn front(&self) -> Result<Option<(T, usize)>, InvalidMessage> {
        let Some(&number) = self.buffer.first() else {
            return Ok(None);
        };
        let message_type = T::try_from(number)?;
        let Some(&[_, high, middle, low]) = self.buffer.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > self.limit {
            return Err(InvalidMessage::MessageTooLong { length, limit: self.limit });
        }
        Ok(Some((message_type, ENVELOPE_LEN + length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 65536;

    const TYPES: [TwoPartyMessageType; 7] = [
        TwoPartyMessageType::ClientHello,
        TwoPartyMessageType::ServerHello,
        TwoPartyMessageType::ConnectionUpdate,
        TwoPartyMessageType::EpochKeyUpdate,
        TwoPartyMessageType::ResumptionRequest,
        TwoPartyMessageType::ResumptionResponse,
        TwoPartyMessageType::UpdateRefused,
    ];

    fn assembler(limit: usize) -> MessageAssembler {
        MessageAssembler::new(limit)
    }

    fn take_all(assembler: &mut MessageAssembler, into: &mut Vec<RawMessage>) {
        while let Some(message) = assembler.next().unwrap() {
            into.push(message);
        }
    }

    #[test]
    fn the_envelope_is_a_type_and_a_length_of_three_bytes() {
        for (number, message_type) in (1..).zip(TYPES) {
            assert_eq!(u8::from(message_type), number);
            assert_eq!(format!("{message_type:?}"), message_type.name());
            assert_eq!(seal(message_type, b"ab"), Ok(vec![number, 0, 0, 2, b'a', b'b']));
        }
        let long = seal(TwoPartyMessageType::ClientHello, &vec![0; 0x01_0203]).unwrap();
        assert_eq!(long[..4], [1, 1, 2, 3]);
    }

    #[test]
    fn a_body_that_the_length_cannot_express_is_refused() {
        let longest = vec![0; 0xff_ffff];
        assert_eq!(
            seal(TwoPartyMessageType::ClientHello, &longest).unwrap()[..4],
            [1, 255, 255, 255]
        );
        assert_eq!(
            seal(TwoPartyMessageType::ClientHello, &vec![0; 0x100_0000]),
            Err(InvalidMessage::MessageTooLong { length: 0x100_0000, limit: 0xff_ffff })
        );
    }

    // TL-05, CH-10
    #[test]
    fn an_unknown_type_is_refused_on_its_first_byte() {
        for number in (0..=u8::MAX).filter(|number| !(1..=7).contains(number)) {
            let mut assembler = assembler(LIMIT);
            let error = InvalidMessage::UnknownMessageType(number);
            assert_eq!(assembler.push(&[number]), Err(error));
            assert_eq!(assembler.next(), Err(error));
        }
    }

    // TL-07, CH-09
    #[test]
    fn a_length_above_the_limit_is_refused_with_the_header() {
        for limit in [0, 1, 4096, LIMIT, MAX_BODY_LEN - 1] {
            let length = limit + 1;
            let [_, high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
            let mut record = vec![1, high, middle, low];
            record.resize(1000, 0);
            let error = InvalidMessage::MessageTooLong { length, limit };

            let mut whole = assembler(limit);
            assert_eq!(whole.push(&record), Err(error));
            assert!(whole.buffer.len() <= ENVELOPE_LEN, "the body was stored");

            let mut bytewise = assembler(limit);
            for byte in &record[..3] {
                assert_eq!(bytewise.push(&[*byte]), Ok(()));
                assert_eq!(bytewise.next(), Ok(None));
            }
            assert_eq!(bytewise.push(&record[3..4]), Err(error));
        }
    }

    #[test]
    fn a_message_as_long_as_the_limit_is_accepted() {
        let encoded = seal(TwoPartyMessageType::ServerHello, &[7; 100]).unwrap();
        let mut assembler = assembler(100);
        assembler.push(&encoded).unwrap();
        let message = assembler.next().unwrap().unwrap();
        assert_eq!(message.message_type(), TwoPartyMessageType::ServerHello);
        assert_eq!((message.encoded(), message.body()), (&encoded[..], &[7; 100][..]));
    }

    // TL-02: RFC 8446, section 5.1
    #[test]
    fn an_empty_fragment_is_refused_before_and_inside_a_message() {
        let mut assembler = assembler(LIMIT);
        assert_eq!(assembler.push(&[]), Err(InvalidMessage::RecordTooShort));
        assembler.push(&[1, 0]).unwrap();
        assert_eq!(assembler.push(&[]), Err(InvalidMessage::RecordTooShort));
    }

    #[test]
    fn a_fragment_that_no_record_holds_is_refused() {
        let mut assembler = assembler(LIMIT);
        let fragment = seal(TwoPartyMessageType::ClientHello, &[0; MAX_PLAINTEXT]).unwrap();
        assert_eq!(assembler.push(&fragment), Err(InvalidMessage::RecordTooLong(fragment.len())));
        assert!(assembler.is_empty());
    }

    #[test]
    fn every_truncation_waits_for_more() {
        let encoded = seal(TwoPartyMessageType::ConnectionUpdate, &[1, 2, 3, 4, 5]).unwrap();
        for end in 1..encoded.len() {
            let mut assembler = assembler(LIMIT);
            assembler.push(&encoded[..end]).unwrap();
            assert_eq!(assembler.next(), Ok(None));
            assert!(!assembler.is_empty(), "{end} bytes wait");
            assembler.push(&encoded[end..]).unwrap();
            assert_eq!(assembler.next().unwrap().unwrap().encoded(), encoded);
            assert!(assembler.is_empty());
        }
    }

    #[test]
    fn bytes_of_a_later_message_in_the_record_show_in_is_empty() {
        let mut record = seal(TwoPartyMessageType::EpochKeyUpdate, &[0; 8]).unwrap();
        record.push(3);
        let mut assembler = assembler(LIMIT);
        assembler.push(&record).unwrap();
        assert_eq!(
            assembler.next().unwrap().unwrap().message_type(),
            TwoPartyMessageType::EpochKeyUpdate
        );
        assert!(!assembler.is_empty());
    }

    #[test]
    fn a_bad_message_after_a_good_one_is_refused_after_it() {
        let mut record = seal(TwoPartyMessageType::ClientHello, b"good").unwrap();
        record.push(99);
        let mut assembler = assembler(LIMIT);
        assembler.push(&record).unwrap();
        assert_eq!(assembler.next().unwrap().unwrap().body(), b"good");
        assert_eq!(assembler.next(), Err(InvalidMessage::UnknownMessageType(99)));
    }

    #[test]
    fn an_empty_assembler_holds_no_memory() {
        let encoded = seal(TwoPartyMessageType::ClientHello, &[0; 16000]).unwrap();
        let mut assembler = assembler(LIMIT);
        for _ in 0..3 {
            // The buffer grows in steps, and ends larger than the message.
            assembler.push(&encoded[..9000]).unwrap();
            assembler.push(&encoded[9000..]).unwrap();
            assert!(assembler.buffer.capacity() > encoded.len());
            assert!(assembler.next().unwrap().is_some());
            assert_eq!(assembler.buffer.capacity(), 0);
        }
    }

    // CH-10: what is kept of a message is its own memory, not that of what came with it.
    #[test]
    fn a_short_message_does_not_keep_the_memory_of_a_long_one() {
        let long = seal(TwoPartyMessageType::ClientHello, &vec![0; LIMIT]).unwrap();
        let short = seal(TwoPartyMessageType::ServerHello, &[7; 20]).unwrap();
        let mut assembler = assembler(LIMIT);
        let mut messages = Vec::new();
        for fragment in [&short[..], &long, &short, &short].concat().chunks(MAX_PLAINTEXT) {
            assembler.push(fragment).unwrap();
            take_all(&mut assembler, &mut messages);
        }
        assert!(assembler.is_empty());
        for message in messages {
            let length = message.encoded.len();
            let capacity = message.encoded.try_into_mut().unwrap().capacity();
            assert!(capacity <= 2 * length, "{capacity} bytes for {length}");
        }
    }

    // CH-10: a peer that announces much and sends little costs little.
    #[test]
    fn an_announcement_alone_reserves_nothing() {
        let mut assembler = assembler(MAX_BODY_LEN);
        assembler.push(&[1, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!(assembler.next(), Ok(None));
        assert!(assembler.buffer.capacity() < 256);
    }

    // CH-09, CH-10: the worst case is a message of full length that lacks one byte, and then a
    // full record.
    #[test]
    fn the_assembler_holds_no_more_than_its_limit_and_one_record() {
        let limit = 20_000;
        let encoded = seal(TwoPartyMessageType::ClientHello, &vec![0; limit]).unwrap();
        let mut record = vec![0];
        while record.len() + 12 <= MAX_PLAINTEXT {
            record.extend(seal(TwoPartyMessageType::EpochKeyUpdate, &[0; 8]).unwrap());
        }
        let bound = limit + ENVELOPE_LEN + MAX_PLAINTEXT;
        let mut assembler = assembler(limit);
        for fragment in encoded[..encoded.len() - 1].chunks(1000) {
            assembler.push(fragment).unwrap();
            assert_eq!(assembler.next(), Ok(None));
        }
        assert_eq!(assembler.buffer.len(), limit + ENVELOPE_LEN - 1);
        assembler.push(&record).unwrap();
        assert!(assembler.buffer.len() <= bound);
        assert!(assembler.buffer.capacity() <= 2 * bound, "{}", assembler.buffer.capacity());
        let mut messages = Vec::new();
        take_all(&mut assembler, &mut messages);
        assert_eq!(messages.len(), 1 + record.len() / 12);
        assert!(assembler.is_empty());
    }

    proptest! {
        // TL-07
        #[test]
        fn messages_survive_any_fragmentation(
            bodies in proptest::collection::vec(
                (proptest::sample::select(&TYPES[..]), proptest::collection::vec(any::<u8>(), 0..800)),
                1..6,
            ),
            cuts in proptest::collection::vec(1..600_usize, 1..20),
        ) {
            let stream: Vec<u8> =
                bodies.iter().flat_map(|(kind, body)| seal(*kind, body).unwrap()).collect();
            let mut assembler = assembler(800);
            let mut messages = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (fragment, later) = rest.split_at((*cut).min(rest.len()));
                assembler.push(fragment).unwrap();
                take_all(&mut assembler, &mut messages);
                prop_assert!(assembler.buffer.len() < 800 + ENVELOPE_LEN);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(assembler.is_empty());
            let received: Vec<_> =
                messages.iter().map(|m| (m.message_type(), m.body().to_vec())).collect();
            prop_assert_eq!(received, bodies);
            let encoded: Vec<u8> = messages.iter().flat_map(|m| m.encoded().to_vec()).collect();
            prop_assert_eq!(encoded, stream);
        }

        // CH-10
        #[test]
        fn any_fragments_stay_within_the_bound(
            fragments in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 1..60),
                1..12,
            ),
        ) {
            let limit = 100;
            let mut assembler = assembler(limit);
            'peer: for fragment in &fragments {
                if assembler.push(fragment).is_err() {
                    break;
                }
                prop_assert!(assembler.buffer.len() < limit + ENVELOPE_LEN + fragment.len());
                loop {
                    match assembler.next() {
                        Ok(Some(message)) => prop_assert!(message.body().len() <= limit),
                        Ok(None) => break,
                        Err(_) => break 'peer,
                    }
                }
                prop_assert!(assembler.buffer.len() < limit + ENVELOPE_LEN);
            }
        }
    }
}
