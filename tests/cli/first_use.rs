//! Known peers, with and without a terminal.

use std::{fs, path::Path, process::Command};

use crate::setup::{PROGRAM, Setup, assert_done, assert_failed, has, text};

const KEEP: [&str; 3] = ["--pinned", "client.keys", "--keep-open"];

/// `known` has the server's key under the name that was asked for.
fn assert_remembered(setup: &Setup) {
    assert_eq!(setup.read("known"), format!("{}\n", setup.line("server")));
}

#[test]
fn a_server_is_accepted_once_or_remembered_or_refused() {
    let setup = Setup::new();
    let listener = setup.listen(&KEEP, b"");
    let with =
        |what| setup.connect(&listener, &["--known-peers", "known", "--first-use", what], b"");
    let refused = with("refuse");
    assert_failed(&refused, 4, &["not trusted", "--first-use accept", "SHA256:"]);
    assert_done(&with("once"));
    assert!(!setup.path("known").exists());
    assert_done(&with("accept"));
    assert_remembered(&setup);
    assert_done(&with("refuse"));
    assert_remembered(&setup);
}

#[test]
fn a_changed_key_of_a_server_is_refused_loudly() {
    let setup = Setup::new();
    let mut listener = setup.listen(&KEEP, b"");
    let (_, key) =
        setup.line("stranger").split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    setup.write("known", format!("# peers\nserver {key}\n"));
    private(&setup.path("known"));
    let output =
        setup.connect(&listener, &["--known-peers", "known", "--first-use", "accept"], b"secret");
    let file = setup.path("known").canonicalize().unwrap();
    let remedy = format!("remove line 2 of {}", file.display());
    assert_failed(&output, 4, &["\"server\" HAS CHANGED", &remedy]);
    let line = listener.wait_for("was not let in");
    assert!(line.contains("certificate_unknown"), "{line}");
    listener.wait_for("has to remove the old one");
}

#[test]
fn a_changed_key_of_a_client_is_refused_and_the_client_is_told() {
    let setup = Setup::new();
    let options = ["--known-peers", "known", "--first-use", "accept", "--keep-open"];
    let mut listener = setup.listen(&options, b"");
    let as_client = ["--pinned", "server.keys", "--name", "client", "--identity"];
    let connect = |key| setup.connect(&listener, &[&as_client[..], &[key]].concat(), b"");
    assert_done(&connect("client.pem"));
    assert_eq!(setup.read("known"), format!("{}\n", setup.line("client")));
    assert_failed(&connect("stranger.pem"), 5, &["knows this name by another key"]);
    assert_done(&connect("client.pem"));
    let line = listener.wait_for("was not let in");
    assert!(line.contains("\"client\" HAS CHANGED") && line.contains("remove line 1"), "{line}");
}

fn private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[test]
fn without_a_terminal_nobody_is_believed() {
    if !has("setsid") {
        return;
    }
    let setup = Setup::new();
    let listener = setup.listen(&KEEP, b"");
    // In a session of its own a process has no terminal.
    let mut detached = Command::new("setsid");
    detached.current_dir(setup.path("")).args(["--wait", PROGRAM, "connect"]);
    detached.args([&listener.address, "--identity", "client.pem", "--known-peers", "known"]);
    let output = detached.output().unwrap();
    assert_failed(&output, 4, &["no terminal to ask on", "--first-use accept"]);
    assert!(!setup.path("known").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_human_is_asked_on_the_terminal() {
    use std::process::Stdio;

    if !has("script") {
        return;
    }
    let setup = Setup::new();
    let listener = setup.listen(&["--pinned", "client.keys", "--keep-open"], b"");
    for (answer, code, remembered) in
        [("no\n", 4, false), ("what\nonce\n", 0, false), ("yes\n", 0, true)]
    {
        let command = format!(
            "'{PROGRAM}' connect {} --server-name server --identity client.pem --known-peers known \
             < /dev/null > out 2> err; echo exit $?",
            listener.address
        );
        setup.write("answer", answer);
        let terminal = Command::new("script")
            .current_dir(setup.path(""))
            .args(["-qec", &command, "/dev/null"])
            .stdin(fs::File::open(setup.path("answer")).unwrap())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let said = text(&terminal.stdout);
        assert!(said.contains(&format!("exit {code}")), "{answer}: {said}{}", setup.read("err"));
        assert!(said.contains("The server \"server\" is not in known yet."), "{said}");
        assert!(said.contains("SHA256:"), "{said}");
        assert_eq!(setup.path("known").exists(), remembered, "{answer}");
    }
    assert_remembered(&setup);
}
