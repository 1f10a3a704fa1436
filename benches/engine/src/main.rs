//! The in-memory store and the caches that others use, in the same loop with the same keys: one of them, filled, which then takes turns.
//!
//! Zipf-distributed reads of keys of 16 bytes, ten times as many as there is room for; a miss stores a value of 100 bytes
//! (look-aside). `scripts/bench-engine` starts one process for each cache, has them take turns, and makes tables of what they tell.

mod load;
mod memory;
mod subjects;

use std::io::BufRead as _;

use load::{Load, Mode, Outcome};
use memory::Walk;
use subjects::ENTRY_BYTES;

const USAGE: &str = "\
usage: bench-engine SUBJECT ENTRIES

Fills the subject with so many entries. Each line that it then reads is a mode; it reads keys in that way, and prints its
rate by the clock and per second of processor, and its hit ratio.

SUBJECT  quick_cache, \"quick_cache of Bytes\", moka, foyer, \"lru in a mutex\", \"bare table in a mutex\", or \"tiny-cache POLICY [OPTION=VALUE …]\";
         or memory, which takes any line, and prints the nanoseconds for a line of as much memory to which another led
MODE     1-thread, 1-thread-copied, 2-threads, 2-threads-copied, 8-threads, 2-threads-hot-key, batches.
         Copied: each value that is read is copied somewhere. Batches: of 100 keys. Hot key: half of all reads are of one key.";

const ONE_THREAD: Mode = Mode { threads: 1, hot: false, batch: 1, copied: false };
const MODES: [(&str, Mode); 7] = [
    ("1-thread", ONE_THREAD),
    ("1-thread-copied", Mode { copied: true, ..ONE_THREAD }),
    ("2-threads", Mode { threads: 2, ..ONE_THREAD }),
    ("2-threads-copied", Mode { threads: 2, copied: true, ..ONE_THREAD }),
    ("8-threads", Mode { threads: 8, ..ONE_THREAD }),
    ("2-threads-hot-key", Mode { threads: 2, hot: true, ..ONE_THREAD }),
    ("batches", Mode { batch: 100, ..ONE_THREAD }),
];

/// Takes a turn for each line; `None` where there is no such subject or mode.
#[expect(clippy::print_stdout, reason = "the rates are what this program is for")]
fn take_turns(name: &str, entries: u32) -> Option<()> {
    let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
    if name == "memory" {
        let mut walk = Walk::through(entries as usize * ENTRY_BYTES);
        lines.for_each(|_| println!("{}", walk.wait_nanos()));
        return Some(());
    }
    let subject = subjects::build(name, entries as usize)?;
    let mut load = Load::new(&*subject, entries);
    lines.try_for_each(|line| {
        let (_, mode) = MODES.into_iter().find(|(name, _)| *name == line)?;
        let Outcome { operations_per_second, operations_per_processor_second, hit_ratio } = load.turn(mode);
        println!("{operations_per_second} {operations_per_processor_second} {hit_ratio}");
        Some(())
    })
}

#[expect(clippy::print_stderr, reason = "how to use it")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = if let [subject, entries] = &arguments[..] {
        entries.parse().ok().and_then(|entries| take_turns(subject, entries))
    } else {
        None
    };
    if done.is_none() {
        eprintln!("{USAGE}");
        std::process::exit(2);
    }
}
