//! The table, the file, and the facts of the machine that the figures depend on.

use std::{fmt, thread};

use serde::{Serialize, Serializer};

use crate::support::Result;

/// The rows, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

/// Ours beside a peer.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    ours: f64,
    peer: f64,
    unit: &'static str,
    /// `ours / peer`.
    ratio: f64,
    goal: Goal,
}

/// What the ratio ought to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Less is better: the ratio is at most this.
    AtMost(f64),
    /// More is better: the ratio is at least this.
    AtLeast(f64),
    /// The row is there to understand the others.
    None,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        ours: f64,
        peer: f64,
        goal: Goal,
    ) {
        self.0.push(Row { name: name.into(), ours, peer, unit, ratio: ours / peer, goal });
    }

    /// A list of objects with the fields of a row.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.0)? + "\n")
    }

    /// The table for people. `judged`: with a word on each goal.
    pub(crate) fn table(&self, judged: bool) -> String {
        let width = self.0.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut table = format!(
            "{:width$}  {:>10}  {:>10}  {:4}  {:>6}  goal\n",
            "", "ours", "peer", "unit", "ratio",
        );
        for Row { name, ours, peer, unit, ratio, goal } in &self.0 {
            let verdict = if judged { goal.verdict(*ratio) } else { "" };
            table += &format!(
                "{name:width$}  {ours:>10.3}  {peer:>10.3}  {unit:4}  {ratio:>6.3}  {goal}{verdict}\n",
            );
        }
        table
    }
}

impl Goal {
    fn verdict(self, ratio: f64) -> &'static str {
        match self {
            Self::AtMost(goal) if ratio <= goal => ", met",
            Self::AtLeast(goal) if ratio >= goal => ", met",
            Self::None => "",
            Self::AtMost(_) | Self::AtLeast(_) => ", missed",
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(goal) => write!(f, "<= {goal}"),
            Self::AtLeast(goal) => write!(f, ">= {goal}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the figures depend on: the machine's kind, and the versions of what is compared.
pub(crate) fn facts() -> String {
    let processors = thread::available_parallelism().map_or(1, |processors| processors.get());
    let mut facts = format!(
        "{processors} processors, {} {}{}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        aes_hardware(),
    );
    let crates =
        ["mls-channel", "openmls", "mls-rs", "aws-lc-rs", "rustls", "tokio-rustls", "tokio"];
    for name in crates {
        if let Some(version) = locked_version(include_str!("../../../Cargo.lock"), name) {
            facts += &format!(", {name} {version}");
        }
    }
    if cfg!(debug_assertions) {
        facts += "; without optimization";
    }
    facts
}

#[cfg(target_arch = "x86_64")]
fn aes_hardware() -> &'static str {
    match (is_x86_feature_detected!("aes"), is_x86_feature_detected!("vaes")) {
        (_, true) => " with VAES",
        (true, false) => " with AES-NI",
        (false, false) => " without AES instructions",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn aes_hardware() -> &'static str {
    ""
}

/// The highest version of a crate in a Cargo.lock, which lists versions in ascending order.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    let mut version = None;
    while let Some(line) = lines.next() {
        if quoted(line, "name = ") == Some(name) {
            version = lines.next().and_then(|line| quoted(line, "version = "));
        }
    }
    version
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add("bulk", "GB/s", 3.0, 2.0, Goal::AtLeast(1.25));
        report.add("round trip", "us", 3.0, 2.0, Goal::AtMost(0.92));
        report.add("context", "us", 3.0, 2.0, Goal::None);
        report
    }

    #[test]
    fn file_is_a_list_of_objects() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json().unwrap()).unwrap();
        let expected = serde_json::json!([
            {"name": "bulk", "ours": 3.0, "peer": 2.0, "unit": "GB/s", "ratio": 1.5,
             "goal": ">= 1.25"},
            {"name": "round trip", "ours": 3.0, "peer": 2.0, "unit": "us", "ratio": 1.5,
             "goal": "<= 0.92"},
            {"name": "context", "ours": 3.0, "peer": 2.0, "unit": "us", "ratio": 1.5,
             "goal": "none"},
        ]);
        assert_eq!(json, expected);
    }

    #[test]
    fn table_says_which_goals_are_met() {
        let ends = |table: &str| -> Vec<String> {
            table.lines().map(|line| line.split("  ").last().unwrap().trim().to_owned()).collect()
        };
        let judged = ends(&report().table(true));
        assert_eq!(judged, ["goal", ">= 1.25, met", "<= 0.92, missed", "none"]);
        let bare = ends(&report().table(false));
        assert_eq!(bare, ["goal", ">= 1.25", "<= 0.92", "none"]);
    }

    #[test]
    fn goals_include_their_bounds() {
        assert_eq!(Goal::AtMost(0.9).verdict(0.9), ", met");
        assert_eq!(Goal::AtMost(0.9).verdict(0.91), ", missed");
        assert_eq!(Goal::AtLeast(2.2).verdict(2.2), ", met");
        assert_eq!(Goal::AtLeast(2.2).verdict(2.19), ", missed");
        assert_eq!(Goal::AtLeast(2.2).verdict(f64::NAN), ", missed");
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"0.1.0\"\n\n\
                    [[package]]\nname = \"a\"\nversion = \"0.2.0\"\n\n\
                    [[package]]\nname = \"a-b\"\nversion = \"3.0.0\"\n";
        assert_eq!(locked_version(lock, "a"), Some("0.2.0"));
        assert_eq!(locked_version(lock, "c"), None);
        assert!(facts().contains("rustls 0.23"));
    }
}
