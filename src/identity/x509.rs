//! An identity with certificates.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use super::{Identity, file_error, read_secret_file};
use crate::{
    certificate,
    error::{ConfigError, CryptoError, Error},
    wire::encode_certificates,
};

/// A file with certificates is far smaller than this, in bytes.
const MAX_CHAIN_PEM_LEN: usize = 256 * 1024;

/// With certificates, of the feature `x509`.
impl Identity {
    /// An identity with an X.509 credential (RFC 9420, section 5.3), from its certificates and its key
    /// in PEM.
    ///
    /// The first certificate is the identity's own, for the public half of the key. Those of the
    /// authorities that lead from it to a root follow; the root may be left out. At most 16
    /// certificates, of 64 KiB together. The key is read as [`Identity::from_pkcs8_pem`] reads it.
    ///
    /// The identity's name is the first subject alternative name that is a DNS name, a mailbox, a URI
    /// or an IP address, or the common name if the certificate has no such extension. Peers may know
    /// it by another name in the certificate. Whether the certificates are valid, peers decide.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Certificate`] if there is no certificate, the first one does not parse, is for
    /// another key or has no name, or if there are too many; [`ConfigError::Key`] as
    /// [`Identity::from_pkcs8_pem`].
    pub fn from_x509_pem(certificates: &str, key: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::from(ConfigError::Certificate(reason));
        let chain: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
        let chain = chain.map_err(|error| invalid(format!("not a PEM: {error}")))?;
        let own =
            chain.first().ok_or_else(|| invalid("there is no certificate in the PEM".into()))?;
        let end_entity =
            EndEntityCert::try_from(own).map_err(|error| invalid(error.to_string()))?;
        let name = certificate::names(own)
            .into_iter()
            .next()
            .ok_or_else(|| invalid("it has no name that can be used".into()))?;
        let mut identity = Self::from_pkcs8_pem(&name, key)?;
        if !certificate::certifies(&end_entity, identity.public_key()) {
            return Err(invalid("it is for another key".into()));
        }
        let chain: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_vec()).collect();
        let encoded = encode_certificates(&chain)
            .ok_or_else(|| invalid("there are more than 16, or more than 64 KiB of them".into()))?;
        Arc::get_mut(&mut identity.inner)
            .ok_or(CryptoError::Internal("an identity that nobody shares"))?
            .certificates = Some(encoded);
        Ok(identity)
    }

    /// An identity with an X.509 credential, from a file with its certificates and one with its key.
    ///
    /// On Unix the file with the key must be accessible to its owner alone.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if a file cannot be read, is no PEM of a plausible size, or if the one
    /// with the key is open to group or others; otherwise as [`Identity::from_x509_pem`].
    pub fn read_x509_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let (path, key_path) = (certificates.as_ref(), key.as_ref());
        // The key may be in the same file. A text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_CHAIN_PEM_LEN + 64));
        let file = File::open(path).map_err(|error| file_error(path, error))?;
        let read = file.take(MAX_CHAIN_PEM_LEN as u64 + 1).read_to_string(&mut text);
        read.map_err(|error| file_error(path, error))?;
        if text.len() > MAX_CHAIN_PEM_LEN {
            return Err(file_error(path, "too long for a file with certificates").into());
        }
        let key = read_secret_file(key_path)?;
        let key = str::from_utf8(&key).map_err(|_| file_error(key_path, "not a PEM file"))?;
        Self::from_x509_pem(&text, key)
    }
}

#[cfg(test)]
impl Identity {
    /// The certificates of this identity with the key of another one.
    pub(crate) fn with_key_of(self, other: &Self) -> Self {
        let key = other.to_pkcs8_pem().unwrap();
        let mut identity = Self::from_pkcs8_pem(self.name(), &key).unwrap();
        let inner = Arc::get_mut(&mut identity.inner).unwrap();
        inner.certificates = self.inner.certificates.clone();
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certificate::tests::{Authority, der, named},
        wire::decode_certificates,
    };

    fn certified() -> (String, String) {
        let key = Identity::generate("key").unwrap();
        let middle = Authority::root("root").intermediate("middle");
        let chain = middle.certificates(&named(&["Alice.example", "192.0.2.1"]), &key);
        (chain, key.to_pkcs8_pem().unwrap().to_string())
    }

    #[test]
    fn a_credential_has_the_certificates_in_their_order() {
        let (chain, key) = certified();
        let identity = Identity::from_x509_pem(&chain, &key).unwrap();
        assert_eq!(identity.name(), "alice.example");
        assert_eq!(identity.to_pkcs8_pem().unwrap().as_str(), key);
        let certificates = decode_certificates(identity.certificates().unwrap()).unwrap();
        assert_eq!(certificates, der(&chain));
        assert_eq!(certificates.len(), 2);
        // What else is in the file does not matter.
        let both = format!("a comment\n{key}{chain}");
        let again = Identity::from_x509_pem(&both, &key).unwrap();
        assert_eq!(again.certificates(), identity.certificates());
        assert!(Identity::generate("basic").unwrap().certificates().is_none());
    }

    #[test]
    fn certificates_that_do_not_fit_are_refused() {
        let (chain, key) = certified();
        let (other, _) = certified();
        let ends: Vec<_> = chain.match_indices("-----BEGIN").map(|(place, _)| place).collect();
        let (own, middle) = chain.split_at(ends[1]);
        let cut = own.replace("-----END CERTIFICATE-----", "");
        for (certificates, reason) in [
            ("", "there is no certificate"),
            (&key, "there is no certificate"),
            (&cut, "not a PEM"),
            (&other, "for another key"),
            // In the wrong order, the first one is another's.
            (&format!("{middle}{own}"), "for another key"),
            (&own.repeat(17), "more than 16"),
            ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "BadDer"),
        ] {
            let error = Identity::from_x509_pem(certificates, &key).unwrap_err();
            assert!(matches!(error, Error::Config(ConfigError::Certificate(_))), "{error}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
        let error = Identity::from_x509_pem(&chain, &chain).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Key(_))), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_read_if_the_key_is_secret() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let (chain, key) = certified();
        let directory = tempfile::tempdir().unwrap();
        let [certificates, secret] =
            ["alice.crt", "alice.key"].map(|name| directory.path().join(name));
        fs::write(&certificates, &chain).unwrap();
        fs::write(&secret, &key).unwrap();
        for (mode, good) in [(0o600, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
            let result = Identity::read_x509_pem_files(&certificates, &secret);
            assert_eq!(result.is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&certificates, " ".repeat(MAX_CHAIN_PEM_LEN + 1)).unwrap();
        for (path, reason) in
            [(&certificates, "too long"), (&directory.path().join("missing"), "No such file")]
        {
            let error = Identity::read_x509_pem_files(path, &secret).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
