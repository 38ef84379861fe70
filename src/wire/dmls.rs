//! The frames of Distributed MLS (DM-17).
//!
//! A frame is a message in the envelope, and travels in records of type handshake like those of the
//! two-party profile; it may span records. What MLS has a format for is an MLSMessage. What else a
//! receiver has to know before it can decrypt, the [`FrameHeader`], is the authenticated data of the
//! MLSMessage: readable by everyone, and changed by nobody.

use bytes::{Bytes, BytesMut};
use tls_codec::{DeserializeBytes as _, TlsDeserializeBytes, TlsSerialize, TlsSize};

use super::{ContentType, ENVELOPE_LEN, encode_plaintext, envelope};
use crate::error::InvalidMessage;

/// Private-use extension of leaves and group contexts that marks a Send Group.
pub(crate) const UNIVERSE_PARAMETERS: u16 = 0xf0a2;

/// Length in bytes of the digest that tells one version of an epoch from another.
pub(crate) const DIGEST_LEN: usize = 16;

/// Which frame of Distributed MLS an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum DmlsMessageType {
    /// Declares the universe (DM-03).
    Universe = 1,
    /// A member's KeyPackages, for the owners of the other Send Groups.
    KeyPackages = 2,
    /// The Welcome to its sender's Send Group.
    Welcome = 3,
    /// A commit in its sender's Send Group, behind the proposals that it refers to.
    Commit = 4,
    /// A proposal for its sender's leaf in the receiver's Send Group.
    LeafUpdate = 5,
    /// Application data.
    Message = 6,
    /// What its sender has of the other Send Groups.
    Acknowledge = 7,
    /// Asks the receiver to send frames again.
    Resend = 8,
    /// Asks the receiver to pass on frames of another member.
    ResendOf = 9,
    /// A frame of another member, passed on.
    Forwarded = 10,
    /// Application data that is longer, encrypted and hashed once instead of signed.
    BulkMessage = 11,
}

impl DmlsMessageType {
    /// The name in `docs/protocol.md`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Universe => "Universe",
            Self::KeyPackages => "KeyPackages",
            Self::Welcome => "Welcome",
            Self::Commit => "Commit",
            Self::LeafUpdate => "LeafUpdate",
            Self::Message => "Message",
            Self::Acknowledge => "Acknowledge",
            Self::Resend => "Resend",
            Self::ResendOf => "ResendOf",
            Self::Forwarded => "Forwarded",
            Self::BulkMessage => "BulkMessage",
        }
    }
}

impl TryFrom<u8> for DmlsMessageType {
    type Error = InvalidMessage;

    fn try_from(number: u8) -> Result<Self, InvalidMessage> {
        match number {
            1 => Ok(Self::Universe),
            2 => Ok(Self::KeyPackages),
            3 => Ok(Self::Welcome),
            4 => Ok(Self::Commit),
            5 => Ok(Self::LeafUpdate),
            6 => Ok(Self::Message),
            7 => Ok(Self::Acknowledge),
            8 => Ok(Self::Resend),
            9 => Ok(Self::ResendOf),
            10 => Ok(Self::Forwarded),
            11 => Ok(Self::BulkMessage),
            other => Err(InvalidMessage::UnknownMessageType(other)),
        }
    }
}

impl From<DmlsMessageType> for u8 {
    fn from(message_type: DmlsMessageType) -> Self {
        message_type as Self
    }
}

// Byte strings are not tls_codec's own types: those have a debug assertion that a truncated string trips.
// Where they are long they are not `Vec<u8>` either, which it reads byte by byte.

/// A byte string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opaque(pub(crate) Vec<u8>);

/// Takes a vector of RFC 9420, section 2.1.2, off the front.
pub(crate) fn split_vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, _) = bytes.split_first()?;
    let size = match first >> 6 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return None,
    };
    let (prefix, rest) = bytes.split_at_checked(size)?;
    let length = prefix.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let length = length & ((1 << (8 * size - 2)) - 1);
    // As short as can be.
    let shortest = match length {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        _ => 4,
    };
    (size == shortest).then(|| rest.split_at_checked(length))?
}

impl tls_codec::Size for Opaque {
    fn tls_serialized_len(&self) -> usize {
        tls_codec::VLByteSlice(&self.0).tls_serialized_len()
    }
}

impl tls_codec::Serialize for Opaque {
    fn tls_serialize<W: std::io::Write>(&self, writer: &mut W) -> Result<usize, tls_codec::Error> {
        tls_codec::VLByteSlice(&self.0).tls_serialize(writer)
    }
}

impl tls_codec::DeserializeBytes for Opaque {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), tls_codec::Error> {
        let (content, rest) = split_vector(bytes).ok_or(tls_codec::Error::EndOfStream)?;
        Ok((Self(content.to_vec()), rest))
    }
}

/// What a Forwarded frame has besides the body of the frame in it.
pub(crate) const FORWARDED_OVERHEAD: usize = ENVELOPE_LEN + size_of::<u16>();

/// A frame, in its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) message_type: DmlsMessageType,
    encoded: Bytes,
}

impl Frame {
    pub(crate) fn new(message_type: DmlsMessageType, body: &[u8]) -> Result<Self, InvalidMessage> {
        Ok(Self { message_type, encoded: envelope::seal(message_type, body)?.into() })
    }

    /// Takes the envelope apart.
    pub(crate) fn parse(encoded: Bytes, limit: usize) -> Result<Self, InvalidMessage> {
        let Some(&[number, high, middle, low]) = encoded.first_chunk() else {
            return Err(InvalidMessage::Malformed("frame"));
        };
        let message_type = DmlsMessageType::try_from(number)?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let limit = match message_type {
            DmlsMessageType::Forwarded => limit.saturating_add(FORWARDED_OVERHEAD),
            _ => limit,
        };
        if length > limit {
            return Err(InvalidMessage::MessageTooLong { length, limit });
        }
        match encoded.len() - ENVELOPE_LEN {
            actual if actual < length => Err(InvalidMessage::Malformed("frame")),
            actual if actual > length => Err(InvalidMessage::TrailingData("a frame")),
            _ => Ok(Self { message_type, encoded }),
        }
    }

    /// A Forwarded with the frame of a member in its envelope.
    pub(crate) fn forward(member: u16, frame: &[u8]) -> Result<Self, InvalidMessage> {
        Self::new(DmlsMessageType::Forwarded, &[&member.to_be_bytes(), frame].concat())
    }

    /// Whose frame a Forwarded holds, and the frame in its envelope.
    pub(crate) fn forwarded(&self) -> Result<(u16, Bytes), InvalidMessage> {
        match self.body().first_chunk() {
            Some(member) => {
                let frame = self.encoded.slice(ENVELOPE_LEN + member.len()..);
                Ok((u16::from_be_bytes(*member), frame))
            }
            None => Err(InvalidMessage::Malformed("Forwarded")),
        }
    }

    /// The envelope.
    pub(crate) fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.encoded.get(ENVELOPE_LEN..).unwrap_or_default()
    }
}

/// Cuts a frame into records.
pub fn encode_frame(frame: &[u8], out: &mut BytesMut) {
    encode_plaintext(ContentType::Handshake, frame, out);
}

/// The authenticated data of a Universe, Commit, Message, BulkMessage or Acknowledge.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct FrameHeader {
    pub(crate) message_type: u8,
    /// The place of the frame among those of its sender; the Welcome has place 0.
    pub(crate) sequence: u64,
    /// Where the sender's memory begins again, if it has lost some: what lies between this place and
    /// the frame's will never be sent.
    pub(crate) resumed_from: Option<u64>,
    /// The epochs of other Send Groups whose pre-shared keys a commit imports.
    pub(crate) imports: Vec<EpochRef>,
    /// The hash of the ciphertext of a BulkMessage; empty in other frames.
    pub(crate) digest: Opaque,
}

/// The authenticated data of a LeafUpdate.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct LeafHeader {
    pub(crate) message_type: u8,
    /// The epoch of the proposer's own Send Group that has this leaf.
    pub(crate) epoch: u64,
}

/// An epoch of a member's Send Group, as the one who names it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct EpochRef {
    pub(crate) member: u16,
    pub(crate) epoch: u64,
    /// The first bytes of the confirmed transcript hash.
    pub(crate) digest: [u8; DIGEST_LEN],
}

/// The body of a Commit.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct CommitFrame {
    pub(crate) proposals: Vec<Opaque>,
    pub(crate) commit: Opaque,
    /// The sender's, of both: others can pass the frame on, and nobody can change it.
    pub(crate) signature: Opaque,
}

/// The body of KeyPackages.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct KeyPackagesFrame {
    pub(crate) key_packages: Vec<Opaque>,
}

/// The application data of an Acknowledge: an entry for each Send Group that its sender has joined.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Acknowledgement {
    pub(crate) entries: Vec<Received>,
}

/// What a member has of one other Send Group.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct Received {
    /// The newest update; epoch 0 if there was none.
    pub(crate) newest: EpochRef,
    /// The place of the first frame that is missing.
    pub(crate) next: u64,
}

/// The body of a Resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ResendFrame {
    /// The place of the first frame that is missing.
    pub(crate) first: u64,
    /// The place of a frame that is there, so that nothing from it on is needed; beyond the last frame
    /// if everything is.
    pub(crate) end: u64,
}

/// The body of a ResendOf: as a Resend, about the frames of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct ResendOfFrame {
    pub(crate) member: u16,
    pub(crate) wanted: ResendFrame,
}

/// What is the same for all Send Groups of a universe: the extension of their group contexts.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct UniverseParameters {
    pub(crate) version: u16,
    pub(crate) universe_id: Vec<u8>,
    pub(crate) export_key_length: u16,
    /// 1: leaves are replaced together with the import of a pre-shared key (DM-06). 0: they are not.
    pub(crate) leaf_replacement: u8,
}

/// The application data of a Universe: who belongs to it, in order, the sender first.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct UniverseFrame {
    pub(crate) parameters: UniverseParameters,
    /// The suites that Send Groups may have.
    pub(crate) cipher_suites: Vec<u16>,
    /// The KeyPackages of each member.
    pub(crate) members: Vec<KeyPackagesFrame>,
}

/// Encodes a structure of this module.
pub(crate) fn encode(value: &impl tls_codec::Serialize) -> Result<Vec<u8>, InvalidMessage> {
    value.tls_serialize_detached().map_err(|_| InvalidMessage::Malformed("frame"))
}

macro_rules! decode {
    ($($frame:ty: $name:literal),* $(,)?) => {$(
        impl $frame {
            pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
                Self::tls_deserialize_exact_bytes(bytes)
                    .map_err(|_| InvalidMessage::Malformed($name))
            }
        }
    )*};
}

decode! {
    FrameHeader: "header of a frame",
    LeafHeader: "header of a LeafUpdate",
    CommitFrame: "Commit",
    KeyPackagesFrame: "KeyPackages",
    Acknowledgement: "Acknowledge",
    ResendFrame: "Resend",
    ResendOfFrame: "ResendOf",
    UniverseParameters: "universe parameters",
    UniverseFrame: "Universe",
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{MessageAssembler, Record};

    const LIMIT: usize = 100_000;

    fn types() -> impl Iterator<Item = DmlsMessageType> {
        (1..=11).map(|number| DmlsMessageType::try_from(number).unwrap())
    }

    // DM-17
    #[test]
    fn a_frame_is_an_envelope_and_its_records_can_be_put_together() {
        for message_type in types() {
            assert_eq!(format!("{message_type:?}"), message_type.name());
            let body = vec![7; 40_000];
            let frame = Frame::new(message_type, &body).unwrap();
            assert_eq!(frame.encoded()[..4], [u8::from(message_type), 0, 0x9c, 0x40]);
            let mut records = BytesMut::new();
            encode_frame(frame.encoded(), &mut records);
            let mut assembler = MessageAssembler::<DmlsMessageType>::new(LIMIT);
            while let Some(record) = Record::split_from(&mut records).unwrap() {
                assert_eq!(record.content_type, ContentType::Handshake);
                assembler.push(&record.payload).unwrap();
            }
            let message = assembler.next().unwrap().unwrap();
            assert_eq!(message.encoded(), &frame.encoded()[..]);
            assert_eq!(Frame::parse(frame.encoded().clone(), LIMIT), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let parse = |bytes: &[u8]| Frame::parse(Bytes::copy_from_slice(bytes), 10);
        assert_eq!(parse(&[]), Err(InvalidMessage::Malformed("frame")));
        assert_eq!(parse(&[6, 0, 0]), Err(InvalidMessage::Malformed("frame")));
        assert_eq!(parse(&[6, 0, 0, 1]), Err(InvalidMessage::Malformed("frame")));
        assert_eq!(parse(&[6, 0, 0, 0, 1]), Err(InvalidMessage::TrailingData("a frame")));
        assert_eq!(parse(&[99, 0, 0, 0]), Err(InvalidMessage::UnknownMessageType(99)));
        assert_eq!(
            parse(&[6, 0, 0, 11, 0]),
            Err(InvalidMessage::MessageTooLong { length: 11, limit: 10 })
        );
    }

    #[test]
    fn a_frame_is_passed_on_as_it_is() {
        let frame = Frame::new(DmlsMessageType::Message, &[7; LIMIT]).unwrap();
        let forwarded = Frame::forward(258, frame.encoded()).unwrap();
        assert_eq!(forwarded.encoded()[..10], [10, 1, 0x86, 0xa6, 1, 2, 6, 1, 0x86, 0xa0]);
        let parsed = Frame::parse(forwarded.encoded().clone(), LIMIT).unwrap();
        assert_eq!(parsed.forwarded(), Ok((258, frame.encoded().clone())));
    }

    #[test]
    fn a_header_has_its_bytes_in_order() {
        let header = FrameHeader {
            message_type: 4,
            sequence: 5,
            resumed_from: None,
            imports: vec![EpochRef { member: 1, epoch: 2, digest: [9; DIGEST_LEN] }],
            digest: Opaque(vec![8; 3]),
        };
        let expected = [
            &[4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 26, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2][..],
            &[9; 16],
            &[3, 8, 8, 8],
        ]
        .concat();
        assert_eq!(encode(&header), Ok(expected.clone()));
        assert_eq!(FrameHeader::decode(&expected), Ok(header));
    }

    proptest! {
        // CH-10
        #[test]
        fn any_bytes_decode_or_give_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = FrameHeader::decode(&bytes).map(|header| encode(&header) == Ok(bytes.clone()));
            if let Ok(frame) = CommitFrame::decode(&bytes) {
                assert_eq!(encode(&frame), Ok(bytes.clone()));
            }
            if let Some((content, rest)) = split_vector(&bytes) {
                let opaque = encode(&Opaque(content.to_vec())).unwrap();
                assert_eq!([&opaque[..], rest].concat(), bytes);
            }
            let _ = UniverseFrame::decode(&bytes);
            let _ = Acknowledgement::decode(&bytes);
            let _ = ResendOfFrame::decode(&bytes);
            if let Ok(frame) = Frame::parse(bytes.into(), LIMIT) {
                let _ = frame.forwarded();
            }
        }
    }
}
