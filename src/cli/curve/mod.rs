//! `tiny-cache curve`: how the miss ratio falls as the cache grows, for several policies at once.
//!
//! A trace is read once, into 4 to 12 bytes a request; miniature caches then run on samples of it (see
//! [`simulator::curve`]), or whole ones with `--exact`.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Args;
use policies::PolicyEntry;
use simulator::curve::{Curves, Effort, Point, spread};
use simulator::report::Report;
use simulator::trace::{Trace, TraceError};
use simulator::{
    Advice, Cache, Capacity, Mode, PolicyChoice, Progress, Recording, Runner, Simulator, Survey, around,
};

use super::Outcome;
use super::cache_args::CacheArgs;
use super::error::CliError;
use super::output::{self, grouped};
use super::plot_args::PlotArgs;
use super::policy_args::PolicyArgs;
use super::progress::{conclude, reading_bar, simulating_bar, stop_on_interrupt, watched, watched_by};
use super::simulate::rows::RowsFormat;
use super::trace_args::TraceArgs;

/// Miss-ratio curves: what more or less memory would give
///
/// For every policy, the miss ratio over the capacity, and what half, the same and double the current memory would give.
/// Large caches are simulated in miniature, on a sample of the objects, which is accurate to about a hundredth and much
/// faster; small ones are simulated whole. Results are scaled to the whole trace.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 every point was computed, 2 something was wrong or Ctrl-C ended it; what was finished is printed.\n\n\
                  Examples:\n  \
                  tiny-cache curve --trace web.oracleGeneral.zst --report curves.html\n  \
                  tiny-cache curve --trace keys.txt --policy lru,s3-fifo,w-tinylfu --current 50000\n  \
                  tiny-cache curve --trace cdn.csv.gz --mode bytes --current 1GiB --points 20 --png curves.png\n  \
                  tiny-cache curve --trace keys.txt --capacity 1%,5%,25% --exact --output json"
)]
pub(super) struct CurveArgs {
    /// A trace, plain or compressed by gzip or zstd; - for standard input; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    trace: Vec<PathBuf>,
    /// The capacity that you have now: objects, bytes or a part of the footprint
    #[arg(long, value_name = "CAPACITY", default_value = "10%")]
    current: Capacity,
    /// Points of each curve, from 1% of the footprint to all of it
    #[arg(long, value_name = "COUNT", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=200))]
    points: u32,
    /// The capacities themselves: objects (1000), bytes (64MiB) or parts of the footprint (0.1%)
    #[arg(long, value_name = "CAPACITY,…", value_delimiter = ',', conflicts_with = "points")]
    capacity: Vec<Capacity>,
    /// Simulate every capacity whole, on every request
    #[arg(long, conflicts_with_all = ["min_size", "effort"])]
    exact: bool,
    /// The fewest entries of a miniature cache; smaller caches are simulated whole [default: 4096, or as many as --effort allows]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "effort")]
    min_size: Option<u64>,
    /// The share of an exact simulation's requests that may be simulated, where the trace is long
    #[arg(long, value_name = "SHARE", default_value = "0.04", value_parser = share)]
    effort: f64,
    /// Leave out the optimum
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

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and up to 1".to_owned())
}

/// The curves of one trace.
struct TraceCurves {
    survey: Survey,
    points: Vec<Point>,
    current: u64,
    advice: Vec<Advice>,
}

struct Session<'a> {
    args: &'a CurveArgs,
    mode: Mode,
    choices: Vec<PolicyChoice>,
    simulator: Simulator,
    runner: Runner,
    progress: Arc<Progress>,
    problems: Vec<String>,
}

pub(super) fn run(args: &CurveArgs, registry: &[PolicyEntry]) -> Result<Outcome, CliError> {
    let simulator = Simulator::with_policies(registry);
    let mut capacities = args.capacity.clone();
    capacities.push(args.current);
    args.plots.check()?;
    let progress = Arc::new(Progress::default());
    let mut session = Session {
        args,
        mode: args.cache.mode(&capacities)?,
        choices: args.policies.choices(&simulator)?,
        runner: args.cache.runner(&progress)?,
        simulator,
        progress: Arc::clone(&progress),
        problems: Vec::new(),
    };
    stop_on_interrupt(Arc::clone(&progress));
    let mut curves = Vec::new();
    for path in &args.trace {
        if progress.is_stopped() {
            break;
        }
        curves.extend(session.compute(path)?);
    }
    output::write(
        match args.output {
            RowsFormat::Table => rows::table(&curves),
            RowsFormat::Json => rows::json(&curves),
            RowsFormat::Csv => rows::csv(&curves),
        }
        .as_bytes(),
    )?;
    report(args, &curves, &session.problems)?;
    conclude("curve", &progress, session.problems)
}

fn report(args: &CurveArgs, curves: &[TraceCurves], problems: &[String]) -> Result<(), CliError> {
    let points = || curves.iter().flat_map(|trace| &trace.points);
    let results: Vec<_> = points().map(|point| point.result.clone()).collect();
    let advice: Vec<_> = curves.iter().flat_map(|trace| trace.advice.clone()).collect();
    let lowest = points().map(|point| point.rate).fold(1.0, f64::min);
    let made = if lowest < 1.0 {
        format!(
            "Estimated by miniature simulation, on samples of {} of the objects and more; --exact simulates everything.",
            rows::percent(lowest)
        )
    } else {
        "Every capacity was simulated whole, on every request.".to_owned()
    };
    let notes: Vec<String> = std::iter::once(made).chain(problems.iter().cloned()).collect();
    args.plots.write(&Report {
        title: "Miss-ratio curves",
        notes: &notes,
        results: &results,
        advice: &advice,
    })
}

impl Session<'_> {
    /// The curves of a trace; `None` where there is nothing to show. What is wrong with the trace is noted.
    fn compute(&mut self, path: &Path) -> Result<Option<TraceCurves>, CliError> {
        let (name, recording) = match self.read(path) {
            Ok((name, recording, outcome)) => {
                self.problems.extend(outcome.err().map(|error| error.to_string()));
                (name, recording)
            }
            Err(error) => {
                self.problems.push(error.to_string());
                return Ok(None);
            }
        };
        let survey = *recording.survey();
        if survey.requests == 0 || self.progress.is_stopped() {
            return Ok(None);
        }
        let footprint = if self.mode == Mode::Items { survey.distinct } else { survey.footprint_bytes };
        let (capacities, current) = match self.capacities(&name, &survey, footprint) {
            Ok(found) => found,
            Err(problem) => {
                self.problems.push(problem);
                return Ok(None);
            }
        };
        let effort = match (self.args.exact, self.args.min_size) {
            (true, _) => Effort::Exact,
            (false, Some(min_entries)) => Effort::Sampled { min_entries, share: 1.0 },
            (false, None) => Effort::Sampled { min_entries: 4096, share: self.args.effort },
        };
        let curves = Curves {
            trace: &name,
            policies: &self.choices,
            with_optimum: !self.args.no_optimum,
            cache: Cache {
                mode: self.mode,
                capacity: 0,
                ttl_seconds: self.args.cache.ttl,
                seed: self.args.cache.seed,
            },
            capacities: &capacities,
            effort,
        };
        let before = self.progress.simulated();
        let points = watched_by(
            &simulating_bar(curves.requests(&survey)),
            || self.progress.simulated() - before,
            || curves.compute(&self.simulator, &self.runner, &recording),
        );
        let points = points.map_err(|error| CliError::Usage(error.to_string()))?;
        self.complain_of_oversized(&name, &capacities, &survey);
        let results: Vec<_> = points.iter().map(|point| point.result.clone()).collect();
        let advice = Advice::of(&results, current, footprint);
        Ok(Some(TraceCurves { survey, points, current, advice }))
    }

    /// The trace's name and what could be read of it.
    fn read(&self, path: &Path) -> Result<(String, Recording, Result<(), TraceError>), TraceError> {
        let consumed = Arc::new(AtomicU64::new(0));
        let trace = Trace::open(path, &self.args.format.options(), Arc::clone(&consumed))?;
        trace.require(self.args.cache.ttl.is_some(), self.mode == Mode::Bytes)?;
        let name = trace.name().to_owned();
        let keep_times = self.args.cache.ttl.is_some();
        let (recording, outcome) = watched(&reading_bar(path), &consumed, || {
            Recording::of(trace, keep_times, || !self.progress.is_stopped())
        });
        Ok((name, recording, outcome))
    }

    /// Rising capacities, those around the current one among them, and the current one. Single capacities that
    /// make no sense for the trace are noted.
    fn capacities(&mut self, name: &str, survey: &Survey, footprint: u64) -> Result<(Vec<u64>, u64), String> {
        let current = self.args.current.resolve(self.mode, survey);
        let current = current.map_err(|error| format!("{name}: --current: {error}"))?;
        let mut capacities = around(current, footprint).to_vec();
        if self.args.capacity.is_empty() {
            capacities.extend(spread(footprint, self.args.points));
        }
        for capacity in &self.args.capacity {
            match capacity.resolve(self.mode, survey) {
                Ok(capacity) => capacities.push(capacity),
                Err(error) => self.problems.push(format!("{name}: {error}")),
            }
        }
        capacities.sort_unstable();
        capacities.dedup();
        Ok((capacities, current))
    }

    /// Objects that a cache is too small for are a mistake where the user named its capacity, and else a part of the curve.
    fn complain_of_oversized(&mut self, name: &str, capacities: &[u64], survey: &Survey) {
        let (size, position) = survey.largest;
        let named = !self.args.capacity.is_empty() && !self.args.cache.allow_oversized;
        if self.mode == Mode::Bytes && named && capacities[0] < u64::from(size) {
            self.problems.push(format!(
                "{name}: {position}: an object of {} bytes is larger than the cache of {} bytes: such requests \
                 were counted as misses (--allow-oversized accepts that)",
                grouped(size.into()),
                grouped(capacities[0]),
            ));
        }
    }
}
