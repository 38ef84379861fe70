//! What travels on the wire: records, the messages inside them, and how both are encoded.
//!
//! ```text
//!   stream of bytes   | type | 0x0303 | length |  payload        |  next record ...
//!                                               \_______________/
//!   before keys        alert, or a fragment of messages, as it is (TLSPlaintext)
//!   after              the same or application data, sealed       (TLSCiphertext)
//!
//!   messages          | type | uint24 length |  body  |  next message ...
//! ```
//!
//! Records are those of RFC 8446, section 5, byte for byte (TL-02). The messages of the two-party
//! profile travel in records of type handshake, in an envelope that names them (TL-05), and may
//! span records (TL-07). This module knows no keys, and an MLSMessage is opaque to it.
//!
//! [`Record`], [`Alert`] and [`TwoPartyMessage`] are public for tools that look at traffic, and so
//! is the [`RecordCodec`]; an application needs none of them, except [`AlertDescription`] in
//! errors.

mod alert;
mod certificates;
#[cfg(feature = "tokio")]
mod codec;
mod dmls;
mod envelope;
#[cfg(feature = "tokio")]
mod leg;
mod messages;
mod parameters;
mod presented;
mod record;

pub use alert::{Alert, AlertDescription, AlertLevel};
#[cfg(feature = "x509")]
pub(crate) use certificates::encode_certificates;
pub(crate) use certificates::{InvalidCertificates, decode_certificates};
#[cfg(feature = "tokio")]
pub use codec::RecordCodec;
pub(crate) use dmls::{
    Acknowledgement, CommitFrame, DIGEST_LEN, EpochRef, Frame, FrameHeader, KeyPackagesFrame,
    LeafHeader, Opaque, Received, ResendFrame, ResendOfFrame, UNIVERSE_PARAMETERS, UniverseFrame,
    UniverseParameters, encode as encode_frame_part, split_vector,
};
pub use dmls::{DmlsMessageType, encode_frame};
pub use envelope::TwoPartyMessageType;
pub(crate) use envelope::{ENVELOPE_LEN, MessageAssembler, RawMessage};
#[cfg(feature = "tokio")]
pub(crate) use leg::{
    LEG_FRAME_OVERHEAD, LEG_VERSION, LegFrame, LegHello, LegMessage, LegMessageType, MAX_HELLO_LEN,
    NO_MEMBER, WantedPlace,
};
pub use messages::TwoPartyMessage;
pub(crate) use messages::{BINDER_LEN, MAX_EARLY_DATA};
pub(crate) use parameters::{
    GroupParameters, InitiatorParameters, MIN_MESSAGE_SIZE, TRANSPORT_PARAMETERS,
};
pub(crate) use presented::PresentedKeyPackage;
pub(crate) use record::encode_plaintext;
pub use record::{
    ContentType, HEADER_LEN, LEGACY_VERSION, MAX_CIPHERTEXT, MAX_PLAINTEXT, Record, RecordHeader,
    TAG_LEN,
};
