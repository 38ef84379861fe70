//! What is in certificates, for a human.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use mls_channel::internal::CertificateFields;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A file with certificates is far smaller than this, in bytes.
const MAX_FILE_LEN: u64 = 1024 * 1024;
/// How much of names is in a message, in characters.
const MAX_BRIEF_LEN: usize = 200;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const SECRET: &str = "PRIVATE KEY-----";

/// The certificates of a party, its own first. Nobody has verified them.
#[derive(Clone)]
pub(crate) struct Certificates(Vec<Certificate>);

#[derive(Clone)]
struct Certificate {
    /// `None`: it does not parse.
    fields: Option<CertificateFields>,
    fingerprint: String,
}

impl Certificates {
    pub(crate) fn new<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(certificates.into_iter().map(Certificate::new).collect())
    }

    /// Those in a PEM file.
    pub(crate) fn read_file(path: &Path) -> Result<Self, Failure> {
        let failure = |reason: String| Failure::local(format!("{}: {reason}", path.display()));
        let content = read(path).map_err(|error| failure(error.to_string()))?;
        let certificates: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(&content).collect();
        let certificates = certificates.map_err(|error| failure(format!("not a PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(failure("there is no certificate in the PEM".into()));
        }
        Ok(Self::new(certificates.iter().map(|certificate| certificate.as_ref())))
    }

    /// One line for each, for messages, of which strangers can cause many.
    pub(crate) fn brief(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(Certificate::brief).collect();
        lines.join("\n")
    }

    /// The names of the first one, for a message.
    pub(crate) fn names(&self) -> String {
        match self.own().map(CertificateFields::names) {
            Some(names) if !names.is_empty() => shorten(names.join(", ")),
            _ => "none that can be used".into(),
        }
    }

    /// Whether the first one has the extension that a server's name is looked for in.
    pub(crate) fn has_alternative_names(&self) -> bool {
        self.own().is_some_and(|own| own.alternative_names.is_some())
    }

    /// Who has issued the last one.
    pub(crate) fn last_issuer(&self) -> String {
        let last = self.0.last().and_then(|last| last.fields.as_ref());
        let issuer = last.and_then(|last| last.issuer.as_deref());
        issuer.map_or_else(|| "an authority without a name".into(), quote)
    }

    /// The fingerprint of the key in the first one.
    pub(crate) fn key_fingerprint(&self) -> Option<String> {
        Some(self.own()?.key.as_ref()?.fingerprint())
    }

    fn own(&self) -> Option<&CertificateFields> {
        self.0.first()?.fields.as_ref()
    }
}

impl Certificate {
    fn new(der: &[u8]) -> Self {
        let hash: Vec<String> =
            Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { fields: CertificateFields::read(der), fingerprint: hash.join(":") }
    }

    fn brief(&self) -> String {
        let Some(fields) = &self.fields else { return "  one that does not parse".into() };
        let or_none =
            |name: &Option<String>| name.as_deref().map_or_else(|| "nameless".into(), quote);
        let names = match &fields.alternative_names {
            Some(names) if !names.is_empty() => shorten(names.join(", ")),
            _ => or_none(&fields.common_name),
        };
        let (from, to) = (time(&fields.not_before), time(&fields.not_after));
        format!("  {names}: issued by {}, valid {from} to {to}", or_none(&fields.issuer))
    }
}

/// Without a line feed at the end. What is from the certificates cannot leave its line.
impl fmt::Display for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, certificate) in self.0.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            certificate.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fields) = &self.fields else {
            writeln!(f, "certificate that does not parse")?;
            return write!(f, "  sha256  {}", self.fingerprint);
        };
        let or_none = |name: &Option<String>| {
            name.as_ref().map_or_else(|| "without a common name".into(), |name| format!("{name:?}"))
        };
        writeln!(f, "certificate of {}", or_none(&fields.common_name))?;
        match &fields.alternative_names {
            Some(names) => writeln!(f, "  names   {}", names.join(", "))?,
            None => writeln!(f, "  names   no subject alternative names")?,
        }
        writeln!(f, "  issuer  {}", or_none(&fields.issuer))?;
        writeln!(f, "  valid   {} to {}", time(&fields.not_before), time(&fields.not_after))?;
        writeln!(f, "  sha256  {}", self.fingerprint)?;
        match &fields.key {
            Some(key) => write!(f, "  key     {}, {}", key.scheme(), key.fingerprint()),
            None => write!(f, "  key     of another scheme than a party may have"),
        }
    }
}

fn time(time: &Option<String>) -> &str {
    time.as_deref().unwrap_or("?")
}

fn quote(name: &str) -> String {
    shorten(format!("{name:?}"))
}

fn shorten(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_BRIEF_LEN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether a file holds certificates and no key. What is wrong with it is found later.
pub(crate) fn is_certificate_file(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    // It may be a secret key, after all.
    let mut beginning = Zeroizing::new(Vec::new());
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_LEN).read_to_end(&mut beginning));
    let has = |part: &str| beginning.windows(part.len()).any(|bytes| bytes == part.as_bytes());
    read.is_ok() && has(BEGIN) && !has(SECRET)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE_LEN + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_LEN {
        return Err(io::Error::other("too long for a file with certificates"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_parse_is_shown_by_its_hash_alone() {
        let certificates = Certificates::new([&b"none"[..]]);
        let shown = certificates.to_string();
        assert!(shown.starts_with("certificate that does not parse\n  sha256  "), "{shown}");
        assert_eq!(certificates.brief(), "  one that does not parse");
        assert!(!certificates.has_alternative_names());
        assert_eq!(certificates.names(), "none that can be used");
        assert_eq!(certificates.key_fingerprint(), None);
    }

    #[test]
    fn names_of_strangers_are_cut_and_stay_in_their_line() {
        assert_eq!(quote("a\nb\u{202e}"), "\"a\\nb\\u{202e}\"");
        let cut = shorten("ä".repeat(MAX_BRIEF_LEN + 1));
        assert_eq!(cut, "ä".repeat(MAX_BRIEF_LEN) + "…");
        let whole = "ä".repeat(MAX_BRIEF_LEN);
        assert_eq!(shorten(whole.clone()), whole);
    }
}
