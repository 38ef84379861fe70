//! Certificates that OpenSSL has made, on the command line.
//!
//! Without the program `openssl` these tests do nothing but say so.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mls_channel::{
    Config, Error, Identity, MlsAcceptor, MlsConnector, MlsStream, ServerName, WebPkiVerifier,
    error::AuthenticationError, wire::AlertDescription,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const ED25519: &[&str] = &["-algorithm", "ED25519"];
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];

/// What `openssl ca` wants to know.
const CA_CONFIG: &str = "
[ca]
default_ca = authority
[authority]
database = index.txt
default_md = sha256
default_crl_days = 30
crlnumber = number.txt
crl_extensions = list
[list]
authorityKeyIdentifier = keyid
";

/// A directory with the files of OpenSSL.
struct OpenSsl {
    directory: TempDir,
}

impl OpenSsl {
    /// `None` if there is no OpenSSL.
    fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: there is no openssl");
            return None;
        }
        let openssl = Self { directory: tempfile::tempdir().unwrap() };
        openssl.write("ca.cnf", CA_CONFIG);
        openssl.write("index.txt", "");
        openssl.write("number.txt", "1000\n");
        Some(openssl)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.current_dir(self.directory.path()).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }

    fn key(&self, name: &str, algorithm: &[&str]) {
        let file = format!("{name}.key");
        self.run(&[&["genpkey", "-out", &file], algorithm].concat());
        fs::set_permissions(self.path(&file), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A root with a key of this algorithm.
    fn root(&self, name: &str, algorithm: &[&str]) {
        self.key(name, algorithm);
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let subject = format!("/O=mls-channel/CN={name}");
        self.run(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
            "-days",
            "30",
        ]);
    }

    /// A certificate of `name` by `issuer`, with these extensions.
    fn issue(&self, name: &str, algorithm: &[&str], issuer: &str, extensions: &str) {
        self.key(name, algorithm);
        self.write("extensions.cnf", extensions);
        let [key, request, certificate] =
            ["key", "csr", "crt"].map(|ending| format!("{name}.{ending}"));
        let (issuer_certificate, issuer_key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
        let subject = format!("/CN={name}");
        self.run(&["req", "-new", "-key", &key, "-out", &request, "-subj", &subject]);
        self.run(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-out",
            &certificate,
            "-days",
            "20",
            "-extfile",
            "extensions.cnf",
            "-CA",
            &issuer_certificate,
            "-CAkey",
            &issuer_key,
            "-CAcreateserial",
        ]);
    }

    /// The revocation list of an authority.
    fn revocation_list(&self, issuer: &str) -> String {
        let (certificate, key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
        self.run(&[
            "ca",
            "-config",
            "ca.cnf",
            "-gencrl",
            "-out",
            "list.pem",
            "-cert",
            &certificate,
            "-keyfile",
            &key,
        ]);
        self.read("list.pem")
    }

    fn revoke(&self, name: &str, issuer: &str) {
        let revoked = format!("{name}.crt");
        let (certificate, key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
        self.run(&[
            "ca",
            "-config",
            "ca.cnf",
            "-revoke",
            &revoked,
            "-cert",
            &certificate,
            "-keyfile",
            &key,
        ]);
    }

    /// The identity with the certificates in these files and the key of the first.
    fn identity(&self, names: &[&str]) -> Identity {
        let chain: String = names.iter().map(|name| self.read(&format!("{name}.crt"))).collect();
        self.write("chain.pem", &chain);
        let key = self.path(&format!("{}.key", names[0]));
        Identity::read_x509_pem_files(self.path("chain.pem"), key).unwrap()
    }

    fn verifier(&self, root: &str) -> WebPkiVerifier {
        let root = self.path(&format!("{root}.crt"));
        WebPkiVerifier::builder().roots_file(root).unwrap().build().unwrap()
    }
}

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n";
const SERVER: &str = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:server.example,IP:127.0.0.1\n\
                      extendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n";
const CLIENT: &str = "basicConstraints=CA:FALSE\nsubjectAltName=email:client@example.org\n\
                      extendedKeyUsage=clientAuth\n";

type Ends = (io::Result<MlsStream<DuplexStream>>, io::Result<MlsStream<DuplexStream>>);

async fn handshake(
    client: (Identity, WebPkiVerifier),
    server: (Identity, WebPkiVerifier),
    name: &str,
) -> Ends {
    let config = |(identity, service)| {
        let builder = Config::builder().identity(identity).authentication_service(service);
        Arc::new(builder.build().unwrap())
    };
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = MlsConnector::from(config(client));
    let acceptor = MlsAcceptor::from(config(server));
    let name = ServerName::new(name).unwrap();
    tokio::join!(connector.connect(name, near), acceptor.accept(far))
}

fn error<T>(result: io::Result<T>) -> Error {
    let error = result.map(|_| ()).unwrap_err();
    Error::from_io(&error).unwrap().clone()
}

#[tokio::test]
async fn certificates_of_openssl_lead_to_a_channel() {
    for (algorithm, own) in
        [(ED25519, ED25519), (RSA, ED25519), (P256, P256), (P384, P256), (RSA, P256)]
    {
        let Some(openssl) = OpenSsl::new() else { return };
        openssl.root("root", algorithm);
        openssl.issue("middle", P256, "root", AUTHORITY);
        openssl.issue("server", own, "middle", SERVER);
        openssl.issue("client", own, "root", CLIENT);
        let server = openssl.identity(&["server", "middle"]);
        let client = openssl.identity(&["client"]);
        assert_eq!((server.name(), client.name()), ("server.example", "client@example.org"));
        for name in ["server.example", "127.0.0.1"] {
            let [near, far] = [(); 2].map(|()| openssl.verifier("root"));
            let ends = handshake((client.clone(), near), (server.clone(), far), name).await;
            let (mut near, mut far) = (ends.0.unwrap(), ends.1.unwrap());
            assert_eq!(near.peer().name(), name);
            assert_eq!(far.peer().name(), "client@example.org");
            near.write_all(b"hello").await.unwrap();
            let mut data = [0; 5];
            far.read_exact(&mut data).await.unwrap();
            assert_eq!(&data, b"hello");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_at_both_ends() {
    let Some(openssl) = OpenSsl::new() else { return };
    openssl.root("root", ED25519);
    openssl.root("other", ED25519);
    openssl.issue("server", ED25519, "root", SERVER);
    openssl.issue("client", ED25519, "root", CLIENT);
    let identity = |name: &str, root: &str| (openssl.identity(&[name]), openssl.verifier(root));

    // The client believes another root.
    let ends =
        handshake(identity("client", "other"), identity("server", "root"), "server.example").await;
    assert_eq!(error(ends.0), AuthenticationError::UnknownIssuer.into());
    assert_eq!(error(ends.1), Error::AlertReceived(AlertDescription::UnknownCa));

    // A client that has a certificate for servers.
    let ends =
        handshake(identity("server", "root"), identity("client", "root"), "server.example").await;
    assert_eq!(error(ends.1), AuthenticationError::WrongPurpose.into());
    assert_eq!(error(ends.0), Error::AlertReceived(AlertDescription::UnsupportedCertificate));

    // Another name.
    let ends =
        handshake(identity("client", "root"), identity("server", "root"), "other.example").await;
    let mismatch = AuthenticationError::NameMismatch {
        expected: "other.example".into(),
        presented: "server.example, 127.0.0.1".into(),
    };
    assert_eq!(error(ends.0), mismatch.into());
    assert_eq!(error(ends.1), Error::AlertReceived(AlertDescription::UnrecognizedName));

    // Revoked, and not.
    let believer = |list: &str| {
        WebPkiVerifier::builder()
            .roots_pem(&openssl.read("root.crt"))
            .unwrap()
            .revocation_lists_pem(list)
            .unwrap()
            .build()
            .unwrap()
    };
    let clean = openssl.revocation_list("root");
    openssl.revoke("client", "root");
    let list = openssl.revocation_list("root");
    for (list, refused) in [(clean, false), (list, true)] {
        let server = (openssl.identity(&["server"]), believer(&list));
        let ends = handshake(identity("client", "root"), server, "server.example").await;
        assert_eq!(ends.1.is_err(), refused);
        if refused {
            assert_eq!(error(ends.1), AuthenticationError::Revoked.into());
            let alert = AlertDescription::CertificateRevoked;
            assert_eq!(error(ends.0), Error::AlertReceived(alert));
        }
    }
}

// The key of a party is one of those that MLS signs with; only authorities may have others.
#[test]
fn a_key_that_mls_does_not_sign_with_is_refused() {
    let Some(openssl) = OpenSsl::new() else { return };
    openssl.root("root", ED25519);
    openssl.issue("server", RSA, "root", SERVER);
    let path = |name: &str| -> PathBuf { openssl.path(name) };
    let key: &Path = &path("server.key");
    let error = Identity::read_x509_pem_files(path("server.crt"), key).unwrap_err();
    assert!(error.to_string().contains("key"), "{error}");
}
