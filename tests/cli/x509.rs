//! Certificates of OpenSSL, at both ends.

use std::{fs, process::Command};

use crate::setup::{Listener, Setup, assert_done, assert_failed, text};

const ED25519: &[&str] = &["-algorithm", "ED25519"];
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n";
const SERVER: &str = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,DNS:server.example\n\
                      extendedKeyUsage=serverAuth\n";
const CLIENT: &str = "basicConstraints=CA:FALSE\nsubjectAltName=email:client@example.org\n\
                      extendedKeyUsage=clientAuth\n";
/// What `openssl ca` wants to know.
const CA_CONFIG: &str = "[ca]\ndefault_ca=authority\n[authority]\ndatabase=index.txt\n\
                         new_certs_dir=.\nserial=serial.txt\ndefault_md=sha256\n\
                         default_crl_days=30\ncrlnumber=number.txt\ncrl_extensions=list\n\
                         policy=any\n[any]\ncommonName=supplied\n\
                         [list]\nauthorityKeyIdentifier=keyid\n";

/// A directory with a root, an authority below it, a server of that one and a client of the root.
struct Pki(Setup);

impl Pki {
    /// `None` if there is no OpenSSL.
    fn new(algorithm: &[&str]) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: openssl is not installed");
            return None;
        }
        let pki = Self(Setup::new());
        for (file, content) in [
            ("ca.cnf", CA_CONFIG),
            ("index.txt", ""),
            ("number.txt", "1000\n"),
            ("serial.txt", "2000\n"),
        ] {
            pki.0.write(file, content);
        }
        pki.root("root", algorithm);
        pki.issue("middle", algorithm, "root", AUTHORITY);
        pki.issue("server", algorithm, "middle", SERVER);
        pki.issue("client", algorithm, "root", CLIENT);
        let chain = [pki.0.read("server.crt"), pki.0.read("middle.crt")].concat();
        pki.0.write("server.chain", chain);
        Some(pki)
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.current_dir(self.0.path("")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }

    fn key(&self, name: &str, algorithm: &[&str]) -> String {
        let file = format!("{name}.key");
        self.openssl(&[&["genpkey", "-out", &file], algorithm].concat());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(self.0.path(&file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        file
    }

    fn root(&self, name: &str, algorithm: &[&str]) {
        let key = self.key(name, algorithm);
        let (certificate, subject) = (format!("{name}.crt"), format!("/CN=The {name}"));
        let command = ["req", "-x509", "-new", "-key", &key, "-out", &certificate];
        self.openssl(&[&command[..], &["-subj", &subject, "-days", "30"]].concat());
    }

    fn request(&self, name: &str, algorithm: &[&str], extensions: &str) -> String {
        let key = self.key(name, algorithm);
        let (request, subject) = (format!("{name}.csr"), format!("/CN={name}"));
        self.0.write("extensions.cnf", extensions);
        self.openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", &subject]);
        request
    }

    /// `name`.crt and `name`.key.
    fn issue(&self, name: &str, algorithm: &[&str], issuer: &str, extensions: &str) {
        let request = self.request(name, algorithm, extensions);
        let [own, authority, key] =
            [format!("{name}.crt"), format!("{issuer}.crt"), format!("{issuer}.key")];
        let command = ["x509", "-req", "-in", &request, "-out", &own, "-days", "20"];
        let by = ["-CA", &authority, "-CAkey", &key, "-CAcreateserial"];
        self.openssl(&[&command[..], &by, &["-extfile", "extensions.cnf"]].concat());
    }

    /// One of the root that is valid from and to these days.
    fn issue_between(&self, name: &str, from: &str, to: &str, extensions: &str) {
        let request = self.request(name, ED25519, extensions);
        let own = format!("{name}.crt");
        let command = ["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &request];
        let by = ["-out", &own, "-cert", "root.crt", "-keyfile", "root.key"];
        let with = ["-startdate", from, "-enddate", to, "-extfile", "extensions.cnf"];
        self.openssl(&[&command[..], &by, &with].concat());
    }

    fn ca(&self, issuer: &str, arguments: &[&str]) {
        let (certificate, key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
        let by = ["ca", "-config", "ca.cnf", "-cert", &certificate, "-keyfile", &key];
        self.openssl(&[&by[..], arguments].concat());
    }

    /// A server, which is to be killed.
    fn listen(&self, certificate: &str, key: &str, trust: &[&str]) -> Listener {
        let command = ["listen", "127.0.0.1:0", "--cert", certificate, "--key", key];
        Listener::start(self.0.command(&[&command[..], trust, &["--keep-open"]].concat()), b"back")
    }

    /// The server of the directory.
    fn server(&self) -> Listener {
        self.listen("server.chain", "server.key", &["--roots", "root.crt"])
    }

    /// The client of the directory, unless another identity is given.
    fn connect(&self, to: &Listener, options: &[&str]) -> std::process::Output {
        let mut arguments = vec!["connect", &to.address];
        for (option, default) in [
            ("--server-name", &["--server-name", "localhost"][..]),
            ("--cert", &["--cert", "client.crt", "--key", "client.key"]),
            ("--roots", &["--roots", "root.crt"]),
        ] {
            let is_given = options.contains(&option)
                || (option == "--cert" && options.contains(&"--identity"))
                || (option == "--roots" && options.contains(&"--pinned"));
            if !is_given {
                arguments.extend(default);
            }
        }
        arguments.extend(options);
        self.0.pipe(&arguments, b"there")
    }
}

#[test]
fn certified_parties_send_both_ways() {
    for algorithm in [ED25519, P256] {
        let Some(pki) = Pki::new(algorithm) else { return };
        let command = ["listen", "127.0.0.1:0", "--cert", "server.chain", "--key", "server.key"];
        let command = pki.0.command(&[&command[..], &["--roots", "root.crt", "-v"]].concat());
        let listener = Listener::start(command, b"back");
        let output = pki.connect(&listener, &["-v"]);
        assert_done(&output);
        assert_eq!(output.stdout, b"back");
        assert!(text(&output.stderr).contains("server localhost, SHA256:"), "{output:?}");
        let (code, received, said) = listener.end();
        assert_eq!((code, &received[..]), (Some(0), &b"there"[..]), "{said}");
        assert!(said.contains("client client@example.org, SHA256:"), "{said}");
    }
}

#[test]
fn sessions_of_certified_parties_are_resumed() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let trust = ["--roots", "root.crt", "--sessions", "server.redb"];
    let listener = pki.listen("server.chain", "server.key", &trust);
    for kind in ["a new session", "a resumed session"] {
        let output = pki.connect(&listener, &["-v", "--sessions", "client.redb"]);
        assert_done(&output);
        assert!(text(&output.stderr).contains(kind), "{output:?}");
    }
}

#[test]
fn one_side_may_have_a_key_and_the_other_a_certificate() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let listener = pki.listen("server.chain", "server.key", &["--pinned", "client.keys"]);
    assert_done(&pki.connect(&listener, &["--identity", "client.pem"]));
    // Neither kind of trust is for the other kind of identity.
    let output = pki.connect(&listener, &[]);
    assert_failed(&output, 5, &["unsupported_certificate", "believes keys", "see --identity"]);
    let mut listener = pki.server();
    let output = pki.connect(&listener, &["--identity", "client.pem"]);
    assert_failed(&output, 5, &["unsupported_certificate", "wants a certificate: see --cert"]);
    listener.wait_for("basic credentials are not supported");
    listener.wait_for("has to give --cert and --key");
    let output = pki.connect(&listener, &["--pinned", "server.keys"]);
    assert_failed(&output, 4, &["X.509 credentials are not supported", "give --roots"]);
}

#[test]
fn a_server_of_another_name_is_refused() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let mut listener = pki.server();
    let output = pki.connect(&listener, &["--server-name", "other.example"]);
    let names = "is meant (localhost, server.example), say so with --server-name";
    assert_failed(&output, 4, &["instead of \"other.example\"", names]);
    let line = listener.wait_for("was not let in");
    assert!(line.contains("unrecognized_name"), "{line}");
    listener.wait_for("  localhost, server.example: issued by \"middle\", valid 20");
    listener.wait_for("asked for another name");

    // The common name does not count.
    pki.issue("common", ED25519, "root", "basicConstraints=CA:FALSE\n");
    let listener = pki.listen("common.crt", "common.key", &["--roots", "root.crt"]);
    let output = pki.connect(&listener, &["--server-name", "common"]);
    assert_failed(&output, 4, &["no subject alternative names", "common name does not count"]);
}

#[test]
fn certificates_that_are_not_valid_now_are_refused_with_their_dates() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let (from, to) = ("20200101000000Z", "20210101000000Z");
    pki.issue_between("old", from, to, SERVER);
    let mut listener = pki.listen("old.crt", "old.key", &["--roots", "root.crt"]);
    let valid = "valid 2020-01-01 00:00:00 UTC to 2021-01-01 00:00:00 UTC";
    let output = pki.connect(&listener, &[]);
    assert_failed(&output, 4, &["has expired", valid, "needs a new certificate", "the clock"]);
    listener.wait_for("certificate_expired");
    listener.wait_for(valid);
    listener.wait_for("By the clock of the peer");

    pki.issue_between("early", "20900101000000Z", "20910101000000Z", CLIENT);
    let mut listener = pki.server();
    let output = pki.connect(&listener, &["--cert", "early.crt", "--key", "early.key"]);
    assert_failed(&output, 5, &["certificate_expired", "valid 2090-01-01 00:00:00 UTC to 2091-"]);
    listener.wait_for("not valid yet");
    listener.wait_for("Is the clock of this machine right?");
}

#[test]
fn certificates_of_an_unknown_authority_are_refused() {
    let Some(pki) = Pki::new(ED25519) else { return };
    pki.root("stranger", ED25519);
    let mut listener = pki.server();
    let output = pki.connect(&listener, &["--roots", "stranger.crt"]);
    assert_failed(&output, 4, &["issuer of the certificate is not known", "lead to \"The root\""]);
    listener.wait_for("unknown_ca");
    listener.wait_for("does not believe its authority");

    pki.issue("evil", ED25519, "stranger", CLIENT);
    let output = pki.connect(&listener, &["--cert", "evil.crt", "--key", "evil.key"]);
    assert_failed(&output, 5, &["unknown_ca", "issued by \"The stranger\""]);
    listener.wait_for("They lead to \"The stranger\"");

    // The authority in the middle is missing.
    let listener = pki.listen("server.crt", "server.key", &["--roots", "root.crt"]);
    let output = pki.connect(&listener, &[]);
    assert_failed(&output, 4, &["lead to \"middle\"", "into the peer's --cert file"]);
}

#[test]
fn certificates_for_another_purpose_are_refused() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let mut listener = pki.server();
    let output = pki.connect(&listener, &["--cert", "server.chain", "--key", "server.key"]);
    assert_failed(&output, 5, &["unsupported_certificate", "a client needs clientAuth"]);
    listener.wait_for("for another purpose");
    listener.wait_for("serverAuth for the side that listens");

    // That of an authority is for no party.
    let output = pki.connect(&listener, &["--cert", "middle.crt", "--key", "middle.key"]);
    assert_failed(&output, 5, &["bad_certificate", "says why"]);
    listener.wait_for("basicConstraints=CA:FALSE");
}

#[test]
fn revoked_certificates_are_refused() {
    let Some(pki) = Pki::new(ED25519) else { return };
    pki.ca("root", &["-gencrl", "-out", "clean.crl"]);
    pki.ca("middle", &["-gencrl", "-out", "middle.crl"]);
    pki.ca("root", &["-revoke", "client.crt"]);
    pki.ca("root", &["-gencrl", "-out", "root.crl"]);

    for (list, refused) in [("clean.crl", false), ("root.crl", true)] {
        let trust = ["--roots", "root.crt", "--crl", list];
        let mut listener = pki.listen("server.chain", "server.key", &trust);
        let output = pki.connect(&listener, &[]);
        if !refused {
            assert_done(&output);
            continue;
        }
        assert_failed(&output, 5, &["certificate_revoked", "a new one is needed"]);
        listener.wait_for("the credential was revoked");
        listener.wait_for("has withdrawn it");
    }

    // There has to be a list of each authority.
    let listener = pki.server();
    let output = pki.connect(&listener, &["--crl", "clean.crl"]);
    assert_failed(
        &output,
        4,
        &["whether the certificate was revoked is not known", "repeat --crl"],
    );
    assert_done(&pki.connect(&listener, &["--crl", "clean.crl", "--crl", "middle.crl"]));
}

#[test]
fn revocation_lists_of_openssl_that_cannot_be_used_say_why() {
    let Some(pki) = Pki::new(ED25519) else { return };
    pki.0.write("ca.cnf", CA_CONFIG.replace("crl_extensions=list\n", ""));
    pki.0.write("number.txt", "");
    fs::remove_file(pki.0.path("number.txt")).unwrap();
    pki.0.write("ca.cnf", pki.0.read("ca.cnf").replace("crlnumber=number.txt\n", ""));
    pki.ca("root", &["-gencrl", "-out", "old.crl"]);
    let listener = pki.server();
    let output = pki.connect(&listener, &["--crl", "old.crl"]);
    assert_failed(&output, 1, &["old.crl: ", "version 1", "crl_extensions"]);
    // One of another authority of the same name blames this side.
    let Some(other) = Pki::new(ED25519) else { return };
    for name in ["root", "middle"] {
        other.ca(name, &["-gencrl", "-out", "other.crl"]);
        pki.0.write(&format!("{name}.crl"), other.0.read("other.crl"));
    }
    let output = pki.connect(&listener, &["--crl", "root.crl", "--crl", "middle.crl"]);
    assert_failed(
        &output,
        4,
        &["signature is not that of the authority", "--crl files of this side"],
    );
}

#[test]
fn files_that_do_not_fit_say_which() {
    let Some(pki) = Pki::new(ED25519) else { return };
    let listener = pki.server();
    let with = |options: &[&str]| pki.connect(&listener, options);
    let see = "mls-channel show client.crt";
    let output = with(&["--cert", "client.crt", "--key", "server.key"]);
    assert_failed(&output, 1, &["no identity: client.crt: ", "for another key", see]);
    let output = with(&["--cert", "client.key", "--key", "client.key"]);
    assert_failed(&output, 1, &["client.key: ", "there is no certificate"]);
    let output = with(&["--cert", "missing", "--key", "client.key"]);
    assert_failed(&output, 1, &["no identity: missing: "]);
    pki.issue("big", P384, "root", CLIENT);
    let output = with(&["--cert", "big.crt", "--key", "big.key"]);
    assert_failed(&output, 1, &["no identity: big.key: invalid key: "]);
    for option in ["--roots", "--crl"] {
        assert_failed(&with(&[option, "client.key"]), 1, &["client.key: ", "in the PEM"]);
        assert_failed(&with(&[option, "missing"]), 1, &["missing: "]);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let set = |name: &str, mode| {
            fs::set_permissions(pki.0.path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("client.key", 0o644);
        assert_failed(&with(&[]), 1, &["client.key: group or others can access the file"]);
        set("client.key", 0o600);
        set("root.crt", 0o666);
        assert_failed(&with(&[]), 1, &["root.crt: group or others can write the file"]);
    }
}

#[test]
fn options_that_do_not_fit_are_wrong_arguments() {
    let setup = Setup::new();
    let key = ["connect", "host:1", "--identity", "client.pem"];
    for (options, part) in [
        (&["connect", "h:1", "--roots", "r", "--cert", "c"][..], "--key <FILE>"),
        (&["connect", "h:1", "--roots", "r", "--key", "k"], "--cert <FILE>"),
        (&["connect", "h:1", "--roots", "r"], "--identity <FILE>"),
        (
            &[&key[..], &["--roots", "r", "--cert", "c", "--key", "k"]].concat(),
            "cannot be used with",
        ),
        (
            &["connect", "h:1", "--cert", "c", "--key", "k", "--name", "n", "--roots", "r"],
            "cannot be used with",
        ),
        (&[&key[..], &["--roots", "r", "--pinned", "p"]].concat(), "cannot be used with"),
        (&[&key[..], &["--pinned", "server.keys", "--crl", "l"]].concat(), "--crl is for --roots"),
        (&["show", "client.pem", "--cert", "c", "--key", "k"], "are for --connect"),
    ] {
        assert_failed(&setup.run(options), 2, &[part]);
    }
}

#[test]
fn show_prints_what_is_in_certificates() {
    for (algorithm, scheme) in [(ED25519, "ed25519"), (P256, "ecdsa_secp256r1_sha256")] {
        let Some(pki) = Pki::new(algorithm) else { return };
        let output = pki.0.run(&["show", "server.chain"]);
        assert_done(&output);
        let shown = text(&output.stdout);
        for part in [
            "certificate of \"server\"\n  names   localhost, server.example\n  issuer  \"middle\"\n",
            "certificate of \"middle\"\n  names   no subject alternative names\n  issuer  \"The root\"\n",
            &format!("  key     {scheme}, SHA256:"),
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // OpenSSL sees the same.
        let printed = Command::new("openssl")
            .current_dir(pki.0.path(""))
            .args(["x509", "-in", "server.crt", "-noout", "-fingerprint", "-sha256"])
            .output()
            .unwrap();
        let fingerprint = text(&printed.stdout).trim_end().split_once('=').unwrap().1.to_owned();
        assert!(shown.contains(&fingerprint), "{fingerprint}: {shown}");

        let output = pki.0.run(&["show", "server.chain", "--format", "fingerprint"]);
        assert_done(&output);
        let of_key = pki.0.run(&["show", "server.key", "--format", "fingerprint"]);
        assert_eq!(output.stdout, of_key.stdout);
        let output = pki.0.run(&["show", "server.crt", "--format", "openssh"]);
        assert_failed(&output, 2, &["--format openssh is for a key file"]);

        let listener = pki.server();
        let with = ["show", "--connect", &listener.address];
        let output =
            pki.0.run(&[&with[..], &["--cert", "client.crt", "--key", "client.key"]].concat());
        assert_done(&output);
        assert_eq!(text(&output.stdout), shown);
        assert_failed(&pki.0.run(&with), 5, &["wants a certificate", "with --cert and --key"]);
    }
}
