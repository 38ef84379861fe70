//! Writes the first inputs of every target into its corpus.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (number, (target, input)) in mls_channel::fuzzing::seeds().into_iter().enumerate() {
        let directory = corpus.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("seed-{number}")), input)?;
    }
    Ok(())
}
