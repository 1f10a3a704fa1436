//! `tiny-cache replay`: plays a recorded sequence of requests against a running server.
//!
//! The server is used as a look-aside cache: a Get for each record, and a Set where it missed. With
//! one connection and one request in flight the order is the trace's, so that hits and misses are
//! exactly the policy's.

mod player;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use self::player::{Records, Shared, ValueSize, work};
use self::report::{Report, Tally};
use super::client::{ClientArgs, single_threaded};
use super::error::CliError;
use super::output::{self, OutputFormat};
use super::trace_args::TraceArgs;
use super::{Outcome, parse};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Play a trace file against a running server
///
/// Each record is a Get and, where that misses, a Set. A trace is text with one key a line, libCacheSim's
/// oracleGeneral, csv or an access log, plain or compressed by gzip or zstd; "-" is standard input. With one connection and a concurrency of 1 (the
/// defaults) the requests arrive in exactly the trace's order. Ctrl-C ends the replay and prints what there is.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 the whole trace was played, 2 a request failed or the trace did not end well.\n\n\
                  Examples:\n  \
                  tiny-cache replay --trace web.oracleGeneral.zst\n  \
                  tiny-cache replay --trace keys.txt --connections 4 --concurrency 64 --value-size 1KiB\n  \
                  tiny-cache replay --trace cdn.oracleGeneral --value-size trace --limit 100000 --output json"
)]
pub(super) struct ReplayArgs {
    /// The trace; given more than once, one file is played after the other
    #[arg(long, value_name = "FILE", required = true)]
    trace: Vec<PathBuf>,
    /// Connections to open
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Requests in flight at a time, over all connections [default: one per connection]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// The size of the values that a miss stores, or "trace" for the trace's own sizes
    #[arg(long, value_name = "SIZE", default_value = "100B", value_parser = value_size)]
    value_size: ValueSize,
    /// Time to live of what a miss stores, in seconds or as a duration; 0: never expires
    #[arg(long, default_value = "0", value_parser = parse::ttl_seconds, allow_negative_numbers = true)]
    ttl: i32,
    /// Play no more than this many records
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Give up after this many failed requests; 0: never
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_errors: u64,
    /// How to print the results
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    format: TraceArgs,
    #[command(flatten)]
    client: ClientArgs,
}

fn value_size(text: &str) -> Result<ValueSize, String> {
    if text == "trace" { Ok(ValueSize::Trace) } else { parse::size_bytes(text).map(ValueSize::Bytes) }
}

pub(super) fn run(args: &ReplayArgs) -> Result<Outcome, CliError> {
    let concurrency = args.concurrency.unwrap_or(args.connections);
    if concurrency < args.connections {
        return Err(CliError::Usage(format!(
            "--concurrency {concurrency} leaves some of the {} connections without requests",
            args.connections
        )));
    }
    // One request at a time is fastest on the thread that waits for it.
    let runtime = match concurrency {
        1 => single_threaded()?,
        _ => Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?,
    };
    let consumed = Arc::new(AtomicU64::new(0));
    let records = Records::open(
        args.trace.clone(),
        args.format.options(),
        args.value_size,
        args.limit,
        Arc::clone(&consumed),
    )?;
    let shared = Arc::new(Shared::new(records, args.ttl, args.max_errors));
    let played = runtime.block_on(play(args, concurrency, &shared, &consumed))?;

    match args.output {
        OutputFormat::Text => output::write(played.report.text().as_bytes())?,
        OutputFormat::Json => output::json(&played.report.json())?,
    }
    conclude(args, &shared, &played)
}

struct Played {
    report: Report,
    interrupted: bool,
}

async fn play(
    args: &ReplayArgs,
    concurrency: u16,
    shared: &Arc<Shared>,
    consumed: &AtomicU64,
) -> Result<Played, CliError> {
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        connections.push(args.client.connect().await?);
    }
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for connection in connections.iter().cycle().take(concurrency.into()) {
        workers.spawn(work(Arc::clone(shared), connection.clone()));
    }
    let bar = progress_bar(args);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let mut tally = Tally::new();
    let mut interrupted = false;
    loop {
        tokio::select! {
            finished = workers.join_next() => match finished {
                Some(worker) => tally.add(&worker.expect("a worker neither panics nor is aborted")),
                None => break,
            },
            _ = ticks.tick() => show(&bar, shared, consumed, args.limit.is_some()),
            // Where the signal cannot be caught, it ends the process as it always did.
            Ok(()) = tokio::signal::ctrl_c() => {
                interrupted = true;
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
    }
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    Ok(Played { report: Report { tally, elapsed }, interrupted })
}

/// Says what went wrong, once the results are out.
fn conclude(args: &ReplayArgs, shared: &Shared, played: &Played) -> Result<Outcome, CliError> {
    let tally = &played.report.tally;
    for error in shared.take_told() {
        output::complain(&format!("replay: {error}"));
    }
    let requests = output::grouped(tally.requests());
    if let Some(failure) = shared.take_failure() {
        return Err(failure);
    }
    if played.interrupted {
        return Err(CliError::Incomplete(format!("interrupted after {requests} requests")));
    }
    if tally.errors == 0 {
        return Ok(Outcome::Done);
    }
    let errors = output::grouped(tally.errors);
    Err(CliError::Incomplete(if args.max_errors > 0 && tally.errors >= args.max_errors {
        format!("gave up after {errors} failed calls, {requests} requests played (see --max-errors)")
    } else {
        format!("{errors} calls failed")
    }))
}

/// A bar on standard error; nothing where that is no terminal.
fn progress_bar(args: &ReplayArgs) -> ProgressBar {
    let file_bytes =
        || args.trace.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed} (eta {eta})")
        .expect("the template is well-formed");
    ProgressBar::new(args.limit.unwrap_or_else(file_bytes)).with_style(style)
}

fn show(bar: &ProgressBar, shared: &Shared, consumed: &AtomicU64, limited: bool) {
    let requests = shared.requests.load(Ordering::Relaxed);
    let hits = shared.hits.load(Ordering::Relaxed);
    bar.set_position(if limited { requests } else { consumed.load(Ordering::Relaxed) });
    #[expect(clippy::cast_precision_loss, reason = "a ratio for reading")]
    let hit_ratio = hits as f64 / (requests as f64).max(1.0);
    bar.set_message(format!("{} requests, hit ratio {hit_ratio:.4}", output::grouped(requests)));
}
