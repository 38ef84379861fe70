//! Streams over an in-memory pipe and over TCP.

#![allow(clippy::unwrap_used)]

#[path = "support/providers.rs"]
mod providers;
mod support;

use std::{io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use mls_channel::{
    Config, Error, Identity, Limits, MlsAcceptor, MlsConnector, MlsFramed, MlsListener, MlsStream,
    PinnedKeys, RekeyPolicy, Role, ServerName,
    error::{ApiMisuse, AuthenticationError},
    wire::AlertDescription,
};
use support::{Configs, connect, over, pipe, tcp};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};

fn manual() -> Configs {
    Configs::new().rekey_policy(RekeyPolicy::manual())
}

fn error(error: &io::Error) -> Error {
    Error::from_io(error).cloned().unwrap_or_else(|| panic!("not an error of ours: {error:?}"))
}

// CH-01, CH-07
#[tokio::test]
async fn a_stream_tells_who_is_there() {
    let configs = manual();
    let (client, server) = tcp(&configs).await;
    assert_eq!(client.peer().public_key(), configs.server.identity().public_key());
    assert_eq!(server.peer().name(), "client");
    assert_eq!((client.role(), server.role()), (Role::Initiator, Role::Responder));
    assert_eq!(client.channel_binding(), server.channel_binding());
    assert_eq!(client.cipher_suite(), server.cipher_suite());
    assert_eq!(server.server_name().unwrap().as_str(), "server");
    assert_eq!(
        client.export_secret("label", b"", 32).unwrap(),
        server.export_secret("label", b"", 32).unwrap()
    );
    assert_eq!(client.get_ref().peer_addr().unwrap(), server.get_ref().local_addr().unwrap());
    let printed = format!("{client:?}");
    assert!(printed.contains("own_updates"), "{printed}");
    drop(client.into_inner());
}

// CH-01
#[tokio::test]
async fn the_transport_is_there_during_the_handshake_and_after_it() {
    let configs = manual();
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::new("server").unwrap();
    let mut connect = pin!(MlsConnector::from(Arc::new(configs.client)).connect(name, near));
    let mut accept = pin!(MlsAcceptor::from(Arc::new(configs.server)).accept(far));
    assert!(connect.get_ref().is_some() && accept.get_ref().is_some());
    let (client, _server) = tokio::try_join!(&mut connect, &mut accept).unwrap();
    assert!(connect.get_ref().is_none() && accept.get_ref().is_none());
    assert_eq!(client.role(), Role::Initiator);
}

// CH-01
#[tokio::test]
async fn bytes_go_both_ways_in_every_manner_of_reading_and_writing() {
    let (mut client, mut server) = pipe(&manual(), 1 << 16).await;
    client.write_all(b"one\ntwo\n").await.unwrap();
    let mut line = String::new();
    server.read_line(&mut line).await.unwrap();
    assert_eq!(line, "one\n");
    let mut rest = [0; 4];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"two\n");

    assert!(client.is_write_vectored());
    let slices = [io::IoSlice::new(b"a"), io::IoSlice::new(b""), io::IoSlice::new(b"bc")];
    assert_eq!(server.write_vectored(&slices).await.unwrap(), 3);
    let mut read = [0; 3];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"abc");

    assert_eq!(client.write(b"").await.unwrap(), 0);
    assert_eq!(client.read(&mut []).await.unwrap(), 0);
}

// CH-03: a write reaches the wire without a flush.
#[tokio::test]
async fn a_write_needs_no_flush() {
    let (mut client, mut server) = tcp(&manual()).await;
    client.write_all(b"no flush").await.unwrap();
    let mut read = [0; 8];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"no flush");
}

// CH-05: what is larger than every buffer on the way.
#[tokio::test]
async fn large_transfers_arrive_over_small_pipes_with_backpressure() {
    let policy = RekeyPolicy::manual().with_bytes(300_000);
    let configs = Configs::new()
        .rekey_policy(policy)
        .limits(Limits::default().with_write_buffer(20_000).with_read_ahead(10_000));
    for capacity in [1, 100, 20_000] {
        let size = if capacity == 1 { 20_000 } else { 2_000_000 };
        let (client, server) = pipe(&configs, capacity).await;
        let statistics = support::transfer_both_ways(client, server, size).await;
        if size > 300_000 {
            assert!(statistics.own_updates + statistics.peer_updates >= 6, "{statistics:?}");
        }
    }
}

// CH-02, CH-05, CH-06
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_halves_transfer_at_full_duplex_over_tcp_with_rekeys() {
    let configs = Configs::new().rekey_policy(RekeyPolicy::manual().with_bytes(1 << 20));
    let (client, server) = tcp(&configs).await;
    let statistics = support::transfer_split(client, server, 16 << 20).await;
    assert!(statistics.own_updates + statistics.peer_updates >= 2, "{statistics:?}");
}

// CH-06: resolves when the new epoch is in use in both directions.
#[tokio::test]
async fn rekey_resolves_in_the_new_epoch() {
    let (mut client, mut server) = pipe(&manual(), 1 << 16).await;
    let reader = async {
        let mut byte = [0];
        // Only reads: its answer goes out by itself.
        server.read_exact(&mut byte).await.unwrap();
        byte
    };
    let rekeyer = async {
        client.rekey().await.unwrap();
        assert_eq!(client.epoch(), 2);
        client.rekey().await.unwrap();
        assert_eq!(client.epoch(), 3);
        client.write_all(b"x").await.unwrap();
    };
    assert_eq!(tokio::join!(reader, rekeyer).0, *b"x");
    assert_eq!(server.epoch(), 3);
}

// CH-06: both ends at once, whole streams.
#[tokio::test]
async fn both_ends_rekey_at_once() {
    let (mut client, mut server) = pipe(&manual(), 1 << 16).await;
    for _ in 0..50 {
        // Whoever is done first goes on reading: the other one's update has to be answered.
        let first = async {
            client.rekey().await.unwrap();
            client.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'y');
        };
        let second = async {
            server.rekey().await.unwrap();
            server.write_all(b"y").await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'x');
        };
        tokio::join!(first, second);
    }
    assert_eq!((client.epoch(), server.epoch()), (101, 101));
}

// CH-06: two callers at once are both served.
#[tokio::test]
async fn both_halves_of_one_stream_rekey_at_once() {
    let (client, mut server) = pipe(&manual(), 1 << 16).await;
    let (mut read, mut write) = client.into_split();
    let answer = async {
        let mut buf = Vec::new();
        server.read_to_end(&mut buf).await.unwrap();
    };
    let ask = async {
        let (a, b) = tokio::join!(read.rekey(), write.rekey());
        a.unwrap();
        b.unwrap();
        assert!(write.statistics().own_updates >= 1);
        assert_eq!(write.epoch(), read.epoch());
        write.shutdown().await.unwrap();
    };
    tokio::join!(answer, ask);
}

// CH-03, the other way round: a writer's rekey is answered and noticed though it never reads.
#[tokio::test]
async fn an_application_that_only_writes_has_its_own_updates_answered() {
    let policy = RekeyPolicy::manual().with_bytes(50_000);
    let configs = Configs::new().client_rekey_policy(policy);
    for split in [false, true] {
        let (client, mut server) = pipe(&configs, 1 << 14).await;
        let read = async {
            let mut buf = Vec::new();
            server.read_to_end(&mut buf).await.unwrap();
            buf.len()
        };
        let write = async {
            let data = [7; 1000];
            if split {
                let (_read, mut write) = client.into_split();
                for _ in 0..2000 {
                    write.write_all(&data).await.unwrap();
                }
                write.shutdown().await.unwrap();
                write.statistics()
            } else {
                let mut client = client;
                for _ in 0..2000 {
                    client.write_all(&data).await.unwrap();
                }
                client.shutdown().await.unwrap();
                client.statistics()
            }
        };
        let (length, statistics) = tokio::join!(read, write);
        assert_eq!(length, 2_000_000);
        assert!(statistics.own_updates >= 5, "split: {split}: {statistics:?}");
    }
}

// CH-03: and it answers the peer's.
#[tokio::test]
async fn an_application_that_only_writes_answers_the_peer() {
    for split in [false, true] {
        let (client, mut server) = pipe(&manual(), 1 << 14).await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let write = async {
            let data = [7; 1000];
            if split {
                let (_read, mut write) = client.into_split();
                while stopped.try_recv().is_err() {
                    write.write_all(&data).await.unwrap();
                    tokio::task::yield_now().await;
                }
            } else {
                let mut client = client;
                while stopped.try_recv().is_err() {
                    client.write_all(&data).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        let rekey = async {
            let target = server.request_rekey().unwrap() + 4;
            let mut buf = vec![0; 4096];
            while server.statistics().own_updates < target {
                if server.read(&mut buf).await.unwrap() == 0 {
                    panic!("the peer is gone");
                }
                server.request_rekey().unwrap();
            }
            stop.send(()).unwrap();
        };
        tokio::join!(write, rekey);
    }
}

// CH-05: dropped futures leave the stream usable, and lose nothing.
#[tokio::test]
async fn dropped_futures_lose_nothing() {
    let (mut client, mut server) = pipe(&manual(), 64).await;
    let mut sent = Vec::new();
    let mut received = Vec::new();
    for round in 0..200_u32 {
        // Each future is polled a few times and dropped, wherever it is.
        let data = vec![u8::try_from(round % 251).unwrap(); 500];
        if let Some(written) = support::poll_some(3, client.write(&data)).await {
            sent.extend_from_slice(&data[..written.unwrap()]);
        }
        drop(support::poll_some(2, client.rekey()).await);
        let mut buf = [0; 300];
        if let Some(read) = support::poll_some(3, server.read(&mut buf)).await {
            received.extend_from_slice(&buf[..read.unwrap()]);
        }
        drop(support::poll_some(2, server.rekey()).await);
    }
    let finish = async { client.shutdown().await.unwrap() };
    let drain = async { server.read_to_end(&mut received).await.unwrap() };
    tokio::join!(finish, drain);
    assert!(sent.len() > 10_000);
    assert_eq!(received, sent);
    let shutdown = async {
        server.shutdown().await.unwrap();
        drop(server);
    };
    let mut rest = Vec::new();
    let (_, end) = tokio::join!(shutdown, client.read_to_end(&mut rest));
    end.unwrap();
}

#[tokio::test]
async fn a_rekey_while_unread_data_piles_up_says_so_and_still_happens() {
    let configs = manual().limits(Limits::default().with_read_ahead(10_000));
    let (mut client, mut server) = pipe(&configs, 1 << 20).await;
    server.write_all(&[1; 200_000]).await.unwrap();
    let refused = client.rekey().await.unwrap_err();
    assert_eq!(error(&refused), ApiMisuse::UnreadData.into());
    let mut buf = vec![0; 200_000];
    let (_, answered) = tokio::join!(client.read_exact(&mut buf), async {
        while server.epoch() == 1 {
            let _ = support::poll_some(1, server.read_u8()).await;
            tokio::task::yield_now().await;
        }
    });
    let () = answered;
    server.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    assert_eq!(client.epoch(), 2);
}

// CH-04
#[tokio::test]
async fn half_close_leaves_the_other_direction_rekeys_included() {
    let (mut client, mut server) = pipe(&manual(), 1 << 16).await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut request = String::new();
    server.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");

    let serve = async {
        server.write_all(b"first ").await.unwrap();
        server.rekey().await.unwrap();
        server.write_all(b"second").await.unwrap();
        server.shutdown().await.unwrap();
    };
    let mut answer = String::new();
    let (_, read) = tokio::join!(serve, client.read_to_string(&mut answer));
    read.unwrap();
    assert_eq!(answer, "first second");
    assert_eq!(server.epoch(), 2);
    // Reading again is still the end.
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

// CH-04, CH-06
#[tokio::test]
async fn whoever_has_closed_updates_when_told_and_not_by_policy() {
    let configs = manual().client_rekey_policy(RekeyPolicy::manual().with_records(4));
    let (mut client, mut server) = pipe(&configs, 1 << 16).await;
    client.shutdown().await.unwrap();
    for _ in 0..32 {
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    }
    assert_eq!(client.statistics().own_updates, 0);
    // The server is at the end of its reading: it answers while it writes.
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    let serve = async {
        loop {
            server.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        rekeyed = client.rekey() => rekeyed.unwrap(),
        () = serve => unreachable!(),
    }
    assert_eq!((client.statistics().own_updates, client.epoch()), (1, 2));
}

// CH-04
#[tokio::test]
async fn a_peer_that_vanishes_is_a_truncation() {
    let (mut client, server) = pipe(&manual(), 1 << 16).await;
    drop(server);
    let failed = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(error(&failed), Error::Truncated);

    let (client, server) = tcp(&manual()).await;
    drop(server.into_inner());
    let (mut read, _write) = client.into_split();
    assert_eq!(error(&read.read(&mut [0]).await.unwrap_err()), Error::Truncated);
}

#[tokio::test]
async fn a_rekey_with_a_peer_that_is_gone_fails() {
    let (mut client, mut server) = pipe(&manual(), 1 << 16).await;
    server.shutdown().await.unwrap();
    drop(server);
    let failed = client.rekey().await.unwrap_err();
    assert!(matches!(failed.kind(), io::ErrorKind::BrokenPipe), "{failed:?}");
}

// CH-10: a changed record ends both ends, each with its error.
#[tokio::test]
async fn a_flipped_bit_on_the_wire_ends_both_ends() {
    let configs = manual();
    let (near, middle_near) = tokio::io::duplex(1 << 16);
    let (middle_far, far) = tokio::io::duplex(1 << 16);
    let relay = tokio::spawn(support::relay_flipping(middle_near, middle_far, 2));
    let (mut client, mut server) = connect(&configs, near, far).await;
    client.write_all(b"changed on the way").await.unwrap();
    let failed = server.read(&mut [0; 32]).await.unwrap_err();
    assert_eq!(error(&failed), mls_channel::error::PeerMisbehaved::BadRecordMac.into());
    let told = client.read(&mut [0; 32]).await.unwrap_err();
    assert_eq!(error(&told), Error::AlertReceived(AlertDescription::BadRecordMac));
    let later = client.write(b"x").await.unwrap_err();
    assert_eq!(error(&later), error(&told), "errors are sticky");
    relay.abort();
}

#[tokio::test]
async fn framed_streams_carry_items() {
    let (client, server) = pipe(&manual(), 1 << 12).await;
    let (mut client, mut server) = (MlsFramed::new(client), MlsFramed::new(server));
    let items =
        [Bytes::from_static(b"one"), Bytes::from(vec![2; 16384]), Bytes::from(vec![3; 16385])];
    let send = async {
        for item in &items {
            client.send(item.clone()).await.unwrap();
        }
        client.close().await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        while let Some(item) = server.next().await {
            received.push(item.unwrap());
        }
        received
    };
    let (_, received) = tokio::join!(send, receive);
    assert_eq!(received[..2], items[..2], "an item that fits a record arrives as one");
    assert_eq!(received[2..].concat(), items[2]);
    assert!(server.next().await.is_none());
    server.get_mut().shutdown().await.unwrap();
    drop(server.into_inner());
}

#[tokio::test]
async fn channels_nest() {
    let configs = manual();
    let (outer_client, outer_server) = pipe(&configs, 1 << 16).await;
    let (mut client, mut server) = connect(&configs, outer_client, outer_server).await;
    client.write_all(b"inside").await.unwrap();
    let mut read = [0; 6];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"inside");
}

// A transport of any two halves.
#[tokio::test]
async fn joined_halves_are_a_transport_that_splits() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (read, write) = tokio::io::split(near);
    let (client, mut server) = connect(&manual(), tokio::io::join(read, write), far).await;
    let (mut read, mut write) = client.into_split();
    assert!(read.is_pair_of(&write));
    write.write_all(b"ping").await.unwrap();
    assert_eq!(server.read_u32().await.unwrap().to_be_bytes(), *b"ping");
    server.write_all(b"line\nrest").await.unwrap();
    let mut line = String::new();
    read.read_line(&mut line).await.unwrap();
    assert_eq!(line, "line\n");
    let mut rest = [0; 4];
    read.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"rest");
    assert_eq!(read.peer(), write.peer());
}

// CH-08, 2P-03
#[tokio::test]
async fn an_untrusted_client_is_refused_and_told() {
    let configs = manual();
    let stranger = Config::builder()
        .identity(Identity::generate("client").unwrap())
        .authentication_service(
            PinnedKeys::parse(&configs.server.identity().public_line()).unwrap(),
        )
        .build()
        .unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = MlsConnector::from(Arc::new(stranger));
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let (client, server) = tokio::join!(
        connector.connect(ServerName::new("server").unwrap(), near),
        acceptor.accept(far)
    );
    assert_eq!(error(&server.unwrap_err()), AuthenticationError::UnknownKey.into());
    let told = Error::AlertReceived(AlertDescription::AccessDenied);
    assert_eq!(error(&client.unwrap_err()), told);
}

// CH-09: with tokio's clock paused, nobody waits.
#[tokio::test(start_paused = true)]
async fn silent_peers_run_into_the_handshake_timeout() {
    let timeout = Duration::from_secs(7);
    let configs = manual().limits(Limits::default().with_handshake_timeout(timeout));
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let connector = MlsConnector::from(Arc::new(configs.client.clone()));
    let (near, _near_peer) = tokio::io::duplex(1 << 16);
    let (far, _far_peer) = tokio::io::duplex(1 << 16);
    let start = tokio::time::Instant::now();
    let (client, server) = tokio::join!(
        connector.connect(ServerName::new("server").unwrap(), near),
        acceptor.accept(far)
    );
    assert_eq!(error(&client.unwrap_err()), Error::HandshakeTimeout(timeout));
    assert_eq!(error(&server.unwrap_err()), Error::HandshakeTimeout(timeout));
    assert!(start.elapsed() >= timeout);
}

// CH-06: the timer of an idle reader.
#[tokio::test(start_paused = true)]
async fn time_starts_an_update_while_both_only_read() {
    let policy = RekeyPolicy::manual().with_interval(Duration::from_secs(60));
    let configs = Configs::new().client_rekey_policy(policy);
    let (mut client, server) = pipe(&configs, 1 << 16).await;
    client.write_all(b"data").await.unwrap();
    let (mut read, write) = server.into_split();
    let mut data = [0; 4];
    read.read_exact(&mut data).await.unwrap();
    let (mut byte, mut other) = ([0], [0]);
    let idle = async { tokio::join!(client.read(&mut byte), read.read(&mut other)) };
    let waited = tokio::time::timeout(Duration::from_secs(61), idle).await;
    assert!(waited.is_err(), "nothing was sent");
    assert_eq!((client.epoch(), write.epoch()), (2, 2));
}

#[tokio::test]
async fn the_listener_is_not_delayed_by_slow_peers() {
    let configs = manual();
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let mut listener = MlsListener::bind("127.0.0.1:0", acceptor).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Twenty who say nothing, or something else.
    let mut silent = Vec::new();
    for index in 0..20 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        if index % 2 == 0 {
            tcp.write_all(&[22, 3, 3]).await.unwrap();
        }
        silent.push(tcp);
    }
    let client = tokio::spawn(over(configs.client.clone(), address));
    let (mut stream, from) = listener.accept().await.unwrap();
    let mut client = client.await.unwrap();
    assert_eq!(from, client.get_ref().local_addr().unwrap());
    assert!(stream.get_ref().nodelay().unwrap());
    stream.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    drop(silent);
}

#[tokio::test]
async fn the_listener_counts_failures_and_goes_on() {
    let configs = manual();
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut listener = MlsListener::bind("127.0.0.1:0", acceptor)
        .await
        .unwrap()
        .on_failure(move |_, failed| tell.send(error(failed)).unwrap());
    let address = listener.local_addr().unwrap();
    let bad = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let failed = told.recv().await.unwrap();
        assert_eq!(failed, mls_channel::error::InvalidMessage::UnknownContentType(b'G').into());
        over(configs.client.clone(), address).await
    };
    let (accepted, _client) = tokio::join!(listener.accept(), bad);
    accepted.unwrap();
    assert_eq!(listener.failures(), 1);
}

// CH-09
#[tokio::test]
async fn the_listener_bounds_handshakes_in_flight() {
    let configs = manual();
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = MlsListener::new(listener, acceptor).max_handshakes(3);
    let address = listener.local_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..20 {
        assert!(support::poll_some(5, listener.accept()).await.is_none());
        assert!(listener.handshakes() <= 3);
    }
    assert_eq!(listener.handshakes(), 3);
    // When they give up, the next ones get their turn.
    let client = tokio::spawn(over(configs.client.clone(), address));
    drop(silent);
    listener.accept().await.unwrap();
    client.await.unwrap();
}

fn _streams_can_be_sent_between_threads(stream: MlsStream<DuplexStream>) -> impl Send + Sync {
    stream
}

// CH-06: a rekey of the writing half on a busy connection, with read-ahead too small for what is on
// its way, and with the reading half gone.
#[tokio::test]
async fn the_writing_half_rekeys_while_the_reading_half_is_busy_or_gone() {
    let configs = manual().limits(Limits::default().with_read_ahead(10_000));
    for dropped in [false, true] {
        let (client, server) = pipe(&configs, 1 << 20).await;
        let (mut server_read, mut server_write) = server.into_split();
        server_write.write_all(&[1; 500_000]).await.unwrap();
        let (mut read, mut write) = client.into_split();
        let serve = async {
            let mut buf = [0; 100];
            // Reads until the client closes, and so answers.
            while server_read.read(&mut buf).await.unwrap() > 0 {}
        };
        let rekey = async {
            write.rekey().await.unwrap();
            assert_eq!(write.epoch(), 2);
            write.shutdown().await.unwrap();
        };
        let receive = async move {
            if dropped {
                drop(read);
                return;
            }
            let mut buf = vec![0; 500_000];
            read.read_exact(&mut buf).await.unwrap();
        };
        tokio::join!(rekey, serve, receive);
    }
}

providers::mount_on_every_provider! {
    a_stream_tells_who_is_there,
    bytes_go_both_ways_in_every_manner_of_reading_and_writing,
    rekey_resolves_in_the_new_epoch,
    both_ends_rekey_at_once,
    half_close_leaves_the_other_direction_rekeys_included,
    a_flipped_bit_on_the_wire_ends_both_ends,
    an_untrusted_client_is_refused_and_told,
}
