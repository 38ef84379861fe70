//! `mls-channel`: stdin and stdout over a channel, and the keys for it.

mod certificates;
mod channel;
mod connect;
mod failure;
mod identity;
mod keygen;
mod listen;
mod pipe;
mod show;
mod terminal;
mod trust;
mod units;

use std::{future::Future, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  A key for each side. What is printed is public: give it to the other side.
    mls-channel keygen server.pem > servers
    mls-channel keygen client.pem > clients

  A file from one machine to another.
    mls-channel listen --identity server.pem --pinned clients 0.0.0.0:4433 > copy
    mls-channel connect --identity client.pem --pinned servers --server-name server \\
        host.example:4433 < file

  With keys that are asked about once, as ssh does, and keys of ssh.
    mls-channel connect --identity ~/.ssh/id_ed25519 --known-peers known host.example:4433
    mls-channel listen --identity server.pem --authorized-keys ~/.ssh/authorized_keys 0.0.0.0:4433

  With certificates of an authority.
    mls-channel listen --cert server.crt --key server.key --roots root.crt 0.0.0.0:4433
    mls-channel connect --cert client.crt --key client.key --roots root.crt host.example:4433

Exit codes:
  0  all was sent, received and closed in good order
  1  a file, the configuration, or stdin or stdout
  2  wrong arguments
  3  no connection, or it was cut: data may be missing
  4  the peer is not believed here
  5  the peer refused, or ended the connection with an alert
  6  the handshake or the protocol failed otherwise";

/// A secure channel whose keys come from MLS and are renewed while data flows
#[derive(Parser)]
#[command(version, after_long_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key and print its public line
    Keygen(keygen::Keygen),
    /// Print what is public of a key file, of certificates, or of a peer
    Show(show::Show),
    /// Connect to a peer: stdin goes to it, and what comes from it to stdout
    Connect(connect::ConnectCommand),
    /// Wait for a peer: stdin goes to it, and what comes from it to stdout
    Listen(listen::Listen),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Keygen(keygen) => keygen.run(),
        Command::Show(show) => show.run(),
        Command::Connect(connect) => run(connect.run()),
        Command::Listen(listen) => run(listen.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal::say(format_args!("mls-channel: {failure}"));
            failure.exit_code()
        }
    }
}

/// Runs a future on a runtime whose other tasks go on while a human is asked.
fn run(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::local(format!("no runtime: {error}")))?;
    let result = runtime.block_on(future);
    // A read of stdin that is under way cannot be called off; do not wait for it.
    runtime.shutdown_background();
    result
}
