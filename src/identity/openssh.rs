//! Identities whose keys are in files of OpenSSH (its PROTOCOL.key).

use std::path::Path;

use ssh_key::{
    Algorithm, LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
    public,
};
use zeroize::Zeroizing;

use super::{Identity, PublicKey, check_name, file_error, read_secret_file, write_key_file};
use crate::{
    crypto::{Ed25519Key, SignatureKey, SignatureScheme},
    error::{ConfigError, CryptoError, Error},
};

impl Identity {
    /// Reads the key from the text of a private key file of OpenSSH, as
    /// `ssh-keygen -t ed25519` writes it.
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
    /// [`ConfigError::Key`] if `pem` does not hold an Ed25519 key of this form, or there is no
    /// passphrase for it.
    pub fn from_openssh(
        name: &str,
        pem: &str,
        passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<Self, Error> {
        check_name(name)?;
        let mut key = PrivateKey::from_openssh(pem.trim_ascii()).map_err(|error| {
            ConfigError::Key(match error {
                ssh_key::Error::AlgorithmUnknown => {
                    "keys of this kind cannot be used, only ssh-ed25519".into()
                }
                error => format!("not a private key of OpenSSH: {error}"),
            })
        })?;
        // Of an encrypted key, too, the public half can be read.
        if key.algorithm() != Algorithm::Ed25519 {
            let reason =
                format!("{} keys cannot be used, only ssh-ed25519", key.algorithm().as_str());
            return Err(ConfigError::Key(reason).into());
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
        // The library has compared the two halves.
        let pair = key.key_data().ed25519().ok_or(CryptoError::Internal("OpenSSH decoding"))?;
        Self::new(name, SignatureKey::Ed25519(Ed25519Key::from_seed(pair.private.as_ref())?))
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
    /// [`ConfigError::Key`] if the key is not one of Ed25519.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, Error> {
        let SignatureKey::Ed25519(key) = self.key() else {
            return Err(only_ed25519());
        };
        let pair = Ed25519Keypair::from_seed(key.seed());
        PrivateKey::new(KeypairData::from(pair), self.name())
            .and_then(|key| key.to_openssh(LineEnding::LF))
            .map_err(|_| CryptoError::Internal("OpenSSH encoding").into())
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
        key.to_openssh().map_err(|_| CryptoError::Internal("OpenSSH encoding").into())
    }
}

impl PublicKey {
    /// The form of OpenSSH.
    fn to_ssh(&self) -> Result<public::KeyData, Error> {
        if self.scheme() != SignatureScheme::ED25519 {
            return Err(only_ed25519());
        }
        public::Ed25519PublicKey::try_from(self.as_bytes())
            .map(public::KeyData::Ed25519)
            .map_err(|_| CryptoError::Internal("OpenSSH encoding").into())
    }

    /// The key, if OpenSSH's is one that can be used here.
    pub(crate) fn from_ssh(key: &public::KeyData) -> Option<Self> {
        Self::from_bytes(&key.ed25519()?.0).ok()
    }
}

fn only_ed25519() -> Error {
    ConfigError::Key("only keys of Ed25519 have this form".into()).into()
}

#[cfg(test)]
mod tests;
