//! Certificates: whoever an authority has certified.

mod builder;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, ServerName as PkiServerName, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error as PkiError, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};

pub use builder::WebPkiVerifierBuilder;

use crate::{
    auth::{
        AuthenticationError, AuthenticationRequest, AuthenticationService, PeerIdentity, Purpose,
        Role,
    },
    certificate,
    crypto::CERTIFICATE_ALGORITHMS,
    name::ServerName,
};

/// Believes whom a certificate names that leads to one of its roots (RFC 5280, RFC 9525).
///
/// It verifies X.509 credentials and refuses all others. A peer is believed under these rules:
///
/// - Its certificate is for the key with which it signs.
/// - A path leads from it to a root, over certificates that the peer has sent. Signatures, validity at
///   the time of the question, name constraints, basic constraints and path lengths are right, and
///   there are no more intermediate certificates than allowed. The validity of a root itself does not
///   count. Constraints on names of the types directoryName, rfc822Name and uniformResourceIdentifier
///   cannot be verified: certificates that have such names below them are refused.
/// - A responder's certificate is for servers, and an initiator's for clients, if it has an extended
///   key usage at all. Members of a universe of Distributed MLS all have to be clients.
/// - A responder's certificate has the server name that the initiator asked for among its subject
///   alternative names, as a DNS name or an IP address. The common name does not count.
/// - If there are revocation lists, there is one for the certificate and for each intermediate one, and
///   it is not on it: see [`WebPkiVerifierBuilder::allow_unknown_revocation_status`]. Of several lists
///   of one authority, the newest counts.
/// - Inside a channel the peer may change to another certificate, for another key or the same, that
///   gives it the same name. When a session is resumed, all of this still has to hold; a channel that
///   stands goes on although a certificate in it has expired or was revoked, unless there is a
///   [`revisit_interval`](crate::ConfigBuilder::revisit_interval).
///
/// A responder's name is then the server name that was asked for. An initiator's is the first subject
/// alternative name of its certificate that is a DNS name, a mailbox, a URI or an IP address. It has to
/// have the form of its kind, so that it cannot be taken for one of another: a mailbox has an `@` and no
/// colon, a URI begins with a scheme. If there is no such extension, it is the common name, unless an
/// authority of the path has name constraints, which say nothing of that one. A name that an
/// [`Identity`](crate::Identity) could not have does not count.
///
/// The roots are the same for both roles. Whoever connects to servers of the web and serves clients of
/// an authority of its own needs a configuration for each.
///
/// Revocation lists have to be of version 2, and grow old. To renew them while the service is in use,
/// share it as an `Arc<RwLock<WebPkiVerifier>>` and replace it.
///
/// ```no_run
/// use mls_channel::{Config, Identity, WebPkiVerifier};
///
/// let config = Config::builder()
///     .identity(Identity::read_x509_pem_files("server.crt", "server.key")?)
///     .authentication_service(WebPkiVerifier::builder().roots_file("authority.crt")?.build()?)
///     .build()?;
/// # Ok::<(), mls_channel::Error>(())
/// ```
///
/// A service that believes pinned keys as well chooses by the credential:
///
/// ```
/// use mls_channel::{
///     AuthenticationRequest, AuthenticationService, Credential, PeerIdentity, PinnedKeys,
///     WebPkiVerifier, error::AuthenticationError,
/// };
///
/// struct Both(PinnedKeys, WebPkiVerifier);
///
/// impl AuthenticationService for Both {
///     fn authenticate(
///         &self,
///         request: &AuthenticationRequest<'_>,
///     ) -> Result<PeerIdentity, AuthenticationError> {
///         match request.presented.credential {
///             Credential::X509(_) => self.1.authenticate(request),
///             _ => self.0.authenticate(request),
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct WebPkiVerifier {
    inner: Arc<Inner>,
}

struct Inner {
    roots: Vec<TrustAnchor<'static>>,
    revocation_lists: Vec<CertRevocationList<'static>>,
    revocation: RevocationPolicy,
    max_intermediates: usize,
    digest: [u8; 32],
}

/// What revocation lists have to say.
#[derive(Clone, Copy)]
struct RevocationPolicy {
    unknown_status: UnknownStatusPolicy,
    expiration: ExpirationPolicy,
    depth: RevocationCheckDepth,
}

impl WebPkiVerifier {
    /// Starts with no root and no revocation list.
    pub fn builder() -> WebPkiVerifierBuilder {
        WebPkiVerifierBuilder::new()
    }

    /// Finds a path to a root, and gives the name in the certificate.
    fn verify(&self, request: &AuthenticationRequest<'_>) -> Result<String, AuthenticationError> {
        let certificates: Vec<_> = request
            .presented
            .to_certificates()?
            .iter()
            .map(|certificate| CertificateDer::from(certificate.as_slice()))
            .collect();
        let (own, intermediates) =
            certificates.split_first().ok_or(AuthenticationError::MalformedCredential)?;
        let end_entity = EndEntityCert::try_from(own).map_err(refusal)?;
        if !certificate::certifies(&end_entity, &request.presented.to_public_key()?) {
            return Err(AuthenticationError::KeyMismatch);
        }
        let usage = match request.role {
            Role::Initiator => KeyUsage::client_auth(),
            Role::Responder => KeyUsage::server_auth(),
        };
        let now = request.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let lists: Vec<_> = self.inner.revocation_lists.iter().collect();
        // A constraint of an authority is on alternative names; the common name could be any.
        let needs_free_path = certificate::has_common_name_alone(own);
        let check_path = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > self.inner.max_intermediates {
                return Err(PkiError::MaximumPathDepthExceeded);
            }
            if needs_free_path && is_constrained(path) {
                return Err(PkiError::NameConstraintViolation);
            }
            Ok(())
        };
        end_entity
            .verify_for_usage(
                CERTIFICATE_ALGORITHMS,
                &self.inner.roots,
                intermediates,
                UnixTime::since_unix_epoch(now),
                usage,
                self.inner.revocation.options(&lists),
                Some(&check_path),
            )
            .map_err(refusal)?;
        let names = certificate::names(own);
        match (request.role, request.server_name) {
            (Role::Responder, Some(server_name)) => {
                check_name(&end_entity, server_name, &names)?;
                Ok(server_name.as_str().to_owned())
            }
            _ => names.into_iter().next().ok_or_else(|| {
                AuthenticationError::InvalidCertificate("it has no name that can be used".into())
            }),
        }
    }
}

impl AuthenticationService for WebPkiVerifier {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let name = self.verify(request)?;
        match request.purpose {
            Purpose::Update { previous: known } | Purpose::Revisit { current: known }
                if known.name() != name =>
            {
                Err(AuthenticationError::CredentialChangeRefused)
            }
            _ => Ok(PeerIdentity::new(name, request.presented.to_public_key()?)),
        }
    }

    /// The hash of the roots and of the settings. Revocation lists are not in it: when a session is
    /// resumed, the peer's certificates are held against the present ones, and new lists should not end
    /// every session.
    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some(self.inner.digest)
    }
}

impl fmt::Debug for WebPkiVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebPkiVerifier")
            .field("roots", &self.inner.roots.len())
            .field("revocation_lists", &self.inner.revocation_lists.len())
            .field("max_intermediates", &self.inner.max_intermediates)
            .finish_non_exhaustive()
    }
}

impl RevocationPolicy {
    /// `None`: there are no lists.
    fn options<'a>(self, lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let options = RevocationOptionsBuilder::new(lists)
            .ok()?
            .with_depth(self.depth)
            .with_status_policy(self.unknown_status)
            .with_expiration_policy(self.expiration);
        Some(options.build())
    }
}

/// An authority of the path may give certain names only.
fn is_constrained(path: &VerifiedPath<'_>) -> bool {
    let is_constrained =
        |certificate: &webpki::Cert<'_>| certificate::has_name_constraints(&certificate.der());
    path.anchor().name_constraints.is_some() || path.intermediate_certificates().any(is_constrained)
}

fn check_name(
    certificate: &EndEntityCert<'_>,
    server_name: &ServerName,
    names: &[String],
) -> Result<(), AuthenticationError> {
    let valid = PkiServerName::try_from(server_name.as_str())
        .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok());
    if !valid {
        return Err(AuthenticationError::NameMismatch {
            expected: server_name.as_str().into(),
            presented: names.join(", "),
        });
    }
    Ok(())
}

/// What webpki says, in the terms of this crate.
fn refusal(error: PkiError) -> AuthenticationError {
    use AuthenticationError as E;
    match error {
        PkiError::BadDer
        | PkiError::BadDerTime
        | PkiError::TrailingData(_)
        | PkiError::MalformedExtensions
        | PkiError::InvalidSerialNumber
        | PkiError::ExtensionValueInvalid => E::MalformedCredential,
        PkiError::CertExpired { .. } => E::Expired,
        PkiError::CertNotValidYet { .. } => E::NotValidYet,
        PkiError::CertRevoked => E::Revoked,
        PkiError::UnknownRevocationStatus => E::UnknownRevocationStatus,
        PkiError::CrlExpired { .. } => E::RevocationListExpired,
        PkiError::UnknownIssuer => E::UnknownIssuer,
        PkiError::EmptyEkuExtension | PkiError::RequiredEkuNotFoundContext(_) => E::WrongPurpose,
        PkiError::MaximumPathDepthExceeded => E::ChainTooLong,
        PkiError::InvalidCrlSignatureForPublicKey => {
            E::InvalidRevocationList("its signature is not that of the authority".into())
        }
        PkiError::IssuerNotCrlSigner => {
            E::InvalidRevocationList("the authority may not sign lists (cRLSign)".into())
        }
        error @ (PkiError::UnsupportedCrlSignatureAlgorithmContext(_)
        | PkiError::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)) => {
            E::InvalidRevocationList(error.to_string())
        }
        other => E::InvalidCertificate(explain(&other)),
    }
}

/// What webpki has no sentence for.
fn explain(error: &PkiError) -> String {
    let sentence = match error {
        PkiError::CaUsedAsEndEntity => {
            "the peer's own is that of an authority, and has to have basicConstraints=CA:FALSE"
        }
        PkiError::EndEntityUsedAsCa => {
            "one that has issued another is not that of an authority (basicConstraints=CA:TRUE)"
        }
        PkiError::UnsupportedCertVersion => "it is not of version 3",
        PkiError::NameConstraintViolation => {
            "an authority above it may only give other names, and no common name without a subject \
             alternative name"
        }
        PkiError::PathLenConstraintViolated => {
            "there are more authorities below one than it allows (pathlen)"
        }
        PkiError::UnsupportedCriticalExtension => {
            "it has a critical extension that is not supported"
        }
        other => return other.to_string(),
    };
    sentence.into()
}
