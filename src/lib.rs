//! A secure channel for tokio services, whose keys come from MLS.
//!
//! `mls-channel` does what TLS does, over any stream of bytes, with one difference: the keys are
//! those of an MLS group of two (RFC 9420), and the group goes on renewing itself while data flows.
//! A thief of the keys of one moment can read neither what was said before nor, after both ends
//! have updated once, what is said later. The records on the wire are those of TLS 1.3.
//!
//! It implements the Internet-Drafts *A two-party profile for MLS* (draft-kohbrok-mls-two-party-profile)
//! and *The MLS-TLS secure channel protocol* (draft-kohbrok-mls-tls). What they leave open is decided
//! in `docs/protocol.md`.
//!
//! For more than two parties there is *Distributed MLS* (draft-xue-distributed-mls), in which everybody
//! sends to everybody without agreeing on one state of a group: `Multicast` over streams, and
//! [`DmlsSession`] without IO.
//!
//! ```text
//!  application          bytes, rekey(), peer()
//! ──────────────────────────────────────────────────────────────
//!  stream               MlsConnector, MlsAcceptor, MlsListener,      tokio
//!                       MlsStream, split halves, MlsFramed
//!  multicast            Multicast: a universe over many streams;
//!                       Relay
//! ──────────────────────────────────────────────────────────────
//!  two_party            Connection: handshake, rekey, resumption      no IO, no clock
//!  dmls                 DmlsSession: a universe of many members
//!  group     record     the MLS group;     TLS 1.3 records
//!  wire                 messages, parameters, alerts
//!  crypto    auth       aws-lc or RustCrypto;    who is the peer?
//! ```
//!
//! # Quick start
//!
//! Each side has an [`Identity`] and says whose it believes:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use std::sync::Arc;
//! use mls_channel::{Config, Identity, MlsAcceptor, MlsConnector, PinnedKeys, ServerName};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Identity::generate("server.example")?;
//! let client = Identity::generate("client")?;
//! let server_config = Config::builder()
//!     .identity(server.clone())
//!     .authentication_service(PinnedKeys::parse(&client.public_line())?)
//!     .build()?;
//! let client_config = Config::builder()
//!     .identity(client)
//!     .authentication_service(PinnedKeys::parse(&server.public_line())?)
//!     .build()?;
//!
//! let (near, far) = tokio::io::duplex(16 * 1024); // or a TcpStream
//! let acceptor = MlsAcceptor::from(Arc::new(server_config));
//! let connector = MlsConnector::from(Arc::new(client_config));
//!
//! let serve = async {
//!     let mut stream = acceptor.accept(far).await?;
//!     let mut message = [0; 5];
//!     stream.read_exact(&mut message).await?;
//!     stream.write_all(&message).await?;
//!     stream.shutdown().await
//! };
//! let connect = async {
//!     let name = ServerName::new("server.example")?;
//!     let mut stream = connector.connect(name, near).await?;
//!     stream.write_all(b"hello").await?;
//!     let mut answer = Vec::new();
//!     stream.read_to_end(&mut answer).await?;
//!     assert_eq!(answer, b"hello");
//!     std::io::Result::Ok(())
//! };
//! tokio::try_join!(serve, connect)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `tokio` (default): the adapters. Without it the crate is the machine alone, [`Connection`].
//! - `redb` (default): `RedbStore`, sessions in a file.
//! - `aws-lc` (default): cryptography by aws-lc-rs. Without it RustCrypto does everything. Another
//!   library can be brought along, see [`CryptoProvider`].
//! - `openssh`: keys of `ssh-keygen` as identities, and `AuthorizedKeys`, whom a file of that
//!   name lets in.
//! - `cli`: the program `mls-channel`, which makes keys and pipes stdin and stdout through a channel.
//!   `cargo install mls-channel --features cli`, and `mls-channel --help`.
//! - `x509` (default): X.509 credentials, that is identities with certificates and `WebPkiVerifier`.
//!   It brings `aws-lc`, which verifies certificates whatever the channel's library is. Without it,
//!   X.509 credentials are still understood, and an [`AuthenticationService`] of your own may believe
//!   them.
//! - `native-roots`: the roots of the operating system for `WebPkiVerifier`.
//! - `post-quantum`: suites with ML-KEM, and identities with ML-DSA keys.

#![forbid(unsafe_code)]

mod auth;
#[cfg(feature = "x509")]
mod certificate;
mod config;
mod crypto;
mod dmls;
pub mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod identity;
#[doc(hidden)]
pub mod internal;
mod key_log;
#[cfg(feature = "tokio")]
mod multicast;
mod name;
mod record;
mod store;
#[cfg(feature = "tokio")]
mod stream;
mod time;
mod two_party;
pub mod wire;

pub use auth::{
    AuthenticationRequest, AuthenticationService, Credential, FirstUse, KnownPeers, PeerIdentity,
    PinnedKeys, PresentedIdentity, Purpose, Role, UnknownPeer,
};
#[cfg(feature = "openssh")]
pub use auth::{AuthorizedKeys, UnusableLine};
#[cfg(feature = "x509")]
pub use auth::{WebPkiVerifier, WebPkiVerifierBuilder};
pub use config::{
    Config, ConfigBuilder, Limits, RekeyPolicy, WantsAuthenticationService, WantsIdentity,
};
pub use crypto::{CipherSuite, CryptoProvider, SignatureScheme};
pub use dmls::{
    Destination, DmlsEvent, DmlsInvitation, DmlsKeyPackages, DmlsMember, DmlsPolicy, DmlsSession,
    DmlsUniverse, MemberIndex,
};
pub use error::Error;
pub use identity::{Identity, PublicKey};
pub use key_log::{KeyLog, KeyLogFile};
#[cfg(feature = "tokio")]
pub use multicast::{
    Backoff, LegEnd, LegPeer, Multicast, MulticastConfig, MulticastEvent, MulticastOptions,
    MulticastReceiver, MulticastSender, Relay, RelayOptions, SlowLeg,
};
pub use name::ServerName;
#[cfg(feature = "redb")]
pub use store::RedbStore;
pub use store::{
    EncryptedStore, MemoryStore, Revision, SessionId, SessionKey, SessionStore, StoredSession,
};
#[cfg(feature = "tokio")]
pub use stream::{
    Accept, Connect, IntoSplit, LazyConfigAcceptor, MlsAcceptor, MlsConnector, MlsFramed,
    MlsListener, MlsStream, OwnedReadHalf, OwnedWriteHalf, StartHandshake,
};
pub use time::Time;
pub use two_party::{
    Accepted, Acceptor, ClientHello, Connection, EarlyDataStatus, Event, HandshakeKind,
    KeyPackages, Statistics,
};

/// The code in the README is tested like any other.
#[cfg(all(doctest, feature = "tokio", feature = "redb", feature = "x509"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Cryptography of your own: what a [`CryptoProvider`] can be made of.
pub mod provider {
    pub use crate::crypto::{CryptoLibrary, RecordAead};
    /// The crate with the traits and types of OpenMLS's cryptography, in the version used here.
    pub use openmls_traits;
    /// What some methods of [`openmls_traits`] return secrets in.
    pub use tls_codec::SecretVLBytes;
}

/// Ways to weaken a channel, for tests and experiments.
pub mod danger {
    pub use crate::auth::danger::AcceptAnyone;
}
