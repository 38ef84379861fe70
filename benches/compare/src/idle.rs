//! A process that holds idle connections and says how much memory it has resident.

use std::fs;

use rustix::param::page_size;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, duplex},
    runtime::Builder,
    task::yield_now,
};

use crate::{
    support::{AES, Configs, Result, traffic::echo},
    tls,
};

/// The argument of the program that a candidate and a number of connections follow.
pub(crate) const FLAG: &str = "--idle";

/// What a pipe holds in each direction. Little, because the pipes of different candidates may differ
/// in how much of it they have used.
const PIPE: usize = 1024;
/// Bytes of a message: a record of the greatest length.
const MESSAGE: usize = 16 * 1024;

/// What is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Candidate {
    Ours,
    TokioRustls,
    /// What both run over.
    Pipes,
}

impl Candidate {
    const ALL: [Self; 3] = [Self::Ours, Self::TokioRustls, Self::Pipes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::TokioRustls => "tokio-rustls",
            Self::Pipes => "pipes",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.name() == name)
    }
}

/// Makes `connections` connections, lets data go to and fro in each, and gives the bytes of the
/// resident set when a task at each end waits for more.
pub(crate) fn resident_set(candidate: &str, connections: usize) -> Result<usize> {
    let candidate = Candidate::named(candidate).ok_or("no such candidate")?;
    let configs = Configs::new(AES)?;
    let tls_configs = tls::Configs::new()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match candidate {
            Candidate::Ours => {
                hold(connections, async |near, far| configs.connect(near, far).await).await?;
            }
            Candidate::TokioRustls => {
                hold(connections, async |near, far| tls_configs.connect(near, far).await).await?;
            }
            Candidate::Pipes => hold(connections, async |near, far| Ok((near, far))).await?,
        }
        // The second number counts the pages of the resident set (proc_pid_statm(5)).
        let statm = fs::read_to_string("/proc/self/statm")?;
        let pages: usize = statm.split_whitespace().nth(1).ok_or("no resident set")?.parse()?;
        Ok(pages * page_size())
    })
}

/// The connections last as long as the runtime.
async fn hold<A, B>(
    connections: usize,
    connect: impl AsyncFn(DuplexStream, DuplexStream) -> Result<(A, B)>,
) -> Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    for _ in 0..connections {
        let (near, far) = duplex(PIPE);
        let (near, far) = connect(near, far).await?;
        let (mut near, mut far) = echo(near, far, MESSAGE, 2).await?;
        tokio::spawn(async move { near.read_u8().await });
        tokio::spawn(async move { far.read_u8().await });
        // Both begin to wait.
        yield_now().await;
    }
    Ok(())
}
