//! `mls-channel` and its peers, measured beside each other in the same run.
//!
//! ```text
//! cargo bench -p mls-channel-compare                  everything; prints a table, writes compare.json
//! cargo bench -p mls-channel-compare -- bulk          the sections whose name contains "bulk"
//! cargo bench -p mls-channel-compare -- --test        each measurement once and short; no judgement
//! ```
//!
//! Absolute figures move from machine to machine and from minute to minute, ratios much less. So
//! every row is a ratio of ours to a peer, both measured in alternating runs (ours, peer, ours,
//! peer, ...) after one run of each that does not count, and both figures are medians. A goal is
//! about the ratio. Nothing here fails because a goal is missed. Memory is measured once, in a process
//! of its own for each candidate.
//!
//! The peers:
//!
//! - **tokio-rustls** over rustls 0.23 with aws-lc-rs: TLS 1.3, TLS_AES_128_GCM_SHA256 and X25519
//!   only, mutual authentication with self-signed Ed25519 certificates, no tickets; what two ends of
//!   ours do, and nothing more. Only what resumption is compared with uses tickets: one in every
//!   handshake, with the sessions in memory at both ends.
//! - **plain TCP**: what no channel can beat.
//! - **stock OpenMLS**: RustCrypto, the memory storage it comes with, `self_update()`. It sends the
//!   messages of our rekey in the clear, so it is spared the records.
//! - **mls-rs** with AWS-LC: without the threads it has for large groups, and with commits as
//!   PrivateMessages without padding, as ours are. It also makes a GroupInfo, which ours does not.
//! - **primitives**: the calls of aws-lc-rs that RFC 9420 makes necessary for a rekey, and nothing
//!   else.
//!
//! Stores on disk lie in the directory for temporary files: `TMPDIR` chooses the disk.
//!
//! Times of the processor are those of the whole process, user and system, so of both ends.

mod idle;
mod measure;
mod mls_rs;
mod primitives;
mod report;
mod sections;
mod stock;
#[allow(dead_code, reason = "what the benches of the crate share, used in part")]
#[path = "../../support/mod.rs"]
mod support;
mod tls;

use std::{fs, path::PathBuf};

use crate::{measure::Effort, report::Report, sections::SECTIONS, support::Result};

/// What to measure, and where to write the result.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Measures everything once and very briefly, to see that it works. No file is written.
    pub smoke: bool,
    /// Measures only the sections whose name contains this. No file is written.
    pub filter: Option<String>,
    /// The file for the result, a JSON list of rows.
    pub json: Option<PathBuf>,
}

/// Does what the program asks of itself: to hold `connections` idle connections of a candidate, and to
/// print how many bytes the resident set has then. `arguments` are those after the flag.
///
/// # Errors
///
/// Unknown candidates, and whatever a connection fails with.
pub fn hold_idle(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (Some(candidate), Some(connections)) = (arguments.next(), arguments.next()) else {
        return Err("a candidate and a number of connections are missing".into());
    };
    println!("{}", idle::resident_set(&candidate, connections.parse()?)?);
    Ok(())
}

/// Measures, prints the table, and writes the file if everything was measured in full.
///
/// # Errors
///
/// Whatever a channel or a peer fails with.
pub fn run(options: &Options) -> Result<()> {
    let effort = if options.smoke { Effort::SMOKE } else { Effort::FULL };
    let mut report = Report::default();
    for (name, section) in SECTIONS {
        if options.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            eprintln!("measuring {name}");
            section(effort, &mut report)?;
        }
    }
    println!("{}\n\n{}", report::facts(), report.table(!options.smoke));
    if options.smoke {
        println!("A test run: the figures mean nothing.");
    } else if let (None, Some(path)) = (&options.filter, &options.json) {
        fs::write(path, report.to_json()?)?;
    }
    Ok(())
}
