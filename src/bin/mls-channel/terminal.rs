//! Telling and asking a human, while stdin and stdout are busy with data.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    sync::Mutex,
};

use mls_channel::{FirstUse, Role, UnknownPeer};

/// One question at a time.
static TERMINAL: Mutex<()> = Mutex::new(());

/// Says something on stderr. The channel does not depend on whether anybody hears it.
pub(crate) fn say(what: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

/// Asks whether to believe a peer. Whoever cannot be asked says no.
pub(crate) fn ask_about(peer: &UnknownPeer<'_>, file: &str) -> FirstUse {
    // Other tasks of the runtime go on meanwhile.
    tokio::task::block_in_place(|| {
        let _turn = TERMINAL.lock();
        ask(peer, file).unwrap_or_else(|error| {
            say(format_args!(
                "mls-channel: {:?} is not in {file}, and there is no terminal to ask on ({error}).\n\
                 To believe new peers without a question: --first-use accept",
                peer.name
            ));
            FirstUse::Refuse
        })
    })
}

fn ask(peer: &UnknownPeer<'_>, file: &str) -> io::Result<FirstUse> {
    let (input, mut output) = open()?;
    let mut input = BufReader::new(input);
    let what = match peer.role {
        Role::Initiator => "The client",
        Role::Responder => "The server",
    };
    writeln!(output, "{what} {:?} is not in {file} yet.", peer.name)?;
    if peer.presented_name != peer.name {
        writeln!(output, "It calls itself {:?}.", peer.presented_name)?;
    }
    writeln!(output, "The fingerprint of its key is {}", peer.fingerprint())?;
    writeln!(output, "Its owner sees the same with: mls-channel show FILE")?;
    loop {
        write!(output, "Believe it from now on (yes), this time (once), or not (no)? ")?;
        output.flush()?;
        let mut answer = String::new();
        if input.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match answer.trim() {
            "yes" => return Ok(FirstUse::Remember),
            "once" => return Ok(FirstUse::Once),
            "no" => return Ok(FirstUse::Refuse),
            _ => {}
        }
    }
}

/// The terminal of the process, whatever its stdin and stdout are.
fn open() -> io::Result<(File, File)> {
    let (input, output) =
        if cfg!(windows) { ("CONIN$", "CONOUT$") } else { ("/dev/tty", "/dev/tty") };
    let open = |path| OpenOptions::new().read(true).write(true).open(path);
    Ok((open(input)?, open(output)?))
}
