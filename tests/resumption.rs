//! Resumption over sockets: who resumes, with what data, and with which store.

#![allow(clippy::unwrap_used)]

#[path = "support/providers.rs"]
mod providers;

use std::{future::Future, io, sync::Arc};

use mls_channel::{
    Config, EarlyDataStatus, EncryptedStore, Error, HandshakeKind, Identity, Limits, MemoryStore,
    MlsAcceptor, MlsConnector, MlsListener, MlsStream, PinnedKeys, ServerName, SessionStore,
    error::SessionError,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};

struct Parties {
    client: Arc<Config>,
    server: Arc<Config>,
}

impl Parties {
    fn new(
        client_store: impl SessionStore + 'static,
        server_store: impl SessionStore + 'static,
    ) -> Self {
        let client = Identity::generate("client").unwrap();
        let server = Identity::generate("server").unwrap();
        let builder = |own: &Identity, peer: &Identity, crypto| {
            Config::builder()
                .crypto_provider(crypto)
                .identity(own.clone())
                .authentication_service(PinnedKeys::parse(&peer.public_line()).unwrap())
                .limits(Limits::default().with_max_early_data(16 * 1024))
        };
        Self {
            client: Arc::new(
                builder(&client, &server, providers::client())
                    .session_store(client_store)
                    .build()
                    .unwrap(),
            ),
            server: Arc::new(
                builder(&server, &client, providers::server())
                    .session_store(server_store)
                    .build()
                    .unwrap(),
            ),
        }
    }

    fn in_memory() -> Self {
        Self::new(MemoryStore::default(), MemoryStore::default())
    }

    fn connector(&self) -> MlsConnector {
        MlsConnector::from(Arc::clone(&self.client))
    }

    fn acceptor(&self) -> MlsAcceptor {
        MlsAcceptor::from(Arc::clone(&self.server))
    }

    async fn connect(&self) -> (MlsStream<DuplexStream>, MlsStream<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 14);
        both(self.connector().connect(name(), near), self.acceptor().accept(far)).await
    }
}

async fn both<A, B>(
    a: impl Future<Output = io::Result<A>>,
    b: impl Future<Output = io::Result<B>>,
) -> (A, B) {
    tokio::try_join!(a, b).unwrap()
}

fn name() -> ServerName {
    ServerName::new("server").unwrap()
}

async fn assert_works<A, B>(a: &mut MlsStream<A>, b: &mut MlsStream<B>)
where
    A: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut read = [0; 5];
    a.write_all(b"there").await.unwrap();
    b.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"there");
    b.write_all(b"again").await.unwrap();
    a.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"again");
}

fn error(error: &io::Error) -> Error {
    Error::from_io(error).cloned().unwrap_or_else(|| panic!("not an error of ours: {error:?}"))
}

// 2P-14
#[tokio::test]
async fn connect_resumes_and_says_so() {
    let parties = Parties::in_memory();
    let (client, _server) = parties.connect().await;
    assert_eq!(client.handshake_kind(), HandshakeKind::Full);
    let session = client.session_id().unwrap().clone();
    // The stream is dropped without a word: the transport broke.
    drop((client, _server));
    let (mut client, mut server) = parties.connect().await;
    assert_eq!(client.handshake_kind(), HandshakeKind::Resumed);
    assert_eq!(server.handshake_kind(), HandshakeKind::Resumed);
    assert_eq!((client.session_id(), server.session_id()), (Some(&session), Some(&session)));
    assert_eq!(client.channel_binding(), server.channel_binding());
    assert_works(&mut client, &mut server).await;
    let epoch = client.epoch();
    tokio::select! {
        rekeyed = client.rekey() => rekeyed.unwrap(),
        read = server.read_u8() => panic!("nothing was sent: {read:?}"),
    }
    assert_eq!(client.epoch(), epoch + 1);
    let (reads, writes) = client.into_split();
    assert_eq!((reads.session_id(), writes.session_id()), (Some(&session), Some(&session)));
    assert_eq!(writes.handshake_kind(), HandshakeKind::Resumed);
}

// 2P-14: both close in good order; the session can be resumed all the same.
#[tokio::test]
async fn a_session_outlives_a_clean_close() {
    let parties = Parties::in_memory();
    let (mut client, mut server) = parties.connect().await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop((client, server));
    assert_eq!(parties.connect().await.0.handshake_kind(), HandshakeKind::Resumed);
}

// 2P-14: the server of the old connection connects to its client.
#[tokio::test]
async fn a_server_calls_its_client_back() {
    let parties = Parties::in_memory();
    let (client, server) = parties.connect().await;
    let session = server.session_id().unwrap().clone();
    drop((client, server));
    let (near, far) = tokio::io::duplex(1 << 14);
    let connector = MlsConnector::from(Arc::clone(&parties.server));
    let acceptor = MlsAcceptor::from(Arc::clone(&parties.client));
    let (mut server, mut client) =
        both(connector.resume(&session, near), acceptor.accept(far)).await;
    assert_eq!(server.handshake_kind(), HandshakeKind::Resumed);
    assert_eq!(server.peer().name(), "client");
    assert_works(&mut server, &mut client).await;

    // A session that nobody knows.
    parties.server.remove_session(&session).unwrap();
    let (near, _far) = tokio::io::duplex(1 << 14);
    let failed = connector.resume(&session, near).await.unwrap_err();
    assert_eq!(error(&failed), SessionError::Unknown.into());
}

// TL-08
#[tokio::test]
async fn early_data_is_there_before_the_handshake_is_complete() {
    let parties = Parties::in_memory();
    drop(parties.connect().await);
    let (near, far) = tokio::io::duplex(1 << 14);
    let connector = parties.connector();
    let connecting = connector.connect_with_early_data(name(), near, b"GET /");
    let mut connecting = tokio_test(connecting);
    let acceptor = parties.acceptor();
    // The client's first flight is sent, and the client is not polled any more.
    assert!(connecting.poll_once().is_none());
    let (early_data, accept) = acceptor.accept_with_early_data(far).await.unwrap();
    assert_eq!(early_data.unwrap(), "GET /");
    // Not told yet: a server that dies now, before it has done anything with the data, must not have
    // said that it has it.
    assert!(connecting.poll_once().is_none());
    let (mut client, mut server) = both(connecting.finish(), accept).await;
    assert_eq!(client.early_data(), Some(EarlyDataStatus::Accepted));
    assert_eq!(server.take_early_data(), None);
    assert_works(&mut client, &mut server).await;
    drop((client, server));

    // Without a special call it is kept apart from what the stream reads.
    let (near, far) = tokio::io::duplex(1 << 14);
    let (mut client, mut server) =
        both(connector.connect_with_early_data(name(), near, b"more"), acceptor.accept(far)).await;
    assert_works(&mut client, &mut server).await;
    assert_eq!(server.take_early_data().unwrap(), "more");
    assert_eq!(server.take_early_data(), None);
    drop((client, server));

    // More than the server takes.
    let (near, far) = tokio::io::duplex(1 << 14);
    let (mut client, mut server) = both(
        connector.connect_with_early_data(name(), near, &[1; 16 * 1024 + 1]),
        acceptor.accept(far),
    )
    .await;
    assert_eq!(client.early_data(), Some(EarlyDataStatus::Rejected));
    assert_eq!(server.take_early_data(), None);
    assert_works(&mut client, &mut server).await;
}

/// A future that is polled by hand first.
struct ByHand<F>(std::pin::Pin<Box<F>>);

fn tokio_test<F: Future>(future: F) -> ByHand<F> {
    ByHand(Box::pin(future))
}

impl<F: Future> ByHand<F> {
    fn poll_once(&mut self) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.0.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    async fn finish(self) -> F::Output {
        self.0.await
    }
}

// 2P-14: many connections of one process at a time, each with a session of its own, over TCP.
async fn many_sessions(
    client_store: impl SessionStore + 'static,
    server_store: impl SessionStore + 'static,
) {
    const CONNECTIONS: usize = 6;
    let parties = Parties::new(client_store, server_store);
    let mut listener = MlsListener::bind("127.0.0.1:0", parties.acceptor()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut read).await {
                    stream.write_all(&read[..length]).await.unwrap();
                }
            });
        }
    });
    for round in 0..3 {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let socket = TcpStream::connect(address).await.unwrap();
            let mut client = parties.connector().connect(name(), socket).await.unwrap();
            let expected = match round {
                0 => HandshakeKind::Full,
                _ => HandshakeKind::Resumed,
            };
            assert_eq!(client.handshake_kind(), expected, "{:?}", client.not_resumed());
            client.rekey().await.unwrap();
            client.write_all(b"echo").await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
            clients.push(client);
        }
        let sessions: std::collections::HashSet<_> =
            clients.iter().map(|client| client.session_id().unwrap().clone()).collect();
        assert_eq!(sessions.len(), CONNECTIONS);
        for client in &mut clients {
            client.write_all(b"echo").await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
        }
    }
    serving.abort();
}

#[tokio::test]
async fn many_sessions_in_memory() {
    many_sessions(MemoryStore::default(), MemoryStore::default()).await;
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn many_sessions_in_a_file() {
    use mls_channel::RedbStore;
    let folder = tempfile::tempdir().unwrap();
    let client = RedbStore::open(folder.path().join("client")).unwrap();
    let server = RedbStore::open_without_sync(folder.path().join("server")).unwrap();
    many_sessions(EncryptedStore::new(client, &[1; 32]), server).await;
}

// 2P-14: a store at one end only is of no use, and does no harm.
#[tokio::test]
async fn a_server_without_a_store_is_connected_to_anew() {
    let parties = Parties::in_memory();
    drop(parties.connect().await);
    let server = Identity::generate("server").unwrap();
    drop(server);
    let stateless = Config::builder()
        .identity(parties.server.identity().clone())
        .authentication_service(
            PinnedKeys::parse(&parties.client.identity().public_line()).unwrap(),
        )
        .build()
        .unwrap();
    let acceptor = MlsAcceptor::from(Arc::new(stateless));
    let (near, far) = tokio::io::duplex(1 << 14);
    let (mut client, mut server) =
        both(parties.connector().connect(name(), near), acceptor.accept(far)).await;
    assert_eq!(client.handshake_kind(), HandshakeKind::Full);
    assert_eq!(server.session_id(), None);
    assert_works(&mut client, &mut server).await;
}

providers::mount_on_every_provider! {
    connect_resumes_and_says_so,
    a_server_calls_its_client_back,
    early_data_is_there_before_the_handshake_is_complete,
}
