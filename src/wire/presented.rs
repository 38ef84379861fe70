//! What can be seen of a KeyPackage without verifying it, whatever its suite (RFC 9420, sections 7.2
//! and 10).

use std::fmt;

use tls_codec::{DeserializeBytes as _, TlsDeserializeBytes, TlsSize};

use super::{
    certificates::decode_certificates,
    parameters::{InitiatorParameters, TRANSPORT_PARAMETERS},
};
use crate::error::{Error, InvalidMessage, PeerMisbehaved};

const MALFORMED: InvalidMessage = InvalidMessage::Malformed("KeyPackage");

/// The wire format mls_key_package.
const KEY_PACKAGE: u16 = 5;

/// The leaf node source key_package.
const OF_KEY_PACKAGE: u8 = 1;

/// Types of credential.
const BASIC: u16 = 1;
const X509: u16 = 2;

/// The parts of a KeyPackage that say who sends it and what it wants.
#[derive(Clone)]
pub(crate) struct PresentedKeyPackage {
    /// The identity in a basic credential.
    pub(crate) basic_identity: Option<Vec<u8>>,
    /// The certificates in an X.509 credential.
    pub(crate) certificates: Option<Vec<Vec<u8>>>,
    /// The number of its suite.
    pub(crate) cipher_suite: u16,
    pub(crate) signature_key: Vec<u8>,
    pub(crate) parameters: InitiatorParameters,
}

/// An MLSMessage with a KeyPackage, up to the extensions of its leaf. Every credential type there is
/// has one vector as its content.
#[derive(TlsSize, TlsDeserializeBytes)]
struct Head {
    message_version: u16,
    wire_format: u16,
    version: u16,
    cipher_suite: u16,
    _init_key: Vec<u8>,
    _encryption_key: Vec<u8>,
    signature_key: Vec<u8>,
    credential_type: u16,
    credential: Vec<u8>,
    _versions: Vec<u8>,
    _cipher_suites: Vec<u8>,
    _extensions: Vec<u8>,
    _proposals: Vec<u8>,
    _credentials: Vec<u8>,
    leaf_node_source: u8,
    _not_before: u64,
    _not_after: u64,
    extensions: Vec<u8>,
}

#[derive(TlsSize, TlsDeserializeBytes)]
struct Extension {
    extension_type: u16,
    data: Vec<u8>,
}

impl PresentedKeyPackage {
    /// Reads an MLSMessage.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Error> {
        let (head, _) = Head::tls_deserialize_bytes(message).map_err(|_| MALFORMED)?;
        if head.wire_format != KEY_PACKAGE {
            return Err(InvalidMessage::UnexpectedWireFormat("KeyPackage").into());
        }
        if (head.message_version, head.version, head.leaf_node_source) != (1, 1, OF_KEY_PACKAGE) {
            return Err(MALFORMED.into());
        }
        let mut rest = &head.extensions[..];
        let mut parameters = None;
        while !rest.is_empty() {
            let extension;
            (extension, rest) = Extension::tls_deserialize_bytes(rest).map_err(|_| MALFORMED)?;
            if extension.extension_type == TRANSPORT_PARAMETERS && parameters.is_none() {
                parameters = Some(InitiatorParameters::decode(&extension.data)?);
            }
        }
        Ok(Self {
            certificates: (head.credential_type == X509)
                .then(|| decode_certificates(&head.credential).ok())
                .flatten(),
            cipher_suite: head.cipher_suite,
            basic_identity: (head.credential_type == BASIC).then_some(head.credential),
            signature_key: head.signature_key,
            parameters: parameters
                .ok_or(PeerMisbehaved::MissingTransportParameters("leaf node"))?,
        })
    }
}

impl fmt::Debug for PresentedKeyPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.basic_identity.as_deref().unwrap_or_default();
        f.debug_struct("PresentedKeyPackage")
            .field("name", &format_args!("\"{}\"", name.escape_ascii()))
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}
