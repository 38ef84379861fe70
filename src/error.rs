//! Errors, sorted by who is to blame, and their one translation into an alert.
//!
//! Every failure of a channel is an [`Error`]. The variant says whose fault it is: the peer's
//! ([`Error::InvalidMessage`], [`Error::PeerMisbehaved`], [`Error::PeerIncompatible`],
//! [`Error::PeerNotTrusted`], ...), the caller's ([`Error::ApiMisuse`], [`Error::Config`]) or the
//! environment's ([`Error::Crypto`]). Errors of a connection are fatal and sticky: every later
//! call returns the same error. [`Error::alert`] is the only place that decides what the peer is
//! told.

use std::{io, time::Duration};

pub use crate::auth::{AuthenticationError, ChangedKey};
use crate::crypto::CipherSuite;
pub use crate::store::StoreError;
pub use crate::wire::AlertDescription;

/// What went wrong, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer sent bytes that do not parse.
    #[error("invalid message from the peer: {0}")]
    InvalidMessage(#[from] InvalidMessage),
    /// The peer sent something well-formed that the protocol forbids.
    #[error("the peer misbehaved: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer is honest, but the two configurations have nothing in common.
    #[error("the peer is incompatible: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The authentication service does not accept the peer.
    #[error("the peer is not trusted: {0}")]
    PeerNotTrusted(#[from] AuthenticationError),
    /// The peer ended the connection with a fatal alert. Its own error says more than the alert:
    /// access_denied is [`Error::PeerNotTrusted`] there, unrecognized_name that this party has not the
    /// name that was asked for, and handshake_failure [`Error::PeerIncompatible`], for example because
    /// the two identities have keys of different [schemes](crate::SignatureScheme).
    #[error("the peer ended the connection with the alert {0}")]
    AlertReceived(AlertDescription),
    /// The stream ended without a close_notify: the peer vanished, or someone cut the stream.
    #[error("the connection was cut without a close_notify: data may be missing")]
    Truncated,
    /// The peer did not finish the handshake in time.
    #[error("the handshake did not finish within {0:?}")]
    HandshakeTimeout(Duration),
    /// The key of this epoch has protected as many records as it may. The rekey that would have
    /// replaced it was not answered by the peer.
    #[error("the traffic key is exhausted and the peer did not answer the rekey")]
    KeyExhausted,
    /// A session cannot be resumed, or goes on elsewhere.
    #[error("the session: {0}")]
    Session(#[from] SessionError),
    /// The peer's authentication service does not accept the new identity. The channel goes on, and
    /// this party is who it was (2P-13).
    #[error("the peer does not accept the new identity")]
    RotationRefused,
    /// The session store failed. What it stored last stands.
    #[error("the session store: {0}")]
    Store(#[from] StoreError),
    /// The caller used the connection in a way that it does not allow.
    #[error("misuse: {0}")]
    ApiMisuse(#[from] ApiMisuse),
    /// A configuration that cannot work.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The cryptographic library or the group state failed in a way that is nobody's message.
    #[error("cryptography: {0}")]
    Crypto(#[from] CryptoError),
}

/// Bytes that do not parse (RFC 8446 section 5, RFC 9420 section 6, `docs/protocol.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The first bytes are no record of this protocol.
    #[error("not a record of this protocol: unknown content type {0}")]
    UnknownContentType(u8),
    /// The record header names a protocol version other than 0x0303. The first record of a TLS client
    /// does.
    #[error("the record has version {0:#06x} instead of 0x0303: does the peer speak TLS?")]
    RecordVersion(u16),
    /// A record longer than RFC 8446, sections 5.1 and 5.2 allow.
    #[error("a record of {0} bytes is longer than allowed")]
    RecordTooLong(usize),
    /// A record that is too short to hold what it must, or an empty one where that is forbidden.
    #[error("a record is empty or too short")]
    RecordTooShort,
    /// The inner plaintext is all padding: it has no content type.
    #[error("a record has no content type inside")]
    MissingContentType,
    /// The envelope names a message type that does not exist.
    #[error("unknown message type {0}")]
    UnknownMessageType(u8),
    /// A message is longer than this party's `max_message_size`.
    #[error("a message of {length} bytes is longer than the limit of {limit}")]
    MessageTooLong {
        /// Announced length of the body in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A message is followed by bytes that do not belong to it.
    #[error("trailing bytes after {0}")]
    TrailingData(&'static str),
    /// The structure named does not decode.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The MLSMessage holds something else than the message calls for.
    #[error("expected an MLSMessage with a {0}")]
    UnexpectedWireFormat(&'static str),
}

/// Well-formed, and forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A record failed authentication: it was changed on the way, or made with other keys.
    #[error("a record failed authentication")]
    BadRecordMac,
    /// A record of this content type has no place here.
    #[error("unexpected {0} record")]
    UnexpectedRecord(&'static str),
    /// A message of this type has no place here.
    #[error("unexpected {0}")]
    UnexpectedMessage(&'static str),
    /// A message was left incomplete across a change of keys, or shared its record with another.
    #[error("a message is not aligned with its records")]
    MisalignedMessage,
    /// An EpochKeyUpdate that answers no ConnectionUpdate.
    #[error("an EpochKeyUpdate answers nothing")]
    UnsolicitedEpochKeyUpdate,
    /// An EpochKeyUpdate that names another epoch than the pending commit leads to.
    #[error("an EpochKeyUpdate names epoch {got} instead of {expected}")]
    WrongEpoch {
        /// The epoch of the pending commit.
        expected: u64,
        /// The epoch in the message.
        got: u64,
    },
    /// The KeyPackage is not valid: signature, source, keys or extensions.
    #[error("the KeyPackage is invalid")]
    InvalidKeyPackage,
    /// The KeyPackage's lifetime does not include now, or is longer than allowed.
    #[error("the KeyPackage is expired, not valid yet, or valid for too long")]
    InvalidLifetime,
    /// The KeyPackage holds a public key of our own: a reflected hello, or one identity for both.
    #[error("the peer uses this party's own signature key")]
    OwnKey,
    /// The Welcome is not for us, or does not decrypt or verify.
    #[error("the Welcome is invalid")]
    InvalidWelcome,
    /// The group of the Welcome is not the group that the two-party profile prescribes.
    #[error("unexpected group: {0}")]
    UnexpectedGroup(&'static str),
    /// A commit does not decrypt, verify or apply.
    #[error("the commit is invalid")]
    InvalidCommit,
    /// The key for a commit is not there: it was used when the commit came before, or its sender has
    /// counted wrongly.
    #[error("there is no key for the commit")]
    NoKeyForCommit,
    /// A commit is for another epoch than the current one.
    #[error("the commit is for another epoch")]
    CommitForWrongEpoch,
    /// A commit is something else than a bare self-update of the peer.
    #[error("the commit is not a bare self-update: {0}")]
    NotASelfUpdate(&'static str),
    /// The leaf or the group context does not carry this protocol's transport parameters (TL-06).
    #[error("the {0} lacks the transport parameters of this protocol")]
    MissingTransportParameters(&'static str),
    /// A suite that both sides prefer was withheld: someone interferes.
    #[error("a better common cipher suite exists than the one offered")]
    Downgrade,
    /// Too many updates without application data in between.
    #[error("too many updates without application data")]
    TooManyUpdates,
    /// Too many empty records or padded alerts in a row.
    #[error("too many empty records")]
    TooManyEmptyRecords,
    /// Data after the peer's close_notify.
    #[error("data after close_notify")]
    DataAfterClose,
    /// The peer selected an application protocol that was not offered.
    #[error("the peer selected an application protocol that was not offered")]
    UnofferedAlpn,
    /// A frame belongs to a Send Group of which nothing is known.
    #[error("a frame of an unknown Send Group")]
    UnknownSendGroup,
    /// A frame or a message of a Send Group does not come from its owner (DM-01).
    #[error("only the owner of a Send Group commits and sends in it")]
    NotTheOwner,
    /// A commit in a Send Group carries a proposal that has no place there.
    #[error("unexpected proposal in a Send Group: {0}")]
    UnexpectedProposal(&'static str),
    /// A leaf in a Send Group is not the one that belongs there (DM-06, DM-07).
    #[error("a leaf in a Send Group is wrong: {0}")]
    InvalidLeaf(&'static str),
    /// A commit refers to an epoch that its Send Group cannot have had, or that is long gone.
    #[error("a commit refers to an epoch that is not there")]
    InvalidPsk,
    /// A commit refers to another version of an epoch than this party knows: its sender, or the owner
    /// of that epoch, shows different things to different members.
    #[error("a commit refers to another version of an epoch")]
    ConflictingEpoch,
    /// The header of a frame contradicts what is in it.
    #[error("the header of a frame is wrong: {0}")]
    InvalidHeader(&'static str),
    /// The universe is declared otherwise than it was agreed.
    #[error("unexpected universe: {0}")]
    UnexpectedUniverse(&'static str),
    /// A request announces more early data than the protocol allows, or other early data than it
    /// announced has come.
    #[error("early data: {0}")]
    EarlyData(&'static str),
}

/// Two honest parties that cannot talk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// The offered cipher suite is not allowed here; the number is the suite's (2P-02).
    #[error("no common cipher suite (offered: {0:#06x})")]
    CipherSuite(u16),
    /// The peer has refused each cipher suite that this party offered (2P-02). Nobody has authenticated
    /// its refusals: somebody on the way may have made them up.
    #[error("it refused every cipher suite that was offered ({})", names(offered))]
    NoCipherSuitesInCommon {
        /// Those that were offered, best first.
        offered: Vec<CipherSuite>,
    },
    /// The KeyPackage's capabilities cannot support the connection (2P-02).
    #[error("the peer's capabilities lack {0}")]
    Capabilities(&'static str),
    /// A message of this party is longer than the peer accepts: its `max_message_size` is too small for
    /// the certificates of the two, or for the cipher suite.
    #[error("a message of {length} bytes is longer than the peer's limit of {limit}")]
    MessageTooLong {
        /// Length of the body in bytes.
        length: usize,
        /// The peer's limit in bytes.
        limit: usize,
    },
    /// A version of this protocol that this build does not speak.
    #[error("protocol version {0} is not supported")]
    Version(u16),
    /// Both sides named application protocols, and none is common.
    #[error("no common application protocol")]
    Alpn,
}

fn names(suites: &[CipherSuite]) -> String {
    suites.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(", ")
}

/// Why a session is not resumed. A full handshake is needed, except after
/// [`SessionError::Superseded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No such session is stored here, under this trust configuration.
    #[error("not known here")]
    Unknown,
    /// The two ends do not agree on what was said last, or a request came too late.
    #[error("the two ends are out of step")]
    OutOfStep,
    /// The commit was not sent as a request by the one who made it, or its request was changed.
    #[error("the request is not from the one who made its commit")]
    InvalidBinder,
    /// It is older than this configuration allows.
    #[error("expired")]
    Expired,
    /// This configuration no longer has what the session was made with.
    #[error("the configuration no longer allows {0}")]
    Configuration(&'static str),
    /// It was resumed on another connection.
    #[error("it goes on on another connection")]
    Superseded,
}

/// The caller used the connection wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// Data was written, or an update asked for, after this side closed.
    #[error("this side of the connection is closed")]
    Closed,
    /// The handshake is not complete yet.
    #[error("the handshake is not complete")]
    HandshakeNotComplete,
    /// The peer has closed its direction and cannot answer a rekey.
    #[error("the peer has closed the connection")]
    PeerClosed,
    /// The rekey goes on, but nothing more can be read ahead: read the stream, and it will finish.
    #[error("unread data fills the receive buffer: read the stream to let the rekey finish")]
    UnreadData,
    /// Early data is longer than 1 MiB.
    #[error("early data is longer than 1 MiB")]
    EarlyDataTooLong,
    /// The peer has not yet answered the last change of this party's identity.
    #[error("a change of identity is outstanding")]
    RotationOutstanding,
    /// The new identity signs with another scheme than the cipher suite has.
    #[error("the identity's key is not of the signature scheme of the cipher suite")]
    SignatureScheme,
    /// The peer cannot take the new identity's type of credential.
    #[error("the peer does not support the identity's type of credential")]
    CredentialType,
    /// The new identity has the peer's key.
    #[error("the identity's key is the peer's")]
    PeersKey,
    /// Application data does not fit into a frame.
    #[error("application data is longer than a frame may be")]
    MessageTooLong,
    /// The other members have many updates of this party to acknowledge first.
    #[error("too many updates that others have not acknowledged")]
    TooManyUpdates,
    /// A leg of a multicast does not take what it is sent, and `SlowLeg::Error` was asked for. The
    /// message was not sent to anybody.
    #[error("a leg is too slow")]
    SlowLeg,
    /// No such member, or one that was removed.
    #[error("no such member")]
    UnknownMember,
    /// The requested exporter output is too long, or the label is not allowed.
    #[error(
        "an exporter's label must not begin with \"MLS-TLS \", nor its length be 0 or above 255 hashes"
    )]
    Exporter,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The list of cipher suites is empty.
    #[error("the list of cipher suites is empty")]
    NoCipherSuite,
    /// The [`CryptoProvider`](crate::CryptoProvider) does not have a cipher suite that was asked
    /// for, or, when none was asked for, has none of this crate's.
    #[error("the provider {provider} does not support {}", suite.map_or("any suite", CipherSuite::name))]
    UnsupportedCipherSuite {
        /// What the provider's library is called.
        provider: &'static str,
        /// The suite, if one was asked for.
        suite: Option<CipherSuite>,
    },
    /// A cipher suite was asked for whose signature scheme no identity of the configuration has.
    #[error("{suite} needs an identity with a key of {}", suite.signature_scheme())]
    SignatureScheme {
        /// The suite.
        suite: CipherSuite,
    },
    /// An application protocol is empty or longer than 255 bytes.
    #[error("an application protocol must have 1 to 255 bytes")]
    Alpn,
    /// A value is outside of its range.
    #[error("{0}")]
    OutOfRange(&'static str),
    /// A server name is empty, too long, or has characters that a name cannot have.
    #[error(
        "invalid server name: it has 1 to 255 bytes, and no white space or characters that do not show"
    )]
    ServerName,
    /// An identity's name is empty, too long, begins with `#`, or has characters that a name cannot
    /// have.
    #[error(
        "invalid identity name: it has 1 to 255 bytes, no white space or characters that do not show, \
         and no # in front"
    )]
    IdentityName,
    /// A session store was given, and the authentication service has no trust digest: see
    /// [`AuthenticationService::trust_digest`](crate::AuthenticationService::trust_digest).
    #[error("a session store needs an authentication service that implements trust_digest")]
    NoTrustDigest,
    /// A key could not be read.
    #[error("invalid key: {0}")]
    Key(String),
    /// A passphrase does not open the key that it was given for.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Certificates, roots or revocation lists cannot be used.
    #[error("certificate: {0}")]
    Certificate(String),
    /// A file could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the operating system said, or what is wrong with the file.
        reason: String,
    },
    /// A line of a file of keys does not parse.
    #[error("line {line}: {reason}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The cryptography underneath failed without a message of the peer being the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The random generator gave nothing.
    #[error("no randomness")]
    Random,
    /// The provider cannot do what the suite needs.
    #[error("the provider does not support {0}")]
    Unsupported(&'static str),
    /// An operation failed that cannot fail with valid state; the connection is dead.
    #[error("internal failure in {0}")]
    Internal(&'static str),
}

impl Error {
    /// The alert that tells the peer about this error, if it is to be told.
    ///
    /// The only translation of errors into alerts (RFC 8446, section 6; CH-10).
    pub fn alert(&self) -> Option<AlertDescription> {
        use AlertDescription as A;
        Some(match self {
            Self::InvalidMessage(error) => match error {
                InvalidMessage::UnknownContentType(_) => A::UnexpectedMessage,
                InvalidMessage::RecordVersion(_) => A::ProtocolVersion,
                InvalidMessage::RecordTooLong(_) => A::RecordOverflow,
                // RFC 8446, section 5.4
                InvalidMessage::RecordTooShort | InvalidMessage::MissingContentType => {
                    A::UnexpectedMessage
                }
                InvalidMessage::UnknownMessageType(_)
                | InvalidMessage::MessageTooLong { .. }
                | InvalidMessage::TrailingData(_)
                | InvalidMessage::Malformed(_)
                | InvalidMessage::UnexpectedWireFormat(_) => A::DecodeError,
            },
            Self::PeerMisbehaved(error) => match error {
                PeerMisbehaved::BadRecordMac => A::BadRecordMac,
                PeerMisbehaved::UnexpectedRecord(_)
                | PeerMisbehaved::UnexpectedMessage(_)
                | PeerMisbehaved::MisalignedMessage
                | PeerMisbehaved::UnsolicitedEpochKeyUpdate
                | PeerMisbehaved::TooManyUpdates
                | PeerMisbehaved::TooManyEmptyRecords
                | PeerMisbehaved::DataAfterClose => A::UnexpectedMessage,
                PeerMisbehaved::InvalidKeyPackage => A::BadCertificate,
                PeerMisbehaved::InvalidLifetime => A::CertificateExpired,
                PeerMisbehaved::InvalidWelcome
                | PeerMisbehaved::InvalidCommit
                | PeerMisbehaved::NoKeyForCommit => A::DecryptError,
                PeerMisbehaved::UnknownSendGroup
                | PeerMisbehaved::NotTheOwner
                | PeerMisbehaved::UnexpectedProposal(_)
                | PeerMisbehaved::InvalidLeaf(_)
                | PeerMisbehaved::InvalidPsk
                | PeerMisbehaved::ConflictingEpoch
                | PeerMisbehaved::InvalidHeader(_)
                | PeerMisbehaved::UnexpectedUniverse(_) => A::IllegalParameter,
                PeerMisbehaved::MissingTransportParameters(_) => A::MissingExtension,
                PeerMisbehaved::Downgrade => A::InsufficientSecurity,
                PeerMisbehaved::WrongEpoch { .. }
                | PeerMisbehaved::OwnKey
                | PeerMisbehaved::UnexpectedGroup(_)
                | PeerMisbehaved::CommitForWrongEpoch
                | PeerMisbehaved::NotASelfUpdate(_)
                | PeerMisbehaved::UnofferedAlpn
                | PeerMisbehaved::EarlyData(_) => A::IllegalParameter,
            },
            Self::PeerIncompatible(error) => match error {
                // An initiator that gets this one offers its next suite.
                PeerIncompatible::CipherSuite(_) => A::HandshakeFailure,
                PeerIncompatible::Capabilities(_) | PeerIncompatible::MessageTooLong { .. } => {
                    A::IllegalParameter
                }
                // The peer has said it.
                PeerIncompatible::NoCipherSuitesInCommon { .. } => return None,
                PeerIncompatible::Version(_) => A::ProtocolVersion,
                PeerIncompatible::Alpn => A::NoApplicationProtocol,
            },
            Self::PeerNotTrusted(error) => error.alert(),
            Self::HandshakeTimeout(_) => A::UserCanceled,
            Self::Session(SessionError::Superseded) => A::UserCanceled,
            Self::Session(_) => A::UnknownPskIdentity,
            Self::KeyExhausted | Self::Crypto(_) | Self::Config(_) | Self::Store(_) => {
                A::InternalError
            }
            Self::AlertReceived(_)
            | Self::Truncated
            | Self::RotationRefused
            | Self::ApiMisuse(_) => return None,
        })
    }

    /// The error inside an [`io::Error`] that a stream of this crate returned.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::PeerIncompatible(_)
            | Error::PeerNotTrusted(_) => io::ErrorKind::InvalidData,
            Error::AlertReceived(_) => io::ErrorKind::ConnectionAborted,
            Error::Truncated => io::ErrorKind::UnexpectedEof,
            Error::HandshakeTimeout(_) => io::ErrorKind::TimedOut,
            Error::ApiMisuse(ApiMisuse::Closed | ApiMisuse::PeerClosed) => {
                io::ErrorKind::BrokenPipe
            }
            Error::ApiMisuse(ApiMisuse::UnreadData) => io::ErrorKind::ResourceBusy,
            Error::ApiMisuse(_) | Error::Config(_) => io::ErrorKind::InvalidInput,
            Error::RotationRefused => io::ErrorKind::PermissionDenied,
            Error::Session(SessionError::Superseded) => io::ErrorKind::ConnectionAborted,
            Error::Session(_) => io::ErrorKind::NotFound,
            Error::KeyExhausted | Error::Crypto(_) | Error::Store(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
