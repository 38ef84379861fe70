//! Roots, revocation lists and settings.

use std::{fmt, path::Path, sync::Arc};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, TrustAnchor,
    pem::{self, PemObject},
};
use webpki::{
    CertRevocationList, Error as PkiError, ExpirationPolicy, OwnedCertRevocationList,
    RevocationCheckDepth, UnknownStatusPolicy,
};

use super::{Inner, RevocationPolicy, WebPkiVerifier};
use crate::{
    certificate,
    crypto::{CipherSuite, CryptoProvider},
    error::{ConfigError, Error},
    identity,
};

/// Intermediate certificates between a peer's and a root at most; webpki follows no more.
const MAX_INTERMEDIATES: usize = 6;

/// Makes a [`WebPkiVerifier`].
///
/// Files of roots and revocation lists decide who is believed. On Unix, one that group or others can
/// write is refused; on other systems this is not checked.
pub struct WebPkiVerifierBuilder {
    roots: Vec<TrustAnchor<'static>>,
    /// With what `revocation_list_order` says of each.
    revocation_lists: Vec<(ListOrder, CertRevocationList<'static>)>,
    revocation: RevocationPolicy,
    max_intermediates: usize,
}

type ListOrder = Option<(String, [u8; 20])>;

impl WebPkiVerifierBuilder {
    pub(super) fn new() -> Self {
        Self {
            roots: Vec::new(),
            revocation_lists: Vec::new(),
            revocation: RevocationPolicy {
                unknown_status: UnknownStatusPolicy::Deny,
                expiration: ExpirationPolicy::Ignore,
                depth: RevocationCheckDepth::Chain,
            },
            max_intermediates: MAX_INTERMEDIATES,
        }
    }

    /// Believes the authorities whose certificates are in `pem`, one or more.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if there is none, or one that does not parse.
    pub fn roots_pem(self, pem: &str) -> Result<Self, Error> {
        self.roots_in(pem.as_bytes())
    }

    fn roots_in(mut self, pem: &[u8]) -> Result<Self, Error> {
        for root in sections::<CertificateDer<'static>>(pem, "certificate")? {
            self = self.root_der(&root)?;
        }
        Ok(self)
    }

    /// Believes the authorities whose certificates are in a PEM file, one or more.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read or can be written by others, otherwise as
    /// [`WebPkiVerifierBuilder::roots_pem`].
    pub fn roots_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.roots_in(&identity::read_trusted_file(path.as_ref())?)
    }

    /// Believes the authority with this certificate in DER.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if it does not parse.
    pub fn root_der(mut self, certificate: &[u8]) -> Result<Self, Error> {
        let root = CertificateDer::from(certificate);
        let anchor = webpki::anchor_from_trusted_cert(&root)
            .map_err(|error| ConfigError::Certificate(format!("of a root: {error}")))?;
        self.roots.push(anchor.to_owned());
        Ok(self)
    }

    /// Believes the authorities that the operating system believes, as far as their certificates
    /// parse.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if there are none.
    #[cfg(feature = "native-roots")]
    pub fn native_roots(mut self) -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        let before = self.roots.len();
        // Old ones that nobody can parse any more are common.
        let anchors = found.certs.iter().filter_map(|root| {
            webpki::anchor_from_trusted_cert(root).ok().map(|anchor| anchor.to_owned())
        });
        self.roots.extend(anchors);
        if self.roots.len() == before {
            let reason = match found.errors.first() {
                Some(error) => format!("the system has no roots: {error}"),
                None => "the system has no roots".into(),
            };
            return Err(ConfigError::Certificate(reason).into());
        }
        Ok(self)
    }

    /// Holds certificates against the revocation lists in `pem`, one or more.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if there is none, or one that does not parse.
    pub fn revocation_lists_pem(self, pem: &str) -> Result<Self, Error> {
        self.revocation_lists_in(pem.as_bytes())
    }

    fn revocation_lists_in(mut self, pem: &[u8]) -> Result<Self, Error> {
        let lists = sections::<CertificateRevocationListDer<'static>>(pem, "revocation list")?;
        for list in lists {
            self = self.revocation_list_der(&list)?;
        }
        Ok(self)
    }

    /// Holds certificates against the revocation lists in a PEM file, one or more.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read or can be written by others, otherwise as
    /// [`WebPkiVerifierBuilder::revocation_lists_pem`].
    pub fn revocation_lists_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.revocation_lists_in(&identity::read_trusted_file(path.as_ref())?)
    }

    /// Holds certificates against this revocation list in DER. Its signature is verified when a
    /// certificate is. Of several lists of one authority for the same certificates, the newest counts.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if it does not parse, or is one that cannot be used: of version 1,
    /// for a part of the reasons, or the difference to another list.
    pub fn revocation_list_der(mut self, list: &[u8]) -> Result<Self, Error> {
        let parsed = OwnedCertRevocationList::from_der(list).map_err(|error| {
            let reason = unusable_list(list, &error);
            ConfigError::Certificate(format!("of a revocation list: {reason}"))
        })?;
        let order = certificate::revocation_list_order(list);
        self.revocation_lists.push((order, parsed.into()));
        Ok(self)
    }

    /// Believes a certificate although no revocation list is for it. Default: with one list or more,
    /// there has to be one for each certificate of the path.
    pub fn allow_unknown_revocation_status(mut self) -> Self {
        self.revocation.unknown_status = UnknownStatusPolicy::Allow;
        self
    }

    /// Refuses certificates whose revocation list should have been renewed by the time of the question.
    /// Default: old lists are good.
    pub fn enforce_revocation_expiration(mut self) -> Self {
        self.revocation.expiration = ExpirationPolicy::Enforce;
        self
    }

    /// Holds only the peer's own certificate against revocation lists. Default: the intermediate ones
    /// too.
    pub fn only_check_end_entity_revocation(mut self) -> Self {
        self.revocation.depth = RevocationCheckDepth::EndEntity;
        self
    }

    /// How many certificates may be between a peer's and a root. Default, and most: 6.
    pub fn max_intermediates(mut self, certificates: usize) -> Self {
        self.max_intermediates = certificates;
        self
    }

    /// Makes the service.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if there is no root, [`ConfigError::OutOfRange`] if there may be
    /// more than 6 intermediate certificates.
    pub fn build(self) -> Result<WebPkiVerifier, Error> {
        if self.roots.is_empty() {
            return Err(ConfigError::Certificate(
                "there is no root: give one, for example with roots_file".into(),
            )
            .into());
        }
        if self.max_intermediates > MAX_INTERMEDIATES {
            return Err(ConfigError::OutOfRange("max_intermediates must be at most 6").into());
        }
        let digest = self.digest()?;
        let Self { roots, mut revocation_lists, revocation, max_intermediates } = self;
        // webpki takes the first list that is for a certificate.
        revocation_lists.sort_by(|(one, _), (other, _)| other.cmp(one));
        let revocation_lists = revocation_lists.into_iter().map(|(_, list)| list).collect();
        let inner = Inner { roots, revocation_lists, revocation, max_intermediates, digest };
        Ok(WebPkiVerifier { inner: Arc::new(inner) })
    }

    /// See [`WebPkiVerifier::trust_digest`](crate::AuthenticationService::trust_digest).
    fn digest(&self) -> Result<[u8; 32], Error> {
        let mut content = b"mls-channel WebPkiVerifier".to_vec();
        let settings = [
            self.revocation_lists.is_empty(),
            self.revocation.unknown_status == UnknownStatusPolicy::Allow,
            self.revocation.expiration == ExpirationPolicy::Enforce,
            self.revocation.depth == RevocationCheckDepth::EndEntity,
        ];
        content.extend(settings.map(u8::from));
        content.extend(self.max_intermediates.to_be_bytes());
        let mut roots: Vec<_> = self
            .roots
            .iter()
            .map(|root| {
                let constraints = root.name_constraints.as_ref();
                [
                    root.subject.as_ref(),
                    root.subject_public_key_info.as_ref(),
                    constraints.map_or(&[], |constraints| constraints.as_ref()),
                ]
            })
            .collect();
        // Their order means nothing.
        roots.sort_unstable();
        roots.dedup();
        for field in roots.into_iter().flatten() {
            content.extend(field.len().to_be_bytes());
            content.extend(field);
        }
        let suite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
        let hash = CryptoProvider::default().hash(suite, &content)?;
        let hash = hash.try_into();
        hash.map_err(|_| crate::error::CryptoError::Internal("the hash of the roots").into())
    }
}

impl fmt::Debug for WebPkiVerifierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebPkiVerifierBuilder")
            .field("roots", &self.roots.len())
            .field("revocation_lists", &self.revocation_lists.len())
            .field("max_intermediates", &self.max_intermediates)
            .finish_non_exhaustive()
    }
}

/// Why webpki does not take a revocation list.
fn unusable_list(list: &[u8], error: &PkiError) -> String {
    match error {
        PkiError::UnsupportedDeltaCrl => "it is a delta: the whole list is needed".into(),
        PkiError::UnsupportedIndirectCrl => "it is of another authority's certificates".into(),
        PkiError::UnsupportedRevocationReasonsPartitioning => {
            "it is for a part of the reasons only".into()
        }
        PkiError::UnsupportedCriticalExtension => {
            "it has a critical extension that is not supported".into()
        }
        error => match certificate::revocation_list_lack(list) {
            Some(lack) => lack.into(),
            None => format!("it does not parse: {error}"),
        },
    }
}

/// The sections of a kind in a PEM, at least one.
fn sections<T: PemObject>(pem: &[u8], kind: &str) -> Result<Vec<T>, ConfigError> {
    let sections: Result<Vec<T>, pem::Error> = T::pem_slice_iter(pem).collect();
    match sections {
        Ok(sections) if !sections.is_empty() => Ok(sections),
        Ok(_) => Err(ConfigError::Certificate(format!("there is no {kind} in the PEM"))),
        Err(error) => Err(ConfigError::Certificate(format!("not a PEM: {error}"))),
    }
}
