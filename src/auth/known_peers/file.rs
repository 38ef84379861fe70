//! The file of known peers: looked into without a lock, changed under one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    auth::{PinnedKeys, Role},
    error::ConfigError,
    identity::{self, PublicKey},
};

/// Room for some ten thousand peers.
const MAX_LEN: usize = 1024 * 1024;

/// Links that are followed to a file which is not there yet.
const MAX_LINKS: usize = 40;

/// A file that may not exist yet.
pub(super) struct KnownFile {
    path: PathBuf,
}

/// What the file says of a name and a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Nothing of this name.
    Unknown,
    /// The key is there under this name.
    Known,
    /// Only other keys are; this is the first of them.
    Changed { known: PublicKey, line: usize },
    /// A line begins with the name, and has no key that this build can read.
    Unreadable { line: usize },
}

impl KnownFile {
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        // The application may change its directory.
        let path = std::path::absolute(path).map_err(|error| identity::file_error(path, error))?;
        let file = Self { path };
        file.read()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn look_up(
        &self,
        name: &str,
        role: Role,
        key: &PublicKey,
    ) -> Result<Lookup, ConfigError> {
        let (content, _) = self.read()?;
        Ok(look_up(&content, name, role, key))
    }

    /// Adds a line for a peer if nothing is known of its name. The answer is what was found then.
    pub(super) fn remember(
        &self,
        name: &str,
        role: Role,
        key: &PublicKey,
    ) -> Result<Lookup, ConfigError> {
        let path = target(&self.path).map_err(|error| identity::file_error(&self.path, error))?;
        let error = |error: io::Error| identity::file_error(&path, error);
        let _lock = lock(&path).map_err(error)?;
        let (mut content, old) = self.read()?;
        let lookup = look_up(&content, name, role, key);
        if lookup != Lookup::Unknown {
            return Ok(lookup);
        }
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        let line = PinnedKeys::new().with(name, key.clone()).map_err(|_| ConfigError::IdentityName);
        content.extend_from_slice(line?.to_string().as_bytes());
        if content.len() > MAX_LEN {
            return Err(identity::file_error(&path, "the file is full: no peer is remembered"));
        }
        let permissions = match old {
            Some(old) => Some(old.metadata().map_err(error)?.permissions()),
            None => None,
        };
        identity::replace_file(&path, &content, permissions).map_err(error)?;
        Ok(lookup)
    }

    /// All of the file. Another process that changes it puts a new one in its place.
    fn read(&self) -> Result<(Vec<u8>, Option<File>), ConfigError> {
        let error = |error: io::Error| identity::file_error(&self.path, error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
            Err(cause) => return Err(error(cause)),
        };
        identity::check_trusted_file(&file, &self.path)?;
        let mut content = Vec::new();
        (&file).take(MAX_LEN as u64 + 1).read_to_end(&mut content).map_err(error)?;
        if content.len() > MAX_LEN {
            return Err(identity::file_error(&self.path, "the file is longer than 1 MiB"));
        }
        Ok((content, Some(file)))
    }
}

/// Where the path is a link, what it leads to is replaced, and not the link, even if nothing is there
/// yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut path = path.to_owned();
    // More than this no file system follows, so that it ends.
    for _ in 0..MAX_LINKS {
        let Ok(next) = fs::read_link(&path) else { return Ok(path) };
        // An absolute one replaces the directory.
        path = path.parent().unwrap_or(&path).join(next);
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Only lines that begin with the name are parsed: this is done for each handshake.
fn look_up(content: &[u8], name: &str, role: Role, key: &PublicKey) -> Lookup {
    let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    let mut lookup = Lookup::Unknown;
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let is_name = |word: &str| match role {
            Role::Initiator => word == name,
            // A server name has no upper case, and a line written by hand may.
            Role::Responder => word.eq_ignore_ascii_case(name),
        };
        if !line.split_whitespace().next().is_some_and(is_name) {
            continue;
        }
        let line_number = index + 1;
        match line.parse::<PinnedKeys>().ok().as_ref().and_then(|line| line.iter().next()) {
            Some((_, known)) if known == key => return Lookup::Known,
            Some((_, known)) => {
                if !matches!(lookup, Lookup::Changed { .. }) {
                    lookup = Lookup::Changed { known: known.clone(), line: line_number };
                }
            }
            None => {
                if lookup == Lookup::Unknown {
                    lookup = Lookup::Unreadable { line: line_number };
                }
            }
        }
    }
    lookup
}

/// Waits for its turn. The lock is on a file of its own, because the other one is replaced, and it
/// ends with the process at the latest.
fn lock(path: &Path) -> io::Result<File> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path.with_file_name(name))?;
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|()| file),
        }
    }
}
