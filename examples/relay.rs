//! A relay for `multicast_chat`: it copies what it cannot read.
//!
//! ```text
//! cargo run --release --example relay -- --listen 127.0.0.1:4434
//! ```
//!
//! It serves one universe at a time, has no key, and knows nobody. It ends at Ctrl-C.

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use mls_channel::{Relay, RelayOptions};
use tokio::net::TcpListener;

/// Connections that it serves at once.
const MAX_CONNECTIONS: usize = 1000;

/// Copies frames between members who cannot reach each other.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:4434", value_name = "ADDRESS")]
    listen: String,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    eprintln!("listening on {}", listener.local_addr()?);
    let relay = Relay::new(RelayOptions::default());
    let mut legs = tokio::task::JoinSet::new();
    loop {
        let room = legs.len() < MAX_CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((socket, address)) => {
                    socket.set_nodelay(true)?;
                    let relay = relay.clone();
                    eprintln!("{address} is here");
                    legs.spawn(async move {
                        let end = relay.serve(socket).await;
                        eprintln!("{address}: {end}");
                    });
                }
                Err(error) => {
                    eprintln!("cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = legs.join_next() => {}
            signal = tokio::signal::ctrl_c() => {
                signal?;
                return Ok(());
            }
        }
    }
}
