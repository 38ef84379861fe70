//! Who is the peer? The authentication service of MLS (RFC 9420, section 5.3.1).
//!
//! MLS proves that the peer holds the secret half of a signature key. Whose key that is, an
//! [`AuthenticationService`] decides, for each channel and for each change of a credential in it.
//! There is no default (CH-08): [`PinnedKeys`] believes a list of keys, [`KnownPeers`] asks on first
//! use, `WebPkiVerifier` believes whom an authority has certified, and anything else, a directory for
//! example, is an implementation of the trait.

#[cfg(feature = "openssh")]
mod authorized_keys;
mod credential;
pub(crate) mod danger;
mod known_peers;
mod pinned;
#[cfg(feature = "x509")]
mod web_pki;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::SystemTime,
};

#[cfg(feature = "openssh")]
pub use authorized_keys::{AuthorizedKeys, UnusableLine};
pub use credential::{Credential, PresentedIdentity};
pub use known_peers::{FirstUse, KnownPeers, UnknownPeer};
pub use pinned::PinnedKeys;
#[cfg(feature = "x509")]
pub use web_pki::{WebPkiVerifier, WebPkiVerifierBuilder};

use crate::{error::AlertDescription, identity::PublicKey, name::ServerName};

/// The part that a party plays on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // a connection of two parties has these two
pub enum Role {
    /// Sends the ClientHello.
    Initiator,
    /// Answers it with the ServerHello.
    Responder,
}

/// Why a service is asked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Purpose<'a> {
    /// A channel is being set up (2P-03).
    Handshake,
    /// The peer changes its credential or its signature key inside a channel (2P-13).
    Update {
        /// Who the peer was until now.
        previous: &'a PeerIdentity,
    },
    /// May the identity of a channel still be used?
    Revisit {
        /// Who the peer is.
        current: &'a PeerIdentity,
    },
}

/// A question to an [`AuthenticationService`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AuthenticationRequest<'a> {
    /// What the peer claims.
    pub presented: PresentedIdentity<'a>,
    /// The role of the party that claims it, not of the one that asks.
    pub role: Role,
    /// The name of the service that the initiator asked for. The initiator has it from its
    /// application and demands it of the responder. The responder has it from the initiator, and
    /// it says nothing about who the initiator is.
    pub server_name: Option<&'a ServerName>,
    /// Why the service is asked.
    pub purpose: Purpose<'a>,
    /// The time of the question, for what expires.
    pub now: SystemTime,
}

/// Decides who a peer is, or that it is nobody to talk to.
///
/// The call is not async on purpose: it is made inside the handshake, on the task that drives the
/// connection, and must not block for long. A service that has to ask others keeps what it needs
/// at hand and renews it elsewhere.
///
/// An [`Arc`] of a service is a service, and so is an [`RwLock`] of one. With
/// `Arc<RwLock<PinnedKeys>>`, keys can be added and removed while connections are accepted.
///
/// ```
/// use mls_channel::{AuthenticationRequest, AuthenticationService, PeerIdentity, PinnedKeys, Role};
/// use mls_channel::error::AuthenticationError;
///
/// /// Pinned keys of parties that only ever connect, and are never connected to.
/// struct Clients(PinnedKeys);
///
/// impl AuthenticationService for Clients {
///     fn authenticate(
///         &self,
///         request: &AuthenticationRequest<'_>,
///     ) -> Result<PeerIdentity, AuthenticationError> {
///         if request.role != Role::Initiator {
///             return Err(AuthenticationError::WrongRole);
///         }
///         self.0.authenticate(request)
///     }
/// }
/// ```
pub trait AuthenticationService: Send + Sync {
    /// Establishes who presented the identity in `request`.
    ///
    /// The answer must name the very key that was presented; the channel refuses any other.
    ///
    /// # Errors
    ///
    /// Why the peer is not believed. It ends the connection.
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError>;

    /// A digest of what this service believes, for the sessions that it lets begin.
    ///
    /// Sessions are resumed only under a service with the same digest as the one that accepted the
    /// peer, and this service is asked again then, with [`Purpose::Revisit`]. A service that is as
    /// strict then as in a handshake may give the same digest always; one that is not has to give
    /// another digest whenever it becomes stricter. Services of different kinds must have different
    /// digests: let it be the hash of a name and of the configuration.
    ///
    /// `None`, the default: sessions are not resumed, and a configuration with a session store does
    /// not build.
    fn trust_digest(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Who a peer is, as an [`AuthenticationService`] established it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    name: String,
    public_key: PublicKey,
    certificates: Arc<[Vec<u8>]>,
}

/// The proof that the authentication service has believed a peer.
///
/// Only [`validate`] makes one, and nothing of a peer is applied to a group without it.
#[derive(Debug)]
pub(crate) struct Authenticated {
    peer: PeerIdentity,
}

/// Why a peer is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// The service does not know the key. Which one it was, and who presented it, is in the question
    /// alone: a service around this one can write [`AuthenticationRequest::presented`] down.
    #[error("the key is not known")]
    UnknownKey,
    /// The peer has another name than it should have.
    #[error("the name is {presented:?} instead of {expected:?}")]
    NameMismatch {
        /// The name that belongs to the key, or that the initiator asked for.
        expected: String,
        /// The name that the peer presented.
        presented: String,
    },
    /// The peer may not have the role that it has on this connection.
    #[error("the peer may not have this role")]
    WrongRole,
    /// The credential was valid once.
    #[error("the credential has expired")]
    Expired,
    /// The credential will be valid.
    #[error("the credential is not valid yet")]
    NotValidYet,
    /// The credential or the key was withdrawn.
    #[error("the credential was revoked")]
    Revoked,
    /// No list of revoked certificates that is believed says whether the certificate was withdrawn.
    #[error("whether the certificate was revoked is not known")]
    UnknownRevocationStatus,
    /// The list that would say whether the certificate was withdrawn is out of date.
    #[error("the revocation list is out of date")]
    RevocationListExpired,
    /// The list that would say whether the certificate was withdrawn is not one of its authority. That
    /// is no fault of the peer's.
    #[error("the revocation list cannot be used: {0}")]
    InvalidRevocationList(String),
    /// No root that is believed has issued the certificate.
    #[error("the issuer of the certificate is not known")]
    UnknownIssuer,
    /// The certificate is not for this role: for servers instead of clients, for example.
    #[error("the certificate is for another purpose")]
    WrongPurpose,
    /// There are more certificates than are allowed, in the credential or up to a root.
    #[error("the chain of certificates is too long")]
    ChainTooLong,
    /// The certificate is for another key than the one that signs.
    #[error("the certificate is for another key")]
    KeyMismatch,
    /// A certificate is not valid for another reason: a signature, a constraint or an unknown
    /// extension, for example.
    #[error("a certificate is invalid: {0}")]
    InvalidCertificate(String),
    /// The service does not know this type of credential: basic or X.509.
    #[error("{0} credentials are not supported")]
    UnsupportedCredential(&'static str),
    /// The credential does not parse, or its name or key cannot be one.
    #[error("the credential is malformed")]
    MalformedCredential,
    /// The key is not the one that this peer is known by.
    #[error(transparent)]
    KeyChanged(Box<ChangedKey>),
    /// The peer may not become what it wants to become inside a channel (2P-13).
    #[error("the change of the credential is refused")]
    CredentialChangeRefused,
    /// A reason of the service's own. It is never sent to the peer.
    #[error("{0}")]
    Refused(String),
}

/// A peer was known by one key and presents another: it has a new key, or it is somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key of {name:?} HAS CHANGED: known is {known}, presented was {presented}; somebody may have \
     put themselves in the way, or the peer has a new key{}",
    remedy(file.as_ref())
)]
#[non_exhaustive]
pub struct ChangedKey {
    /// The name that the peer is known by.
    pub name: String,
    /// The fingerprint of the key that it is known by.
    pub known: String,
    /// The fingerprint of the key that was presented.
    pub presented: String,
    /// The file that has the known key, and the number of its line, from 1.
    pub file: Option<(PathBuf, usize)>,
}

fn remedy(file: Option<&(PathBuf, usize)>) -> String {
    match file {
        Some((path, line)) => format!(
            ". If you are sure of the new key, remove line {line} of {} and connect again",
            path.display()
        ),
        None => String::new(),
    }
}

/// Asks the service, and keeps it from vouching for another key than the presented one.
pub(crate) fn validate(
    service: &dyn AuthenticationService,
    request: &AuthenticationRequest<'_>,
) -> Result<Authenticated, AuthenticationError> {
    let presented = &request.presented;
    let is_presented = |key: &PublicKey| {
        key.as_bytes() == presented.signature_key && key.scheme() == presented.signature_scheme
    };
    if let Purpose::Revisit { current } = request.purpose
        && !is_presented(current.public_key())
    {
        let presented = request.presented.to_public_key()?;
        return Err(ChangedKey::new(current.name(), current.public_key(), &presented).into());
    }
    let peer = service.authenticate(request)?;
    if !is_presented(peer.public_key()) {
        let reason = "the authentication service answered with another key than the presented one";
        return Err(AuthenticationError::Refused(reason.into()));
    }
    let peer = peer.with_credential(request.presented.credential);
    Ok(Authenticated { peer })
}

impl Role {
    /// The role of the other party.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

impl<'a> AuthenticationRequest<'a> {
    /// A question about a party in `role`, asked at `now`.
    pub fn new(
        presented: PresentedIdentity<'a>,
        role: Role,
        server_name: Option<&'a ServerName>,
        purpose: Purpose<'a>,
        now: SystemTime,
    ) -> Self {
        Self { presented, role, server_name, purpose, now }
    }
}

impl<T: AuthenticationService + ?Sized> AuthenticationService for Arc<T> {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        (**self).authenticate(request)
    }

    fn trust_digest(&self) -> Option<[u8; 32]> {
        (**self).trust_digest()
    }
}

impl<T: AuthenticationService + ?Sized> AuthenticationService for RwLock<T> {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        match self.read() {
            Ok(service) => service.authenticate(request),
            // Someone panicked in the middle of a change, which may have been a revocation.
            Err(_) => Err(AuthenticationError::Refused("the service's lock is poisoned".into())),
        }
    }

    fn trust_digest(&self) -> Option<[u8; 32]> {
        self.read().ok()?.trust_digest()
    }
}

impl PeerIdentity {
    /// What a service has established: this key belongs to `name`.
    ///
    /// It proves nothing by itself; a channel accepts it only as the answer of its service.
    pub fn new(name: impl Into<String>, public_key: PublicKey) -> Self {
        Self { name: name.into(), public_key, certificates: Arc::default() }
    }

    /// With the certificates of the credential that the service has seen.
    pub(crate) fn with_credential(mut self, credential: Credential<'_>) -> Self {
        self.certificates = match credential {
            Credential::Basic(_) => Arc::default(),
            Credential::X509(certificates) => certificates.into(),
        };
        self
    }

    /// The name by which the service knows the peer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key with which the peer signs.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The certificates of the peer's X.509 credential in DER, its own first, as the channel showed them
    /// to its service; none if the credential is a basic one.
    ///
    /// The service vouches for the first one. The others are what the peer has sent, and need not all be
    /// on the path to a root.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("name", &self.name)
            .field("public_key", &self.public_key)
            .field("certificates", &self.certificates.len())
            .finish()
    }
}

impl Authenticated {
    /// The peer without the proof.
    pub(crate) fn into_peer(self) -> PeerIdentity {
        self.peer
    }

    /// Who the peer is.
    pub(crate) fn peer(&self) -> &PeerIdentity {
        &self.peer
    }
}

impl ChangedKey {
    /// A change from a known key to a presented one.
    pub fn new(name: impl Into<String>, known: &PublicKey, presented: &PublicKey) -> Self {
        let (known, presented) = (known.fingerprint(), presented.fingerprint());
        Self { name: name.into(), known, presented, file: None }
    }

    /// Adds where the known key is written.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>, line: usize) -> Self {
        Self { file: Some((path.into(), line)), ..self }
    }
}

impl From<ChangedKey> for AuthenticationError {
    fn from(changed: ChangedKey) -> Self {
        Self::KeyChanged(Box::new(changed))
    }
}

impl AuthenticationError {
    /// What the peer is told, in the terms of RFC 8446, section 6.2.
    ///
    /// The peer learns no more than the kind. That a key is unknown and that the service has its
    /// own reasons look the same.
    pub(crate) fn alert(&self) -> AlertDescription {
        use AlertDescription as A;
        match self {
            Self::UnknownKey | Self::Refused(_) => A::AccessDenied,
            Self::NameMismatch { .. } => A::UnrecognizedName,
            Self::WrongRole
            | Self::CredentialChangeRefused
            | Self::MalformedCredential
            | Self::ChainTooLong
            | Self::KeyMismatch
            | Self::InvalidCertificate(_) => A::BadCertificate,
            Self::WrongPurpose | Self::UnsupportedCredential(_) => A::UnsupportedCertificate,
            Self::UnknownIssuer
            | Self::UnknownRevocationStatus
            | Self::RevocationListExpired
            | Self::InvalidRevocationList(_) => A::UnknownCa,
            Self::Expired | Self::NotValidYet => A::CertificateExpired,
            Self::Revoked => A::CertificateRevoked,
            Self::KeyChanged(_) => A::CertificateUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SignatureScheme;

    /// A service that gives one answer to everything.
    struct Always(Result<PeerIdentity, AuthenticationError>);

    impl AuthenticationService for Always {
        fn authenticate(
            &self,
            _request: &AuthenticationRequest<'_>,
        ) -> Result<PeerIdentity, AuthenticationError> {
            self.0.clone()
        }
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn request<'a>(signature_key: &'a [u8], purpose: Purpose<'a>) -> AuthenticationRequest<'a> {
        let presented = PresentedIdentity::new(b"alice", signature_key);
        AuthenticationRequest::new(
            presented,
            Role::Initiator,
            None,
            purpose,
            SystemTime::UNIX_EPOCH,
        )
    }

    // 2P-03
    #[test]
    fn validate_holds_the_answer_of_the_service() {
        let alice = PeerIdentity::new("Alice", key(1));
        let service = Always(Ok(alice.clone()));
        let proof = validate(&service, &request(&[1; 32], Purpose::Handshake)).unwrap();
        assert_eq!(proof.peer(), &alice);
        assert_eq!(proof.into_peer(), alice);
    }

    // 2P-03
    #[test]
    fn validate_passes_the_refusal_on() {
        let service = Always(Err(AuthenticationError::Revoked));
        let error = validate(&service, &request(&[1; 32], Purpose::Handshake)).unwrap_err();
        assert_eq!(error, AuthenticationError::Revoked);
    }

    #[test]
    fn service_cannot_vouch_for_another_key() {
        let service = Always(Ok(PeerIdentity::new("alice", key(2))));
        let previous = PeerIdentity::new("alice", key(2));
        for purpose in [Purpose::Handshake, Purpose::Update { previous: &previous }] {
            let error = validate(&service, &request(&[1; 32], purpose)).unwrap_err();
            assert!(matches!(error, AuthenticationError::Refused(_)), "{error:?}");
        }
        // The same bytes are another key in another scheme.
        let mut other = request(&[2; 32], Purpose::Handshake);
        other.presented =
            other.presented.with_signature_scheme(SignatureScheme::ECDSA_SECP256R1_SHA256);
        let error = validate(&service, &other).unwrap_err();
        assert!(matches!(error, AuthenticationError::Refused(_)), "{error:?}");
        // The right key with something after it is another key too.
        let error = validate(&service, &request(&[2; 33], Purpose::Handshake)).unwrap_err();
        assert!(matches!(error, AuthenticationError::Refused(_)), "{error:?}");
    }

    #[test]
    fn revisit_demands_the_current_key() {
        let service = Always(Ok(PeerIdentity::new("alice", key(2))));
        let current = PeerIdentity::new("alice", key(1));
        let purpose = Purpose::Revisit { current: &current };
        let error = validate(&service, &request(&[2; 32], purpose)).unwrap_err();
        assert_eq!(error, ChangedKey::new("alice", &key(1), &key(2)).into());

        let service = Always(Ok(current.clone()));
        assert!(validate(&service, &request(&[1; 32], purpose)).is_ok());
    }

    #[test]
    fn shared_and_locked_services_are_services() {
        let alice = PeerIdentity::new("alice", key(1));
        let shared: Arc<dyn AuthenticationService> = Arc::new(Always(Ok(alice.clone())));
        let request = request(&[1; 32], Purpose::Handshake);
        assert_eq!(shared.authenticate(&request), Ok(alice.clone()));
        assert_eq!(validate(&shared, &request).unwrap().peer(), &alice);

        let locked = Arc::new(RwLock::new(Always(Ok(alice.clone()))));
        assert_eq!(locked.authenticate(&request), Ok(alice));
        locked.write().unwrap().0 = Err(AuthenticationError::Revoked);
        assert_eq!(locked.authenticate(&request), Err(AuthenticationError::Revoked));
    }

    #[test]
    fn poisoned_lock_believes_nobody() {
        let locked = Arc::new(RwLock::new(Always(Ok(PeerIdentity::new("alice", key(1))))));
        let writer = locked.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = writer.write();
            panic!("while changing the service");
        });
        assert!(panicked.join().is_err());
        let answer = locked.authenticate(&request(&[1; 32], Purpose::Handshake));
        assert!(matches!(answer, Err(AuthenticationError::Refused(_))), "{answer:?}");
    }

    #[test]
    fn roles_are_each_others_peers() {
        assert_eq!(Role::Initiator.peer(), Role::Responder);
        assert_eq!(Role::Responder.peer(), Role::Initiator);
    }

    // CH-10
    #[test]
    fn alert_tells_the_kind_of_the_refusal() {
        use AlertDescription as A;
        use AuthenticationError as E;
        let mismatch = E::NameMismatch { expected: "alice".into(), presented: "bob".into() };
        for (error, alert) in [
            (E::UnknownKey, A::AccessDenied),
            (mismatch, A::UnrecognizedName),
            (E::WrongRole, A::BadCertificate),
            (E::Expired, A::CertificateExpired),
            (E::NotValidYet, A::CertificateExpired),
            (E::UnknownIssuer, A::UnknownCa),
            (E::UnknownRevocationStatus, A::UnknownCa),
            (E::RevocationListExpired, A::UnknownCa),
            (E::InvalidRevocationList("a signature".into()), A::UnknownCa),
            (E::WrongPurpose, A::UnsupportedCertificate),
            (E::UnsupportedCredential("X.509"), A::UnsupportedCertificate),
            (E::ChainTooLong, A::BadCertificate),
            (E::KeyMismatch, A::BadCertificate),
            (E::InvalidCertificate("a constraint".into()), A::BadCertificate),
            (E::Revoked, A::CertificateRevoked),
            (E::MalformedCredential, A::BadCertificate),
            (ChangedKey::new("alice", &key(1), &key(2)).into(), A::CertificateUnknown),
            (E::CredentialChangeRefused, A::BadCertificate),
            (E::Refused("payment is due".into()), A::AccessDenied),
        ] {
            assert_eq!(error.alert(), alert, "{error}");
        }
    }
}
