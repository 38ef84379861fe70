//! How many rekeys a machine does, how long each takes, and what data on the same connection feels.
//!
//! ```text
//! cargo run --release --example rekey_throughput
//! cargo run --release --example rekey_throughput -- --direction crossing --connections 4
//! cargo run --release --example rekey_throughput -- --payload 64KiB --svg rekeys.svg --csv rekeys.csv
//! ```
//!
//! Clients and servers are in one process and talk over TCP. No policy starts a rekey, only calls of
//! `rekey()`, one after the other on each connection. The time of a rekey runs from the call to the
//! moment when both directions use the new epoch, so it holds the work of both ends, a round trip,
//! and whatever data is in the way.

use std::{
    error::Error,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::future::try_join_all;
use mls_channel::{
    CipherSuite, Config, Identity, Limits, MlsAcceptor, MlsConnector, MlsStream, PinnedKeys,
    RekeyPolicy, ServerName,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    connection::{Direction, Outcome, Plan},
    record::{Record, Recorder, microseconds},
    size::Size,
    suite::parse_suite,
};

#[path = "rekey_throughput/connection.rs"]
mod connection;
#[path = "rekey_throughput/plot.rs"]
mod plot;
#[path = "rekey_throughput/record.rs"]
mod record;
#[path = "common/size.rs"]
mod size;
#[path = "common/suite.rs"]
mod suite;

/// Measures rekeys: how many a second, how long each takes, how much processor time, and for how long
/// data stands still.
#[derive(Parser)]
struct Arguments {
    /// How many connections rekey at the same time
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// The cipher suite, by its name or number [default: 0x0001]
    #[arg(long, value_parser = parse_suite)]
    suite: Option<CipherSuite>,
    /// Application data that each side sends between two rekeys
    ///
    /// If it is not 0, the stall of each rekey is measured, too. Then both sides send messages of
    /// 1 KiB as fast as they arrive, at most 16 of them on their way in each direction, before, during
    /// and after each rekey. The stall is the longest time in which nothing arrives at one of the two
    /// ends, from the call of rekey() to the first arrival at each end after the rekey is done. It
    /// holds the work of both ends, and whatever else the machine does meanwhile. Between two messages
    /// of its own is also when an end notices that its rekey is done.
    #[arg(long, default_value = "0", value_name = "SIZE")]
    payload: Size,
    /// For how long rekeys are begun
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = parse_seconds)]
    duration: Duration,
    /// Who asks for rekeys
    #[arg(long, default_value = "client")]
    direction: Direction,
    /// Plot the times of rekeys, and rekeys per second over the run
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a row for each rekey: when it was completed, on which connection, who asked for it, its
    /// time and stall, and whether it crossed an update of the other side
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

type Failure = Box<dyn Error + Send + Sync>;

/// What a run cost.
struct Cost {
    wall: Duration,
    /// Of the process, user and system. `None` where the system does not tell.
    cpu: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.svg.is_some() && arguments.svg == arguments.csv {
        return Err("--svg and --csv are the same file".into());
    }
    // Better now than after the run.
    let svg = arguments.svg.as_deref().map(create).transpose()?;
    let csv = arguments.csv.as_deref().map(create).transpose()?;
    let suite = arguments.suite.unwrap_or(CipherSuite::ALL[0]);
    let streams = connect(suite, arguments.connections).await?;
    print_plan(suite, arguments)?;

    let (start, cpu) = (Instant::now(), cpu_time());
    let Arguments { direction, duration, .. } = *arguments;
    let plan = Plan { direction, payload: arguments.payload.0, deadline: start + duration };
    let recorder = Arc::new(Recorder::new(start, duration, csv)?);
    recorder.write_header()?;
    let running = (0..).zip(streams).map(|(number, (client, server))| {
        connection::start(number, client, server, plan, &recorder)
    });
    let outcomes = try_join_all(running).await?;
    let wall = start.elapsed();
    let cost = Cost { wall, cpu: cpu_time().zip(cpu).map(|(end, start)| end - start) };

    let record = recorder.finish()?;
    let total = Outcome {
        rekeys: outcomes.iter().map(|outcome| outcome.rekeys).sum(),
        crossings: outcomes.iter().map(|outcome| outcome.crossings).sum(),
        bytes: outcomes.iter().map(|outcome| outcome.bytes).sum(),
    };
    if total.rekeys == 0 {
        return Err("no rekey was begun in time: try a longer --duration, or less --payload".into());
    }
    if total.rekeys != record.times.len() {
        return Err(format!("{} rekeys, but {} times", total.rekeys, record.times.len()).into());
    }
    print_results(&total, &cost, &record)?;
    if let Some((path, mut file)) = arguments.svg.as_ref().zip(svg) {
        let plot = plot::svg(&title(suite, arguments), &record)?;
        file.write_all(plot.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The two ends of each channel.
async fn connect(
    suite: CipherSuite,
    connections: u32,
) -> Result<Vec<(MlsStream<TcpStream>, MlsStream<TcpStream>)>, Failure> {
    let scheme = suite.signature_scheme();
    let client = Identity::generate_with("client", scheme)?;
    let server = Identity::generate_with("server", scheme)?;
    let connector = MlsConnector::from(config(suite, &client, &server)?);
    let acceptor = MlsAcceptor::from(config(suite, &server, &client)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let name = ServerName::new("server")?;
    let mut streams = Vec::new();
    for number in 1..=connections {
        let pair = async {
            let (near, (far, _)) =
                tokio::try_join!(TcpStream::connect(address), listener.accept())?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            tokio::try_join!(connector.connect(name.clone(), near), acceptor.accept(far))
        };
        let pair = pair.await.map_err(|error| format!("connection {number}: {error}"))?;
        streams.push(pair);
    }
    Ok(streams)
}

/// A configuration that rekeys only when asked, as often as asked.
fn config(suite: CipherSuite, own: &Identity, peer: &Identity) -> Result<Arc<Config>, Failure> {
    let config = Config::builder()
        .identity(own.clone())
        .authentication_service(PinnedKeys::parse(&peer.public_line())?)
        .cipher_suites([suite])
        .rekey_policy(RekeyPolicy::manual())
        .limits(Limits::default().with_max_updates_without_data(u32::MAX))
        .build()?;
    Ok(Arc::new(config))
}

fn print_plan(suite: CipherSuite, arguments: &Arguments) -> io::Result<()> {
    let Arguments { connections, payload, duration, .. } = arguments;
    let mut out = io::stdout();
    writeln!(out, "suite        {suite}")?;
    writeln!(out, "connections  {connections} over TCP, both ends in this process")?;
    writeln!(out, "rekeys       {}, for {duration:?}", who(arguments.direction))?;
    match payload.0 {
        0 => writeln!(out, "data         none"),
        _ => writeln!(out, "data         {payload} from each side between two rekeys"),
    }
}

fn print_results(total: &Outcome, cost: &Cost, record: &Record) -> io::Result<()> {
    let mut out = io::stdout();
    let Outcome { rekeys, crossings, bytes } = *total;
    let rate = rekeys as f64 / cost.wall.as_secs_f64();
    let wall = cost.wall.as_secs_f64();
    writeln!(out, "throughput   {rate:.1} rekeys/s: {rekeys} in {wall:.2} s")?;
    if let Some(cpu) = cost.cpu {
        let each = cpu.as_secs_f64() * 1e6 / rekeys as f64;
        let besides = if bytes > 0 { ", data included" } else { "" };
        writeln!(out, "CPU          {each:.1} us per rekey, user and system, both ends{besides}")?;
    }
    writeln!(out, "crossings    {crossings}")?;
    if bytes > 0 {
        let moved = Size(bytes);
        writeln!(out, "moved        {moved}, {}/s", moved.per_second(cost.wall))?;
    }
    writeln!(out, "{:<9}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p90", "p99", "p99.9", "max")?;
    for (name, times) in [("time/us", &record.times), ("stall/us", &record.stalls)] {
        if times.is_empty() {
            writeln!(out, "{name:<9}  only with data: --payload 64KiB")?;
            continue;
        }
        write!(out, "{name:<9}")?;
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            write!(out, "{:>10.1}", microseconds(times.value_at_quantile(quantile)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn title(suite: CipherSuite, arguments: &Arguments) -> String {
    let Arguments { connections, payload, direction, .. } = *arguments;
    let connections = match connections {
        1 => "1 connection".to_owned(),
        _ => format!("{connections} connections"),
    };
    let payload = match payload.0 {
        0 => String::new(),
        _ => format!(", {payload} of data between"),
    };
    format!("Rekeys {}, {connections}, suite {:#06x}{payload}", who(direction), suite.id())
}

fn who(direction: Direction) -> &'static str {
    match direction {
        Direction::Client => "by the client",
        Direction::Server => "by the server",
        Direction::Both => "by client and server in turn",
        Direction::Crossing => "by client and server at the same moment",
    }
}

fn parse_seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .filter(|seconds| (0.001..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or("write seconds, from 0.001 to 86400")
}

#[cfg(unix)]
fn cpu_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().ok()
}

#[cfg(not(unix))]
fn cpu_time() -> Option<Duration> {
    None
}
