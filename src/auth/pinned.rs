//! Pinned keys: a list of names and keys, kept by hand or by a deployment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    str::FromStr,
};

use crate::{
    auth::{
        AuthenticationError, AuthenticationRequest, AuthenticationService, PeerIdentity, Purpose,
        Role,
    },
    error::{ConfigError, Error},
    identity::{self, PublicKey},
    name,
};

/// A set of pinned public keys, each under a name: whom this party believes.
///
/// The text form is like that of `authorized_keys`. A line holds a name, white space and a key in its
/// [text form](PublicKey), which is base64 with the signature scheme in front of it if that is not
/// Ed25519; [`Identity::public_line`](crate::Identity::public_line) makes one. What follows the key
/// is a comment. Empty lines and lines that begin with `#` are ignored, and lines may end in CR LF.
/// A name may have several keys, and a key several names.
///
/// ```
/// use mls_channel::PinnedKeys;
///
/// let keys = PinnedKeys::parse(
///     "# the office\n\
///      files.example.org 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= since 2026\n\
///      mail.example.org ecdsa_secp256r1_sha256 \
///      BGD+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2eQP+EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk=\n",
/// )?;
/// assert_eq!(keys.len(), 2);
/// # Ok::<(), mls_channel::Error>(())
/// ```
///
/// As an [`AuthenticationService`] it believes a peer under these rules:
///
/// - The peer has a basic credential. One with certificates is refused even if its key is pinned: its
///   name is what an authority says, and the list says nothing about that.
/// - The name and the key that the peer presents are pinned together. Names compare byte for byte.
/// - A responder is called as the initiator asked for it, if there is a server name; this
///   comparison ignores the case of ASCII letters.
/// - Inside a channel the peer may change to another key that is pinned under its name, and never
///   to another name.
/// - When a channel is revisited, the pair is still pinned.
///
/// To change the set while it is in use, share it as an `Arc<RwLock<PinnedKeys>>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinnedKeys {
    names: BTreeMap<String, BTreeSet<PublicKey>>,
}

impl PinnedKeys {
    /// An empty set, which believes nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a set from its text form.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Line`] with the number of the first line that is not right.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(text.parse::<Self>()?)
    }

    /// Reads a set from a file in the text form.
    ///
    /// Whoever can write the file decides who is believed. On Unix, a file that group or others
    /// can write is refused; on other systems this is not checked.
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

    /// The set with one more pinned key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::IdentityName`] if the name is none that an [`Identity`](crate::Identity) can
    /// have.
    pub fn with(mut self, name: impl Into<String>, key: PublicKey) -> Result<Self, Error> {
        self.insert(name, key)?;
        Ok(self)
    }

    /// Pins a key under a name. Returns whether the pair is new.
    ///
    /// # Errors
    ///
    /// [`ConfigError::IdentityName`] if the name is none that an [`Identity`](crate::Identity) can
    /// have.
    pub fn insert(&mut self, name: impl Into<String>, key: PublicKey) -> Result<bool, Error> {
        let name = name.into();
        if !name::is_identity_name(&name) {
            return Err(ConfigError::IdentityName.into());
        }
        Ok(self.names.entry(name).or_default().insert(key))
    }

    /// Takes a pair out. Returns whether it was pinned.
    ///
    /// New handshakes fail from then on. A channel that exists goes on until it is revisited.
    pub fn remove(&mut self, name: &str, key: &PublicKey) -> bool {
        let Some(keys) = self.names.get_mut(name) else { return false };
        let removed = keys.remove(key);
        if keys.is_empty() {
            self.names.remove(name);
        }
        removed
    }

    /// Whether this key is pinned under this name.
    pub fn contains(&self, name: &str, key: &PublicKey) -> bool {
        self.names.get(name).is_some_and(|keys| keys.contains(key))
    }

    /// How many pairs of a name and a key there are.
    pub fn len(&self) -> usize {
        self.names.values().map(BTreeSet::len).sum()
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The pairs, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.names.iter().flat_map(|(name, keys)| keys.iter().map(move |key| (name.as_str(), key)))
    }
}

impl FromStr for PinnedKeys {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut pinned = Self::new();
        // Some editors begin a text with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let error = |reason| ConfigError::Line { line: index + 1, reason };
            let mut words = line.split_whitespace();
            let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            if !name::is_identity_name(name) {
                return Err(error("the name is too long or has characters that do not show"));
            }
            let mut words = words.peekable();
            if words.peek().is_none() {
                return Err(error("there is no key after the name"));
            }
            let key = PublicKey::from_words(&mut words).map_err(|_| {
                error("after the name comes no key: 32 bytes in base64, or a scheme and base64")
            })?;
            pinned.names.entry(name.to_owned()).or_default().insert(key);
        }
        Ok(pinned)
    }
}

/// The text form, without the comments it was read with.
impl fmt::Display for PinnedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, key)| writeln!(f, "{name} {key}"))
    }
}

impl AuthenticationService for PinnedKeys {
    fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<PeerIdentity, AuthenticationError> {
        let name = request.presented.to_name()?;
        let key = request.presented.to_public_key()?;
        match request.purpose {
            Purpose::Update { previous: known } | Purpose::Revisit { current: known } => {
                if known.name() != name {
                    return Err(AuthenticationError::CredentialChangeRefused);
                }
            }
            Purpose::Handshake => {}
        }
        let mismatch = |expected: &str| AuthenticationError::NameMismatch {
            expected: expected.into(),
            presented: name.into(),
        };
        if !self.contains(name, &key) {
            return Err(match self.iter().find(|(_, pinned)| **pinned == key) {
                Some((expected, _)) => mismatch(expected),
                None => AuthenticationError::UnknownKey,
            });
        }
        if request.role == Role::Responder
            && let Some(server_name) = request.server_name
            && !server_name.as_str().eq_ignore_ascii_case(name)
        {
            return Err(mismatch(server_name.as_str()));
        }
        Ok(PeerIdentity::new(name, key))
    }

    /// The same for all lists: when a session is resumed, the peer has to be on the present one.
    fn trust_digest(&self) -> Option<[u8; 32]> {
        Some(*b"mls-channel PinnedKeys          ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        auth::{PresentedIdentity, validate},
        crypto::SignatureScheme,
        identity::Identity,
        name::ServerName,
    };

    // RFC 8032, section 7.1: the public keys of the first two tests.
    const KEY_1: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const KEY_2: &str = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_base64(text).unwrap()
    }

    fn pinned() -> PinnedKeys {
        format!("alice {KEY_1}\nalice {KEY_2}\nserver {KEY_1}\n").parse().unwrap()
    }

    struct Ask<'a> {
        role: Role,
        server_name: Option<&'a str>,
        purpose: Purpose<'a>,
    }

    const HANDSHAKE: Ask<'_> =
        Ask { role: Role::Initiator, server_name: None, purpose: Purpose::Handshake };

    impl Ask<'_> {
        fn of(
            &self,
            service: &PinnedKeys,
            name: &str,
            key: &PublicKey,
        ) -> Result<PeerIdentity, AuthenticationError> {
            let server_name = self.server_name.map(|name| ServerName::new(name).unwrap());
            let request = AuthenticationRequest::new(
                PresentedIdentity::new(name.as_bytes(), key.as_bytes()),
                self.role,
                server_name.as_ref(),
                self.purpose,
                SystemTime::UNIX_EPOCH,
            );
            validate(service, &request).map(|proof| proof.into_peer())
        }
    }

    fn mismatch(expected: &str, presented: &str) -> AuthenticationError {
        AuthenticationError::NameMismatch { expected: expected.into(), presented: presented.into() }
    }

    #[test]
    fn text_form_allows_comments_and_blank_lines() {
        let text = format!(
            "\u{feff}# keys\r\n\r\nalice {KEY_1} laptop, 2026\r\n  \t\n\t# more\n\
             \talice\t{KEY_2}\t# phone\nalice {KEY_1}\nserver {KEY_1}"
        );
        let read = PinnedKeys::parse(&text).unwrap();
        assert_eq!(read, pinned());
        assert_eq!(read.len(), 3);
        assert!(!read.is_empty());
        assert!(PinnedKeys::parse("# nobody\n\n").unwrap().is_empty());
        assert!(PinnedKeys::parse("").unwrap().is_empty());
    }

    #[test]
    fn error_names_the_line() {
        let long = "a".repeat(256);
        for (line, bad) in [
            ("key", "alice"),
            ("key", "alice \t"),
            ("base64", "alice secret"),
            ("base64", "alice # 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
            ("base64", "alice 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
            ("base64", "alice 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUQ=="),
            ("base64", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkz"),
            ("base64", "alice ed25519"),
            ("base64", &format!("alice ecdsa_secp256r1_sha256 {KEY_1}")),
            ("base64", &format!("alice rsa_pss_pss_sha256 {KEY_1}")),
            ("name", &format!("{long} {KEY_1}")),
            ("name", &format!("al\u{200b}ice {KEY_1}")),
        ] {
            let text = format!("# keys\r\n\nbob {KEY_1}\n{bad}\nbob {KEY_1}\n");
            match text.parse::<PinnedKeys>() {
                Err(ConfigError::Line { line: 4, reason }) => {
                    assert!(reason.contains(line), "{bad}: {reason}");
                }
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn display_writes_what_parse_reads() {
        let text = pinned().to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().any(|line| line == format!("server {KEY_1}")));
        assert!(text.ends_with('\n'));
        assert_eq!(PinnedKeys::parse(&text).unwrap(), pinned());
    }

    #[test]
    fn keys_of_other_schemes_name_them() {
        let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
        let alice = Identity::generate_with("alice", scheme).unwrap();
        let line = alice.public_line();
        assert_eq!(
            line,
            format!("alice ecdsa_secp256r1_sha256 {}", alice.public_key().to_base64())
        );
        let text = format!("{line} a comment\nalice ed25519 {KEY_1} another\n");
        let keys = PinnedKeys::parse(&text).unwrap();
        assert!(keys.contains("alice", alice.public_key()));
        assert!(keys.contains("alice", &key(KEY_1)));
        // Ed25519 goes without saying.
        assert_eq!(keys.to_string(), format!("alice {KEY_1}\n{line}\n"));

        let claim = |scheme| {
            PresentedIdentity::new(b"alice", alice.public_key().as_bytes())
                .with_signature_scheme(scheme)
        };
        let ask = |presented| {
            let (role, purpose) = (Role::Initiator, Purpose::Handshake);
            let now = SystemTime::UNIX_EPOCH;
            let request = AuthenticationRequest::new(presented, role, None, purpose, now);
            validate(&keys, &request).map(|proof| proof.into_peer())
        };
        let peer = PeerIdentity::new("alice", alice.public_key().clone());
        assert_eq!(ask(claim(scheme)), Ok(peer));
        let malformed = Err(AuthenticationError::MalformedCredential);
        assert_eq!(ask(claim(SignatureScheme::ED25519)), malformed);
    }

    #[test]
    fn pairs_are_inserted_once_and_removed() {
        let mut keys = PinnedKeys::new();
        assert_eq!(keys.insert("alice", key(KEY_1)), Ok(true));
        assert_eq!(keys.insert("alice", key(KEY_1)), Ok(false));
        let mut keys = keys.with("alice", key(KEY_2)).unwrap().with("server", key(KEY_1)).unwrap();
        assert_eq!(keys, pinned());
        assert_eq!(
            keys.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["alice", "alice", "server"]
        );
        assert!(keys.remove("alice", &key(KEY_1)));
        assert!(!keys.remove("alice", &key(KEY_1)));
        assert!(!keys.remove("nobody", &key(KEY_1)));
        assert!(keys.contains("alice", &key(KEY_2)) && keys.contains("server", &key(KEY_1)));
        assert!(keys.remove("alice", &key(KEY_2)) && keys.remove("server", &key(KEY_1)));
        assert_eq!(keys, PinnedKeys::new());
    }

    #[test]
    fn name_that_does_not_fit_a_line_is_refused() {
        for name in ["", "two words", "a\nb", "#comment", &"a".repeat(256)] {
            let error = PinnedKeys::new().insert(name, key(KEY_1)).unwrap_err();
            assert_eq!(error, ConfigError::IdentityName.into(), "{name:?}");
        }
    }

    // 2P-03
    #[test]
    fn pinned_pair_is_believed() {
        let peer = HANDSHAKE.of(&pinned(), "alice", &key(KEY_2)).unwrap();
        assert_eq!(peer, PeerIdentity::new("alice", key(KEY_2)));
        // One key may have two names.
        assert!(HANDSHAKE.of(&pinned(), "alice", &key(KEY_1)).is_ok());
        assert!(HANDSHAKE.of(&pinned(), "server", &key(KEY_1)).is_ok());
    }

    // CH-08
    #[test]
    fn empty_set_believes_nobody() {
        let answer = HANDSHAKE.of(&PinnedKeys::new(), "alice", &key(KEY_1));
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    }

    // 2P-03
    #[test]
    fn other_key_or_name_is_not_believed() {
        let unknown = PublicKey::from_bytes(&[7; 32]).unwrap();
        let answer = HANDSHAKE.of(&pinned(), "alice", &unknown);
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
        let answer = HANDSHAKE.of(&pinned(), "server", &key(KEY_2));
        assert_eq!(answer, Err(mismatch("alice", "server")));
        // Case matters in the name of an identity.
        let answer = HANDSHAKE.of(&pinned(), "Alice", &key(KEY_2));
        assert_eq!(answer, Err(mismatch("alice", "Alice")));
    }

    #[test]
    fn malformed_credential_is_not_believed() {
        for (name, signature_key) in [(&b"\xff"[..], &[1; 32][..]), (b"alice", &[1; 31])] {
            let request = AuthenticationRequest::new(
                PresentedIdentity::new(name, signature_key),
                Role::Initiator,
                None,
                Purpose::Handshake,
                SystemTime::UNIX_EPOCH,
            );
            let answer = pinned().authenticate(&request);
            assert_eq!(answer, Err(AuthenticationError::MalformedCredential));
        }
    }

    #[test]
    fn responder_must_be_called_as_asked() {
        let ask = Ask { role: Role::Responder, server_name: Some("server"), ..HANDSHAKE };
        assert!(ask.of(&pinned(), "server", &key(KEY_1)).is_ok());
        let answer = ask.of(&pinned(), "alice", &key(KEY_1));
        assert_eq!(answer, Err(mismatch("server", "alice")));
        // Without a server name, any pinned responder will do.
        let ask = Ask { server_name: None, ..ask };
        assert!(ask.of(&pinned(), "alice", &key(KEY_1)).is_ok());
    }

    #[test]
    fn server_name_ignores_case() {
        let keys = PinnedKeys::new().with("Files.Example.ORG", key(KEY_1)).unwrap();
        let server_name = Some("files.EXAMPLE.org");
        let ask = Ask { role: Role::Responder, server_name, ..HANDSHAKE };
        let peer = ask.of(&keys, "Files.Example.ORG", &key(KEY_1)).unwrap();
        assert_eq!(peer.name(), "Files.Example.ORG");
    }

    #[test]
    fn initiator_need_not_bear_the_server_name() {
        let ask = Ask { server_name: Some("server"), ..HANDSHAKE };
        assert!(ask.of(&pinned(), "alice", &key(KEY_2)).is_ok());
    }

    // 2P-13
    #[test]
    fn update_may_change_the_key_and_not_the_name() {
        let previous = PeerIdentity::new("alice", key(KEY_1));
        let ask = Ask { purpose: Purpose::Update { previous: &previous }, ..HANDSHAKE };
        let peer = ask.of(&pinned(), "alice", &key(KEY_2)).unwrap();
        assert_eq!(peer, PeerIdentity::new("alice", key(KEY_2)));
        let answer = ask.of(&pinned(), "server", &key(KEY_1));
        assert_eq!(answer, Err(AuthenticationError::CredentialChangeRefused));
        let unknown = PublicKey::from_bytes(&[7; 32]).unwrap();
        let answer = ask.of(&pinned(), "alice", &unknown);
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    }

    #[test]
    fn revisit_wants_the_pair_still_pinned() {
        let current = PeerIdentity::new("alice", key(KEY_2));
        let ask = Ask { purpose: Purpose::Revisit { current: &current }, ..HANDSHAKE };
        let mut keys = pinned();
        assert_eq!(ask.of(&keys, "alice", &key(KEY_2)), Ok(current.clone()));
        assert!(keys.remove("alice", &key(KEY_2)));
        let answer = ask.of(&keys, "alice", &key(KEY_2));
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    }

    #[test]
    fn file_error_names_the_file_and_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pinned");
        std::fs::write(&path, format!("alice {KEY_1}\nbob\n")).unwrap();
        let message = PinnedKeys::read_file(&path).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains("line 2"), "{message}");

        let missing = PinnedKeys::read_file(directory.path().join("missing"));
        assert!(matches!(missing, Err(Error::Config(ConfigError::File { .. }))), "{missing:?}");
    }

    #[cfg(unix)]
    #[test]
    fn file_that_others_can_write_is_refused() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pinned");
        fs::write(&path, pinned().to_string()).unwrap();
        for mode in [0o664, 0o646, 0o620, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = PinnedKeys::read_file(&path).unwrap_err().to_string();
            assert!(message.contains("can write"), "{mode:o}: {message}");
        }
        for mode in [0o600, 0o644, 0o444] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(PinnedKeys::read_file(&path).unwrap(), pinned(), "{mode:o}");
        }
    }
}
