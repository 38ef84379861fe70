//! The providers against each other, in both directions, on random inputs.

use proptest::{collection::vec, prelude::*};

use super::*;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn hashes_and_key_derivations_agree(
        key in bytes(200), data in bytes(300), prk in vec(any::<u8>(), 64), len in 0_usize..300,
    ) {
        for (a, b) in pairs() {
            for hash in HASHES {
                prop_assert_eq!(
                    OpenMlsCrypto::hash(&a, hash, &data),
                    OpenMlsCrypto::hash(&b, hash, &data)
                );
                prop_assert_eq!(a.hmac(hash, &key, &data), b.hmac(hash, &key, &data));
                prop_assert_eq!(
                    a.hkdf_extract(hash, &key, &data),
                    b.hkdf_extract(hash, &key, &data)
                );
                let prk = &prk[..hash.size()];
                let okm = a.hkdf_expand(hash, prk, &data, len).unwrap();
                prop_assert_eq!(okm.as_slice().len(), len);
                prop_assert_eq!(okm, b.hkdf_expand(hash, prk, &data, len).unwrap());
            }
        }
    }

    #[test]
    fn aeads_open_what_the_other_sealed(
        key in vec(any::<u8>(), 32), nonce in any::<[u8; 12]>(), aad in bytes(100),
        data in bytes(300), flip in any::<prop::sample::Index>(),
    ) {
        for (a, b) in pairs() {
            for aead in AEADS {
                let key = &key[..aead.key_size()];
                let mut sealed = a.aead_encrypt(aead, key, &data, &nonce, &aad).unwrap();
                let opened = b.aead_decrypt(aead, key, &sealed, &nonce, &aad);
                prop_assert_eq!(opened.as_ref(), Ok(&data));
                let bit = flip.index(sealed.len() * 8);
                sealed[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(
                    b.aead_decrypt(aead, key, &sealed, &nonce, &aad),
                    Err(CryptoError::AeadDecryptionError)
                );
            }
        }
    }

    #[test]
    fn record_keys_open_what_the_other_sealed(
        key in vec(any::<u8>(), 32), nonce in any::<[u8; 12]>(), header in any::<[u8; 5]>(),
        data in bytes(2000),
    ) {
        for (a, b) in pairs() {
            for suite in CipherSuite::ALL {
                let aead = suite.aead();
                let key = &key[..aead.key_len()];
                let (sealing, opening) =
                    (a.aead_key(aead, key).unwrap(), b.aead_key(aead, key).unwrap());
                let mut record = data.clone();
                let tag = sealing.seal_in_place(nonce, &header, &mut record).unwrap();
                record.extend_from_slice(&tag);
                let len = opening.open_in_place(nonce, &header, &mut record);
                prop_assert_eq!(len, Ok(data.len()));
                prop_assert_eq!(&record[..data.len()], &data[..]);
            }
        }
    }

    #[test]
    fn signatures_verify_with_the_other(
        message in bytes(300), flip in any::<prop::sample::Index>(),
    ) {
        for (a, b) in pairs() {
            for &scheme in SCHEMES {
                let (private, public) = a.signature_key_gen(scheme).unwrap();
                for signature in
                    [a.sign(scheme, &message, &private), b.sign(scheme, &message, &private)]
                {
                    let mut signature = signature.unwrap();
                    for verifier in [&a, &b] {
                        let verify = |public: &[u8], signature: &[u8]| {
                            verifier.verify_signature(scheme, &message, public, signature)
                        };
                        prop_assert_eq!(verify(&public, &signature), Ok(()));
                        let (_, other) = a.signature_key_gen(scheme).unwrap();
                        prop_assert!(verify(&other, &signature).is_err());
                    }
                    let bit = flip.index(signature.len() * 8);
                    signature[bit / 8] ^= 1 << (bit % 8);
                    prop_assert!(
                        b.verify_signature(scheme, &message, &public, &signature).is_err()
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn hpke_keys_messages_and_exports_agree(
        ikm in vec(any::<u8>(), 32..100), info in bytes(600), aad in bytes(100),
        data in bytes(300), flip in any::<prop::sample::Index>(), len in 1_usize..200,
    ) {
        for (a, b) in pairs() {
            for config in hpke_configs() {
                let pair = a.derive_hpke_keypair(config(), &ikm).unwrap();
                let same = b.derive_hpke_keypair(config(), &ikm).unwrap();
                prop_assert_eq!(&*pair.private, &*same.private);
                prop_assert_eq!(&pair.public, &same.public);
                let (sk, pk) = (&pair.private, &pair.public);

                let sealed = a.hpke_seal(config(), pk, &info, &aad, &data).unwrap();
                let open = |sealed: &HpkeCiphertext, sk: &[u8], info: &[u8], aad: &[u8]| {
                    b.hpke_open(config(), sealed, sk, info, aad)
                };
                let opened = open(&sealed, sk, &info, &aad);
                prop_assert_eq!(opened.as_ref(), Ok(&data));
                let other = a.derive_hpke_keypair(config(), &data).unwrap();
                prop_assert!(open(&sealed, &other.private, &info, &aad).is_err());
                prop_assert!(open(&sealed, sk, b"other", &aad).is_err());
                prop_assert!(open(&sealed, sk, &info, b"other").is_err());
                let mut changed = sealed.ciphertext.as_slice().to_vec();
                let bit = flip.index(changed.len() * 8);
                changed[bit / 8] ^= 1 << (bit % 8);
                let changed = HpkeCiphertext { ciphertext: changed.into(), ..sealed };
                prop_assert!(open(&changed, sk, &info, &aad).is_err());

                let (enc, sent) =
                    a.hpke_setup_sender_and_export(config(), pk, &info, &aad, len).unwrap();
                let received = b
                    .hpke_setup_receiver_and_export(config(), &enc, sk, &info, &aad, len)
                    .unwrap();
                prop_assert_eq!(sent.len(), len);
                prop_assert_eq!(&*sent, &*received);
            }
        }
    }
}
