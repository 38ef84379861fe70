//! What an encrypted message says in the clear.

use crate::{
    error::{Error, InvalidMessage},
    wire::split_vector,
};

/// The version of MLS, and PrivateMessage (RFC 9420, section 6).
const PREFIX: [u8; 4] = [0, 1, 0, 2];

/// What an encrypted message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentType {
    Application,
    Proposal,
    Commit,
}

/// What an encrypted message says of itself in the clear. None of it is authenticated yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MessageHeader<'a> {
    pub(crate) group_id: &'a [u8],
    pub(crate) epoch: u64,
    pub(crate) content_type: ContentType,
    pub(crate) authenticated_data: &'a [u8],
}

impl<'a> MessageHeader<'a> {
    /// Reads it from an MLSMessage, where it lies: OpenMLS would copy the ciphertext.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Error> {
        const MALFORMED: InvalidMessage = InvalidMessage::Malformed("MLSMessage");
        let Some((prefix, rest)) = message.split_first_chunk() else {
            return Err(MALFORMED.into());
        };
        if *prefix != PREFIX {
            return Err(InvalidMessage::UnexpectedWireFormat("PrivateMessage").into());
        }
        Self::parse_fields(rest).ok_or_else(|| MALFORMED.into())
    }

    fn parse_fields(rest: &'a [u8]) -> Option<Self> {
        let (group_id, rest) = split_vector(rest)?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (content_type, rest) = rest.split_first()?;
        let content_type = match content_type {
            1 => ContentType::Application,
            2 => ContentType::Proposal,
            3 => ContentType::Commit,
            _ => return None,
        };
        let (authenticated_data, rest) = split_vector(rest)?;
        let (_sender_data, rest) = split_vector(rest)?;
        let (_ciphertext, rest) = split_vector(rest)?;
        let epoch = u64::from_be_bytes(*epoch);
        rest.is_empty().then_some(Self { group_id, epoch, content_type, authenticated_data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_message_is_read_and_nothing_else_is_one() {
        let message =
            [&PREFIX[..], b"\x02id", &7_u64.to_be_bytes(), b"\x01\x03aad\x01s\x40\x02ct"].concat();
        let parse = |message: &[u8]| {
            MessageHeader::parse(message)
                .map(|h| (h.group_id.to_vec(), h.epoch, h.authenticated_data.to_vec()))
        };
        // A length in two bytes that would fit into one is no MLS.
        assert!(parse(&message).is_err());
        let message = [&message[..message.len() - 4], b"\x02ct"].concat();
        assert_eq!(parse(&message), Ok((b"id".to_vec(), 7, b"aad".to_vec())));
        for length in 0..message.len() {
            assert!(parse(&message[..length]).is_err());
        }
        assert!(parse(&[&message[..], b"x"].concat()).is_err());
        for (number, expected) in [(1, true), (2, true), (3, true), (0, false), (4, false)] {
            let mut other = message.clone();
            other[4 + 3 + 8] = number;
            assert_eq!(parse(&other).is_ok(), expected);
        }
        let public = [&[0, 1, 0, 1], &message[4..]].concat();
        let error = InvalidMessage::UnexpectedWireFormat("PrivateMessage");
        assert_eq!(parse(&public), Err(error.into()));
    }
}
