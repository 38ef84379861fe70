//! The messages of the two-party profile.

use std::{borrow::Cow, fmt};

use super::envelope::{self, RawMessage, TwoPartyMessageType};
use crate::error::InvalidMessage;

/// Length in bytes of the binder of a ResumptionRequest.
pub(crate) const BINDER_LEN: usize = 32;

/// Longest early data that a ResumptionRequest may announce, in bytes.
pub(crate) const MAX_EARLY_DATA: u32 = 1 << 20;

/// What follows the commit in a ResumptionRequest.
const REQUEST_TRAILER_LEN: usize = 4 + BINDER_LEN;

/// A message of the two-party profile, without its envelope (draft-kohbrok-mls-two-party-profile).
///
/// The MLS messages are whole MLSMessage structures (RFC 9420, section 6), opaque here.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwoPartyMessage {
    /// The initiator offers a KeyPackage.
    ClientHello {
        /// An MLSMessage with a KeyPackage.
        key_package: Vec<u8>,
    },
    /// The responder invites the initiator into the group that it made.
    ServerHello {
        /// An MLSMessage with a Welcome.
        welcome: Vec<u8>,
    },
    /// The sender updates its keys.
    ConnectionUpdate {
        /// An MLSMessage with a commit; the draft calls the field `update`.
        commit: Vec<u8>,
    },
    /// The sender has applied a ConnectionUpdate.
    EpochKeyUpdate {
        /// The group's new epoch.
        epoch: u64,
    },
    /// The sender resumes a session (2P-15).
    ResumptionRequest {
        /// An MLSMessage with a commit.
        commit: Vec<u8>,
        /// How many bytes of early data follow the request (TL-08).
        early_data_length: u32,
        /// Shows that the maker of the commit sends it as a request.
        binder: [u8; BINDER_LEN],
    },
    /// The answer to a ResumptionRequest (2P-15).
    ResumptionResponse {
        /// An MLSMessage with a commit.
        commit: Vec<u8>,
    },
    /// The sender does not accept the identity in a ConnectionUpdate, and stays in its epoch (2P-13).
    UpdateRefused {
        /// The epoch to which the commit would have led.
        epoch: u64,
    },
}

impl TwoPartyMessage {
    /// Decodes the body of an envelope.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::Malformed`] if an MLSMessage is empty or an epoch too short,
    /// [`InvalidMessage::TrailingData`] if an epoch is followed by more. Both name the message.
    pub fn decode(message_type: TwoPartyMessageType, body: &[u8]) -> Result<Self, InvalidMessage> {
        let name = message_type.name();
        if body.is_empty() {
            return Err(InvalidMessage::Malformed(name));
        }
        let mls_message = || body.to_vec();
        let epoch = || match body.split_first_chunk() {
            Some((epoch, [])) => Ok(u64::from_be_bytes(*epoch)),
            Some(_) => Err(InvalidMessage::TrailingData(name)),
            None => Err(InvalidMessage::Malformed(name)),
        };
        Ok(match message_type {
            TwoPartyMessageType::ClientHello => Self::ClientHello { key_package: mls_message() },
            TwoPartyMessageType::ServerHello => Self::ServerHello { welcome: mls_message() },
            TwoPartyMessageType::ConnectionUpdate => {
                Self::ConnectionUpdate { commit: mls_message() }
            }
            TwoPartyMessageType::EpochKeyUpdate => Self::EpochKeyUpdate { epoch: epoch()? },
            TwoPartyMessageType::UpdateRefused => Self::UpdateRefused { epoch: epoch()? },
            TwoPartyMessageType::ResumptionRequest => {
                let (commit, trailer) = body
                    .split_last_chunk::<REQUEST_TRAILER_LEN>()
                    .filter(|(commit, _)| !commit.is_empty())
                    .ok_or(InvalidMessage::Malformed(name))?;
                let [a, b, c, d, binder @ ..] = *trailer;
                let early_data_length = u32::from_be_bytes([a, b, c, d]);
                Self::ResumptionRequest { commit: commit.to_vec(), early_data_length, binder }
            }
            TwoPartyMessageType::ResumptionResponse => {
                Self::ResumptionResponse { commit: mls_message() }
            }
        })
    }

    /// The message in its envelope.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::Malformed`] if an MLSMessage is empty,
    /// [`InvalidMessage::MessageTooLong`] if one has 2^24 bytes or more.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidMessage> {
        let body = match self {
            Self::EpochKeyUpdate { epoch } | Self::UpdateRefused { epoch } => {
                Cow::Owned(epoch.to_be_bytes().to_vec())
            }
            Self::ClientHello { key_package: message }
            | Self::ServerHello { welcome: message }
            | Self::ConnectionUpdate { commit: message }
            | Self::ResumptionRequest { commit: message, .. }
            | Self::ResumptionResponse { commit: message }
                if message.is_empty() =>
            {
                return Err(InvalidMessage::Malformed(self.name()));
            }
            Self::ClientHello { key_package: message }
            | Self::ServerHello { welcome: message }
            | Self::ConnectionUpdate { commit: message }
            | Self::ResumptionResponse { commit: message } => Cow::Borrowed(&message[..]),
            Self::ResumptionRequest { commit, early_data_length, binder } => {
                Cow::Owned([&commit[..], &early_data_length.to_be_bytes(), binder].concat())
            }
        };
        envelope::seal(self.message_type(), &body)
    }

    /// The type that the envelope names.
    pub fn message_type(&self) -> TwoPartyMessageType {
        match self {
            Self::ClientHello { .. } => TwoPartyMessageType::ClientHello,
            Self::ServerHello { .. } => TwoPartyMessageType::ServerHello,
            Self::ConnectionUpdate { .. } => TwoPartyMessageType::ConnectionUpdate,
            Self::EpochKeyUpdate { .. } => TwoPartyMessageType::EpochKeyUpdate,
            Self::ResumptionRequest { .. } => TwoPartyMessageType::ResumptionRequest,
            Self::ResumptionResponse { .. } => TwoPartyMessageType::ResumptionResponse,
            Self::UpdateRefused { .. } => TwoPartyMessageType::UpdateRefused,
        }
    }

    /// The name in the two-party profile.
    pub fn name(&self) -> &'static str {
        self.message_type().name()
    }
}

// An MLS message has kilobytes that tell a reader nothing: its length is shown.
impl fmt::Debug for TwoPartyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(self.name());
        match self {
            Self::EpochKeyUpdate { epoch } | Self::UpdateRefused { epoch } => {
                shown.field("epoch", epoch).finish()
            }
            Self::ClientHello { key_package: message }
            | Self::ServerHello { welcome: message }
            | Self::ConnectionUpdate { commit: message }
            | Self::ResumptionRequest { commit: message, .. }
            | Self::ResumptionResponse { commit: message } => {
                shown.field("len", &message.len()).finish_non_exhaustive()
            }
        }
    }
}

impl RawMessage {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// As [`TwoPartyMessage::decode`].
    pub(crate) fn decode(&self) -> Result<TwoPartyMessage, InvalidMessage> {
        TwoPartyMessage::decode(self.message_type(), self.body())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::MessageAssembler, *};

    fn messages(mls_message: &[u8], epoch: u64) -> [TwoPartyMessage; 7] {
        let mls_message = || mls_message.to_vec();
        [
            TwoPartyMessage::ClientHello { key_package: mls_message() },
            TwoPartyMessage::ServerHello { welcome: mls_message() },
            TwoPartyMessage::ConnectionUpdate { commit: mls_message() },
            TwoPartyMessage::EpochKeyUpdate { epoch },
            TwoPartyMessage::ResumptionRequest {
                commit: mls_message(),
                early_data_length: 0x0102_0304,
                binder: [7; BINDER_LEN],
            },
            TwoPartyMessage::ResumptionResponse { commit: mls_message() },
            TwoPartyMessage::UpdateRefused { epoch },
        ]
    }

    fn is_epoch(message: &TwoPartyMessage) -> bool {
        matches!(
            message,
            TwoPartyMessage::EpochKeyUpdate { .. } | TwoPartyMessage::UpdateRefused { .. }
        )
    }

    // TL-05, 2P-15
    #[test]
    fn a_message_is_its_envelope_and_the_struct_of_the_draft() {
        for (number, message) in (1..).zip(messages(b"mls", 0x0102_0304_0506_0708)) {
            let expected = match &message {
                message if is_epoch(message) => {
                    vec![number, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]
                }
                TwoPartyMessage::ResumptionRequest { .. } => {
                    [&[number, 0, 0, 39], &b"mls\x01\x02\x03\x04"[..], &[7; 32]].concat()
                }
                _ => vec![number, 0, 0, 3, b'm', b'l', b's'],
            };
            assert_eq!(message.encode(), Ok(expected));
            assert_eq!(u8::from(message.message_type()), number);
        }
    }

    #[test]
    fn an_empty_body_is_refused_in_both_directions() {
        for message in messages(b"", 0) {
            let error = InvalidMessage::Malformed(message.name());
            assert_eq!(TwoPartyMessage::decode(message.message_type(), b""), Err(error));
            if !is_epoch(&message) {
                assert_eq!(message.encode(), Err(error));
            }
        }
    }

    #[test]
    fn an_epoch_has_eight_bytes() {
        for message in messages(b"mls", u64::MAX).into_iter().filter(is_epoch) {
            let (message_type, name) = (message.message_type(), message.name());
            let decode = |length| TwoPartyMessage::decode(message_type, &vec![0xff; length]);
            for length in 0..8 {
                assert_eq!(decode(length), Err(InvalidMessage::Malformed(name)));
            }
            assert_eq!(decode(8), Ok(message.clone()));
            for length in 9..20 {
                assert_eq!(decode(length), Err(InvalidMessage::TrailingData(name)));
            }
        }
    }

    #[test]
    fn a_request_has_a_commit_before_its_trailer() {
        for length in 0..=REQUEST_TRAILER_LEN {
            assert_eq!(
                TwoPartyMessage::decode(
                    TwoPartyMessageType::ResumptionRequest,
                    &vec![0xff; length]
                ),
                Err(InvalidMessage::Malformed("ResumptionRequest")),
            );
        }
    }

    #[test]
    fn a_message_that_the_envelope_cannot_hold_is_refused() {
        let message = TwoPartyMessage::ServerHello { welcome: vec![1; 1 << 24] };
        assert_eq!(
            message.encode(),
            Err(InvalidMessage::MessageTooLong { length: 1 << 24, limit: (1 << 24) - 1 })
        );
    }

    // CH-10: a flipped bit gives another message, a wait for more, or an error; no panic.
    #[test]
    fn every_flipped_bit_gives_an_error_or_another_message() {
        for message in messages(b"an MLS message", 77) {
            let encoded = message.encode().unwrap();
            for bit in 0..encoded.len() * 8 {
                let mut changed = encoded.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let mut assembler = MessageAssembler::<TwoPartyMessageType>::new(1000);
                if assembler.push(&changed).is_err() {
                    continue;
                }
                let Some(raw) = assembler.next().unwrap() else {
                    assert!((8..32).contains(&bit), "only a longer length makes it wait");
                    continue;
                };
                if let Ok(other) = raw.decode() {
                    assert_ne!(other, message);
                    assert!(changed.starts_with(&other.encode().unwrap()));
                }
            }
        }
    }

    #[test]
    fn debug_shows_lengths() {
        let [hello, .., response, _] = messages(&[200; 5000], 3);
        assert_eq!(format!("{hello:?}"), "ClientHello { len: 5000, .. }");
        assert_eq!(format!("{response:?}"), "ResumptionResponse { len: 5000, .. }");
        let update = TwoPartyMessage::EpochKeyUpdate { epoch: 3 };
        assert_eq!(format!("{update:?}"), "EpochKeyUpdate { epoch: 3 }");
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            mls_message in proptest::collection::vec(any::<u8>(), 1..2000),
            epoch in any::<u64>(),
        ) {
            for message in messages(&mls_message, epoch) {
                let mut assembler = MessageAssembler::<TwoPartyMessageType>::new(2100);
                assembler.push(&message.encode().unwrap()).unwrap();
                let raw = assembler.next().unwrap().unwrap();
                prop_assert_eq!(raw.decode(), Ok(message));
                prop_assert!(assembler.is_empty());
            }
        }
    }
}
