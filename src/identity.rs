//! Who a party is: a name and a signing key, kept in a PEM file.

#[cfg(feature = "openssh")]
pub(crate) mod openssh;
mod pem;
mod public_key;

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

pub use self::public_key::PublicKey;
use crate::{
    crypto::{CryptoProvider, SignatureKey, SignatureScheme},
    error::{ConfigError, Error},
    name,
};

/// A file that holds one key is far smaller than this.
const MAX_PEM_LEN: usize = 16 * 1024;

/// A party's name and its signing key.
///
/// The name is the identity of the MLS basic credential (RFC 9420, section 5.3) and the key signs
/// the party's KeyPackages, leaves and commits. With the feature `x509` an identity can have an X.509
/// credential instead: see `Identity::from_x509_pem`. A name has 1 to 255 bytes of UTF-8, no white
/// space, control or invisible characters, and does not start with `#`, so that it fits a line of
/// a file of [pinned keys](crate::PinnedKeys). The key is an Ed25519 key (RFC 8032) or one of another
/// [`SignatureScheme`].
///
/// A clone shares the key, so that a configuration can be cloned at no cost. `Debug` shows the
/// name and the public key only, and the secret is wiped when the last clone is dropped.
///
/// ```
/// use mls_channel::Identity;
///
/// let alice = Identity::generate("alice")?;
/// let again = Identity::from_pkcs8_pem("alice", &alice.to_pkcs8_pem()?)?;
/// assert_eq!(again.public_key(), alice.public_key());
/// // What the peer puts into its file of pinned keys.
/// println!("{}", alice.public_line());
/// # Ok::<(), mls_channel::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    key: SignatureKey,
    public_key: PublicKey,
    /// The content of an X.509 credential, as RFC 9420 encodes it.
    certificates: Option<Vec<u8>>,
}

impl Identity {
    /// Makes an identity with a new random Ed25519 key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::IdentityName`] if the name is not allowed (see [`Identity`]), and
    /// [`Error::Crypto`] if the system gives no randomness.
    pub fn generate(name: &str) -> Result<Self, Error> {
        Self::generate_with(name, SignatureScheme::ED25519)
    }

    /// Makes an identity with a new random key of this scheme.
    ///
    /// # Errors
    ///
    /// As [`Identity::generate`].
    pub fn generate_with(name: &str, scheme: SignatureScheme) -> Result<Self, Error> {
        check_name(name)?;
        Self::new(name, SignatureKey::generate(&CryptoProvider::default(), scheme)?)
    }

    /// Reads the key from PKCS#8 in PEM (RFC 5958, RFC 7468).
    ///
    /// Accepted are keys of Ed25519 (RFC 8410) and on P-256 (RFC 5915), as `openssl genpkey` writes
    /// them, with and without the public key. A key on P-256 may have the older form of
    /// `openssl ecparam -genkey -noout` as well, `EC PRIVATE KEY`. Encrypted keys are not supported.
    ///
    /// # Errors
    ///
    /// [`ConfigError::IdentityName`] if the name is not allowed, and [`ConfigError::Key`] if `pem`
    /// does not hold an unencrypted key of these, or the public key in it is that of another key.
    pub fn from_pkcs8_pem(name: &str, pem: &str) -> Result<Self, Error> {
        check_name(name)?;
        Self::new(name, pem::decode(pem)?)
    }

    /// Reads the key from a file as [`Identity::write_pem_file`] or OpenSSL writes it.
    ///
    /// On Unix the file must be accessible to its owner alone, as `chmod 600` makes it. On other
    /// systems the access is not checked.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read, is no PEM of a plausible size, or is open
    /// to group or others; otherwise as [`Identity::from_pkcs8_pem`].
    pub fn read_pem_file(name: &str, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let pem = read_secret_file(path)?;
        let pem = str::from_utf8(&pem).map_err(|_| file_error(path, "not a PEM file"))?;
        Self::from_pkcs8_pem(name, pem)
    }

    fn new(name: &str, key: SignatureKey) -> Result<Self, Error> {
        let public_key = PublicKey::new(key.scheme(), key.public_key())?;
        let name = name.to_owned();
        Ok(Self { inner: Arc::new(Inner { name, key, public_key, certificates: None }) })
    }

    /// The name, which is the identity in a basic credential, and is in the certificate of an X.509
    /// credential.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The public half of the signing key.
    pub fn public_key(&self) -> &PublicKey {
        &self.inner.public_key
    }

    /// This identity's line in a file of [pinned keys](crate::PinnedKeys): the name, a space
    /// and the public key in its [text form](PublicKey). There is no line feed at its end. It serves
    /// for the basic credential alone.
    pub fn public_line(&self) -> String {
        format!("{} {}", self.name(), self.public_key())
    }

    /// The signing key as PKCS#8 version 1 in PEM, which OpenSSL reads too.
    ///
    /// The name is not part of it. The text is wiped when it is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] if the encoder fails, which a key of this type gives no reason for.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, Error> {
        pem::encode(&self.inner.key)
    }

    /// Writes the signing key to a new file, in the form of [`Identity::to_pkcs8_pem`].
    ///
    /// The file appears complete or not at all, and on Unix only its owner can ever open it (mode
    /// 0600). A file that exists is not overwritten: it may be the only copy of another key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file exists or cannot be written.
    pub fn write_pem_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(write_key_file(path.as_ref(), &self.to_pkcs8_pem()?)?)
    }

    /// The content of an X.509 credential; `None` if the credential is a basic one.
    pub(crate) fn certificates(&self) -> Option<&[u8]> {
        self.inner.certificates.as_deref()
    }

    /// The signing key.
    pub(crate) fn key(&self) -> &SignatureKey {
        &self.inner.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name())
            .field("public_key", self.public_key())
            .finish_non_exhaustive()
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    if name::is_identity_name(name) { Ok(()) } else { Err(ConfigError::IdentityName) }
}

fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let file = File::open(path).map_err(|error| file_error(path, error))?;
    check_mode(&file, path, 0o077, "group or others can access the file; make it 0600")?;
    // Room for the whole file from the start: a vector that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_PEM_LEN + 64));
    let limit = MAX_PEM_LEN as u64 + 1;
    file.take(limit).read_to_end(&mut content).map_err(|error| file_error(path, error))?;
    if content.len() > MAX_PEM_LEN {
        return Err(file_error(path, "too long for a file with one key"));
    }
    Ok(content)
}

fn write_key_file(path: &Path, pem: &str) -> Result<(), ConfigError> {
    write_new_secret_file(path, pem.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => file_error(path, "the file exists and is not overwritten"),
        _ => file_error(path, error),
    })
}

/// Writes `content` to a file beside `path` and gives it that name when it is safely on disk.
fn write_new_secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = TemporaryFile::create(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    // A link fails if the name is taken, and a rename would replace what has it.
    if let Err(error) = fs::hard_link(&temporary.0, path) {
        if error.kind() == io::ErrorKind::AlreadyExists || path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // Not every file system has links.
        fs::rename(&temporary.0, path)?;
    }
    drop(temporary);
    // The file is complete and in place.
    sync_directory_of(path);
    Ok(())
}

/// Puts a file with `content` in the place of the one at `path`, if there is one, which stays as it is
/// until the new one is safely on disk. Without `permissions` it belongs to its owner alone.
pub(crate) fn replace_file(
    path: &Path,
    content: &[u8],
    permissions: Option<Permissions>,
) -> io::Result<()> {
    let (mut file, temporary) = TemporaryFile::create(path)?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary.0, path)?;
    sync_directory_of(path);
    Ok(())
}

/// Not every file system can sync a directory.
fn sync_directory_of(path: &Path) {
    #[cfg(unix)]
    let _ = File::open(directory_of(path)).and_then(|directory| directory.sync_all());
    #[cfg(not(unix))]
    let _ = path;
}

/// The path of a file that is removed again.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    /// Makes a file in the directory of `path` that only its owner can open.
    fn create(path: &Path) -> io::Result<(File, Self)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);

        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let mut unique = std::ffi::OsString::from(".");
            unique.push(name);
            unique.push(format!(".{}.{number}.tmp", process::id()));
            let temporary = directory_of(path).join(unique);
            match options.open(&temporary) {
                Ok(file) => return Ok((file, Self(temporary))),
                // Left behind by a crash of a process with the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The text of a file that says whom to believe. Whoever can write it decides that.
pub(crate) fn read_trusted_text(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read_trusted_file(path)?)
        .map_err(|_| file_error(path, "the file is not text in UTF-8"))
}

/// The content of a file that says whom to believe.
pub(crate) fn read_trusted_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut file = File::open(path).map_err(|error| file_error(path, error))?;
    check_trusted_file(&file, path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|error| file_error(path, error))?;
    Ok(content)
}

/// Refuses a file that says whom to believe if others can write it, on Unix.
pub(crate) fn check_trusted_file(file: &File, path: &Path) -> Result<(), ConfigError> {
    let reason = "group or others can write the file; make it 0644 or stricter";
    check_mode(file, path, 0o022, reason)
}

/// Refuses an open file if one of the `forbidden` bits is set in its mode, on Unix.
fn check_mode(file: &File, path: &Path, forbidden: u32, reason: &str) -> Result<(), ConfigError> {
    #[cfg(unix)]
    {
        let metadata = file.metadata().map_err(|error| file_error(path, error))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        if mode & forbidden != 0 {
            return Err(file_error(path, format_args!("{reason} (it is {:04o})", mode & 0o7777)));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path, forbidden, reason);
    Ok(())
}

pub(crate) fn file_error(path: &Path, reason: impl fmt::Display) -> ConfigError {
    ConfigError::File { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
#[cfg(feature = "x509")]
mod x509;
