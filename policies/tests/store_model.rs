//! The memory store under random histories, beside a map: what a read returns is what was written last or, where room
//! may be needed, nothing; and the whole structure is checked after each step. Every policy, values in cells and outside,
//! deadlines on a clock that is moved by hand, limits that
//! change, one shard and several.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Clock, CompareAndSet, Entry, HashSeed, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions,
    SetIfAbsent, Store, StoreError, StoreFuture, WeighBy,
};
use policies::{PolicyEntry, REGISTRY};

/// Miri checks each step, which takes its time: it has fewer of them, and two policies.
const STEPS: u64 = if cfg!(miri) { 40 } else { 1500 };
const POLICIES: &[&str] = if cfg!(miri) { &["lru", "s3-fifo"] } else { &[] };

fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

fn store(entry: &PolicyEntry, limits: Limits, shards: usize, clock: &Arc<ManualClock>) -> MemoryStore {
    let factory = (entry.with_defaults)();
    let weigh_by = if limits.max_items.is_some() { WeighBy::Items } else { WeighBy::Bytes };
    let bytes = factory.bytes_per_entry(weigh_by);
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    MemoryStore::new(MemoryStoreOptions {
        shards: Some(shards),
        // Entries are given other slots from the first on that leaves.
        spare_slots: 0,
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

/// What is known of a key that was written.
struct Written {
    value: Vec<u8>,
    deadline: Option<Duration>,
}

/// A store and what must be in it. In a store with room for everything that is all there is to know; elsewhere entries
/// may have gone, but no other value may be in their place.
struct Checked {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    limits: Limits,
    /// Whether nothing is ever evicted.
    roomy: bool,
    model: HashMap<u64, Written>,
    name: &'static str,
}

impl Checked {
    /// Forgets what has reached its deadline.
    fn expire(&mut self) {
        let now = self.clock.now();
        self.model.retain(|_, written| written.deadline.is_none_or(|deadline| now < deadline));
    }

    fn write(&mut self, number: u64, entry: &Entry<'_>) {
        let deadline = entry.ttl.map(|ttl| self.clock.now() + ttl);
        self.model.insert(number, Written { value: entry.value.to_vec(), deadline });
    }

    fn saw(&mut self, number: u64, value: Option<&[u8]>) {
        let written = self.model.get(&number).map(|written| &*written.value);
        if self.roomy || value.is_some() {
            assert!(value == written, "{}: key {number} reads as it was written last", self.name);
        } else {
            self.model.remove(&number);
        }
    }

    fn check(&mut self, swept: bool) {
        self.store.check_invariants();
        let counters = ready(self.store.stats()).expect("stats").counters;
        assert!(counters.memory_bytes <= self.limits.max_memory_bytes, "{}: the limit holds", self.name);
        assert!(self.limits.max_items.is_none_or(|max| counters.entries <= max), "{}", self.name);
        if self.roomy && swept {
            let written = self.model.values().map(|written| written.value.len() as u64);
            assert_eq!(counters.entries, self.model.len() as u64, "{}: nothing else is there", self.name);
            assert_eq!(counters.value_bytes, written.sum::<u64>(), "{}", self.name);
            assert_eq!(counters.evictions + counters.rejected_admission, 0, "{}", self.name);
        }
    }
}

/// The names of keys: from a digit to more than 200 bytes, some in a namespace.
fn names() -> Vec<(&'static str, String)> {
    let name = |number: u64| number.to_string().repeat(1 + usize::try_from(number).expect("small") * 2);
    let namespace = |number: u64| if number.is_multiple_of(3) { "team" } else { "" };
    (0..60).map(|number| (namespace(number), name(number))).collect()
}

fn run(entry: &PolicyEntry, limits: Limits, shards: usize, roomy: bool, seed: u64) {
    let clock = Arc::new(ManualClock::default());
    let store = store(entry, limits, shards, &clock);
    let mut checked = Checked { store, clock, limits, roomy, model: HashMap::new(), name: entry.name };
    let mut random = fastrand::Rng::with_seed(seed);
    let names = names();
    let key = |number: u64| {
        let (namespace, name) = &names[usize::try_from(number).expect("small")];
        Key::new(namespace.as_bytes(), name.as_bytes()).expect("short")
    };
    for version in 0..STEPS {
        let draw = |random: &mut fastrand::Rng| random.u64(0..60).min(random.u64(0..60));
        let (number, other) = (draw(&mut random), draw(&mut random));
        let bytes = value(number, version, &mut random);
        let ttl = (random.u8(0..4) == 0).then(|| Duration::from_secs(random.u64(1..30)));
        let new = Entry { key: key(number), value: &bytes, ttl };
        let mut swept = false;
        match random.u8(0..25) {
            0..=7 => {
                let value = ready(checked.store.get(new.key)).expect("get");
                checked.saw(number, value.as_deref());
            }
            8..=13 => {
                ready(checked.store.set(new)).expect("set");
                checked.write(number, &new);
            }
            14 => match ready(checked.store.set_if_absent(new)).expect("add") {
                SetIfAbsent::Stored => {
                    checked.saw(number, None);
                    checked.write(number, &new);
                }
                SetIfAbsent::Exists => assert!(checked.model.contains_key(&number), "{}", entry.name),
            },
            15 => {
                let expected = checked.model.get(&number).map(|written| written.value.clone());
                match ready(checked.store.compare_and_set(&expected.unwrap_or_default(), new)).expect("cas") {
                    CompareAndSet::Stored => {
                        assert!(checked.model.contains_key(&number), "{}: nothing was there", entry.name);
                        checked.write(number, &new);
                    }
                    CompareAndSet::NotFound => checked.saw(number, None),
                    CompareAndSet::Mismatch => panic!("the live value is the one written last"),
                }
            }
            16..=17 => {
                let existed = ready(checked.store.delete(new.key)).expect("delete");
                assert!(checked.model.remove(&number).is_some() == existed || !roomy && !existed);
            }
            18 => {
                checked.clock.advance(Duration::from_secs(random.u64(0..5)));
                checked.expire();
            }
            19 => {
                ready(checked.store.sweep()).expect("sweep");
                swept = true;
            }
            20 => {
                let keys = [key(number), key(other), key(number)];
                let values = ready(checked.store.get_many(&keys, random.usize(0..200))).expect("a batch");
                for (number, value) in [number, other, number].into_iter().zip(values) {
                    checked.saw(number, value.expect("get").as_deref());
                }
            }
            21 => {
                let second = value(other, version, &mut random);
                let entries = [new, Entry { key: key(other), value: &second, ttl: None }];
                for result in ready(checked.store.set_many(&entries)).expect("a batch") {
                    result.expect("set");
                }
                checked.write(number, &entries[0]);
                checked.write(other, &entries[1]);
            }
            22 => {
                ready(checked.store.delete_many(&[key(number), key(other)])).expect("a batch");
                checked.model.remove(&number);
                checked.model.remove(&other);
            }
            23 => {
                // Between the limits and half of them, where nothing has to be kept.
                let half = !roomy && random.bool();
                let part = |limit: u64| if half { limit / 2 } else { limit };
                checked.limits = Limits {
                    max_items: limits.max_items.map(part),
                    max_memory_bytes: part(limits.max_memory_bytes),
                    ..limits
                };
                ready(checked.store.set_limits(checked.limits)).expect("they can be changed");
            }
            _ if version % 400 > 380 => {
                ready(checked.store.clear()).expect("clear");
                checked.model.clear();
            }
            _ => {
                let too_large = vec![0; usize::try_from(limits.max_value_bytes + 1).expect("small")];
                ready(checked.store.set(Entry { value: &too_large, ..new })).expect_err("over the limit");
            }
        }
        checked.check(swept);
    }
}

#[test]
fn reads_return_what_was_written_last_and_the_structure_stays_sound() {
    let seed: u64 = std::env::var("STORE_TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0_u8), |seed| seed.parse().expect("a number"));
    println!("STORE_TEST_SEED={seed}");
    let limits =
        |max_items, max_memory_bytes| Limits { max_items, max_memory_bytes, max_value_bytes: 20_000 };
    for entry in REGISTRY.iter().filter(|entry| POLICIES.is_empty() || POLICIES.contains(&entry.name)) {
        for (limits, shards, roomy) in [
            (limits(None, 100_000), 1, false),
            (limits(Some(25), 1 << 20), 1, false),
            (limits(None, 200_000), 4, false),
            (limits(Some(1000), 8 << 20), 1, true),
            (limits(None, 8 << 20), 4, true),
        ] {
            run(entry, limits, shards, roomy, seed);
        }
    }
}
