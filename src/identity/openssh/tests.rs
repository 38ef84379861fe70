//! With keys that `ssh-keygen` makes and reads.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::*;
use crate::auth::AuthorizedKeys;

/// `None`, and a message, if there is no `ssh-keygen` here.
fn ssh_keygen(arguments: &[&str]) -> Option<String> {
    match Command::new("ssh-keygen").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: ssh-keygen is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A new key, encrypted if the passphrase is not empty.
fn generate(kind: &[&str], passphrase: &str) -> Option<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let file = path.display().to_string();
    let mut arguments = vec!["-q", "-N", passphrase, "-C", "alice@laptop", "-f", &file];
    arguments.extend_from_slice(kind);
    ssh_keygen(&arguments).map(|_| (directory, path))
}

fn no_passphrase() -> Option<Zeroizing<String>> {
    panic!("nobody is to be asked")
}

fn passphrase(text: &str) -> impl FnOnce() -> Option<Zeroizing<String>> {
    let text = Zeroizing::new(text.to_owned());
    || Some(text)
}

/// The public half is the one in the file beside.
fn check(identity: &Identity, path: &Path) {
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    let authorized = AuthorizedKeys::parse(&line).unwrap();
    let found: Vec<_> = authorized.iter().collect();
    assert_eq!(found, [("alice@laptop", identity.public_key())]);
    assert_eq!(identity.key().public_key(), identity.public_key().as_bytes());
}

#[test]
fn keys_of_ssh_keygen_are_read() {
    let Some((_directory, path)) = generate(&["-t", "ecdsa", "-b", "256"], "") else { return };
    check(&Identity::read_openssh_file("alice", &path, no_passphrase).unwrap(), &path);
    let Some((_directory, path)) = generate(&["-t", "ed25519"], "") else { return };
    let identity = Identity::read_openssh_file("alice", &path, no_passphrase).unwrap();
    assert_eq!(identity.name(), "alice");
    check(&identity, &path);
    let pem = fs::read_to_string(&path).unwrap();
    let crlf = format!("\n {}", pem.replace('\n', "\r\n"));
    let again = Identity::from_openssh("alice", &crlf, no_passphrase).unwrap();
    assert_eq!(again.public_key(), identity.public_key());
    let error = Identity::from_openssh("two words", &pem, no_passphrase).unwrap_err();
    assert_eq!(error, ConfigError::IdentityName.into());
}

#[test]
fn encrypted_keys_of_ssh_keygen_are_read() {
    for cipher in ["aes256-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let kind = ["-t", "ed25519", "-Z", cipher, "-a", "2"];
        let Some((_directory, path)) = generate(&kind, "correct horse") else { return };
        let read = |text| Identity::read_openssh_file("alice", &path, passphrase(text));
        check(&read("correct horse").unwrap(), &path);
        for wrong in ["Correct horse", ""] {
            assert_eq!(read(wrong).unwrap_err(), ConfigError::WrongPassphrase.into(), "{cipher}");
        }
        let error = Identity::read_openssh_file("alice", &path, || None).unwrap_err();
        assert!(error.to_string().contains("no passphrase was given"), "{error}");
    }
}

#[test]
fn keys_of_other_kinds_are_refused_before_anybody_is_asked() {
    for (kind, expected) in [
        (&["-t", "rsa", "-b", "2048"][..], "ssh-rsa keys cannot be used"),
        (&["-t", "ecdsa", "-b", "384"], "ecdsa-sha2-nistp384 keys cannot be used"),
    ] {
        for passphrase in ["", "secret"] {
            let Some((_directory, path)) = generate(kind, passphrase) else { return };
            let error =
                Identity::read_openssh_file("alice", &path, no_passphrase).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

#[test]
fn what_is_no_key_of_openssh_is_refused() {
    let identity = Identity::generate("alice").unwrap();
    let pem = identity.to_openssh().unwrap();
    let cut = pem.replacen("AAAA", "AAA", 1);
    // The public key is there twice; its first copy begins in the third line.
    let mut changed = pem.to_string().into_bytes();
    let at = pem.match_indices('\n').nth(1).unwrap().0 + 30;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for text in ["", "key", &identity.to_pkcs8_pem().unwrap(), &cut, &changed] {
        let error = Identity::from_openssh("alice", text, no_passphrase).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Key(_))), "{error}");
    }
}

#[test]
fn a_public_half_of_another_is_refused() {
    let [one, other] = [(); 2].map(|()| {
        Identity::generate_with("alice", SignatureScheme::ECDSA_SECP256R1_SHA256).unwrap()
    });
    let KeypairData::Ecdsa(EcdsaKeypair::NistP256 { private, .. }) = to_pair(one.key()).unwrap()
    else {
        panic!("another kind of key");
    };
    let KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, .. }) = to_pair(other.key()).unwrap()
    else {
        panic!("another kind of key");
    };
    let mixed = KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private });
    let pem = PrivateKey::new(mixed, "").unwrap().to_openssh(LineEnding::LF).unwrap();
    let error = Identity::from_openssh("alice", &pem, no_passphrase).unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[test]
fn a_written_key_is_read_here_and_by_ssh_keygen() {
    let (known, unknown) = SignatureScheme::ALL.split_at(2);
    for scheme in unknown {
        let identity = Identity::generate_with("alice@laptop", *scheme).unwrap();
        for refused in
            [identity.to_openssh().unwrap_err(), identity.authorized_keys_line().unwrap_err()]
        {
            assert!(matches!(refused, Error::Config(ConfigError::Key(_))), "{refused}");
        }
    }
    for scheme in known {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let identity = Identity::generate_with("alice@laptop", *scheme).unwrap();
        identity.write_openssh_file(&path).unwrap();
        let error = identity.write_openssh_file(&path).unwrap_err().to_string();
        assert!(error.contains("overwritten"), "{error}");
        let again = Identity::read_openssh_file("alice", &path, no_passphrase).unwrap();
        assert_eq!(again.public_key(), identity.public_key());
        let line = identity.authorized_keys_line().unwrap();
        assert!(line.ends_with(" alice@laptop"), "{line}");
        let Some(public) = ssh_keygen(&["-y", "-f", path.to_str().unwrap()]) else { return };
        assert_eq!(public.trim_end(), line);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_access_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    Identity::generate("alice").unwrap().write_openssh_file(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::read_openssh_file("alice", &path, no_passphrase).unwrap_err();
    assert!(error.to_string().contains("group or others can access"), "{error}");
}
