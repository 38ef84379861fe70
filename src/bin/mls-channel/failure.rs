//! What ends the program, for a human, and as an exit code.

use std::{fmt, io, process::ExitCode};

use mls_channel::{
    Error,
    error::{AlertDescription, AuthenticationError, PeerIncompatible},
};

use crate::trust::Presented;

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

    /// Of a handshake or a channel. What the peer has presented, and the own public line, make the
    /// message one that helps.
    pub(crate) fn channel(
        error: &io::Error,
        presented: Option<&Presented>,
        own_line: &str,
    ) -> Self {
        let Some(cause) = Error::from_io(error) else {
            return Self::transport(format!("the connection: {error}"));
        };
        let (code, hint) = match cause {
            Error::Truncated => (3, String::new()),
            Error::PeerNotTrusted(error) => (4, not_trusted(error, presented)),
            Error::AlertReceived(alert) => (5, refused(*alert, own_line)),
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
    match error {
        AuthenticationError::UnknownKey => format!(
            "\nThe peer calls itself {:?}, and the fingerprint of its key is {}.\n\
             If its owner says the same, {}",
            presented.name,
            presented.key.fingerprint(),
            presented.advice(),
        ),
        AuthenticationError::NameMismatch { .. } => format!(
            "\nThe peer presented: {}\n\
             Say who it should be with --server-name, or correct the file of those that are believed.",
            presented.public_line(),
        ),
        AuthenticationError::WrongRole => {
            "\nThis kind of trust is not for peers of this role; see --help.".into()
        }
        _ => String::new(),
    }
}

fn refused(alert: AlertDescription, own_line: &str) -> String {
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
        AlertDescription::HandshakeFailure => {
            "\nThe peer allows none of these suites: see --suite.".into()
        }
        AlertDescription::NoApplicationProtocol => {
            "\nThe peer has none of these application protocols: see --alpn.".into()
        }
        _ => String::new(),
    }
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
