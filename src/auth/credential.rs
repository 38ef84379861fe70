//! What a peer shows of itself: a credential and a key.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{auth::AuthenticationError, crypto::SignatureScheme, identity::PublicKey, name};

/// What a peer claims to be. Nobody has believed it yet.
///
/// The bytes come from the network and are not checked. Only that the peer holds the secret half
/// of `signature_key` is certain when a service sees them.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PresentedIdentity<'a> {
    /// The credential of the leaf.
    pub credential: Credential<'a>,
    /// The public signature key of the leaf.
    pub signature_key: &'a [u8],
    /// The scheme of that key, which is that of the group's cipher suite.
    pub signature_scheme: SignatureScheme,
}

/// The credential of a leaf (RFC 9420, section 5.3).
///
/// A service that knows one of the two calls [`PresentedIdentity::to_name`] or
/// [`PresentedIdentity::to_certificates`], which refuse the other.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// The identity in a basic credential, in whatever encoding.
    Basic(&'a [u8]),
    /// The certificates of an X.509 credential in DER, from that of the peer upwards. There are 1 to
    /// 16, of at most 64 KiB together; nobody has looked into them.
    X509(&'a [Vec<u8>]),
}

impl<'a> PresentedIdentity<'a> {
    /// A claim by a basic credential with an Ed25519 key, for the test of a service.
    pub fn new(name: &'a [u8], signature_key: &'a [u8]) -> Self {
        Self::with(Credential::Basic(name), signature_key)
    }

    /// A claim by an X.509 credential with an Ed25519 key, for the test of a service.
    pub fn x509(certificates: &'a [Vec<u8>], signature_key: &'a [u8]) -> Self {
        Self::with(Credential::X509(certificates), signature_key)
    }

    fn with(credential: Credential<'a>, signature_key: &'a [u8]) -> Self {
        Self { credential, signature_key, signature_scheme: SignatureScheme::ED25519 }
    }

    /// The claim with a key of another scheme.
    #[must_use]
    pub fn with_signature_scheme(self, signature_scheme: SignatureScheme) -> Self {
        Self { signature_scheme, ..self }
    }

    /// The name in a basic credential as text, if it may be the name of an
    /// [`Identity`](crate::Identity).
    ///
    /// # Errors
    ///
    /// [`AuthenticationError::MalformedCredential`] if it may not, and
    /// [`AuthenticationError::UnsupportedCredential`] if it is another credential.
    pub fn to_name(&self) -> Result<&'a str, AuthenticationError> {
        str::from_utf8(self.to_basic()?)
            .ok()
            .filter(|name| name::is_identity_name(name))
            .ok_or(AuthenticationError::MalformedCredential)
    }

    /// The identity in a basic credential, whatever it is.
    ///
    /// # Errors
    ///
    /// [`AuthenticationError::UnsupportedCredential`] if it is another credential.
    pub fn to_basic(&self) -> Result<&'a [u8], AuthenticationError> {
        match self.credential {
            Credential::Basic(identity) => Ok(identity),
            other => Err(AuthenticationError::UnsupportedCredential(other.type_name())),
        }
    }

    /// The certificates in an X.509 credential.
    ///
    /// # Errors
    ///
    /// [`AuthenticationError::UnsupportedCredential`] if it is another credential.
    pub fn to_certificates(&self) -> Result<&'a [Vec<u8>], AuthenticationError> {
        match self.credential {
            Credential::X509(certificates) => Ok(certificates),
            other => Err(AuthenticationError::UnsupportedCredential(other.type_name())),
        }
    }

    /// The key, if it has the form of one.
    ///
    /// # Errors
    ///
    /// [`AuthenticationError::MalformedCredential`] if it does not.
    pub fn to_public_key(&self) -> Result<PublicKey, AuthenticationError> {
        PublicKey::new(self.signature_scheme, self.signature_key)
            .map_err(|_| AuthenticationError::MalformedCredential)
    }
}

impl fmt::Debug for PresentedIdentity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedIdentity")
            .field("credential", &self.credential)
            .field("signature_key", &format_args!("{}", STANDARD.encode(self.signature_key)))
            .field("signature_scheme", &self.signature_scheme)
            .finish()
    }
}

impl Credential<'_> {
    /// What RFC 9420 calls its type.
    fn type_name(self) -> &'static str {
        match self {
            Self::Basic(_) => "basic",
            Self::X509(_) => "X.509",
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(name) => write!(f, "Basic(\"{}\")", name.escape_ascii()),
            Self::X509(certificates) => {
                write!(f, "X509({} bytes)", certificates.iter().map(Vec::len).sum::<usize>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn name_and_key_of_a_claim_are_checked() {
        let claim = PresentedIdentity::new("ålice".as_bytes(), &[1; 32]);
        assert_eq!(claim.to_name(), Ok("ålice"));
        assert_eq!(claim.to_public_key(), Ok(key(1)));

        let long = [b'a'; 256];
        for name in [&b""[..], b"\xff", b"two words", b"line\nfeed", b"#comment", &long] {
            let claim = PresentedIdentity::new(name, &[1; 32]);
            assert_eq!(claim.to_name(), Err(AuthenticationError::MalformedCredential));
        }
        for length in [0, 31, 33] {
            let bytes = vec![1; length];
            let claim = PresentedIdentity::new(b"alice", &bytes);
            assert_eq!(claim.to_public_key(), Err(AuthenticationError::MalformedCredential));
        }
    }

    #[test]
    fn one_type_of_credential_is_not_taken_for_the_other() {
        let chain = [b"alice".to_vec()];
        let x509 = PresentedIdentity::x509(&chain, &[1; 32]);
        assert_eq!(x509.to_certificates(), Ok(&chain[..]));
        assert_eq!(x509.to_name(), Err(AuthenticationError::UnsupportedCredential("X.509")));
        let basic = PresentedIdentity::new(b"alice", &[1; 32]);
        assert_eq!(
            basic.to_certificates(),
            Err(AuthenticationError::UnsupportedCredential("basic"))
        );
    }

    #[test]
    fn debug_of_a_claim_is_printable() {
        let claim = PresentedIdentity::new(b"a\n\"\x1b[1m\xff", &[0; 3]);
        assert_eq!(
            format!("{claim:?}"),
            r#"PresentedIdentity { credential: Basic("a\n\"\x1b[1m\xff"), signature_key: AAAA, signature_scheme: ed25519 }"#
        );
        let chain = [vec![1; 300], vec![2; 21]];
        let claim = PresentedIdentity::x509(&chain, &[0; 3]);
        assert_eq!(
            format!("{claim:?}"),
            "PresentedIdentity { credential: X509(321 bytes), signature_key: AAAA, signature_scheme: ed25519 }"
        );
    }
}
