//! A server that sends back what it receives, to clients whose keys it knows.
//!
//! Two terminals, four commands:
//!
//! ```text
//! cargo run --release --example echo_server -- --generate --identity server.pem > servers.keys
//! cargo run --release --example echo_client -- --generate --identity client.pem > clients.keys
//! cargo run --release --example echo_server -- --identity server.pem --authorized clients.keys
//! cargo run --release --example echo_client -- --identity client.pem --known servers.keys < a > b
//! ```
//!
//! With certificates instead of known keys, `root.crt` being the authority's:
//!
//! ```text
//! cargo run --release --example echo_server -- --key server.key --cert server.crt --roots root.crt
//! cargo run --release --example echo_client -- --key client.key --cert client.crt --roots root.crt \
//!     --server-name server.example < a > b
//! ```
//!
//! The server serves any number of clients at once, says who they are, and ends at Ctrl-C.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use mls_channel::{
    AuthenticationService, Config, MlsAcceptor, MlsListener, MlsStream, PinnedKeys, RekeyPolicy,
    WebPkiVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::{identity::IdentityOptions, size::Size};

#[path = "common/identity.rs"]
mod identity;
#[path = "common/size.rs"]
mod size;

/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;

/// Sends back what authorized clients send, through encrypted channels.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    identity: IdentityOptions,
    /// The file with the public lines of the clients that may connect
    #[arg(long, value_name = "FILE", required_unless_present_any = ["roots", "generate"])]
    authorized: Option<PathBuf>,
    /// The file with the certificates of the authorities whose clients may connect, in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "authorized")]
    roots: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:4433", value_name = "ADDRESS")]
    listen: String,
    /// Renew the keys when this many bytes have moved, both directions together
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    rekey_every: Size,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.identity.generate {
        true => arguments.identity.generate(),
        false => run(&arguments).await,
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
    let (clients, authorized) = arguments.clients()?;
    let config = Config::builder()
        .identity(identity.clone())
        .authentication_service(clients)
        .rekey_policy(RekeyPolicy::default().with_bytes(arguments.rekey_every.0))
        .build()?;
    let mut listener = MlsListener::bind(&arguments.listen, MlsAcceptor::from(Arc::new(config)))
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?
        .on_failure(|address, error| eprintln!("{address} was not let in: {error}"));
    eprintln!("{}", identity.public_line());
    eprintln!("clients that may connect: {authorized}");
    eprintln!("listening on {}", listener.local_addr()?);

    // Every client has a task of its own. All of them see it when `stop` is dropped.
    let (stop, stopped) = watch::channel(());
    let mut sessions = JoinSet::new();
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    sessions.spawn(serve(stream, address, stopped.clone()));
                }
                Err(error) => {
                    // Too many open files, for example: some sessions have to end first.
                    eprintln!("cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = sessions.join_next() => {}
            signal = &mut ctrl_c => {
                signal?;
                break;
            }
        }
    }
    eprintln!("stopping; clients still connected: {}", sessions.len());
    drop((listener, stop));
    let ended = async { while sessions.join_next().await.is_some() {} };
    // Whoever does not take the goodbye is dropped.
    let _ = tokio::time::timeout(Duration::from_secs(3), ended).await;
    Ok(())
}

impl Arguments {
    /// The clients that may connect, and a word about them.
    fn clients(&self) -> Result<(Arc<dyn AuthenticationService>, String), Failure> {
        if let Some(roots) = &self.roots {
            let verifier = WebPkiVerifier::builder().roots_file(roots)?.build()?;
            return Ok((Arc::new(verifier), format!("those of {}", roots.display())));
        }
        let authorized =
            self.authorized.as_ref().ok_or("say who may connect, with --authorized")?;
        let clients = PinnedKeys::read_file(authorized).map_err(|error| {
            format!("{error}\nthe file holds one public line for each client that may connect")
        })?;
        let count = clients.len().to_string();
        Ok((Arc::new(clients), count))
    }
}

/// One client, from the end of its handshake to its own end.
async fn serve(
    mut stream: MlsStream<TcpStream>,
    address: SocketAddr,
    mut stopped: watch::Receiver<()>,
) {
    let name = stream.peer().name().to_owned();
    eprintln!("{address} is {name}, {}", stream.cipher_suite());
    let start = Instant::now();
    let result = tokio::select! {
        result = echo(&mut stream) => result,
        _ = stopped.changed() => stream.shutdown().await,
    };
    let elapsed = start.elapsed();
    let statistics = stream.statistics();
    let received = Size(statistics.bytes_received);
    let end = match result {
        Ok(()) => String::from("has ended"),
        Err(error) => format!("was lost: {error}"),
    };
    eprintln!(
        "{address} {name} {end}: {received} received, {} sent in {elapsed:.2?} ({}/s); epoch {}, \
         rekeys: {} of the server, {} of the client, {} at once",
        Size(statistics.bytes_sent),
        received.per_second(elapsed),
        statistics.epoch,
        statistics.own_updates,
        statistics.peer_updates,
        statistics.crossed_updates,
    );
}

/// Sends back what arrives until the client has closed, then closes too.
async fn echo(stream: &mut MlsStream<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
    stream.shutdown().await
}
