//! The responder.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use mls_channel::{Config, MlsAcceptor, MlsListener};

use crate::{
    channel::ChannelOptions,
    failure::Failure,
    identity::{IdentityOptions, Own},
    pipe, terminal,
    trust::{self, Trust, TrustOptions},
};

/// After how long connections are taken again when there was no room for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  mls-channel listen --identity server.pem --pinned clients 0.0.0.0:4433 > file
  mls-channel listen --identity server.pem --authorized-keys ~/.ssh/authorized_keys 0.0.0.0:4433
  mls-channel listen --cert server.crt --key server.key --roots root.crt 0.0.0.0:4433

One peer is served, and the program ends. A peer that is not let in does not count: it is reported, \
and the next one may come. The end of stdin closes the own direction; the program ends when the peer has \
closed its own, too.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Listen {
    #[command(flatten)]
    identity: IdentityOptions,
    #[command(flatten)]
    trust: TrustOptions,
    /// Believe everybody who connects with a key of this authorized_keys file of OpenSSH
    #[arg(long, value_name = "FILE", group = "trust", help_heading = trust::HEADING)]
    authorized_keys: Option<PathBuf>,
    #[command(flatten)]
    channel: ChannelOptions,
    /// Serve one peer after another. Stdin is for the first that takes any of it; the others are sent
    /// nothing
    #[arg(long)]
    keep_open: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(value_name = "ADDRESS:PORT")]
    address: String,
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let trust = self.channel.trust(&self.trust, self.authorized_keys.as_deref())?;
        let (identity, own) = self.identity.load()?;
        let config = self.channel.config(identity, Arc::clone(&trust))?;
        let mut listener = self.listen(config, trust, own.clone()).await?;
        let verbose = self.channel.verbose;
        let failure = |error| Failure::channel(&error, None, &own);
        let mut input = pipe::Input::new();
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Too many files are open, for example, which strangers can bring about.
                Err(error) => {
                    terminal::say(format_args!("mls-channel: no connection is taken: {error}"));
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            if !self.keep_open {
                drop(listener);
                return pipe::run(stream, &mut input, verbose, failure).await;
            }
            if let Err(failure) = pipe::run(stream, &mut input, verbose, failure).await {
                terminal::say(format_args!("mls-channel: {address}: {failure}"));
            }
        }
    }

    /// A listener that reports whom it does not let in.
    async fn listen(&self, config: Config, trust: Trust, own: Own) -> Result<MlsListener, Failure> {
        let no_listener =
            |error| Failure::transport(format!("cannot listen on {}: {error}", self.address));
        let acceptor = MlsAcceptor::from(Arc::new(config));
        let listener = MlsListener::bind(&self.address, acceptor).await.map_err(no_listener)?;
        let address = listener.local_addr().map_err(no_listener)?;
        terminal::say(format_args!("listening on {address}"));
        Ok(listener.on_failure(move |address, error| {
            let failure = Failure::channel(error, trust.take_refused().as_ref(), &own);
            terminal::say(format_args!("mls-channel: {address} was not let in: {failure}"));
        }))
    }
}
