//! Secrets: logged when somebody asks for it in the code, and shown nowhere otherwise (CH-07).

use std::{collections::HashMap, sync::Mutex};

use base64::{Engine as _, engine::general_purpose};

use super::{attack::BOTH, *};
use crate::{
    Acceptor, AuthenticationRequest, KeyLog, KeyLogFile, KeyPackages, PresentedIdentity, Purpose,
    error::{AuthenticationError, PeerMisbehaved},
    record::{RecordKey, TrafficSecret},
    wire::Record,
};

type Line = (String, Vec<u8>, Vec<u8>);

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Line>>>);

impl KeyLog for Collector {
    fn log(&self, label: &str, session: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), session.to_vec(), secret.to_vec()));
    }
}

impl Collector {
    fn lines(&self) -> HashMap<(String, Vec<u8>), Vec<u8>> {
        let mut lines = HashMap::new();
        for (label, session, secret) in self.0.lock().unwrap().iter().cloned() {
            let old = lines.insert((label, session), secret.clone());
            assert!(old.is_none_or(|old| old == secret), "a label and a session name one secret");
        }
        lines
    }
}

fn logged(builder: Builder, collector: &Collector) -> Builder {
    builder.key_log(collector.clone()).session_store(MemoryStore::default())
}

// CH-07
#[test]
pub(super) fn logged_secrets_open_what_was_captured() {
    let identities = Identities::new();
    let [client, server] = [Collector::default(), Collector::default()];
    let mut pair =
        Pair::connect(logged(identities.client(), &client), logged(identities.server(), &server));
    let hello = Record::split_from(&mut BytesMut::from(&pair.initiator.sent[..])).unwrap().unwrap();
    let suite = pair.initiator.connection.cipher_suite().unwrap();
    let crypto = CryptoProvider::default();
    let session = crypto.hash(suite, hello.payload()).unwrap();
    for epoch in 1..4 {
        for (role, party) in BOTH.into_iter().zip(["CLIENT", "SERVER"]) {
            pair.write(role, b"captured");
            let mut sent = pair.intercept(role);
            pair.inject(role.peer(), &sent);
            let record = Record::split_from(&mut sent).unwrap().unwrap();
            let label = format!("MLS_TLS_{party}_TRAFFIC_SECRET_{epoch}");
            for lines in [client.lines(), server.lines()] {
                let secret = lines.get(&(label.clone(), session.clone())).unwrap().clone();
                let secret = TrafficSecret::new(Zeroizing::new(secret));
                let mut key = RecordKey::derive(&crypto, suite, secret).unwrap();
                let opens = (0..3).any(|number| {
                    key.set_sequence_number(number);
                    key.opens(&record)
                });
                assert!(opens, "{label}");
            }
        }
        pair.rekey(BOTH[epoch % 2]);
        pair.drive();
    }
    assert_eq!(client.lines(), server.lines());
    let group = client.lines().remove(&("MLS_TLS_GROUP_ID".to_owned(), session)).unwrap();
    assert_eq!(group, pair.initiator.connection.session_id().unwrap().as_bytes());
}

// CH-07, TL-08: the session keeps its name when it is resumed, and early data has a secret of its own.
#[test]
fn a_resumed_session_is_logged_under_its_name() {
    let identities = Identities::new();
    let [client, server] = [Collector::default(), Collector::default()];
    let limits = Limits::default().with_max_early_data(100);
    let configs =
        [logged(identities.client(), &client), logged(identities.server(), &server).limits(limits)]
            .map(|builder| Arc::new(builder.build().unwrap()));
    let now = start();
    for early in [None, Some(&b"early"[..])] {
        let (name, mut out) = (ServerName::new(SERVER_NAME).unwrap(), BytesMut::new());
        let config = Arc::clone(&configs[0]);
        let initiator = match early {
            None => Connection::initiator(config, name, now, &mut out),
            Some(early) => {
                Connection::initiator_with_early_data(config, name, early, now, &mut out)
            }
        };
        let mut initiator = End::new(initiator.unwrap());
        initiator.out = out;
        let responder = End::new(Connection::responder(Arc::clone(&configs[1]), now));
        let mut pair = Pair { initiator, responder, now };
        pair.drive();
        pair.assert_works();
    }
    let lines = client.lines();
    assert_eq!(lines, server.lines());
    let sessions: std::collections::HashSet<_> = lines.keys().map(|(_, session)| session).collect();
    assert_eq!(sessions.len(), 1);
    let mut labels: Vec<_> = lines.keys().map(|(label, _)| label.as_str()).collect();
    labels.sort_unstable();
    assert_eq!(
        labels,
        [
            "MLS_TLS_CLIENT_TRAFFIC_SECRET_1",
            "MLS_TLS_CLIENT_TRAFFIC_SECRET_3",
            "MLS_TLS_EARLY_TRAFFIC_SECRET_2",
            "MLS_TLS_GROUP_ID",
            "MLS_TLS_SERVER_TRAFFIC_SECRET_1",
            "MLS_TLS_SERVER_TRAFFIC_SECRET_3",
        ]
    );
}

#[test]
fn a_file_gets_a_line_for_each_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let log = KeyLogFile::open(&path).unwrap();
    log.log("LABEL_1", &[0x01, 0xab], &[0xff, 0x00]);
    KeyLogFile::open(&path).unwrap().log("LABEL_2", &[], &[0x10]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "LABEL_1 01ab ff00\nLABEL_2  10\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(matches!(KeyLogFile::open(directory.path()), Err(Error::Config(_))));
}

/// A secret does not occur in a text, in whatever form somebody might print it.
fn assert_hidden(text: &str, secret: &[u8]) {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    let forms = [
        hex.clone(),
        hex.to_uppercase(),
        list.trim_matches(['[', ']']).to_owned(),
        secret.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>().join(", "),
        general_purpose::STANDARD_NO_PAD.encode(secret),
        general_purpose::URL_SAFE_NO_PAD.encode(secret),
        secret.escape_ascii().to_string(),
        String::from_utf8_lossy(secret).into_owned(),
    ];
    for form in forms {
        assert!(!text.contains(&form), "{form} is in {text}");
    }
}

// CH-07: whatever of a live connection can be printed says nothing secret.
#[test]
fn no_secret_is_in_anything_that_can_be_printed() {
    let identities = Identities::new();
    let collectors = [Collector::default(), Collector::default()];
    let builders =
        [logged(identities.client(), &collectors[0]), logged(identities.server(), &collectors[1])];
    let mut text = format!("{builders:?}");
    let configs = builders.clone().map(|builder| Arc::new(builder.build().unwrap()));
    let mut show = |shown: &dyn fmt::Debug| text.push_str(&format!("{shown:?} {shown:#?}\n"));
    show(&configs);
    let [client, server] = builders;
    let mut pair = Pair::new(client, server);
    show(&pair.initiator.connection);
    let mut acceptor = Acceptor::new(Limits::default(), pair.now);
    let mut first = pair.initiator.out.clone();
    show(&acceptor);
    let accepted = acceptor.handle_input(pair.now, &mut first, &mut BytesMut::new());
    show(&accepted);
    pair.drive();
    for role in BOTH {
        pair.write(role, b"data");
        pair.rekey(role);
        let next = Identity::generate(pair.end(role).connection.identity().unwrap().name());
        show(&next);
        pair.drive();
        let now = pair.now;
        let end = pair.end(role);
        // Refused: the key is not pinned.
        end.connection.rotate_identity(next.unwrap(), &mut end.out).unwrap();
        pair.drive();
        let end = pair.end(role);
        show(&end.events);
        show(&end.connection);
        show(&end.connection.statistics());
        show(&end.connection.identity());
        show(&end.connection.peer());
        show(&end.connection.session_id());
        show(&end.established().sender.identity());
        let presented = PresentedIdentity::new(b"name", &[7; 32]);
        show(&AuthenticationRequest::new(presented, role, None, Purpose::Handshake, now.calendar));
    }
    let key_packages = KeyPackages::new(Arc::clone(&configs[0]));
    key_packages.make(&ServerName::new(SERVER_NAME).unwrap(), 1, pair.now).unwrap();
    show(&key_packages);
    show(&CryptoProvider::default());
    show(&KeyLogFile::new());
    let exported = pair.initiator.connection.export_secret("test", b"", 32).unwrap();
    // Errors, and the state that they leave.
    pair.inject(Role::Initiator, &[23, 3, 3, 0, 32]);
    pair.inject(Role::Initiator, &[0; 32]);
    pair.drive();
    for role in BOTH {
        let end = pair.end(role);
        let error = end.error.clone().unwrap();
        show(&error);
        show(&std::io::Error::from(error.clone()));
        show(&error.to_string());
        show(&end.connection);
    }
    assert_eq!(pair.initiator.error, Some(PeerMisbehaved::BadRecordMac.into()));
    let refused = AuthenticationError::UnknownKey;
    assert!(text.contains(&format!("{refused:?}")), "what should be seen is there");

    let mut secrets: Vec<Vec<u8>> = vec![exported.to_vec()];
    for identity in [&identities.client, &identities.server] {
        secrets.push(identity.key().secret().to_vec());
    }
    for collector in &collectors {
        let lines = collector.lines().into_iter();
        let lines = lines.filter(|((label, _), _)| label.contains("SECRET"));
        secrets.extend(lines.map(|(_, secret)| secret));
    }
    assert!(secrets.len() > 10);
    for secret in &secrets {
        assert_hidden(&text, secret);
    }
}
