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

pub(super) mod rows;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use policies::PolicyEntry;
use simulator::report::Report;
use simulator::{Capacity, Progress, Simulator};

use self::rows::RowsFormat;
use self::session::{Plan, Session};
use super::Outcome;
use super::cache_args::CacheArgs;
use super::error::CliError;
use super::output;
use super::plot_args::PlotArgs;
use super::policy_args::PolicyArgs;
use super::progress::{conclude, stop_on_interrupt};
use super::trace_args::TraceArgs;

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
    /// Leave out the optimum, and so the need to remember every request
    #[arg(long)]
    no_optimum: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    output: RowsFormat,
    #[command(flatten)]
    plots: PlotArgs,
    #[command(flatten)]
    cache: CacheArgs,
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
        mode: args.cache.mode(&args.capacity)?,
        ttl_seconds: args.cache.ttl,
        seed: args.cache.seed,
        optimum: !args.no_optimum,
        allow_oversized: args.cache.allow_oversized,
        options: args.format.options(),
    };
    args.plots.check()?;
    let progress = Arc::new(Progress::default());
    stop_on_interrupt(Arc::clone(&progress));
    let runner = args.cache.runner(&progress)?;
    let mut session = Session::new(&simulator, &runner, &progress, &plan);
    for path in &args.trace {
        if progress.is_stopped() {
            break;
        }
        session.simulate(path);
    }
    let Session { results, problems, .. } = session;
    output::write(
        match args.output {
            RowsFormat::Table => rows::table(&results),
            RowsFormat::Json => rows::json(&results),
            RowsFormat::Csv => rows::csv(&results),
        }
        .as_bytes(),
    )?;
    let notes = problems.as_slice();
    args.plots.write(&Report { title: "Cache simulation", notes, results: &results, advice: &[] })?;
    conclude("simulate", &progress, problems)
}
