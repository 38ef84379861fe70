//! Records (RFC 8446, section 5; TL-02).

use std::fmt;

use bytes::{Buf, BufMut, BytesMut};

use crate::error::InvalidMessage;

/// Length in bytes of a record's header.
pub const HEADER_LEN: usize = 5;

/// Length in bytes of the authentication tag of every AEAD in use.
pub const TAG_LEN: usize = 16;

/// The most bytes of content in one record (RFC 8446, section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The most bytes after the header of one record (RFC 8446, section 5.2).
pub const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;

/// The version in every record's header.
///
/// RFC 8446 lets a receiver ignore it, for the sake of old implementations. This protocol has
/// none, and refuses every other value: a stream that is not ours shows within three bytes.
pub const LEGACY_VERSION: u16 = 0x0303;

/// The type of a record, or of the content inside a protected one (RFC 8446, section 5.1).
///
/// There is no change_cipher_spec in this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ContentType {
    /// One alert.
    Alert = 21,
    /// A piece of the sequence of messages.
    Handshake = 22,
    /// Application data; also the outer type of every protected record.
    ApplicationData = 23,
}

impl ContentType {
    /// The type with this number.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::UnknownContentType`] if this protocol has no such type.
    pub fn from_u8(number: u8) -> Result<Self, InvalidMessage> {
        match number {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            other => Err(InvalidMessage::UnknownContentType(other)),
        }
    }

    /// The name in RFC 8446, for example `application_data`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Handshake => "handshake",
            Self::ApplicationData => "application_data",
        }
    }
}

impl From<ContentType> for u8 {
    fn from(content_type: ContentType) -> Self {
        content_type as Self
    }
}

/// The header of a record; for a protected record also its additional data (RFC 8446,
/// section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RecordHeader {
    /// The outer type.
    pub content_type: ContentType,
    /// How many bytes follow the header, at most [`MAX_CIPHERTEXT`].
    pub length: usize,
}

impl RecordHeader {
    /// Decodes a header.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::UnknownContentType`], [`InvalidMessage::RecordVersion`], or
    /// [`InvalidMessage::RecordTooLong`] for a length above [`MAX_CIPHERTEXT`]. The lower limit
    /// of plaintext records is checked by [`Record::check_plaintext`].
    pub fn decode(header: &[u8; HEADER_LEN]) -> Result<Self, InvalidMessage> {
        let &[content_type, major, minor, high, low] = header;
        let content_type = ContentType::from_u8(content_type)?;
        check_version(major, minor)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_CIPHERTEXT {
            return Err(InvalidMessage::RecordTooLong(length));
        }
        Ok(Self { content_type, length })
    }

    /// The five bytes of the header.
    ///
    /// A length that has no encoding becomes 0xffff, which no receiver accepts.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [major, minor] = LEGACY_VERSION.to_be_bytes();
        let [high, low] = u16::try_from(self.length).unwrap_or(u16::MAX).to_be_bytes();
        [self.content_type.into(), major, minor, high, low]
    }

    /// The header at the front of `input`, if it is complete.
    ///
    /// Refuses what cannot become a header as early as it shows: an unknown type at the first
    /// byte, a wrong version at the third. A peer of another protocol may be waiting for an
    /// answer and never send five bytes.
    pub(crate) fn at_front(input: &[u8]) -> Result<Option<Self>, InvalidMessage> {
        if let Some(header) = input.first_chunk() {
            return Self::decode(header).map(Some);
        }
        if let Some(&content_type) = input.first() {
            ContentType::from_u8(content_type)?;
        }
        if let Some(&[_, major, minor]) = input.first_chunk() {
            check_version(major, minor)?;
        }
        Ok(None)
    }
}

fn check_version(major: u8, minor: u8) -> Result<(), InvalidMessage> {
    match u16::from_be_bytes([major, minor]) {
        LEGACY_VERSION => Ok(()),
        other => Err(InvalidMessage::RecordVersion(other)),
    }
}

/// One record as it was on the wire.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    pub(crate) content_type: ContentType,
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) payload: BytesMut,
}

impl Record {
    /// A record around `payload`, which is a TLSPlaintext's fragment or a TLSCiphertext's
    /// encrypted_record.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::RecordTooLong`] if the payload is longer than [`MAX_CIPHERTEXT`].
    pub fn new(content_type: ContentType, payload: BytesMut) -> Result<Self, InvalidMessage> {
        let length = payload.len();
        if length > MAX_CIPHERTEXT {
            return Err(InvalidMessage::RecordTooLong(length));
        }
        let header = RecordHeader { content_type, length }.encode();
        Ok(Self { content_type, header, payload })
    }

    /// Takes one whole record off the front of `input`, without copying the payload.
    ///
    /// `None` means that more bytes are needed; [`Self::needed`] says how many. The length is
    /// checked before the payload is awaited, and nothing is reserved.
    ///
    /// # Errors
    ///
    /// What [`RecordHeader::decode`] refuses, as soon as the bytes in question are there. `input`
    /// is left as it was, and the stream is of no further use.
    pub fn split_from(input: &mut BytesMut) -> Result<Option<Self>, InvalidMessage> {
        let Some(header) = RecordHeader::at_front(input)? else {
            return Ok(None);
        };
        if input.len() < HEADER_LEN + header.length {
            return Ok(None);
        }
        input.advance(HEADER_LEN);
        let payload = input.split_to(header.length);
        Ok(Some(Self { content_type: header.content_type, header: header.encode(), payload }))
    }

    /// How many more bytes complete the record at the front of `input`, or its header if that is
    /// incomplete.
    ///
    /// Zero if [`Self::split_from`] will give a record or an error.
    pub fn needed(input: &[u8]) -> usize {
        match RecordHeader::at_front(input) {
            Ok(Some(header)) => (HEADER_LEN + header.length).saturating_sub(input.len()),
            Ok(None) => HEADER_LEN.saturating_sub(input.len()),
            Err(_) => 0,
        }
    }

    /// Checks what RFC 8446, section 5.1 asks of a record that is not protected.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::RecordTooLong`] above [`MAX_PLAINTEXT`], and
    /// [`InvalidMessage::RecordTooShort`] for an alert or handshake record without content.
    pub fn check_plaintext(&self) -> Result<(), InvalidMessage> {
        match (self.content_type, self.payload.len()) {
            (_, length) if length > MAX_PLAINTEXT => Err(InvalidMessage::RecordTooLong(length)),
            (ContentType::Alert | ContentType::Handshake, 0) => Err(InvalidMessage::RecordTooShort),
            _ => Ok(()),
        }
    }

    /// The outer type.
    pub fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// The header as it was received, which is the additional data of a protected record.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What follows the header, by value.
    pub fn into_payload(self) -> BytesMut {
        self.payload
    }
}

// The payload is decrypted in place, so it may be somebody's plaintext: only its length is shown.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("content_type", &self.content_type)
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Appends `payload` to `out` as TLSPlaintext records of at most [`MAX_PLAINTEXT`] bytes each.
///
/// An empty payload gives no record.
pub(crate) fn encode_plaintext(content_type: ContentType, payload: &[u8], out: &mut BytesMut) {
    out.reserve(payload.len() + payload.len().div_ceil(MAX_PLAINTEXT) * HEADER_LEN);
    for fragment in payload.chunks(MAX_PLAINTEXT) {
        out.put_slice(&RecordHeader { content_type, length: fragment.len() }.encode());
        out.put_slice(fragment);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPES: [ContentType; 3] =
        [ContentType::Alert, ContentType::Handshake, ContentType::ApplicationData];

    fn split(bytes: &[u8]) -> Result<Option<Record>, InvalidMessage> {
        let mut input = BytesMut::from(bytes);
        let result = Record::split_from(&mut input);
        match &result {
            Ok(Some(record)) => {
                assert_eq!(input.len(), bytes.len() - HEADER_LEN - record.payload.len())
            }
            _ => assert_eq!(input, bytes, "the input changed although nothing was taken"),
        }
        result
    }

    fn record(content_type: ContentType, length: usize) -> Vec<u8> {
        let mut bytes = RecordHeader { content_type, length }.encode().to_vec();
        bytes.resize(HEADER_LEN + length, 0x5a);
        bytes
    }

    // TL-02
    #[test]
    fn the_header_is_that_of_rfc_8446() {
        let header = RecordHeader { content_type: ContentType::Handshake, length: 0x1234 };
        assert_eq!(header.encode(), [22, 3, 3, 0x12, 0x34]);
        assert_eq!((MAX_PLAINTEXT, MAX_CIPHERTEXT), (16384, 16640));
        assert_eq!(TYPES.map(u8::from), [21, 22, 23]);
    }

    #[test]
    fn the_numbers_of_other_types_are_refused_on_the_first_byte() {
        for number in 0..=u8::MAX {
            match ContentType::from_u8(number) {
                Ok(known) => {
                    assert_eq!(u8::from(known), number);
                    assert_eq!(split(&[number]), Ok(None));
                }
                Err(error) => {
                    assert!(![21, 22, 23].contains(&number));
                    assert_eq!(error, InvalidMessage::UnknownContentType(number));
                    assert_eq!(split(&[number]), Err(error));
                    assert_eq!(split(&[number, 3, 3, 0, 1, 0]), Err(error));
                }
            }
        }
    }

    #[test]
    fn another_version_is_refused_on_the_third_byte() {
        for version in [0x0300_u16, 0x0301, 0x0304, 0x0203, 0x0000, 0xffff] {
            let [major, minor] = version.to_be_bytes();
            let error = Err(InvalidMessage::RecordVersion(version));
            assert_eq!(split(&[22, major]), Ok(None));
            assert_eq!(split(&[22, major, minor]), error);
            assert_eq!(split(&[22, major, minor, 0]), error);
            assert_eq!(split(&[22, major, minor, 0, 1, 7]), error);
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_on_the_fifth_byte() {
        for length in 0..=u16::MAX {
            let [high, low] = length.to_be_bytes();
            let decoded = RecordHeader::decode(&[23, 3, 3, high, low]);
            let length = usize::from(length);
            if length <= 16640 {
                let expected = RecordHeader { content_type: ContentType::ApplicationData, length };
                assert_eq!(decoded, Ok(expected));
                assert_eq!(expected.encode(), [23, 3, 3, high, low]);
            } else {
                assert_eq!(decoded, Err(InvalidMessage::RecordTooLong(length)));
                assert_eq!(split(&[23, 3, 3, high]), Ok(None));
                assert_eq!(
                    split(&[23, 3, 3, high, low]),
                    Err(InvalidMessage::RecordTooLong(length))
                );
            }
        }
    }

    #[test]
    fn a_length_without_encoding_becomes_one_that_nobody_accepts() {
        let header = RecordHeader { content_type: ContentType::Alert, length: 1 << 20 }.encode();
        assert_eq!(RecordHeader::decode(&header), Err(InvalidMessage::RecordTooLong(0xffff)));
    }

    // CH-10: every single flipped bit, and every value of every header byte.
    #[test]
    fn a_changed_header_gives_an_error_or_another_header() {
        let good = RecordHeader { content_type: ContentType::Handshake, length: 259 };
        for position in 0..HEADER_LEN {
            for value in 0..=u8::MAX {
                let mut bytes = good.encode();
                bytes[position] = value;
                match RecordHeader::decode(&bytes) {
                    Ok(header) => assert_eq!(header.encode(), bytes),
                    Err(
                        InvalidMessage::UnknownContentType(_)
                        | InvalidMessage::RecordVersion(_)
                        | InvalidMessage::RecordTooLong(_),
                    ) => assert_ne!(bytes, good.encode()),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn every_truncation_needs_exactly_what_is_missing() {
        for length in [0, 1, 2, 300] {
            let whole = record(ContentType::Handshake, length);
            for end in 0..whole.len() {
                let part = &whole[..end];
                assert_eq!(split(part), Ok(None));
                let missing = if end < HEADER_LEN { HEADER_LEN } else { whole.len() } - end;
                assert_eq!(Record::needed(part), missing);
            }
            assert_eq!(Record::needed(&whole), 0);
            assert_eq!(split(&whole).unwrap().unwrap().payload, whole[HEADER_LEN..]);
        }
        assert_eq!(Record::needed(&[0x16, 3, 3, 0xff, 0xff]), 0);
        assert_eq!(Record::needed(b"G"), 0);
    }

    #[test]
    fn a_record_is_taken_without_copying_and_the_next_one_stays() {
        let mut input = BytesMut::new();
        input.extend_from_slice(&record(ContentType::Handshake, 40));
        input.extend_from_slice(&record(ContentType::Alert, 2));
        let payload_at = input[HEADER_LEN..].as_ptr();
        let first = Record::split_from(&mut input).unwrap().unwrap();
        assert_eq!(first.payload.as_ptr(), payload_at);
        assert_eq!(first.header, [22, 3, 3, 0, 40]);
        let second = Record::split_from(&mut input).unwrap().unwrap();
        assert_eq!((second.content_type, second.payload.len()), (ContentType::Alert, 2));
        assert_eq!(Record::split_from(&mut input), Ok(None));
    }

    #[test]
    fn nothing_is_reserved_for_a_record_that_is_announced() {
        let mut input = BytesMut::from(&[23, 3, 3, 0x40, 0x00][..]);
        let capacity = input.capacity();
        assert_eq!(Record::split_from(&mut input), Ok(None));
        assert_eq!(input.capacity(), capacity);
    }

    // TL-02: RFC 8446, section 5.1
    #[test]
    fn plaintext_records_have_limits_of_their_own() {
        let check = |content_type, length| {
            split(&record(content_type, length)).unwrap().unwrap().check_plaintext()
        };
        for content_type in TYPES {
            assert_eq!(check(content_type, 1), Ok(()));
            assert_eq!(check(content_type, 16384), Ok(()));
            assert_eq!(check(content_type, 16385), Err(InvalidMessage::RecordTooLong(16385)));
        }
        assert_eq!(check(ContentType::Alert, 0), Err(InvalidMessage::RecordTooShort));
        assert_eq!(check(ContentType::Handshake, 0), Err(InvalidMessage::RecordTooShort));
        assert_eq!(check(ContentType::ApplicationData, 0), Ok(()));
    }

    #[test]
    fn a_record_longer_than_allowed_cannot_be_made() {
        let make = |length| Record::new(ContentType::ApplicationData, BytesMut::zeroed(length));
        assert_eq!(make(16640).unwrap().header, [23, 3, 3, 0x41, 0x00]);
        assert_eq!(make(16641), Err(InvalidMessage::RecordTooLong(16641)));
    }

    // TL-07
    #[test]
    fn long_content_is_cut_into_records_of_full_size() {
        for (length, expected) in [
            (0, vec![]),
            (1, vec![1]),
            (16384, vec![16384]),
            (16385, vec![16384, 1]),
            (40000, vec![16384, 16384, 7232]),
        ] {
            let mut out = BytesMut::from(&b"before"[..]);
            encode_plaintext(ContentType::Handshake, &vec![1; length], &mut out);
            assert_eq!(out.split_to(6), "before");
            let mut lengths = Vec::new();
            while let Some(record) = Record::split_from(&mut out).unwrap() {
                assert_eq!(record.check_plaintext(), Ok(()));
                assert_eq!(record.content_type, ContentType::Handshake);
                lengths.push(record.payload.len());
            }
            assert!(out.is_empty());
            assert_eq!(lengths, expected);
        }
    }

    // CH-07
    #[test]
    fn debug_shows_no_payload() {
        let record = Record::new(ContentType::ApplicationData, BytesMut::from("hunter2")).unwrap();
        let shown = format!("{record:?}");
        assert!(shown.contains("payload_len: 7"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    }

    proptest! {
        #[test]
        fn content_survives_encoding(
            payload in proptest::collection::vec(any::<u8>(), 0..20_000),
            content_type in proptest::sample::select(&TYPES[..]),
        ) {
            let mut out = BytesMut::new();
            encode_plaintext(content_type, &payload, &mut out);
            let mut decoded = Vec::new();
            while let Some(record) = Record::split_from(&mut out).unwrap() {
                prop_assert_eq!(record.content_type, content_type);
                decoded.extend_from_slice(&record.payload);
            }
            prop_assert_eq!(decoded, payload);
        }

        // CH-10
        #[test]
        fn any_bytes_give_records_an_error_or_a_wish_for_more(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            plausible in any::<bool>(),
        ) {
            let mut input = BytesMut::new();
            if plausible {
                input.extend_from_slice(&[22, 3, 3, 0]);
            }
            input.extend_from_slice(&bytes);
            let mut left = input.len();
            while let Ok(Some(record)) = Record::split_from(&mut input) {
                left -= HEADER_LEN + record.payload.len();
                prop_assert_eq!(input.len(), left);
            }
            prop_assert_eq!(
                Record::needed(&input) > 0,
                Record::split_from(&mut input) == Ok(None)
            );
        }
    }
}
