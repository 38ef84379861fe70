//! What the benches share with the comparison: configurations, a pair of ends in memory, traffic.

pub(crate) mod traffic;

use std::{error, sync::Arc};

use bytes::BytesMut;
use mls_channel::{
    CipherSuite, Config, Connection, Identity, KeyPackages, Limits, MlsAcceptor, MlsConnector,
    MlsStream, PinnedKeys, RekeyPolicy, ServerName, SessionStore, Time, internal,
};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// The suite whose records are those of TLS_AES_128_GCM_SHA256.
pub(crate) const AES: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

const SERVER: &str = "server.example";

/// How the two ends are configured. Each knows the other's key.
#[derive(Clone)]
pub(crate) struct Configs {
    initiator: Arc<Config>,
    responder: Arc<Config>,
}

/// The two ends of an established channel, in memory.
pub(crate) struct Pair {
    pub(crate) initiator: Connection,
    pub(crate) responder: Connection,
    pub(crate) to_responder: BytesMut,
    pub(crate) to_initiator: BytesMut,
}

impl Configs {
    /// Of all defaults only the limit on updates without data is lifted: benches send nothing else.
    pub(crate) fn new(suite: CipherSuite) -> Result<Self> {
        Self::with_policies(suite, RekeyPolicy::default(), RekeyPolicy::default())
    }

    pub(crate) fn with_policies(
        suite: CipherSuite,
        initiator: RekeyPolicy,
        responder: RekeyPolicy,
    ) -> Result<Self> {
        let scheme = suite.signature_scheme();
        let client = Identity::generate_with("client", scheme)?;
        let server = Identity::generate_with(SERVER, scheme)?;
        let config = |own: &Identity, peer: &Identity, policy| -> Result<_> {
            let config = Config::builder()
                .identity(own.clone())
                .authentication_service(PinnedKeys::parse(&peer.public_line())?)
                .cipher_suites([suite])
                .rekey_policy(policy)
                .limits(Limits::default().with_max_updates_without_data(u32::MAX))
                .build()?;
            Ok(Arc::new(config))
        };
        Ok(Self {
            initiator: config(&client, &server, initiator)?,
            responder: config(&server, &client, responder)?,
        })
    }

    /// The same, but each end has a store for its sessions.
    pub(crate) fn with_stores<S>(&self, initiator: S, responder: S) -> Result<Self>
    where
        S: SessionStore + 'static,
    {
        let config = |config: &Config, store| -> Result<_> {
            Ok(Arc::new(config.to_builder().session_store(store).build()?))
        };
        Ok(Self {
            initiator: config(&self.initiator, initiator)?,
            responder: config(&self.responder, responder)?,
        })
    }

    /// No KeyPackages of the initiator's yet.
    pub(crate) fn key_packages(&self) -> KeyPackages {
        KeyPackages::new(Arc::clone(&self.initiator))
    }

    /// Makes KeyPackages for the handshakes that follow.
    pub(crate) fn make(&self, key_packages: &KeyPackages, count: usize) -> Result<()> {
        Ok(key_packages.make(&ServerName::new(SERVER)?, count, Time::now())?)
    }

    /// Performs a handshake over a transport. The initiator's end comes first.
    pub(crate) async fn connect<IO>(
        &self,
        near: IO,
        far: IO,
    ) -> Result<(MlsStream<IO>, MlsStream<IO>)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = MlsConnector::from(Arc::clone(&self.initiator));
        let acceptor = MlsAcceptor::from(Arc::clone(&self.responder));
        let connecting = connector.connect(ServerName::new(SERVER)?, near);
        Ok(tokio::try_join!(connecting, acceptor.accept(far))?)
    }
}

impl Pair {
    /// Performs a handshake: when it returns, both ends have authenticated each other.
    pub(crate) fn establish(configs: &Configs) -> Result<Self> {
        Self::establish_with(configs, &configs.key_packages())
    }

    /// As [`Pair::establish`], with KeyPackages that were made ahead.
    pub(crate) fn establish_with(configs: &Configs, key_packages: &KeyPackages) -> Result<Self> {
        let mut pair = Self::begin(configs, key_packages)?;
        pair.exchange()?;
        if pair.initiator.peer().is_none() || pair.responder.peer().is_none() {
            return Err("the handshake did not finish".into());
        }
        Ok(pair)
    }

    /// A handshake whose first message is on its way.
    pub(crate) fn begin(configs: &Configs, key_packages: &KeyPackages) -> Result<Self> {
        let now = Time::now();
        let name = ServerName::new(SERVER)?;
        let mut to_responder = BytesMut::new();
        let initiator =
            Connection::initiator_with_key_packages(key_packages, name, now, &mut to_responder)?;
        let responder = Connection::responder(Arc::clone(&configs.responder), now);
        Ok(Self { initiator, responder, to_responder, to_initiator: BytesMut::new() })
    }

    /// Carries bytes to and fro until both ends are silent. Application data is dropped.
    pub(crate) fn exchange(&mut self) -> Result<()> {
        let now = Time::now();
        for _ in 0..8 {
            if self.to_responder.is_empty() && self.to_initiator.is_empty() {
                return Ok(());
            }
            let Self { initiator, responder, to_responder, to_initiator } = self;
            while responder.handle_input(now, to_responder, to_initiator)?.is_some() {}
            while initiator.handle_input(now, to_initiator, to_responder)?.is_some() {}
        }
        Err("the two ends do not fall silent".into())
    }

    /// Renews the initiator's keys: when it returns, both directions use the new epoch.
    pub(crate) fn rekey(&mut self) -> Result<()> {
        let ticket = self.initiator.rekey(&mut self.to_responder)?;
        self.exchange()?;
        if self.initiator.statistics().is_none_or(|statistics| statistics.own_updates < ticket) {
            return Err("the update did not finish".into());
        }
        Ok(())
    }

    /// Renews the initiator's keys in the two groups alone. The channel cannot be used afterwards.
    pub(crate) fn update_groups(&mut self) -> Result<()> {
        Ok(internal::update_groups(&mut self.initiator, &mut self.responder)?)
    }

    /// Seals `data` at the initiator and opens it at the responder.
    pub(crate) fn send(&mut self, data: &[u8]) -> Result<()> {
        self.initiator.write(data, &mut self.to_responder)?;
        self.exchange()
    }
}
