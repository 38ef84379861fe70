//! What travels on a leg of a multicast (MC-01, MC-03, MC-05).
//!
//! A leg carries frames of Distributed MLS between two members, or between a member and a relay. Its
//! messages have the envelope of all others, with types of their own. None of them is authenticated:
//! a frame is by what is in it, and the rest is hints.

use bytes::{Bytes, BytesMut};
use tls_codec::{DeserializeBytes as _, TlsDeserializeBytes, TlsSerialize, TlsSize};

use super::{ContentType, ENVELOPE_LEN, RawMessage, encode_plaintext, envelope};
use crate::error::InvalidMessage;

/// The version of legs.
pub(crate) const LEG_VERSION: u16 = 1;

/// The number that stands for no member: a relay, a party that has no number yet, or all.
pub(crate) const NO_MEMBER: u16 = 0xffff;

/// Bytes in front of the frame in the body of a LegFrame.
const ROUTE_LEN: usize = 4;

/// What a LegFrame adds to its frame.
pub(crate) const LEG_FRAME_OVERHEAD: usize = ROUTE_LEN + ENVELOPE_LEN;

/// The longest body of a hello: an ID of a universe, and a place for each of 1024 members.
pub(crate) const MAX_HELLO_LEN: usize = 2 + 2 + 255 + 2 + 4 + 1024 * 10;

/// Which message of a leg an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LegMessageType {
    Hello = 32,
    Frame = 33,
    Goodbye = 34,
    Ping = 35,
    Pong = 36,
}

impl TryFrom<u8> for LegMessageType {
    type Error = InvalidMessage;

    fn try_from(number: u8) -> Result<Self, InvalidMessage> {
        match number {
            32 => Ok(Self::Hello),
            33 => Ok(Self::Frame),
            34 => Ok(Self::Goodbye),
            35 => Ok(Self::Ping),
            36 => Ok(Self::Pong),
            other => Err(InvalidMessage::UnknownMessageType(other)),
        }
    }
}

impl From<LegMessageType> for u8 {
    fn from(message_type: LegMessageType) -> Self {
        message_type as Self
    }
}

/// What each end says first.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct LegHello {
    pub(crate) version: u16,
    /// Empty: of a relay, or of a party that has no universe yet.
    pub(crate) universe_id: Vec<u8>,
    /// Who says it.
    pub(crate) member: u16,
    /// What it wants next of whom. Of those who are not named, everything.
    pub(crate) wanted: Vec<WantedPlace>,
}

/// The first place that somebody lacks in the order of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub(crate) struct WantedPlace {
    pub(crate) member: u16,
    pub(crate) next: u64,
}

/// A message of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegMessage {
    Hello(LegHello),
    Frame(LegFrame),
    /// Nothing follows, and that is as it should be.
    Goodbye,
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
}

/// A frame, with what a relay has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegFrame {
    pub(crate) origin: u16,
    /// [`NO_MEMBER`]: all.
    pub(crate) destination: u16,
    pub(crate) frame: Bytes,
}

impl LegHello {
    /// What is wanted next of a member.
    pub(crate) fn next_of(&self, member: u16) -> u64 {
        self.wanted.iter().find(|wanted| wanted.member == member).map_or(0, |wanted| wanted.next)
    }
}

impl LegMessage {
    /// Encodes the message in records.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::MessageTooLong`] for a frame that leaves no room for what is added to it.
    pub(crate) fn encode(&self) -> Result<Bytes, InvalidMessage> {
        let message = match self {
            Self::Hello(hello) => {
                envelope::seal(LegMessageType::Hello, &super::encode_frame_part(hello)?)?
            }
            Self::Frame(LegFrame { origin, destination, frame }) => {
                let body = [&origin.to_be_bytes(), &destination.to_be_bytes(), &frame[..]].concat();
                envelope::seal(LegMessageType::Frame, &body)?
            }
            Self::Goodbye => envelope::seal(LegMessageType::Goodbye, &[])?,
            Self::Ping => envelope::seal(LegMessageType::Ping, &[])?,
            Self::Pong => envelope::seal(LegMessageType::Pong, &[])?,
        };
        let mut out = BytesMut::with_capacity(message.len() + 5 * (message.len() / 16384 + 1));
        encode_plaintext(ContentType::Handshake, &message, &mut out);
        Ok(out.freeze())
    }

    pub(crate) fn decode(message: RawMessage<LegMessageType>) -> Result<Self, InvalidMessage> {
        match message.message_type() {
            LegMessageType::Hello => LegHello::tls_deserialize_exact_bytes(message.body())
                .map(Self::Hello)
                .map_err(|_| InvalidMessage::Malformed("hello of a leg")),
            LegMessageType::Frame => {
                let mut frame = message.into_body();
                let Some(&[o0, o1, d0, d1]) = frame.first_chunk() else {
                    return Err(InvalidMessage::Malformed("frame of a leg"));
                };
                let (origin, destination) =
                    (u16::from_be_bytes([o0, o1]), u16::from_be_bytes([d0, d1]));
                bytes::Buf::advance(&mut frame, ROUTE_LEN);
                Ok(Self::Frame(LegFrame { origin, destination, frame }))
            }
            message_type if !message.body().is_empty() => {
                let what = match message_type {
                    LegMessageType::Ping => "ping of a leg",
                    LegMessageType::Pong => "pong of a leg",
                    _ => "goodbye of a leg",
                };
                Err(InvalidMessage::Malformed(what))
            }
            LegMessageType::Ping => Ok(Self::Ping),
            LegMessageType::Pong => Ok(Self::Pong),
            LegMessageType::Goodbye => Ok(Self::Goodbye),
        }
    }
}
