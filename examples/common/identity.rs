//! The options of `echo_server` and `echo_client` that say who they are.

use std::{error::Error, path::PathBuf};

use mls_channel::Identity;

/// Who this party is.
#[derive(clap::Args, Debug)]
pub(crate) struct IdentityOptions {
    /// The file with this party's secret key, in PEM
    #[arg(long, alias = "key", value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// This party's name [default: the name of the file without its ending]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// This party's certificates, in PEM: its own, for the key in the identity file, then those that
    /// lead to a root
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "generate"])]
    cert: Option<PathBuf>,
    /// Make the identity file and print its public line, to be given to the other side
    #[arg(long)]
    pub(crate) generate: bool,
}

impl IdentityOptions {
    /// Makes a new key and writes its file. The public line goes to stdout, so that it can be sent
    /// to a file of its own.
    pub(crate) fn generate(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let identity = Identity::generate(&self.name()?)?;
        identity.write_pem_file(&self.identity)?;
        eprintln!("wrote {}, which is secret; this line is public:", self.identity.display());
        println!("{}", identity.public_line());
        Ok(())
    }

    /// Reads the identity.
    pub(crate) fn load(&self) -> Result<Identity, Box<dyn Error + Send + Sync>> {
        if let Some(certificates) = &self.cert {
            return Ok(Identity::read_x509_pem_files(certificates, &self.identity)?);
        }
        let path = self.identity.display();
        Identity::read_pem_file(&self.name()?, &self.identity).map_err(|error| {
            let hint = match self.identity.exists() {
                true => String::new(),
                false => format!("\nmake it with: --generate --identity {path}"),
            };
            format!("no identity: {error}{hint}").into()
        })
    }

    fn name(&self) -> Result<String, String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let stem = self.identity.file_stem().and_then(|stem| stem.to_str());
        stem.map(str::to_owned).ok_or_else(|| {
            format!("{} says no name: give one with --name", self.identity.display())
        })
    }
}
