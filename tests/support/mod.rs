//! What the integration tests share.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use mls_channel::{
    Config, Identity, IntoSplit, Limits, MlsAcceptor, MlsConnector, MlsStream, PinnedKeys,
    RekeyPolicy, ServerName, Statistics,
    wire::{ContentType, HEADER_LEN, RecordCodec},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::providers;

/// The configurations of two parties that know each other.
pub(crate) struct Configs {
    pub(crate) client: Config,
    pub(crate) server: Config,
}

impl Configs {
    pub(crate) fn new() -> Self {
        let client = Identity::generate("client").unwrap();
        let server = Identity::generate("server").unwrap();
        let config = |own: &Identity, peer: &Identity, crypto| {
            Config::builder()
                .identity(own.clone())
                .authentication_service(PinnedKeys::parse(&peer.public_line()).unwrap())
                .crypto_provider(crypto)
                .rekey_policy(RekeyPolicy::manual())
                .build()
                .unwrap()
        };
        Self {
            client: config(&client, &server, providers::client()),
            server: config(&server, &client, providers::server()),
        }
    }

    fn rebuild(config: &Config, policy: RekeyPolicy, limits: Limits) -> Config {
        config.to_builder().rekey_policy(policy).limits(limits).build().unwrap()
    }

    pub(crate) fn rekey_policy(self, policy: RekeyPolicy) -> Self {
        Self {
            client: Self::rebuild(&self.client, policy, self.client.limits()),
            server: Self::rebuild(&self.server, policy, self.server.limits()),
        }
    }

    pub(crate) fn client_rekey_policy(self, policy: RekeyPolicy) -> Self {
        let client = Self::rebuild(&self.client, policy, self.client.limits());
        Self { client, ..self }
    }

    pub(crate) fn limits(self, limits: Limits) -> Self {
        Self {
            client: Self::rebuild(&self.client, self.client.rekey_policy(), limits),
            server: Self::rebuild(&self.server, self.server.rekey_policy(), limits),
        }
    }
}

/// A channel over two ends of a transport.
pub(crate) async fn connect<A, B>(
    configs: &Configs,
    near: A,
    far: B,
) -> (MlsStream<A>, MlsStream<B>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let connector = MlsConnector::from(Arc::new(configs.client.clone()));
    let acceptor = MlsAcceptor::from(Arc::new(configs.server.clone()));
    let name = ServerName::new("server").unwrap();
    tokio::try_join!(connector.connect(name, near), acceptor.accept(far)).unwrap()
}

/// A channel over an in-memory pipe that holds `capacity` bytes.
pub(crate) async fn pipe(
    configs: &Configs,
    capacity: usize,
) -> (MlsStream<DuplexStream>, MlsStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(capacity);
    connect(configs, near, far).await
}

/// A channel over TCP loopback.
pub(crate) async fn tcp(configs: &Configs) -> (MlsStream<TcpStream>, MlsStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    connect(configs, near.unwrap(), far.unwrap().0).await
}

/// A client that connects to a listener.
pub(crate) async fn over(config: Config, address: SocketAddr) -> MlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = MlsConnector::from(Arc::new(config));
    connector.connect(ServerName::new("server").unwrap(), tcp).await.unwrap()
}

fn pattern(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|index| index.wrapping_mul(0x9e37_79b9).to_le_bytes()[2])
        .collect()
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), size: usize) {
    let mut sent = 0;
    while sent < size {
        // Pieces of all sizes, below and above a record.
        let length = (sent % 40_000 + 1).min(size - sent);
        writer.write_all(&pattern(sent, length)).await.unwrap();
        sent += length;
    }
    writer.shutdown().await.unwrap();
}

async fn receive(reader: &mut (impl AsyncRead + Unpin), size: usize) {
    let mut received = 0;
    let mut buf = vec![0; 50_000];
    loop {
        let length = reader.read(&mut buf).await.unwrap();
        if length == 0 {
            break;
        }
        assert!(buf[..length] == pattern(received, length), "at {received}");
        received += length;
    }
    assert_eq!(received, size);
}

/// Sends `size` bytes in both directions at once over split halves, closes, and checks all of it.
/// Gives the client's statistics.
pub(crate) async fn transfer_split<IO>(
    client: MlsStream<IO>,
    server: MlsStream<IO>,
    size: usize,
) -> Statistics
where
    IO: IntoSplit + Send + 'static,
    IO::ReadHalf: Send,
    IO::WriteHalf: Send,
{
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let tasks = [
        tokio::spawn(async move {
            send(&mut server_write, size).await;
            server_write.epoch()
        }),
        tokio::spawn(async move {
            receive(&mut server_read, size).await;
            server_read.epoch()
        }),
        tokio::spawn(async move {
            send(&mut client_write, size).await;
            client_write.epoch()
        }),
    ];
    receive(&mut client_read, size).await;
    for task in tasks {
        task.await.unwrap();
    }
    client_read.statistics()
}

/// The same over whole streams, each in the hands of `tokio::io::split`.
pub(crate) async fn transfer_both_ways<IO>(
    client: MlsStream<IO>,
    server: MlsStream<IO>,
    size: usize,
) -> Statistics
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    tokio::join!(
        send(&mut client_write, size),
        receive(&mut server_read, size),
        send(&mut server_write, size),
        receive(&mut client_read, size),
    );
    client_read.unsplit(client_write).statistics()
}

/// Polls a future at most `times` times, letting others run in between, and drops it then.
pub(crate) async fn poll_some<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx: &mut Context<'_>| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        });
        if let Some(output) = polled.await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Relays records both ways and flips a bit in the payload of the client's record with the given
/// number.
pub(crate) async fn relay_flipping(near: DuplexStream, far: DuplexStream, number: usize) {
    use futures::{SinkExt, StreamExt};

    let (near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, far_write) = tokio::io::split(far);
    let forth = async {
        let mut records = FramedRead::new(near_read, RecordCodec::default());
        let mut out = FramedWrite::new(far_write, RecordCodec::default());
        let mut count = 0;
        while let Some(Ok(record)) = records.next().await {
            let content_type = record.content_type();
            let mut payload = record.into_payload();
            if count == number {
                assert_eq!(content_type, ContentType::ApplicationData);
                payload[HEADER_LEN] ^= 1;
            }
            count += 1;
            let record = mls_channel::wire::Record::new(content_type, payload).unwrap();
            out.send(record).await.unwrap();
        }
    };
    let back = tokio::io::copy(&mut far_read, &mut near_write);
    let _ = tokio::join!(forth, back);
}
