//! Whom this party believes.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::{Args, ValueEnum};
use mls_channel::{
    AuthenticationRequest, AuthenticationService, AuthorizedKeys, Error, FirstUse, KnownPeers,
    PeerIdentity, PinnedKeys, PresentedIdentity, PublicKey, WebPkiVerifier, WebPkiVerifierBuilder,
    danger::AcceptAnyone,
    error::{AuthenticationError, ConfigError},
};
use tokio::task;

use crate::{
    certificates::Certificates,
    failure::{self, Failure},
    terminal,
};

/// Where the help has the options that say whom to believe.
pub(crate) const HEADING: &str = "Trust (exactly one of these)";

/// Exactly one of these says whom to believe.
#[derive(Args)]
#[group(id = "trust", required = true, multiple = false)]
pub(crate) struct TrustOptions {
    /// Believe the peers whose public lines are in this file
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pinned: Option<PathBuf>,
    /// Believe peers on first use and hold them to their keys, which are kept in this file
    ///
    /// The file is made when the first peer is accepted, and changed only by adding lines. Use one for
    /// peers that you connect to, and another for those that connect to you.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    known_peers: Option<PathBuf>,
    /// Believe the peers that have a certificate of these authorities, whose own are in this file, in
    /// PEM
    ///
    /// A server has to be certified under the name that it is connected to by.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    roots: Option<PathBuf>,
    /// Believe the peers that have a certificate of an authority that the operating system believes
    #[cfg(feature = "native-roots")]
    #[arg(long, help_heading = HEADING)]
    native_roots: bool,
    /// Believe anybody to be who they say they are: no protection from an attacker on the way
    #[arg(long, help_heading = HEADING)]
    danger_accept_anyone: bool,
}

/// What to do with a peer that is not in the file of known peers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFirstUse {
    /// Ask on the terminal
    Ask,
    /// Accept and remember
    Accept,
    /// Accept this time only
    Once,
    /// Refuse
    Refuse,
}

/// A service, and whom it has not believed: for a message that helps.
pub(crate) struct Watched {
    service: Arc<dyn AuthenticationService>,
    advice: Advice,
    /// By the task of the handshake, of which a listener has several at once.
    refused: Mutex<HashMap<Option<task::Id>, Presented>>,
}

/// What a peer has presented that was not believed. The name can be printed.
pub(crate) struct Presented {
    pub(crate) who: Who,
    advice: Advice,
}

pub(crate) enum Who {
    Key { name: String, key: PublicKey },
    Certificates(Certificates),
}

/// How to believe a peer of an unknown key after all.
#[derive(Clone)]
pub(crate) enum Advice {
    Pin(PathBuf),
    Accept,
    Authorize(PathBuf),
    Certify,
    None,
}

/// Believes nobody.
pub(crate) struct Nobody;

pub(crate) type Trust = Arc<Watched>;

impl TrustOptions {
    pub(crate) fn service(
        &self,
        authorized_keys: Option<&Path>,
        on_first_use: Option<OnFirstUse>,
        revocation_lists: &[PathBuf],
    ) -> Result<Trust, Failure> {
        if on_first_use.is_some() && self.known_peers.is_none() {
            return Err(Failure::arguments("--first-use is for --known-peers"));
        }
        let on_first_use = on_first_use.unwrap_or(OnFirstUse::Ask);
        let roots = self.roots()?;
        if !revocation_lists.is_empty() && roots.is_none() {
            return Err(Failure::arguments("--crl is for --roots"));
        }
        let watched = if let Some(path) = &self.pinned {
            Watched::new(PinnedKeys::read_file(path)?, Advice::Pin(path.clone()))
        } else if let Some(path) = &self.known_peers {
            let file = path.display().to_string();
            let peers = KnownPeers::open(path, move |peer| match on_first_use {
                OnFirstUse::Ask => terminal::ask_about(peer, &file),
                OnFirstUse::Accept => FirstUse::Remember,
                OnFirstUse::Once => FirstUse::Once,
                OnFirstUse::Refuse => FirstUse::Refuse,
            })?;
            Watched::new(peers, Advice::Accept)
        } else if let Some(path) = authorized_keys {
            let keys = AuthorizedKeys::read_file(path)?;
            for line in keys.unusable() {
                terminal::say(format_args!(
                    "mls-channel: {}: {line}; nobody is let in by it",
                    path.display()
                ));
            }
            Watched::new(keys, Advice::Authorize(path.to_owned()))
        } else if let Some(roots) = roots {
            Watched::new(with_lists(roots, revocation_lists)?, Advice::Certify)
        } else if self.danger_accept_anyone {
            Watched::new(AcceptAnyone, Advice::None)
        } else {
            return Err(Failure::arguments("say whom to believe, for example with --known-peers"));
        };
        Ok(Arc::new(watched))
    }

    /// The authorities, if it is they who are believed.
    fn roots(&self) -> Result<Option<WebPkiVerifierBuilder>, Failure> {
        #[cfg(feature = "native-roots")]
        if self.native_roots {
            return Ok(Some(WebPkiVerifier::builder().native_roots()?));
        }
        let Some(path) = &self.roots else { return Ok(None) };
        let roots = WebPkiVerifier::builder().roots_file(path);
        roots.map(Some).map_err(|error| in_file(path, &error))
    }
}

fn with_lists(
    mut roots: WebPkiVerifierBuilder,
    revocation_lists: &[PathBuf],
) -> Result<WebPkiVerifier, Failure> {
    for path in revocation_lists {
        roots = roots.revocation_lists_file(path).map_err(|error| in_file(path, &error))?;
    }
    Ok(roots.build()?)
}

/// Which file it is, unless the error says so.
fn in_file(path: &Path, error: &Error) -> Failure {
    let reason = failure::describe(error);
    match error {
        Error::Config(ConfigError::File { .. }) => Failure::local(reason),
        _ => Failure::local(format!("{}: {reason}", path.display())),
    }
}

impl Watched {
    pub(crate) fn new(service: impl AuthenticationService + 'static, advice: Advice) -> Self {
        Self { service: Arc::new(service), advice, refused: Mutex::default() }
    }

    /// Who was refused in this task.
    pub(crate) fn take_refused(&self) -> Option<Presented> {
        self.refused().remove(&task::try_id())
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<Option<task::Id>, Presented>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuthenticationService for Watched {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let result = self.service.authenticate(request);
        let refused = match &result {
            Ok(_) => None,
            Err(_) => Who::new(&request.presented),
        };
        match refused {
            Some(who) => {
                let presented = Presented { who, advice: self.advice.clone() };
                self.refused().insert(task::try_id(), presented);
            }
            // Nobody asks for one whose session was not resumed, but who was let in after all.
            None => drop(self.take_refused()),
        }
        result
    }

    fn trust_digest(&self) -> Option<[u8; 32]> {
        self.service.trust_digest()
    }
}

impl AuthenticationService for Nobody {
    fn authenticate(
        &self,
        _request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        Err(AuthenticationError::Refused("its key was shown, and that is all".into()))
    }
}

impl Who {
    fn new(presented: &PresentedIdentity<'_>) -> Option<Self> {
        if let Ok(certificates) = presented.to_certificates() {
            let certificates = Certificates::new(certificates.iter().map(Vec::as_slice));
            return Some(Self::Certificates(certificates));
        }
        let name = presented.to_name().ok()?.to_owned();
        Some(Self::Key { name, key: presented.to_public_key().ok()? })
    }

    /// The fingerprint of the key.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        match self {
            Self::Key { key, .. } => Some(key.fingerprint()),
            Self::Certificates(certificates) => certificates.key_fingerprint(),
        }
    }
}

/// A line of a file of pinned keys, or what is in the certificates.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { name, key } => write!(f, "{name} {key}"),
            Self::Certificates(certificates) => certificates.fmt(f),
        }
    }
}

impl Presented {
    /// What to do if the key is the right one.
    pub(crate) fn advice(&self) -> String {
        match &self.advice {
            Advice::Pin(path) => {
                format!("add this line to {}:\n{}", path.display(), self.who)
            }
            Advice::Accept => "answer yes, or say --first-use accept".into(),
            Advice::Authorize(path) => format!(
                "add to {} the line that it gets from: mls-channel show --format openssh FILE",
                path.display()
            ),
            Advice::Certify => "it needs a certificate of an authority that is believed".into(),
            Advice::None => "say so with an option for trust".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mls_channel::{Purpose, Role};

    use super::*;

    /// Believes in handshakes alone.
    struct Forgetful;

    impl AuthenticationService for Forgetful {
        fn authenticate(
            &self,
            request: &AuthenticationRequest<'_>,
        ) -> Result<PeerIdentity, AuthenticationError> {
            match request.purpose {
                Purpose::Handshake => AcceptAnyone.authenticate(request),
                _ => Err(AuthenticationError::UnknownKey),
            }
        }
    }

    #[test]
    fn whoever_is_let_in_after_all_is_not_kept() {
        let trust = Watched::new(Forgetful, Advice::None);
        let ask = |purpose| {
            let presented = PresentedIdentity::new(b"alice", &[1; 32]);
            let now = SystemTime::UNIX_EPOCH;
            trust.authenticate(&AuthenticationRequest::new(
                presented,
                Role::Initiator,
                None,
                purpose,
                now,
            ))
        };
        let alice = ask(Purpose::Handshake).unwrap();
        assert!(ask(Purpose::Revisit { current: &alice }).is_err());
        assert_eq!(trust.refused().len(), 1);
        assert!(ask(Purpose::Handshake).is_ok());
        assert!(trust.refused().is_empty());
        assert!(ask(Purpose::Revisit { current: &alice }).is_err());
        assert!(trust.take_refused().is_some());
        assert!(trust.refused().is_empty());
    }
}
