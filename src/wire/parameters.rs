//! The transport parameters: what both parties say about the channel inside MLS (TL-06).
//!
//! They are an MLS extension of a private-use type. The initiator's stands in its leaf node, the
//! group's in the group context; a group without either is not of this protocol. Vectors have the
//! variable-length prefix of RFC 9420, section 2.1.2.

use std::collections::HashSet;

use tls_codec::{DeserializeBytes, Serialize, TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::error::{Error, InvalidMessage, PeerIncompatible};

/// The type of the extension, from the private-use range of RFC 9420, section 17.3.
pub(crate) const TRANSPORT_PARAMETERS: u16 = 0xF0A1;

/// The version of this protocol; the first field of either extension.
pub(crate) const PROTOCOL_VERSION: u16 = 1;

/// The least `max_message_size` in bytes that a party may announce. The messages of the classical
/// suites fit with room to spare.
pub(crate) const MIN_MESSAGE_SIZE: u32 = 4096;

/// How many suites, and how many application protocols, an initiator may name.
const MAX_LIST: usize = 64;

/// The longest name of an application protocol or a server, in bytes.
const MAX_NAME: usize = 255;

/// No valid extension is longer: two lists and a name of full length, and 32 bytes for the rest.
/// Checked first, so that a long one costs nothing (CH-10).
const MAX_ENCODED: usize = MAX_LIST * 2 + MAX_LIST * (2 + MAX_NAME) + MAX_NAME + 32;

const INITIATOR: &str = "initiator's transport parameters";
const GROUP: &str = "group's transport parameters";

/// The parameters in the initiator's leaf node.
///
/// On the wire they begin with [`PROTOCOL_VERSION`], which is no field here: there is one.
// Byte strings are `Vec<u8>` and not tls_codec's own types: those have a debug assertion that a
// truncated string trips.
#[derive(Clone, Debug, PartialEq, Eq, TlsSize, TlsSerialize, TlsDeserializeBytes)]
pub(crate) struct InitiatorParameters {
    /// Every suite that the initiator would use, best first: 1 to 64, each once. Numbers that
    /// this build does not know are kept.
    pub(crate) cipher_suites: Vec<u16>,
    /// The application protocols that the initiator offers, best first: at most 64, each once,
    /// of 1 to 255 bytes.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// The name of the server that the initiator wants: at most 255 bytes of UTF-8. Empty if it
    /// names none.
    pub(crate) server_name: Vec<u8>,
    /// The longest message body in bytes that the initiator accepts.
    pub(crate) max_message_size: u32,
}

impl InitiatorParameters {
    /// Decodes the content of the extension, all of it.
    ///
    /// # Errors
    ///
    /// [`PeerIncompatible::Version`] for another version, whatever follows it;
    /// [`InvalidMessage::TrailingData`], and [`InvalidMessage::Malformed`] for everything else
    /// that the fields' documentation rules out.
    pub(crate) fn decode(content: &[u8]) -> Result<Self, Error> {
        let decoded: Self = decode(content, INITIATOR)?;
        decoded.check()?;
        Ok(decoded)
    }

    /// The content of the extension.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::Malformed`] for what no peer would accept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, InvalidMessage> {
        self.check()?;
        encode(self, INITIATOR)
    }

    /// The server name, if the initiator gave one.
    pub(crate) fn server_name(&self) -> Option<&str> {
        std::str::from_utf8(&self.server_name).ok().filter(|name| !name.is_empty())
    }

    fn check(&self) -> Result<(), InvalidMessage> {
        let valid = (1..=MAX_LIST).contains(&self.cipher_suites.len())
            && all_different(&self.cipher_suites)
            && self.alpn.len() <= MAX_LIST
            && self.alpn.iter().all(|name| (1..=MAX_NAME).contains(&name.len()))
            && all_different(&self.alpn)
            && self.server_name.len() <= MAX_NAME
            && std::str::from_utf8(&self.server_name).is_ok()
            && self.max_message_size >= MIN_MESSAGE_SIZE;
        if valid { Ok(()) } else { Err(InvalidMessage::Malformed(INITIATOR)) }
    }
}

/// The parameters in the group context, which the responder makes.
///
/// On the wire they begin with [`PROTOCOL_VERSION`], which is no field here: there is one.
#[derive(Clone, Debug, PartialEq, Eq, TlsSize, TlsSerialize, TlsDeserializeBytes)]
pub(crate) struct GroupParameters {
    /// Hash of the ClientHello with its envelope, by the suite's hash: 32 to 64 bytes.
    pub(crate) client_hello_hash: Vec<u8>,
    /// The application protocol that the responder selected: at most 255 bytes. Empty if none.
    pub(crate) alpn: Vec<u8>,
    /// The longest message body in bytes that the responder accepts.
    pub(crate) max_message_size: u32,
}

impl GroupParameters {
    /// Decodes the content of the extension, all of it.
    ///
    /// # Errors
    ///
    /// As [`InitiatorParameters::decode`].
    pub(crate) fn decode(content: &[u8]) -> Result<Self, Error> {
        let decoded: Self = decode(content, GROUP)?;
        decoded.check()?;
        Ok(decoded)
    }

    /// The content of the extension.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::Malformed`] for what no peer would accept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, InvalidMessage> {
        self.check()?;
        encode(self, GROUP)
    }

    fn check(&self) -> Result<(), InvalidMessage> {
        let valid = (32..=64).contains(&self.client_hello_hash.len())
            && self.alpn.len() <= MAX_NAME
            && self.max_message_size >= MIN_MESSAGE_SIZE;
        if valid { Ok(()) } else { Err(InvalidMessage::Malformed(GROUP)) }
    }
}

fn all_different<T: Eq + std::hash::Hash>(items: &[T]) -> bool {
    let mut seen = HashSet::new();
    items.iter().all(|item| seen.insert(item))
}

fn decode<T: DeserializeBytes>(content: &[u8], name: &'static str) -> Result<T, Error> {
    let (version, fields) = content.split_first_chunk().ok_or(InvalidMessage::Malformed(name))?;
    let version = u16::from_be_bytes(*version);
    if version != PROTOCOL_VERSION {
        return Err(PeerIncompatible::Version(version).into());
    }
    if content.len() > MAX_ENCODED {
        return Err(InvalidMessage::Malformed(name).into());
    }
    match T::tls_deserialize_bytes(fields) {
        Ok((decoded, [])) => Ok(decoded),
        Ok(_) => Err(InvalidMessage::TrailingData(name).into()),
        Err(_) => Err(InvalidMessage::Malformed(name).into()),
    }
}

fn encode<T: Serialize>(fields: &T, name: &'static str) -> Result<Vec<u8>, InvalidMessage> {
    let mut content = PROTOCOL_VERSION.to_be_bytes().to_vec();
    fields.tls_serialize(&mut content).map_err(|_| InvalidMessage::Malformed(name))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn initiator() -> InitiatorParameters {
        InitiatorParameters {
            cipher_suites: vec![3, 1],
            alpn: vec![b"h2".to_vec(), b"x".to_vec()],
            server_name: b"db.example".to_vec(),
            max_message_size: 65536,
        }
    }

    fn group() -> GroupParameters {
        GroupParameters {
            client_hello_hash: vec![0xaa; 32],
            alpn: b"h2".to_vec(),
            max_message_size: 4096,
        }
    }

    fn with<T: Clone>(valid: &T, change: impl FnOnce(&mut T)) -> T {
        let mut changed = valid.clone();
        change(&mut changed);
        changed
    }

    fn longest() -> InitiatorParameters {
        InitiatorParameters {
            cipher_suites: (0..64).collect(),
            alpn: (0..64).map(|n| vec![n; 255]).collect(),
            server_name: vec![b'n'; 255],
            max_message_size: u32::MAX,
        }
    }

    // TL-06: the bytes of docs/protocol.md
    #[test]
    fn the_encoding_is_as_specified() {
        let expected = [
            &[0, 1][..],      // version
            &[4, 0, 3, 0, 1], // suites
            &[5, 2, b'h', b'2', 1, b'x'],
            &[10],
            b"db.example",
            &[0, 1, 0, 0],
        ]
        .concat();
        assert_eq!(initiator().encode(), Ok(expected));

        let expected = [&[0, 1, 32][..], &[0xaa; 32], &[2, b'h', b'2', 0, 0, 16, 0]].concat();
        assert_eq!(group().encode(), Ok(expected));
    }

    #[test]
    fn a_vector_of_64_bytes_has_a_prefix_of_two() {
        let group = with(&group(), |group| group.client_hello_hash = vec![1; 64]);
        assert_eq!(group.encode().unwrap()[..5], [0, 1, 0x40, 64, 1]);
    }

    #[test]
    fn a_prefix_longer_than_necessary_is_refused() {
        let mut content = vec![0, 1, 0x40, 32];
        content.extend_from_slice(&[0xaa; 32]);
        content.extend_from_slice(&[0, 0, 0, 16, 0]);
        assert_eq!(GroupParameters::decode(&content), Err(InvalidMessage::Malformed(GROUP).into()));
        content.splice(2..4, [32]);
        assert!(GroupParameters::decode(&content).is_ok());
    }

    #[test]
    fn what_the_rules_allow_round_trips() {
        for parameters in [
            initiator(),
            longest(),
            with(&initiator(), |p| p.alpn.clear()),
            with(&initiator(), |p| p.server_name.clear()),
            with(&initiator(), |p| p.server_name = "bücher.example".into()),
            with(&initiator(), |p| p.cipher_suites = vec![0x0a0a, 1, 0xffff]),
            with(&initiator(), |p| p.max_message_size = 4096),
        ] {
            let content = parameters.encode().unwrap();
            assert_eq!(InitiatorParameters::decode(&content), Ok(parameters));
        }
        for parameters in [
            group(),
            with(&group(), |p| p.client_hello_hash = vec![0; 48]),
            with(&group(), |p| p.client_hello_hash = vec![0; 64]),
            with(&group(), |p| p.alpn.clear()),
            with(&group(), |p| p.alpn = vec![b'a'; 255]),
            with(&group(), |p| p.max_message_size = u32::MAX),
        ] {
            let content = parameters.encode().unwrap();
            assert_eq!(GroupParameters::decode(&content), Ok(parameters));
        }
    }

    // CH-10: neither made nor accepted
    #[test]
    fn what_the_rules_forbid_is_refused_in_both_directions() {
        let error = InvalidMessage::Malformed(INITIATOR);
        for (rule, parameters) in [
            ("no suite", with(&initiator(), |p| p.cipher_suites.clear())),
            ("65 suites", with(&initiator(), |p| p.cipher_suites = (0..65).collect())),
            ("a suite twice", with(&initiator(), |p| p.cipher_suites = vec![1, 3, 1])),
            ("an empty protocol", with(&initiator(), |p| p.alpn.push(vec![]))),
            ("a long protocol", with(&initiator(), |p| p.alpn.push(vec![b'a'; 256]))),
            ("a protocol twice", with(&initiator(), |p| p.alpn.push(b"h2".to_vec()))),
            ("65 protocols", with(&initiator(), |p| p.alpn = (0..65).map(|n| vec![n]).collect())),
            ("a long name", with(&initiator(), |p| p.server_name = vec![b'a'; 256])),
            ("a name that is no text", with(&initiator(), |p| p.server_name = vec![0xff])),
            ("a small size", with(&initiator(), |p| p.max_message_size = 4095)),
        ] {
            assert_eq!(parameters.encode(), Err(error), "{rule}");
            let content = encode(&parameters, INITIATOR).unwrap();
            assert_eq!(InitiatorParameters::decode(&content), Err(error.into()), "{rule}");
        }
        let error = InvalidMessage::Malformed(GROUP);
        for (rule, parameters) in [
            ("no hash", with(&group(), |p| p.client_hello_hash.clear())),
            ("a short hash", with(&group(), |p| p.client_hello_hash = vec![0; 31])),
            ("a long hash", with(&group(), |p| p.client_hello_hash = vec![0; 65])),
            ("a long protocol", with(&group(), |p| p.alpn = vec![b'a'; 256])),
            ("a small size", with(&group(), |p| p.max_message_size = 4095)),
        ] {
            assert_eq!(parameters.encode(), Err(error), "{rule}");
            let content = encode(&parameters, GROUP).unwrap();
            assert_eq!(GroupParameters::decode(&content), Err(error.into()), "{rule}");
        }
    }

    #[test]
    fn another_version_is_reported_as_such_whatever_follows() {
        for version in [0_u16, 2, 0x0100, 0xffff] {
            let error = Error::from(PeerIncompatible::Version(version));
            for rest in [&[][..], b"fields of another time", &[0; 100_000]] {
                let content = [&version.to_be_bytes()[..], rest].concat();
                assert_eq!(InitiatorParameters::decode(&content), Err(error.clone()));
                assert_eq!(GroupParameters::decode(&content), Err(error.clone()));
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let content = [initiator().encode().unwrap(), vec![0]].concat();
        let error = InvalidMessage::TrailingData(INITIATOR);
        assert_eq!(InitiatorParameters::decode(&content), Err(error.into()));
        let content = [group().encode().unwrap(), vec![0]].concat();
        let error = InvalidMessage::TrailingData(GROUP);
        assert_eq!(GroupParameters::decode(&content), Err(error.into()));
    }

    // CH-10: thousands of empty protocols would take 24 times their length in memory.
    #[test]
    fn an_extension_longer_than_any_valid_one_is_refused_before_it_is_decoded() {
        assert!(longest().encode().unwrap().len() <= MAX_ENCODED);
        let mut content = initiator().encode().unwrap();
        content.resize(MAX_ENCODED + 1, 0);
        // Decoding would get as far as the trailing bytes.
        let error = InvalidMessage::Malformed(INITIATOR);
        assert_eq!(InitiatorParameters::decode(&content), Err(error.into()));
    }

    // CH-10
    #[test]
    fn every_truncation_is_malformed() {
        for (parameters, step) in [(initiator(), 1), (longest(), 101)] {
            let content = parameters.encode().unwrap();
            for end in (0..content.len()).step_by(step) {
                let error = InvalidMessage::Malformed(INITIATOR);
                assert_eq!(InitiatorParameters::decode(&content[..end]), Err(error.into()));
            }
        }
        let content = group().encode().unwrap();
        for end in 0..content.len() {
            let error = InvalidMessage::Malformed(GROUP);
            assert_eq!(GroupParameters::decode(&content[..end]), Err(error.into()));
        }
    }

    // CH-10: an encoding is the only one of its value, so another encoding is another value.
    #[test]
    fn every_flipped_bit_gives_an_error_or_another_value() {
        let content = initiator().encode().unwrap();
        for bit in 0..content.len() * 8 {
            let mut changed = content.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(parameters) = InitiatorParameters::decode(&changed) {
                assert_eq!(parameters.encode(), Ok(changed));
            }
        }
        let content = group().encode().unwrap();
        for bit in 0..content.len() * 8 {
            let mut changed = content.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(parameters) = GroupParameters::decode(&changed) {
                assert_eq!(parameters.encode(), Ok(changed));
            }
        }
    }

    #[test]
    fn an_empty_server_name_is_none() {
        assert_eq!(initiator().server_name(), Some("db.example"));
        assert_eq!(with(&initiator(), |p| p.server_name.clear()).server_name(), None);
    }

    proptest! {
        #[test]
        fn parameters_round_trip(
            cipher_suites in proptest::collection::hash_set(any::<u16>(), 1..=64),
            alpn in proptest::collection::hash_set(
                proptest::collection::vec(any::<u8>(), 1..=255),
                0..=64,
            ),
            server_name in "\\PC{0,60}",
            client_hello_hash in proptest::collection::vec(any::<u8>(), 32..=64),
            max_message_size in MIN_MESSAGE_SIZE..,
        ) {
            let selected = alpn.iter().next().cloned().unwrap_or_default();
            let initiator = InitiatorParameters {
                cipher_suites: cipher_suites.into_iter().collect(),
                alpn: alpn.into_iter().collect(),
                server_name: server_name.into_bytes(),
                max_message_size,
            };
            let content = initiator.encode().unwrap();
            prop_assert_eq!(InitiatorParameters::decode(&content), Ok(initiator));
            let group = GroupParameters { client_hello_hash, alpn: selected, max_message_size };
            let content = group.encode().unwrap();
            prop_assert_eq!(GroupParameters::decode(&content), Ok(group));
        }

        // CH-10
        #[test]
        fn any_bytes_give_an_error_or_a_value(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = InitiatorParameters::decode(&bytes);
            bytes.splice(..0, [0, 1]);
            if let Ok(parameters) = InitiatorParameters::decode(&bytes) {
                prop_assert_eq!(parameters.encode().unwrap(), bytes.clone());
            }
            if let Ok(parameters) = GroupParameters::decode(&bytes) {
                prop_assert_eq!(parameters.encode().unwrap(), bytes);
            }
        }
    }
}
