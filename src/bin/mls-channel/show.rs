//! Showing what is public.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, ValueEnum};
use mls_channel::{
    Config, Error, Identity, MlsConnector, ServerName, SignatureScheme,
    error::{AlertDescription, PeerIncompatible},
};

use crate::{
    certificates::{self, Certificates},
    connect,
    failure::Failure,
    identity::{self, CertifiedOptions, Own},
    terminal,
    trust::{Advice, Nobody, Watched},
};

const EXAMPLES: &str = "\
Examples:
  mls-channel show server.pem
  mls-channel show --format openssh client.pem >> authorized_keys
  mls-channel show server.crt
  mls-channel show --connect host.example:4433 --identity client.pem

A peer shows itself only to those whom it lets in, so --connect may need an identity that it knows. \
What it shows is not verified by anybody: compare the fingerprint with what the peer's owner says.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The file with the secret key, or one with certificates
    #[arg(required_unless_present = "connect", conflicts_with = "connect")]
    file: Option<PathBuf>,
    /// Show the key or the certificates of the peer that listens there
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// The name to ask the peer for [default: the host]
    #[arg(long, value_name = "NAME", requires = "connect")]
    server_name: Option<ServerName>,
    /// The key file to show to the peer [default: a new key each time]
    #[arg(long, value_name = "FILE", requires = "connect")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    certified: CertifiedOptions,
    /// The name of whom the key belongs to [default: the name of the file without its ending]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value = "line", conflicts_with = "connect")]
    format: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// The name and the key, as a line of a --pinned file; of certificates, what is in them
    Line,
    /// The fingerprint of the key alone
    Fingerprint,
    /// A line of an authorized_keys file
    Openssh,
}

impl Show {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if self.connect.is_none() && self.certified.is_given() {
            return Err(Failure::arguments("--cert and --key are for --connect"));
        }
        match (&self.file, &self.connect) {
            (_, Some(address)) => crate::run(self.show_peer(address)),
            (Some(file), None) if certificates::is_certificate_file(file) => {
                self.show_certificates(&Certificates::read_file(file)?)
            }
            (Some(file), None) => self.show_file(&identity::load(file, self.name.as_deref())?),
            (None, None) => Err(Failure::arguments("say whose key to show")),
        }
    }

    fn show_file(&self, identity: &Identity) -> Result<(), Failure> {
        let fingerprint = identity.public_key().fingerprint();
        match self.format {
            Output::Line => {
                print(&identity.public_line())?;
                terminal::say(format_args!("Its fingerprint is {fingerprint}"));
                Ok(())
            }
            Output::Fingerprint => print(&fingerprint),
            Output::Openssh => print(&identity.authorized_keys_line()?),
        }
    }

    fn show_certificates(&self, certificates: &Certificates) -> Result<(), Failure> {
        match self.format {
            Output::Line => print(&certificates.to_string()),
            Output::Fingerprint => {
                let none =
                    || Failure::local("the first certificate is for a key of another scheme");
                print(&certificates.key_fingerprint().ok_or_else(none)?)
            }
            Output::Openssh => Err(Failure::arguments("--format openssh is for a key file")),
        }
    }

    async fn show_peer(&self, address: &str) -> Result<(), Failure> {
        if let Some((identity, own)) = self.certified.load()? {
            return self.look_at(address, identity, own).await.map_err(|(failure, _)| failure);
        }
        if let Some(file) = &self.identity {
            let identity = identity::load(file, self.name.as_deref())?;
            let own = Own::Key(identity.public_line());
            return self.look_at(address, identity, own).await.map_err(|(failure, _)| failure);
        }
        let name = self.name.as_deref().unwrap_or("show");
        let mut result = Err(Failure::local("there is no signature scheme"));
        for scheme in SignatureScheme::ALL {
            let identity = Identity::generate_with(name, *scheme)?;
            let own = Own::Key(identity.public_line());
            result = match self.look_at(address, identity, own).await {
                // It may have a key of another scheme.
                Err((failure, Some(AlertDescription::HandshakeFailure))) => Err(failure),
                Err((failure, Some(AlertDescription::AccessDenied))) => {
                    let hint = "Or give an identity that it believes, with --identity.";
                    return Err(failure.with_hint(hint));
                }
                Err((failure, Some(AlertDescription::UnsupportedCertificate))) => {
                    let hint = "Or give a certificate that it believes, with --cert and --key.";
                    return Err(failure.with_hint(hint));
                }
                Err((failure, _)) => return Err(failure),
                Ok(()) => return Ok(()),
            };
        }
        result
    }

    /// Begins a handshake, looks, and leaves. If it fails, it gives the alert of the peer, too.
    async fn look_at(
        &self,
        address: &str,
        identity: Identity,
        own: Own,
    ) -> Result<(), (Failure, Option<AlertDescription>)> {
        let local = |failure| (failure, None);
        let service = Arc::new(Watched::new(Nobody, Advice::None));
        let config = Config::builder()
            .identity(identity)
            .authentication_service(Arc::clone(&service))
            .build()
            .map_err(|error| local(error.into()))?;
        let server_name =
            connect::server_name(self.server_name.as_ref(), address).map_err(local)?;
        let socket = connect::open(address).await.map_err(local)?;
        let result = MlsConnector::from(Arc::new(config)).connect(server_name, socket).await;
        if let Some(presented) = service.take_refused() {
            print(&presented.who.to_string()).map_err(local)?;
            if let Some(fingerprint) = presented.who.fingerprint() {
                terminal::say(format_args!("The fingerprint of its key is {fingerprint}"));
            }
            return Ok(());
        }
        let error = result.map(drop).err().unwrap_or_else(|| io::Error::other("no peer"));
        let alert = match Error::from_io(&error) {
            Some(Error::AlertReceived(alert)) => Some(*alert),
            Some(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon { .. })) => {
                Some(AlertDescription::HandshakeFailure)
            }
            _ => None,
        };
        Err((Failure::channel(&error, None, &own), alert))
    }
}

/// One line to stdout.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| Failure::local(format!("stdout: {error}")))
}
