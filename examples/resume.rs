//! A transfer that is cut again and again, and finishes.
//!
//! ```text
//! cargo run --release --example resume
//! cargo run --release --example resume -- --size 256MiB --cuts 20
//! ```
//!
//! A client sends a file to a server over TCP. Something between the two cuts the connection several
//! times, wherever it happens to be. Each time the client connects again, and the session goes on from
//! what both have stored, each in a file of its own: one round trip, with new key material from both
//! sides, and the question how much has arrived travels along in the first flight. In the end the
//! hashes at both ends must be the same.

use std::{error::Error, io, path::Path, process::ExitCode, sync::Arc, time::Instant};

use clap::Parser;
use mls_channel::{
    Config, EarlyDataStatus, HandshakeKind, Identity, Limits, MlsAcceptor, MlsConnector, MlsStream,
    PinnedKeys, RedbStore, RekeyPolicy, ServerName,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::size::Size;

#[path = "common/size.rs"]
mod size;

/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;

/// What the client asks first: how much has arrived?
const QUESTION: &[u8] = b"?";

/// Sends data over connections that are cut, until all of it is there.
#[derive(Parser)]
struct Arguments {
    /// How much to send
    #[arg(long, default_value = "64MiB")]
    size: Size,
    /// How often the connection is cut
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..1000))]
    cuts: u64,
    /// Each side renews its keys when this many bytes have moved
    #[arg(long, default_value = "4MiB", value_name = "SIZE")]
    rekey_every: Size,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let total = arguments.size.0;
    let folder = tempfile::tempdir()?;
    let client_identity = Identity::generate("client")?;
    let server_identity = Identity::generate("files.example")?;
    let config = |own: &Identity, peer: &Identity, path: &Path| -> Result<_, Failure> {
        let config = Config::builder()
            .identity(own.clone())
            .authentication_service(PinnedKeys::parse(&peer.public_line())?)
            .rekey_policy(RekeyPolicy::default().with_bytes(arguments.rekey_every.0))
            .limits(Limits::default().with_max_early_data(1024))
            .session_store(RedbStore::open(path)?)
            .build()?;
        Ok(Arc::new(config))
    };
    let server = config(&server_identity, &client_identity, &folder.path().join("server"))?;
    let client = config(&client_identity, &server_identity, &folder.path().join("client"))?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server_address = listener.local_addr()?;
    let serving = tokio::spawn(serve(listener, MlsAcceptor::from(server), total));
    let unreliable = TcpListener::bind("127.0.0.1:0").await?;
    let address = unreliable.local_addr()?;
    let cut_after = total / (arguments.cuts + 1) + 1;
    tokio::spawn(async move {
        for _ in 0..arguments.cuts {
            relay(&unreliable, server_address, cut_after).await?;
        }
        relay(&unreliable, server_address, u64::MAX).await
    });

    let connector = MlsConnector::from(client);
    let name = ServerName::new("files.example")?;
    let (mut resumed, mut healed, mut connections) = (0, 0, 0);
    let start = Instant::now();
    let digest = loop {
        connections += 1;
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let began = Instant::now();
        let mut stream = connector.connect_with_early_data(name.clone(), socket, QUESTION).await?;
        let (kind, early_data) = (stream.handshake_kind(), stream.early_data());
        let took = began.elapsed();
        let round_trips = match early_data {
            Some(EarlyDataStatus::Accepted) => 0,
            _ => 1,
        };
        let outcome = send(&mut stream, early_data, total).await;
        let updates = stream.statistics().own_updates + stream.statistics().peer_updates;
        // A resumption renews the key material of both.
        healed += updates + if kind == HandshakeKind::Resumed { 2 } else { 0 };
        resumed += u64::from(kind == HandshakeKind::Resumed);
        let (from, result) = outcome;
        println!(
            "connection {connections:<3} {:8} {round_trips} round trips before data, {took:>7.1?}, \
             from {:>9}, then {updates:>2} rekeys, epoch {:>3}, {}",
            format!("{kind:?}").to_lowercase(),
            Size(from).to_string(),
            stream.statistics().epoch,
            if result.is_ok() { "done" } else { "cut" },
        );
        match result {
            Ok(digest) => break digest,
            Err(_) if connections <= arguments.cuts => {}
            Err(error) => return Err(error.into()),
        }
    };
    // The server does not know whether its last words have arrived: it would serve on.
    serving.abort();
    println!("resumed     {resumed} of {connections} connections");
    println!("healed      {healed} times, one side or the other, without a full handshake");
    let took = start.elapsed();
    println!("transferred {} in {took:.1?}, {}/s", arguments.size, arguments.size.per_second(took));
    let mut expected = Sha256::new();
    for position in (0..total).step_by(BUFFER) {
        expected.update(content(position, total));
    }
    if digest != *expected.finalize() {
        return Err("the server has something else than was sent".into());
    }
    println!("hashes      equal at both ends");
    Ok(())
}

/// What is sent: a pattern that differs from place to place.
fn content(position: u64, total: u64) -> Vec<u8> {
    let length = usize::try_from(total - position).map_or(BUFFER, |left| left.min(BUFFER));
    let mut block = Vec::with_capacity(BUFFER);
    let mut state = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while block.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block.truncate(length);
    block
}

/// Sends from where the server is, and gets its hash when all is there.
async fn send(
    stream: &mut MlsStream<TcpStream>,
    early_data: Option<EarlyDataStatus>,
    total: u64,
) -> (u64, io::Result<Vec<u8>>) {
    let mut from = 0;
    let result = async {
        if early_data != Some(EarlyDataStatus::Accepted) {
            stream.write_all(QUESTION).await?;
        }
        from = stream.read_u64().await?;
        let mut position = from;
        while position < total {
            // Blocks are aligned, whatever part of one has arrived.
            let start = position - position % BUFFER as u64;
            let block = content(start, total);
            let rest = &block[usize::try_from(position - start).unwrap_or_default()..];
            stream.write_all(rest).await?;
            position += rest.len() as u64;
        }
        let mut digest = vec![0; 32];
        stream.read_exact(&mut digest).await?;
        // Everything is here, whatever happens to the goodbye.
        let _ = stream.shutdown().await;
        Ok(digest)
    };
    let result = result.await;
    (from, result)
}

/// Accepts one connection after the other. One that is cut is none of the server's worries: the client
/// comes back.
async fn serve(listener: TcpListener, acceptor: MlsAcceptor, total: u64) -> io::Result<()> {
    let (mut arrived, mut hash) = (0, Sha256::new());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let _ = receive(&acceptor, socket, &mut arrived, &mut hash, total).await;
    }
}

async fn receive(
    acceptor: &MlsAcceptor,
    socket: TcpStream,
    arrived: &mut u64,
    hash: &mut Sha256,
    total: u64,
) -> io::Result<()> {
    let (early_data, accept) = acceptor.accept_with_early_data(socket).await?;
    let mut stream = accept.await?;
    if early_data.is_none() {
        stream.read_exact(&mut [0; QUESTION.len()]).await?;
    }
    stream.write_u64(*arrived).await?;
    let mut buffer = vec![0; BUFFER];
    while *arrived < total {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        hash.update(&buffer[..length]);
        *arrived += length as u64;
    }
    stream.write_all(&hash.clone().finalize()).await?;
    stream.shutdown().await?;
    // Until the client has closed, too.
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Carries bytes between a client and the server, and cuts after so many of them.
async fn relay(listener: &TcpListener, server: std::net::SocketAddr, bytes: u64) -> io::Result<()> {
    let (client, _) = listener.accept().await?;
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut from_client = from_client.take(bytes);
    // Whatever ends first ends both.
    tokio::select! {
        result = tokio::io::copy(&mut from_client, &mut to_server) => drop(result),
        result = tokio::io::copy(&mut from_server, &mut to_client) => drop(result),
    }
    Ok(())
}
