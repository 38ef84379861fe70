//! Stdin and stdout over a channel.

use std::{cell::Cell, io};

use mls_channel::{
    HandshakeKind, MlsStream, OwnedReadHalf, OwnedWriteHalf, Role, ServerName, Statistics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdin},
    net::TcpStream,
};

use crate::{failure::Failure, terminal};

/// How much is read and written at once.
const BUFFER: usize = 128 * 1024;

/// Stdin, which is for one peer: what a cut has left of it is no whole that another one could take.
pub(crate) struct Input {
    stdin: Stdin,
    is_taken: bool,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { stdin: tokio::io::stdin(), is_taken: false }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let length = self.stdin.read(buffer).await;
        let length = length.map_err(|error| Failure::local(format!("stdin: {error}")))?;
        self.is_taken = true;
        Ok(length)
    }
}

/// Sends stdin to its end and receives to the end of the peer's direction, each as long as it takes.
pub(crate) async fn run(
    stream: MlsStream<TcpStream>,
    input: &mut Input,
    verbose: bool,
    failure: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let events = Events::new(verbose, &stream);
    let (mut receiver, mut sender) = stream.into_split();
    let result = tokio::try_join!(
        send(&mut sender, input, &events, &failure),
        receive(&mut receiver, &events, &failure),
    );
    events.end(receiver.statistics());
    result.map(|((), ())| ())
}

/// A failed read of stdin ends the connection without a close_notify: the peer must not take a part
/// for the whole.
async fn send(
    channel: &mut OwnedWriteHalf<TcpStream>,
    input: &mut Input,
    events: &Events,
    failure: &impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let is_for_another = input.is_taken;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match is_for_another {
            true => 0,
            false => input.read(&mut buffer).await?,
        };
        if length == 0 {
            channel.shutdown().await.map_err(failure)?;
            events.say(|| "this side has closed its direction".into());
            return Ok(());
        }
        channel.write_all(&buffer[..length]).await.map_err(failure)?;
        events.see(channel.epoch());
    }
}

async fn receive(
    channel: &mut OwnedReadHalf<TcpStream>,
    events: &Events,
    failure: &impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = channel.read(&mut buffer).await.map_err(failure)?;
        events.see(channel.epoch());
        if length == 0 {
            events.say(|| "the peer has closed its direction".into());
            return Ok(());
        }
        // At once: somebody may be waiting for half a line.
        let written = async {
            stdout.write_all(&buffer[..length]).await?;
            stdout.flush().await
        };
        written.await.map_err(|error| Failure::local(format!("stdout: {error}")))?;
    }
}

/// What is said on stderr, if anything.
struct Events {
    verbose: bool,
    epoch: Cell<u64>,
}

impl Events {
    fn new(verbose: bool, stream: &MlsStream<TcpStream>) -> Self {
        let events = Self { verbose, epoch: Cell::new(stream.epoch()) };
        events.say(|| {
            let peer = stream.peer();
            let who = match stream.role() {
                Role::Initiator => "server",
                Role::Responder => "client",
            };
            let key = peer.public_key().fingerprint();
            format!("{who} {}, {key}", peer.name())
        });
        events.say(|| format!("{}, epoch {}", stream.cipher_suite(), stream.epoch()));
        events.say(|| {
            let kind = match stream.handshake_kind() {
                HandshakeKind::Resumed => "a resumed session".into(),
                _ => match stream.not_resumed() {
                    Some(error) => format!("a new session, because of the old one: {error}"),
                    None => String::from("a new session"),
                },
            };
            let name = stream.server_name().map_or("none", ServerName::as_str);
            format!("{kind}, server name {name}")
        });
        if let Some(protocol) = stream.alpn_protocol() {
            events.say(|| format!("application protocol {}", protocol.escape_ascii()));
        }
        events
    }

    fn see(&self, epoch: u64) {
        if self.epoch.replace(epoch) != epoch {
            self.say(|| format!("epoch {epoch}"));
        }
    }

    fn end(&self, statistics: Statistics) {
        self.see(statistics.epoch);
        self.say(|| {
            format!(
                "{} bytes sent, {} received; rekeys: {} of this side, {} of the peer, {} at once",
                statistics.bytes_sent,
                statistics.bytes_received,
                statistics.own_updates,
                statistics.peer_updates,
                statistics.crossed_updates,
            )
        });
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            terminal::say(format_args!("mls-channel: {}", what()));
        }
    }
}
