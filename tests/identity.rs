//! Who is there, over streams: identities that change, and peers that are asked about again.

#![allow(clippy::unwrap_used)]

#[path = "support/providers.rs"]
mod providers;
#[allow(dead_code, reason = "each test uses a part of it")]
mod support;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mls_channel::{
    AuthenticationRequest, AuthenticationService, Config, Error, HandshakeKind, Identity,
    KeyLogFile, LazyConfigAcceptor, Limits, MemoryStore, MlsConnector, MlsStream, PeerIdentity,
    PinnedKeys, Purpose, RekeyPolicy, Role, ServerName,
    error::{AlertDescription, AuthenticationError},
};
use support::{Configs, pipe};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Believes whoever comes, until it is told otherwise.
#[derive(Default)]
struct Judge {
    refusing: AtomicBool,
}

impl AuthenticationService for Judge {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        if self.refusing.load(Relaxed) {
            return Err(match request.purpose {
                Purpose::Revisit { .. } => AuthenticationError::Revoked,
                _ => AuthenticationError::CredentialChangeRefused,
            });
        }
        let presented = request.presented;
        Ok(PeerIdentity::new(presented.to_name()?, presented.to_public_key()?))
    }
}

/// Configurations of which the server asks `judge`.
fn configs(judge: &Arc<Judge>, revisit: Option<Duration>) -> Configs {
    let mut configs = Configs::new();
    configs.server = Config::builder()
        .identity(configs.server.identity().clone())
        .authentication_service(Arc::clone(judge))
        .crypto_provider(providers::server())
        .rekey_policy(RekeyPolicy::manual())
        .revisit_interval(revisit)
        .build()
        .unwrap();
    configs
}

/// Reads while `work` goes on.
async fn reading<T>(stream: &mut MlsStream<DuplexStream>, work: impl Future<Output = T>) -> T {
    tokio::select! {
        result = work => result,
        read = stream.read_u8() => panic!("{read:?}"),
    }
}

// 2P-13
#[tokio::test]
async fn an_identity_changes_while_the_stream_goes_on() {
    let judge = Arc::new(Judge::default());
    let (mut client, mut server) = pipe(&configs(&judge, None), 64 * 1024).await;
    let next = Identity::generate("renewed").unwrap();
    reading(&mut server, client.rotate_identity(next.clone())).await.unwrap();
    assert_eq!(client.identity().name(), "renewed");
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    let peer = server.peer();
    assert_eq!((peer.name(), peer.public_key()), ("renewed", next.public_key()));
    assert_eq!(server.epoch(), client.epoch());

    // Refused, and nothing has changed.
    judge.refusing.store(true, Relaxed);
    let other = Identity::generate("other").unwrap();
    let error = reading(&mut server, client.rotate_identity(other)).await.unwrap_err();
    assert_eq!(Error::from_io(&error), Some(&Error::RotationRefused));
    reading(&mut server, client.rekey()).await.unwrap();
    assert_eq!(client.identity().name(), "renewed");
    assert_eq!(server.peer(), peer);
    let statistics = (client.statistics(), server.statistics());
    assert_eq!((statistics.0.rotations, statistics.0.refused_rotations), (1, 1));
    assert_eq!((statistics.1.peer_rotations, statistics.1.refused_peer_rotations), (1, 1));
}

// 2P-13
#[tokio::test]
async fn either_half_changes_the_identity_under_load() {
    const SIZE: usize = 4 << 20;
    let judge = Arc::new(Judge::default());
    let (client, server) = pipe(&configs(&judge, None), 64 * 1024).await;
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let identity = |name: &str| Identity::generate(name).unwrap();
    let echo = tokio::spawn(async move {
        let copied = tokio::io::copy_buf(&mut server_reads, &mut server_writes).await.unwrap();
        server_writes.shutdown().await.unwrap();
        (copied, server_reads.peer().name().to_owned())
    });
    let write = tokio::spawn(async move {
        for round in 0..4 {
            client_writes.write_all(&vec![round; SIZE / 4]).await.unwrap();
            client_writes.rotate_identity(identity(&format!("by-writer-{round}"))).await.unwrap();
        }
        client_writes
    });
    let mut received = vec![0; SIZE];
    client_reads.read_exact(&mut received).await.unwrap();
    let mut client_writes = write.await.unwrap();
    assert_eq!(client_reads.statistics().rotations, 4);
    client_reads.rotate_identity(identity("by-reader")).await.unwrap();
    client_writes.shutdown().await.unwrap();
    assert_eq!(client_reads.read(&mut [0]).await.unwrap(), 0);
    for (round, piece) in (0..4).zip(received.chunks(SIZE / 4)) {
        assert!(piece.iter().all(|byte| *byte == round));
    }
    assert_eq!(echo.await.unwrap(), (SIZE as u64, "by-reader".to_owned()));
}

// 2P-13: nothing moves, and yet it is noticed in time.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_ends_when_its_peer_is_revoked() {
    const INTERVAL: Duration = Duration::from_secs(60);
    for split in [false, true] {
        let judge = Arc::new(Judge::default());
        let (mut client, mut server) = pipe(&configs(&judge, Some(INTERVAL)), 64 * 1024).await;
        let began = tokio::time::Instant::now();
        let revoke = async {
            tokio::time::sleep(INTERVAL * 5 / 2).await;
            judge.refusing.store(true, Relaxed);
        };
        let serve = async {
            let error = if split {
                let (mut reads, _writes) = server.into_split();
                reads.read_u8().await.unwrap_err()
            } else {
                server.read_u8().await.unwrap_err()
            };
            (error, began.elapsed())
        };
        let ((error, after), told, ()) = tokio::join!(serve, client.read_u8(), revoke);
        let error = Error::from_io(&error).unwrap();
        assert_eq!(*error, Error::PeerNotTrusted(AuthenticationError::Revoked));
        assert!(
            after >= INTERVAL * 3 - Duration::from_secs(1) && after < INTERVAL * 4,
            "{after:?}"
        );
        let told = told.unwrap_err();
        let alert = AlertDescription::CertificateRevoked;
        assert_eq!(Error::from_io(&told), Some(&Error::AlertReceived(alert)));
    }
}

/// A configuration of the server under another name.
fn host(configs: &Configs, name: &str) -> (Identity, Arc<Config>) {
    let identity = Identity::generate(name).unwrap();
    let config = Config::builder()
        .identity(identity.clone())
        .authentication_service(
            PinnedKeys::parse(&configs.client.identity().public_line()).unwrap(),
        )
        .session_store(MemoryStore::default())
        .rekey_policy(RekeyPolicy::manual())
        .build()
        .unwrap();
    (identity, Arc::new(config))
}

/// A client that stores sessions and believes in this host.
fn client_of(configs: &Configs, host: &Identity) -> MlsConnector {
    let config = Config::builder()
        .identity(configs.client.identity().clone())
        .authentication_service(PinnedKeys::parse(&host.public_line()).unwrap())
        .session_store(MemoryStore::default())
        .rekey_policy(RekeyPolicy::manual())
        .build()
        .unwrap();
    MlsConnector::from(Arc::new(config))
}

/// Answers by name, or by session, and declines sessions that no host has.
async fn serve(
    io: DuplexStream,
    hosts: &[(Identity, Arc<Config>)],
) -> std::io::Result<MlsStream<DuplexStream>> {
    let mut start = LazyConfigAcceptor::new(io, Limits::default()).await?;
    if let Some(session) = start.client_hello().session_id().cloned() {
        let known = hosts.iter().find(|(_, config)| config.has_session(&session).unwrap());
        match known {
            Some((_, config)) => return start.into_stream(Arc::clone(config)).await,
            None => start = start.decline_session()?.await?,
        }
    }
    let name = start.client_hello().server_name().unwrap().as_str().to_owned();
    let (_, config) = hosts.iter().find(|(identity, _)| identity.name() == name).unwrap();
    start.into_stream(Arc::clone(config)).await
}

// 2P-14, CH-07
#[tokio::test]
async fn one_acceptor_serves_many_names_and_their_sessions() {
    let configs = Configs::new();
    let mut hosts = ["a.example", "b.example"].map(|name| host(&configs, name));
    for index in 0..hosts.len() {
        let connector = client_of(&configs, &hosts[index].0);
        let name = ServerName::new(hosts[index].0.name()).unwrap();
        for round in 0..3 {
            if round == 2 {
                // The host has lost its sessions.
                let config = hosts[index].1.to_builder().session_store(MemoryStore::default());
                hosts[index].1 = Arc::new(config.build().unwrap());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            let connect = connector.connect(name.clone(), near);
            let (mut near, mut far) = tokio::try_join!(connect, serve(far, &hosts)).unwrap();
            let expected = if round == 1 { HandshakeKind::Resumed } else { HandshakeKind::Full };
            assert_eq!(near.handshake_kind(), expected, "round {round}");
            assert_eq!(near.peer().name(), hosts[index].0.name());
            assert_eq!(far.server_name(), Some(&name));
            near.write_all(b"x").await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'x');
        }
    }
}

// CH-09
#[tokio::test(start_paused = true)]
async fn a_silent_initiator_does_not_hold_a_lazy_acceptor() {
    let limits = Limits::default();
    let (mut near, far) = tokio::io::duplex(1024);
    let began = tokio::time::Instant::now();
    let error = LazyConfigAcceptor::new(far, limits).await.unwrap_err();
    let timeout = limits.handshake_timeout;
    assert_eq!(Error::from_io(&error), Some(&Error::HandshakeTimeout(timeout)));
    assert!(began.elapsed() >= timeout);
    let mut told = Vec::new();
    near.read_to_end(&mut told).await.unwrap();
    assert_eq!(told, [21, 3, 3, 0, 2, 1, 90]);

    // So does one that sends a hello and then nothing more, after the answer.
    let configs = Configs::new();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connect = MlsConnector::from(Arc::new(configs.client.clone()))
        .connect(ServerName::new("server").unwrap(), near);
    let hello = async {
        let mut connect = std::pin::pin!(connect);
        // It is polled once: the hello is sent.
        std::future::poll_fn(|cx| {
            assert!(connect.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        std::future::pending::<()>().await;
    };
    let began = tokio::time::Instant::now();
    let accept = async {
        let start = LazyConfigAcceptor::new(far, limits).await.unwrap();
        tokio::time::sleep(timeout / 2).await;
        start.into_stream(Arc::new(configs.server.clone())).await.unwrap_err()
    };
    let error = tokio::select! {
        error = accept => error,
        () = hello => unreachable!(),
    };
    assert_eq!(Error::from_io(&error), Some(&Error::HandshakeTimeout(timeout)));
    let elapsed = began.elapsed();
    assert!(elapsed >= timeout && elapsed < timeout * 5 / 4, "{elapsed:?}");
}

// CH-07
#[tokio::test]
async fn the_halves_say_what_the_stream_says() {
    let (client, server) = pipe(&Configs::new(), 64 * 1024).await;
    let binding = client.channel_binding();
    let exported = client.export_secret("label", b"", 32).unwrap();
    let (mut reads, mut writes) = server.into_split();
    assert_eq!((reads.channel_binding(), writes.channel_binding()), (binding, binding));
    assert_eq!(reads.export_secret("label", b"", 32).await.unwrap(), exported);
    assert_eq!(writes.export_secret("label", b"", 32).await.unwrap(), exported);
    assert!(writes.export_secret("MLS-TLS x", b"", 32).await.is_err());
    assert_eq!(reads.server_name(), client.server_name());
    assert_eq!(writes.server_name(), client.server_name());
    assert_eq!(reads.alpn_protocol(), writes.alpn_protocol());
    assert_eq!((reads.session_id(), writes.session_id()), (None, None));
    assert_eq!(reads.handshake_kind(), client.handshake_kind());
    assert_eq!(writes.handshake_kind(), client.handshake_kind());
    assert_eq!((reads.role(), writes.role()), (Role::Responder, Role::Responder));
    assert_eq!(
        (reads.cipher_suite(), writes.cipher_suite()),
        (client.cipher_suite(), client.cipher_suite())
    );
}

/// Run by the test below, in a process of its own with the variable set.
#[tokio::test]
#[ignore = "writes where the environment says"]
async fn writes_a_key_log() {
    let mut configs = Configs::new();
    let silent = pipe(&configs, 64 * 1024).await;
    let log = KeyLogFile::new().unwrap();
    configs.client = configs.client.to_builder().key_log(log).build().unwrap();
    let (mut client, mut server) = pipe(&configs, 64 * 1024).await;
    reading(&mut server, client.rekey()).await.unwrap();
    drop(silent);
}

// CH-07: the variable alone has no effect; with the call in the code the file is written.
#[test]
fn the_key_log_goes_to_the_file_of_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let run = |set: bool| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "writes_a_key_log", "--ignored"]).env_remove("SSLKEYLOGFILE");
        if set {
            command.env("SSLKEYLOGFILE", &path);
        }
        assert!(command.output().unwrap().status.success());
    };
    run(false);
    assert!(!path.exists());
    run(true);
    let content = std::fs::read_to_string(&path).unwrap();
    // One connection with two epochs: the one without a key log left nothing.
    let labels: Vec<_> = content.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        labels,
        [
            "MLS_TLS_GROUP_ID",
            "MLS_TLS_CLIENT_TRAFFIC_SECRET_1",
            "MLS_TLS_SERVER_TRAFFIC_SECRET_1",
            "MLS_TLS_CLIENT_TRAFFIC_SECRET_2",
            "MLS_TLS_SERVER_TRAFFIC_SECRET_2",
        ]
    );
}

providers::mount_on_every_provider! {
    an_identity_changes_while_the_stream_goes_on,
    one_acceptor_serves_many_names_and_their_sessions,
}
