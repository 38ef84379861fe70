//! Identities whose keys are in files of OpenSSH (its PROTOCOL.key).

use std::path::Path;

use p256::SecretKey;
use ssh_key::{
    LineEnding, PrivateKey,
    private::{EcdsaKeypair, Ed25519Keypair, KeypairData},
    public::{EcdsaPublicKey, Ed25519PublicKey, KeyData},
};
use zeroize::Zeroizing;

use super::{Identity, PublicKey, check_name, file_error, read_secret_file, write_key_file};
use crate::{
    crypto::{Ed25519Key, P256Key, SignatureKey, SignatureScheme},
    error::{ConfigError, CryptoError, Error},
};

/// The kinds of keys that can be used, as OpenSSH calls them.
pub(crate) const USABLE: [&str; 2] = ["ssh-ed25519", "ecdsa-sha2-nistp256"];

/// The end of a sentence about another kind.
pub(crate) const UNUSABLE: &str = "keys cannot be used, only ssh-ed25519 and ecdsa-sha2-nistp256";

const ENCODING: CryptoError = CryptoError::Internal("OpenSSH encoding");

impl Identity {
    /// Reads the key from the text of a private key file of OpenSSH, as
    /// `ssh-keygen -t ed25519` or `ssh-keygen -t ecdsa` writes it.
    ///
    /// If the key is encrypted, `passphrase` is asked for it; `None` gives up. OpenSSH has made it slow
    /// to try passphrases: this takes a large part of a second. The comment in the key is not used.
    ///
    /// The passphrase and the copies of the key that are made here are erased. Of an encrypted key the
    /// library leaves a copy of the key that encrypts it on the stack, where other calls overwrite it
    /// sooner or later.
    ///
    /// # Errors
    ///
    /// [`ConfigError::IdentityName`] if the name is not allowed, [`ConfigError::WrongPassphrase`], and
    /// [`ConfigError::Key`] if `pem` does not hold a key of Ed25519 or on P-256 in this form, or there
    /// is no passphrase for it.
    pub fn from_openssh(
        name: &str,
        pem: &str,
        passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<Self, Error> {
        check_name(name)?;
        let mut key = PrivateKey::from_openssh(pem.trim_ascii()).map_err(|error| {
            ConfigError::Key(match error {
                ssh_key::Error::AlgorithmUnknown => format!("such {UNUSABLE}"),
                error => format!("not a private key of OpenSSH: {error}"),
            })
        })?;
        // Of an encrypted key, too, the public half can be read.
        let algorithm = key.algorithm();
        if !USABLE.contains(&algorithm.as_str()) {
            return Err(ConfigError::Key(format!("{} {UNUSABLE}", algorithm.as_str())).into());
        }
        if key.is_encrypted() {
            let passphrase = passphrase().ok_or_else(|| {
                ConfigError::Key("it is encrypted, and no passphrase was given".into())
            })?;
            key = key.decrypt(passphrase.as_bytes()).map_err(|error| match error {
                ssh_key::Error::Crypto => ConfigError::WrongPassphrase,
                error => ConfigError::Key(format!("it cannot be decrypted: {error}")),
            })?;
        }
        Self::new(name, from_pair(key.key_data())?)
    }

    /// Reads the key from a private key file of OpenSSH: see [`Identity::from_openssh`].
    ///
    /// On Unix the file must be accessible to its owner alone, as `ssh-keygen` makes it. On other
    /// systems the access is not checked.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read, is no PEM of a plausible size, or is open to
    /// group or others; otherwise as [`Identity::from_openssh`].
    pub fn read_openssh_file(
        name: &str,
        path: impl AsRef<Path>,
        passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let pem = read_secret_file(path)?;
        let pem = str::from_utf8(&pem).map_err(|_| file_error(path, "not a PEM file"))?;
        Self::from_openssh(name, pem, passphrase)
    }

    /// The signing key as a private key file of OpenSSH, with the name as its comment. It is not
    /// encrypted; `ssh-keygen -p` does that.
    ///
    /// The text is wiped when it is dropped.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] for a key of ML-DSA, which OpenSSH does not have; [`Error::Crypto`] if the
    /// encoder fails, which a key of this type gives no reason for.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, Error> {
        PrivateKey::new(to_pair(self.key())?, self.name())
            .and_then(|key| key.to_openssh(LineEnding::LF))
            .map_err(|_| ENCODING.into())
    }

    /// Writes the signing key to a new file, in the form of [`Identity::to_openssh`], and otherwise as
    /// [`Identity::write_pem_file`].
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file exists or cannot be written.
    pub fn write_openssh_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(write_key_file(path.as_ref(), &self.to_openssh()?)?)
    }

    /// The line of this identity's public key in an `authorized_keys` file, with the name as its
    /// comment. There is no line feed at its end.
    ///
    /// # Errors
    ///
    /// As [`Identity::to_openssh`].
    pub fn authorized_keys_line(&self) -> Result<String, Error> {
        let key = ssh_key::PublicKey::new(self.public_key().to_ssh()?, self.name());
        key.to_openssh().map_err(|_| ENCODING.into())
    }
}

impl PublicKey {
    /// The form of OpenSSH.
    fn to_ssh(&self) -> Result<KeyData, Error> {
        let key = match self.scheme() {
            SignatureScheme::ED25519 => {
                Ed25519PublicKey::try_from(self.as_bytes()).map(KeyData::Ed25519)
            }
            SignatureScheme::ECDSA_SECP256R1_SHA256 => {
                EcdsaPublicKey::from_sec1_bytes(self.as_bytes()).map(KeyData::Ecdsa)
            }
            #[cfg(feature = "post-quantum")]
            _ => return Err(no_such_key()),
        };
        key.map_err(|_| ENCODING.into())
    }

    /// The key, if OpenSSH's is one that can be used here.
    pub(crate) fn from_ssh(key: &KeyData) -> Option<Self> {
        let (scheme, bytes) = match key {
            KeyData::Ed25519(key) => (SignatureScheme::ED25519, &key.0[..]),
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP256(_)) => {
                (SignatureScheme::ECDSA_SECP256R1_SHA256, key.as_sec1_bytes())
            }
            _ => return None,
        };
        Self::new(scheme, bytes).ok()
    }
}

fn from_pair(pair: &KeypairData) -> Result<SignatureKey, Error> {
    const FAILED: CryptoError = CryptoError::Internal("OpenSSH decoding");
    match pair {
        // The library has compared the two halves.
        KeypairData::Ed25519(pair) => {
            Ok(SignatureKey::Ed25519(Ed25519Key::from_seed(pair.private.as_ref())?))
        }
        KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
            let secret = SecretKey::from_slice(private.as_slice())
                .map_err(|_| ConfigError::Key("not a key on P-256".into()))?;
            let key = P256Key::new(&secret)?;
            if public.as_bytes() != key.public_key() {
                let reason = "the public key does not belong to the private key";
                return Err(ConfigError::Key(reason.into()).into());
            }
            Ok(SignatureKey::P256(key))
        }
        _ => Err(FAILED.into()),
    }
}

fn to_pair(key: &SignatureKey) -> Result<KeypairData, Error> {
    match key {
        SignatureKey::Ed25519(key) => {
            Ok(KeypairData::Ed25519(Ed25519Keypair::from_seed(key.seed())))
        }
        SignatureKey::P256(key) => {
            let secret = SecretKey::from_slice(&*key.scalar()).map_err(|_| ENCODING)?;
            let public = secret.public_key().into();
            Ok(KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private: secret.into() }))
        }
        #[cfg(feature = "post-quantum")]
        SignatureKey::MlDsa(_) => Err(no_such_key()),
    }
}

#[cfg(feature = "post-quantum")]
fn no_such_key() -> Error {
    ConfigError::Key("OpenSSH has no keys of ML-DSA".into()).into()
}

#[cfg(test)]
mod tests;
