//! The loop: reads of Zipf-distributed keys, and a write after each that missed.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::subjects::{KeyBytes, Subject, VALUE};

/// What a run is made of.
#[derive(Clone, Copy)]
pub struct Load {
    pub keys: u32,
    pub capacity: u32,
    pub threads: usize,
    /// Of all threads together.
    pub operations: usize,
    /// Whether half of all reads are of one key.
    pub hot: bool,
    /// Keys that are read with one call.
    pub batch: usize,
    /// Whether the bytes of each value are wanted, which whoever serves it copies somewhere, and not only a handle on them.
    pub copied: bool,
}

const SKEW: f64 = 0.99;

/// What a run came to.
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

/// The same keys for every subject: those that fill it, and those that each thread reads, first to get
/// the subject into its stride and then with the clock running.
pub struct Keys {
    load: Load,
    fill: Vec<u32>,
    reads: [Vec<Vec<KeyBytes>>; 2],
}

impl Keys {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are whole numbers in u32"
    )]
    pub fn of(load: Load) -> Self {
        // As many as fit, all different since the step is prime, and whoever they are.
        let rank = |number: u32| u64::from(number) * 1_000_003 % u64::from(load.keys);
        let fill = (0..load.capacity).map(|number| rank(number) as u32).collect();
        let zipf = Zipf::new(f64::from(load.keys), SKEW).expect("a distribution");
        let reads = |pass: u64, thread: usize| -> Vec<KeyBytes> {
            let mut random = SmallRng::seed_from_u64(pass << 32 | thread as u64);
            let draw = || {
                let rank = zipf.sample(&mut random) as u32 - 1;
                key(if load.hot && random.random() { 0 } else { rank })
            };
            std::iter::repeat_with(draw).take(load.operations / load.threads).collect()
        };
        let reads = [0, 1].map(|pass| (0..load.threads).map(|thread| reads(pass, thread)).collect());
        Self { load, fill, reads }
    }
}

/// Fills the subject and reads from it, twice; the second time counts.
pub fn run(subject: &dyn Subject, keys: &Keys) -> Outcome {
    settle(subject, keys);
    read_all(subject, keys.load, &keys.reads[1].iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Fills the subject and reads from it until it is in its stride.
fn settle(subject: &dyn Subject, keys: &Keys) {
    for &rank in &keys.fill {
        subject.insert(&key(rank));
    }
    subject.tidy();
    read_all(subject, keys.load, &keys.reads[0].iter().map(Vec::as_slice).collect::<Vec<_>>());
}

/// Turns that the reads are divided into. Of each, the first third does not count: others have had the processor's caches meanwhile.
const TURNS: usize = 20;

/// Reads from the subject in short turns, each when `next` says so, and has `tell` tell what it came to.
pub fn run_in_turns(
    subject: &dyn Subject,
    keys: &Keys,
    mut next: impl FnMut() -> bool,
    mut tell: impl FnMut(Outcome),
) {
    settle(subject, keys);
    for part in (0..TURNS).cycle() {
        if !next() {
            return;
        }
        let part_of = |reads: &Vec<KeyBytes>| {
            let len = reads.len() / TURNS;
            part * len..(part + 1) * len
        };
        let turns: Vec<&[KeyBytes]> = keys.reads[1].iter().map(|reads| &reads[part_of(reads)]).collect();
        let (before, timed): (Vec<_>, Vec<_>) =
            turns.iter().map(|turn| turn.split_at(turn.len() / 3)).unzip();
        read_all(subject, keys.load, &before);
        tell(read_all(subject, keys.load, &timed));
    }
}

/// What this thread has had of a processor; not a number where the system does not tell.
fn processor_seconds() -> f64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = status.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.map_or(f64::NAN, |nanos| nanos / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn read_all(subject: &dyn Subject, load: Load, reads: &[&[KeyBytes]]) -> Outcome {
    let barrier = Barrier::new(reads.len() + 1);
    let work = |keys: &[KeyBytes]| {
        barrier.wait();
        let before = processor_seconds();
        let mut hits = 0;
        if load.batch > 1 {
            let mut missed = Vec::with_capacity(load.batch);
            for keys in keys.chunks(load.batch) {
                subject.get_many(keys, &mut missed);
                hits += (keys.len() - missed.len()) as u64;
                subject.insert_many(&missed);
                missed.clear();
            }
        } else if load.copied {
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
        (processor_seconds() - before, hits)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = reads.iter().map(|keys| scope.spawn(move || work(keys))).collect();
        barrier.wait();
        let start = Instant::now();
        let done: Vec<(f64, u64)> =
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        let seconds = start.elapsed().as_secs_f64();
        let processor_seconds: f64 = done.iter().map(|(seconds, _)| seconds).sum();
        let operations = reads.iter().map(|reads| reads.len()).sum::<usize>() as f64;
        Outcome {
            operations_per_second: operations / seconds,
            operations_per_processor_second: operations / processor_seconds,
            hit_ratio: done.iter().map(|(_, hits)| hits).sum::<u64>() as f64 / operations,
        }
    })
}
