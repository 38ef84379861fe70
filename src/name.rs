//! Names: what an initiator asks for, and what may be one.

use std::{fmt, str::FromStr};

use crate::error::ConfigError;

/// The longest name in bytes: the transport parameters carry its length in one byte.
const MAX_LEN: usize = 255;

/// The name of the service that an initiator wants to reach.
///
/// It plays the part of the server name of TLS (RFC 6066, section 3): the responder may choose by
/// it, and the initiator's authentication service demands that the responder is called so. A name
/// has 1 to 255 bytes, and none of its characters is white space, a control character or
/// invisible. Host names compare without regard to case, so ASCII letters are stored in lower
/// case.
///
/// ```
/// use mls_channel::ServerName;
///
/// let name = ServerName::new("Files.Example.ORG")?;
/// assert_eq!(name.as_str(), "files.example.org");
/// assert!(ServerName::new("two words").is_err());
/// # Ok::<(), mls_channel::error::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(String);

impl ServerName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ServerName`] if the name is empty, longer than 255 bytes, or has white
    /// space, control characters or invisible ones.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigError> {
        let mut name = name.into();
        if !is_printable(&name) {
            return Err(ConfigError::ServerName);
        }
        name.make_ascii_lowercase();
        Ok(Self(name))
    }

    /// The name, with ASCII letters in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ServerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ServerName {
    type Error = ConfigError;

    fn try_from(name: &str) -> Result<Self, ConfigError> {
        Self::new(name)
    }
}

impl TryFrom<String> for ServerName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        Self::new(name)
    }
}

impl FromStr for ServerName {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::new(name)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Whether `name` may be the name of an identity.
///
/// It must be printable, and must not start with `#`, which would make its line in a file of
/// pinned keys a comment.
pub(crate) fn is_identity_name(name: &str) -> bool {
    is_printable(name) && !name.starts_with('#')
}

/// Whether `name` has 1 to 255 bytes that all show: no white space, control or invisible
/// characters.
fn is_printable(name: &str) -> bool {
    (1..=MAX_LEN).contains(&name.len())
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// The format characters of Unicode (category Cf) that show nothing or reorder the text around
/// them. With them, two different names could look the same to the reader of a log.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_name_is_kept_in_lower_case() {
        let name = ServerName::new("Files.Example.ORG").unwrap();
        assert_eq!(name.as_str(), "files.example.org");
        assert_eq!(name.to_string(), "files.example.org");
        assert_eq!(AsRef::<str>::as_ref(&name), "files.example.org");
        assert_eq!(format!("{name:?}"), "\"files.example.org\"");
        assert_eq!(name, ServerName::try_from("FILES.example.org").unwrap());
        assert_eq!(name, ServerName::try_from(String::from("files.EXAMPLE.org")).unwrap());
        assert_eq!(name, "files.example.org".parse().unwrap());
        assert_ne!(name, ServerName::new("files.example.com").unwrap());
    }

    #[test]
    fn only_ascii_letters_change_their_case() {
        assert_eq!(ServerName::new("BÜCHER").unwrap().as_str(), "bÜcher");
    }

    #[test]
    fn length_of_a_name_is_1_to_255_bytes() {
        assert_eq!(ServerName::new(""), Err(ConfigError::ServerName));
        assert!(ServerName::new("a").is_ok());
        assert!(ServerName::new("a".repeat(255)).is_ok());
        assert_eq!(ServerName::new("a".repeat(256)), Err(ConfigError::ServerName));
        // Bytes count, not characters.
        assert!(ServerName::new("ü".repeat(127)).is_ok());
        assert_eq!(ServerName::new("ü".repeat(128)), Err(ConfigError::ServerName));
    }

    #[test]
    fn characters_that_do_not_show_are_refused() {
        for c in [
            ' ', '\t', '\n', '\r', '\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{a0}', '\u{2028}',
            '\u{3000}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}',
        ] {
            for name in [format!("{c}name"), format!("na{c}me"), format!("name{c}")] {
                assert_eq!(ServerName::new(&name), Err(ConfigError::ServerName), "{name:?}");
                assert!(!is_identity_name(&name), "{name:?}");
            }
        }
    }

    #[test]
    fn identity_name_cannot_begin_a_comment() {
        assert!(!is_identity_name("#alice"));
        assert!(is_identity_name("alice#1"));
        assert!(is_identity_name("alice@example.org"));
        assert!(is_identity_name("Ålice"));
    }
}
