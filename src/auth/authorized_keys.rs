//! Keys of OpenSSH: whom an `authorized_keys` file lets in (sshd(8), AUTHORIZED_KEYS FILE FORMAT).

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use crate::{
    auth::{
        AuthenticationError, AuthenticationRequest, AuthenticationService, PeerIdentity, Purpose,
        Role,
    },
    error::{ConfigError, Error},
    identity::{
        self, PublicKey,
        openssh::{UNUSABLE, USABLE},
    },
    name,
};

/// Options that allow again what `restrict` forbids, and restrict nothing by themselves.
const HARMLESS: [&str; 5] =
    ["agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding"];

/// Whom an `authorized_keys` file of OpenSSH lets in.
///
/// As an [`AuthenticationService`] it believes initiators, under these rules:
///
/// - The peer has a basic credential. Certificates are not looked into, and therefore refused.
/// - The key is in the file. As with SSH, the name that the peer presents does not matter. It is known
///   by the comment of its line, or by its fingerprint if the comment is none that can be a name. If a
///   key has several lines, the first one counts.
/// - A key whose line has options that restrict its use, such as `command=` or `from=`, is refused: a
///   channel cannot keep to them.
/// - A responder is never believed. Whom to connect to, [`KnownPeers`](crate::KnownPeers) can say.
/// - Inside a channel the peer may change to another key of its name.
/// - When a channel is revisited, or its session resumed, the key is still in the file under this name.
///
/// Only keys of the kinds `ssh-ed25519` and `ecdsa-sha2-nistp256` can be used;
/// [`AuthorizedKeys::unusable`] lists the other lines.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedKeys {
    keys: BTreeMap<PublicKey, Result<String, UnusableLine>>,
    unusable: Vec<UnusableLine>,
}

/// A line of an `authorized_keys` file that lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableLine {
    /// The number of the line, from 1.
    pub line: usize,
    /// Why it cannot be used.
    pub reason: String,
}

/// A line that is neither empty nor a comment.
struct Entry<'a> {
    options: Option<&'a str>,
    kind: &'a str,
    key: &'a str,
    comment: &'a str,
}

impl AuthorizedKeys {
    /// Reads the text of an `authorized_keys` file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Line`] with the number of the first line that has no key where one should be.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(text.parse::<Self>()?)
    }

    /// Reads an `authorized_keys` file.
    ///
    /// On Unix, a file that group or others can write is refused; on other systems this is not
    /// checked.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read, can be written by others, or does not
    /// parse; then the reason names the line.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = identity::read_trusted_text(path)?;
        Ok(text.parse::<Self>().map_err(|error| identity::file_error(path, error))?)
    }

    /// The keys that are let in, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.keys.iter().filter_map(|(key, name)| Some((name.as_ref().ok()?.as_str(), key)))
    }

    /// How many keys are let in.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines that let nobody in: their keys are of another kind, or they have options that cannot
    /// be kept to.
    pub fn unusable(&self) -> &[UnusableLine] {
        &self.unusable
    }
}

impl FromStr for AuthorizedKeys {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut authorized = Self::default();
        // Some editors begin a text with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let error = |reason| ConfigError::Line { line: number, reason };
            let entry = Entry::parse(line).map_err(error)?;
            let unusable = |reason| UnusableLine { line: number, reason };
            let mut refused = entry
                .restriction()
                .map(|option| unusable(format!("a channel cannot keep to the option {option}")));
            if USABLE.contains(&entry.kind) {
                let key = format!("{} {}", entry.kind, entry.key);
                let key = ssh_key::PublicKey::from_openssh(&key)
                    .ok()
                    .and_then(|key| PublicKey::from_ssh(key.key_data()))
                    .ok_or_else(|| error("the key is not one of its kind in base64"))?;
                let name = match name::is_identity_name(entry.comment) {
                    true => entry.comment.to_owned(),
                    false => key.fingerprint(),
                };
                let name = refused.clone().map_or(Ok(name), Err);
                authorized.keys.entry(key).or_insert(name);
            } else if refused.is_none() {
                let reason = format!("{} {UNUSABLE}", entry.kind);
                refused = Some(unusable(reason));
            }
            authorized.unusable.extend(refused);
        }
        Ok(authorized)
    }
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Result<Self, &'static str> {
        let (mut first, mut rest) = split_word(line, false);
        let mut options = None;
        if !is_kind(first) {
            // Spaces in quotes belong to the options.
            let (word, after) = split_word(line, true);
            options = Some(word);
            (first, rest) = split_word(after, false);
            if !is_kind(first) {
                return Err("there is no kind of key, such as ssh-ed25519");
            }
        }
        let (key, comment) = split_word(rest, false);
        if key.is_empty() {
            return Err("there is no key after its kind");
        }
        Ok(Self { options, kind: first, key, comment })
    }

    /// The first option that restricts the key, without its value.
    fn restriction(&self) -> Option<&'a str> {
        let mut quoted = false;
        self.options?
            .split(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            })
            .find(|option| !HARMLESS.contains(&option.to_ascii_lowercase().as_str()))
            .map(|option| option.split('=').next().unwrap_or_default())
    }
}

fn is_kind(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|beginning| word.starts_with(beginning))
}

/// Splits at the first white space, of which the second half has none at its beginning.
fn split_word(text: &str, quotes: bool) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c: char| {
        quoted ^= quotes && c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        c.is_whitespace() && !quoted
    });
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

impl AuthenticationService for AuthorizedKeys {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        request.presented.to_basic()?;
        let key = request.presented.to_public_key()?;
        if request.role != Role::Initiator {
            return Err(AuthenticationError::WrongRole);
        }
        let name = match self.keys.get(&key) {
            None => return Err(AuthenticationError::UnknownKey),
            Some(Err(UnusableLine { line, reason })) => {
                return Err(AuthenticationError::Refused(format!("line {line}: {reason}")));
            }
            Some(Ok(name)) => name,
        };
        match request.purpose {
            Purpose::Update { previous: known } | Purpose::Revisit { current: known }
                if known.name() != name =>
            {
                Err(AuthenticationError::CredentialChangeRefused)
            }
            _ => Ok(PeerIdentity::new(name, key)),
        }
    }

    /// The same for all files: when a session is resumed, the key has to be in the present one.
    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some(*b"mls-channel AuthorizedKeys      ")
    }
}

impl fmt::Display for UnusableLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        Identity,
        auth::{PresentedIdentity, validate},
    };

    fn key(number: u8) -> PublicKey {
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIFIx5ivfcjzobqimFHGXYEQdfcwpdGoeexae/J6okjaS\n\
                   -----END PRIVATE KEY-----\n";
        match number {
            0 => Identity::from_pkcs8_pem("x", pem).unwrap().public_key().clone(),
            number => PublicKey::from_bytes(&[number; 32]).unwrap(),
        }
    }

    /// `ssh-ed25519` and the key, as OpenSSH writes them.
    fn ssh(number: u8) -> String {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend_from_slice(key(number).as_bytes());
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!("ssh-ed25519 {}", STANDARD.encode(blob))
    }

    fn ask(
        service: &AuthorizedKeys,
        number: u8,
        role: Role,
        purpose: Purpose<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let key = key(number);
        let request = AuthenticationRequest::new(
            PresentedIdentity::new(b"whoever", key.as_bytes()),
            role,
            None,
            purpose,
            SystemTime::UNIX_EPOCH,
        );
        validate(service, &request).map(|proof| proof.into_peer())
    }

    fn name_of(service: &AuthorizedKeys, number: u8) -> Result<String, AuthenticationError> {
        ask(service, number, Role::Initiator, Purpose::Handshake).map(|peer| peer.name().to_owned())
    }

    // CH-08
    #[test]
    fn a_key_in_the_file_does_not_let_certificates_in() {
        let service = AuthorizedKeys::parse(&format!("{} alice", ssh(1))).unwrap();
        assert_eq!(name_of(&service, 1), Ok("alice".into()));
        let (key, chain) = (key(1), [b"certificate".to_vec()]);
        let presented = PresentedIdentity::x509(&chain, key.as_bytes());
        let now = SystemTime::UNIX_EPOCH;
        let role = Role::Initiator;
        let request = AuthenticationRequest::new(presented, role, None, Purpose::Handshake, now);
        let answer = service.authenticate(&request);
        assert_eq!(answer, Err(AuthenticationError::UnsupportedCredential("X.509")));
    }

    #[test]
    fn a_key_in_the_file_is_let_in_under_its_comment() {
        let text = format!(
            "# who may come in\r\n\n{} alice@laptop\r\n\t{}\t two words \n{}\n",
            ssh(0),
            ssh(1),
            ssh(2)
        );
        let keys = AuthorizedKeys::parse(&text).unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.unusable().is_empty());
        assert_eq!(name_of(&keys, 0), Ok("alice@laptop".into()));
        assert_eq!(name_of(&keys, 1), Ok(key(1).fingerprint()));
        assert_eq!(name_of(&keys, 2), Ok(key(2).fingerprint()));
        assert_eq!(name_of(&keys, 3), Err(AuthenticationError::UnknownKey));
        let answer = ask(&keys, 0, Role::Responder, Purpose::Handshake);
        assert_eq!(answer, Err(AuthenticationError::WrongRole));
        assert!(AuthorizedKeys::parse("").unwrap().is_empty());
        // Some editors begin a text with a byte order mark.
        for text in [format!("\u{feff}# file\n{}\n", ssh(1)), format!("\u{feff}{}\n", ssh(1))] {
            assert_eq!(AuthorizedKeys::parse(&text).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_key_with_a_restriction_is_refused_with_the_reason() {
        for (options, restriction) in [
            ("restrict", "restrict"),
            ("restrict,pty", "restrict"),
            ("no-pty", "no-pty"),
            ("pty,command=\"echo, \\\"hello\\\" ssh-ed25519 there\"", "command"),
            ("from=\"192.0.2.0/24,!192.0.2.1\",pty", "from"),
            ("FROM=\"192.0.2.1\"", "FROM"),
            ("expiry-time=\"20200101\"", "expiry-time"),
            ("cert-authority", "cert-authority"),
            ("something-new", "something-new"),
        ] {
            let text = format!("{} first\n{options} {} alice\n", ssh(1), ssh(2));
            let keys = AuthorizedKeys::parse(&text).unwrap();
            let reason = format!("a channel cannot keep to the option {restriction}");
            assert_eq!(keys.unusable(), [UnusableLine { line: 2, reason: reason.clone() }]);
            assert_eq!(keys.len(), 1);
            let refused = AuthenticationError::Refused(format!("line 2: {reason}"));
            assert_eq!(name_of(&keys, 2), Err(refused), "{options}");
        }
        // What allows something has no value; to sshd, too, such a line is not valid.
        for options in [
            "pty=\"\"",
            "pty=\"\\\"\",command=\"true\"",
            "port-forwarding=\"a,command=b\"",
            "pty,",
            "pty\"\"",
        ] {
            let keys = AuthorizedKeys::parse(&format!("{options} {} alice\n", ssh(2))).unwrap();
            assert_eq!((keys.len(), keys.unusable().len()), (0, 1), "{options}");
        }
        let text = format!("pty,Agent-Forwarding {} alice\n", ssh(2));
        assert_eq!(name_of(&AuthorizedKeys::parse(&text).unwrap(), 2), Ok("alice".into()));
    }

    #[test]
    fn the_first_line_of_a_key_counts() {
        let (key, restricted) = (ssh(1), format!("restrict {}", ssh(1)));
        let keys = AuthorizedKeys::parse(&format!("{key} a\n{key} b\n{restricted} c")).unwrap();
        assert_eq!(name_of(&keys, 1), Ok("a".into()));
        let keys = AuthorizedKeys::parse(&format!("{restricted} c\n{key} a")).unwrap();
        assert!(matches!(name_of(&keys, 1), Err(AuthenticationError::Refused(_))));
    }

    #[test]
    fn keys_of_other_kinds_are_listed() {
        let text = format!("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAB x\n{} a\n", ssh(1));
        let keys = AuthorizedKeys::parse(&text).unwrap();
        assert_eq!(name_of(&keys, 1), Ok("a".into()));
        let [unusable] = keys.unusable() else { panic!("{keys:?}") };
        assert_eq!(unusable.to_string(), format!("line 1: ssh-rsa {UNUSABLE}"));
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        let cut = &ssh(1)[..70];
        let mixed = ssh(1).replace("ssh-ed25519", "ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAB");
        for line in ["alice", "ssh-ed25519", "command=\"x ssh-ed25519 y", "a b c", cut, &mixed] {
            match format!("# file\n{line}\n").parse::<AuthorizedKeys>() {
                Err(ConfigError::Line { line: 2, .. }) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    // 2P-13, 2P-21
    #[test]
    fn updates_and_revisits_keep_the_name() {
        let text = format!("{} alice\n{} alice\n{} bob\n", ssh(1), ssh(2), ssh(3));
        let keys = AuthorizedKeys::parse(&text).unwrap();
        let alice = PeerIdentity::new("alice", key(1));
        let update = Purpose::Update { previous: &alice };
        assert!(ask(&keys, 2, Role::Initiator, update).is_ok());
        let answer = ask(&keys, 3, Role::Initiator, update);
        assert_eq!(answer, Err(AuthenticationError::CredentialChangeRefused));
        let revisit = Purpose::Revisit { current: &alice };
        assert!(ask(&keys, 1, Role::Initiator, revisit).is_ok());
        let answer = ask(&AuthorizedKeys::default(), 1, Role::Initiator, revisit);
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authorized_keys");
        fs::write(&path, format!("{} alice\nbob\n", ssh(1))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let message = AuthorizedKeys::read_file(&path).unwrap_err().to_string();
        assert!(message.contains("can write"), "{message}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let message = AuthorizedKeys::read_file(&path).unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
    }
}
