//! Other limits while the store is in use, with every policy: what is resident fits the new limits once they are in
//! force, whatever else goes on meanwhile, and no structure is the worse for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use engine::{Entry, Key, Limits, MemoryStore, MemoryStoreOptions, Store, StoreError, StoreFuture, WeighBy};
use policies::{PolicyEntry, REGISTRY};

const HOUR: Duration = Duration::from_secs(3_600);

fn now<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

const fn limits(max_items: Option<u64>, max_memory_bytes: u64) -> Limits {
    Limits { max_items, max_memory_bytes, max_value_bytes: max_memory_bytes }
}

fn store(entry: &PolicyEntry, limits: Limits, weigh_by: WeighBy, shards: usize) -> MemoryStore {
    let factory = (entry.with_defaults)();
    let bytes_per_entry = factory.bytes_per_entry(weigh_by);
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    MemoryStore::new(MemoryStoreOptions {
        weigh_by,
        shards: Some(shards),
        // So that a few thousand entries are enough to have some of them moved.
        spare_slots: 64,
        ..MemoryStoreOptions::new(limits, entry.name, bytes_per_entry, build)
    })
}

fn set(store: &MemoryStore, number: u64, value: &[u8]) -> Result<(), StoreError> {
    let name = number.to_be_bytes();
    now(store.set(Entry { key: Key::shared(&name).expect("short"), value, ttl: None }))
}

fn get(store: &MemoryStore, number: u64) -> bool {
    let name = number.to_be_bytes();
    now(store.get(Key::shared(&name).expect("short"))).expect("a get succeeds").is_some()
}

fn delete(store: &MemoryStore, number: u64) {
    let name = number.to_be_bytes();
    now(store.delete(Key::shared(&name).expect("short"))).expect("a delete succeeds");
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[track_caller]
fn assert_within(store: &MemoryStore, limits: &Limits, told: &str) {
    store.check_invariants();
    let counters = now(store.stats()).expect("stats succeed").counters;
    assert!(counters.entries <= limits.max_items.unwrap_or(u64::MAX), "{told}: {counters:?}");
    assert!(counters.memory_bytes <= limits.max_memory_bytes, "{told}: {counters:?}");
}

#[test]
fn limits_change_under_load_with_every_policy() {
    const THREADS: u64 = 3;
    const KEYS: u64 = 12_000;
    const KIB: u64 = 1 << 10;
    let seed = RandomState::new().hash_one("resize") | 1;
    let changes = [
        limits(Some(5_000), 4096 * KIB),
        limits(Some(100), 4096 * KIB),
        limits(Some(8_000), 4096 * KIB),
        limits(Some(8_000), 64 * KIB),
        limits(Some(3_000), 512 * KIB),
        limits(Some(1), 32 * KIB),
        limits(Some(5_000), 4096 * KIB),
    ];
    for entry in REGISTRY {
        for (shards, weigh_by) in
            [(1, WeighBy::Items), (4, WeighBy::Items), (4, WeighBy::Bytes), (1, WeighBy::Bytes)]
        {
            let told = format!("{} by {weigh_by:?} in {shards} shards, seed {seed}", entry.name);
            let store = store(entry, changes[0], weigh_by, shards);
            let (is_over, gate) = (AtomicBool::new(false), RwLock::new(()));
            thread::scope(|scope| {
                for worker in 0..THREADS {
                    let (store, is_over, gate) = (&store, &is_over, &gate);
                    scope.spawn(move || {
                        let mut random = Random(seed ^ (worker << 32));
                        let value = [7; 12_000];
                        while !is_over.load(Ordering::Relaxed) {
                            // Nobody is within an operation while the account is checked.
                            let _open = gate.read().expect("nobody panics");
                            for _ in 0..32 {
                                let key = random.below(KEYS).min(random.below(KEYS));
                                let size = if random.below(500) == 0 { 12_000 } else { random.below(200) };
                                let size = usize::try_from(size).expect("small");
                                match random.below(10) {
                                    0 => delete(store, key),
                                    1..=3 => {
                                        drop(set(store, key, &value[..size]));
                                    }
                                    _ if get(store, key) => {}
                                    _ => {
                                        drop(set(store, key, &value[..size]));
                                    }
                                }
                            }
                        }
                    });
                }
                for change in &changes {
                    now(store.set_limits(*change)).expect("limits can be changed");
                    let _closed = gate.write().expect("nobody panics");
                    assert_eq!(store.limits(), *change, "{told}");
                    assert_within(&store, change, &told);
                }
                is_over.store(true, Ordering::Relaxed);
            });
            assert_within(&store, &changes[changes.len() - 1], &told);
            // The room that came back can be used, all of it.
            for key in 0..8 * KEYS {
                set(&store, KEYS + key, b"value").expect("stored or turned away");
            }
            let counters = now(store.stats()).expect("stats succeed").counters;
            assert!(counters.entries > 4_900, "{told}: {counters:?}");
            store.check_invariants();
        }
    }
}

#[test]
fn a_tenth_of_the_memory_keeps_a_tenth_of_the_entries_with_every_policy() {
    const FULL: u64 = 10_000;
    let mut wrong = Vec::new();
    for entry in REGISTRY {
        for (shards, ttl) in [(1, None), (4, None), (1, Some(HOUR)), (4, Some(HOUR))] {
            let told = format!("{} in {shards} shards, ttl {ttl:?}", entry.name);
            let write = |store: &MemoryStore, number: u64| {
                let (name, value) = (number.to_be_bytes(), [7; 100]);
                let entry = Entry { key: Key::shared(&name).expect("short"), value: &value, ttl };
                now(store.set(entry)).expect("stored or turned away");
            };
            let counters = |store: &MemoryStore| now(store.stats()).expect("stats succeed").counters;
            let roomy = store(entry, limits(None, 1 << 20), WeighBy::Bytes, 1);
            write(&roomy, 0);
            let charge = counters(&roomy).memory_bytes;
            let store = store(entry, limits(None, FULL * charge), WeighBy::Bytes, shards);
            (0..FULL + FULL / 4).for_each(|number| write(&store, number));
            assert!(counters(&store).entries > FULL * 9 / 10, "{told}: {:?}", counters(&store));

            let tenth = limits(None, FULL * charge / 10);
            now(store.set_limits(tenth)).expect("limits can be changed");
            assert_within(&store, &tenth, &told);
            let stayed = counters(&store).entries;
            if stayed * charge < tenth.max_memory_bytes * 8 / 10 {
                wrong.push(format!("{told}: {stayed} entries of {charge} bytes stayed"));
            }
            // Whoever comes next takes the place of one, and not of many.
            (2 * FULL..2 * FULL + 100).for_each(|number| write(&store, number));
            assert_within(&store, &tenth, &told);
            let left = counters(&store).entries;
            if left + 10 < stayed {
                wrong.push(format!("{told}: {left} of {stayed} entries are left"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_large_value_takes_its_room_from_small_ones_and_not_more() {
    const SMALL: u64 = 5_000;
    for entry in REGISTRY {
        for shards in [1, 4] {
            let told = format!("{} in {shards} shards", entry.name);
            let store = store(entry, limits(None, 1 << 20), WeighBy::Bytes, shards);
            (0..2 * SMALL).for_each(|number| set(&store, number, b"value").expect("stored or turned away"));
            let before = now(store.stats()).expect("stats succeed").counters;
            let large = vec![1; 200_000];
            set(&store, 2 * SMALL, &large).expect("stored or turned away");
            assert_within(&store, &limits(None, 1 << 20), &told);
            let after = now(store.stats()).expect("stats succeed").counters;
            assert!(after.entries * 100 >= before.entries * 70, "{told}: of {before:?} stayed {after:?}");
        }
    }
}

#[test]
fn a_shrunk_lru_keeps_what_was_used_last_and_a_grown_one_keeps_all() {
    let lru = policies::find("lru").expect("there is one");
    let store = store(lru, limits(Some(5_000), 1 << 30), WeighBy::Items, 1);
    for key in 0..5_000 {
        set(&store, key, b"value").expect("set");
    }
    for key in (0..5_000).step_by(5) {
        assert!(get(&store, key));
    }
    assert_eq!(now(store.set_limits(limits(Some(1_000), 1 << 30))).expect("shrinks"), 4_000);
    assert_eq!(now(store.set_limits(limits(Some(2_000), 1 << 30))).expect("grows"), 0);
    for key in 0..5_000 {
        assert_eq!(get(&store, key), key % 5 == 0, "{key}");
    }
    let counters = now(store.stats()).expect("stats succeed").counters;
    assert_eq!((counters.entries, counters.evictions), (1_000, 4_000));
}

#[test]
fn a_write_finds_the_new_limits_before_anything_was_evicted() {
    let lru = policies::find("lru").expect("there is one");
    for shards in [1, 8] {
        let store = store(lru, limits(Some(400_000), 1 << 30), WeighBy::Items, shards);
        for key in 0..300_000 {
            set(&store, key, b"value").expect("set");
        }
        let small = Limits { max_items: Some(1_000), max_memory_bytes: 1 << 20, max_value_bytes: 1_000 };
        let entries = || now(store.stats()).expect("stats succeed").counters.entries;
        thread::scope(|scope| {
            let shrinking = scope.spawn(|| now(store.set_limits(small)).expect("shrinks"));
            while store.limits() != small {
                thread::yield_now();
            }
            assert!(entries() > 100_000, "there is something left to be evicted");
            let refused = set(&store, 1, &[0; 1_001]).expect_err("over the new limit");
            assert!(matches!(refused, StoreError::ValueTooLarge { limit: 1_000, .. }), "{refused}");
            // Once shards have been asked for what they were lent and do not use, one that has not had its turn lets one go for
            // each that comes.
            while entries() >= 300_000 {
                thread::yield_now();
            }
            let mut most = entries();
            for key in 0..2_000 {
                set(&store, 1_000_000 + key, b"value").expect("set");
                let now = entries();
                assert!(now <= most, "{now} entries after {most} with {shards} shards");
                most = now;
            }
            assert!(!shrinking.is_finished(), "all this was during the shrink");
            assert!(shrinking.join().expect("no panic") >= 290_000);
        });
        assert_within(&store, &small, "a small one");
    }
}

#[test]
fn a_policy_that_counts_entries_needs_their_number_limited() {
    let lru = policies::find("lru").expect("there is one");
    let by_items = store(lru, limits(Some(10), 1 << 20), WeighBy::Items, 1);
    let refused = now(by_items.set_limits(limits(None, 1 << 20))).expect_err("refused");
    assert!(matches!(refused, StoreError::Unsupported(_)), "{refused}");
    assert_eq!(by_items.limits(), limits(Some(10), 1 << 20), "nothing has changed");
    for shards in [1, 4] {
        let by_bytes = store(lru, limits(None, 1 << 20), WeighBy::Bytes, shards);
        for (first, max_items, expected) in [(0, None, 2_000), (2_000, Some(10), 10), (4_000, None, 2_010)] {
            now(by_bytes.set_limits(limits(max_items, 1 << 20))).expect("changes");
            for key in first..first + 2_000 {
                set(&by_bytes, key, b"value").expect("set");
            }
            by_bytes.check_invariants();
            assert_eq!(now(by_bytes.stats()).expect("stats succeed").counters.entries, expected);
        }
    }
}

#[test]
fn a_policy_hears_of_its_new_capacity() {
    let slru = policies::find("slru").expect("there is one");
    for shards in [1, 4] {
        let store = store(slru, limits(Some(400), 1 << 30), WeighBy::Items, shards);
        for (max_items, least, most) in [(400, 250.0, 300.0), (4_000, 2_500.0, 3_000.0), (400, 250.0, 300.0)]
        {
            now(store.set_limits(limits(Some(max_items), 1 << 30))).expect("changes");
            for _ in 0..6 {
                for key in 0..max_items {
                    if !get(&store, key) {
                        set(&store, key, b"value").expect("set");
                    }
                }
            }
            let gauges = store.insight().policy;
            let of_protected = gauges.iter().filter(|gauge| {
                gauge.name.starts_with("segment_")
                    && gauge.name.ends_with("_weight")
                    && gauge.name != "segment_0_weight"
            });
            let protected: f64 = of_protected.map(|gauge| gauge.value).sum();
            assert!(
                (least..=most).contains(&protected),
                "{protected} of {max_items} protected in {shards} shards"
            );
        }
    }
}
