//! The loop: reads of Zipf-distributed keys, and a write after each that missed.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::subjects::{KeyBytes, Subject, VALUE};

/// How keys are read.
#[derive(Clone, Copy)]
pub struct Mode {
    pub threads: usize,
    /// Whether half of all reads are of one key.
    pub hot: bool,
    /// Keys that are read with one call.
    pub batch: usize,
    /// Whether the bytes of each value are wanted, which whoever serves it copies somewhere, and not only a handle on them.
    pub copied: bool,
}

const SKEW: f64 = 0.99;
const KEYS_PER_ENTRY: u32 = 10;
/// Reads before the first turn for each entry that there is room for. A cache is full after about four, and beyond twenty the hit ratio of the best grows
/// by 0.02 and less.
const SETTLING_READS_PER_ENTRY: u32 = 20;
/// Reads of a turn, of all threads together, long enough that eight threads on two cores are interrupted often.
const READS: usize = 1_200_000;

/// What a turn came to.
#[derive(Clone, Copy)]
pub struct Outcome {
    pub operations_per_second: f64,
    /// Per second that a thread had a processor: what a machine that is busy with other things tells best.
    pub operations_per_processor_second: f64,
    pub hit_ratio: f64,
}

/// The key of a rank. Every sixteen bytes differ, as names of one service do.
fn key(rank: u32) -> KeyBytes {
    let mut key = *b"key-000000000000";
    let mut rest = rank;
    for digit in key[4..].iter_mut().rev() {
        *digit = b"0123456789"[rest as usize % 10];
        rest /= 10;
    }
    key
}

/// A subject that reads and writes the same keys as every other one that takes the same turns.
pub struct Load<'s> {
    subject: &'s dyn Subject,
    ranks: Zipf<f64>,
    random: SmallRng,
}

impl<'s> Load<'s> {
    /// Reads from an empty subject that has room for so many entries until it is in its stride: as often for each entry whatever their number, so that
    /// large caches are in the state that small ones are in. What comes in is what has been read, as wherever a cache is started.
    pub fn new(subject: &'s dyn Subject, entries: u32) -> Self {
        let ranks = Zipf::new(f64::from(entries * KEYS_PER_ENTRY), SKEW).expect("a distribution");
        let mut load = Self { subject, ranks, random: SmallRng::seed_from_u64(1) };
        for _ in 0..SETTLING_READS_PER_ENTRY {
            for _ in 0..entries {
                let key = load.draw(false);
                if !subject.get(&key) {
                    subject.insert(&key);
                }
            }
            subject.tidy();
        }
        load
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are whole numbers in u32"
    )]
    fn draw(&mut self, hot: bool) -> KeyBytes {
        let rank = self.ranks.sample(&mut self.random) as u32 - 1;
        key(if hot && self.random.random() { 0 } else { rank })
    }

    /// Reads keys that are drawn before. The first third does not count: others have had the processor's caches meanwhile.
    pub fn turn(&mut self, mode: Mode) -> Outcome {
        let keys: Vec<KeyBytes> = (0..READS).map(|_| self.draw(mode.hot)).collect();
        let (before, timed) = keys.split_at(READS / 3);
        read_all(self.subject, mode, before);
        read_all(self.subject, mode, timed)
    }
}

/// What this thread has had of a processor; not a number where the system does not tell.
fn processor_seconds() -> f64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = status.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.map_or(f64::NAN, |nanos| nanos / 1e9)
}

/// How many of the keys were there.
fn read(subject: &dyn Subject, mode: Mode, keys: &[KeyBytes]) -> usize {
    let mut hits = 0;
    if mode.batch > 1 {
        let mut missed = Vec::with_capacity(mode.batch);
        for keys in keys.chunks(mode.batch) {
            subject.get_many(keys, &mut missed);
            hits += keys.len() - missed.len();
            subject.insert_many(&missed);
            missed.clear();
        }
    } else if mode.copied {
        let mut value = [0; VALUE.len()];
        for key in keys {
            if subject.copy(key, &mut value) {
                hits += 1;
            } else {
                subject.insert(key);
            }
            black_box(&value);
        }
    } else {
        for key in keys {
            if subject.get(key) {
                hits += 1;
            } else {
                subject.insert(key);
            }
        }
    }
    hits
}

/// All keys, each by one of the threads.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn read_all(subject: &dyn Subject, mode: Mode, keys: &[KeyBytes]) -> Outcome {
    let barrier = Barrier::new(mode.threads + 1);
    let work = |keys: &[KeyBytes]| {
        barrier.wait();
        let before = processor_seconds();
        let hits = read(subject, mode, keys);
        (processor_seconds() - before, hits)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let shares = keys.chunks(keys.len().div_ceil(mode.threads));
        let workers: Vec<_> = shares.map(|keys| scope.spawn(move || work(keys))).collect();
        barrier.wait();
        let start = Instant::now();
        let done: Vec<(f64, usize)> =
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        let seconds = start.elapsed().as_secs_f64();
        let processor_seconds: f64 = done.iter().map(|(seconds, _)| seconds).sum();
        let operations = keys.len() as f64;
        Outcome {
            operations_per_second: operations / seconds,
            operations_per_processor_second: operations / processor_seconds,
            hit_ratio: done.iter().map(|(_, hits)| hits).sum::<usize>() as f64 / operations,
        }
    })
}
