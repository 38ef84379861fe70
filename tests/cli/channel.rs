//! `connect` and `listen` in pairs.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
    thread,
};

use crate::setup::{Listener, Setup, assert_done, assert_failed, contents, text};

const PINNED: [&str; 2] = ["--pinned", "server.keys"];
const CLIENT: [&str; 2] = ["--pinned", "client.keys"];

#[test]
fn pinned_peers_send_files_both_ways() {
    let setup = Setup::new();
    for (there, back) in [(0, 0), (1, 0), (0, 200_000), (3_000_001, 1_000_000)] {
        let (there, back) = (contents(there), contents(back));
        let listener = setup.listen(&CLIENT, &back);
        let output = setup.connect(&listener, &PINNED, &there);
        assert_done(&output);
        assert!(output.stdout == back, "{} bytes came back changed", back.len());
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        let (code, received, said) = listener.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(received == there, "{} bytes arrived changed", there.len());
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_verbose_pair_says_who_is_there_and_when_keys_change() {
    let setup = Setup::new();
    let suite = "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519";
    let command = setup.command(&[
        "listen",
        "127.0.0.1:0",
        "--identity",
        "server.pem",
        "--pinned",
        "client.keys",
        "-v",
        "--alpn",
        "a",
        "--alpn",
        "b",
        "--suite",
        "0x0003",
        "--rekey-bytes",
        "64KiB",
    ]);
    // It has more to say until the client has said all: who has closed a direction does not rekey.
    let mut listener = Listener::start_open(command);
    let stdin = listener.stdin();
    let options = [&PINNED[..], &["-v", "--alpn", "b", "--suite", suite]].concat();
    let address = listener.address.clone();
    let output = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let command = ["connect", &address, "--server-name", "server", "--identity"];
            let arguments = [&command[..], &["client.pem"], &options].concat();
            // More than fits into the buffers of the two sockets.
            setup.pipe(&arguments, &contents(32_000_000))
        });
        listener.wait_for("the peer has closed its direction");
        drop(stdin);
        client.join().unwrap()
    });
    assert_done(&output);
    let (_, _, of_listener) = listener.end();
    for (said, peer) in
        [(text(&output.stderr), "server server, SHA256:"), (&of_listener, "client client, SHA256:")]
    {
        for part in [
            peer,
            &format!("{suite}, epoch 1"),
            "a new session, server name server",
            "application protocol b",
            "this side has closed its direction",
            "the peer has closed its direction",
            "32000000",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let epochs = said.lines().filter(|line| line.starts_with("mls-channel: epoch ")).count();
        assert!(epochs > 0, "{said}");
        assert!(!said.contains("rekeys: 0 of this side, 0 of the peer"), "{said}");
    }
}

#[test]
fn a_stranger_is_refused_and_the_next_client_is_served() {
    let setup = Setup::new();
    let mut listener = setup.listen(&CLIENT, b"");
    let as_stranger = [&PINNED[..], &["--identity", "stranger.pem"]].concat();
    let output = setup.connect(&listener, &as_stranger, b"secret");
    let line = setup.line("stranger");
    assert_failed(&output, 5, &["access_denied", "does not believe this identity", &line]);
    listener.wait_for("was not let in: the peer is not trusted: the key is not known");
    listener.wait_for("add this line to client.keys");
    assert_eq!(listener.wait_for("stranger "), line);
    // The right key under another name.
    let other_name = [&PINNED[..], &["--name", "other"]].concat();
    let output = setup.connect(&listener, &other_name, b"");
    assert_failed(&output, 5, &["unrecognized_name", "under another name", "--name"]);
    assert_done(&setup.connect(&listener, &PINNED, b"hello"));
    let (code, received, said) = listener.end();
    assert_eq!((code, &received[..]), (Some(0), &b"hello"[..]), "{said}");
}

#[test]
fn another_server_than_the_pinned_one_is_refused() {
    let setup = Setup::new();
    let mut listener = setup.listen(&CLIENT, b"");
    let output = setup.connect(&listener, &["--pinned", "stranger.keys"], b"secret");
    let line = setup.line("server");
    assert_failed(&output, 4, &["the key is not known", "add this line to stranger.keys", &line]);
    listener.wait_for("was not let in");
    let address = listener.address.clone();
    let arguments = ["connect", &address, "--identity", "client.pem", "--pinned", "server.keys"];
    let output = setup.pipe(&arguments, b"");
    assert_failed(&output, 4, &["instead of \"127.0.0.1\"", "--server-name"]);
    assert_done(&setup.connect(&listener, &PINNED, b""));
    let (code, received, said) = listener.end();
    assert_eq!((code, &received[..]), (Some(0), &b""[..]), "{said}");
}

#[test]
fn keys_of_openssh_let_clients_in() {
    let setup = Setup::new();
    assert_done(&setup.run(&["keygen", "id_ed25519", "--format", "openssh", "--name", "alice"]));
    let authorized = setup.run(&["show", "id_ed25519", "--format", "openssh", "--name", "alice"]);
    let restricted = setup.run(&["show", "stranger.pem", "--format", "openssh"]);
    let file = [b"command=\"true\" ", &restricted.stdout[..], &authorized.stdout[..]].concat();
    setup.write("authorized_keys", file);
    let command = setup.command(&[
        "listen",
        "127.0.0.1:0",
        "--identity",
        "server.pem",
        "-v",
        "--authorized-keys",
        "authorized_keys",
    ]);
    let mut listener = Listener::start(command, b"");
    // The name that a client presents does not matter.
    let as_alice = [&PINNED[..], &["--identity", "id_ed25519"]].concat();
    let as_stranger = [&PINNED[..], &["--identity", "stranger.pem"]].concat();
    assert_failed(&setup.connect(&listener, &PINNED, b""), 5, &["access_denied"]);
    listener.wait_for("add to authorized_keys the line that it gets from");
    assert_failed(&setup.connect(&listener, &as_stranger, b""), 5, &["access_denied"]);
    listener.wait_for("line 1: a channel cannot keep to the option command");
    assert_done(&setup.connect(&listener, &as_alice, b"hello"));
    let (code, received, said) = listener.end();
    assert_eq!((code, &received[..]), (Some(0), &b"hello"[..]), "{said}");
    assert!(said.contains("client alice, "), "{said}");
    let warning =
        "authorized_keys: line 1: a channel cannot keep to the option command; nobody is let in";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn anyone_is_accepted_if_so_wanted() {
    let setup = Setup::new();
    let listener = setup.listen(&["--danger-accept-anyone"], b"back");
    let options = ["--danger-accept-anyone", "--identity", "stranger.pem"];
    let output = setup.connect(&listener, &options, b"there");
    assert_done(&output);
    assert_eq!(output.stdout, b"back");
    assert_eq!(listener.end().1, b"there");
}

#[test]
fn keys_of_every_scheme_are_trusted_in_every_way() {
    let scheme = "ecdsa_secp256r1_sha256";
    let setup = Setup::new();
    for (name, format) in [("server", "pem"), ("client", "openssh")] {
        let file = format!("{name}.p256");
        let options = ["--scheme", scheme, "--format", format, "--name", name];
        let made = setup.run(&[&["keygen", &file], &options[..]].concat());
        assert_done(&made);
        assert!(text(&made.stdout).starts_with(&format!("{name} {scheme} B")), "{made:?}");
        setup.write(&format!("{name}.p256.keys"), &made.stdout);
    }
    let authorized = setup.run(&["show", "client.p256", "--format", "openssh"]);
    assert!(text(&authorized.stdout).starts_with("ecdsa-sha2-nistp256 "), "{authorized:?}");
    setup.write("authorized_keys", &authorized.stdout);
    let of_client = ["--identity", "client.p256", "--name", "client"];
    let server = ["listen", "127.0.0.1:0", "--identity", "server.p256", "--name", "server"];
    for (at_server, at_client) in [
        (["--pinned", "client.p256.keys"], &["--pinned", "server.p256.keys"][..]),
        (
            ["--authorized-keys", "authorized_keys"],
            &["--known-peers", "known", "--first-use", "accept"],
        ),
        (
            ["--authorized-keys", "authorized_keys"],
            &["--known-peers", "known", "--first-use", "refuse"],
        ),
    ] {
        let command = setup.command(&[&server[..], &at_server].concat());
        let listener = Listener::start(command, b"back");
        let output = setup.connect(&listener, &[at_client, &of_client].concat(), b"there");
        assert_done(&output);
        assert_eq!(output.stdout, b"back");
        assert_eq!(listener.end().1, b"there");
    }
    assert_eq!(setup.read("known"), setup.read("server.p256.keys"));
}

#[test]
fn suites_and_protocols_that_do_not_fit_say_so() {
    let setup = Setup::new();
    let options = ["--suite", "0x0003", "--alpn", "a", "--keep-open"];
    let mut listener = setup.listen(&[&CLIENT[..], &options].concat(), b"");
    let with = |options: &[&str]| setup.connect(&listener, &[&PINNED[..], options].concat(), b"");
    assert_failed(&with(&["--suite", "0x0001"]), 5, &["MLS_128_DHKEMX25519_AES128GCM", "--suite"]);
    assert_failed(&with(&["--alpn", "b"]), 5, &["no_application_protocol", "--alpn"]);
    assert_done(&with(&["--alpn", "b", "--alpn", "a"]));
    listener.wait_for("no common cipher suite");
    listener.wait_for("no common application protocol");
}

#[test]
fn sessions_are_resumed_and_the_file_is_locked() {
    let setup = Setup::new();
    let of_listener = [&CLIENT[..], &["--keep-open", "-v", "--sessions", "server.redb"]].concat();
    let mut listener = setup.listen(&of_listener, b"");
    let options = [&PINNED[..], &["-v", "--sessions", "client.redb"]].concat();
    for kind in ["a new session", "a resumed session", "a resumed session"] {
        let output = setup.connect(&listener, &options, b"hello");
        assert_done(&output);
        assert!(text(&output.stderr).contains(kind), "{kind}: {}", text(&output.stderr));
        listener.wait_for(kind);
        listener.wait_for("5 received");
    }
    let output = setup
        .run(&[&["listen", "127.0.0.1:0", "--identity", "server.pem"], &of_listener[..]].concat());
    assert_failed(&output, 1, &["no sessions in server.redb", "in use by another process"]);
}

#[test]
fn a_listener_that_is_kept_open_serves_one_after_another() {
    let setup = Setup::new();
    let mut listener = setup.listen(&[&CLIENT[..], &["--keep-open"]].concat(), b"for the first");
    for expected in [&b"for the first"[..], b"", b""] {
        let output = setup.connect(&listener, &PINNED, b"x");
        assert_done(&output);
        assert_eq!(output.stdout, expected);
    }
    // Somebody who says something else is reported and not let in.
    let mut browser = TcpStream::connect(&listener.address).unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    listener.wait_for("was not let in");
    listener.wait_for("Does the other side speak this protocol?");
    assert_done(&setup.connect(&listener, &PINNED, b"x"));
}

#[test]
fn a_cut_is_no_end() {
    let setup = Setup::new();
    let command = ["listen", "127.0.0.1:0", "--identity", "server.pem", "-v"];
    // Its stdin stays open, so that it does not close its direction.
    let mut listener = Listener::start_open(setup.command(&[&command[..], &CLIENT].concat()));
    let of_listener = listener.stdin();
    let mut client = setup
        .command(&["connect", &listener.address, "--server-name", "server"])
        .args(["--identity", "client.pem", "--pinned", "server.keys"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    listener.wait_for("client client, ");
    let stdin = client.stdin.take();
    listener.kill();
    let output = client.wait_with_output().unwrap();
    drop((stdin, of_listener));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn where_nobody_listens_is_no_connection() {
    let setup = Setup::new();
    let mut listener = setup.listen(&CLIENT, b"");
    listener.kill();
    let output = setup.connect(&listener, &PINNED, b"");
    assert_failed(&output, 3, &["no connection to 127.0.0.1:", "Is something listening there?"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        setup.run(&["listen", &address, "--identity", "server.pem", "--pinned", "client.keys"]);
    assert_failed(&output, 3, &["cannot listen on 127.0.0.1:"]);
}

#[test]
fn files_of_trust_that_are_not_right_say_which_line() {
    let setup = Setup::new();
    setup.write("bad.keys", format!("{}\nnobody\n", setup.line("client")));
    let listener = setup.listen(&CLIENT, b"");
    let output = setup.connect(&listener, &["--pinned", "bad.keys"], b"");
    assert_failed(&output, 1, &["bad.keys: line 2: there is no key after the name"]);
    let output = setup.connect(&listener, &["--pinned", "missing"], b"");
    assert_failed(&output, 1, &["missing: "]);
    #[cfg(unix)]
    {
        use std::{fs, os::unix::fs::PermissionsExt};
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(setup.path("server.keys"), open).unwrap();
        for option in ["--pinned", "--known-peers"] {
            let output = setup.connect(&listener, &[option, "server.keys"], b"");
            assert_failed(&output, 1, &["server.keys: group or others can write the file"]);
        }
    }
}

#[test]
fn what_a_cut_has_left_of_stdin_is_no_whole_for_the_next_peer() {
    let setup = Setup::new();
    // More than fits between the two.
    let mut listener =
        setup.listen(&[&CLIENT[..], &["--keep-open", "-v"]].concat(), &contents(32_000_000));
    let mut first = setup
        .command(&["connect", &listener.address, "--server-name", "server"])
        .args(["--identity", "client.pem", "--pinned", "server.keys"])
        .spawn()
        .unwrap();
    let mut beginning = [0; 1000];
    first.stdout.take().unwrap().read_exact(&mut beginning).unwrap();
    assert!(beginning == contents(1000)[..]);
    first.kill().unwrap();
    first.wait().unwrap();
    listener.wait_for("client client, ");
    let output = setup.connect(&listener, &PINNED, b"x");
    assert_done(&output);
    assert_eq!(output.stdout.len(), 0);
}

#[test]
fn a_listener_goes_on_when_nobody_hears_what_it_says() {
    let setup = Setup::new();
    let options = [&CLIENT[..], &["--keep-open", "-v"]].concat();
    let mut listener = setup.listen(&options, b"for the first");
    listener.be_deaf();
    let as_stranger = [&PINNED[..], &["--identity", "stranger.pem"]].concat();
    assert_failed(&setup.connect(&listener, &as_stranger, b""), 5, &["access_denied"]);
    let output = setup.connect(&listener, &PINNED, b"");
    assert_done(&output);
    assert_eq!(output.stdout, b"for the first");
    assert_done(&setup.connect(&listener, &PINNED, b""));
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_who_take_all_files_do_not_end_a_listener() {
    let setup = Setup::new();
    let mut command = std::process::Command::new("sh");
    let limited = format!(
        "ulimit -n 24; exec '{}' listen 127.0.0.1:0 --identity server.pem --pinned client.keys",
        crate::setup::PROGRAM
    );
    command.current_dir(setup.path("")).args(["-c", &limited]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listener = Listener::start(command, b"back");
    let strangers: Vec<_> =
        (0..24).map(|_| TcpStream::connect(&listener.address).unwrap()).collect();
    listener.wait_for("no connection is taken: Too many open files");
    drop(strangers);
    let output = setup.connect(&listener, &PINNED, b"there");
    assert_done(&output);
    assert_eq!(output.stdout, b"back");
    let (code, received, said) = listener.end();
    assert_eq!((code, &received[..]), (Some(0), &b"there"[..]), "{said}");
}

#[test]
fn secrets_are_written_down_when_asked_for() {
    let setup = Setup::new();
    let of_listener = [&CLIENT[..], &["--keep-open", "--key-log", "server.log"]].concat();
    let mut listener = setup.listen(&of_listener, b"");
    let connect = |options: &[&str], environment: &[(&str, &str)]| {
        let arguments = ["connect", &listener.address, "--server-name", "server", "--identity"];
        let mut command =
            setup.command(&[&arguments[..], &["client.pem"], &PINNED, options].concat());
        command.envs(environment.iter().copied()).output().unwrap()
    };
    for run in 1..=2 {
        let output = connect(&["--key-log", "client.log"], &[("SSLKEYLOGFILE", "other.log")]);
        assert_done(&output);
        let warning = "WARNING: the secrets of this connection are written to client.log";
        assert!(text(&output.stderr).contains(warning), "{output:?}");
        let log = setup.read("client.log");
        for direction in ["CLIENT", "SERVER"] {
            let label = format!("MLS_TLS_{direction}_TRAFFIC_SECRET_1 ");
            assert_eq!(log.matches(&label).count(), run, "{log}");
        }
    }
    assert!(!setup.path("other.log").exists());
    // Both ends have the same secrets.
    let sorted = |name: &str| {
        let mut lines: Vec<_> = setup.read(name).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted("server.log"), sorted("client.log"));
    // As TLS libraries do.
    let output = connect(&[], &[("SSLKEYLOGFILE", "other.log")]);
    assert_done(&output);
    assert!(text(&output.stderr).contains("are written to other.log"), "{output:?}");
    assert!(setup.read("other.log").contains("MLS_TLS_CLIENT_TRAFFIC_SECRET_1 "));
    // Without a word nothing is written.
    let output = connect(&[], &[("SSLKEYLOGFILE", "")]);
    assert_done(&output);
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_failed(&connect(&["--key-log", "missing/log"], &[]), 1, &["missing/log: "]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for log in ["client.log", "server.log", "other.log"] {
            let mode = std::fs::metadata(setup.path(log)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{log}");
        }
    }
    listener.kill();
}
