//! Private keys in PEM.

use base64::{Engine, engine::general_purpose};
use ed25519_dalek::pkcs8::KeypairBytes;
use p256::{
    SecretKey,
    pkcs8::{EncodePrivateKey, LineEnding, ObjectIdentifier, PrivateKeyInfo, SecretDocument},
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    crypto::{Ed25519Key, P256Key, SignatureKey},
    error::{ConfigError, CryptoError, Error},
};

/// id-Ed25519 (RFC 8410, section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// id-ecPublicKey (RFC 5480, section 2.1.1). The curve is a parameter.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// Everything of a PKCS#8 file in version 1 that comes before the seed (RFC 8410, section 7).
const ED25519_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const PEM_END: &str = "\n-----END PRIVATE KEY-----\n";

/// The key in PKCS#8 (RFC 5958), or in the older form of keys on a curve (RFC 5915).
pub(super) fn decode(pem: &str) -> Result<SignatureKey, Error> {
    let (label, document) = SecretDocument::from_pem(pem.trim_ascii_start())
        .map_err(|error| invalid(format!("not a key in PEM: {error}")))?;
    match label {
        "PRIVATE KEY" => {
            let info = PrivateKeyInfo::try_from(document.as_bytes())
                .map_err(|error| invalid(format!("not a key in PKCS#8: {error}")))?;
            match info.algorithm.oid {
                ED25519 => decode_ed25519(info),
                EC => decode_p256(SecretKey::try_from(info)),
                other => Err(invalid(format!("keys of the algorithm {other} are not supported"))),
            }
        }
        "EC PRIVATE KEY" => decode_p256(SecretKey::from_sec1_der(document.as_bytes())),
        "ENCRYPTED PRIVATE KEY" => Err(invalid("encrypted keys are not supported".into())),
        other => Err(invalid(format!("the PEM is labelled {other} and not PRIVATE KEY"))),
    }
}

fn decode_ed25519(info: PrivateKeyInfo<'_>) -> Result<SignatureKey, Error> {
    let mut pair = KeypairBytes::try_from(info)
        .map_err(|error| invalid(format!("not an Ed25519 key in PKCS#8: {error}")))?;
    let key = Ed25519Key::from_seed(&pair.secret_key);
    // The library wipes this copy only with a feature that ed25519-dalek does not turn on.
    pair.secret_key.zeroize();
    let key = key?;
    if pair.public_key.as_ref().is_some_and(|public| public.as_ref() != key.public_key()) {
        let reason = "the public key in the PEM does not belong to the private key";
        return Err(invalid(reason.into()));
    }
    Ok(SignatureKey::Ed25519(key))
}

/// The library has compared the public key in the PEM, if there is one.
fn decode_p256<E: std::fmt::Display>(secret: Result<SecretKey, E>) -> Result<SignatureKey, Error> {
    let secret = secret.map_err(|error| invalid(format!("not a key on P-256: {error}")))?;
    Ok(SignatureKey::P256(P256Key::new(&secret)?))
}

fn invalid(reason: String) -> Error {
    ConfigError::Key(reason).into()
}

/// PKCS#8 version 1.
pub(super) fn encode(key: &SignatureKey) -> Result<Zeroizing<String>, Error> {
    match key {
        SignatureKey::Ed25519(key) => encode_ed25519(key),
        SignatureKey::P256(key) => Ok(SecretKey::from_slice(&*key.scalar())
            .ok()
            .and_then(|secret| secret.to_pkcs8_pem(LineEnding::LF).ok())
            .ok_or(FAILED)?),
    }
}

const FAILED: CryptoError = CryptoError::Internal("PEM encoding");

// ed25519-dalek's encoder leaves a copy of the seed in memory, so the constant prefix is written
// here. The 48 bytes make exactly one line of 64 characters.
fn encode_ed25519(key: &Ed25519Key) -> Result<Zeroizing<String>, Error> {
    let mut der = Zeroizing::new([0; 48]);
    let (prefix, seed) = der.split_at_mut(ED25519_PREFIX.len());
    prefix.copy_from_slice(&ED25519_PREFIX);
    seed.copy_from_slice(key.seed());

    let mut line = Zeroizing::new([0; 64]);
    general_purpose::STANDARD
        .encode_slice(der.as_slice(), line.as_mut_slice())
        .map_err(|_| FAILED)?;
    let line = str::from_utf8(line.as_slice()).map_err(|_| FAILED)?;

    let capacity = PEM_BEGIN.len() + line.len() + PEM_END.len();
    let mut pem = Zeroizing::new(String::with_capacity(capacity));
    pem.push_str(PEM_BEGIN);
    pem.push_str(line);
    pem.push_str(PEM_END);
    Ok(pem)
}
