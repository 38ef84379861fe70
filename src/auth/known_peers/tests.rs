use std::{
    fs,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

use tempfile::TempDir;

use super::*;
use crate::{
    auth::{PresentedIdentity, validate},
    name::ServerName,
};

// RFC 8032, section 7.1: the public keys of the first two tests.
const KEY_1: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const KEY_2: &str = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

fn key(text: &str) -> PublicKey {
    PublicKey::from_base64(text).unwrap()
}

fn other_key(number: u8) -> PublicKey {
    PublicKey::from_bytes(&[number; 32]).unwrap()
}

/// A directory with room for a file of known peers, and how often somebody was asked.
struct Setup {
    directory: TempDir,
    asked: Arc<AtomicUsize>,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), asked: Arc::default() }
    }

    fn with(content: impl AsRef<[u8]>) -> Self {
        let setup = Self::new();
        fs::write(setup.path(), content).unwrap();
        setup
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("known")
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn peers(&self, answer: FirstUse) -> KnownPeers {
        let asked = Arc::clone(&self.asked);
        KnownPeers::open(self.path(), move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            answer
        })
        .unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Ask<'a> {
    role: Role,
    server_name: Option<&'a str>,
    purpose: Purpose<'a>,
}

const INITIATOR: Ask<'_> =
    Ask { role: Role::Initiator, server_name: None, purpose: Purpose::Handshake };
const RESPONDER: Ask<'_> =
    Ask { role: Role::Responder, server_name: Some("server"), purpose: Purpose::Handshake };

impl Ask<'_> {
    fn of(
        &self,
        service: &KnownPeers,
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

fn changed(
    setup: &Setup,
    name: &str,
    known: &PublicKey,
    presented: &PublicKey,
    line: usize,
) -> AuthenticationError {
    ChangedKey::new(name, known, presented).in_file(setup.path(), line).into()
}

fn reason(result: Result<PeerIdentity, AuthenticationError>) -> String {
    match result {
        Err(AuthenticationError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

// CH-08
#[test]
fn a_peer_is_asked_for_once_and_remembered() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Remember);
    let alice = PeerIdentity::new("alice", key(KEY_1));
    for _ in 0..3 {
        assert_eq!(INITIATOR.of(&peers, "alice", &key(KEY_1)), Ok(alice.clone()));
    }
    assert_eq!(setup.asked(), 1);
    assert_eq!(setup.content(), format!("alice {KEY_1}\n"));
    // Another process believes it, too.
    let peers = setup.peers(FirstUse::Refuse);
    assert_eq!(INITIATOR.of(&peers, "alice", &key(KEY_1)), Ok(alice));
    assert_eq!(setup.asked(), 1);
}

// CH-08
#[test]
fn a_refused_peer_is_not_believed_and_not_remembered() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Refuse);
    for asked in 1..3 {
        let answer = INITIATOR.of(&peers, "alice", &key(KEY_1));
        assert_eq!(answer, Err(AuthenticationError::UnknownKey));
        assert_eq!(setup.asked(), asked);
    }
    assert!(!setup.path().exists());
}

#[test]
fn a_peer_accepted_once_is_asked_for_again_but_its_channel_lives() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Once);
    let alice = INITIATOR.of(&peers, "alice", &key(KEY_1)).unwrap();
    assert!(!setup.path().exists());
    let revisit = Ask { purpose: Purpose::Revisit { current: &alice }, ..INITIATOR };
    assert_eq!(revisit.of(&peers, "alice", &key(KEY_1)), Ok(alice.clone()));
    assert_eq!(setup.asked(), 1);
    assert!(INITIATOR.of(&peers, "alice", &key(KEY_1)).is_ok());
    assert_eq!(setup.asked(), 2);

    // Its key may not change.
    let update = Ask { purpose: Purpose::Update { previous: &alice }, ..INITIATOR };
    let answer = update.of(&peers, "alice", &key(KEY_2));
    assert_eq!(answer, Err(ChangedKey::new("alice", &key(KEY_1), &key(KEY_2)).into()));

    // After a restart it counts no more.
    let peers = setup.peers(FirstUse::Remember);
    let answer = revisit.of(&peers, "alice", &key(KEY_1));
    assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    assert_eq!(setup.asked(), 2);
}

#[test]
fn a_later_no_takes_an_acceptance_back() {
    let setup = Setup::new();
    let answers = [FirstUse::Once, FirstUse::Refuse];
    let asked = AtomicUsize::new(0);
    let peers =
        KnownPeers::open(setup.path(), move |_| answers[asked.fetch_add(1, Ordering::Relaxed)])
            .unwrap();
    let alice = INITIATOR.of(&peers, "alice", &key(KEY_1)).unwrap();
    assert!(INITIATOR.of(&peers, "alice", &key(KEY_1)).is_err());
    let revisit = Ask { purpose: Purpose::Revisit { current: &alice }, ..INITIATOR };
    let answer = revisit.of(&peers, "alice", &key(KEY_1));
    assert_eq!(answer, Err(AuthenticationError::UnknownKey));
}

#[test]
fn those_accepted_once_are_bounded() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Once);
    for number in 0..=MAX_ONCE {
        INITIATOR.of(&peers, &format!("peer{number}"), &key(KEY_1)).unwrap();
    }
    assert_eq!(peers.once.lock().unwrap().len(), MAX_ONCE);
    for (name, expected) in [("peer0", false), ("peer1", true), ("peer1024", true)] {
        let peer = PeerIdentity::new(name, key(KEY_1));
        let revisit = Ask { purpose: Purpose::Revisit { current: &peer }, ..INITIATOR };
        assert_eq!(revisit.of(&peers, name, &key(KEY_1)).is_ok(), expected, "{name}");
    }
}

#[test]
fn a_changed_key_is_refused_with_all_that_one_has_to_know() {
    let setup = Setup::with(format!("# peers\nbob {KEY_2}\nalice {KEY_1} laptop\n"));
    for answer in [FirstUse::Remember, FirstUse::Once, FirstUse::Refuse] {
        let error = INITIATOR.of(&setup.peers(answer), "alice", &key(KEY_2)).unwrap_err();
        assert_eq!(error, changed(&setup, "alice", &key(KEY_1), &key(KEY_2), 3));
        let said = error.to_string();
        for part in [
            "\"alice\" HAS CHANGED",
            &format!("known is {}", key(KEY_1).fingerprint()),
            &format!("presented was {}", key(KEY_2).fingerprint()),
            &format!("remove line 3 of {}", setup.path().display()),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert_eq!(setup.asked(), 0);
}

#[test]
fn a_responder_is_known_by_the_name_that_was_asked_for() {
    let setup = Setup::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let peers = KnownPeers::open(setup.path(), move |peer| {
        let line = format!("{} {} {}", peer.name, peer.presented_name, peer.fingerprint());
        log.lock().unwrap().push((line, peer.role));
        FirstUse::Remember
    })
    .unwrap();
    let peer = RESPONDER.of(&peers, "Something.Else", &key(KEY_1)).unwrap();
    assert_eq!(peer.name(), "server");
    assert_eq!(setup.content(), format!("server {KEY_1}\n"));
    let line = format!("server Something.Else {}", key(KEY_1).fingerprint());
    assert_eq!(*seen.lock().unwrap(), [(line, Role::Responder)]);

    // Under another name it may be somebody else, and under this one it may not.
    let elsewhere = Ask { server_name: Some("elsewhere"), ..RESPONDER };
    assert!(elsewhere.of(&peers, "server", &key(KEY_2)).is_ok());
    let answer = RESPONDER.of(&peers, "elsewhere", &key(KEY_2));
    assert_eq!(answer, Err(changed(&setup, "server", &key(KEY_1), &key(KEY_2), 1)));
}

#[test]
fn only_the_names_of_responders_ignore_case() {
    let setup = Setup::with(format!("Server {KEY_1}\n"));
    let peers = setup.peers(FirstUse::Refuse);
    assert!(RESPONDER.of(&peers, "x", &key(KEY_1)).is_ok());
    assert!(RESPONDER.of(&peers, "x", &key(KEY_2)).is_err());
    assert_eq!(setup.asked(), 0);
    let answer = INITIATOR.of(&peers, "server", &key(KEY_1));
    assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    assert_eq!(setup.asked(), 1);
}

#[test]
fn a_name_may_have_several_keys() {
    let setup = Setup::with(format!("alice {KEY_1}\nalice {KEY_2}\n"));
    let peers = setup.peers(FirstUse::Remember);
    let alice = INITIATOR.of(&peers, "alice", &key(KEY_1)).unwrap();
    assert!(INITIATOR.of(&peers, "alice", &key(KEY_2)).is_ok());
    // 2P-13: it may go over from one to the other inside of a channel.
    let update = Ask { purpose: Purpose::Update { previous: &alice }, ..INITIATOR };
    assert!(update.of(&peers, "alice", &key(KEY_2)).is_ok());
    let answer = update.of(&peers, "alice", &other_key(7));
    assert_eq!(answer, Err(changed(&setup, "alice", &key(KEY_1), &other_key(7), 1)));
    let answer = update.of(&peers, "bob", &key(KEY_1));
    assert_eq!(answer, Err(AuthenticationError::CredentialChangeRefused));
    assert_eq!(setup.asked(), 0);
}

#[test]
fn a_revisit_asks_nobody_and_wants_the_line_still_there() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Remember);
    let server = RESPONDER.of(&peers, "x", &key(KEY_1)).unwrap();
    let revisit = Ask { purpose: Purpose::Revisit { current: &server }, ..RESPONDER };
    assert!(revisit.of(&peers, "x", &key(KEY_1)).is_ok());
    fs::write(setup.path(), "").unwrap();
    let answer = revisit.of(&peers, "x", &key(KEY_1));
    assert_eq!(answer, Err(AuthenticationError::UnknownKey));
    fs::write(setup.path(), format!("server {KEY_2}\n")).unwrap();
    let answer = revisit.of(&peers, "x", &key(KEY_1));
    assert_eq!(answer, Err(changed(&setup, "server", &key(KEY_2), &key(KEY_1), 1)));
    assert_eq!(setup.asked(), 1);
}

#[test]
fn comments_and_what_is_not_understood_are_kept() {
    let mut before = format!("\u{feff}# peers\r\n\r\nbob {KEY_2} phone\r\n").into_bytes();
    before.extend_from_slice(b"@marker *.example \xff\xfe\nno line feed at the end");
    let setup = Setup::with(&before);
    INITIATOR.of(&setup.peers(FirstUse::Remember), "alice", &key(KEY_1)).unwrap();
    let mut after = before;
    after.extend_from_slice(format!("\nalice {KEY_1}\n").as_bytes());
    assert_eq!(fs::read(setup.path()).unwrap(), after);
    let peers = setup.peers(FirstUse::Refuse);
    assert!(INITIATOR.of(&peers, "bob", &key(KEY_2)).is_ok());
}

#[test]
fn a_name_whose_key_cannot_be_read_is_not_asked_for() {
    let setup = Setup::with("bob from the future\nalice AAAA\n");
    let peers = setup.peers(FirstUse::Remember);
    let said = reason(INITIATOR.of(&peers, "alice", &key(KEY_1)));
    assert!(said.contains("line 2") && said.contains("cannot be read"), "{said}");
    assert_eq!(setup.asked(), 0);
}

#[test]
fn no_name_can_bring_a_line_or_a_comment_of_its_own() {
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Remember);
    for name in ["a\nroot", "a\rroot", "a b", "#a", "", "a\u{2028}b", "\u{feff}a", "a\0"] {
        let answer = INITIATOR.of(&peers, name, &key(KEY_1));
        assert_eq!(answer, Err(AuthenticationError::MalformedCredential), "{name:?}");
        let answer = RESPONDER.of(&peers, name, &key(KEY_1));
        assert_eq!(answer, Err(AuthenticationError::MalformedCredential), "{name:?}");
    }
    // A name of the application's own that would be a comment.
    let comment = Ask { server_name: Some("#server"), ..RESPONDER };
    assert!(reason(comment.of(&peers, "server", &key(KEY_1))).contains("cannot be the name"));
    assert_eq!(setup.asked(), 0);
    assert!(!setup.path().exists());
}

#[test]
fn a_file_that_is_full_or_too_long_is_not_used() {
    let line = format!("peer {KEY_2} {}\n", "x".repeat(1000));
    let mut content = line.repeat(1024 * 1024 / line.len());
    let setup = Setup::with(&content);
    let peers = setup.peers(FirstUse::Remember);
    let long = "a".repeat(255);
    let mut remembered = 0;
    let said = loop {
        match INITIATOR.of(&peers, &format!("{long}{remembered}")[4..], &key(KEY_1)) {
            Ok(_) => remembered += 1,
            refused => break reason(refused),
        }
    };
    assert!(said.contains("full"), "{said}");
    assert!(setup.content().len() <= 1024 * 1024);
    // Who is known is believed all the same.
    assert!(INITIATOR.of(&peers, "peer", &key(KEY_2)).is_ok());

    content.push_str(&line.repeat(2));
    fs::write(setup.path(), &content).unwrap();
    assert!(reason(INITIATOR.of(&peers, "peer", &key(KEY_2))).contains("longer than 1 MiB"));
    let error = KnownPeers::open(setup.path(), |_| FirstUse::Refuse).unwrap_err();
    assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
}

#[test]
fn threads_with_different_keys_for_one_name_agree_on_the_first() {
    const THREADS: u8 = 8;
    let setup = Setup::new();
    // All are asked before the first answers.
    let barrier = Arc::new(Barrier::new(THREADS.into()));
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|number| {
                let (path, barrier) = (setup.path(), Arc::clone(&barrier));
                scope.spawn(move || {
                    let peers = KnownPeers::open(path, move |peer| {
                        if peer.name == "shared" {
                            barrier.wait();
                        }
                        FirstUse::Remember
                    })
                    .unwrap();
                    let own = INITIATOR.of(&peers, &format!("peer{number}"), &key(KEY_1));
                    own.unwrap();
                    INITIATOR.of(&peers, "shared", &other_key(number))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let accepted: Vec<_> = answers.iter().flatten().collect();
    assert_eq!(accepted.len(), 1, "{answers:?}");
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(matches!(error, AuthenticationError::KeyChanged(_)), "{error}");
    }
    let content = setup.content();
    assert_eq!(content.lines().count(), usize::from(THREADS) + 1, "{content}");
    assert!(content.contains(&format!("shared {}\n", accepted[0].public_key().to_base64())));
}

#[test]
fn whoever_is_remembered_while_somebody_is_asked_counts() {
    for answer in [FirstUse::Remember, FirstUse::Once] {
        let setup = Setup::new();
        let path = setup.path();
        let peers = KnownPeers::open(setup.path(), move |peer| {
            fs::write(&path, format!("{} {KEY_2}\n", peer.name)).unwrap();
            answer
        })
        .unwrap();
        let error = INITIATOR.of(&peers, "alice", &key(KEY_1)).unwrap_err();
        assert_eq!(error, changed(&setup, "alice", &key(KEY_2), &key(KEY_1), 1));
        fs::remove_file(setup.path()).unwrap();
        assert!(INITIATOR.of(&peers, "alice", &key(KEY_2)).is_ok());
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_a_refusal() {
    let setup = Setup::new();
    let path = setup.directory.path().join("missing/known");
    let peers = KnownPeers::open(&path, |_| FirstUse::Remember).unwrap();
    let said = reason(INITIATOR.of(&peers, "alice", &key(KEY_1)));
    assert!(said.contains("missing"), "{said}");
    let error = KnownPeers::open(setup.directory.path(), |_| FirstUse::Refuse).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::File { .. })), "{error}");
}

#[cfg(unix)]
#[test]
fn modes_are_kept_and_a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |setup: &Setup| fs::metadata(setup.path()).unwrap().permissions().mode() & 0o7777;
    let setup = Setup::new();
    let peers = setup.peers(FirstUse::Remember);
    INITIATOR.of(&peers, "alice", &key(KEY_1)).unwrap();
    assert_eq!(mode(&setup), 0o600);
    fs::set_permissions(setup.path(), fs::Permissions::from_mode(0o644)).unwrap();
    INITIATOR.of(&peers, "bob", &key(KEY_1)).unwrap();
    assert_eq!(mode(&setup), 0o644);
    fs::set_permissions(setup.path(), fs::Permissions::from_mode(0o664)).unwrap();
    assert!(reason(INITIATOR.of(&peers, "alice", &key(KEY_1))).contains("can write"));
    assert!(KnownPeers::open(setup.path(), |_| FirstUse::Remember).is_err());
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let setup = Setup::new();
    let target = setup.directory.path().join("target");
    fs::write(&target, "# here\n").unwrap();
    std::os::unix::fs::symlink(&target, setup.path()).unwrap();
    INITIATOR.of(&setup.peers(FirstUse::Remember), "alice", &key(KEY_1)).unwrap();
    assert!(setup.path().symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read_to_string(target).unwrap(), format!("# here\nalice {KEY_1}\n"));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_not_there_yet_leads_to_it() {
    let setup = Setup::new();
    let elsewhere = setup.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink("elsewhere/link", setup.path()).unwrap();
    std::os::unix::fs::symlink("target", elsewhere.join("link")).unwrap();
    let peers = setup.peers(FirstUse::Remember);
    for name in ["alice", "bob"] {
        INITIATOR.of(&peers, name, &key(KEY_1)).unwrap();
    }
    assert!(setup.path().symlink_metadata().unwrap().is_symlink());
    let content = fs::read_to_string(elsewhere.join("target")).unwrap();
    assert_eq!(content, format!("alice {KEY_1}\nbob {KEY_1}\n"));

    fs::remove_file(setup.path()).unwrap();
    std::os::unix::fs::symlink("known", setup.path()).unwrap();
    assert!(KnownPeers::open(setup.path(), |_| FirstUse::Remember).is_err());
}
