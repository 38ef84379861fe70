//! What a process remembers across its deaths: lines in a file.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
};

/// A file to which whole lines are appended. The kernel has what was written, whoever is killed.
pub(crate) struct Log(File);

impl Log {
    /// Opens the file, or creates it, and gives its lines. A line that was cut short is removed.
    pub(crate) fn open(path: &Path) -> (Self, Vec<String>) {
        let lines = read(path);
        let whole: usize = lines.iter().map(|line| line.len() + 1).sum();
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.set_len(whole as u64).unwrap();
        (Self(file), lines)
    }

    pub(crate) fn write(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// The whole lines of a file.
pub(crate) fn read(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// The arguments of all lines that begin with `word`.
pub(crate) fn with_word<'a>(lines: &'a [String], word: &str) -> Vec<&'a str> {
    lines
        .iter()
        .filter_map(|line| line.split_once(' ').filter(|(first, _)| *first == word))
        .map(|(_, rest)| rest)
        .collect()
}
