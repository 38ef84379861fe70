use base64::{Engine, engine::general_purpose};

use super::*;

/// Written by `openssl genpkey -algorithm ED25519` (OpenSSL 3.0), with what OpenSSL says of it.
const OPENSSL_PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFIx5ivfcjzobqimFHGXYEQdfcwpdGoeexae/J6okjaS
-----END PRIVATE KEY-----
";
const OPENSSL_PUBLIC: &str = "mTRWQm40XwAvaQRfpNQ1/91VDOoBsoiD+NxoVQkhDj8=";
const OPENSSL_FINGERPRINT: &str = "SHA256:3U1h9ywOwRBjzJABCjozJQr27d9TBb4yisN4LKofcaE";

/// RFC 8410, section 10.3: an example key and, from section 10.1, its public half.
const RFC_8410_V1: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const RFC_8410_PUBLIC: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

/// Written by `openssl ecparam -name prime256v1 -genkey -noout`, and turned into PKCS#8 by
/// `openssl pkcs8 -topk8 -nocrypt`, which `openssl genpkey` writes at once.
const P256_SEC1_PEM: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIL6AYXbqyVUCZC3OowYR0u7E6c6tFC40YLBCzDd31S88oAoGCCqGSM49
AwEHoUQDQgAErRpjyYZg8hIHP+mP8VB7oXDpcYFkoh4wdpD83Hgq4lX0p8jWG+fW
V9EJos4I7ItXEFxPjiPdnhxURp8TDOK9HA==
-----END EC PRIVATE KEY-----
";
const P256_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvoBhdurJVQJkLc6j
BhHS7sTpzq0ULjRgsELMN3fVLzyhRANCAAStGmPJhmDyEgc/6Y/xUHuhcOlxgWSi
HjB2kPzceCriVfSnyNYb59ZX0Qmizgjsi1cQXE+OI92eHFRGnxMM4r0c
-----END PRIVATE KEY-----
";
/// What `openssl ec -pubout` and `sha256sum` say of it.
const P256_PUBLIC: &str =
    "BK0aY8mGYPISBz/pj/FQe6Fw6XGBZKIeMHaQ/Nx4KuJV9KfI1hvn1lfRCaLOCOyLVxBcT44j3Z4cVEafEwzivRw=";
const P256_FINGERPRINT: &str = "SHA256:k8wjG4+BgYsMJbARpdHTA04Mqzx6XfVmHHT00ayreKQ";

const P384_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCTr8gyy9QwbSX66H7/
CiWNkUsp/96OJIswMgXKA4Itp+St6Q3avDWYma1+TkuSxnqhZANiAATl1dqx2VJB
uDfNwHSIg11AvLkbimLCSvhytsNquXQQZe5TYss8ZEcMWZD1c/l2/HhDaEQPn9RR
081riq8vwUyU9al1FZm9693ZiS8MTbA5Z0UxXizC3Qe6bSOVimiy4Mg=
-----END PRIVATE KEY-----
";
const X25519_PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIFiloIIbteDXBvV4R0ZtmV6mYSmkFmY/B55VLtbbAWhr
-----END PRIVATE KEY-----
";
const ENCRYPTED_PEM: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhJrWhvn0VhxAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEBaM09YQReZyNIWeCZZuCfsEQLzr
j3g5fR8ymMJ5fbwMxOAdQ6+bMlBm+80CLDrlDqfubfw5EjaXYERqIvuhblAgPTCo
pUxdH7GWTxk25ItnYxU=
-----END ENCRYPTED PRIVATE KEY-----
";

fn openssl_identity() -> Identity {
    Identity::from_pkcs8_pem("alice", OPENSSL_PEM).unwrap()
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn reason(result: Result<impl fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Config(ConfigError::File { reason, .. })) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn generated_identities_have_different_keys() {
    let alice = Identity::generate("alice").unwrap();
    let bob = Identity::generate("bob").unwrap();
    assert_eq!(alice.name(), "alice");
    assert_ne!(alice.public_key(), bob.public_key());
    assert_eq!(alice.key().public_key(), alice.public_key().as_bytes());
}

#[test]
fn name_must_fit_a_line() {
    for name in ["", "two words", "line\nfeed", "nul\0", "#comment", &"a".repeat(256)] {
        let expected = Error::Config(ConfigError::IdentityName);
        assert_eq!(Identity::generate(name).unwrap_err(), expected, "{name:?}");
        assert_eq!(Identity::from_pkcs8_pem(name, OPENSSL_PEM).unwrap_err(), expected, "{name:?}");
    }
    assert!(Identity::generate(&"a".repeat(255)).is_ok());
}

#[test]
fn pem_of_openssl_is_read_and_written_alike() {
    let alice = openssl_identity();
    assert_eq!(alice.public_key().to_base64(), OPENSSL_PUBLIC);
    assert_eq!(alice.public_key().fingerprint(), OPENSSL_FINGERPRINT);
    assert_eq!(alice.public_line(), format!("alice {OPENSSL_PUBLIC}"));
    assert_eq!(alice.to_pkcs8_pem().unwrap().as_str(), OPENSSL_PEM);
}

#[test]
fn keys_on_p256_of_openssl_are_read_and_written_alike() {
    let alice = Identity::from_pkcs8_pem("alice", P256_PEM).unwrap();
    let key = alice.public_key();
    assert_eq!(key.scheme(), SignatureScheme::ECDSA_SECP256R1_SHA256);
    assert_eq!(key.to_base64(), P256_PUBLIC);
    assert_eq!(key.fingerprint(), P256_FINGERPRINT);
    assert_eq!(alice.public_line(), format!("alice ecdsa_secp256r1_sha256 {P256_PUBLIC}"));
    assert_eq!(alice.to_pkcs8_pem().unwrap().as_str(), P256_PEM);
    let older = Identity::from_pkcs8_pem("alice", P256_SEC1_PEM).unwrap();
    assert_eq!(older.public_key(), key);
}

#[test]
fn a_pem_with_more_than_the_key_says_so() {
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for pem in [
        // As `openssl ecparam -genkey` writes it without `-noout`.
        format!("{parameters}{P256_SEC1_PEM}"),
        format!("{OPENSSL_PEM}{parameters}"),
        format!("{OPENSSL_PEM}{OPENSSL_PEM}"),
    ] {
        let error = Identity::from_pkcs8_pem("alice", &pem).unwrap_err();
        assert!(error.to_string().contains("more than one section"), "{error}");
    }
}

/// Written by `openssl ecparam -genkey -noout` and `openssl ec -no_public`: on secp256k1 and on P-256.
#[test]
fn a_key_on_another_curve_is_not_taken_for_one_on_p256() {
    let other = "-----BEGIN EC PRIVATE KEY-----\n\
                 MC4CAQEEIMd62gTZtOtonSUCSJ4DniJtWHVHn20cZKYwTiiL4DMNoAcGBSuBBAAK\n\
                 -----END EC PRIVATE KEY-----\n";
    let error = Identity::from_pkcs8_pem("alice", other).unwrap_err();
    assert!(error.to_string().contains("1.3.132.0.10"), "{error}");
    let right = "-----BEGIN EC PRIVATE KEY-----\n\
                 MDECAQEEINzzCSKJVWUSqnPBQ71O9T97ShpA/9yzqd9JA3ztCPKmoAoGCCqGSM49\n\
                 AwEH\n\
                 -----END EC PRIVATE KEY-----\n";
    assert!(Identity::from_pkcs8_pem("alice", right).is_ok());
}

#[test]
fn a_key_on_p256_with_the_public_key_of_another_is_refused() {
    // The public key of the example in RFC 5903, section 8.1, in the place of its own.
    let other = "2rC2OVoJEFZGe+NaVy5JfDcBBNXlLYdA5o8MUoWcqLj0zRJDI1Uy7zF5Iyi1vqKdHI8rF3lWeaPrr/\
                 L7hKUN8Q==";
    let bytes = |text: &str| general_purpose::STANDARD.decode(text.replace('\n', "")).unwrap();
    let body: String = P256_PEM.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = bytes(&body);
    let start = der.len() - 64;
    der[start..].copy_from_slice(&bytes(other));
    let body = general_purpose::STANDARD.encode(&der);
    let lines: Vec<_> =
        body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let error = Identity::from_pkcs8_pem("alice", &pem).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::Key(_))), "{error}");
}

#[cfg(feature = "post-quantum")]
const ML_DSA: [SignatureScheme; 3] =
    [SignatureScheme::MLDSA44, SignatureScheme::MLDSA65, SignatureScheme::MLDSA87];

/// The seed of its examples: 00 01 .. 1f.
#[cfg(feature = "post-quantum")]
#[test]
fn seeds_of_ml_dsa_are_read_and_written_as_in_rfc_9881() {
    for (number, scheme) in ML_DSA.into_iter().enumerate() {
        let mut der = general_purpose::STANDARD
            .decode("MDQCAQAwCwYJYIZIAWUDBAMRBCKAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f")
            .unwrap();
        der[17] += u8::try_from(number).unwrap();
        let text = general_purpose::STANDARD.encode(&der);
        let (first, second) = text.split_at(64);
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{first}\n{second}\n-----END PRIVATE KEY-----\n");
        let alice = Identity::from_pkcs8_pem("alice", &pem).unwrap();
        assert_eq!(alice.public_key().scheme(), scheme);
        assert_eq!(alice.to_pkcs8_pem().unwrap().as_str(), pem);
        let expected: Vec<u8> = (0..32).collect();
        assert_eq!(alice.key().secret().as_slice(), expected);
        #[cfg(feature = "aws-lc")]
        {
            use aws_lc_rs::signature::{self, KeyPair as _, PqdsaKeyPair};
            let algorithm = match scheme {
                SignatureScheme::MLDSA44 => &signature::ML_DSA_44_SIGNING,
                SignatureScheme::MLDSA65 => &signature::ML_DSA_65_SIGNING,
                _ => &signature::ML_DSA_87_SIGNING,
            };
            let pair = PqdsaKeyPair::from_pkcs8(algorithm, &der).unwrap();
            assert_eq!(pair.public_key().as_ref(), alice.public_key().as_bytes());
        }
    }
}

/// As OpenSSL 3.5 writes it: the seed, and the expanded key beside it.
#[cfg(feature = "post-quantum")]
#[test]
fn a_seed_of_ml_dsa_has_to_fit_the_expanded_key_beside_it() {
    for scheme in ML_DSA {
        let alice = Identity::generate_with("alice", scheme).unwrap();
        let SignatureKey::MlDsa(key) = alice.key() else { panic!("{scheme}") };
        let expanded = key.expanded().unwrap();
        let sequence = |tag: &[u8], length: usize| {
            [tag, &u16::try_from(length).unwrap().to_be_bytes()].concat()
        };
        let both = |seed: &[u8], expanded: &[u8]| {
            let keys = [&[4, 32], seed, &sequence(&[4, 0x82], expanded.len()), expanded].concat();
            let keys = [sequence(&[0x30, 0x82], keys.len()), keys].concat();
            let algorithm = [
                &[2, 1, 0, 0x30, 0x0b, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3][..],
                &[match scheme {
                    SignatureScheme::MLDSA44 => 0x11,
                    SignatureScheme::MLDSA65 => 0x12,
                    _ => 0x13,
                }],
            ]
            .concat();
            let body = [algorithm, sequence(&[4, 0x82], keys.len()), keys].concat();
            let der = [sequence(&[0x30, 0x82], body.len()), body].concat();
            let text = general_purpose::STANDARD.encode(der);
            let lines: Vec<_> =
                text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
            format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                lines.join("\n")
            )
        };
        let read = |pem: &str| Identity::from_pkcs8_pem("alice", pem);
        let pem = both(key.seed(), &expanded);
        assert_eq!(read(&pem).unwrap().public_key(), alice.public_key());
        let mut other = expanded.to_vec();
        other[100] ^= 1;
        for pem in [
            both(key.seed(), &other),
            both(&[7; 32], &expanded),
            both(&key.seed()[..31], &expanded),
            both(key.seed(), &expanded[..100]),
        ] {
            let error = read(&pem).unwrap_err();
            assert!(matches!(error, Error::Config(ConfigError::Key(_))), "{error}");
        }
    }
}

#[test]
fn identities_of_every_scheme_survive_their_file() {
    let directory = tempfile::tempdir().unwrap();
    for scheme in SignatureScheme::ALL {
        let path = directory.path().join(scheme.name());
        let alice = Identity::generate_with("alice", *scheme).unwrap();
        assert_eq!(alice.public_key().scheme(), *scheme);
        alice.write_pem_file(&path).unwrap();
        let again = Identity::read_pem_file("alice", &path).unwrap();
        assert_eq!(again.public_key(), alice.public_key());
        assert_eq!(again.key().secret(), alice.key().secret());
    }
}

#[test]
fn pem_of_rfc_8410_is_read() {
    let alice = Identity::from_pkcs8_pem("alice", RFC_8410_V1).unwrap();
    assert_eq!(alice.public_key().to_base64(), RFC_8410_PUBLIC);
}

#[test]
fn pem_of_version_2_is_read() {
    use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};

    let seed = openssl_identity().key().secret().as_slice().try_into().unwrap();
    let key = SigningKey::from_bytes(&seed);
    let pem = key.to_pkcs8_pem(Default::default()).unwrap();
    assert_ne!(pem.as_str(), OPENSSL_PEM); // it has the public key inside
    let alice = Identity::from_pkcs8_pem("alice", &pem).unwrap();
    assert_eq!(alice.public_key().to_base64(), OPENSSL_PUBLIC);
}

#[test]
fn version_2_with_the_public_key_of_another_is_refused() {
    use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes, PublicKeyBytes};

    let other = Identity::generate("bob").unwrap().public_key().as_bytes().try_into().unwrap();
    let secret_key = openssl_identity().key().secret().as_slice().try_into().unwrap();
    let pair = KeypairBytes { secret_key, public_key: Some(PublicKeyBytes(other)) };
    let pem = pair.to_pkcs8_pem(Default::default()).unwrap();
    let error = Identity::from_pkcs8_pem("alice", &pem).unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[test]
fn pem_with_other_line_ends_or_space_around_is_read() {
    let crlf = OPENSSL_PEM.replace('\n', "\r\n");
    for pem in [crlf, format!("\n  \n{OPENSSL_PEM}"), OPENSSL_PEM.trim_end().to_owned()] {
        let alice = Identity::from_pkcs8_pem("alice", &pem).unwrap();
        assert_eq!(alice.public_key().to_base64(), OPENSSL_PUBLIC, "{pem:?}");
    }
}

#[test]
fn what_is_no_plain_key_is_refused() {
    let cut = OPENSSL_PEM.replace("kjaS", "kja=");
    let public = OPENSSL_PEM.replace("PRIVATE", "PUBLIC");
    let (p256_cut, p256_public) =
        (P256_PEM.replace("4r0c", "4r0="), P256_PEM.replace("PRIVATE", "PUBLIC"));
    for pem in
        ["", "secret", P384_PEM, X25519_PEM, ENCRYPTED_PEM, &cut, &public, &p256_cut, &p256_public]
    {
        let error = Identity::from_pkcs8_pem("alice", pem).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Key(_))), "{pem}: {error}");
    }
}

#[test]
fn written_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    openssl_identity().write_pem_file(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), OPENSSL_PEM);
    assert_eq!(files_in(directory.path()), ["alice.pem"]);
    let alice = Identity::read_pem_file("alice", &path).unwrap();
    assert_eq!(alice.public_key().to_base64(), OPENSSL_PUBLIC);
}

#[test]
fn file_that_exists_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    fs::write(&path, "the only copy").unwrap();
    let reason = reason(openssl_identity().write_pem_file(&path));
    assert!(reason.contains("exists"), "{reason}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "the only copy");
    assert_eq!(files_in(directory.path()), ["alice.pem"]);
}

#[test]
fn one_of_many_writers_wins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    let results: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let alice = Identity::generate("alice").unwrap();
                    alice.write_pem_file(&path).map(|()| alice.public_key().clone())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let winners: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    let alice = Identity::read_pem_file("alice", &path).unwrap();
    assert_eq!(winners, [alice.public_key().clone()]);
    assert_eq!(files_in(directory.path()), ["alice.pem"]);
}

#[test]
fn path_that_cannot_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let alice = openssl_identity();
    for path in [directory.path().join("missing/alice.pem"), directory.path().join("..")] {
        reason(alice.write_pem_file(path));
    }
    assert!(files_in(directory.path()).is_empty());
}

#[test]
fn directory_of_a_bare_file_name_is_the_current_one() {
    assert_eq!(directory_of(Path::new("alice.pem")), Path::new("."));
    assert_eq!(directory_of(Path::new("keys/alice.pem")), Path::new("keys"));
    assert_eq!(directory_of(Path::new("/alice.pem")), Path::new("/"));
}

#[cfg(unix)]
#[test]
fn file_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    // Before the first byte is in it.
    let (file, _temporary) = TemporaryFile::create(&path).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    openssl_identity().write_pem_file(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[cfg(unix)]
#[test]
fn file_that_others_can_access_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    openssl_identity().write_pem_file(&path).unwrap();
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let reason = reason(Identity::read_pem_file("alice", &path));
        assert!(reason.contains("group or others can access"), "{mode:o}: {reason}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(Identity::read_pem_file("alice", &path).is_ok(), "{mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn dangling_link_is_not_written_through() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    std::os::unix::fs::symlink("elsewhere.pem", &path).unwrap();
    let reason = reason(openssl_identity().write_pem_file(&path));
    assert!(reason.contains("exists"), "{reason}");
    assert_eq!(files_in(directory.path()), ["alice.pem"]);
}

#[test]
fn file_that_is_no_key_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.pem");
    reason(Identity::read_pem_file("alice", &path));
    let long = OPENSSL_PEM.repeat(200);
    for (content, expected) in [(&b"\xff\xfe"[..], "not a PEM"), (long.as_bytes(), "too long")] {
        let _ = fs::remove_file(&path);
        write_new_secret_file(&path, content).unwrap();
        let reason = reason(Identity::read_pem_file("alice", &path));
        assert!(reason.contains(expected), "{reason}");
    }
}

// CH-07
#[test]
fn debug_shows_no_secret() {
    let alice = openssl_identity();
    assert_eq!(
        format!("{alice:?}"),
        format!("Identity {{ name: \"alice\", public_key: {OPENSSL_PUBLIC}, .. }}")
    );
}

#[test]
fn clone_shares_the_key() {
    let alice = Identity::generate("alice").unwrap();
    assert!(std::ptr::eq(alice.key(), alice.clone().key()));
}

#[test]
fn public_key_has_32_bytes() {
    for length in [0, 31, 33, 64] {
        let error = PublicKey::from_bytes(&vec![1; length]).unwrap_err();
        assert!(matches!(error, ConfigError::Key(_)), "{error}");
    }
    let key = PublicKey::from_bytes(&[1; 32]).unwrap();
    assert_eq!(key.as_bytes(), [1; 32]);
}

#[test]
fn a_public_key_of_another_scheme_has_its_form() {
    let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
    let key: PublicKey = format!("ecdsa_secp256r1_sha256 {P256_PUBLIC}").parse().unwrap();
    assert_eq!(PublicKey::new(scheme, key.as_bytes()), Ok(key.clone()));
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    let ed25519: PublicKey = format!("ed25519 {OPENSSL_PUBLIC}").parse().unwrap();
    assert_eq!(ed25519.to_string(), OPENSSL_PUBLIC);
    assert_eq!(OPENSSL_PUBLIC.parse(), Ok(ed25519));

    let compressed = [&[2][..], &key.as_bytes()[1..33]].concat();
    let hybrid = [&[6][..], &key.as_bytes()[1..]].concat();
    for bytes in [&[][..], &[4; 64], &[4; 66], &[1; 32], &compressed, &hybrid] {
        let error = PublicKey::new(scheme, bytes).unwrap_err();
        assert!(matches!(error, ConfigError::Key(_)), "{error}");
    }
    for text in [
        P256_PUBLIC,
        "ecdsa_secp256r1_sha256",
        "rsa_pss_pss_sha256 AAAA",
        &format!("ecdsa_secp256r1_sha256 {OPENSSL_PUBLIC}"),
        &format!("ed25519 {P256_PUBLIC}"),
        &format!("ecdsa_secp256r1_sha256  {P256_PUBLIC}"),
        &format!("ecdsa_secp256r1_sha256 {P256_PUBLIC} "),
    ] {
        let error = text.parse::<PublicKey>().unwrap_err();
        assert!(matches!(error, ConfigError::Key(_)), "{text:?}: {error}");
    }
}

#[test]
fn public_key_has_one_base64_form() {
    let key = PublicKey::from_base64(OPENSSL_PUBLIC).unwrap();
    assert_eq!(key.to_base64(), OPENSSL_PUBLIC);
    assert_eq!(format!("{key:?}"), OPENSSL_PUBLIC);
    assert_eq!(PublicKey::from_bytes(key.as_bytes()), Ok(key));
    let unpadded = OPENSSL_PUBLIC.trim_end_matches('=');
    let other_tail = OPENSSL_PUBLIC.replace("j8=", "j9=");
    let url_safe = OPENSSL_PUBLIC.replace('/', "_");
    for text in ["", "AAAA", unpadded, &other_tail, &url_safe, &format!("{OPENSSL_PUBLIC}\n")] {
        let error = PublicKey::from_base64(text).unwrap_err();
        assert!(matches!(error, ConfigError::Key(_)), "{text:?}: {error}");
    }
}
