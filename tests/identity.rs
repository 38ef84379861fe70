//! Who is there, over streams: identities that change, and peers that are asked about again.

#[path = "support/providers.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod providers;
#[allow(dead_code)]
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
    AuthenticationRequest, AuthenticationService, Config, Error, Identity, MlsStream, PeerIdentity,
    Purpose, RekeyPolicy,
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
