//! Who this party is.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use mls_channel::{Error, Identity, error::ConfigError};
use zeroize::Zeroizing;

use crate::failure::{self, Failure};

/// How a key file begins that OpenSSH has written.
const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// The form of a key file.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyFormat {
    /// PKCS#8 in PEM, which OpenSSL reads too
    Pem,
    /// A private key file of OpenSSH
    Openssh,
}

#[derive(Args)]
pub(crate) struct IdentityOptions {
    /// The file with this party's secret key: PEM of keygen or OpenSSL, or an OpenSSH key file
    ///
    /// If the key is encrypted, which OpenSSH does, its passphrase is asked for on the terminal.
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// This party's name [default: the name of the file without its ending]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl IdentityOptions {
    pub(crate) fn load(&self) -> Result<Identity, Failure> {
        load(&self.identity, self.name.as_deref())
    }
}

/// Reads a key file of either form.
pub(crate) fn load(path: &Path, name: Option<&str>) -> Result<Identity, Failure> {
    let name = name_of(path, name)?;
    let identity = match is_openssh(path) {
        true => Identity::read_openssh_file(&name, path, || passphrase(path)),
        false => Identity::read_pem_file(&name, path),
    };
    identity.map_err(|error| {
        let (file, reason) = (path.display(), failure::describe(&error));
        let failure = Failure::local(match &error {
            Error::Config(ConfigError::File { .. }) => format!("no identity: {reason}"),
            _ => format!("no identity: {file}: {reason}"),
        });
        match path.exists() {
            true => failure,
            false => failure.with_hint(&format!("Make a key with: mls-channel keygen {file}")),
        }
    })
}

/// The name that was given, or that of the file.
pub(crate) fn name_of(path: &Path, name: Option<&str>) -> Result<String, Failure> {
    let stem = || path.file_stem().and_then(|stem| stem.to_str());
    name.or_else(stem).map(str::to_owned).ok_or_else(|| {
        Failure::arguments(format!("{} says no name: give one with --name", path.display()))
    })
}

/// Looks at the beginning, which is no secret. What is wrong with the file is found later.
fn is_openssh(path: &Path) -> bool {
    let mut beginning = Vec::with_capacity(OPENSSH.len());
    let limit = OPENSSH.len() as u64;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut beginning));
    read.is_ok() && beginning == OPENSSH.as_bytes()
}

fn passphrase(path: &Path) -> Option<Zeroizing<String>> {
    let prompt = format!("Passphrase of {}: ", path.display());
    rpassword::prompt_password(prompt).ok().map(Zeroizing::new)
}
