//! `keygen` and `show`, and what they never print.

use std::{fs, process::Command};

use crate::setup::{Listener, PROGRAM, Setup, assert_done, assert_failed, has, text};

#[test]
fn keygen_makes_a_key_that_show_reads() {
    let setup = Setup::new();
    for (format, file) in [("pem", "new.pem"), ("openssh", "id_new")] {
        let made = setup.run(&["keygen", file, "--format", format, "--name", "alice"]);
        assert_done(&made);
        let line = text(&made.stdout);
        assert!(line.starts_with("alice ") && line.ends_with("=\n"), "{line}");
        let shown = setup.run(&["show", file, "--name", "alice"]);
        assert_done(&shown);
        assert_eq!(shown.stdout, made.stdout);
        let fingerprint = setup.run(&["show", file, "--format", "fingerprint"]);
        let fingerprint = text(&fingerprint.stdout).trim_end();
        assert!(fingerprint.starts_with("SHA256:"), "{fingerprint}");
        for output in [&made, &shown] {
            assert!(text(&output.stderr).contains(fingerprint), "{output:?}");
        }
        let openssh = setup.run(&["show", file, "--format", "openssh", "--name", "alice"]);
        let openssh = text(&openssh.stdout);
        assert!(openssh.starts_with("ssh-ed25519 AAAA") && openssh.ends_with(" alice\n"));

        // Nothing of the secret is printed.
        let secret = setup.read(file);
        for output in [&made, &shown] {
            let printed = [text(&output.stdout), text(&output.stderr)].concat();
            for line in secret.lines() {
                assert!(!printed.contains(line), "{line}");
            }
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(setup.path(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

#[test]
fn keygen_never_overwrites() {
    let setup = Setup::new();
    let before = setup.read("server.pem");
    for format in ["pem", "openssh"] {
        let output = setup.run(&["keygen", "server.pem", "--format", format]);
        assert_failed(&output, 1, &["server.pem: the file exists and is not overwritten"]);
        assert_eq!(setup.read("server.pem"), before);
    }
}

#[test]
fn a_name_that_cannot_be_and_a_key_that_is_none_are_refused() {
    let setup = Setup::new();
    let output = setup.run(&["keygen", "new.pem", "--name", "two words"]);
    assert_failed(&output, 1, &["invalid identity name"]);
    assert!(!setup.path("new.pem").exists());
    let output = setup.run(&["show", "missing.pem"]);
    let hint = "Make a key with: mls-channel keygen missing.pem";
    assert_failed(&output, 1, &["no identity: missing.pem: ", hint]);
    setup.write("bad.pem", "no key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let output = setup.run(&["show", "bad.pem"]);
        assert_failed(&output, 1, &["group or others can access the file; make it 0600"]);
        fs::set_permissions(setup.path("bad.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_failed(&setup.run(&["show", "bad.pem"]), 1, &["bad.pem: invalid key: "]);
    // A directory, and a pipe, which would be empty when it is read for the second time.
    let output = setup.run(&["show", "/", "--name", "a"]);
    assert_failed(&output, 1, &["no identity: /: not a regular file"]);
    #[cfg(unix)]
    {
        let output = setup.pipe(&["show", "/dev/stdin"], setup.read("server.pem").as_bytes());
        assert_failed(&output, 1, &["no identity: /dev/stdin: not a regular file"]);
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let setup = Setup::new();
    let output = setup.run(&["--help"]);
    assert_done(&output);
    for part in ["mls-channel listen --identity", "Exit codes:", "  4  the peer is not believed"] {
        assert!(text(&output.stdout).contains(part), "{part}");
    }
    for command in ["keygen", "show", "connect", "listen"] {
        let output = setup.run(&[command, "--help"]);
        assert_done(&output);
        assert!(text(&output.stdout).contains("Example"), "{command}");
    }
}

#[test]
fn wrong_arguments_have_a_code_of_their_own() {
    let setup = Setup::new();
    for (arguments, part) in [
        (&["connect", "--identity", "client.pem", "host:1"][..], "--danger-accept-anyone"),
        (
            &["connect", "--identity", "client.pem", "--pinned", "a", "--known-peers", "b", "h:1"],
            "cannot be used with",
        ),
        (
            &["connect", "--identity", "client.pem", "--authorized-keys", "a", "h:1"],
            "--authorized-keys",
        ),
        (&["connect", "--pinned", "a", "h:1"], "--identity"),
        (
            &["connect", "--identity", "c", "--pinned", "a", "h:1", "--suite", "0x9999"],
            "0x0001 MLS_128_",
        ),
        (&["connect", "--identity", "c", "--pinned", "a", "h:1", "--rekey-bytes", "0"], "64MiB"),
        (
            &["connect", "--identity", "c", "--pinned", "a", "h:1", "--first-use", "once"],
            "--known-peers",
        ),
        (
            &["connect", "--identity", "c", "--pinned", "a", "h:1", "--server-name", "a b"],
            "invalid server name",
        ),
        (&["show"], "<FILE>"),
        (&["listen"], "--identity"),
        (&["keygen", "a.pem", "--scheme", "dsa"], "ecdsa_secp256r1_sha256"),
        (&[], "Usage"),
    ] {
        assert_failed(&setup.run(arguments), 2, &[part]);
    }
    let output =
        setup.run(&["connect", ":1", "--identity", "client.pem", "--danger-accept-anyone"]);
    assert_failed(&output, 2, &["give --server-name"]);
    for address in ["host.example", "127.0.0.1", "2001:db8::x", "host:", "host:70000"] {
        let options = ["--identity", "client.pem", "--danger-accept-anyone", "--server-name", "a"];
        let output = setup.run(&[&["connect", address], &options[..]].concat());
        assert_failed(&output, 2, &["has no port: write HOST:PORT"]);
    }
}

#[test]
fn show_prints_the_line_of_a_peer() {
    let setup = Setup::new();
    let mut listener = setup.listen(&["--danger-accept-anyone", "--keep-open"], b"");
    let output = setup.run(&["show", "--connect", &listener.address]);
    assert_done(&output);
    assert_eq!(text(&output.stdout).trim_end(), setup.line("server"));
    assert!(text(&output.stderr).contains("SHA256:"));
    listener.wait_for("access_denied");

    // Neither side has to know the scheme of the other's key.
    let scheme = "ecdsa_secp256r1_sha256";
    let made = setup.run(&["keygen", "p256.pem", "--scheme", scheme, "--name", "server"]);
    assert_done(&made);
    let command = ["listen", "127.0.0.1:0", "--identity", "p256.pem", "--name", "server"];
    let command =
        setup.command(&[&command[..], &["--danger-accept-anyone", "--keep-open"]].concat());
    let of_p256 = Listener::start(command, b"");
    let output = setup.run(&["show", "--connect", &of_p256.address]);
    assert_done(&output);
    assert_eq!(output.stdout, made.stdout);

    // Whoever is not let in does not see it.
    let mut listener = setup.listen(&["--pinned", "client.keys", "--keep-open"], b"");
    let output = setup.run(&["show", "--connect", &listener.address]);
    assert_failed(&output, 5, &["does not believe this identity", "with --identity"]);
    listener.wait_for("was not let in");
    let with = ["show", "--connect", &listener.address, "--identity", "client.pem"];
    let output = setup.run(&with);
    assert_done(&output);
    assert_eq!(text(&output.stdout).trim_end(), setup.line("server"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_passphrase_of_a_key_is_asked_for_on_the_terminal() {
    if !["ssh-keygen", "script", "setsid"].into_iter().all(has) {
        return;
    }
    let setup = Setup::new();
    let made = Command::new("ssh-keygen")
        .current_dir(setup.path(""))
        .args(["-q", "-t", "ed25519", "-N", "correct horse", "-a", "2", "-f", "id_ed25519"])
        .status()
        .unwrap();
    assert!(made.success());
    let authorized = setup.read("id_ed25519.pub");
    for (answer, code, part) in
        [("correct horse\n", 0, ""), ("wrong\n", 1, "no identity: id_ed25519: wrong passphrase")]
    {
        let command =
            format!("'{PROGRAM}' show --format openssh id_ed25519 > out 2> err; echo exit $?");
        setup.write("answer", answer);
        let terminal = Command::new("script")
            .current_dir(setup.path(""))
            .args(["-qec", &command, "/dev/null"])
            .stdin(fs::File::open(setup.path("answer")).unwrap())
            .output()
            .unwrap();
        let said = text(&terminal.stdout);
        assert!(said.contains("Passphrase of id_ed25519: "), "{said}");
        assert!(said.contains(&format!("exit {code}")), "{said}{}", setup.read("err"));
        assert!(setup.read("err").contains(part), "{}", setup.read("err"));
        let key = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        assert_eq!(key(&setup.read("out")), key(&authorized).filter(|_| code == 0));
    }
    let detached = Command::new("setsid")
        .current_dir(setup.path(""))
        .args(["--wait", PROGRAM, "show", "id_ed25519"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_failed(&detached, 1, &["it is encrypted, and no passphrase was given"]);
}
