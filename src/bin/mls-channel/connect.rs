//! The initiator.

use std::sync::Arc;

use clap::Args;
use mls_channel::{MlsConnector, ServerName};
use tokio::net::TcpStream;

use crate::{
    channel::ChannelOptions, failure::Failure, identity::IdentityOptions, pipe, trust::TrustOptions,
};

const EXAMPLES: &str = "\
Examples:
  mls-channel connect --identity client.pem --pinned servers --server-name server host:4433 < file
  mls-channel connect --identity client.pem --known-peers known -v host.example:4433
  mls-channel connect --cert client.crt --key client.key --roots root.crt host.example:4433

The end of stdin closes the own direction; the program ends when the peer has closed its own, too. \
What is still to be said goes on meanwhile. If the program is killed, the peer sees a cut.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConnectCommand {
    #[command(flatten)]
    identity: IdentityOptions,
    #[command(flatten)]
    trust: TrustOptions,
    /// The name that the peer must have, or be known by [default: the host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<ServerName>,
    #[command(flatten)]
    channel: ChannelOptions,
    /// Where the peer listens
    #[arg(value_name = "HOST:PORT")]
    address: String,
}

impl ConnectCommand {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let server_name = server_name(self.server_name.as_ref(), &self.address)?;
        let trust = self.channel.trust(&self.trust, None)?;
        let (identity, own) = self.identity.load()?;
        let config = self.channel.config(identity, Arc::clone(&trust))?;
        let socket = open(&self.address).await?;
        let failure = |error| Failure::channel(&error, trust.take_refused().as_ref(), &own);
        let stream = MlsConnector::from(Arc::new(config))
            .connect(server_name, socket)
            .await
            .map_err(failure)?;
        let verbose = self.channel.verbose;
        pipe::run(stream, &mut pipe::Input::new(), verbose, failure).await
    }
}

/// The name that was given, or the host of the address.
pub(crate) fn server_name(name: Option<&ServerName>, address: &str) -> Result<ServerName, Failure> {
    if let Some(name) = name {
        return Ok(name.clone());
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    ServerName::new(host.trim_start_matches('[').trim_end_matches(']')).map_err(|_| {
        Failure::arguments(format!("{address:?} says no name to ask for: give --server-name"))
    })
}

pub(crate) async fn open(address: &str) -> Result<TcpStream, Failure> {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() {
        return Err(Failure::arguments(format!("{address:?} has no port: write HOST:PORT")));
    }
    let socket = TcpStream::connect(address).await.and_then(|socket| {
        socket.set_nodelay(true)?;
        Ok(socket)
    });
    socket.map_err(|error| {
        Failure::transport(format!(
            "no connection to {address}: {error}\nIs something listening there?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_name_unless_another_is_given() {
        for (address, name) in [
            ("host.example:4433", "host.example"),
            ("192.0.2.1:1", "192.0.2.1"),
            ("[2001:db8::1]:4433", "2001:db8::1"),
        ] {
            assert_eq!(server_name(None, address).ok().unwrap().as_str(), name);
        }
        let given = ServerName::new("given").unwrap();
        assert_eq!(server_name(Some(&given), "host:1").ok(), Some(given));
        assert!(server_name(None, ":4433").is_err());
    }
}
