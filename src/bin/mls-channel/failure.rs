//! What ends the program, for a human, and as an exit code.

use std::{fmt, io, process::ExitCode};

use mls_channel::{
    Error,
    error::{AlertDescription, AuthenticationError, PeerIncompatible},
};

use crate::{
    certificates::Certificates,
    identity::Own,
    trust::{Presented, Who},
};

/// What went wrong and what to do about it.
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A file, the configuration, or stdin or stdout.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// An argument that only shows to be wrong together with others.
    pub(crate) fn arguments(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// No connection.
    pub(crate) fn transport(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// Of a handshake or a channel. What the peer has presented, and what this side has, make the
    /// message one that helps.
    pub(crate) fn channel(error: &io::Error, presented: Option<&Presented>, own: &Own) -> Self {
        let Some(cause) = Error::from_io(error) else {
            return Self::transport(format!("the connection: {error}"));
        };
        let (code, hint) = match cause {
            Error::Truncated => (3, String::new()),
            Error::PeerNotTrusted(error) => (4, not_trusted(error, presented)),
            Error::AlertReceived(alert) => (5, refused(*alert, own)),
            // It says so with an alert.
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon { .. }) => {
                (5, "\nThe peer allows none of these suites: see --suite.".into())
            }
            Error::PeerIncompatible(error) => (6, incompatible(error)),
            Error::HandshakeTimeout(_) => {
                (6, "\nIs it mls-channel, or another peer of this protocol, that is there?".into())
            }
            Error::InvalidMessage(_) => (6, "\nDoes the other side speak this protocol?".into()),
            Error::Config(_) | Error::Store(_) => (1, String::new()),
            _ => (6, String::new()),
        };
        Self { code, message: format!("{}{hint}", describe(cause)) }
    }

    /// With one more line.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { message: format!("{}\n{hint}", self.message), ..self }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

fn not_trusted(error: &AuthenticationError, presented: Option<&Presented>) -> String {
    let Some(presented) = presented else { return String::new() };
    match (error, &presented.who) {
        (AuthenticationError::UnknownKey, Who::Key { name, key }) => format!(
            "\nThe peer calls itself {name:?}, and the fingerprint of its key is {}.\n\
             If its owner says the same, {}",
            key.fingerprint(),
            presented.advice(),
        ),
        (AuthenticationError::NameMismatch { .. }, Who::Key { .. }) => format!(
            "\nThe peer presented: {}\n\
             Say who it should be with --server-name, or correct the file of those that are believed.",
            presented.who,
        ),
        (AuthenticationError::UnsupportedCredential(_), Who::Key { .. }) => {
            "\nThe peer has a key without a certificate. It has to give --cert and --key, or this side \
             has to believe its key, for example with --pinned."
                .into()
        }
        (AuthenticationError::WrongRole, _) => {
            "\nThis kind of trust is not for peers of this role; see --help.".into()
        }
        (error, Who::Certificates(certificates)) => not_certified(error, certificates),
        _ => String::new(),
    }
}

fn not_certified(error: &AuthenticationError, certificates: &Certificates) -> String {
    use AuthenticationError as E;
    let hint = match error {
        E::NameMismatch { .. } if certificates.has_alternative_names() => format!(
            "If one of the names of the certificate is meant ({}), say so with --server-name. \
             Otherwise it is another server, or it needs a certificate with this name.",
            certificates.names(),
        ),
        E::NameMismatch { .. } => {
            "The certificate has no subject alternative names, and a server's name has to be among \
             these; its common name does not count."
                .into()
        }
        E::Expired => {
            "The peer needs a new certificate, unless the clock of this machine is wrong.".into()
        }
        E::NotValidYet => "Is the clock of this machine right?".into(),
        E::UnknownIssuer => format!(
            "They lead to {}. If it is to be believed, its certificate belongs into the file of \
             --roots; if it is no root, those above it belong into the peer's --cert file.",
            certificates.last_issuer(),
        ),
        E::WrongPurpose => {
            "If there is an extended key usage, it has to be serverAuth for the side that listens, and \
             clientAuth for the one that connects."
                .into()
        }
        E::Revoked => "Its authority has withdrawn it. The peer needs a new one.".into(),
        E::UnknownRevocationStatus => {
            "A revocation list of each authority is needed, that of the root included: repeat --crl."
                .into()
        }
        E::UnsupportedCredential(_) => {
            "The peer has certificates: to believe those of its authority, give --roots.".into()
        }
        E::InvalidRevocationList(_) => {
            "That is a matter of the --crl files of this side, and not of the peer.".into()
        }
        E::InvalidCertificate(_) => "The peer needs another certificate.".into(),
        _ => return String::new(),
    };
    format!("\nThe peer presented:\n{}\n{hint}", certificates.brief())
}

fn refused(alert: AlertDescription, own: &Own) -> String {
    match (alert, own) {
        (AlertDescription::NoApplicationProtocol, _) => {
            "\nThe peer has none of these application protocols: see --alpn.".into()
        }
        (alert, Own::Key(line)) => key_refused(alert, line),
        (alert, Own::Certificates(certificates)) => certificates_refused(alert, certificates),
    }
}

fn key_refused(alert: AlertDescription, own_line: &str) -> String {
    match alert {
        AlertDescription::AccessDenied => format!(
            "\nThe peer does not believe this identity. If it should, it needs this line:\n{own_line}"
        ),
        AlertDescription::UnrecognizedName => format!(
            "\nThe peer knows this key under another name than the one in this line; say which with \
             --name:\n{own_line}"
        ),
        AlertDescription::CertificateUnknown => format!(
            "\nThe peer knows this name by another key than the one in this line. If the key is new, \
             the peer has to remove the old one:\n{own_line}"
        ),
        AlertDescription::UnsupportedCertificate => {
            "\nThe peer wants a certificate: see --cert and --key.".into()
        }
        _ => String::new(),
    }
}

fn certificates_refused(alert: AlertDescription, certificates: &Certificates) -> String {
    let hint = match alert {
        AlertDescription::UnrecognizedName => "The peer asked for another name than those in it.",
        AlertDescription::UnknownCa => {
            "The peer does not believe its authority, or has no revocation list of it. Does --cert have \
             the certificates between it and the root, too?"
        }
        AlertDescription::CertificateExpired => {
            "By the clock of the peer, it has expired or is not valid yet."
        }
        AlertDescription::CertificateRevoked => "It was revoked: a new one is needed.",
        AlertDescription::UnsupportedCertificate => {
            "The peer believes keys and no certificates, in which case see --identity, or the extended \
             key usage is for the other role: a client needs clientAuth, a server serverAuth."
        }
        AlertDescription::BadCertificate => "The peer says why on its stderr.",
        AlertDescription::AccessDenied => "The peer does not believe this identity.",
        _ => return String::new(),
    };
    format!("\nThis side presented:\n{}\n{hint}", certificates.brief())
}

fn incompatible(error: &PeerIncompatible) -> String {
    match error {
        PeerIncompatible::CipherSuite(_) => "\nAllow a suite of the peer with --suite.".into(),
        PeerIncompatible::Alpn => "\nName a protocol of the peer with --alpn.".into(),
        _ => String::new(),
    }
}

/// Without the kind of the error, which a human at a terminal need not know.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::Config(error) => error.to_string(),
        Error::Store(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::local(describe(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
