//! The memory store under schedules that shuttle chooses: every lock and every atomic is a place where another thread may
//! go first. Histories must be linearizable key by key, no two threads may wait for each other, and afterwards the whole
//! structure is sound, keeps its limits, and has counted where every stored value went.
//!
//! A failure prints its seed; `SCHEDULES_SEED=<seed>` repeats it, schedules included. `SCHEDULES=<number>` tries so many
//! schedules of each program instead of a few. Shuttle lets a thread see every write that came before, so it finds what is
//! wrong with the order of steps, not what a weaker memory order would allow.

#[path = "../support/linearizability.rs"]
mod linearizability;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
// Not shuttle's: the moments are to be noted without being places to switch at.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::{
    Clock, CompareAndSet, Entry, HashSeed, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions,
    SetIfAbsent, Store, StoreError, StoreFuture, Value, WeighBy,
};
use linearizability::{Event, Operation, is_linearizable};
use policies::{PolicyEntry, REGISTRY};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

/// What the threads of a program work on and do.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    limits: Limits,
    shards: usize,
    threads: u64,
    operations: usize,
    keys: u64,
    /// Whether entries may go by themselves: for room, by age, or with all others.
    vanish: bool,
    /// Other limits, between which and those above the store changes at times.
    less: Option<Limits>,
}

const ROOMY: Scenario = Scenario {
    limits: Limits { max_items: Some(1000), max_memory_bytes: 4 << 20, max_value_bytes: 1 << 20 },
    shards: 1,
    threads: 3,
    operations: 8,
    keys: 2,
    vanish: false,
    less: None,
};
const CROWDED: Scenario = Scenario {
    limits: Limits { max_items: Some(3), max_memory_bytes: 1 << 20, max_value_bytes: 1 << 20 },
    keys: 5,
    vanish: true,
    ..ROOMY
};
/// The largest values take more than a shard's share, so room is taken from other shards.
const NARROW: Scenario = Scenario {
    limits: Limits { max_items: None, max_memory_bytes: 56 << 10, max_value_bytes: 64 << 10 },
    shards: 4,
    keys: 8,
    ..CROWDED
};

fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

/// The bytes of a number, of a length that follows from it: in small cells and large ones, outside cells, and larger than
/// a share of a narrow store.
fn bytes_of(number: u64) -> Vec<u8> {
    let len = [8, 8, 100, 3000, 5000, 30_000][usize::try_from(number % 6).expect("small")];
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn number_of(value: &Value) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
    assert!(**value == *bytes_of(number), "a value is read as it was written");
    number
}

struct Subject {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    names: Vec<String>,
    now: AtomicU64,
}

impl Subject {
    fn new(scenario: &Scenario, policy: &PolicyEntry) -> Self {
        let factory = (policy.with_defaults)();
        let counts_items = scenario.limits.max_items.is_some();
        let bytes = factory.bytes_per_entry(if counts_items { WeighBy::Items } else { WeighBy::Bytes });
        let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
        let clock = Arc::new(ManualClock::default());
        let store = MemoryStore::new(MemoryStoreOptions {
            shards: Some(scenario.shards),
            hash_seed: HashSeed::fixed(7),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..MemoryStoreOptions::new(scenario.limits, policy.name, bytes, build)
        });
        let names = (0..scenario.keys).map(|key| format!("key-{key}")).collect();
        Self { store, clock, names, now: AtomicU64::new(0) }
    }

    fn key(&self, key: usize) -> Key<'_> {
        Key::shared(self.names[key].as_bytes()).expect("short")
    }

    fn moment(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }
}

/// What one thread did.
#[derive(Default)]
struct Done {
    history: Vec<(usize, Event)>,
    stored: u64,
}

impl Done {
    fn note(&mut self, key: usize, invoked: u64, responded: u64, operation: Operation) {
        self.history.push((key, Event { invoked, responded, operation }));
    }
}

fn work(subject: &Subject, scenario: &Scenario, seed: u64, thread: u64) -> Done {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(thread));
    let mut done = Done::default();
    let mut seen = HashMap::new();
    let mut reads = 0;
    for operation in 0..scenario.operations as u64 {
        let (key, other) = (random.usize(..subject.names.len()), random.usize(..subject.names.len()));
        // Six sizes, and no number twice.
        let unique = ((thread << 16 | operation) << 8 | 1) * 6 + random.u64(..6);
        let bytes = bytes_of(unique);
        let ttl = (scenario.vanish && random.bool()).then(|| Duration::from_secs(random.u64(1..4)));
        let entry = Entry { key: subject.key(key), value: &bytes, ttl };
        let store = &subject.store;
        let invoked = subject.moment();
        match random.u8(..if scenario.less.is_some() {
            23
        } else if scenario.vanish {
            20
        } else {
            16
        }) {
            0..4 => {
                let saw = ready(store.get(entry.key)).expect("get").as_ref().map(number_of);
                done.note(key, invoked, subject.moment(), Operation::Get { saw });
                seen.insert(key, saw.unwrap_or_default());
            }
            4..8 => {
                ready(store.set(entry)).expect("room is made");
                done.note(key, invoked, subject.moment(), Operation::Set { value: unique });
                done.stored += 1;
            }
            8 => {
                let stored = ready(store.set_if_absent(entry)).expect("add") == SetIfAbsent::Stored;
                done.note(key, invoked, subject.moment(), Operation::SetIfAbsent { value: unique, stored });
                done.stored += u64::from(stored);
            }
            9..11 => {
                let expected = seen.get(&key).copied().unwrap_or_default();
                let outcome = match ready(store.compare_and_set(&bytes_of(expected), entry)).expect("cas") {
                    CompareAndSet::Stored => Some(true),
                    CompareAndSet::Mismatch => Some(false),
                    CompareAndSet::NotFound => None,
                };
                let swap = Operation::CompareAndSet { expected, value: unique, outcome };
                done.note(key, invoked, subject.moment(), swap);
                done.stored += u64::from(outcome == Some(true));
            }
            11..13 => {
                let existed = ready(store.delete(entry.key)).expect("delete");
                done.note(key, invoked, subject.moment(), Operation::Delete { existed });
            }
            13 if key != other => {
                let keys = [entry.key, subject.key(other)];
                let values = ready(store.get_many(&keys, usize::MAX)).expect("a batch");
                let responded = subject.moment();
                for (key, value) in [key, other].into_iter().zip(values) {
                    let saw = value.expect("get").as_ref().map(number_of);
                    done.note(key, invoked, responded, Operation::Get { saw });
                }
            }
            14 if key != other => {
                let deleted = ready(store.delete_many(&[entry.key, subject.key(other)])).expect("a batch");
                let responded = subject.moment();
                for (key, existed) in [key, other].into_iter().zip(deleted) {
                    done.note(
                        key,
                        invoked,
                        responded,
                        Operation::Delete { existed: existed.expect("delete") },
                    );
                }
            }
            13..16 => {
                let counters = ready(store.stats()).expect("stats").counters;
                let before = std::mem::replace(&mut reads, counters.hits + counters.misses);
                assert!(before <= reads, "counters never fall: {counters:?}");
                drop(store.insight());
                drop(store.take_evictions());
            }
            16 => drop(ready(store.clear()).expect("clear")),
            17 => drop(ready(store.sweep()).expect("sweep")),
            18..20 => subject.clock.advance(Duration::from_secs(1)),
            _ => {
                let less = scenario.less.filter(|_| random.bool());
                ready(store.set_limits(less.unwrap_or(scenario.limits))).expect("they can be changed");
            }
        }
    }
    done
}

fn run(scenario: &Scenario, policy: &PolicyEntry, seed: u64) {
    let subject = Subject::new(scenario, policy);
    let done: Vec<Done> = shuttle::thread::scope(|scope| {
        let subject = &subject;
        let workers: Vec<_> = (0..scenario.threads)
            .map(|thread| scope.spawn(move || work(subject, scenario, seed, thread)))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    subject.store.check_invariants();
    let counters = ready(subject.store.stats()).expect("stats").counters;
    let removals = counters.evictions
        + counters.expired
        + counters.replaced
        + counters.deleted
        + counters.cleared
        + counters.rejected_admission;
    let stored: u64 = done.iter().map(|done| done.stored).sum();
    assert_eq!(removals + counters.entries, stored, "where stored values went: {counters:?}");
    let limits = subject.store.limits();
    assert!(counters.memory_bytes <= limits.max_memory_bytes, "{counters:?}");
    assert!(limits.max_items.is_none_or(|max| counters.entries <= max), "{counters:?}");
    for key in 0..subject.names.len() {
        let of_key = |done: &&(usize, Event)| done.0 == key;
        let history: Vec<Event> = done
            .iter()
            .flat_map(|done| done.history.iter().filter(of_key))
            .map(|&(_, event)| event)
            .collect();
        assert!(is_linearizable(&history, scenario.vanish), "key {key}: {history:#?}");
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Tries a scenario with every policy, each with a program of its own.
fn check(scenario: Scenario) {
    let first = setting("SCHEDULES_SEED").unwrap_or_else(|| RandomState::new().hash_one(0_u8));
    println!("SCHEDULES_SEED={first} {scenario:?}");
    let schedules =
        setting("SCHEDULES").map_or(16, |number| usize::try_from(number).expect("a small number"));
    for (number, policy) in (0..).zip(REGISTRY) {
        let seed = first.wrapping_add(1000 * number);
        println!("{}", policy.name);
        let schedulers: [Box<dyn Scheduler + Send>; 2] = [
            Box::new(RandomScheduler::new_from_seed(seed, schedules)),
            // Few switches, where they hurt.
            Box::new(PctScheduler::new_from_seed(seed, 3, schedules)),
        ];
        for scheduler in schedulers {
            let mut config = shuttle::Config::new();
            config.stack_size = 256 << 10;
            // It warns of what the head of this file tells of memory orders.
            config.silence_warnings = true;
            config.failure_persistence = shuttle::FailurePersistence::None;
            shuttle::Runner::new(scheduler, config).run(move || run(&scenario, policy, seed));
        }
    }
}

#[test]
fn operations_on_one_shard_are_linearizable() {
    check(ROOMY);
}

#[test]
fn operations_on_several_shards_are_linearizable() {
    check(Scenario { shards: 4, keys: 4, ..ROOMY });
}

#[test]
fn evictions_expiry_and_clear_on_one_shard_lose_count_of_nothing() {
    check(CROWDED);
}

#[test]
fn a_few_items_are_shared_out_among_more_shards() {
    check(Scenario { shards: 4, ..CROWDED });
}

#[test]
fn room_is_taken_from_other_shards_and_the_limit_holds() {
    check(NARROW);
}

#[test]
fn limits_change_while_the_store_is_in_use() {
    check(Scenario { less: Some(Limits { max_items: Some(1), ..CROWDED.limits }), ..CROWDED });
    check(Scenario { less: Some(Limits { max_memory_bytes: 40 << 10, ..NARROW.limits }), ..NARROW });
}
