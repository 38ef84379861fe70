//! rustls and tokio-rustls: TLS 1.3 in which both ends authenticate with Ed25519 certificates.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection,
    client::Resumption,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::support::Result;

const SERVER: &str = "server.example";
/// Sessions that each end remembers, at most.
const SESSIONS: usize = 256;

/// How the two ends are configured. Each knows the other's certificate.
pub(crate) struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

struct Credentials {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Configs {
    /// Every connection begins with a full handshake.
    pub(crate) fn new() -> Result<Self> {
        Self::with(aws_lc_rs::kx_group::X25519, None)
    }

    /// The same with X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem).
    pub(crate) fn hybrid() -> Result<Self> {
        Self::with(aws_lc_rs::kx_group::X25519MLKEM768, None)
    }

    /// Both ends remember sessions, and the server sends a ticket in every handshake, whose use takes
    /// a Diffie-Hellman exchange (PSK with (EC)DHE).
    pub(crate) fn resuming() -> Result<Self> {
        Self::with(aws_lc_rs::kx_group::X25519, Some(SESSIONS))
    }

    fn with(group: &'static dyn SupportedKxGroup, sessions: Option<usize>) -> Result<Self> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![group],
            ..aws_lc_rs::default_provider()
        });
        let client = Credentials::generate("client.example")?;
        let server = Credentials::generate(SERVER)?;

        let verifier = WebPkiClientVerifier::builder_with_provider(
            client.as_root()?.into(),
            Arc::clone(&provider),
        )
        .build()?;
        let roots = server.as_root()?;
        let mut server_config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.certificate], server.key)?;
        server_config.session_storage = match sessions {
            Some(sessions) => ServerSessionMemoryCache::new(sessions),
            None => Arc::new(NoServerSessionStorage {}),
        };
        // A client uses a ticket once.
        server_config.send_tls13_tickets = sessions.is_some().into();

        let mut client_config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![client.certificate], client.key)?;
        client_config.resumption =
            sessions.map_or_else(Resumption::disabled, Resumption::in_memory_sessions);

        Ok(Self { client: Arc::new(client_config), server: Arc::new(server_config) })
    }

    /// Performs a handshake over a transport. The client's end comes first.
    pub(crate) async fn connect<IO>(
        &self,
        near: IO,
        far: IO,
    ) -> Result<(client::TlsStream<IO>, server::TlsStream<IO>)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let connecting = connector.connect(ServerName::try_from(SERVER)?, near);
        Ok(tokio::try_join!(connecting, acceptor.accept(far))?)
    }

    /// Performs a handshake in memory: when it returns, both ends have authenticated each other.
    pub(crate) fn handshake(&self) -> Result<HandshakeKind> {
        let name = ServerName::try_from(SERVER)?;
        let mut client = Connection::from(ClientConnection::new(Arc::clone(&self.client), name)?);
        let mut server = Connection::from(ServerConnection::new(Arc::clone(&self.server))?);
        let mut buffer = Vec::new();
        while client.wants_write() || server.wants_write() {
            carry(&mut client, &mut server, &mut buffer)?;
            carry(&mut server, &mut client, &mut buffer)?;
        }
        let authenticated =
            |end: &Connection| !end.is_handshaking() && end.peer_certificates().is_some();
        if !authenticated(&client) || !authenticated(&server) {
            return Err("the TLS handshake did not finish".into());
        }
        client.handshake_kind().ok_or_else(|| "the TLS handshake is of no kind".into())
    }
}

impl Credentials {
    fn generate(name: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = CertificateParams::new([name.to_owned()])?.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// Trust in this certificate alone.
    fn as_root(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }
}

fn carry(from: &mut Connection, to: &mut Connection, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    while from.wants_write() {
        from.write_tls(buffer)?;
    }
    let mut unread = buffer.as_slice();
    while !unread.is_empty() {
        to.read_tls(&mut unread)?;
        to.process_new_packets()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_mutual() {
        let configs = Configs::new().unwrap();
        for _ in 0..2 {
            assert_eq!(configs.handshake().unwrap(), HandshakeKind::Full);
        }
        let configs = Configs::hybrid().unwrap();
        assert_eq!(configs.handshake().unwrap(), HandshakeKind::Full);
    }

    #[test]
    fn sessions_are_resumed_again_and_again() {
        let configs = Configs::resuming().unwrap();
        assert_eq!(configs.handshake().unwrap(), HandshakeKind::Full);
        for _ in 0..3 {
            assert_eq!(configs.handshake().unwrap(), HandshakeKind::Resumed);
        }
    }

    #[test]
    fn strangers_are_refused() {
        let ours = Configs::new().unwrap();
        let strangers = Configs { client: Configs::new().unwrap().client, server: ours.server };
        assert!(strangers.handshake().is_err());
    }
}
