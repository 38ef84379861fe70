//! The whole channel in one process: a server, a client, and a file that goes there and back.
//!
//! ```text
//! cargo run --release --example echo
//! cargo run --release --example echo -- some-file --rekey-every 1MiB
//! cargo run --release --features post-quantum --example echo -- --suite 0x004f
//! ```
//!
//! Server and client make themselves identities, pin each other's keys and connect over TCP. The
//! client sends a file, made for the purpose if none is named, while the server sends back what
//! arrives. Both renew their keys on the way, whenever so many bytes have moved. In the end the
//! hashes of what was sent and of what came back must be the same.

use std::{
    error::Error,
    fs::File,
    io::{self, Seek, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use clap::Parser;
use indicatif::ProgressBar;
use mls_channel::{
    CipherSuite, Config, Identity, MlsAcceptor, MlsConnector, MlsListener, MlsStream,
    OwnedReadHalf, OwnedWriteHalf, PinnedKeys, RekeyPolicy, ServerName, SignatureScheme,
    Statistics,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{progress::progress_bar, size::Size, suite::parse_suite};

#[path = "common/progress.rs"]
mod progress;
#[path = "common/size.rs"]
mod size;
#[path = "common/suite.rs"]
mod suite;

/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;

/// Sends a file through an encrypted channel and back, in one process.
#[derive(Parser)]
struct Arguments {
    /// The file to send [default: a temporary one with random contents]
    file: Option<PathBuf>,
    /// The size of the temporary file
    #[arg(long, default_value = "64MiB", conflicts_with = "file")]
    size: Size,
    /// Each side renews its keys when this many bytes have moved, both directions together
    #[arg(long, default_value = "8MiB", value_name = "SIZE")]
    rekey_every: Size,
    /// The cipher suite, by its name or number [default: what both ends prefer]
    #[arg(long, value_parser = parse_suite)]
    suite: Option<CipherSuite>,
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
    let (file, length) = open_file(&arguments)?;
    let scheme = arguments.suite.map_or(SignatureScheme::ED25519, CipherSuite::signature_scheme);
    let client_identity = Identity::generate_with("client", scheme)?;
    let server_identity = Identity::generate_with("echo.example", scheme)?;
    print_identity("client", &client_identity);
    print_identity("server", &server_identity);

    // The server accepts one client, in a task of its own.
    let config = config(&server_identity, &client_identity, &arguments)?;
    let mut listener = MlsListener::bind("127.0.0.1:0", MlsAcceptor::from(config)).await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        serve(stream).await
    });

    // The client asks for the server by name, and checks that it has the pinned key.
    let config = self::config(&client_identity, &server_identity, &arguments)?;
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let start = Instant::now();
    let name = ServerName::new("echo.example")?;
    let stream = MlsConnector::from(config).connect(name, socket).await?;
    println!("handshake   {:.1?} over TCP to {address}", start.elapsed());
    print_channel(&stream);
    let channel_binding = stream.channel_binding();

    // One task sends, this one receives; they share no lock.
    let (mut receiver, sender) = stream.into_split();
    let progress = progress_bar(Some(length));
    let start = Instant::now();
    let sending = tokio::spawn(send(file, length, sender));
    let receiving = receive(&mut receiver, length, &progress);
    let ((mut sender, sent), received) = tokio::try_join!(async { sending.await? }, async {
        receiving.await.map_err(Failure::from)
    })?;
    let elapsed = start.elapsed();
    progress.finish_and_clear();

    let start = Instant::now();
    sender.rekey().await?;
    let rekey_time = start.elapsed();

    // The client says that it is done; the server can still send, but does the same.
    sender.shutdown().await?;
    if receiver.read(&mut [0]).await? != 0 {
        return Err("the server sent more than it received".into());
    }
    let server = server.await??;

    let rate = Size(length).per_second(elapsed);
    println!("transfer    {} there and back in {elapsed:.2?}, {rate}/s each way", Size(length));
    println!("epoch       {}", sender.epoch());
    print_rekeys("client", sender.statistics());
    print_rekeys("server", server.statistics());
    println!("last rekey  {rekey_time:.1?}, asked for by the client with nothing else to do");
    println!("sent        SHA-256 {}", hex(&sent));
    println!("received    SHA-256 {}", hex(&received));
    if server.channel_binding() != channel_binding {
        return Err("the two ends have different channel bindings".into());
    }
    if sent != received {
        return Err("the hashes differ: what came back is not what was sent".into());
    }
    println!("The hashes match, and so do the channel bindings of both ends.");
    Ok(())
}

/// A configuration for either side: who it is, and whom it believes.
fn config(own: &Identity, peer: &Identity, arguments: &Arguments) -> Result<Arc<Config>, Failure> {
    let mut builder = Config::builder()
        .identity(own.clone())
        .authentication_service(PinnedKeys::parse(&peer.public_line())?)
        .alpn_protocols(["echo"])
        .rekey_policy(RekeyPolicy::default().with_bytes(arguments.rekey_every.0));
    if let Some(suite) = arguments.suite {
        builder = builder.cipher_suites([suite]);
    }
    Ok(Arc::new(builder.build()?))
}

/// The server: sends back what it receives until the client has closed, then closes too.
async fn serve(mut stream: MlsStream<TcpStream>) -> io::Result<MlsStream<TcpStream>> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
    stream.shutdown().await?;
    Ok(stream)
}

/// Sends `length` bytes of the file; gives the sending half back and the hash of what was sent.
async fn send(
    file: File,
    length: u64,
    mut channel: OwnedWriteHalf<TcpStream>,
) -> Result<(OwnedWriteHalf<TcpStream>, Vec<u8>), Failure> {
    let mut file = tokio::fs::File::from_std(file);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut left = length;
    while left > 0 {
        let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = file.read(&mut buffer[..limit]).await?;
        if length == 0 {
            return Err("the file became shorter while it was sent: try one that rests".into());
        }
        hash.update(&buffer[..length]);
        channel.write_all(&buffer[..length]).await?;
        left -= length as u64;
    }
    Ok((channel, hash.finalize().to_vec()))
}

/// Receives `length` bytes and gives their hash.
async fn receive(
    channel: &mut OwnedReadHalf<TcpStream>,
    length: u64,
    progress: &ProgressBar,
) -> io::Result<Vec<u8>> {
    let mut channel = channel.take(length);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    while channel.limit() > 0 {
        let length = channel.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..length]);
        progress.inc(length as u64);
    }
    Ok(hash.finalize().to_vec())
}

/// Opens the file that was named, or makes one that nobody else sees and that is gone in the end.
fn open_file(arguments: &Arguments) -> Result<(File, u64), Failure> {
    let Some(path) = &arguments.file else {
        let size = arguments.size;
        let file = random_file(size.0)
            .map_err(|error| format!("no temporary file of {size}: {error}; try a --size"))?;
        println!("file        temporary, {size}");
        return Ok((file, size.0));
    };
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file that can be sent", path.display()).into());
    }
    println!("file        {}, {}", path.display(), Size(metadata.len()));
    Ok((file, metadata.len()))
}

fn random_file(size: u64) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let mut block = Vec::with_capacity(BUFFER);
    let mut state = 0_u64;
    let mut left = size;
    while left > 0 {
        block.clear();
        // SplitMix64: the contents need not be secret, only not repeat.
        while block.len() < BUFFER {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            block.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&block)?;
        left -= block.len() as u64;
    }
    file.rewind()?;
    Ok(file)
}

fn print_identity(role: &str, identity: &Identity) {
    // A post-quantum key fills a screen.
    let line = identity.public_line();
    let more = if line.chars().count() > 200 { "..." } else { "" };
    println!("{role}      {}{more}", line.chars().take(200).collect::<String>());
    println!("            {}", identity.public_key().fingerprint());
}

fn print_channel(stream: &MlsStream<TcpStream>) {
    println!("suite       {}", stream.cipher_suite());
    println!("server      is {:?}, by its pinned key", stream.peer().name());
    if let Some(name) = stream.server_name() {
        println!("asked for   {name}");
    }
    if let Some(protocol) = stream.alpn_protocol() {
        println!("ALPN        {}", protocol.escape_ascii());
    }
    println!("binding     {}", hex(&stream.channel_binding()));
}

fn print_rekeys(role: &str, statistics: Statistics) {
    let Statistics { own_updates, peer_updates, crossed_updates, .. } = statistics;
    println!(
        "{role}      {own_updates} rekeys of its own, {peer_updates} of the peer, \
         {crossed_updates} times both at once"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
