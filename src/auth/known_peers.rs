//! First use: a peer is believed when it is met for the first time, and held to its key ever after.

mod file;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt, path::Path, sync::Mutex};

use self::file::{KnownFile, Lookup};
use crate::{
    auth::{
        AuthenticationError, AuthenticationRequest, AuthenticationService, ChangedKey,
        PeerIdentity, Purpose, Role,
    },
    error::{ConfigError, Error},
    identity::PublicKey,
    name,
};

/// How many peers that were accepted once are kept in mind, for as long as their channels may live.
const MAX_ONCE: usize = 1024;

/// Peers that are believed on first use, and a file of their keys, in the manner of `known_hosts`.
///
/// A responder is known by the [`ServerName`](crate::ServerName) that the initiator asked for,
/// without regard to the case of ASCII letters; what the responder calls itself does not matter. An
/// initiator is known by the name that it presents. The rules:
///
/// - A peer whose key is in the file under its name is believed.
/// - A peer whose name is in the file with other keys only is refused, with
///   [`AuthenticationError::KeyChanged`]. Nobody is asked. To accept the new key, remove the line that
///   the error names.
/// - For a name that is not in the file a function of the application decides: see [`FirstUse`]. On
///   first use an attacker on the way can show a key of its own, so let a human compare the
///   fingerprint, or know the network.
/// - Inside a channel the peer may change to another key that is in the file under its name.
/// - When a channel is revisited, or its session resumed, nobody is asked either: the key still has to
///   be in the file, or to have been accepted once, by this service. If it is not, the session ends,
///   and a full handshake takes place, in which the function is asked.
///
/// The names of initiators and responders are one set. Whoever is accepted as the initiator "db" would
/// be believed as the responder "db", too: use a file for each if anybody may connect.
///
/// The file has the form of [`PinnedKeys`](crate::PinnedKeys), and on Unix it is refused if group or
/// others can write it. Lines that do not parse are ignored and kept, like comments; if one begins with
/// the name of a peer, that peer is refused. The file is at most 1 MiB long; when it is full, no new
/// peer is remembered. It is read for each question, so changes by hand take effect at once.
///
/// A peer is remembered by replacing the file as a whole, so that it is complete after a crash. Several
/// processes may use one file: they take turns with a lock on a file beside it, which is called like it
/// with `.` before and `.lock` behind. When two accept different keys for one name at once, the first
/// is remembered, and the other one gets [`AuthenticationError::KeyChanged`].
///
/// ```no_run
/// use mls_channel::{FirstUse, KnownPeers};
///
/// let peers = KnownPeers::open("known_peers", |peer| {
///     eprintln!("{} is not known yet; its key is {}", peer.name, peer.fingerprint());
///     eprintln!("Type yes if that is right.");
///     let mut answer = String::new();
///     match std::io::stdin().read_line(&mut answer) {
///         Ok(_) if answer.trim() == "yes" => FirstUse::Remember,
///         _ => FirstUse::Refuse,
///     }
/// })?;
/// # Ok::<(), mls_channel::Error>(())
/// ```
pub struct KnownPeers {
    file: KnownFile,
    decide: Box<Decide>,
    once: Mutex<VecDeque<(String, PublicKey)>>,
}

type Decide = dyn Fn(&UnknownPeer<'_>) -> FirstUse + Send + Sync;

/// A peer whose name is not in the file of a [`KnownPeers`].
///
/// All it has shown is that it holds the secret half of its key.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UnknownPeer<'a> {
    /// The name that it would be known by.
    pub name: &'a str,
    /// What it calls itself.
    pub presented_name: &'a str,
    /// Its key.
    pub public_key: &'a PublicKey,
    /// Its role.
    pub role: Role,
}

/// What to do with a peer that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // there is nothing else to do
pub enum FirstUse {
    /// Believe it, and write its key into the file.
    Remember,
    /// Believe it for the channel that is set up, and ask again next time.
    Once,
    /// Do not believe it.
    Refuse,
}

impl KnownPeers {
    /// The peers of a file, and a function that decides about others. A file that does not exist is
    /// one without peers; it is made when the first is remembered.
    ///
    /// The function is called in the middle of a handshake, on the task that drives it, by several
    /// threads at once if there are several handshakes. If it takes time, say to ask a human, both
    /// ends need a [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) that is longer,
    /// and the runtime another thread for its other tasks.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read, is too long, or can be written by others.
    pub fn open(
        path: impl AsRef<Path>,
        decide: impl Fn(&UnknownPeer<'_>) -> FirstUse + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let file = KnownFile::open(path.as_ref())?;
        Ok(Self { file, decide: Box::new(decide), once: Mutex::new(VecDeque::new()) })
    }

    fn first_use(
        &self,
        name: &str,
        presented_name: &str,
        key: &PublicKey,
        role: Role,
    ) -> Result<(), AuthenticationError> {
        if !name::is_identity_name(name) {
            let reason = format!("{name:?} cannot be the name of a known peer");
            return Err(AuthenticationError::Refused(reason));
        }
        match (self.decide)(&UnknownPeer { name, presented_name, public_key: key, role }) {
            FirstUse::Refuse => {
                self.forget_once(name, key);
                Err(AuthenticationError::UnknownKey)
            }
            FirstUse::Remember => match self.file.remember(name, role, key) {
                Ok(Lookup::Known | Lookup::Unknown) => Ok(()),
                Ok(lookup) => Err(self.refusal(name, key, lookup)),
                Err(error) => Err(refused(&error)),
            },
            FirstUse::Once => match self.file.look_up(name, role, key) {
                // Somebody else may have decided meanwhile.
                Ok(Lookup::Known) => Ok(()),
                Ok(Lookup::Unknown) => {
                    self.remember_once(name, key);
                    Ok(())
                }
                Ok(lookup) => Err(self.refusal(name, key, lookup)),
                Err(error) => Err(refused(&error)),
            },
        }
    }

    fn remember_once(&self, name: &str, key: &PublicKey) {
        let Ok(mut once) = self.once.lock() else { return };
        if once.iter().any(|(known, of)| known == name && of == key) {
            return;
        }
        if once.len() == MAX_ONCE {
            once.pop_front();
        }
        once.push_back((name.to_owned(), key.clone()));
    }

    fn forget_once(&self, name: &str, key: &PublicKey) {
        if let Ok(mut once) = self.once.lock() {
            once.retain(|(known, of)| known != name || of != key);
        }
    }

    fn accepted_once(&self, name: &str, key: &PublicKey) -> Result<(), AuthenticationError> {
        let Ok(once) = self.once.lock() else { return Err(AuthenticationError::UnknownKey) };
        let keys = || once.iter().filter(|(known, _)| known == name).map(|(_, known)| known);
        match keys().next() {
            None => Err(AuthenticationError::UnknownKey),
            Some(_) if keys().any(|known| known == key) => Ok(()),
            Some(known) => Err(ChangedKey::new(name, known, key).into()),
        }
    }

    fn refusal(&self, name: &str, key: &PublicKey, lookup: Lookup) -> AuthenticationError {
        match lookup {
            Lookup::Changed { known, line } => {
                ChangedKey::new(name, &known, key).in_file(self.file.path(), line).into()
            }
            Lookup::Unreadable { line } => AuthenticationError::Refused(format!(
                "{}: line {line}: the key of {name:?} cannot be read",
                self.file.path().display(),
            )),
            Lookup::Known | Lookup::Unknown => AuthenticationError::UnknownKey,
        }
    }
}

impl AuthenticationService for KnownPeers {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let presented_name = request.presented.to_name()?;
        let key = request.presented.to_public_key()?;
        let role = request.role;
        let asked_for = request.server_name.filter(|_| role == Role::Responder);
        let name = asked_for.map_or(presented_name, |name| name.as_str());
        match request.purpose {
            Purpose::Update { previous: known } | Purpose::Revisit { current: known }
                if known.name() != name =>
            {
                return Err(AuthenticationError::CredentialChangeRefused);
            }
            _ => {}
        }
        match self.file.look_up(name, role, &key).map_err(|error| refused(&error))? {
            Lookup::Known => {}
            Lookup::Unknown => match request.purpose {
                Purpose::Handshake => self.first_use(name, presented_name, &key, role)?,
                Purpose::Update { .. } | Purpose::Revisit { .. } => {
                    self.accepted_once(name, &key)?;
                }
            },
            lookup => return Err(self.refusal(name, &key, lookup)),
        }
        Ok(PeerIdentity::new(name, key))
    }

    /// The same for all files: when a session is resumed, the key has to be in the present one, and
    /// nobody is asked. That is as strict as a handshake, or stricter.
    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some(*b"mls-channel KnownPeers          ")
    }
}

impl UnknownPeer<'_> {
    /// The fingerprint of its key, to compare with what its owner says.
    pub fn fingerprint(&self) -> String {
        self.public_key.fingerprint()
    }
}

impl fmt::Debug for KnownPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownPeers").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

fn refused(error: &ConfigError) -> AuthenticationError {
    AuthenticationError::Refused(error.to_string())
}
