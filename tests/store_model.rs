//! The memory store under random histories, beside a map: what a read returns is what was written
//! last or nothing, and the whole structure is checked after each step.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Clock, CompareAndSet, Entry, HashSeed, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions,
    SetIfAbsent, Store, StoreError, StoreFuture,
};
use policies::{PolicyEntry, REGISTRY};

fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

fn store(entry: &PolicyEntry, limits: Limits, shards: usize, clock: &Arc<ManualClock>) -> MemoryStore {
    let factory = (entry.with_defaults)();
    let bytes = factory.bytes_per_entry();
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    MemoryStore::new(MemoryStoreOptions {
        shards: Some(shards),
        hash_seed: HashSeed::fixed(7),
        clock,
        ..MemoryStoreOptions::new(limits, entry.name, bytes, build)
    })
}

/// A value that says whose it is, of a length in every class of cells and beyond.
fn value(key: u64, version: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    let len = match random.u8(0..10) {
        0..=3 => random.usize(0..64),
        4..=7 => random.usize(64..1500),
        8 => random.usize(1500..4200),
        _ => random.usize(4200..20_000),
    };
    let seal = key.wrapping_mul(0x9E37_79B9).wrapping_add(version).to_le_bytes();
    seal.into_iter().cycle().take(len).collect()
}

fn run(entry: &PolicyEntry, limits: Limits, shards: usize, seed: u64) {
    let clock = Arc::new(ManualClock::default());
    let store = store(entry, limits, shards, &clock);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model: HashMap<u64, Vec<u8>> = HashMap::new();
    for version in 0..1500 {
        let number = random.u64(0..60).min(random.u64(0..60));
        // From a digit to more than 200 bytes.
        let name = number.to_string().repeat(1 + usize::try_from(number).expect("small") * 2);
        let namespace = if number.is_multiple_of(3) { "team" } else { "" };
        let key = Key::new(namespace.as_bytes(), name.as_bytes()).expect("short");
        let bytes = value(number, version, &mut random);
        let ttl = (random.u8(0..4) == 0).then(|| Duration::from_secs(random.u64(1..30)));
        let new = Entry { key, value: &bytes, ttl };
        match random.u8(0..20) {
            0..=7 => match ready(store.get(key)).expect("get") {
                Some(value) => assert_eq!(Some(&*value), model.get(&number).map(Vec::as_slice)),
                None => drop(model.remove(&number)),
            },
            8..=13 => {
                ready(store.set(new)).expect("set");
                model.insert(number, bytes);
            }
            14 => match ready(store.set_if_absent(new)).expect("add") {
                SetIfAbsent::Stored => drop(model.insert(number, bytes)),
                SetIfAbsent::Exists => {}
            },
            15 => {
                let expected = model.get(&number).cloned().unwrap_or_default();
                match ready(store.compare_and_set(&expected, new)).expect("cas") {
                    CompareAndSet::Stored => drop(model.insert(number, bytes)),
                    CompareAndSet::NotFound => drop(model.remove(&number)),
                    CompareAndSet::Mismatch => panic!("the live value is the one written last"),
                }
            }
            16..=17 => {
                ready(store.delete(key)).expect("delete");
                model.remove(&number);
            }
            18 => {
                clock.advance(Duration::from_secs(random.u64(0..5)));
                ready(store.sweep()).expect("sweep");
            }
            _ if version % 400 == 399 => {
                ready(store.clear()).expect("clear");
                model.clear();
            }
            _ => {}
        }
        store.check_invariants();
        let counters = ready(store.stats()).expect("stats").counters;
        assert!(counters.memory_bytes <= limits.max_memory_bytes, "{}: the limit holds", entry.name);
        assert!(limits.max_items.is_none_or(|max| counters.entries <= max), "{}", entry.name);
    }
}

#[test]
fn reads_return_what_was_written_last_and_the_structure_stays_sound() {
    let seed: u64 = std::env::var("STORE_TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0_u8), |seed| seed.parse().expect("a number"));
    println!("STORE_TEST_SEED={seed}");
    let limits =
        |max_items, max_memory_bytes| Limits { max_items, max_memory_bytes, max_value_bytes: 1 << 20 };
    for entry in REGISTRY {
        for (limits, shards) in
            [(limits(None, 100_000), 1), (limits(Some(25), 1 << 20), 1), (limits(None, 200_000), 4)]
        {
            run(entry, limits, shards, seed);
        }
    }
}
