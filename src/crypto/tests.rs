//! Published vectors and error cases, for every provider of the build.

mod across_providers;
pub(crate) mod custom;
mod rfc_9180;
mod wycheproof;

use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{
        AeadType, Ciphersuite, CryptoError, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig,
        HpkeKdfType, HpkeKemType, SignatureScheme,
    },
};

use super::{CipherSuite, CryptoProvider};

const SUITE: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

const HASHES: [HashType; 3] = [HashType::Sha2_256, HashType::Sha2_384, HashType::Sha2_512];
const AEADS: [AeadType; 3] = [AeadType::Aes128Gcm, AeadType::Aes256Gcm, AeadType::ChaCha20Poly1305];
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_SECP256R1_SHA256,
    #[cfg(feature = "post-quantum")]
    SignatureScheme::MLDSA44,
    #[cfg(feature = "post-quantum")]
    SignatureScheme::MLDSA65,
    #[cfg(feature = "post-quantum")]
    SignatureScheme::MLDSA87,
];
const KEMS: &[HpkeKemType] = &[
    HpkeKemType::DhKem25519,
    HpkeKemType::DhKemP256,
    #[cfg(feature = "post-quantum")]
    HpkeKemType::MlKem768,
    #[cfg(feature = "post-quantum")]
    HpkeKemType::MlKem1024,
    #[cfg(feature = "post-quantum")]
    HpkeKemType::XWingKemDraft6,
];

/// Every provider of this build, and one that a user could bring.
pub(super) fn providers() -> Vec<CryptoProvider> {
    vec![
        #[cfg(feature = "aws-lc")]
        CryptoProvider::aws_lc(),
        CryptoProvider::rust_crypto(),
        CryptoProvider::from_openmls("custom", OpenMlsRustCrypto::default()),
    ]
}

/// Every pair of providers, in both directions.
fn pairs() -> Vec<(CryptoProvider, CryptoProvider)> {
    let all = providers();
    all.iter().flat_map(|a| all.iter().map(|b| (a.clone(), b.clone()))).collect()
}

pub(super) fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

/// The number of the suite that OpenMLS's provider over RustCrypto does not have.
const RUST_CRYPTO_LACKS: u16 = 0x004D;

fn x25519_aes128() -> HpkeConfig {
    HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128)
}

/// Every combination of a KEM, a KDF and an AEAD that both providers have.
fn hpke_configs() -> impl Iterator<Item = impl Fn() -> HpkeConfig> {
    use HpkeAeadType::{AesGcm128, AesGcm256, ChaCha20Poly1305};
    use HpkeKdfType::{HkdfSha256, HkdfSha384, HkdfSha512};
    KEMS.iter().copied().flat_map(|kem| {
        [HkdfSha256, HkdfSha384, HkdfSha512].into_iter().flat_map(move |kdf| {
            [AesGcm128, AesGcm256, ChaCha20Poly1305]
                .into_iter()
                .map(move |aead| move || HpkeConfig(kem, kdf, aead))
        })
    })
}

#[test]
fn the_provider_names_itself_and_shows_nothing_else() {
    let provider = CryptoProvider::default();
    #[cfg(feature = "aws-lc")]
    assert_eq!(provider.name(), "aws-lc");
    #[cfg(not(feature = "aws-lc"))]
    assert_eq!(provider.name(), "RustCrypto");
    assert_eq!(format!("{:?}", CryptoProvider::rust_crypto()), "CryptoProvider(\"RustCrypto\")");
}

#[test]
fn every_suite_of_the_channel_is_supported() {
    for provider in providers() {
        let supported = provider.supported_ciphersuites();
        for suite in CipherSuite::ALL {
            let suite = Ciphersuite::try_from(suite.id()).unwrap();
            let lacking = provider.name() != "aws-lc" && u16::from(suite) == RUST_CRYPTO_LACKS;
            assert_eq!(supported.contains(&suite), !lacking, "{provider:?} {suite:?}");
        }
        for suite in &supported {
            assert_eq!(provider.supports(*suite), Ok(()));
        }
        assert_eq!(
            provider.supports(Ciphersuite::MLS_256_DHKEMP521_AES256GCM_SHA512_P521),
            Err(CryptoError::UnsupportedCiphersuite)
        );
    }
}

#[test]
fn a_listed_suite_works_in_all_of_its_parts() {
    for provider in providers() {
        for suite in provider.supported_ciphersuites() {
            let config = || suite.hpke_config();
            let keys = provider.derive_hpke_keypair(config(), b"input keying material").unwrap();
            let sealed = provider.hpke_seal(config(), &keys.public, b"", b"", b"message").unwrap();
            let opened = provider.hpke_open(config(), &sealed, &keys.private, b"", b"").unwrap();
            assert_eq!(opened, b"message");

            let scheme = suite.signature_algorithm();
            let (private, public) = provider.signature_key_gen(scheme).unwrap();
            let signature = provider.sign(scheme, b"message", &private).unwrap();
            assert_eq!(provider.verify_signature(scheme, b"message", &public, &signature), Ok(()));

            let key = vec![1; suite.aead_key_length()];
            let (aead, nonce) = (suite.aead_algorithm(), [2; 12]);
            let sealed = provider.aead_encrypt(aead, &key, b"message", &nonce, b"").unwrap();
            assert_eq!(
                provider.aead_decrypt(aead, &key, &sealed, &nonce, b"").unwrap(),
                b"message"
            );
            let digest = OpenMlsCrypto::hash(&provider, suite.hash_algorithm(), b"message");
            assert_eq!(digest.unwrap().len(), suite.hash_length());
        }
    }
}

#[test]
fn expand_label_matches_rfc_8448_section_3() {
    // {server} derive write traffic keys for handshake data
    let secret = hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
    for provider in providers() {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        provider.expand_label(SUITE, &secret, "key", b"", &mut key).unwrap();
        provider.expand_label(SUITE, &secret, "iv", b"", &mut iv).unwrap();
        assert_eq!(key.to_vec(), hex("3fce516009c21727d0f2e4e86ee403bc"));
        assert_eq!(iv.to_vec(), hex("5d313eb2671276ee13000b30"));
    }
}

#[test]
fn expand_label_matches_rfc_8448_section_3_with_a_context() {
    // {server} derive secret "tls13 s hs traffic"
    let secret = hex("1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac");
    let transcript = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
    for provider in providers() {
        let mut out = [0; 32];
        provider.expand_label(SUITE, &secret, "s hs traffic", &transcript, &mut out).unwrap();
        let expected = "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38";
        assert_eq!(out.to_vec(), hex(expected));
    }
}

#[test]
fn expand_label_refuses_what_does_not_fit() {
    for provider in providers() {
        let expand = |secret_len: usize, label_len: usize, context_len: usize, out_len: usize| {
            let (secret, context) = (vec![1; secret_len], vec![2; context_len]);
            let mut out = vec![0; out_len];
            provider.expand_label(SUITE, &secret, &"x".repeat(label_len), &context, &mut out)
        };
        assert!(expand(32, 249, 255, 255 * 32).is_ok());
        assert!(expand(32, 250, 0, 32).is_err());
        assert!(expand(32, 1, 256, 32).is_err());
        assert!(expand(32, 1, 0, 255 * 32 + 1).is_err());
        assert!(expand(31, 1, 0, 32).is_err());
    }
}

#[test]
fn the_suite_hash_is_sha_256() {
    for provider in providers() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(provider.hash(SUITE, b"abc").unwrap(), hex(expected));
    }
}

#[test]
fn random_bytes_fill_and_differ() {
    for provider in providers() {
        provider.warm_up();
        let (mut first, mut second) = ([0; 32], [0; 32]);
        provider.fill_random(&mut first).unwrap();
        provider.clone().fill_random(&mut second).unwrap();
        assert_ne!(first, second);
        assert_ne!(provider.random_array::<32>().unwrap(), [0; 32]);
        assert_eq!(provider.random_vec(1000).unwrap().len(), 1000);
        assert_eq!(provider.fill_random(&mut []), Ok(()));
    }
}

#[test]
fn x25519_points_of_low_order_are_rejected() {
    // 0, 1, p - 1, p, p + 1 and the two points of order 8.
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    for provider in providers() {
        let pair = provider.derive_hpke_keypair(x25519_aes128(), &[7; 32]).unwrap();
        for point in points.map(hex) {
            let config = x25519_aes128;
            assert!(provider.hpke_seal(config(), &point, b"", b"", b"message").is_err());
            assert!(provider.hpke_setup_sender_and_export(config(), &point, b"", b"", 32).is_err());
            assert!(
                provider
                    .hpke_setup_receiver_and_export(config(), &point, &pair.private, b"", b"", 32)
                    .is_err()
            );
            let sealed =
                HpkeCiphertext { kem_output: point.into(), ciphertext: vec![0; 32].into() };
            assert!(provider.hpke_open(config(), &sealed, &pair.private, b"", b"").is_err());
        }
    }
}

#[test]
fn ed25519_keys_and_commitments_of_small_order_are_rejected() {
    let neutral = point_with(1, 0);
    let base = point_with(0x58, 0x66);
    for provider in providers() {
        let rejects = |public: &[u8; 32], r: &[u8; 32], s: &[u8; 32]| {
            let (scheme, signature) = (SignatureScheme::ED25519, [*r, *s].concat());
            provider.verify_signature(scheme, b"message", public, &signature).is_err()
        };
        // The equation is S B = R + k A. With A = 0 everyone can solve it, for every message.
        assert!(rejects(&neutral, &neutral, &[0; 32]), "{provider:?}");
        assert!(rejects(&neutral, &base, &point_with(1, 0)), "{provider:?}");
        // With A = B and R = 0 it is S = k.
        let challenge = [&neutral[..], &base, b"message"].concat();
        let k = OpenMlsCrypto::hash(&provider, HashType::Sha2_512, &challenge).unwrap();
        assert!(rejects(&base, &neutral, &modulo_group_order(&k)), "{provider:?}");
    }
}

/// 32 bytes: `first`, and then only `rest`. The base point of Ed25519 looks like that.
fn point_with(first: u8, rest: u8) -> [u8; 32] {
    let mut bytes = [rest; 32];
    bytes[0] = first;
    bytes
}

/// A little-endian number modulo the order of Ed25519's group, bit by bit.
fn modulo_group_order(number: &[u8]) -> [u8; 32] {
    const ORDER: (u128, u128) = (1 << 124, 0x14de_f9de_a2f7_9cd6_5812_631a_5cf5_d3ed);
    let (mut high, mut low) = (0_u128, 0_u128);
    for bit in (0..number.len() * 8).rev() {
        high = high << 1 | low >> 127;
        low = low << 1 | u128::from(number[bit / 8] >> (bit % 8) & 1);
        if (high, low) >= ORDER {
            let (difference, borrow) = low.overflowing_sub(ORDER.1);
            low = difference;
            high -= ORDER.0 + u128::from(borrow);
        }
    }
    let mut out = [0; 32];
    out[..16].copy_from_slice(&low.to_le_bytes());
    out[16..].copy_from_slice(&high.to_le_bytes());
    out
}

#[test]
fn an_ed25519_signature_with_s_out_of_range_is_rejected() {
    // S + L solves the same equation (RFC 8032, section 8.4).
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    for provider in providers() {
        let (private, public) = provider.signature_key_gen(SignatureScheme::ED25519).unwrap();
        let mut signature = provider.sign(SignatureScheme::ED25519, b"message", &private).unwrap();
        let mut carry = 0;
        for (s, l) in signature[32..].iter_mut().zip(&order) {
            let sum = u16::from(*s) + u16::from(*l) + carry;
            [*s, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        let scheme = SignatureScheme::ED25519;
        assert!(provider.verify_signature(scheme, b"message", &public, &signature).is_err());
    }
}

#[test]
fn wrong_lengths_are_errors() {
    for provider in providers() {
        for aead in AEADS {
            let key = vec![1; aead.key_size()];
            for nonce in [&[][..], &[0; 11], &[0; 13]] {
                assert!(provider.aead_encrypt(aead, &key, b"data", nonce, b"").is_err());
                assert!(provider.aead_decrypt(aead, &key, &[0; 32], nonce, b"").is_err());
            }
            for key in [&[][..], &key[1..], &[0; 33]] {
                assert!(provider.aead_encrypt(aead, key, b"data", &[0; 12], b"").is_err());
                assert!(provider.aead_decrypt(aead, key, &[0; 32], &[0; 12], b"").is_err());
            }
            for sealed in [&[][..], &[0; 15]] {
                assert!(provider.aead_decrypt(aead, &key, sealed, &[0; 12], b"").is_err());
            }
        }
        for hash in HASHES {
            let expand =
                |prk_len, okm_len| provider.hkdf_expand(hash, &vec![1; prk_len], b"info", okm_len);
            assert!(expand(hash.size(), 255 * hash.size()).is_ok());
            assert!(expand(hash.size(), 255 * hash.size() + 1).is_err());
            assert!(expand(hash.size() - 1, 32).is_err());
        }
        for &scheme in SCHEMES {
            let (private, public) = provider.signature_key_gen(scheme).unwrap();
            let signature = provider.sign(scheme, b"message", &private).unwrap();
            let verify =
                |public: &[u8], s: &[u8]| provider.verify_signature(scheme, b"message", public, s);
            assert!(verify(&public, &signature).is_ok());
            for len in [0, 1, 31, 33, 64] {
                assert!(provider.sign(scheme, b"message", &vec![1; len]).is_err());
                assert!(verify(&vec![2; len], &signature).is_err());
            }
            for signature in [&[][..], &signature[1..], &[&signature[..], &[0]].concat()] {
                assert!(verify(&public, signature).is_err());
            }
        }
        for &kem in KEMS {
            let config = || HpkeConfig(kem, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128);
            let pair = provider.derive_hpke_keypair(config(), &[7; 32]).unwrap();
            let sealed = provider.hpke_seal(config(), &pair.public, b"", b"", b"data").unwrap();
            for len in [0, 31, 33, 44, 64, 66] {
                let key = vec![4; len];
                assert!(provider.hpke_seal(config(), &key, b"", b"", b"data").is_err());
                assert!(provider.hpke_open(config(), &sealed, &key, b"", b"").is_err());
                let enc = HpkeCiphertext { kem_output: key.into(), ..sealed.clone() };
                assert!(provider.hpke_open(config(), &enc, &pair.private, b"", b"").is_err());
            }
            let short = HpkeCiphertext { ciphertext: vec![0; 15].into(), ..sealed };
            assert!(provider.hpke_open(config(), &short, &pair.private, b"", b"").is_err());
            let export = |length| {
                provider.hpke_setup_sender_and_export(config(), &pair.public, b"", b"", length)
            };
            assert!(export(255 * 32).is_ok());
            assert!(export(255 * 32 + 1).is_err());
        }
    }
}

#[test]
fn p256_points_off_the_curve_or_compressed_are_rejected() {
    let config =
        || HpkeConfig(HpkeKemType::DhKemP256, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128);
    for provider in providers() {
        let public = provider.derive_hpke_keypair(config(), &[7; 32]).unwrap().public;
        let mut off_curve = public.clone();
        off_curve[64] ^= 1;
        let compressed = [&[2 + (public[64] & 1)][..], &public[1..33]].concat();
        let mut hybrid = public;
        hybrid[0] = 6 + (hybrid[64] & 1);
        for point in [off_curve, compressed, hybrid] {
            assert!(provider.hpke_seal(config(), &point, b"", b"", b"data").is_err());
        }
    }
}

// FIPS 203, section 7.2: the coefficients of a public key are below the modulus.
#[cfg(feature = "post-quantum")]
#[test]
fn ml_kem_keys_with_coefficients_out_of_range_are_rejected() {
    for kem in [HpkeKemType::MlKem768, HpkeKemType::MlKem1024, HpkeKemType::XWingKemDraft6] {
        let config = || HpkeConfig(kem, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128);
        for provider in providers() {
            let mut public = provider.derive_hpke_keypair(config(), &[7; 32]).unwrap().public;
            assert!(provider.hpke_seal(config(), &public, b"", b"", b"data").is_ok());
            public[..3].fill(0xff);
            let sealed = provider.hpke_seal(config(), &public, b"", b"", b"data");
            assert!(sealed.is_err(), "{provider:?} {kem:?}");
        }
    }
}

#[test]
fn what_no_listed_suite_needs_is_unsupported() {
    let kem = |kem| HpkeConfig(kem, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128);
    for provider in providers() {
        for scheme in [SignatureScheme::ECDSA_SECP384R1_SHA384, SignatureScheme::ED448] {
            let unsupported = CryptoError::UnsupportedSignatureScheme;
            assert_eq!(provider.signature_key_gen(scheme).unwrap_err(), unsupported);
            assert_eq!(provider.sign(scheme, b"", &[1; 48]).unwrap_err(), unsupported);
            let verified = provider.verify_signature(scheme, b"", &[4; 97], &[0; 96]);
            assert_eq!(verified.unwrap_err(), unsupported);
        }
        for id in [HpkeKemType::DhKemP384, HpkeKemType::DhKemP521, HpkeKemType::DhKem448] {
            assert_eq!(
                provider.derive_hpke_keypair(kem(id), &[7; 32]).unwrap_err(),
                CryptoError::UnsupportedCiphersuite
            );
            assert!(provider.hpke_seal(kem(id), &[4; 97], b"", b"", b"").is_err());
        }
    }
}
