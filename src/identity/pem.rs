//! Private keys in PEM.

use base64::{Engine, engine::general_purpose};
use ed25519_dalek::pkcs8::KeypairBytes;
use p256::{
    NistP256, SecretKey,
    pkcs8::{
        AssociatedOid, EncodePrivateKey, LineEnding, ObjectIdentifier, PrivateKeyInfo,
        SecretDocument,
        der::{
            self, Decode, Reader, TagNumber,
            asn1::{AnyRef, ContextSpecific, OctetStringRef},
        },
    },
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
const PEM_END: &str = "-----END PRIVATE KEY-----\n";

/// The key in PKCS#8 (RFC 5958), or in the older form of keys on a curve (RFC 5915).
pub(super) fn decode(pem: &str) -> Result<SignatureKey, Error> {
    let (label, document) = SecretDocument::from_pem(pem.trim_ascii_start()).map_err(|error| {
        invalid(match pem.matches("-----BEGIN ").count() {
            0 | 1 => format!("not a key in PEM: {error}"),
            // Of these, EC PARAMETERS and certificates are common.
            _ => "there is more than one section in the PEM, and it has to be the key alone".into(),
        })
    })?;
    match label {
        "PRIVATE KEY" => {
            let info = PrivateKeyInfo::try_from(document.as_bytes())
                .map_err(|error| invalid(format!("not a key in PKCS#8: {error}")))?;
            match info.algorithm.oid {
                ED25519 => decode_ed25519(info),
                EC => decode_p256(SecretKey::try_from(info)),
                #[cfg(feature = "post-quantum")]
                oid if ml_dsa::scheme(oid).is_some() => ml_dsa::decode(info),
                other => Err(invalid(format!("keys of the algorithm {other} are not supported"))),
            }
        }
        "EC PRIVATE KEY" => decode_sec1(document.as_bytes()),
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

/// The library does not look at the curve. Without a public key to compare it would take a key on any
/// curve of that length.
fn decode_sec1(key: &[u8]) -> Result<SignatureKey, Error> {
    match named_curve(key) {
        Ok(None | Some(NistP256::OID)) => decode_p256(SecretKey::from_sec1_der(key)),
        Ok(Some(other)) => Err(invalid(format!("keys on the curve {other} are not supported"))),
        Err(error) => Err(invalid(format!("not a key on P-256: {error}"))),
    }
}

/// The parameters of an ECPrivateKey (RFC 5915, section 3).
fn named_curve(key: &[u8]) -> der::Result<Option<ObjectIdentifier>> {
    AnyRef::from_der(key)?.sequence(|fields| {
        u8::decode(fields)?;
        OctetStringRef::decode(fields)?;
        let curve = ContextSpecific::decode_explicit(fields, TagNumber::N0)?;
        fields.read_slice(fields.remaining_len())?;
        Ok(curve.map(|curve| curve.value))
    })
}

/// The library has compared the public key in the PEM, if there is one.
fn decode_p256<E: std::fmt::Display>(secret: Result<SecretKey, E>) -> Result<SignatureKey, Error> {
    let secret = secret.map_err(|error| invalid(format!("not a key on P-256: {error}")))?;
    Ok(SignatureKey::P256(P256Key::new(&secret)?))
}

fn invalid(reason: String) -> Error {
    ConfigError::Key(reason).into()
}

/// PKCS#8 version 1, with a seed where there is one.
pub(super) fn encode(key: &SignatureKey) -> Result<Zeroizing<String>, Error> {
    match key {
        SignatureKey::Ed25519(key) => encode_ed25519(key),
        SignatureKey::P256(key) => Ok(SecretKey::from_slice(&*key.scalar())
            .ok()
            .and_then(|secret| secret.to_pkcs8_pem(LineEnding::LF).ok())
            .ok_or(FAILED)?),
        #[cfg(feature = "post-quantum")]
        SignatureKey::MlDsa(key) => ml_dsa::encode(key),
    }
}

const FAILED: CryptoError = CryptoError::Internal("PEM encoding");

// ed25519-dalek's encoder leaves a copy of the seed in memory, so the constant prefix is written here.
fn encode_ed25519(key: &Ed25519Key) -> Result<Zeroizing<String>, Error> {
    let mut der = Zeroizing::new([0; 48]);
    let (prefix, seed) = der.split_at_mut(ED25519_PREFIX.len());
    prefix.copy_from_slice(&ED25519_PREFIX);
    seed.copy_from_slice(key.seed());
    encode_der(der.as_slice())
}

/// PEM (RFC 7468) of a few bytes, without leaving a copy of them.
fn encode_der(der: &[u8]) -> Result<Zeroizing<String>, Error> {
    // Bytes in a line of 64 characters.
    const LINE: usize = 48;
    let lines = der.len().div_ceil(LINE);
    let capacity = PEM_BEGIN.len() + lines * 65 + PEM_END.len();
    let mut pem = Zeroizing::new(String::with_capacity(capacity));
    pem.push_str(PEM_BEGIN);
    let mut line = Zeroizing::new([0; 64]);
    for bytes in der.chunks(LINE) {
        let length = general_purpose::STANDARD
            .encode_slice(bytes, line.as_mut_slice())
            .map_err(|_| FAILED)?;
        let text = line.get(..length).and_then(|line| str::from_utf8(line).ok());
        pem.push_str(text.ok_or(FAILED)?);
        pem.push('\n');
    }
    pem.push_str(PEM_END);
    Ok(pem)
}

/// ML-DSA (RFC 9881). What is written is the seed; what is read is the seed, and the expanded key
/// beside it, if there is one, has to be that of the seed. An expanded key alone is not supported.
#[cfg(feature = "post-quantum")]
mod ml_dsa {
    use super::*;
    use crate::crypto::{MlDsaKey, SignatureScheme, constant_time_eq};

    /// Everything of a file that comes before the seed. The last byte of the algorithm is missing.
    const PREFIX: [u8; 22] = [
        0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
        0x04, 0x03, 0x00, 0x04, 0x22, 0x80, 0x20,
    ];
    const LAST_OF_ALGORITHM: usize = 17;

    const SCHEMES: [(u8, &str, SignatureScheme); 3] = [
        (0x11, "2.16.840.1.101.3.4.3.17", SignatureScheme::MLDSA44),
        (0x12, "2.16.840.1.101.3.4.3.18", SignatureScheme::MLDSA65),
        (0x13, "2.16.840.1.101.3.4.3.19", SignatureScheme::MLDSA87),
    ];

    pub(super) fn scheme(oid: ObjectIdentifier) -> Option<SignatureScheme> {
        SCHEMES
            .iter()
            .find(|(_, known, _)| ObjectIdentifier::new(known) == Ok(oid))
            .map(|(_, _, scheme)| *scheme)
    }

    pub(super) fn decode(info: PrivateKeyInfo<'_>) -> Result<SignatureKey, Error> {
        let malformed = || invalid("not an ML-DSA key with its seed in PKCS#8".into());
        let scheme = scheme(info.algorithm.oid).ok_or_else(malformed)?;
        if info.algorithm.parameters.is_some() {
            return Err(malformed());
        }
        let (seed, expanded) = match info.private_key {
            [0x80, 0x20, seed @ ..] => (seed, None),
            // A sequence of two octet strings, whose lengths are known.
            [0x30, 0x82, _, _, 0x04, 0x20, rest @ ..] => {
                let (seed, rest) = rest.split_at_checked(32).ok_or_else(malformed)?;
                let [0x04, 0x82, high, low, expanded @ ..] = rest else {
                    return Err(malformed());
                };
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let all = info.private_key.get(2..4).map(|length| [length[0], length[1]]);
                let all = all.map_or(0, |length| usize::from(u16::from_be_bytes(length)));
                if expanded.len() != length || info.private_key.len() != all + 4 {
                    return Err(malformed());
                }
                (seed, Some(expanded))
            }
            _ => return Err(malformed()),
        };
        let seed: &[u8; 32] = seed.try_into().map_err(|_| malformed())?;
        let key = MlDsaKey::from_seed(scheme, seed)?;
        if let Some(expanded) = expanded
            && !constant_time_eq(expanded, &key.expanded()?)
        {
            return Err(invalid("the expanded key in the PEM does not belong to its seed".into()));
        }
        Ok(SignatureKey::MlDsa(key))
    }

    pub(super) fn encode(key: &MlDsaKey) -> Result<Zeroizing<String>, Error> {
        let (last, ..) =
            SCHEMES.iter().find(|(_, _, scheme)| *scheme == key.scheme()).ok_or(FAILED)?;
        let mut der = Zeroizing::new([0; PREFIX.len() + 32]);
        let (prefix, seed) = der.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(&PREFIX);
        prefix[LAST_OF_ALGORITHM] = *last;
        seed.copy_from_slice(key.seed());
        encode_der(der.as_slice())
    }
}
