//! Authorities for tests, and what is read in a certificate.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateRevocationListParams, DnValue, GeneralSubtree, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, RevokedCertParams, SignatureAlgorithm, SigningKey,
};
pub(crate) use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::*;
use crate::{CryptoProvider, Identity, SignatureScheme, WebPkiVerifier, WebPkiVerifierBuilder};

/// An authority, and those that lead from it to the root.
pub(crate) struct Authority {
    params: CertificateParams,
    key: Key,
    pem: String,
    /// Without the root, in PEM.
    chain: String,
}

pub(crate) struct Key(Identity);

pub(crate) fn key(identity: &Identity) -> Key {
    Key(identity.clone())
}

/// The certificates in a PEM.
pub(crate) fn der(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.unwrap().to_vec()).collect()
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.public_key().scheme() {
            SignatureScheme::ED25519 => &PKCS_ED25519,
            SignatureScheme::ECDSA_SECP256R1_SHA256 => &PKCS_ECDSA_P256_SHA256,
            #[cfg(feature = "post-quantum")]
            other => panic!("no certificates of {other}"),
        }
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.key().sign(&CryptoProvider::default(), message);
        signature.map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, SignatureScheme::ED25519)
    }

    pub(crate) fn root_with(name: &str, scheme: SignatureScheme) -> Self {
        Self::root_of(authority(name), Key(Identity::generate_with("key", scheme).unwrap()))
    }

    /// One that may only give DNS names below this one.
    pub(crate) fn constrained_root(name: &str, domain: &str) -> Self {
        Self::root_of(constrained(name, domain), Key(Identity::generate("key").unwrap()))
    }

    fn root_of(params: CertificateParams, key: Key) -> Self {
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem, chain: String::new() }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_of(authority(name))
    }

    /// One that may only give DNS names below this one.
    pub(crate) fn constrained_intermediate(&self, name: &str, domain: &str) -> Self {
        self.intermediate_of(constrained(name, domain))
    }

    fn intermediate_of(&self, params: CertificateParams) -> Self {
        let key = Key(Identity::generate("key").unwrap());
        let pem = params.signed_by(&key, &self.issuer()).unwrap().pem();
        let chain = format!("{pem}{}", self.chain);
        Self { params, key, pem, chain }
    }

    /// `count` authorities below each other.
    pub(crate) fn intermediates(&self, count: usize) -> Self {
        let mut last = self.intermediate("intermediate 1");
        for number in 2..=count {
            last = last.intermediate(&format!("intermediate {number}"));
        }
        last
    }

    /// An identity with a new key and a certificate from here.
    pub(crate) fn identify(&self, params: &CertificateParams) -> Identity {
        self.certify(params, &Identity::generate("key").unwrap())
    }

    /// An identity with the key of another one and a certificate from here.
    pub(crate) fn certify(&self, params: &CertificateParams, key: &Identity) -> Identity {
        let chain = self.certificates(params, key);
        Identity::from_x509_pem(&chain, &key.to_pkcs8_pem().unwrap()).unwrap()
    }

    /// A certificate from here with those above it, in PEM.
    pub(crate) fn certificates(&self, params: &CertificateParams, key: &Identity) -> String {
        let own = params.signed_by(&Key(key.clone()), &self.issuer()).unwrap().pem();
        own + &self.chain
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn serial(&self) -> u64 {
        serial(&self.params)
    }

    /// A revocation list in PEM, to be renewed by 2090.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_until(serials, 2090)
    }

    pub(crate) fn revoke_until(&self, serials: &[u64], year: i32) -> String {
        self.list(serials, 2020, year, 1)
    }

    /// A revocation list that was made and will be renewed in these years.
    pub(crate) fn list(&self, serials: &[u64], from: i32, to: i32, number: u64) -> String {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(to, 1, 1),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(vec![1]),
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }

    /// Believes this authority.
    pub(crate) fn verifier(&self) -> WebPkiVerifierBuilder {
        WebPkiVerifier::builder().roots_pem(&self.pem).unwrap()
    }

    fn issuer(&self) -> Issuer<'_, &Key> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// What is in a certificate with these subject alternative names, with a serial of its own.
pub(crate) fn named(names: &[&str]) -> CertificateParams {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1]);
    params
}

pub(crate) fn serial(params: &CertificateParams) -> u64 {
    let bytes = params.serial_number.as_ref().unwrap().to_bytes();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn authority(name: &str) -> CertificateParams {
    let mut params = named(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn constrained(name: &str, domain: &str) -> CertificateParams {
    let mut params = authority(name);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.into())],
        excluded_subtrees: vec![],
    });
    params
}

fn certificate(params: &CertificateParams) -> Vec<u8> {
    let key = Key(Identity::generate("key").unwrap());
    params.signed_by(&key, &Authority::root("root").issuer()).unwrap().der().to_vec()
}

fn with(names: Vec<SanType>, common_name: impl Into<DnValue>) -> CertificateParams {
    let mut params = named(&[]);
    params.subject_alt_names = names;
    params.distinguished_name.push(DnType::CommonName, common_name.into());
    params
}

#[test]
fn names_come_in_the_order_of_the_extension() {
    let names = vec![
        SanType::IpAddress([192, 0, 2, 1].into()),
        SanType::URI("spiffe://example.org/alice".try_into().unwrap()),
        SanType::DnsName("Alice.Example.ORG".try_into().unwrap()),
        SanType::Rfc822Name("Alice@example.org".try_into().unwrap()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
    ];
    assert_eq!(
        super::names(&certificate(&with(names, "common"))),
        [
            "192.0.2.1",
            "spiffe://example.org/alice",
            "alice.example.org",
            "Alice@example.org",
            "::1"
        ]
    );
}

#[test]
fn a_name_has_the_form_of_its_kind() {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let mailbox = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    for name in [
        dns("alice@example.org"),
        dns("spiffe://example.org/alice"),
        dns("192.0.2.1"),
        dns("2001:db8::1"),
        dns("example.org:443"),
        mailbox("alice.example"),
        mailbox("mailto:alice@example.org"),
        mailbox("@example.org"),
        mailbox("alice@"),
        uri("alice.example"),
        uri("//alice.example"),
        uri("alice@example.org"),
        uri("fe80::1"),
        uri("1a:b"),
        uri(":"),
    ] {
        let names = names(&certificate(&with(vec![name.clone()], "common")));
        assert!(names.is_empty(), "{name:?}: {names:?}");
    }
    for (name, expected) in [
        (dns("*.a-b.Example"), "*.a-b.example"),
        (dns("_sip.xn--bcher-kva.example"), "_sip.xn--bcher-kva.example"),
        (mailbox("o'neil+x@example.org"), "o'neil+x@example.org"),
        (uri("urn:uuid:1"), "urn:uuid:1"),
        (uri("fe80:x"), "fe80:x"),
        (uri("mailto:alice@example.org"), "mailto:alice@example.org"),
    ] {
        assert_eq!(names(&certificate(&with(vec![name], "common"))), [expected]);
    }
}

// CH-10
#[test]
fn names_are_ascii() {
    let mut der = certificate(&named(&["alice.example"]));
    let place = der.windows(5).position(|part| part == b"alice").unwrap();
    der[place..place + 2].copy_from_slice("å".as_bytes());
    assert!(names(&der).is_empty());
}

#[test]
fn later_revocation_lists_are_greater() {
    let root = Authority::root("root");
    let order = |list: String| {
        let list = rustls_pki_types::CertificateRevocationListDer::from_pem_slice(list.as_bytes());
        revocation_list_order(&list.unwrap()).unwrap()
    };
    let many: Vec<u64> = (0..4000).collect();
    let ascending = [
        root.list(&[], 1999, 2090, 900),
        root.list(&many, 2020, 2090, 1),
        root.list(&[1], 2020, 2090, 2),
        root.list(&[], 2020, 2090, 255),
        root.list(&[1], 2020, 2090, 256),
        root.list(&[1], 2050, 2090, 1),
    ]
    .map(order);
    assert!(ascending.is_sorted_by(|one, other| one < other), "{ascending:?}");
    assert_eq!(revocation_list_order(b"\x30\x00"), None);
}

#[test]
fn the_common_name_counts_without_the_extension_alone() {
    assert_eq!(names(&certificate(&with(vec![], "alice"))), ["alice"]);
    // The extension has nothing that could be the name of an identity.
    let mailbox = SanType::Rfc822Name("two words".try_into().unwrap());
    assert!(names(&certificate(&with(vec![mailbox], "alice"))).is_empty());
    for name in ["two words", "#comment", "li\ne", "al\u{202e}ice", ""] {
        assert!(names(&certificate(&with(vec![], name))).is_empty(), "{name:?}");
    }
    let printable = DnValue::PrintableString("alice".try_into().unwrap());
    assert_eq!(names(&certificate(&with(vec![], printable))), ["alice"]);
    let other = DnValue::BmpString("alice".try_into().unwrap());
    assert!(names(&certificate(&with(vec![], other))).is_empty());
}

#[test]
fn a_certificate_certifies_its_key_alone() {
    let root = Authority::root("root");
    let keys: Vec<_> = SignatureScheme::ALL[..2]
        .iter()
        .flat_map(|scheme| [(); 2].map(|()| Identity::generate_with("key", *scheme).unwrap()))
        .collect();
    for (place, key) in keys.iter().enumerate() {
        let issued = named(&["alice"]).signed_by(&Key(key.clone()), &root.issuer()).unwrap();
        let der = CertificateDer::from(issued.der().to_vec());
        let parsed = EndEntityCert::try_from(&der).unwrap();
        for (other, key) in keys.iter().enumerate() {
            assert_eq!(certifies(&parsed, key.public_key()), place == other);
        }
    }
}

#[test]
fn what_is_shown_of_a_certificate_is_read() {
    let root = Authority::root("My Root");
    for (scheme, last, not_after) in [
        (SignatureScheme::ED25519, date_time_ymd(2049, 12, 31), "2049-12-31 00:00:00 UTC"),
        (
            SignatureScheme::ECDSA_SECP256R1_SHA256,
            date_time_ymd(2050, 1, 2),
            "2050-01-02 00:00:00 UTC",
        ),
    ] {
        let key = Identity::generate_with("key", scheme).unwrap();
        let mut params = with(vec![], "My Server");
        params.not_before = date_time_ymd(1999, 2, 28);
        params.not_after = last;
        let der = params.signed_by(&Key(key.clone()), &root.issuer()).unwrap().der().to_vec();
        let mut expected = CertificateFields {
            common_name: Some("My Server".into()),
            issuer: Some("My Root".into()),
            alternative_names: None,
            not_before: Some("1999-02-28 00:00:00 UTC".into()),
            not_after: Some(not_after.into()),
            key: Some(key.public_key().clone()),
        };
        assert_eq!(CertificateFields::read(&der), Some(expected.clone()));
        // No identity can have a name with a space.
        assert!(expected.names().is_empty());
        expected.common_name = Some("server".into());
        assert_eq!(expected.names(), ["server"]);
        expected.alternative_names = Some(vec![]);
        assert!(expected.names().is_empty());
    }
    let certificate = certificate(&named(&["alice"]));
    let fields = CertificateFields::read(&certificate).unwrap();
    assert_eq!(fields.alternative_names, Some(vec!["alice".into()]));
    assert_eq!(fields.common_name.as_deref(), Some("rcgen self signed cert"));
}

#[test]
fn times_of_another_form_are_not_shown() {
    for (bytes, expected) in [
        (&b"\x17\x0d491231235959Z"[..], Some("2049-12-31 23:59:59 UTC")),
        (b"\x17\x0d500101000000Z", Some("1950-01-01 00:00:00 UTC")),
        (b"\x18\x0f20500101000000Z", Some("2050-01-01 00:00:00 UTC")),
        (b"\x17\x0d4912312359590", None),
        (b"\x17\x0b4912312359Z", None),
        (b"\x17\x0d49123123595xZ", None),
        ("\x17\x0d4\u{e4}123123595Z".as_bytes(), None),
        (b"\x18\x0d491231235959Z", None),
        (b"\x02\x0d491231235959Z", None),
        (b"", None),
    ] {
        assert_eq!(time(&mut &bytes[..]).as_deref(), expected, "{bytes:?}");
    }
}

// CH-10
#[test]
fn every_cut_of_a_certificate_is_read_without_a_panic() {
    let whole = certificate(&with(vec![], "alice"));
    for end in 0..whole.len() {
        assert!(names(&whole[..end]).is_empty(), "{end}");
    }
}

proptest! {
    // CH-10
    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        names(&bytes);
        let mut changed = certificate(&named(&["alice", "192.0.2.1"]));
        for (place, byte) in changes {
            let place = place % changed.len();
            changed[place] = byte;
        }
        names(&changed);
    }
}
