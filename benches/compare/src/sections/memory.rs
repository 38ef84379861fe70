//! Memory of connections that are idle: one process for each candidate, which measures itself.

use std::{env, process::Command};

use crate::{
    idle::{Candidate, FLAG},
    measure::Effort,
    report::{Goal, Report},
    support::Result,
};

/// What 10,000 connections with both their ends take in the resident set, beyond what the pipes take
/// that they run over.
pub(super) fn idle_connections(effort: Effort, report: &mut Report) -> Result<()> {
    if !cfg!(target_os = "linux") {
        eprintln!("the resident set is measured on Linux only");
        return Ok(());
    }
    let connections = effort.amount(10_000);
    let pipes = resident(Candidate::Pipes, connections)?;
    let each = |candidate| -> Result<f64> {
        Ok((resident(candidate, connections)? - pipes) / connections as f64 / 1024.0)
    };
    let (ours, tls) = (each(Candidate::Ours)?, each(Candidate::TokioRustls)?);
    let name = "memory of an idle connection, both ends / tokio-rustls";
    report.add(name, "KiB", ours, tls, Goal::AtMost(1.0));
    Ok(())
}

/// Bytes that a process with so many connections has resident.
fn resident(candidate: Candidate, connections: usize) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .args([FLAG, candidate.name(), &connections.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
