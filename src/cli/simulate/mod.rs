//! `tiny-cache simulate`: what every policy would have made of a recorded sequence of requests.
//!
//! A trace is read once. Unless `--no-optimum` is given, it is recorded in 4 to 12 bytes a request, since the
//! optimum has to know the future, and every row is a job of its own. Without the optimum nothing is
//! recorded: all simulations advance together over the same blocks as they are read, so that memory
//! follows the distinct objects. (A file is then read twice where capacities are percentages, and what comes from
//! standard input is recorded.)
//!
//! Whatever is wrong with one trace or row is told, and the others go on: results that could be
//! computed are printed, and the exit code is 2.

mod rows;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::{Args, ValueEnum};
use policies::PolicyEntry;
use simulator::{Capacity, Mode, Progress, Runner, Simulator};
use tokio::runtime::Builder;

use self::session::{Plan, Session};
use super::Outcome;
use super::error::CliError;
use super::output;
use super::policy_args::PolicyArgs;
use super::trace_args::TraceArgs;

/// How to print the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RowsFormat {
    /// For people
    #[default]
    Table,
    /// An array of objects, one a line
    Json,
    /// With a header
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Every object takes one place
    Items,
    /// An object takes its size
    Bytes,
}

/// Simulate eviction policies on recorded requests
///
/// For every trace, capacity and policy: how many requests would have missed. The row "belady" is what no policy can
/// beat: Belady's MIN, which is exact, where the capacity counts objects, and the bound PFOO-L where it counts bytes,
/// which holds the capacity only on average over time. An object larger than the cache is a miss and is not stored.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 every row was computed, 2 something was wrong or Ctrl-C ended it; what was finished is printed.\n\n\
                  Examples:\n  \
                  tiny-cache simulate --trace web.oracleGeneral.zst --capacity 1%,10%\n  \
                  tiny-cache simulate --trace cdn.csv.gz --key-column url --size-column bytes --capacity 64MiB,1GiB\n  \
                  tiny-cache simulate --trace keys.txt --policy lru,s3-fifo --set s3-fifo.small_ratio=0.2 --capacity 5000\n  \
                  zcat access.log.gz | tiny-cache simulate --trace - --format access-log --output json"
)]
pub(super) struct SimulateArgs {
    /// A trace, plain or compressed by gzip or zstd; - for standard input; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    trace: Vec<PathBuf>,
    /// Capacities: objects (1000), bytes (64MiB) or parts of the footprint (0.1%)
    #[arg(long, value_name = "CAPACITY,…", value_delimiter = ',', default_value = "1%,10%")]
    capacity: Vec<Capacity>,
    /// What the capacity counts [default: bytes where a capacity has a unit, else items]
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
    /// Seconds of the trace's time after its insertion at which an object expires
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    ttl: Option<u32>,
    /// The seed of randomised policies; a server's is 0 unless configured
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Leave out the optimum, and so the need to remember every request
    #[arg(long)]
    no_optimum: bool,
    /// Do not complain about objects that are larger than the cache
    #[arg(long)]
    allow_oversized: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    output: RowsFormat,
    #[command(flatten)]
    policies: PolicyArgs,
    #[command(flatten)]
    format: TraceArgs,
}

pub(super) fn run(args: &SimulateArgs, registry: &[PolicyEntry]) -> Result<Outcome, CliError> {
    let simulator = Simulator::with_policies(registry);
    let plan = Plan {
        choices: args.policies.choices(&simulator)?,
        capacities: args.capacity.clone(),
        mode: mode(args)?,
        ttl_seconds: args.ttl,
        seed: args.seed,
        optimum: !args.no_optimum,
        allow_oversized: args.allow_oversized,
        options: args.format.options(),
    };
    let progress = Arc::new(Progress::default());
    stop_on_interrupt(Arc::clone(&progress));
    let threads = args.jobs.unwrap_or(0).into();
    let runner = Runner::new(threads, Arc::clone(&progress))
        .map_err(|error| CliError::Usage(format!("--jobs: {error}")))?;
    let mut session = Session::new(&simulator, &runner, &progress, &plan);
    for path in &args.trace {
        if progress.is_stopped() {
            break;
        }
        session.simulate(path);
    }
    let Session { results, mut problems, .. } = session;
    output::write(
        match args.output {
            RowsFormat::Table => rows::table(&results),
            RowsFormat::Json => rows::json(&results),
            RowsFormat::Csv => rows::csv(&results),
        }
        .as_bytes(),
    )?;
    if progress.is_stopped() {
        problems.push("interrupted: only what was finished is printed".to_owned());
    }
    let Some(last) = problems.pop() else { return Ok(Outcome::Done) };
    for problem in problems {
        output::complain(&format!("simulate: {problem}"));
    }
    Err(CliError::Incomplete(last))
}

/// What the capacities count: as it is said, or as their units imply.
fn mode(args: &SimulateArgs) -> Result<Mode, CliError> {
    let in_bytes = args.capacity.iter().find(|capacity| capacity.implied_mode() == Some(Mode::Bytes));
    let bare = args.capacity.iter().find(|capacity| matches!(capacity, Capacity::Count(_)));
    match (args.mode, in_bytes, bare) {
        (Some(ModeName::Items), Some(bytes), _) => {
            Err(CliError::Usage(format!("--capacity {bytes} is in bytes, but --mode is items")))
        }
        (None, Some(bytes), Some(bare)) => Err(CliError::Usage(format!(
            "--capacity {bare} may be objects, but {bytes} is in bytes: give it a unit, or say --mode bytes"
        ))),
        (Some(ModeName::Bytes), ..) | (None, Some(_), None) => Ok(Mode::Bytes),
        (Some(ModeName::Items) | None, None, _) => Ok(Mode::Items),
    }
}

/// The first Ctrl-C asks the run to end, the second ends it.
fn stop_on_interrupt(progress: Arc<Progress>) {
    thread::spawn(move || {
        // Without the handler the signal ends the process as it always did.
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                progress.stop();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(2);
            }
        });
    });
}
