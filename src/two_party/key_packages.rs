//! KeyPackages that are made before they are needed.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::handshake::Hello;
use crate::{config::Config, crypto::CipherSuite, error::Error, name::ServerName, time::Time};

/// Most KeyPackages that are kept.
const MAX_KEPT: usize = 1024;

/// Older ones are thrown away. They are valid for twice as long.
const MAX_AGE: Duration = Duration::from_secs(1800);

/// KeyPackages that an initiator makes before it connects, when it has the time (2P-01).
///
/// Making one is about a fifth of the initiator's work in a handshake. Each is used once, for the server
/// name for which it was made. Those older than half an hour are thrown away when another one is made
/// or wanted, or with [`KeyPackages::purge`]. At most 1024 are kept, and the oldest makes room.
///
/// Whoever steals one before it is used can read the first epoch of the connection for which it is used
/// then, until the initiator has updated. So make few, and not long before.
pub struct KeyPackages {
    config: Arc<Config>,
    made: Mutex<VecDeque<Made>>,
}

struct Made {
    server_name: ServerName,
    suite: CipherSuite,
    hello: Hello,
    at: SystemTime,
}

impl KeyPackages {
    /// None yet, for connections with this configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, made: Mutex::default() }
    }

    /// Makes so many for connections to this server, with the suite that is preferred.
    ///
    /// # Errors
    ///
    /// [`Error::Crypto`] when the cryptographic provider fails.
    pub fn make(&self, server_name: &ServerName, count: usize, now: Time) -> Result<(), Error> {
        let Some(&suite) = self.config.cipher_suites.first() else {
            return Ok(());
        };
        self.purge(now);
        for _ in 0..count.min(MAX_KEPT) {
            let hello = Hello::new(&self.config, server_name, suite, now)?;
            let mut made = self.lock();
            if made.len() == MAX_KEPT {
                made.pop_front();
            }
            made.push_back(Made {
                server_name: server_name.clone(),
                suite,
                hello,
                at: now.calendar,
            });
        }
        Ok(())
    }

    /// Throws away those that are too old.
    pub fn purge(&self, now: Time) {
        let young = |at| now.calendar.duration_since(at).is_ok_and(|age| age < MAX_AGE);
        self.lock().retain(|made| young(made.at));
    }

    /// How many there are, for any server.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn take(
        &self,
        server_name: &ServerName,
        suite: CipherSuite,
        now: Time,
    ) -> Option<Hello> {
        self.purge(now);
        let mut made = self.lock();
        let fits = |made: &Made| made.server_name == *server_name && made.suite == suite;
        let position = made.iter().position(fits)?;
        made.remove(position).map(|made| made.hello)
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyPackages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPackages").field("len", &self.len()).finish_non_exhaustive()
    }
}
