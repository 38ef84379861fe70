//! Who this party is.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use mls_channel::{Error, Identity, error::ConfigError};
use zeroize::Zeroizing;

use crate::{
    certificates::Certificates,
    failure::{self, Failure},
};

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
    #[arg(long, value_name = "FILE", required_unless_present_any = ["cert", "key"])]
    identity: Option<PathBuf>,
    #[command(flatten)]
    certified: CertifiedOptions,
    /// This party's name [default: the name of the file without its ending]. In certificates it is
    /// their matter
    #[arg(long, value_name = "NAME", conflicts_with = "cert")]
    name: Option<String>,
}

/// An identity with certificates.
#[derive(Args)]
pub(crate) struct CertifiedOptions {
    /// The file with this party's certificate and those of the authorities up to a root, in this order,
    /// in PEM
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "identity")]
    cert: Option<PathBuf>,
    /// The file with the secret key of --cert, in PEM
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "identity")]
    key: Option<PathBuf>,
}

/// What the other side has to know of this party, for messages.
#[derive(Clone)]
pub(crate) enum Own {
    /// The public line.
    Key(String),
    Certificates(Certificates),
}

impl IdentityOptions {
    pub(crate) fn load(&self) -> Result<(Identity, Own), Failure> {
        if let Some(certified) = self.certified.load()? {
            return Ok(certified);
        }
        let file = self.identity.as_ref().ok_or_else(|| {
            Failure::arguments("say who this party is, with --identity, or with --cert and --key")
        })?;
        let identity = load(file, self.name.as_deref())?;
        let line = identity.public_line();
        Ok((identity, Own::Key(line)))
    }
}

impl CertifiedOptions {
    pub(crate) fn is_given(&self) -> bool {
        self.cert.is_some()
    }

    /// `None`: there are none.
    pub(crate) fn load(&self) -> Result<Option<(Identity, Own)>, Failure> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        check_regular(cert)?;
        let identity = Identity::read_x509_pem_files(cert, key).map_err(|error| {
            let reason = failure::describe(&error);
            let (file, hint) = match &error {
                Error::Config(ConfigError::File { .. }) => {
                    return Failure::local(format!("no identity: {reason}"));
                }
                Error::Config(ConfigError::Key(_)) => (key, String::new()),
                _ => (cert, format!("\nSee what is in it: mls-channel show {}", cert.display())),
            };
            Failure::local(format!("no identity: {}: {reason}{hint}", file.display()))
        })?;
        let certificates = Certificates::read_file(cert)?;
        Ok(Some((identity, Own::Certificates(certificates))))
    }
}

/// Reads a key file of either form.
pub(crate) fn load(path: &Path, name: Option<&str>) -> Result<Identity, Failure> {
    let name = name_of(path, name)?;
    check_regular(path)?;
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

/// Such files are opened twice, and a pipe gives its content once. What is not there is found later.
fn check_regular(path: &Path) -> Result<(), Failure> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            Err(Failure::local(format!("no identity: {}: not a regular file", path.display())))
        }
        _ => Ok(()),
    }
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
