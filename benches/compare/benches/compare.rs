//! `cargo bench -p mls-channel-compare`: measures every row, prints the table and writes
//! `compare.json` to the target directory. See the library for what is measured and how.

use std::{env, error::Error, path::Path, process::ExitCode};

use mls_channel_compare::{Options, hold_idle, run};

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut options = Options::default();
    let mut bench = false;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Of the program itself, not of its user.
            "--idle" => return hold_idle(arguments),
            "--bench" => bench = true,
            "--test" => options.smoke = true,
            flag if flag.starts_with('-') => {
                return Err(format!("unknown option {flag}; known: --test, FILTER").into());
            }
            _ => options.filter = Some(argument),
        }
    }
    // Cargo says --bench when it benches, and nothing when it tests.
    options.smoke |= !bench;
    // The directory for temporary files of benches lies in the target directory.
    if let Some(target) = Path::new(env!("CARGO_TARGET_TMPDIR")).parent() {
        options.json = Some(target.join("compare.json"));
    }
    run(&options)
}
