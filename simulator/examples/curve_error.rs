//! Measures miniature simulation: how far sampled curves are from exact ones, and what each costs on one thread.
//!
//! ```sh
//! cargo run --release -p tiny-cache-simulator --example curve_error -- TRACE [POLICY,…]
//! ```
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use simulator::curve::{Curves, Effort, Point, spread};
use simulator::trace::{Trace, TraceOptions};
use simulator::{Cache, Mode, PolicyChoice, Recording, Runner, Simulator, around};

/// Reads the trace and computes the curves, as `tiny-cache curve` does; the seconds of both together.
fn measure(
    path: &Path,
    policies: &[PolicyChoice],
    with_optimum: bool,
    effort: Effort,
) -> Result<(Vec<Point>, f64, f64), Box<dyn Error>> {
    let started = Instant::now();
    let trace = Trace::open(path, &TraceOptions::default(), Arc::default())?;
    let (recording, outcome) = Recording::of(trace, false, || true);
    outcome?;
    let read = started.elapsed().as_secs_f64();
    let distinct = recording.survey().distinct;
    let mut capacities = spread(distinct, 12);
    capacities.extend(around(distinct / 10, distinct));
    capacities.sort_unstable();
    capacities.dedup();
    let cache = Cache { mode: Mode::Items, capacity: 0, ttl_seconds: None, seed: 0 };
    let curves = Curves { trace: "trace", policies, with_optimum, cache, capacities: &capacities, effort };
    let points = curves.compute(&Simulator::default(), &Runner::new(1, Arc::default())?, &recording)?;
    Ok((points, read, started.elapsed().as_secs_f64()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: curve_error TRACE [POLICY,…]")?;
    let simulator = Simulator::default();
    let names: Vec<String> = match arguments.next() {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => simulator.policies().iter().map(|entry| entry.name.to_owned()).collect(),
    };
    let policies: Vec<PolicyChoice> = names.iter().map(|name| PolicyChoice::named(name)).collect();
    let (exact, _, exact_seconds) = measure(path.as_ref(), &policies, true, Effort::Exact)?;
    let (sampled, read, sampled_seconds) = measure(path.as_ref(), &policies, true, Effort::default())?;
    let errors: Vec<(&str, f64)> = exact
        .iter()
        .zip(&sampled)
        .map(|(whole, part)| {
            (whole.result.policy.as_str(), (whole.result.miss_ratio - part.result.miss_ratio).abs())
        })
        .collect();
    let mean = |errors: &[(&str, f64)]| {
        let (sum, count) =
            errors.iter().fold((0.0, 0.0), |(sum, count), (_, error)| (sum + error, count + 1.0));
        sum / count
    };
    println!("policy        mean absolute error  largest");
    for group in errors.chunk_by(|(a, _), (b, _)| a == b) {
        let largest = group.iter().map(|(_, error)| *error).fold(0.0, f64::max);
        println!("{:<14}{:>19.5}{largest:>9.5}", group[0].0, mean(group));
    }
    println!("{:<14}{:>19.5}", "all", mean(&errors));
    println!(
        "seconds: exact {exact_seconds:.2}, sampled {sampled_seconds:.2} (reading {read:.2}), ratio {:.4}",
        sampled_seconds / exact_seconds
    );
    Ok(())
}
