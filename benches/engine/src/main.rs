//! The in-memory store beside the caches that others use: the same loop, the same keys, in turns in
//! one run.
//!
//! Zipf-distributed reads of keys of 16 bytes; a miss stores a value of 100 bytes (look-aside). Prints
//! operations per second, the ratio to `quick_cache` and the hit ratio, as a table in Markdown.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use bytes::Bytes;
use engine::{Entry, Key, Limits, MemoryStore, MemoryStoreOptions, Store, StoreFuture};

const VALUE: [u8; 100] = [7; 100];

/// A cache as the loop sees it: whether a read hit.
trait Subject: Send + Sync {
    fn get(&self, key: &[u8; 16]) -> bool;
    fn insert(&self, key: &[u8; 16]);
}

struct Ours(MemoryStore);

impl Subject for Ours {
    fn get(&self, key: &[u8; 16]) -> bool {
        let StoreFuture::Ready(Some(Ok(value))) = self.0.get(Key::shared(key).expect("short")) else {
            unreachable!("the memory store answers at once");
        };
        black_box(&value).is_some()
    }

    fn insert(&self, key: &[u8; 16]) {
        let entry = Entry { key: Key::shared(key).expect("short"), value: &VALUE, ttl: None };
        let StoreFuture::Ready(Some(Ok(()))) = self.0.set(entry) else {
            unreachable!("the memory store has room");
        };
    }
}

fn ours(policy: &str, capacity: u64) -> Box<dyn Subject> {
    let entry = policies::find(policy).expect("a policy");
    let factory = (entry.with_defaults)();
    let limits = Limits { max_items: Some(capacity), max_memory_bytes: 16 << 30, max_value_bytes: 1 << 20 };
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    Box::new(Ours(MemoryStore::new(MemoryStoreOptions::new(
        limits,
        entry.name,
        entry.bytes_per_entry,
        build,
    ))))
}

struct QuickCache(quick_cache::sync::Cache<[u8; 16], Bytes>);

impl Subject for QuickCache {
    fn get(&self, key: &[u8; 16]) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &[u8; 16]) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

struct Moka(moka::sync::Cache<[u8; 16], Bytes>);

impl Subject for Moka {
    fn get(&self, key: &[u8; 16]) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &[u8; 16]) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

struct Lru(Mutex<lru::LruCache<[u8; 16], Bytes>>);

impl Subject for Lru {
    fn get(&self, key: &[u8; 16]) -> bool {
        black_box(self.0.lock().expect("no panic").get(key).cloned()).is_some()
    }

    fn insert(&self, key: &[u8; 16]) {
        self.0.lock().expect("no panic").put(*key, Bytes::copy_from_slice(&VALUE));
    }
}

struct Foyer(foyer_memory::Cache<[u8; 16], Bytes>);

impl Subject for Foyer {
    fn get(&self, key: &[u8; 16]) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &[u8; 16]) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

fn build(name: &str, capacity: usize) -> Box<dyn Subject> {
    match name {
        "quick_cache" => Box::new(QuickCache(quick_cache::sync::Cache::new(capacity))),
        "moka" => Box::new(Moka(moka::sync::Cache::new(capacity as u64))),
        "lru" => {
            let capacity = NonZeroUsize::new(capacity).expect("not empty");
            Box::new(Lru(Mutex::new(lru::LruCache::new(capacity))))
        }
        "foyer" => Box::new(Foyer(foyer_memory::CacheBuilder::new(capacity).build())),
        _ => ours(name.strip_prefix("tiny-cache ").expect("a known name"), capacity as u64),
    }
}

/// Ranks with P(rank) proportional to 1 / rank^exponent, by a table of the distribution.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for value in &mut cumulative {
            *value /= sum;
        }
        Self { cumulative }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let draw = random.f64();
        self.cumulative.partition_point(|&below| below < draw)
    }
}

fn key(rank: usize) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    let mut rest = rank;
    for digit in key[4..].iter_mut().rev() {
        *digit = b"0123456789"[rest % 10];
        rest /= 10;
    }
    key
}

/// What a run is made of.
#[derive(Clone, Copy)]
struct Load {
    keys: usize,
    capacity: usize,
    threads: usize,
    operations: usize,
    /// Whether every other read is of one key.
    hot: bool,
}

fn sequences(load: Load) -> Vec<Vec<[u8; 16]>> {
    let zipf = Zipf::new(load.keys, 0.99);
    (0..load.threads)
        .map(|thread| {
            let mut random = fastrand::Rng::with_seed(42 + thread as u64);
            (0..load.operations / load.threads)
                .map(|turn| if load.hot && turn % 2 == 0 { key(0) } else { key(zipf.draw(&mut random)) })
                .collect()
        })
        .collect()
}

/// Operations per second and the hit ratio, after one pass that fills the cache.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn run(subject: &dyn Subject, sequences: &[Vec<[u8; 16]>]) -> (f64, f64) {
    let pass = || -> (f64, u64) {
        let barrier = Barrier::new(sequences.len() + 1);
        std::thread::scope(|scope| {
            let workers: Vec<_> = sequences
                .iter()
                .map(|keys| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        let mut hits = 0;
                        for key in keys {
                            if subject.get(key) {
                                hits += 1;
                            } else {
                                subject.insert(key);
                            }
                        }
                        hits
                    })
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            let hits = workers.into_iter().map(|worker| worker.join().expect("no panic")).sum::<u64>();
            (start.elapsed().as_secs_f64(), hits)
        })
    };
    pass();
    let (seconds, hits) = pass();
    let operations: usize = sequences.iter().map(Vec::len).sum();
    (operations as f64 / seconds, hits as f64 / operations as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only: Option<Vec<&str>> = arguments.iter().find_map(|argument| argument.strip_prefix("--only=")).map(|names| names.split(',').collect());
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { 5 };
    let names = ["quick_cache", "moka", "foyer", "lru", "tiny-cache lru", "tiny-cache sieve", "tiny-cache s3-fifo"];
    let million = Load { keys: 1_000_000, capacity: 100_000, threads: 1, operations: 4_000_000, hot: false };
    let loads = [
        ("1 thread", million),
        ("2 threads", Load { threads: 2, ..million }),
        ("8 threads", Load { threads: 8, ..million }),
        ("2 threads, a hot key", Load { threads: 2, hot: true, ..million }),
        ("1 thread, 10,000,000 entries", Load { keys: 100_000_000 / 2, capacity: 10_000_000, operations: 20_000_000, ..million }),
    ];
    let wanted = |text: &str| {
        let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        filters.is_empty() || filters.iter().any(|filter| text == filter.as_str())
    };
    for (title, load) in loads.into_iter().filter(|(title, _)| wanted(title)) {
        let sequences = sequences(load);
        println!("\n| {title} | million operations/s | of quick_cache | hit ratio |\n|---|---|---|---|");
        let mut rates = vec![vec![]; names.len()];
        let mut hits = vec![0.0; names.len()];
        for _ in 0..rounds {
            for (index, name) in names.iter().enumerate() {
                if only.as_ref().is_some_and(|only| !only.contains(name)) {
                    continue;
                }
                if name.strip_prefix("tiny-cache ").is_some_and(|policy| policies::find(policy).is_none()) {
                    continue;
                }
                let (rate, ratio) = run(&*build(name, load.capacity), &sequences);
                rates[index].push(rate);
                hits[index] = ratio;
            }
        }
        let peer = if rates[0].is_empty() { f64::NAN } else { median(&mut rates[0].clone()) };
        for (name, (rates, hits)) in names.iter().zip(rates.iter_mut().zip(hits)).filter(|(_, (rates, _))| !rates.is_empty()) {
            let rate = median(rates);
            println!("| {name} | {:.2} | {:.2} | {hits:.4} |", rate / 1e6, rate / peer);
        }
    }
}
