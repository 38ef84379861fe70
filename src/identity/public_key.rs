//! Public signature keys and their text form.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose};

use crate::{
    crypto::{CipherSuite, CryptoProvider, SignatureScheme},
    error::ConfigError,
};

/// A public signature key and its scheme.
///
/// Its bytes are those of the wire (RFC 9420, section 5.1.1): the 32 bytes of an Ed25519 key, the
/// 65 bytes of an uncompressed point for ECDSA on P-256.
///
/// Its text form is padded base64 (RFC 4648, section 4) of the bytes, and for every scheme but
/// Ed25519 the registered name of the scheme and a space in front of it:
///
/// ```
/// use mls_channel::{Identity, PublicKey, SignatureScheme};
///
/// let alice = Identity::generate_with("alice", SignatureScheme::ECDSA_SECP256R1_SHA256)?;
/// let text = alice.public_key().to_string();
/// assert!(text.starts_with("ecdsa_secp256r1_sha256 B"));
/// assert_eq!(text.parse::<PublicKey>()?, *alice.public_key());
/// # Ok::<(), mls_channel::Error>(())
/// ```
///
/// A `PublicKey` has the form of one and no more: that the peer holds the secret key is proved by the
/// handshake, and whose key it is, an [authentication service](crate::AuthenticationService) says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    scheme: SignatureScheme,
    bytes: Box<[u8]>,
}

impl PublicKey {
    /// A key of any scheme from its bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] if a key of this scheme has another length, or if a point is not in its
    /// uncompressed form.
    pub fn new(scheme: SignatureScheme, bytes: &[u8]) -> Result<Self, ConfigError> {
        if !scheme.is_public_key(bytes) {
            let (expected, found) = (scheme.public_key_len(), bytes.len());
            let form = if expected == found { ", in uncompressed form" } else { "" };
            return Err(ConfigError::Key(format!(
                "a public key of {scheme} has {expected} bytes{form}, not {found}"
            )));
        }
        Ok(Self { scheme, bytes: bytes.into() })
    }

    /// An Ed25519 key from its bytes (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] if these are not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::new(SignatureScheme::ED25519, bytes)
    }

    /// An Ed25519 key from its padded base64. For other schemes there is [`str::parse`].
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] if the text is not base64, or not of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, ConfigError> {
        Self::decode(SignatureScheme::ED25519, text)
    }

    /// The key at the front of the words of a line, in its text form; the words after it are left.
    pub(crate) fn from_words<'a>(
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let missing = || ConfigError::Key("there is none".into());
        let first = words.next().ok_or_else(missing)?;
        match SignatureScheme::from_name(first) {
            Some(scheme) => Self::decode(scheme, words.next().ok_or_else(missing)?),
            None => Self::from_base64(first),
        }
    }

    fn decode(scheme: SignatureScheme, text: &str) -> Result<Self, ConfigError> {
        let bytes = general_purpose::STANDARD
            .decode(text)
            .map_err(|error| ConfigError::Key(format!("not base64: {error}")))?;
        Self::new(scheme, &bytes)
    }

    /// The scheme of the signatures that the key verifies.
    pub fn scheme(&self) -> SignatureScheme {
        self.scheme
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the key in padded base64, without the scheme.
    pub fn to_base64(&self) -> String {
        general_purpose::STANDARD.encode(&self.bytes)
    }

    /// A short form to compare by eye or over the telephone: `SHA256:` and the unpadded base64 of
    /// the key's SHA-256, in the manner of OpenSSH.
    ///
    /// The hash is over the bytes of the key alone, so it differs from what OpenSSH shows for it.
    pub fn fingerprint(&self) -> String {
        let suite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
        let digest = CryptoProvider::default()
            .hash(suite, &self.bytes)
            .expect("a provider has the hash of the suite that every MLS client has");
        format!("SHA256:{}", general_purpose::STANDARD_NO_PAD.encode(digest))
    }
}

/// The text form.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme != SignatureScheme::ED25519 {
            write!(f, "{} ", self.scheme)?;
        }
        f.write_str(&self.to_base64())
    }
}

/// Reads the text form. `ed25519` may stand in front of a key, too.
impl FromStr for PublicKey {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut words = text.split(' ');
        let key = Self::from_words(&mut words)?;
        match words.next() {
            Some(_) => Err(ConfigError::Key("there is something after it".into())),
            None => Ok(key),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
