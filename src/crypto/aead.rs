//! The key of a direction's records.

use std::fmt;

use aes_gcm::{AeadInPlace, Aes128Gcm, Aes256Gcm, KeyInit};
#[cfg(feature = "aws-lc")]
use aws_lc_rs::aead as lc;
use chacha20poly1305::ChaCha20Poly1305;

use zeroize::Zeroizing;

use super::{Aead, RecordAead, checked::Checked};
use crate::error::CryptoError;

/// Length of a tag in bytes, of every AEAD here.
const TAG_LEN: usize = 16;

/// An AEAD key for records: seals and opens in place, without allocation.
///
/// The caller chooses the nonces and must not repeat one for sealing (RFC 8446, section 5.3).
//
// Erasure on drop. AWS-LC: the expanded key lives in one EVP_AEAD_CTX, allocated with
// OPENSSL_malloc and released through EVP_AEAD_CTX_free and OPENSSL_free, which overwrites every
// block that it frees (crypto/mem.c). A move of this enum moves the pointer only.
// chacha20poly1305: zeroizes its key on drop. aes-gcm: erases the round keys only if the crate
// `aes` is built with its feature `zeroize`, which the feature of that name of aes-gcm does not
// turn on; the GHASH key is never erased. Both are boxed, so that moves leave no copies and the
// variants stay small.
pub(crate) struct AeadKey(Inner);

enum Inner {
    #[cfg(feature = "aws-lc")]
    AwsLc(lc::LessSafeKey),
    Aes128Gcm(Box<Aes128Gcm>),
    Aes256Gcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
    Custom(Box<dyn RecordAead>),
}

/// A ciphertext failed authentication. There is nothing more to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFailed;

impl AeadKey {
    #[cfg(feature = "aws-lc")]
    pub(super) fn aws_lc(aead: Aead, key: &[u8]) -> Result<Self, CryptoError> {
        let algorithm = match aead {
            Aead::Aes128Gcm => &lc::AES_128_GCM,
            Aead::Aes256Gcm => &lc::AES_256_GCM,
            Aead::ChaCha20Poly1305 => &lc::CHACHA20_POLY1305,
        };
        let key = lc::UnboundKey::new(algorithm, key).map_err(|_| KEY_REJECTED)?;
        Ok(Self(Inner::AwsLc(lc::LessSafeKey::new(key))))
    }

    pub(super) fn rust_crypto(aead: Aead, key: &[u8]) -> Result<Self, CryptoError> {
        Ok(Self(match aead {
            Aead::Aes128Gcm => {
                let key = Aes128Gcm::new_from_slice(key).map_err(|_| KEY_REJECTED)?;
                Inner::Aes128Gcm(Box::new(key))
            }
            Aead::Aes256Gcm => {
                let key = Aes256Gcm::new_from_slice(key).map_err(|_| KEY_REJECTED)?;
                Inner::Aes256Gcm(Box::new(key))
            }
            Aead::ChaCha20Poly1305 => {
                let key = ChaCha20Poly1305::new_from_slice(key).map_err(|_| KEY_REJECTED)?;
                Inner::ChaCha20Poly1305(Box::new(key))
            }
        }))
    }

    pub(super) fn custom(library: &Checked, aead: Aead, key: &[u8]) -> Result<Self, CryptoError> {
        if key.len() != aead.key_len() {
            return Err(KEY_REJECTED);
        }
        Ok(Self(Inner::Custom(library.record_aead(aead, key)?)))
    }

    /// Encrypts `data` in place and returns the 16-byte tag.
    ///
    /// On failure `data` may still be the plaintext.
    #[inline]
    pub(crate) fn seal_in_place(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        match &self.0 {
            #[cfg(feature = "aws-lc")]
            Inner::AwsLc(key) => {
                let mut tag = [0; TAG_LEN];
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_scatter(nonce, lc::Aad::from(aad), data, &[], &mut tag)
                    .map_err(|_| SEAL_FAILED)?;
                Ok(tag)
            }
            Inner::Aes128Gcm(key) => key
                .encrypt_in_place_detached(&nonce.into(), aad, data)
                .map(Into::into)
                .map_err(|_| SEAL_FAILED),
            Inner::Aes256Gcm(key) => key
                .encrypt_in_place_detached(&nonce.into(), aad, data)
                .map(Into::into)
                .map_err(|_| SEAL_FAILED),
            Inner::ChaCha20Poly1305(key) => key
                .encrypt_in_place_detached(&nonce.into(), aad, data)
                .map(Into::into)
                .map_err(|_| SEAL_FAILED),
            Inner::Custom(key) => key.seal_in_place(&nonce, aad, data),
        }
    }

    /// Encrypts `data` and after it `last` into `out`, and appends the tag. `out` is one byte and a tag
    /// longer than `data`.
    #[inline]
    pub(crate) fn seal_into(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        data: &[u8],
        last: u8,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        let (content, tag) = out.split_last_chunk_mut::<TAG_LEN>().ok_or(SEAL_FAILED)?;
        let (last_out, data_out) = content.split_last_mut().ok_or(SEAL_FAILED)?;
        if data_out.len() != data.len() {
            return Err(SEAL_FAILED);
        }
        match &self.0 {
            #[cfg(feature = "aws-lc")]
            Inner::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                let mut rest = [0; 1 + TAG_LEN];
                key.seal_out_of_place_scatter(
                    nonce,
                    lc::Aad::from(aad),
                    data,
                    data_out,
                    &[last],
                    &mut rest,
                )
                .map_err(|_| SEAL_FAILED)?;
                let [last_sealed, tag_sealed @ ..] = rest;
                (*last_out, *tag) = (last_sealed, tag_sealed);
            }
            // Not in place: what is in `out` may be sent, should the library panic.
            Inner::Custom(key) => {
                let mut sealed = Zeroizing::new([data, &[last]].concat());
                let computed = key.seal_in_place(&nonce, aad, &mut sealed)?;
                data_out.copy_from_slice(&sealed[..data.len()]);
                *last_out = sealed[data.len()];
                *tag = computed;
            }
            Inner::Aes128Gcm(_) | Inner::Aes256Gcm(_) | Inner::ChaCha20Poly1305(_) => {
                data_out.copy_from_slice(data);
                *last_out = last;
                *tag = self.seal_in_place(nonce, aad, content)?;
            }
        }
        Ok(())
    }

    /// Decrypts `sealed`, a ciphertext followed by its tag, into `out`, which is as long as the
    /// ciphertext. On failure `out` is erased.
    #[cfg(any(feature = "tokio", test))]
    #[inline]
    pub(crate) fn open_into(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), OpenFailed> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(OpenFailed)?;
        if ciphertext.len() != out.len() {
            return Err(OpenFailed);
        }
        let opened = match &self.0 {
            #[cfg(feature = "aws-lc")]
            Inner::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, lc::Aad::from(aad), ciphertext, tag, out)
                    .map_err(|_| OpenFailed)
            }
            _ => {
                out.copy_from_slice(ciphertext);
                self.open_detached(nonce, aad, out, tag)
            }
        };
        if opened.is_err() {
            out.fill(0);
        }
        opened
    }

    /// Decrypts `data`, a ciphertext followed by its tag, in place. Returns the length of the
    /// plaintext, which is at the front of `data`.
    ///
    /// On failure the contents of `data` are unspecified.
    #[inline]
    pub(crate) fn open_in_place(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<usize, OpenFailed> {
        let Some((data, tag)) = data.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(OpenFailed);
        };
        self.open_detached(nonce, aad, data, tag)?;
        Ok(data.len())
    }

    fn open_detached(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        match &self.0 {
            // With the tag apart: LessSafeKey::open_in_place moves the plaintext onto itself.
            #[cfg(feature = "aws-lc")]
            Inner::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place_separate_tag(nonce, lc::Aad::from(aad), tag, data)
                    .map_err(|_| OpenFailed)?;
            }
            Inner::Aes128Gcm(key) => key
                .decrypt_in_place_detached(&nonce.into(), aad, data, tag.into())
                .map_err(|_| OpenFailed)?,
            Inner::Aes256Gcm(key) => key
                .decrypt_in_place_detached(&nonce.into(), aad, data, tag.into())
                .map_err(|_| OpenFailed)?,
            Inner::ChaCha20Poly1305(key) => key
                .decrypt_in_place_detached(&nonce.into(), aad, data, tag.into())
                .map_err(|_| OpenFailed)?,
            Inner::Custom(key) => {
                if key.open_in_place(&nonce, aad, data, tag).is_err() {
                    // It may have decrypted before it looked at the tag.
                    data.fill(0);
                    return Err(OpenFailed);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

const KEY_REJECTED: CryptoError = CryptoError::Internal("AEAD key setup");
const SEAL_FAILED: CryptoError = CryptoError::Internal("AEAD encryption");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::{hex, providers};

    const NONCE: [u8; 12] = [7; 12];

    fn known_answer(aead: Aead, key: &str, nonce: &str, aad: &str, plaintext: &[u8], sealed: &str) {
        let nonce: [u8; 12] = hex(nonce).try_into().unwrap();
        let sealed = hex(sealed);
        for provider in providers() {
            let key = provider.aead_key(aead, &hex(key)).unwrap();
            let mut data = plaintext.to_vec();
            let tag = key.seal_in_place(nonce, &hex(aad), &mut data).unwrap();
            data.extend_from_slice(&tag);
            assert_eq!(data, sealed, "{provider:?}");
            let (last, rest) = plaintext.split_last().unwrap();
            let mut out = vec![0; sealed.len()];
            key.seal_into(nonce, &hex(aad), rest, *last, &mut out).unwrap();
            assert_eq!(out, sealed, "{provider:?}");
            out.truncate(plaintext.len());
            key.open_into(nonce, &hex(aad), &sealed, &mut out).unwrap();
            assert_eq!(out, plaintext, "{provider:?}");
            assert_eq!(key.open_in_place(nonce, &hex(aad), &mut data), Ok(plaintext.len()));
            assert_eq!(&data[..plaintext.len()], plaintext, "{provider:?}");
        }
    }

    #[test]
    fn aes_128_gcm_matches_the_test_case_4_of_the_gcm_specification() {
        known_answer(
            Aead::Aes128Gcm,
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            &hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                  1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091\
             5bc94fbc3221a5db94fae95ae7121a47",
        );
    }

    #[test]
    fn chacha20_poly1305_matches_rfc_8439_section_2_8_2() {
        known_answer(
            Aead::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
              future, sunscreen would be it.",
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
             3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
             92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
             3ff4def08e4b7a9de576d26586cec64b6116\
             1ae10b594f09e26a7e902ecbd0600691",
        );
    }

    #[test]
    fn a_library_that_panics_leaves_no_plaintext_to_be_sent() {
        struct Panicking;

        impl RecordAead for Panicking {
            fn seal_in_place(
                &self,
                _: &[u8; 12],
                _: &[u8],
                _: &mut [u8],
            ) -> Result<[u8; TAG_LEN], CryptoError> {
                panic!("a defect of the library");
            }

            fn open_in_place(
                &self,
                _: &[u8; 12],
                _: &[u8],
                _: &mut [u8],
                _: &[u8; TAG_LEN],
            ) -> Result<(), CryptoError> {
                Ok(())
            }
        }

        let key = AeadKey(Inner::Custom(Box::new(Panicking)));
        let mut out = [0; 6 + TAG_LEN];
        let sealing =
            std::panic::AssertUnwindSafe(|| key.seal_into(NONCE, b"aad", b"secre", b't', &mut out));
        assert!(std::panic::catch_unwind(sealing).is_err());
        assert_eq!(out, [0; 6 + TAG_LEN]);
    }

    #[test]
    fn what_does_not_open_leaves_nothing_behind() {
        for provider in providers() {
            for aead in [Aead::Aes128Gcm, Aead::ChaCha20Poly1305] {
                let key = provider.aead_key(aead, &vec![1; aead.key_len()]).unwrap();
                let mut sealed = vec![0; 6 + TAG_LEN];
                key.seal_into(NONCE, b"aad", b"recor", b'd', &mut sealed).unwrap();
                for at in 0..sealed.len() {
                    let mut changed = sealed.clone();
                    changed[at] ^= 1;
                    let mut out = [7; 6];
                    assert_eq!(key.open_into(NONCE, b"aad", &changed, &mut out), Err(OpenFailed));
                    assert_eq!(out, [0; 6]);
                }
                assert_eq!(key.open_into(NONCE, b"aad", &sealed, &mut [0; 5]), Err(OpenFailed));
                assert_eq!(key.open_into(NONCE, b"aad", &[0; 15], &mut []), Err(OpenFailed));
                let mut short = [0; TAG_LEN];
                assert!(key.seal_into(NONCE, b"aad", b"", 1, &mut short).is_err());
                assert!(key.seal_into(NONCE, b"aad", b"12", 3, &mut sealed).is_err());
            }
        }
    }

    #[test]
    fn a_changed_record_does_not_open() {
        for provider in providers() {
            for aead in [Aead::Aes128Gcm, Aead::ChaCha20Poly1305] {
                let key = provider.aead_key(aead, &vec![1; aead.key_len()]).unwrap();
                let other = provider.aead_key(aead, &vec![2; aead.key_len()]).unwrap();
                let mut sealed = b"record".to_vec();
                let tag = key.seal_in_place(NONCE, b"header", &mut sealed).unwrap();
                sealed.extend_from_slice(&tag);

                for bit in 0..sealed.len() * 8 {
                    let mut data = sealed.clone();
                    data[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(key.open_in_place(NONCE, b"header", &mut data), Err(OpenFailed));
                }
                let open = |key: &AeadKey, nonce, aad: &[u8], mut data: Vec<u8>| {
                    key.open_in_place(nonce, aad, &mut data)
                };
                assert_eq!(open(&other, NONCE, b"header", sealed.clone()), Err(OpenFailed));
                assert_eq!(open(&key, [8; 12], b"header", sealed.clone()), Err(OpenFailed));
                assert_eq!(open(&key, NONCE, b"Header", sealed.clone()), Err(OpenFailed));
                assert_eq!(open(&key, NONCE, b"header", sealed), Ok(6));
            }
        }
    }

    #[test]
    fn data_shorter_than_a_tag_does_not_open() {
        for provider in providers() {
            let key = provider.aead_key(Aead::Aes128Gcm, &[1; 16]).unwrap();
            for len in 0..=TAG_LEN {
                assert_eq!(key.open_in_place(NONCE, &[], &mut vec![0; len]), Err(OpenFailed));
            }
        }
    }

    #[test]
    fn an_empty_record_seals_and_opens() {
        for provider in providers() {
            let key = provider.aead_key(Aead::ChaCha20Poly1305, &[1; 32]).unwrap();
            let mut tag = key.seal_in_place(NONCE, b"header", &mut []).unwrap();
            assert_eq!(key.open_in_place(NONCE, b"header", &mut tag), Ok(0));
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_rejected() {
        for provider in providers() {
            for (aead, len) in [
                (Aead::Aes128Gcm, 0),
                (Aead::Aes128Gcm, 15),
                (Aead::Aes128Gcm, 32),
                (Aead::ChaCha20Poly1305, 16),
                (Aead::ChaCha20Poly1305, 33),
            ] {
                let error = provider.aead_key(aead, &vec![1; len]).unwrap_err();
                assert_eq!(error, KEY_REJECTED, "{provider:?} {aead:?} {len}");
            }
        }
    }

    #[test]
    fn a_key_is_small_shareable_and_prints_nothing() {
        fn shareable<T: Send + Sync>(_: &T) {}
        for provider in providers() {
            let key = provider.aead_key(Aead::Aes128Gcm, &[0xab; 16]).unwrap();
            shareable(&key);
            assert_eq!(format!("{key:?}"), "AeadKey(..)");
        }
        assert!(size_of::<AeadKey>() <= 32);
    }
}
