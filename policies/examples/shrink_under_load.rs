//! How long reads take while a store shrinks from a million entries to ten thousand. See docs/benchmarks.md:
//!
//! ```sh
//! cargo run --release -p tiny-cache-policies --example shrink_under_load
//! ```
//!
//! Names of policies as arguments choose some of them. One thread reads at a fixed pace and times each read from when it was due, so that a stall shows in every read that it
//! delays; first while nothing else happens, then while another thread shrinks the store.

#![expect(clippy::print_stdout, reason = "it reports")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use engine::{
    Entry, EvictionPolicy, Item, Key, Limits, MemoryStore, MemoryStoreOptions, Slot, Store, StoreFuture,
    Verdict,
};
use policies::REGISTRY;

const ENTRIES: u64 = 1_000_000;
const LEFT: u64 = 10_000;
const BETWEEN_READS: Duration = Duration::from_micros(20);

fn store(
    policy: &str,
    shards: Option<usize>,
    wrap: impl Fn(Box<dyn EvictionPolicy>) -> Box<dyn EvictionPolicy> + Send + Sync + 'static,
) -> MemoryStore {
    let entry = policies::find(policy).expect("a policy of the registry");
    let factory = (entry.with_defaults)();
    let limits = Limits { max_items: Some(ENTRIES), max_memory_bytes: 1 << 30, max_value_bytes: 1 << 20 };
    let build = Arc::new(move |capacity, seed| wrap(factory.build(capacity, seed)));
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

/// A policy that notes how long it works under each hold of the lock: its evictions and the new capacity after them.
struct Timed {
    policy: Box<dyn EvictionPolicy>,
    working: Duration,
    holds: Arc<Mutex<Vec<Duration>>>,
}

impl EvictionPolicy for Timed {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.policy.admit(incoming)
    }
    fn relocate(&mut self, from: Slot, to: Slot) {
        let began = Instant::now();
        self.policy.relocate(from, to);
        self.working += began.elapsed();
    }
    fn trim(&mut self, slots: usize) {
        self.policy.trim(slots);
    }
    fn insert(&mut self, slot: Slot, item: &Item) {
        self.working = Duration::ZERO;
        self.policy.insert(slot, item);
    }
    fn hit(&mut self, slot: Slot) {
        self.policy.hit(slot);
    }
    fn update(&mut self, slot: Slot, item: &Item) {
        self.policy.update(slot, item);
    }
    fn remove(&mut self, slot: Slot) {
        self.policy.remove(slot);
    }
    fn evict(&mut self, incoming: &Item) -> Verdict {
        let began = Instant::now();
        let verdict = self.policy.evict(incoming);
        self.working += began.elapsed();
        verdict
    }
    fn resize(&mut self, capacity: u64) {
        let began = Instant::now();
        self.policy.resize(capacity);
        let hold = std::mem::take(&mut self.working) + began.elapsed();
        self.holds.lock().expect("nobody panics").push(hold);
    }
    fn len(&self) -> usize {
        self.policy.len()
    }
    fn footprint_bytes(&self) -> usize {
        self.policy.footprint_bytes()
    }
    fn sheds_on_hit(&self) -> bool {
        self.policy.sheds_on_hit()
    }
    fn shed(&mut self) -> Option<Slot> {
        self.policy.shed()
    }
    fn check_invariants(&self) {
        self.policy.check_invariants();
    }
}

/// The longest that a policy works under one hold of the lock of a single shard. The same work is done several times
/// over, and the fastest time of each hold counts: so other processes, which only ever make it slower, play no role.
fn longest_hold(policy: &'static str) -> Duration {
    let mut fastest: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let holds = Arc::<Mutex<Vec<Duration>>>::default();
        let timed = Arc::clone(&holds);
        let wrap = move |policy| -> Box<dyn EvictionPolicy> {
            Box::new(Timed { policy, working: Duration::ZERO, holds: Arc::clone(&timed) })
        };
        let store = store(policy, Some(1), wrap);
        fill(&store);
        now(store.set_limits(Limits { max_items: Some(LEFT), ..store.limits() }));
        let holds = std::mem::take(&mut *holds.lock().expect("nobody panics"));
        if fastest.is_empty() {
            fastest = holds;
        } else {
            assert_eq!(fastest.len(), holds.len(), "{policy} does the same again");
            fastest.iter_mut().zip(holds).for_each(|(fastest, hold)| *fastest = hold.min(*fastest));
        }
    }
    fastest.into_iter().max().expect("there was something to evict")
}

/// More keys than fit, each read once, so that every policy has entries in all its segments, and ghosts.
fn fill(store: &MemoryStore) {
    for key in 0..ENTRIES + ENTRIES / 2 {
        let name = key.to_be_bytes();
        let key = Key::shared(&name).expect("short");
        now(store.set(Entry { key, value: &[7; 100], ttl: None }));
        now(store.get(key));
    }
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    println!(
        "| policy | longest hold ms | quiet p50 ms | p99.9 | worst | shrinking p50 ms | p99.9 | worst | took ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for policy in REGISTRY.iter().map(|entry| entry.name).filter(|name| chosen(name)) {
        print!("| {policy} | {:.3} ", longest_hold(policy).as_secs_f64() * 1e3);
        let store = store(policy, None, |policy| policy);
        fill(&store);
        let (quiet, ()) = during(&store, || thread::sleep(Duration::from_secs(1)));
        let (shrinking, took) = during(&store, || {
            let began = Instant::now();
            now(store.set_limits(Limits { max_items: Some(LEFT), ..store.limits() }));
            began.elapsed()
        });
        assert!(now(store.stats()).counters.entries <= LEFT, "it has shrunk");
        for latencies in [&quiet, &shrinking] {
            let worst = quantile(latencies, 1000);
            print!("| {:.4} | {:.3} | {worst:.3} ", quantile(latencies, 500), quantile(latencies, 999));
        }
        println!("| {} |", took.as_millis());
    }
}
