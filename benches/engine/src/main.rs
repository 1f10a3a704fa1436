//! The in-memory store beside the caches that others use: the same loop, the same keys, in turns in
//! one run.
//!
//! Zipf-distributed reads of keys of 16 bytes; a miss stores a value of 100 bytes (look-aside). Each subject is run once a
//! round, and its best round counts: whatever else the machine does can only make a round slower. Prints tables in Markdown.

mod load;
mod memory;
mod subjects;

use load::{Keys, Load, Outcome};
use subjects::{ENTRY_BYTES, OURS, Subject};

const USAGE: &str = "\
usage: bench-engine [--rounds=3] [--only=SUBJECT,…] [ROW …]
       bench-engine --turns=SUBJECT ROW    one turn for each line that is read; its rate by the clock and of the processor

SUBJECT  quick_cache, \"quick_cache of Bytes\", moka, foyer, \"lru in a mutex\", \"bare table in a mutex\", or \"tiny-cache POLICY [OPTION=VALUE …]\"
ROW      1-thread, 1-thread-copied, 2-threads, 2-threads-copied, 8-threads, 2-threads-hot-key, batches, 10M-entries,
         10M-entries-2-threads, 10M-entries-batches; default: all. Copied: each value that is read is copied somewhere. Batches: of 100 keys.
         Those of 10M entries take a third of the rounds.";

const PEER: &str = "quick_cache";
const SUBJECTS: &str = "quick_cache,quick_cache of Bytes,moka,foyer,lru in a mutex,bare table in a mutex,tiny-cache lru,tiny-cache sieve,\
    tiny-cache s3-fifo,tiny-cache s3-fifo small_ratio=0.002 ghost_ratio=0.5 promotion_hits=1";

const ONE_THREAD: Load = Load {
    keys: 1_000_000,
    capacity: 100_000,
    threads: 1,
    operations: 4_000_000,
    hot: false,
    batch: 1,
    copied: false,
};
const TEN_MILLIONS: Load =
    Load { keys: 100_000_000, capacity: 10_000_000, operations: 10_000_000, ..ONE_THREAD };
const ROWS: [(&str, Load); 10] = [
    ("1-thread", ONE_THREAD),
    ("1-thread-copied", Load { copied: true, ..ONE_THREAD }),
    ("2-threads", Load { threads: 2, ..ONE_THREAD }),
    ("2-threads-copied", Load { threads: 2, copied: true, ..ONE_THREAD }),
    ("8-threads", Load { threads: 8, ..ONE_THREAD }),
    ("2-threads-hot-key", Load { threads: 2, hot: true, ..ONE_THREAD }),
    ("batches", Load { batch: 100, ..ONE_THREAD }),
    ("10M-entries", TEN_MILLIONS),
    ("10M-entries-2-threads", Load { threads: 2, ..TEN_MILLIONS }),
    ("10M-entries-batches", Load { batch: 100, ..TEN_MILLIONS }),
];
/// Rows of which the first is to be compared with the second.
const AGAINST: [(&str, &str); 6] = [
    ("8-threads", "2-threads"),
    ("2-threads-hot-key", "2-threads"),
    ("batches", "1-thread"),
    ("10M-entries", "1-thread"),
    ("10M-entries-2-threads", "2-threads"),
    ("10M-entries-batches", "batches"),
];

/// Reads in short turns, so that several programs can take them: what `scripts/bench-revisions` starts.
#[expect(clippy::print_stdout, reason = "the rates are what is asked for")]
fn take_turns(subject: &str, row: &str) -> Option<()> {
    let (_, load) = ROWS.into_iter().find(|(name, _)| *name == row)?;
    let subject = subjects::build(subject, load.capacity as usize)?;
    let mut lines = std::io::stdin().lines();
    load::run_in_turns(
        &*subject,
        &Keys::of(load),
        || lines.next().is_some_and(|line| line.is_ok()),
        |Outcome { operations_per_second, operations_per_processor_second, .. }| {
            println!("{operations_per_second} {operations_per_processor_second}");
        },
    );
    Some(())
}

struct Arguments {
    rounds: usize,
    subjects: Vec<String>,
    rows: Vec<String>,
}

fn arguments(arguments: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut read = Arguments { rounds: 3, subjects: Vec::new(), rows: Vec::new() };
    let mut subjects = SUBJECTS.to_owned();
    for argument in arguments {
        if let Some(rounds) = argument.strip_prefix("--rounds=") {
            read.rounds = rounds.parse().ok().filter(|&rounds| rounds > 0)?;
        } else if let Some(only) = argument.strip_prefix("--only=") {
            only.clone_into(&mut subjects);
        } else if ROWS.iter().any(|(row, _)| *row == argument) {
            read.rows.push(argument);
        } else {
            return None;
        }
    }
    read.subjects = subjects.split(',').map(str::to_owned).collect();
    read.subjects.iter().all(|name| subjects::build(name, 1).is_some()).then_some(read)
}

/// The best round of each subject.
fn measure(load: Load, subjects: &[String], rounds: usize) -> Vec<Outcome> {
    let keys = Keys::of(load);
    let mut best: Vec<Outcome> = Vec::new();
    for _ in 0..rounds {
        for (number, name) in subjects.iter().enumerate() {
            let subject: Box<dyn Subject> =
                subjects::build(name, load.capacity as usize).expect("checked with the arguments");
            let outcome = load::run(&*subject, &keys);
            match best.get_mut(number) {
                None => best.push(outcome),
                Some(best) => {
                    best.operations_per_second =
                        best.operations_per_second.max(outcome.operations_per_second);
                    best.operations_per_processor_second =
                        best.operations_per_processor_second.max(outcome.operations_per_processor_second);
                }
            }
        }
    }
    best
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what this program is for")]
fn main() {
    let first = std::env::args().nth(1);
    if let Some(subject) = first.as_deref().and_then(|first| first.strip_prefix("--turns="))
        && std::env::args().nth(2).is_some_and(|row| take_turns(subject, &row).is_some())
    {
        return;
    }
    let Some(Arguments { rounds, subjects, rows }) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let mut outcomes: Vec<(&str, Vec<Outcome>)> = Vec::new();
    // By the number of entries, each in the minutes in which these are measured.
    let mut waits: Vec<(u32, f64)> = Vec::new();
    for (row, load) in
        ROWS.into_iter().filter(|(row, _)| rows.is_empty() || rows.iter().any(|name| name == row))
    {
        if waits.iter().all(|&(entries, _)| entries != load.capacity) {
            waits.push((load.capacity, memory::wait_nanos(load.capacity as usize * ENTRY_BYTES)));
        }
        let best = measure(
            load,
            &subjects,
            if load.capacity > ONE_THREAD.capacity { rounds.div_ceil(3) } else { rounds },
        );
        let rate_of = |name: &str| {
            let number = subjects.iter().position(|subject| subject == name);
            number.map_or(f64::NAN, |number| best[number].operations_per_second)
        };
        let peer = subjects.iter().position(|subject| subject == PEER);
        let peer_of_processor = peer.map_or(f64::NAN, |peer| best[peer].operations_per_processor_second);
        println!("\n| {row} | M/s | of {PEER} | of moka | M/s of processor | of {PEER} | hit ratio |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for (name, outcome) in subjects.iter().zip(&best) {
            let (rate, of_processor) =
                (outcome.operations_per_second, outcome.operations_per_processor_second);
            println!(
                "| {name} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} | {:.4} |",
                rate / 1e6,
                rate / rate_of(PEER),
                rate / rate_of("moka"),
                of_processor / 1e6,
                of_processor / peer_of_processor,
                outcome.hit_ratio
            );
        }
        outcomes.push((row, best));
    }
    let outcomes_of = |row| outcomes.iter().find(|(name, _)| *name == row).map(|(_, outcomes)| outcomes);
    for (row, other) in AGAINST {
        let Some((these, those)) = outcomes_of(row).zip(outcomes_of(other)) else { continue };
        println!("\n| {row} | of its own {other} |\n|---|---:|");
        for ((name, this), that) in subjects.iter().zip(these).zip(those) {
            if name.starts_with(OURS) || name == PEER {
                println!("| {name} | {:.2} |", this.operations_per_second / that.operations_per_second);
            }
        }
    }
    println!("\n| memory as large as so many entries | ns for a line to which another led |\n|---:|---:|");
    for (entries, nanos) in waits {
        println!("| {entries} | {nanos:.0} |");
    }
}
