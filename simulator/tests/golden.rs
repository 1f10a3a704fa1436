//! Miss counts of every policy against golden ones, on traces made from seeds.
//!
//! `golden.tsv` was computed once with libCacheSim by `scripts/golden-counts`, which makes the same traces. Each
//! policy runs in the variant that has the reference's behaviour, where it has one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use policies::REGISTRY;
use simulator::trace::{Trace, TraceOptions};
use simulator::{Cache, Mode, OPTIMUM, PolicyChoice, Recording, Simulator, Tally, optimum};

/// `SplitMix64`.
fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn draw(mut seed: u64) -> u64 {
    split_mix(&mut seed)
}

/// Keys below `distinct`, the small ones more often, roughly as Zipf's law has it.
fn skewed(mut seed: u64, distinct: u64) -> Vec<u64> {
    let octaves = u64::from(distinct.ilog2()) + 1;
    let mut key = || (split_mix(&mut seed) % distinct) >> (split_mix(&mut seed) % octaves);
    (0..30_000).map(|_| key()).collect()
}

fn keys(trace: &str) -> Vec<u64> {
    let changed = |keys: Vec<u64>, change: fn(u64, u64) -> u64| {
        (0..).zip(keys).map(|(turn, key)| change(turn, key)).collect()
    };
    match trace {
        "zipf" => skewed(1, 4000),
        "scan" => changed(skewed(2, 3000), |turn, key| if turn % 4 == 3 { 1_000_000 + turn } else { key }),
        "loop" => (0..20_000).map(|turn| turn % 1200).collect(),
        "mix" => changed(skewed(3, 3000), |turn, key| if turn / 2000 % 2 == 1 { turn % 450 } else { key }),
        "shift" => changed(skewed(4, 2000), |turn, key| key + turn / 3000 * 300),
        "sizes" => skewed(5, 4000),
        unknown => panic!("no trace {unknown}"),
    }
}

/// An object's size: 1 to 1000 bytes, most of them small.
fn size(key: u64) -> u64 {
    1 + draw(key) % 1000 % (1 + draw(key + (1 << 32)) % 1000)
}

fn recording(trace: &str, mode: Mode) -> Recording {
    let mut rows = "key,size\n".to_owned();
    for key in keys(trace) {
        let size = if mode == Mode::Bytes { size(key) } else { 1 };
        writeln!(rows, "{key},{size}").unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, rows).unwrap();
    let trace = Trace::open(&path, &TraceOptions::default(), Arc::default()).unwrap();
    let (recording, outcome) = Recording::of(trace, false, || true);
    outcome.unwrap();
    recording
}

fn simulate(simulator: &Simulator, policy: &str, recording: &Recording, cache: &Cache) -> Tally {
    if policy == OPTIMUM {
        return optimum(recording, cache);
    }
    let mut choice = PolicyChoice::named(policy);
    let options = simulator.find(policy).unwrap().options;
    if options.iter().any(|option| option.name == "variant") {
        choice.options.insert("variant".to_owned(), "libcachesim".into());
    }
    if policy == "w-tinylfu" {
        choice.options.insert("window".to_owned(), "fixed".into());
    }
    let mut simulation = simulator.simulation(&choice, cache).unwrap();
    recording.blocks().for_each(|block| simulation.replay(&block));
    simulation.check_invariants();
    simulation.tally()
}

/// Decided by random numbers, or by a sketch that is not the reference's: such a policy may not miss
/// more than the reference, on average over five seeds.
fn is_by_chance(policy: &str) -> bool {
    ["w-tinylfu", "hyperbolic", "lhd", "lecar"].contains(&policy)
}

/// The mean number of misses over five seeds.
fn mean_misses(simulator: &Simulator, policy: &str, recording: &Recording, cache: &Cache) -> u64 {
    let of_seed = |seed| simulate(simulator, policy, recording, &Cache { seed, ..*cache }).misses;
    (0..5).map(of_seed).sum::<u64>() / 5
}

/// How far the count of misses may be off, of a million requests.
fn tolerance_ppm(policy: &str, mode: Mode) -> u64 {
    match (policy, mode) {
        ("fifo" | "clock" | "lru" | "sieve" | "lfu" | OPTIMUM, _) => 0,
        (_, Mode::Items) => 500,
        (_, Mode::Bytes) => 10_000,
    }
}

#[test]
fn every_policy_has_its_golden_counts() {
    let simulator = Simulator::default();
    let mut current: Option<(String, Recording)> = None;
    let mut checked = HashSet::new();
    let mut wrong = String::new();
    for line in include_str!("golden.tsv").lines().skip(1) {
        let [trace, mode, capacity, policy, misses, missed_bytes] =
            line.split('\t').collect::<Vec<_>>().try_into().expect("six columns");
        if policy != OPTIMUM && simulator.find(policy).is_none() {
            continue;
        }
        let mode = if mode == "bytes" { Mode::Bytes } else { Mode::Items };
        if current.as_ref().is_none_or(|(name, _)| name != trace) {
            current = Some((trace.to_owned(), recording(trace, mode)));
        }
        let (_, recording) = current.as_ref().expect("set above");
        let cache = Cache { mode, capacity: capacity.parse().unwrap(), ttl_seconds: None, seed: 0 };
        if is_by_chance(policy) {
            let ours = mean_misses(&simulator, policy, recording, &cache);
            let golden: u64 = misses.parse().unwrap();
            let requests = simulate(&simulator, "lru", recording, &cache).requests;
            if ours > golden + requests / 100 {
                writeln!(wrong, "{policy}, {trace}, {capacity}: {ours} misses, more than {golden}").unwrap();
            }
            checked.insert(policy);
            continue;
        }
        let tally = simulate(&simulator, policy, recording, &cache);
        for (what, ours, golden, of) in [
            ("misses", tally.misses, misses, tally.requests),
            ("missed bytes", tally.missed_bytes, missed_bytes, tally.bytes),
        ] {
            let golden: u64 = golden.parse().unwrap();
            // Sizes weigh differently on bytes than on misses; only exact counts are exact there.
            let tolerance = tolerance_ppm(policy, mode) * if what == "misses" { 1 } else { 4 };
            if ours.abs_diff(golden) > of * tolerance / 1_000_000 {
                writeln!(wrong, "{policy}, {trace}, {capacity}: {ours} {what}, not {golden}").unwrap();
            }
        }
        checked.insert(policy);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // The optimum is among them; the package has no lru-k, and its random replacement is none.
    assert_eq!(checked.len() + 1, REGISTRY.len(), "checked: {checked:?}");
}

#[test]
fn random_replacement_misses_a_loop_as_often_as_chance_has_it() {
    const OBJECTS: u64 = 1200;
    const CAPACITY: u64 = 700;
    const ROUNDS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.txt");
    let mut rows = String::new();
    for turn in 0..OBJECTS * ROUNDS {
        writeln!(rows, "{}", turn % OBJECTS).unwrap();
    }
    std::fs::write(&path, rows).unwrap();
    let trace = Trace::open(&path, &TraceOptions::default(), Arc::default()).unwrap();
    let (recording, outcome) = Recording::of(trace, false, || true);
    outcome.unwrap();
    let cache = Cache { mode: Mode::Items, capacity: CAPACITY, ttl_seconds: None, seed: 0 };
    let misses = mean_misses(&Simulator::default(), "random", &recording, &cache);
    // An object survives each miss with probability 1 - 1 / capacity, and a loop brings as many misses as
    // it misses objects: m = 1 - (1 - 1 / capacity)^(m * objects), here 0.697.
    let steady = 697 * OBJECTS * ROUNDS / 1000;
    assert!(misses.abs_diff(steady) < OBJECTS * ROUNDS / 100, "{misses} misses, expected about {steady}");
}
