//! How the channel behaves.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use mls_channel::{CipherSuite, Config, Identity, KeyLogFile, Limits, RedbStore, RekeyPolicy};

use crate::{
    failure::Failure,
    terminal,
    trust::{OnFirstUse, Trust, TrustOptions},
    units,
};

/// Where programs with TLS find the name of such a file.
const KEY_LOG_VARIABLE: &str = "SSLKEYLOGFILE";

#[derive(Args)]
pub(crate) struct ChannelOptions {
    /// What to do with a peer that is not in the --known-peers file [default: ask]
    #[arg(long, value_enum, value_name = "WHAT")]
    first_use: Option<OnFirstUse>,
    /// A file with revocation lists of the authorities, in PEM, for --roots; repeat it for more. There
    /// has to be a list of every authority between a peer and a root, that of the root included
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// A cipher suite that may be used, by its name or number, such as 0x0003; repeat it for more,
    /// best first [default: all]
    #[arg(long, value_name = "SUITE", value_parser = suite)]
    suite: Vec<CipherSuite>,
    /// An application protocol; repeat it for more, best first [default: any]
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// Renew the own keys when so many bytes have moved, both directions together [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    rekey_bytes: Option<u64>,
    /// Renew the own keys when so many records have moved [default: 1048576]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    rekey_records: Option<u64>,
    /// Renew the own keys after this time, if data has moved [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    rekey_interval: Option<Duration>,
    /// Keep sessions in this file, so that the next connection resumes this one. It holds secrets
    #[arg(long, value_name = "FILE")]
    sessions: Option<PathBuf>,
    /// Append the secrets of the connections to this file, in the format of NSS [default: the file that
    /// the environment variable SSLKEYLOGFILE names, if any]. WARNING: whoever has it reads all that is
    /// sent and received. For debugging only
    #[arg(long, value_name = "FILE")]
    key_log: Option<PathBuf>,
    /// How long a handshake may take, the answer of a human included
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::time)]
    timeout: Duration,
    /// Say on stderr who the peer is, under what suite, and when keys change
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

impl ChannelOptions {
    pub(crate) fn trust(
        &self,
        trust: &TrustOptions,
        authorized_keys: Option<&Path>,
    ) -> Result<Trust, Failure> {
        trust.service(authorized_keys, self.first_use, &self.crl)
    }

    pub(crate) fn config(&self, identity: Identity, trust: Trust) -> Result<Config, Failure> {
        let mut rekey = RekeyPolicy::default();
        if let Some(bytes) = self.rekey_bytes {
            rekey = rekey.with_bytes(bytes);
        }
        if let Some(records) = self.rekey_records {
            rekey = rekey.with_records(records);
        }
        if let Some(interval) = self.rekey_interval {
            rekey = rekey.with_interval(interval);
        }
        let mut builder = Config::builder()
            .identity(identity)
            .authentication_service(trust)
            .alpn_protocols(self.alpn.iter().map(String::as_str))
            .rekey_policy(rekey)
            .limits(Limits::default().with_handshake_timeout(self.timeout));
        if !self.suite.is_empty() {
            builder = builder.cipher_suites(self.suite.clone());
        }
        if let Some(path) = &self.sessions {
            let store = RedbStore::open(path).map_err(|error| {
                Failure::local(format!("no sessions in {}: {error}", path.display()))
            })?;
            builder = builder.session_store(store);
        }
        if let Some(path) = self.key_log_file() {
            builder = builder.key_log(KeyLogFile::open(&path)?);
            terminal::say(format_args!(
                "mls-channel: WARNING: the secrets of this connection are written to {}",
                path.display()
            ));
        }
        Ok(builder.build()?)
    }

    fn key_log_file(&self) -> Option<PathBuf> {
        let of_environment = || env::var_os(KEY_LOG_VARIABLE).filter(|path| !path.is_empty());
        self.key_log.clone().or_else(|| of_environment().map(PathBuf::from))
    }
}

fn suite(text: &str) -> Result<CipherSuite, String> {
    let number = text.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let wanted = |suite: &&CipherSuite| {
        suite.name().eq_ignore_ascii_case(text) || Some(suite.id()) == number
    };
    CipherSuite::ALL.iter().find(wanted).copied().ok_or_else(|| {
        let all: Vec<String> =
            CipherSuite::ALL.iter().map(|s| format!("{:#06x} {s}", s.id())).collect();
        format!("no such suite; there are\n  {}", all.join("\n  "))
    })
}
