//! Making keys.

use std::path::PathBuf;

use clap::Args;
use mls_channel::{Identity, SignatureScheme};

use crate::{
    failure::Failure,
    identity::{self, KeyFormat},
    show, terminal,
};

const EXAMPLES: &str = "\
Example:
  mls-channel keygen server.pem > servers

The secret key is in server.pem, which only its owner can open, and servers is for the other side, \
as its --pinned file. A file that exists is never overwritten.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Keygen {
    /// The new file for the secret key
    file: PathBuf,
    /// The name of whom it belongs to [default: the name of the file without its ending]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The signature scheme of the key, by its registered name, such as ed25519 or
    /// ecdsa_secp256r1_sha256. Both sides need the same
    #[arg(long, value_name = "SCHEME", default_value = "ed25519", value_parser = scheme)]
    scheme: SignatureScheme,
    /// The form of the file
    #[arg(long, value_enum, default_value = "pem")]
    format: KeyFormat,
}

impl Keygen {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let name = identity::name_of(&self.file, self.name.as_deref())?;
        let identity = Identity::generate_with(&name, self.scheme)?;
        match self.format {
            KeyFormat::Pem => identity.write_pem_file(&self.file)?,
            KeyFormat::Openssh => identity.write_openssh_file(&self.file)?,
        }
        terminal::say(format_args!(
            "Wrote {}, which is secret. This line is public:",
            self.file.display()
        ));
        show::print(&identity.public_line())?;
        terminal::say(format_args!("Its fingerprint is {}", identity.public_key().fingerprint()));
        Ok(())
    }
}

fn scheme(name: &str) -> Result<SignatureScheme, String> {
    SignatureScheme::from_name(name).ok_or_else(|| {
        let all: Vec<&str> = SignatureScheme::ALL.iter().map(|scheme| scheme.name()).collect();
        format!("no such scheme; there are {}", all.join(", "))
    })
}
