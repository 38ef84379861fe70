//! Whom this party believes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::{Args, ValueEnum};
use mls_channel::{
    AuthenticationRequest, AuthenticationService, AuthorizedKeys, FirstUse, KnownPeers,
    PeerIdentity, PinnedKeys, PublicKey, danger::AcceptAnyone, error::AuthenticationError,
};
use tokio::task;

use crate::{failure::Failure, terminal};

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
    pub(crate) name: String,
    pub(crate) key: PublicKey,
    advice: Advice,
}

/// How to believe a peer of an unknown key after all.
#[derive(Clone)]
pub(crate) enum Advice {
    Pin(PathBuf),
    Accept,
    Authorize(PathBuf),
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
    ) -> Result<Trust, Failure> {
        if on_first_use.is_some() && self.known_peers.is_none() {
            return Err(Failure::arguments("--first-use is for --known-peers"));
        }
        let on_first_use = on_first_use.unwrap_or(OnFirstUse::Ask);
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
                eprintln!("mls-channel: {}: {line}; nobody is let in by it", path.display());
            }
            Watched::new(keys, Advice::Authorize(path.to_owned()))
        } else if self.danger_accept_anyone {
            Watched::new(AcceptAnyone, Advice::None)
        } else {
            return Err(Failure::arguments("say whom to believe, for example with --known-peers"));
        };
        Ok(Arc::new(watched))
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
        if result.is_err()
            && let Ok(name) = request.presented.to_name()
            && let Ok(key) = request.presented.to_public_key()
        {
            let presented = Presented { name: name.to_owned(), key, advice: self.advice.clone() };
            self.refused().insert(task::try_id(), presented);
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

impl Presented {
    /// Its line in a file of pinned keys.
    pub(crate) fn public_line(&self) -> String {
        format!("{} {}", self.name, self.key)
    }

    /// What to do if the key is the right one.
    pub(crate) fn advice(&self) -> String {
        match &self.advice {
            Advice::Pin(path) => {
                format!("add this line to {}:\n{}", path.display(), self.public_line())
            }
            Advice::Accept => "answer yes, or say --first-use accept".into(),
            Advice::Authorize(path) => format!(
                "add to {} the line that it gets from: mls-channel show --format openssh FILE",
                path.display()
            ),
            Advice::None => "say so with an option for trust".into(),
        }
    }
}
