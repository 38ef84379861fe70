//! Configuration: one type for both roles, with documented defaults.
//!
//! A [`Config`] says who this party is ([`Identity`]), whom it believes
//! ([`AuthenticationService`]), and how the channel behaves. The first two have no default: without
//! them there is no `build()` to call (CH-08).
//!
//! ```
//! use std::sync::Arc;
//! use mls_channel::{Config, Identity, PinnedKeys};
//!
//! # fn main() -> Result<(), mls_channel::Error> {
//! let identity = Identity::generate("client")?;
//! let server = Identity::generate("server.example")?;
//! let config = Config::builder()
//!     .identity(identity)
//!     .authentication_service(PinnedKeys::parse(&server.public_line())?)
//!     .build()?;
//! let config = Arc::new(config);
//! # Ok(())
//! # }
//! ```
//!
//! A configuration without an authentication service does not compile:
//!
//! ```compile_fail
//! # use mls_channel::{Config, Identity};
//! let config = Config::builder().identity(Identity::generate("a").unwrap()).build();
//! ```

mod limits;
mod rekey_policy;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{limits::Limits, rekey_policy::RekeyPolicy};
use crate::{
    auth::AuthenticationService,
    crypto::{CipherSuite, CryptoProvider, SignatureScheme},
    error::{ConfigError, Error},
    identity::Identity,
    key_log::KeyLog,
    store::{SessionId, SessionStore, Sessions},
};

/// How long a session can be resumed unless configured otherwise.
const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// How one party behaves on all of its connections, whichever role it has.
#[derive(Clone)]
pub struct Config {
    pub(crate) identity: Identity,
    pub(crate) former_identities: Vec<Identity>,
    pub(crate) additional_identities: Vec<Identity>,
    pub(crate) authentication_service: Arc<dyn AuthenticationService>,
    pub(crate) crypto: CryptoProvider,
    pub(crate) cipher_suites: Vec<CipherSuite>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) rekey: RekeyPolicy,
    pub(crate) limits: Limits,
    pub(crate) session_store: Option<Arc<dyn SessionStore>>,
    pub(crate) session_lifetime: Duration,
    pub(crate) revisit_interval: Option<Duration>,
    pub(crate) key_log: Option<Arc<dyn KeyLog>>,
    pub(crate) sessions: Option<Arc<Sessions>>,
}

/// Makes a [`Config`]. The type parameters say what is still missing.
#[derive(Clone)]
pub struct ConfigBuilder<I, A> {
    identity: I,
    additional_identities: Vec<Identity>,
    authentication_service: A,
    crypto: CryptoProvider,
    cipher_suites: Option<Vec<CipherSuite>>,
    prefer_post_quantum: bool,
    alpn: Vec<Vec<u8>>,
    rekey: RekeyPolicy,
    limits: Limits,
    session_store: Option<Arc<dyn SessionStore>>,
    session_lifetime: Duration,
    former_identities: Vec<Identity>,
    revisit_interval: Option<Duration>,
    key_log: Option<Arc<dyn KeyLog>>,
}

/// A [`ConfigBuilder`] lacks its identity.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WantsIdentity;

/// A [`ConfigBuilder`] lacks its authentication service.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WantsAuthenticationService;

impl Config {
    /// Starts a configuration.
    pub fn builder() -> ConfigBuilder<WantsIdentity, WantsAuthenticationService> {
        ConfigBuilder {
            identity: WantsIdentity,
            additional_identities: Vec::new(),
            authentication_service: WantsAuthenticationService,
            crypto: CryptoProvider::default(),
            cipher_suites: None,
            prefer_post_quantum: false,
            alpn: Vec::new(),
            rekey: RekeyPolicy::default(),
            limits: Limits::default(),
            session_store: None,
            session_lifetime: SESSION_LIFETIME,
            former_identities: Vec::new(),
            revisit_interval: None,
            key_log: None,
        }
    }

    /// Starts a configuration that differs from this one.
    pub fn to_builder(&self) -> ConfigBuilder<Identity, Arc<dyn AuthenticationService>> {
        let config = self.clone();
        ConfigBuilder {
            identity: config.identity,
            additional_identities: config.additional_identities,
            authentication_service: config.authentication_service,
            crypto: config.crypto,
            cipher_suites: Some(config.cipher_suites),
            prefer_post_quantum: false,
            alpn: config.alpn,
            rekey: config.rekey,
            limits: config.limits,
            session_store: config.session_store,
            session_lifetime: config.session_lifetime,
            former_identities: config.former_identities,
            revisit_interval: config.revisit_interval,
            key_log: config.key_log,
        }
    }

    /// Who this party is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who this party is in a connection with this suite, one of
    /// [`cipher_suites`](Self::cipher_suites): the identity that has a key of the suite's scheme.
    pub fn identity_for(&self, suite: CipherSuite) -> &Identity {
        let scheme = suite.signature_scheme();
        let has_it = |identity: &&Identity| identity.public_key().scheme() == scheme;
        self.additional_identities.iter().find(has_it).unwrap_or(&self.identity)
    }

    /// The cipher suites, in order of preference.
    pub fn cipher_suites(&self) -> &[CipherSuite] {
        &self.cipher_suites
    }

    /// When this party updates by itself.
    pub fn rekey_policy(&self) -> RekeyPolicy {
        self.rekey
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether a session is stored that this configuration can look for, which is how a responder
    /// chooses among several when an initiator [wants to resume](crate::ClientHello::session_id).
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store fails.
    pub fn has_session(&self, session: &SessionId) -> Result<bool, Error> {
        match &self.sessions {
            Some(sessions) => Ok(sessions.find(session)?.is_some()),
            None => Ok(false),
        }
    }

    /// Erases a session from the store: it will not be resumed. A connection that uses it goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store fails. That no such session is stored is no error.
    pub fn remove_session(&self, session: &SessionId) -> Result<(), Error> {
        if let Some(sessions) = &self.sessions {
            sessions.remove_id(session)?;
        }
        Ok(())
    }
}

impl<A> ConfigBuilder<WantsIdentity, A> {
    /// Who this party is: the key that signs for it and the name it presents.
    pub fn identity(self, identity: Identity) -> ConfigBuilder<Identity, A> {
        ConfigBuilder {
            identity,
            additional_identities: self.additional_identities,
            authentication_service: self.authentication_service,
            crypto: self.crypto,
            cipher_suites: self.cipher_suites,
            prefer_post_quantum: self.prefer_post_quantum,
            alpn: self.alpn,
            rekey: self.rekey,
            limits: self.limits,
            session_store: self.session_store,
            session_lifetime: self.session_lifetime,
            former_identities: self.former_identities,
            revisit_interval: self.revisit_interval,
            key_log: self.key_log,
        }
    }
}

impl<I> ConfigBuilder<I, WantsAuthenticationService> {
    /// Whom this party believes.
    pub fn authentication_service(
        self,
        service: impl AuthenticationService + 'static,
    ) -> ConfigBuilder<I, Arc<dyn AuthenticationService>> {
        ConfigBuilder {
            identity: self.identity,
            additional_identities: self.additional_identities,
            authentication_service: Arc::new(service),
            crypto: self.crypto,
            cipher_suites: self.cipher_suites,
            prefer_post_quantum: self.prefer_post_quantum,
            alpn: self.alpn,
            rekey: self.rekey,
            limits: self.limits,
            session_store: self.session_store,
            session_lifetime: self.session_lifetime,
            former_identities: self.former_identities,
            revisit_interval: self.revisit_interval,
            key_log: self.key_log,
        }
    }
}

impl<I, A> ConfigBuilder<I, A> {
    /// Another identity of this party, with a key of another
    /// [`SignatureScheme`]: a server that has one can serve peers of both
    /// schemes, and a client has one more suite to offer. Distributed MLS does not use it.
    ///
    /// The suite decides which identity a peer sees, and the peer has to believe that one: if it
    /// refuses it, no other one is tried.
    pub fn additional_identity(mut self, identity: Identity) -> Self {
        self.additional_identities.push(identity);
        self
    }

    /// The library that does the cryptography. Default: [`CryptoProvider::default`].
    pub fn crypto_provider(mut self, crypto: CryptoProvider) -> Self {
        self.crypto = crypto;
        self
    }

    /// The cipher suites that may be used, best first. An initiator offers the first; a responder
    /// allows all. Default: those of [`CipherSuite::ALL`] that the provider has, and that need a key
    /// of the identity's [`SignatureScheme`]; then, for each
    /// [additional identity](Self::additional_identity), those of its scheme.
    pub fn cipher_suites(mut self, suites: impl Into<Vec<CipherSuite>>) -> Self {
        self.cipher_suites = Some(suites.into());
        self
    }

    /// Puts the post-quantum suites before the others, each in the order that they had. The others
    /// stay, for peers that have no post-quantum one: name [`cipher_suites`](Self::cipher_suites)
    /// to do without them.
    #[cfg(feature = "post-quantum")]
    pub fn prefer_post_quantum(mut self) -> Self {
        self.prefer_post_quantum = true;
        self
    }

    /// Application protocols, best first (RFC 7301 identifiers). The responder's order decides. A
    /// party that names none accepts any. Default: none.
    pub fn alpn_protocols<P: Into<Vec<u8>>>(
        mut self,
        protocols: impl IntoIterator<Item = P>,
    ) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// When this party updates by itself. Default: [`RekeyPolicy::default`].
    pub fn rekey_policy(mut self, policy: RekeyPolicy) -> Self {
        self.rekey = policy;
        self
    }

    /// Where sessions are stored, so that they can be resumed (2P-14). Default: nowhere, and every
    /// connection begins with a full handshake.
    ///
    /// Every party that shall resume, or whose peers shall, needs a store. Several configurations may
    /// share one; each meets only sessions of its own identity and trust.
    pub fn session_store(mut self, store: impl SessionStore + 'static) -> Self {
        self.session_store = Some(Arc::new(store));
        self
    }

    /// How long after its first handshake a session may be resumed. Connections that last longer go
    /// on. Default: seven days, as RFC 8446, section 4.6.1 has it.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.session_lifetime = lifetime;
        self
    }

    /// An identity that this party had before, or another one that it has; may be called again. New
    /// connections do not use it. Sessions that began under it are found and resumed, and so are those
    /// that began under either identity and have
    /// [changed](crate::Connection::rotate_identity) to the other one.
    ///
    /// A session is stored under the identity of its handshake, without any signature key. So who
    /// changes the identity of live channels and starts again with the new one lists the old one
    /// here until its sessions have come to their end. Default: none.
    pub fn former_identity(mut self, identity: Identity) -> Self {
        self.former_identities.push(identity);
        self
    }

    /// Writes the secrets of all connections down, with a [`KeyLogFile`](crate::KeyLogFile) for example.
    /// Whoever has them reads everything, so this is for debugging and nothing else. Default: nobody
    /// is told any secret, whatever the environment says.
    pub fn key_log(mut self, log: impl KeyLog + 'static) -> Self {
        self.key_log = Some(Arc::new(log));
        self
    }

    /// How often the authentication service is asked about the peer again while a connection lasts,
    /// with [`Purpose::Revisit`](crate::Purpose::Revisit) (2P-13). When it says no, the connection ends
    /// with the alert for its reason. On streams this happens while somebody reads or writes; a
    /// pending read is enough. Default: never.
    pub fn revisit_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.revisit_interval = interval.into();
        self
    }

    /// The bounds. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl ConfigBuilder<Identity, Arc<dyn AuthenticationService>> {
    /// Checks the values and makes the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the value that is out of range.
    pub fn build(mut self) -> Result<Config, Error> {
        let identities: Vec<&Identity> =
            std::iter::once(&self.identity).chain(&self.additional_identities).collect();
        let mut schemes: Vec<_> = identities.iter().map(|i| i.public_key().scheme()).collect();
        dedup(&mut schemes);
        if schemes.len() != identities.len() {
            let reason = "two identities have keys of one signature scheme";
            return Err(ConfigError::OutOfRange(reason).into());
        }
        let mut cipher_suites = chosen_suites(self.cipher_suites, &self.crypto, &schemes)?;
        if self.prefer_post_quantum {
            cipher_suites.sort_by_key(|suite| !suite.is_post_quantum());
        }
        dedup(&mut self.alpn);
        if self.alpn.len() > 64 || self.alpn.iter().any(|p| p.is_empty() || p.len() > 255) {
            return Err(ConfigError::Alpn.into());
        }
        self.rekey.check()?;
        self.limits.check()?;
        if self.revisit_interval.is_some_and(|interval| interval.is_zero()) {
            return Err(ConfigError::OutOfRange("the interval of revisiting is zero").into());
        }
        self.crypto.warm_up();
        let sessions = match &self.session_store {
            Some(store) => {
                let digest =
                    self.authentication_service.trust_digest().ok_or(ConfigError::NoTrustDigest)?;
                let store = Arc::clone(store);
                let others: Vec<Identity> = self
                    .additional_identities
                    .iter()
                    .chain(&self.former_identities)
                    .cloned()
                    .collect();
                Some(Arc::new(Sessions::new(
                    store,
                    self.crypto.clone(),
                    &self.identity,
                    &others,
                    &digest,
                )?))
            }
            None => None,
        };
        Ok(Config {
            identity: self.identity,
            additional_identities: self.additional_identities,
            authentication_service: self.authentication_service,
            crypto: self.crypto,
            cipher_suites,
            alpn: self.alpn,
            rekey: self.rekey,
            limits: self.limits,
            session_store: self.session_store,
            session_lifetime: self.session_lifetime,
            former_identities: self.former_identities,
            revisit_interval: self.revisit_interval,
            key_log: self.key_log,
            sessions,
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("identity", &self.identity)
            .field("additional_identities", &self.additional_identities)
            .field("crypto", &self.crypto)
            .field("cipher_suites", &self.cipher_suites)
            .field("rekey", &self.rekey)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<I, A> fmt::Debug for ConfigBuilder<I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("cipher_suites", &self.cipher_suites)
            .field("rekey", &self.rekey)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The suites that were asked for, or all that the provider has and an identity can use.
fn chosen_suites(
    wanted: Option<Vec<CipherSuite>>,
    crypto: &CryptoProvider,
    schemes: &[SignatureScheme],
) -> Result<Vec<CipherSuite>, ConfigError> {
    let unsupported =
        |suite| ConfigError::UnsupportedCipherSuite { provider: crypto.name(), suite };
    let identity =
        |suite: &CipherSuite| schemes.iter().position(|s| *s == suite.signature_scheme());
    let mut supported = crypto.cipher_suites();
    let Some(mut suites) = wanted else {
        supported.retain(|suite| identity(suite).is_some());
        supported.sort_by_key(identity);
        return if supported.is_empty() { Err(unsupported(None)) } else { Ok(supported) };
    };
    if suites.is_empty() {
        return Err(ConfigError::NoCipherSuite);
    }
    dedup(&mut suites);
    if let Some(suite) = suites.iter().find(|suite| !supported.contains(suite)) {
        return Err(unsupported(Some(*suite)));
    }
    match suites.iter().find(|suite| identity(suite).is_none()) {
        Some(suite) => Err(ConfigError::SignatureScheme { suite: *suite }),
        None => Ok(suites),
    }
}

fn dedup<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}
