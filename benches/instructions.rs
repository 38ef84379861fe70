//! The hot paths for a counter of instructions, which sees a regression where a clock sees noise.
//! `benches/instructions.sh` runs this under callgrind and compares with `benches/instructions.txt`.
//!
//! ```text
//! instructions --list              the operations
//! instructions OPERATION TIMES     performs one of them, in memory, without a transport
//! instructions --test              performs each of them once
//! ```

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{env, hint::black_box, process::ExitCode};

use bytes::BytesMut;
use mls_channel::{CipherSuite, Event, HandshakeKind, MemoryStore, RekeyPolicy, Time};

use support::{AES, Configs, Pair, Result};

const CHACHA: CipherSuite = CipherSuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;

const OPERATIONS: &[(&str, Operation)] = &[
    ("seal-aes-1KiB", Operation::Seal(AES, 1024)),
    ("seal-aes-16KiB", Operation::Seal(AES, 16 * 1024)),
    ("seal-chacha-1KiB", Operation::Seal(CHACHA, 1024)),
    ("seal-chacha-16KiB", Operation::Seal(CHACHA, 16 * 1024)),
    ("open-aes-1KiB", Operation::Open(AES, 1024)),
    ("open-aes-16KiB", Operation::Open(AES, 16 * 1024)),
    ("open-chacha-1KiB", Operation::Open(CHACHA, 1024)),
    ("open-chacha-16KiB", Operation::Open(CHACHA, 16 * 1024)),
    ("rekey", Operation::Rekey),
    ("handshake", Operation::Handshake),
    ("resumption", Operation::Resumption),
];

/// What is counted. The last three are the work of both ends.
#[derive(Clone, Copy)]
enum Operation {
    /// One record of so many bytes.
    Seal(CipherSuite, usize),
    /// One record of so many bytes.
    Open(CipherSuite, usize),
    Rekey,
    Handshake,
    Resumption,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => println!("Instructions are counted by benches/instructions.sh."),
        ["--list"] => OPERATIONS.iter().for_each(|(name, _)| println!("{name}")),
        [name, times] if !name.starts_with('-') => {
            let operation = OPERATIONS.iter().find(|(known, _)| *known == name);
            let (_, operation) = operation.ok_or("no such operation: see --list")?;
            operation.perform(times.parse()?)?;
        }
        // As `cargo bench -- --test` has it.
        _ if arguments.contains(&"--test") => {
            for (_, operation) in OPERATIONS {
                operation.perform(1)?;
            }
        }
        // A filter for other benches.
        _ => {}
    }
    Ok(())
}

impl Operation {
    /// Prepares everything, performs the operation once, and then so often as is to be counted.
    fn perform(self, times: usize) -> Result<()> {
        match self {
            Self::Seal(suite, size) => {
                let mut pair = Pair::establish(&configs(suite)?)?;
                let data = vec![0x5a; size];
                let seal = || {
                    pair.to_responder.clear();
                    pair.initiator.write(black_box(&data), &mut pair.to_responder)?;
                    Ok(())
                };
                warm_and_count(times, seal)
            }
            Self::Open(suite, size) => {
                let mut pair = Pair::establish(&configs(suite)?)?;
                let data = vec![0x5a; size];
                let mut records = Vec::new();
                for _ in 0..=times {
                    let mut record = BytesMut::new();
                    pair.initiator.write(&data, &mut record)?;
                    records.push(record);
                }
                let mut records = records.iter_mut();
                let now = Time::now();
                let open = || {
                    let record = records.next().ok_or("too few records")?;
                    match pair.responder.handle_input(now, record, &mut pair.to_initiator)? {
                        Some(Event::Data(opened)) if opened.len() == size => Ok(()),
                        _ => Err("the record does not open".into()),
                    }
                };
                warm_and_count(times, open)
            }
            Self::Rekey => {
                let mut pair = Pair::establish(&configs(AES)?)?;
                warm_and_count(times, || pair.rekey())
            }
            Self::Handshake => establish(times, &configs(AES)?, HandshakeKind::Full),
            Self::Resumption => {
                let configs =
                    configs(AES)?.with_stores(MemoryStore::default(), MemoryStore::default())?;
                Pair::establish(&configs)?;
                establish(times, &configs, HandshakeKind::Resumed)
            }
        }
    }
}

fn establish(times: usize, configs: &Configs, kind: HandshakeKind) -> Result<()> {
    let handshake = || match Pair::establish(configs)?.initiator.handshake_kind() {
        found if found == Some(kind) => Ok(()),
        found => Err(format!("a handshake of the kind {found:?}").into()),
    };
    warm_and_count(times, handshake)
}

fn configs(suite: CipherSuite) -> Result<Configs> {
    Configs::with_policies(suite, RekeyPolicy::manual(), RekeyPolicy::manual())
}

/// The first time is not counted: what is made once is made then.
fn warm_and_count(times: usize, mut operation: impl FnMut() -> Result<()>) -> Result<()> {
    operation()?;
    counted(times, &mut operation)
}

/// Callgrind counts what happens in the function with this name.
#[inline(never)]
fn counted(times: usize, operation: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..times {
        operation()?;
    }
    Ok(())
}
