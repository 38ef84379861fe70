use std::time::{Duration, SystemTime};

use super::*;
use crate::{
    auth::{PresentedIdentity, validate},
    certificate::tests::{Authority, CertificateParams, DnType, SanType, named},
    error::{ConfigError, Error},
    identity::{Identity, PublicKey},
    wire::decode_certificates,
};

fn chain_of(identity: &Identity) -> Vec<Vec<u8>> {
    decode_certificates(identity.certificates().unwrap()).unwrap()
}

/// Asks about `identity`, which answers to `server_name` if there is one.
fn ask_for(
    service: &WebPkiVerifier,
    identity: &Identity,
    server_name: Option<&str>,
    purpose: Purpose<'_>,
) -> Result<String, AuthenticationError> {
    let chain = chain_of(identity);
    let server_name = server_name.map(|name| ServerName::new(name).unwrap());
    let role = if server_name.is_some() { Role::Responder } else { Role::Initiator };
    let request = AuthenticationRequest::new(
        PresentedIdentity::x509(&chain, identity.public_key().as_bytes()),
        role,
        server_name.as_ref(),
        purpose,
        SystemTime::now(),
    );
    validate(service, &request).map(|proof| {
        assert_eq!(proof.peer().public_key(), identity.public_key());
        proof.peer().name().to_owned()
    })
}

fn ask(service: &WebPkiVerifier, identity: &Identity) -> Result<String, AuthenticationError> {
    ask_for(service, identity, None, Purpose::Handshake)
}

fn known(name: &str) -> PeerIdentity {
    PeerIdentity::new(name, PublicKey::from_bytes(&[1; 32]).unwrap())
}

#[test]
fn a_responder_is_called_as_it_was_asked_for() {
    let root = Authority::root("root");
    let service = root.verifier().build().unwrap();
    let server =
        root.identify(&named(&["first.example", "*.wild.example", "192.0.2.1", "2001:db8::1"]));
    for name in ["first.example", "FIRST.example", "a.wild.example", "192.0.2.1", "2001:db8::1"] {
        let answer = ask_for(&service, &server, Some(name), Purpose::Handshake);
        assert_eq!(answer, Ok(name.to_ascii_lowercase()));
    }
    for name in ["second.example", "wild.example", "a.b.wild.example", "192.0.2.2", "ålice", "::"]
    {
        let answer = ask_for(&service, &server, Some(name), Purpose::Handshake);
        let error = AuthenticationError::NameMismatch {
            expected: name.into(),
            presented: "first.example, *.wild.example, 192.0.2.1, 2001:db8::1".into(),
        };
        assert_eq!(answer, Err(error));
    }
    assert_eq!(ask(&service, &server), Ok("first.example".into()));
}

#[test]
fn the_common_name_is_no_server_name() {
    let root = Authority::root("root");
    let service = root.verifier().build().unwrap();
    let mut params = named(&[]);
    params.distinguished_name.push(DnType::CommonName, "server.example");
    let server = root.identify(&params);
    assert_eq!(ask(&service, &server), Ok("server.example".into()));
    let answer = ask_for(&service, &server, Some("server.example"), Purpose::Handshake);
    assert!(matches!(answer, Err(AuthenticationError::NameMismatch { .. })), "{answer:?}");
}

// 2P-13
#[test]
fn inside_a_channel_the_name_stays() {
    let root = Authority::root("root");
    let service = root.verifier().build().unwrap();
    let [alice, renewed] = [(); 2].map(|()| root.identify(&named(&["alice"])));
    let same_key = root.certify(&named(&["alice", "also"]), &alice);
    let bob = root.certify(&named(&["bob", "alice"]), &alice);
    let stranger = Authority::root("other").identify(&named(&["alice"]));
    let refused = AuthenticationError::CredentialChangeRefused;
    for (identity, answer) in [
        (&renewed, Ok("alice".into())),
        (&same_key, Ok("alice".into())),
        (&bob, Err(refused.clone())),
        (&stranger, Err(AuthenticationError::UnknownIssuer)),
    ] {
        let previous = known("alice");
        assert_eq!(
            ask_for(&service, identity, None, Purpose::Update { previous: &previous }),
            answer
        );
    }
    let current = PeerIdentity::new("alice", alice.public_key().clone());
    assert!(ask_for(&service, &alice, None, Purpose::Revisit { current: &current }).is_ok());
    let other = PeerIdentity::new("bob", alice.public_key().clone());
    let answer = ask_for(&service, &alice, None, Purpose::Revisit { current: &other });
    assert_eq!(answer, Err(refused));
    // A responder is known by the name that was asked for, whatever else the certificate has.
    let server = root.identify(&named(&["new.example", "server.example"]));
    let previous = known("server.example");
    let purpose = Purpose::Update { previous: &previous };
    let answer = ask_for(&service, &server, Some("server.example"), purpose);
    assert_eq!(answer, Ok("server.example".into()));
}

#[test]
fn validity_is_that_of_the_question() {
    let root = Authority::root("root");
    let service = root.verifier().build().unwrap();
    let alice = root.identify(&named(&["alice"]));
    let chain = chain_of(&alice);
    let ask = |now| {
        let presented = PresentedIdentity::x509(&chain, alice.public_key().as_bytes());
        let role = Role::Initiator;
        let request = AuthenticationRequest::new(presented, role, None, Purpose::Handshake, now);
        validate(&service, &request).map(|_| ())
    };
    let start = UNIX_EPOCH + Duration::from_secs(1_577_836_800); // 2020
    let end = UNIX_EPOCH + Duration::from_secs(3_786_912_000); // 2090
    let second = Duration::from_secs(1);
    assert_eq!(ask(start), Ok(()));
    assert_eq!(ask(end), Ok(()));
    assert_eq!(ask(start - second), Err(AuthenticationError::NotValidYet));
    assert_eq!(ask(end + second), Err(AuthenticationError::Expired));
    assert_eq!(ask(UNIX_EPOCH - second), Err(AuthenticationError::NotValidYet));
}

#[test]
fn revocation_lists_are_obeyed() {
    use AuthenticationError as E;
    let root = Authority::root("root");
    let middle = root.intermediate("middle");
    let params = named(&["alice"]);
    let alice = middle.identify(&params);
    let serial = certificate::tests::serial(&params);
    let verifier = |lists: &[&str]| {
        let pem = lists.concat();
        root.verifier().revocation_lists_pem(&pem).unwrap()
    };
    let (clean_root, clean_middle) = (root.revoke(&[]), middle.revoke(&[serial + 1]));
    let revoked = middle.revoke(&[1, serial]);
    let middle_revoked = root.revoke(&[middle.serial()]);
    // Not signed by the authority that it is of.
    let forged = Authority::root("middle").revoke(&[]);
    for (builder, answer) in [
        (verifier(&[&clean_root, &clean_middle]), Ok("alice".to_owned())),
        (verifier(&[&clean_root, &revoked]), Err(E::Revoked)),
        (verifier(&[&middle_revoked, &clean_middle]), Err(E::Revoked)),
        (
            verifier(&[&middle_revoked, &clean_middle]).only_check_end_entity_revocation(),
            Ok("alice".to_owned()),
        ),
        (verifier(&[&clean_root]), Err(E::UnknownRevocationStatus)),
        (verifier(&[&clean_middle]), Err(E::UnknownRevocationStatus)),
        (verifier(&[&clean_root]).allow_unknown_revocation_status(), Ok("alice".to_owned())),
        (verifier(&[&revoked]).allow_unknown_revocation_status(), Err(E::Revoked)),
        (verifier(&[&clean_middle]).only_check_end_entity_revocation(), Ok("alice".to_owned())),
    ] {
        assert_eq!(ask(&builder.build().unwrap(), &alice), answer);
    }
    let answer = ask(&verifier(&[&clean_root, &forged]).build().unwrap(), &alice);
    assert!(matches!(answer, Err(E::InvalidRevocationList(_))), "{answer:?}");
    let old = middle.revoke_until(&[], 2021);
    let service = verifier(&[&clean_root, &old]);
    assert_eq!(ask(&service.build().unwrap(), &alice), Ok("alice".into()));
    let service = verifier(&[&clean_root, &old]).enforce_revocation_expiration();
    assert_eq!(ask(&service.build().unwrap(), &alice), Err(E::RevocationListExpired));
}

#[test]
fn a_path_has_as_many_intermediate_certificates_as_allowed() {
    let root = Authority::root("root");
    for count in [1, 2, 6] {
        let alice = root.intermediates(count).identify(&named(&["alice"]));
        let service = root.verifier().max_intermediates(count).build().unwrap();
        assert_eq!(ask(&service, &alice), Ok("alice".into()), "{count}");
        let service = root.verifier().max_intermediates(count - 1).build().unwrap();
        assert_eq!(ask(&service, &alice), Err(AuthenticationError::ChainTooLong), "{count}");
    }
    let alice = root.intermediates(7).identify(&named(&["alice"]));
    let answer = ask(&root.verifier().build().unwrap(), &alice);
    assert_eq!(answer, Err(AuthenticationError::ChainTooLong));
}

#[test]
fn constraints_of_an_authority_hold() {
    let root = Authority::root("root");
    // A certificate that is none of an authority issues another one.
    let params = named(&["middle"]);
    let key = Identity::generate("key").unwrap();
    let middle = root.certificates(&params, &key);
    let issuer = rcgen::Issuer::from_params(&params, certificate::tests::key(&key));
    let own = Identity::generate("key").unwrap();
    let leaf = named(&["alice"]).signed_by(&certificate::tests::key(&own), &issuer).unwrap();
    let pem = leaf.pem() + &middle;
    let alice = Identity::from_x509_pem(&pem, &own.to_pkcs8_pem().unwrap()).unwrap();
    let answer = ask(&root.verifier().build().unwrap(), &alice);
    assert!(matches!(answer, Err(AuthenticationError::InvalidCertificate(_))), "{answer:?}");
}

#[test]
fn an_authority_gives_only_the_names_that_it_may() {
    let root = Authority::root("root");
    let middle = root.constrained_intermediate("middle", "clients.example");
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = named(&[]);
        change(&mut params);
        params
    };
    let common = with(&|params| {
        params.distinguished_name.push(DnType::CommonName, "admin.example");
    });
    let uri = |uri: &str| {
        with(&|params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())])
    };
    let constrained = Authority::constrained_root("constrained", "clients.example");
    let below = constrained.intermediate("below");
    for (root, issuer) in [(&root, &middle), (&constrained, &constrained), (&constrained, &below)] {
        let service = root.verifier().build().unwrap();
        let alice = issuer.identify(&named(&["alice.clients.example"]));
        assert_eq!(ask(&service, &alice), Ok("alice.clients.example".into()));
        // Another name, in each of the places where one can be.
        for params in [&named(&["admin.example"]), &common] {
            let answer = ask(&service, &issuer.identify(params));
            assert!(
                matches!(answer, Err(AuthenticationError::InvalidCertificate(_))),
                "{answer:?}"
            );
        }
        // There is no constraint on these. A name of this kind is not taken for one of another.
        let alice = issuer.identify(&uri("spiffe://example/alice"));
        assert_eq!(ask(&service, &alice), Ok("spiffe://example/alice".into()));
        let key = Identity::generate("key").unwrap();
        let pem = issuer.certificates(&uri("admin.example"), &key);
        let chain = certificate::tests::der(&pem);
        let request = AuthenticationRequest::new(
            PresentedIdentity::x509(&chain, key.public_key().as_bytes()),
            Role::Initiator,
            None,
            Purpose::Handshake,
            SystemTime::now(),
        );
        let answer = service.authenticate(&request);
        assert!(matches!(answer, Err(AuthenticationError::InvalidCertificate(_))), "{answer:?}");
    }
    // An authority without constraints may give a common name.
    let admin = root.intermediate("free").identify(&common);
    assert_eq!(ask(&root.verifier().build().unwrap(), &admin), Ok("admin.example".into()));
}

#[test]
fn the_newest_list_of_an_authority_counts() {
    let root = Authority::root("root");
    let params = named(&["alice"]);
    let alice = root.identify(&params);
    let serial = certificate::tests::serial(&params);
    let revoked = Err(AuthenticationError::Revoked);
    for (old, new, answer) in [
        (root.list(&[], 2020, 2090, 1), root.list(&[serial], 2021, 2090, 2), revoked.clone()),
        // Made in the same second.
        (root.list(&[], 2020, 2090, 255), root.list(&[serial], 2020, 2090, 256), revoked),
        // It was only on hold.
        (
            root.list(&[serial], 2020, 2090, 1),
            root.list(&[], 2021, 2090, 2),
            Ok("alice".to_owned()),
        ),
    ] {
        for lists in [[&old, &new], [&new, &old]] {
            let pem = lists.map(String::as_str).concat();
            let service = root.verifier().revocation_lists_pem(&pem).unwrap().build().unwrap();
            assert_eq!(ask(&service, &alice), answer);
        }
    }
}

#[test]
fn a_list_that_cannot_be_used_says_why() {
    let with = |list: &[u8]| {
        let error = Authority::root("root").verifier().revocation_list_der(list).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Certificate(_))), "{error}");
        error.to_string()
    };
    let wrap = |tag: u8, content: &[u8]| {
        [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
    };
    let algorithm = wrap(0x30, &[6, 3, 0x2b, 0x65, 0x70]);
    let issuer = wrap(0x30, &wrap(0x31, &wrap(0x30, b"\x06\x03\x55\x04\x03\x0c\x01r")));
    let [made, renewed] = [b"\x17\x0d200101000000Z", b"\x17\x0d900101000000Z"].map(|t| t.to_vec());
    let extensions = |id: u8, value: &[u8]| {
        wrap(0xa0, &wrap(0x30, &wrap(0x30, &[&[6, 3, 0x55, 0x1d, id], value].concat())))
    };
    let number = extensions(20, b"\x04\x03\x02\x01\x01");
    let delta = extensions(27, b"\x01\x01\xff\x04\x03\x02\x01\x01");
    let critical = extensions(99, b"\x01\x01\xff\x04\x00");
    let version = [2, 1, 1].to_vec();
    for (parts, reason) in [
        (vec![&algorithm, &issuer, &made, &renewed], "version 1"),
        (vec![&algorithm, &issuer, &made], "version 1"),
        (vec![&version, &algorithm, &issuer, &made, &number], "nextUpdate"),
        (vec![&version, &algorithm, &issuer, &made, &renewed], "no extensions"),
        (vec![&version, &algorithm, &issuer, &made, &renewed, &delta], "delta"),
        (vec![&version, &algorithm, &issuer, &made, &renewed, &critical], "critical extension"),
    ] {
        let tbs = wrap(0x30, &parts.into_iter().flatten().copied().collect::<Vec<_>>());
        let list = wrap(0x30, &[tbs, algorithm.clone(), vec![3, 2, 0, 0]].concat());
        let said = with(&list);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    assert!(with(b"garbage").contains("does not parse"));
}

#[test]
fn the_digest_is_of_roots_and_settings() {
    let (one, two) = (Authority::root("one"), Authority::root("two"));
    let digest = |builder: WebPkiVerifierBuilder| builder.build().unwrap().trust_digest().unwrap();
    let both = digest(one.verifier().roots_pem(two.pem()).unwrap());
    assert_eq!(both, digest(two.verifier().roots_pem(one.pem()).unwrap()));
    let plain = digest(one.verifier());
    assert_eq!(plain, digest(one.verifier().roots_pem(one.pem()).unwrap()));
    let listed =
        |serials: &[u64]| one.verifier().revocation_lists_pem(&one.revoke(serials)).unwrap();
    assert_eq!(digest(listed(&[])), digest(listed(&[7])));
    let different = [
        both,
        plain,
        digest(two.verifier()),
        digest(one.verifier().max_intermediates(1)),
        digest(listed(&[])),
        digest(listed(&[]).allow_unknown_revocation_status()),
        digest(listed(&[]).enforce_revocation_expiration()),
        digest(listed(&[]).only_check_end_entity_revocation()),
    ];
    for (place, digest) in different.iter().enumerate() {
        assert!(!different[..place].contains(digest), "{place}");
    }
}

#[test]
fn a_verifier_needs_roots_that_parse() {
    let root = Authority::root("root");
    let builder = WebPkiVerifier::builder;
    let cut = root.pem().replace("\nMI", "\nMJ");
    let list = root.revoke(&[]);
    for result in [
        builder().build().map(|_| ()),
        builder().roots_pem("").map(|_| ()),
        builder().roots_pem(&list).map(|_| ()),
        builder().roots_pem(&cut).map(|_| ()),
        builder().root_der(b"garbage").map(|_| ()),
        root.verifier().revocation_lists_pem(root.pem()).map(|_| ()),
        root.verifier().revocation_list_der(b"garbage").map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Certificate(_))), "{error}");
    }
    let error = root.verifier().max_intermediates(7).build().unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::OutOfRange(_))), "{error}");
    let error = builder().roots_file("does not exist").unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::File { .. })), "{error}");
}

#[cfg(unix)]
#[test]
fn files_that_others_can_write_are_refused() {
    use std::{fs, os::unix::fs::PermissionsExt};

    let root = Authority::root("root");
    let directory = tempfile::tempdir().unwrap();
    let [roots, lists] = ["roots.pem", "lists.pem"].map(|name| directory.path().join(name));
    fs::write(&roots, root.pem()).unwrap();
    fs::write(&lists, root.revoke(&[])).unwrap();
    let read =
        || WebPkiVerifier::builder().roots_file(&roots)?.revocation_lists_file(&lists)?.build();
    for mode in [0o644, 0o600] {
        fs::set_permissions(&roots, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(&lists, fs::Permissions::from_mode(mode)).unwrap();
        assert!(read().is_ok(), "{mode:o}");
    }
    for path in [&roots, &lists] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o664)).unwrap();
        let error = read().unwrap_err();
        assert!(error.to_string().contains("can write the file"), "{error}");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[test]
fn files_need_be_no_text_beside_their_certificates() {
    let root = Authority::root("root");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let write = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    };
    write(&[b"Autorit\xe9\n", root.pem().as_bytes()].concat());
    assert!(WebPkiVerifier::builder().roots_file(&path).is_ok());
    write(&certificate::tests::der(root.pem())[0]);
    for result in [
        WebPkiVerifier::builder().roots_file(&path),
        WebPkiVerifier::builder().revocation_lists_file(&path),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("in the PEM"), "{error}");
    }
}

#[cfg(feature = "native-roots")]
#[test]
fn the_roots_of_the_system_do_not_vouch_for_ours() {
    // A machine without roots is none of our business.
    let Ok(builder) = WebPkiVerifier::builder().native_roots() else { return };
    let alice = Authority::root("root").identify(&named(&["alice"]));
    assert_eq!(ask(&builder.build().unwrap(), &alice), Err(AuthenticationError::UnknownIssuer));
}

#[test]
fn a_certificate_has_a_name() {
    let root = Authority::root("root");
    let service = root.verifier().build().unwrap();
    let mut params: CertificateParams = named(&[]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = Identity::generate("key").unwrap();
    let pem = root.certificates(&params, &key);
    let error = Identity::from_x509_pem(&pem, &key.to_pkcs8_pem().unwrap()).unwrap_err();
    assert!(error.to_string().contains("no name"), "{error}");
    let chain = certificate::tests::der(&pem);
    let presented = PresentedIdentity::x509(&chain, key.public_key().as_bytes());
    let request = AuthenticationRequest::new(
        presented,
        Role::Initiator,
        None,
        Purpose::Handshake,
        SystemTime::now(),
    );
    let error = service.authenticate(&request).unwrap_err();
    assert!(error.to_string().contains("no name"), "{error}");
}

#[test]
fn nothing_much_is_printed() {
    let root = Authority::root("root");
    let builder = root.verifier();
    let printed = format!("{builder:?}");
    assert_eq!(
        printed,
        "WebPkiVerifierBuilder { roots: 1, revocation_lists: 0, max_intermediates: 6, .. }"
    );
    let printed = format!("{:?}", builder.build().unwrap());
    assert_eq!(
        printed,
        "WebPkiVerifier { roots: 1, revocation_lists: 0, max_intermediates: 6, .. }"
    );
}
