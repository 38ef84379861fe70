//! Pipes stdin through an echo server and what comes back to stdout.
//!
//! The four commands that set up both sides are at the top of `echo_server.rs`. The last of them is
//! this one:
//!
//! ```text
//! cargo run --release --example echo_client -- --identity client.pem --known servers.keys < a > b
//! ```
//!
//! The server's public line may also be given itself, with `--server-key 'server BASE64'`. What the
//! client has to say goes to stderr; stdout has nothing but the data.

use std::{
    error::Error,
    io,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::ProgressBar;
use mls_channel::{
    AuthenticationService, Config, MlsConnector, MlsStream, OwnedReadHalf, OwnedWriteHalf,
    PinnedKeys, RekeyPolicy, ServerName, WebPkiVerifier,
    error::{AlertDescription, AuthenticationError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdout},
    net::TcpStream,
    runtime::Runtime,
    sync::oneshot,
};

use crate::{identity::IdentityOptions, progress::progress_bar, size::Size};

#[path = "common/identity.rs"]
mod identity;
#[path = "common/progress.rs"]
mod progress;
#[path = "common/size.rs"]
mod size;

/// How much is read and written at once.
const BUFFER: usize = 128 * 1024;

/// Pipes stdin through an echo server and what comes back to stdout.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    identity: IdentityOptions,
    /// The public line of the server: its name, a space and its key
    #[arg(long, value_name = "LINE", required_unless_present_any = ["known", "roots", "generate"])]
    server_key: Option<String>,
    /// A file with the public lines of servers
    #[arg(long, value_name = "FILE", conflicts_with = "server_key")]
    known: Option<PathBuf>,
    /// A file with the certificates of the authorities whose servers are believed, in PEM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["known", "server_key"])]
    roots: Option<PathBuf>,
    /// The server to talk to [default: the one whose public line was given, if it is one]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:4433", value_name = "ADDRESS")]
    connect: String,
    /// Renew the keys when this many bytes have moved, both directions together
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    rekey_every: Size,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.identity.generate {
        arguments.identity.generate()
    } else {
        Runtime::new().map_err(Failure::from).and_then(|runtime| {
            let result = runtime.block_on(run(&arguments));
            // A read of stdin that is under way cannot be called off; do not wait for it.
            runtime.shutdown_background();
            result
        })
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let identity = arguments.identity.load()?;
    let (servers, server_name) = arguments.servers()?;
    let config = Config::builder()
        .identity(identity.clone())
        .authentication_service(servers)
        .rekey_policy(RekeyPolicy::default().with_bytes(arguments.rekey_every.0))
        .build()?;

    let socket = TcpStream::connect(&arguments.connect).await.map_err(|error| {
        format!("no connection to {}: {error}\nis echo_server running there?", arguments.connect)
    })?;
    socket.set_nodelay(true)?;
    let start = Instant::now();
    let stream = MlsConnector::from(Arc::new(config))
        .connect(server_name, socket)
        .await
        .map_err(|error| explain(&error, &identity.public_line()))?;
    print_channel(&stream, start.elapsed());

    // One task sends while this one receives.
    let (mut receiver, sender) = stream.into_split();
    let (input_ended, total) = oneshot::channel();
    let progress = progress_bar(None);
    let start = Instant::now();
    let sending = tokio::spawn(send(sender, input_ended));
    let sending = async { sending.await? };
    let ((), received) = tokio::try_join!(sending, receive(&mut receiver, total, &progress))?;
    let elapsed = start.elapsed();
    progress.finish_and_clear();

    let statistics = receiver.statistics();
    eprintln!(
        "{} there and back in {elapsed:.2?}, {}/s each way",
        Size(received),
        Size(received).per_second(elapsed),
    );
    eprintln!(
        "epoch {}, rekeys: {} of the client, {} of the server, {} at once",
        statistics.epoch,
        statistics.own_updates,
        statistics.peer_updates,
        statistics.crossed_updates,
    );
    Ok(())
}

/// Sends stdin to its end and closes this direction.
async fn send(
    mut channel: OwnedWriteHalf<TcpStream>,
    input_ended: oneshot::Sender<u64>,
) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; BUFFER];
    let mut sent = 0;
    loop {
        match stdin.read(&mut buffer).await.map_err(|error| format!("stdin: {error}"))? {
            0 => break,
            length => {
                channel.write_all(&buffer[..length]).await?;
                sent += length as u64;
            }
        }
    }
    // Before the server can see the end.
    let _ = input_ended.send(sent);
    Ok(channel.shutdown().await?)
}

/// Writes to stdout until the server has closed, and checks that all came back.
async fn receive(
    channel: &mut OwnedReadHalf<TcpStream>,
    mut total: oneshot::Receiver<u64>,
    progress: &ProgressBar,
) -> Result<u64, Failure> {
    let mut stdout = tokio::io::stdout();
    let mut buffer = vec![0; BUFFER];
    let mut received = 0;
    loop {
        match channel.read(&mut buffer).await? {
            0 => break,
            length => {
                write(&mut stdout, &buffer[..length]).await?;
                received += length as u64;
                progress.inc(length as u64);
            }
        }
    }
    match total.try_recv() {
        Ok(sent) if sent == received => Ok(received),
        Ok(sent) => Err(format!("only {received} of {sent} bytes came back").into()),
        Err(_) => Err("the server stopped before the end of the input".into()),
    }
}

/// Writes all of it, and at once: somebody may be waiting for half a line.
async fn write(stdout: &mut Stdout, data: &[u8]) -> Result<(), Failure> {
    let result = async {
        stdout.write_all(data).await?;
        stdout.flush().await
    };
    result.await.map_err(|error| format!("stdout: {error}").into())
}

impl Arguments {
    /// The servers that this client believes, and the one to ask for.
    fn servers(&self) -> Result<(Arc<dyn AuthenticationService>, ServerName), Failure> {
        if let Some(roots) = &self.roots {
            let verifier = WebPkiVerifier::builder().roots_file(roots)?.build()?;
            return Ok((Arc::new(verifier), self.server_name(&PinnedKeys::new())?));
        }
        let pinned = self.pinned()?;
        let server_name = self.server_name(&pinned)?;
        Ok((Arc::new(pinned), server_name))
    }

    fn pinned(&self) -> Result<PinnedKeys, Failure> {
        match (&self.server_key, &self.known) {
            (Some(line), _) => PinnedKeys::parse(line)
                .map_err(|error| format!("--server-key: {error}\nit is a name and a key").into()),
            (None, Some(path)) => Ok(PinnedKeys::read_file(path)?),
            (None, None) => Err("say which server to believe, with --server-key".into()),
        }
    }

    /// The server to ask for.
    fn server_name(&self, servers: &PinnedKeys) -> Result<ServerName, Failure> {
        let mut names = servers.iter().map(|(name, _)| name);
        match (&self.server_name, names.next(), names.next()) {
            (Some(name), ..) => Ok(ServerName::new(name)?),
            (None, Some(name), None) => Ok(ServerName::new(name)?),
            _ => Err("say which server to talk to, with --server-name".into()),
        }
    }
}

/// What went wrong with the handshake, and what to do about it.
fn explain(error: &io::Error, public_line: &str) -> String {
    use mls_channel::Error;
    let hint = match Error::from_io(error) {
        Some(Error::AlertReceived(AlertDescription::AccessDenied)) => format!(
            "the server does not know this client: add this line to its --authorized file\n\
             {public_line}"
        ),
        Some(Error::AlertReceived(AlertDescription::UnrecognizedName)) => format!(
            "the server knows this key under another name than the one in\n{public_line}\n\
             give that name with --name"
        ),
        Some(Error::AlertReceived(
            AlertDescription::UnknownCa
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked,
        )) => String::from("the server does not accept this client's credential: see --cert"),
        Some(Error::PeerNotTrusted(
            AuthenticationError::UnknownKey | AuthenticationError::NameMismatch { .. },
        )) => String::from(
            "this is not the server that was asked for: compare its public line, which it prints \
             when it starts, with what was given here",
        ),
        Some(Error::PeerNotTrusted(_)) => {
            String::from("the server's credential is not accepted: see --roots")
        }
        _ => String::from("is it an echo_server that listens there?"),
    };
    format!("no channel: {error}\n{hint}")
}

fn print_channel(stream: &MlsStream<TcpStream>, elapsed: Duration) {
    let peer = stream.peer();
    eprintln!("server {}, {}", peer.name(), peer.public_key().fingerprint());
    eprintln!("{}, handshake in {elapsed:.1?}", stream.cipher_suite());
}
