//! The secrets of connections, written down on purpose so that captured traffic can be read (CH-07).

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
};

use zeroize::Zeroizing;

use crate::{
    error::{ConfigError, Error},
    identity::file_error,
};

/// Is told the secrets of connections.
///
/// Whoever has them reads the traffic that they protect, now and later. Without a
/// [`ConfigBuilder::key_log`](crate::ConfigBuilder::key_log) nobody is told any.
pub trait KeyLog: Send + Sync {
    /// A secret of a connection.
    ///
    /// `label` says which one; `<epoch>` is the epoch of the group in decimal:
    ///
    /// - `MLS_TLS_CLIENT_TRAFFIC_SECRET_<epoch>` and `MLS_TLS_SERVER_TRAFFIC_SECRET_<epoch>`, of which
    ///   the keys for the records of the initiator and of the responder are made in that epoch;
    /// - `MLS_TLS_EARLY_TRAFFIC_SECRET_<epoch>`, for early data;
    /// - `MLS_TLS_GROUP_ID`, which is no secret: the group ID, by which a request to resume names the
    ///   session.
    ///
    /// `session` is the hash of the ClientHello with which the session began, its envelope included; it
    /// stays the same when the session is resumed, and the epochs go on. Together with the label it
    /// names the secret.
    fn log(&self, label: &str, session: &[u8], secret: &[u8]);
}

/// Appends secrets to a file in the NSS key log format: `<label> <session> <secret>`, the last two in
/// hexadecimal, a line for each. See [`KeyLog::log`] for the labels.
///
/// Each line is written at once, so several processes can share the file. A line that cannot be written
/// is lost.
pub struct KeyLogFile(Option<Mutex<File>>);

impl KeyLogFile {
    /// The file that the environment variable `SSLKEYLOGFILE` names. Without it nothing is logged.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] when the file cannot be opened.
    pub fn new() -> Result<Self, Error> {
        match std::env::var_os("SSLKEYLOGFILE").filter(|path| !path.is_empty()) {
            Some(path) => Self::open(path),
            None => Ok(Self(None)),
        }
    }

    /// A certain file. If it is made, only its owner can open it, on Unix.
    ///
    /// # Errors
    ///
    /// As [`KeyLogFile::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file: Result<File, ConfigError> =
            options.open(path).map_err(|error| file_error(path, error));
        Ok(Self(Some(Mutex::new(file?))))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, session: &[u8], secret: &[u8]) {
        let Some(file) = &self.0 else {
            return;
        };
        // Room for all of it, so that no copy is left behind by growing.
        let capacity = label.len() + 2 * (session.len() + secret.len()) + 3;
        let mut line = Zeroizing::new(Vec::with_capacity(capacity));
        line.extend_from_slice(label.as_bytes());
        for bytes in [session, secret] {
            line.push(b' ');
            for byte in bytes {
                line.extend([byte >> 4, byte & 15].map(|digit| match digit {
                    0..=9 => b'0' + digit,
                    _ => b'a' + digit - 10,
                }));
            }
        }
        line.push(b'\n');
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // Traffic does not depend on whether somebody can read it.
        let _ = file.write_all(&line);
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLogFile").field("file", &self.0.as_ref().map(|_| "..")).finish()
    }
}
