//! Each key of the cache behaves as if operations on it had happened one after the other: docs/guarantees.md.
//!
//! Clients on several connections use the same keys of a real server all at once, and write down what they asked for,
//! what they were answered, and when. Then the history of each key is checked. In `cargo test` that is a short run; a
//! million operations are `scripts/check-linearizability`. The same run over stores with a defect shows that it is seen.

mod checker;
mod history;
mod load;
mod stores;

use std::env;
use std::fmt::Write as _;
use std::time::Duration;

use checker::{Cause, Violation};
use load::{Load, Recorded, key_name};
use stores::Defect;

const POLICIES: [&str; 4] = ["lru", "w-tinylfu", "s3-fifo", "arc"];

/// Checks the histories of all keys. On failure, the key whose reason is the shortest.
fn check(load: &Load, recorded: &Recorded) -> Result<(), String> {
    let mut worst: Option<(usize, Violation)> = None;
    for (&key, history) in &recorded.histories {
        let Err(violation) = checker::check(history) else { continue };
        if worst.as_ref().is_none_or(|(_, other)| violation.events.len() < other.events.len()) {
            worst = Some((key, violation));
        }
    }
    let Some((key, Violation { cause, events })) = worst else { return Ok(()) };
    let cause = match cause {
        Cause::Invented { .. } => "a value was read that nobody has written",
        Cause::Expired { .. } => "a value was read after it was expired",
        Cause::NoOrder { .. } => "no order explains this",
    };
    let (namespace, name) = key_name(key);
    let mut text = format!(
        "seed {}, store {}, policy {}: key {name:?} of namespace {namespace:?}: {cause}\n",
        load.seed, load.store.name, load.policy
    );
    for event in events {
        writeln!(text, "  {event}").expect("a string");
    }
    Err(text)
}

/// A run over the memory store, cleared and resized all the time. Prints what it did.
fn run(seed: u64, operations: u64) -> u64 {
    let policy = POLICIES[usize::try_from(seed % 4).expect("small")];
    let at_least = Duration::from_millis(2500);
    let load = Load { seed, operations, at_least, store: Defect::Shaken.entry(), policy };
    let recorded = load::record(&load);
    let checking = std::time::Instant::now();
    check(&load, &recorded).unwrap_or_else(|violation| panic!("{violation}"));
    let Recorded { operations, took, stats, .. } = recorded;
    let (evictions, expired) = (stats.evictions_total, stats.expired_removals_total);
    let unknown = recorded.histories.values().flatten().filter(|event| event.responded == history::NEVER);
    #[expect(clippy::print_stdout, reason = "what a run tells")]
    {
        println!(
            "| {seed} | {policy} | {operations} | {} | {evictions} | {expired} | {:.1} s | {:.2} s |",
            unknown.count(),
            took.as_secs_f64(),
            checking.elapsed().as_secs_f64()
        );
    }
    assert!(evictions > 20 && expired > 20, "it is to be checked with both: {evictions}, {expired}");
    operations
}

#[test]
fn each_key_of_a_real_server_is_linearizable() {
    run(1, 50_000);
}

#[test]
fn stores_with_a_defect_are_found_out() {
    load::in_parallel(&Defect::BROKEN, |&defect| {
        // Most are in the first run. What strikes at random may need another one, or many where the machine is busy.
        let found = (1..=25).find_map(|seed| {
            let at_least = Duration::from_millis(1800);
            let load = Load { seed, operations: 1500, at_least, store: defect.entry(), policy: "lru" };
            check(&load, &load::record(&load)).err()
        });
        // An example of what a failure looks like, for whoever asks for the output.
        println!("{}", found.unwrap_or_else(|| panic!("{defect:?} was not found out")));
    });
}

#[test]
#[ignore = "takes minutes: scripts/check-linearizability"]
fn a_million_operations() {
    let number = |name: &str, default: u64| {
        env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let operations = number("LINEARIZABILITY_OPERATIONS", 1_000_000);
    let seeds = number("LINEARIZABILITY_SEEDS", 8);
    let first = number("LINEARIZABILITY_FIRST_SEED", 1);
    let seeds: Vec<u64> = (first..first + seeds).collect();
    let each = operations.div_ceil(seeds.len() as u64);
    let done: u64 = load::in_parallel(&seeds, |&seed| run(seed, each)).into_iter().sum();
    assert!(done >= operations, "{done} operations were recorded");
}
