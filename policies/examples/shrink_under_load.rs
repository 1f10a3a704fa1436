//! How long reads take while a store shrinks from a million entries to ten thousand. See docs/benchmarks.md:
//!
//! ```sh
//! cargo run --release -p tiny-cache-policies --example shrink_under_load
//! ```
//!
//! One thread reads at a fixed pace and times each read from when it was due, so that a stall shows in every read that it
//! delays; first while nothing else happens, then while another thread shrinks the store.

#![expect(clippy::print_stdout, reason = "it reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Entry, Key, Limits, MemoryStore, MemoryStoreOptions, Store, StoreFuture};
use policies::REGISTRY;

const ENTRIES: u64 = 1_000_000;
const LEFT: u64 = 10_000;
const BETWEEN_READS: Duration = Duration::from_micros(20);

fn store(policy: &str, shards: Option<usize>) -> MemoryStore {
    let entry = policies::find(policy).expect("a policy of the registry");
    let factory = (entry.with_defaults)();
    let limits = Limits { max_items: Some(ENTRIES), max_memory_bytes: 1 << 30, max_value_bytes: 1 << 20 };
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let options = MemoryStoreOptions::new(limits, entry.name, entry.bytes_per_entry, build);
    MemoryStore::new(MemoryStoreOptions { shards, ..options })
}

fn now<T>(future: StoreFuture<'_, T>) -> T {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet").expect("it succeeds"),
        StoreFuture::Pending(_) => unreachable!("the memory store answers at once"),
    }
}

/// Reads until told to stop; how long each read took from when it was due.
fn read(store: &MemoryStore, is_over: &AtomicBool) -> Vec<Duration> {
    let (mut due, mut latencies, mut key) = (Instant::now(), Vec::new(), 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        key = (key + 7919) % ENTRIES;
        now(store.get(Key::shared(&key.to_be_bytes()).expect("short")));
        latencies.push(due.elapsed());
        due += BETWEEN_READS;
    }
    latencies.sort_unstable();
    latencies
}

fn quantile(sorted: &[Duration], per_mille: usize) -> f64 {
    let at = (sorted.len() * per_mille / 1000).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1e3
}

/// What is read while `work` runs.
fn during<T>(store: &MemoryStore, work: impl FnOnce() -> T) -> (Vec<Duration>, T) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(store, &is_over));
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        (reader.join().expect("the reader does not panic"), result)
    })
}

fn main() {
    println!(
        "| policy | shards | quiet p50 ms | p99.9 | worst | shrinking p50 ms | p99.9 | worst | took ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (policy, shards) in
        REGISTRY.iter().map(|entry| (entry.name, None)).chain([("lru", Some(1)), ("s3-fifo", Some(1))])
    {
        let store = store(policy, shards);
        for key in 0..ENTRIES + ENTRIES / 10 {
            let name = key.to_be_bytes();
            let entry = Entry { key: Key::shared(&name).expect("short"), value: &[7; 100], ttl: None };
            now(store.set(entry));
        }
        let (quiet, ()) = during(&store, || thread::sleep(Duration::from_secs(1)));
        let (shrinking, took) = during(&store, || {
            let began = Instant::now();
            now(store.set_limits(Limits { max_items: Some(LEFT), ..store.limits() }));
            began.elapsed()
        });
        let stats = now(store.stats());
        assert!(stats.counters.entries <= LEFT, "it has shrunk");
        print!("| {policy} | {} ", stats.shards);
        for latencies in [&quiet, &shrinking] {
            let worst = quantile(latencies, 1000);
            print!("| {:.4} | {:.3} | {worst:.3} ", quantile(latencies, 500), quantile(latencies, 999));
        }
        println!("| {} |", took.as_millis());
    }
}
