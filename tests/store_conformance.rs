//! What every registered store must do, with every registered policy, in one shard and in several.
//!
//! A new store or policy needs no test of its own here: it is in the table, so it is in the suite.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::{
    Clock, CompareAndSet, Entry, Key, Limits, ManualClock, SetIfAbsent, Store, StoreError, StoreFuture,
    Value, WeighBy,
};
use support::linearizability::{Event, Operation, is_linearizable};
use support::one_by_one::OneByOne;
use tiny_cache::config::{EvictionConfig, StoreConfig};
use tiny_cache::registry::Registry;

const MIB: u64 = 1 << 20;

/// A store under test, with its clock and its story for failure messages.
struct Subject {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    name: String,
}

fn wait<T: Unpin>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    match future {
        // What is ready needs no runtime.
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        pending @ StoreFuture::Pending(_) => runtime.block_on(pending),
    }
}

impl Subject {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        wait(self.store.get(shared(key))).expect("a get succeeds").map(|value: Value| value.to_vec())
    }

    fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), StoreError> {
        wait(self.store.set(Entry { key: shared(key), value, ttl }))
    }

    fn counters(&self) -> engine::Counters {
        wait(self.store.stats()).expect("stats succeed").counters
    }
}

fn shared(name: &str) -> Key<'_> {
    Key::shared(name.as_bytes()).expect("a short name")
}

/// Every store with every policy and several numbers of shards.
fn each(max_items: Option<u64>, max_memory: u64, max_value: u64, test: impl Fn(&Subject)) {
    let registry = Registry::default();
    for entry in &registry.stores {
        for policy in &registry.policies {
            for shards in [1, 4] {
                let clock = Arc::new(ManualClock::default());
                let store = StoreConfig {
                    kind: entry.name.to_owned(),
                    max_items,
                    max_memory_bytes: max_memory,
                    max_value_bytes: max_value,
                    sweep_interval: Duration::from_secs(10),
                    shards: Some(shards),
                };
                let eviction = EvictionConfig {
                    policy: policy.name.to_owned(),
                    weigh_by: if max_items.is_some() { WeighBy::Items } else { WeighBy::Bytes },
                    seed: 1,
                    factory: (policy.with_defaults)().into(),
                };
                let clock_too: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
                let name = format!("{} with {} in {shards} shards", entry.name, policy.name);
                let store = (entry.build)(&store, &eviction, policy, clock_too);
                test(&Subject { store, clock, name });
            }
        }
    }
}

fn each_roomy(test: impl Fn(&Subject)) {
    each(Some(10_000), 64 * MIB, MIB, test);
}

#[test]
fn every_operation_answers_with_every_status() {
    each_roomy(|subject| {
        let Subject { store, .. } = subject;
        let entry = |value| Entry { key: shared("k"), value, ttl: None };
        assert_eq!(subject.get("k"), None);
        assert!(!wait(store.delete(shared("k"))).expect("delete"));
        assert_eq!(wait(store.compare_and_set(b"", entry(b"1"))).expect("cas"), CompareAndSet::NotFound);
        assert_eq!(wait(store.set_if_absent(entry(b"1"))).expect("add"), SetIfAbsent::Stored);
        assert_eq!(wait(store.set_if_absent(entry(b"2"))).expect("add"), SetIfAbsent::Exists);
        assert_eq!(subject.get("k").as_deref(), Some(&b"1"[..]));
        assert_eq!(wait(store.compare_and_set(b"2", entry(b"3"))).expect("cas"), CompareAndSet::Mismatch);
        assert_eq!(wait(store.compare_and_set(b"1", entry(b"3"))).expect("cas"), CompareAndSet::Stored);
        assert_eq!(subject.get("k").as_deref(), Some(&b"3"[..]));
        subject.set("k", b"", None).expect("an empty value is a value");
        assert_eq!(subject.get("k").as_deref(), Some(&b""[..]));
        assert!(wait(store.delete(shared("k"))).expect("delete"));
        assert_eq!(subject.get("k"), None);

        let counters = subject.counters();
        assert_eq!((counters.hits, counters.misses), (3, 2), "{}", subject.name);
        assert_eq!((counters.entries, counters.memory_bytes), (0, 0), "{}", subject.name);
    });
}

#[test]
fn each_read_is_counted_at_once() {
    each_roomy(|subject| {
        subject.set("a", b"value", None).expect("room");
        for reads in 1..=100 {
            assert!(subject.get("a").is_some());
            assert!(subject.get("b").is_none());
            let counters = subject.counters();
            assert_eq!((counters.hits, counters.misses), (reads, reads), "{}", subject.name);
        }
    });
}

#[test]
fn an_entry_expires_exactly_when_its_age_reaches_its_ttl() {
    let second = Duration::from_secs(1);
    let nanosecond = Duration::from_nanos(1);
    let longest = Duration::from_secs(i32::MAX.unsigned_abs().into());
    for ttl in [second, Duration::from_secs(3600), longest] {
        each_roomy(|subject| {
            // Not a round number, so that nothing is right by chance.
            subject.clock.advance(Duration::from_nanos(123_456_789));
            subject.set("k", b"v", Some(ttl)).expect("set");
            subject.clock.advance(ttl.checked_sub(nanosecond).unwrap());
            assert_eq!(wait(subject.store.sweep()).expect("sweep"), 0, "{}", subject.name);
            assert!(subject.get("k").is_some(), "{} is live to the last nanosecond", subject.name);
            subject.clock.advance(nanosecond);
            assert_eq!(subject.get("k"), None, "{}", subject.name);
            let counters = subject.counters();
            assert_eq!((counters.expired, counters.evictions, counters.entries), (1, 0, 0));
        });
    }
}

#[test]
fn a_sweep_removes_what_has_expired_and_nothing_else() {
    each_roomy(|subject| {
        for index in 0..1000_u64 {
            let ttl = (index % 10 != 0).then(|| Duration::from_secs(index % 10));
            subject.set(&format!("k{index}"), b"v", ttl).expect("set");
        }
        for second in 1..10 {
            subject.clock.advance(Duration::from_secs(1));
            assert_eq!(wait(subject.store.sweep()).expect("sweep"), 100, "{} at {second} s", subject.name);
        }
        subject.clock.advance(Duration::from_secs(1_000_000));
        assert_eq!(wait(subject.store.sweep()).expect("sweep"), 0);
        let counters = subject.counters();
        assert_eq!((counters.entries, counters.expired), (100, 900));
    });
}

#[test]
fn a_write_replaces_the_ttl_and_an_expired_entry_counts_as_missing() {
    each_roomy(|subject| {
        let Subject { store, clock, .. } = subject;
        let second = Some(Duration::from_secs(1));
        let entry = |value, ttl| Entry { key: shared("k"), value, ttl };
        subject.set("k", b"1", second).expect("set");
        subject.set("k", b"2", None).expect("set");
        clock.advance(Duration::from_secs(10));
        assert_eq!(subject.get("k").as_deref(), Some(&b"2"[..]), "the ttl went with the old value");
        let replaced = wait(store.compare_and_set(b"2", entry(b"3", second))).expect("cas");
        assert_eq!(replaced, CompareAndSet::Stored);
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            wait(store.compare_and_set(b"3", entry(b"4", None))).expect("cas"),
            CompareAndSet::NotFound
        );
        subject.set("k", b"5", second).expect("set");
        clock.advance(Duration::from_secs(1));
        assert_eq!(wait(store.set_if_absent(entry(b"6", second))).expect("add"), SetIfAbsent::Stored);
        clock.advance(Duration::from_secs(1));
        assert!(!wait(store.delete(shared("k"))).expect("delete"), "expired is not there");
    });
}

#[test]
fn an_update_in_a_full_cache_evicts_nothing_for_the_item_limit() {
    each(Some(100), 64 * MIB, MIB, |subject| {
        for index in 0..2000 {
            subject.set(&format!("k{index}"), b"v", None).expect("set");
        }
        let full = subject.counters();
        assert!(full.entries <= 100, "{}: {} entries", subject.name, full.entries);
        let survivors: Vec<String> =
            (0..2000).map(|index| format!("k{index}")).filter(|key| subject.get(key).is_some()).collect();
        for key in &survivors {
            subject.set(key, b"w", None).expect("set");
        }
        let after = subject.counters();
        assert_eq!((after.entries, after.evictions), (full.entries, full.evictions), "{}", subject.name);
        for key in &survivors {
            assert_eq!(subject.get(key).as_deref(), Some(&b"w"[..]), "{}", subject.name);
        }
    });
}

#[test]
fn the_item_limit_is_reached_and_never_exceeded() {
    each(Some(100), 64 * MIB, MIB, |subject| {
        for index in 0..1000 {
            subject.set(&format!("k{index}"), b"v", None).expect("set");
            assert!(subject.counters().entries <= 100, "{}", subject.name);
        }
        let counters = subject.counters();
        let stored = counters.entries + counters.evictions + counters.rejected_admission;
        assert_eq!(stored, 1000, "{}", subject.name);
        assert!(counters.entries >= 99, "{}: only {} entries", subject.name, counters.entries);
    });
}

#[test]
fn a_value_over_the_limit_is_refused_and_the_old_one_stays() {
    each(None, 4 * MIB, 1000, |subject| {
        subject.set("k", &[1; 1000], None).expect("exactly at the limit");
        let refused = subject.set("k", &[2; 1001], None).expect_err("over the limit");
        assert!(matches!(refused, StoreError::ValueTooLarge { size: 1001, limit: 1000 }), "{refused}");
        assert!(refused.to_string().contains("too large"), "{refused}");
        let cas = subject
            .store
            .compare_and_set(&[1; 1000], Entry { key: shared("k"), value: &[2; 1001], ttl: None });
        assert!(wait(cas).is_err());
        assert_eq!(subject.get("k").as_deref(), Some(&[1; 1000][..]), "{}", subject.name);
        assert_eq!(subject.counters().rejected_oversize, 2);
    });
}

#[test]
fn what_no_eviction_can_make_room_for_is_refused_and_the_old_value_stays() {
    each(None, MIB, MIB, |subject| {
        subject.set("k", b"old", None).expect("set");
        subject.set("other", b"bystander", None).expect("set");
        let whole = vec![0; usize::try_from(MIB).expect("fits")];
        let refused = subject.set("k", &whole, None).expect_err("the bookkeeping has no room");
        assert!(matches!(refused, StoreError::CapacityExhausted { .. }), "{refused}");
        assert!(refused.to_string().contains("capacity exhausted"), "{refused}");
        assert_eq!(subject.get("k").as_deref(), Some(&b"old"[..]), "{}", subject.name);
        assert!(subject.get("other").is_some(), "{}: nobody was evicted in vain", subject.name);
        assert_eq!(subject.counters().rejected_capacity, 1);
    });
}

#[test]
fn the_largest_value_fits_whatever_the_number_of_shards() {
    each(None, 4 * MIB, 4 * MIB, |subject| {
        for index in 0..5000 {
            subject.set(&format!("k{index}"), &[7; 700], None).expect("set");
            assert!(subject.counters().memory_bytes <= 4 * MIB, "{}", subject.name);
        }
        // Less what it costs beside its bytes: the record, and the rounding to whole pages.
        let huge = vec![9; usize::try_from(4 * MIB - 8192).expect("fits")];
        for key in ["a", "b", "c", "d"] {
            subject.set(key, &huge, None).expect("room is made");
            assert!(subject.counters().memory_bytes <= 4 * MIB, "{}", subject.name);
        }
        for index in 0..5000 {
            subject.set(&format!("k{index}"), &[7; 700], None).expect("set");
        }
        let counters = subject.counters();
        assert!(counters.memory_bytes <= 4 * MIB, "{}", subject.name);
        assert!(counters.memory_bytes > 3 * MIB, "{}: room is used again", subject.name);
    });
}

#[test]
fn growing_values_stay_within_the_memory_limit() {
    each(None, MIB, MIB, |subject| {
        for round in 1..200_usize {
            for index in 0..20 {
                subject.set(&format!("k{index}"), &vec![1; round * 500], None).expect("set");
                assert!(subject.counters().memory_bytes <= MIB, "{}", subject.name);
            }
        }
    });
}

#[test]
fn namespaces_are_apart_whatever_the_keys_contain() {
    each_roomy(|subject| {
        let keys = [("", "abc"), ("a", "bc"), ("ab", "c"), ("", "a:bc"), ("", "1:a:bc"), ("1", "a:bc")];
        let key = |(namespace, name): (&'static str, &'static str)| {
            Key::new(namespace.as_bytes(), name.as_bytes()).expect("short")
        };
        for (index, &pair) in keys.iter().enumerate() {
            let value = [u8::try_from(index).expect("few")];
            wait(subject.store.set(Entry { key: key(pair), value: &value, ttl: None })).expect("set");
        }
        for (index, &pair) in keys.iter().enumerate() {
            let value = wait(subject.store.get(key(pair))).expect("get").expect("there");
            assert_eq!(*value, [u8::try_from(index).expect("few")], "{}: {pair:?}", subject.name);
        }
        assert_eq!(subject.counters().entries, keys.len() as u64);
    });
}

#[test]
fn batches_answer_in_order_and_repeated_keys_in_sequence() {
    each_roomy(|subject| {
        let one_by_one: Arc<dyn Store> =
            Arc::new(OneByOne { store: Arc::clone(&subject.store), before_get: |_| (), tidy: || false });
        for store in [&subject.store, &one_by_one] {
            batches(subject, store);
        }
    });
}

fn batches(subject: &Subject, store: &Arc<dyn Store>) {
    let too_large = vec![0; usize::try_from(MIB + 1).expect("fits")];
    let entry = |key: &'static str, value| Entry { key: shared(key), value, ttl: None };
    let entries = [entry("a", b"1".as_slice()), entry("b", &too_large), entry("a", b"2"), entry("c", b"3")];
    let results = wait(store.set_many(&entries)).expect("a batch");
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true]);
    let keys = ["c", "a", "missing", "a", "b"].map(shared);
    let values: Vec<_> = wait(store.get_many(&keys, usize::MAX)).expect("a batch");
    let values: Vec<Option<Vec<u8>>> =
        values.into_iter().map(|value| value.expect("get").map(|value| value.to_vec())).collect();
    let expected = [Some(b"3".to_vec()), Some(b"2".to_vec()), None, Some(b"2".to_vec()), None];
    assert_eq!(values, expected, "{}", subject.name);
    for (max_bytes, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 5)] {
        let some = wait(store.get_many(&keys, max_bytes)).expect("a batch");
        let some = some.into_iter().map(|value| value.expect("get").map(|value| value.to_vec()));
        assert_eq!(some.collect::<Vec<_>>(), expected[..most], "{}: {max_bytes}", subject.name);
    }
    let deleted = wait(store.delete_many(&["a", "a", "x"].map(shared))).expect("a batch");
    let deleted: Vec<bool> = deleted.into_iter().map(|deleted| deleted.expect("delete")).collect();
    assert_eq!(deleted, [true, false, false]);
    assert!(wait(store.get_many(&[], usize::MAX)).expect("an empty batch").is_empty());
}

#[test]
fn clear_removes_everything_and_the_store_goes_on() {
    each(Some(500), 64 * MIB, MIB, |subject| {
        for round in 0..3 {
            for index in 0..300 {
                let ttl = (index % 2 == 0).then_some(Duration::from_secs(60));
                subject.set(&format!("k{index}"), b"v", ttl).expect("set");
            }
            let resident = subject.counters().entries;
            assert_eq!(
                wait(subject.store.clear()).expect("clear"),
                resident,
                "{} round {round}",
                subject.name
            );
            let counters = subject.counters();
            assert_eq!((counters.entries, counters.memory_bytes), (0, 0), "{}", subject.name);
            assert_eq!(subject.get("k1"), None);
        }
        subject.clock.advance(Duration::from_secs(3600));
        assert_eq!(wait(subject.store.sweep()).expect("sweep"), 0, "deadlines went with their entries");
    });
}

#[test]
fn every_value_stored_is_resident_or_was_removed_for_a_reason_that_counts() {
    let check = |subject: &Subject| {
        let seed = fastrand::u64(..);
        let name = format!("{}, seed {seed}", subject.name);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut stored, mut deleted, mut cleared, mut swept) = (0, 0, 0, 0);
        for step in 0..4000 {
            let key = format!("k{}", random.u32(..600));
            let value = vec![7; random.usize(..300)];
            let ttl = random.bool().then(|| Duration::from_millis(random.u64(1..2000)));
            let entry = Entry { key: shared(&key), value: &value, ttl };
            match random.u32(..100) {
                0..40 => stored += u64::from(wait(subject.store.set(entry)).is_ok()),
                40..50 => {
                    let added = wait(subject.store.set_if_absent(entry)).expect("add");
                    stored += u64::from(added == SetIfAbsent::Stored);
                }
                50..55 => {
                    let current = subject.get(&key).unwrap_or_default();
                    let swapped = wait(subject.store.compare_and_set(&current, entry)).expect("cas");
                    stored += u64::from(swapped == CompareAndSet::Stored);
                }
                55..65 => deleted += u64::from(wait(subject.store.delete(shared(&key))).expect("delete")),
                65..95 => drop(subject.get(&key)),
                _ => subject.clock.advance(Duration::from_millis(random.u64(..50))),
            }
            if step % 1000 == 999 {
                swept += wait(subject.store.sweep()).expect("sweep");
            }
            if step == 2500 {
                cleared += wait(subject.store.clear()).expect("clear");
            }
        }
        let counters = subject.counters();
        let removals = counters.evictions
            + counters.expired
            + counters.replaced
            + counters.deleted
            + counters.cleared
            + counters.rejected_admission;
        assert_eq!(removals + counters.entries, stored, "{name}: {counters:?}");
        let told = (counters.deleted, counters.cleared, counters.swept);
        assert_eq!(told, (deleted, cleared, swept), "{name}");
        assert!(counters.replaced > 0 && counters.swept < counters.expired, "{name}: {counters:?}");
        let payload = counters.key_bytes + counters.value_bytes;
        assert!(payload > 0 && payload < counters.memory_bytes, "{name}: {counters:?}");
        assert!(counters.largest_shard_bytes <= counters.memory_bytes, "{name}: {counters:?}");
    };
    each(Some(200), 64 * MIB, MIB, check);
    each(None, 32_768, 1024, check);
}

#[test]
fn resident_bytes_are_those_of_the_keys_and_of_the_values() {
    each_roomy(|subject| {
        let (small, large) = (vec![1; 10], vec![2; 10_000]);
        for (name, value) in [("a", &small), ("bb", &large), ("ccc", &small), ("ccc", &large)] {
            let key = Key::new(b"four", name.as_bytes()).expect("short");
            wait(subject.store.set(Entry { key, value, ttl: None })).expect("set");
        }
        let counters = subject.counters();
        assert_eq!((counters.key_bytes, counters.value_bytes), (3 * 4 + 6, 20_010), "{}", subject.name);
        wait(subject.store.delete(Key::new(b"four", b"bb").expect("short"))).expect("delete");
        let counters = subject.counters();
        assert_eq!((counters.key_bytes, counters.value_bytes), (2 * 4 + 4, 10_010), "{}", subject.name);
        assert!(counters.largest_shard_bytes > 10_010, "{}: {counters:?}", subject.name);
        wait(subject.store.clear()).expect("clear");
        let counters = subject.counters();
        let left = [counters.key_bytes, counters.value_bytes, counters.largest_shard_bytes];
        assert_eq!(left, [0; 3], "{}", subject.name);
    });
}

#[test]
fn the_backlog_is_what_a_sweep_would_remove_now() {
    each_roomy(|subject| {
        let backlog = || subject.store.insight().sweep_backlog;
        for index in 0..900_u64 {
            subject.set(&format!("k{index}"), b"v", Some(Duration::from_millis(1 + index))).expect("set");
        }
        for advanced in [0, 1, 499, 400] {
            let before = subject.counters().entries;
            subject.clock.advance(Duration::from_millis(advanced));
            assert_eq!(backlog(), advanced, "{}", subject.name);
            assert_eq!(subject.counters().entries, before, "{}: counting removes nothing", subject.name);
            assert_eq!(wait(subject.store.sweep()).expect("sweep"), advanced, "{}", subject.name);
            assert_eq!(backlog(), 0, "{}", subject.name);
        }
    });
}

#[test]
fn a_value_read_before_its_entry_went_stays_as_it_was() {
    each_roomy(|subject| {
        subject.set("k", b"first", None).expect("set");
        let held = wait(subject.store.get(shared("k"))).expect("get").expect("there");
        subject.set("k", b"second", None).expect("set");
        wait(subject.store.clear()).expect("clear");
        assert_eq!(&*held, b"first");
    });
}

#[test]
fn concurrent_operations_on_a_key_are_linearizable() {
    each_roomy(|subject| check_concurrent_histories(subject, false));
}

#[test]
fn concurrent_operations_are_linearizable_while_entries_are_evicted() {
    each(Some(8), 64 * MIB, MIB, |subject| check_concurrent_histories(subject, true));
}

fn check_concurrent_histories(subject: &Subject, may_vanish: bool) {
    const THREADS: u64 = 4;
    const KEYS: u64 = 24;
    const OPERATIONS_PER_KEY: u64 = 28;
    let time = AtomicU64::new(0);
    let histories: Vec<Vec<(u64, Event)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (time, subject) = (&time, &subject);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    let mut history = Vec::new();
                    for operation in 0..OPERATIONS_PER_KEY * KEYS {
                        // All threads work on the same few keys at the same time.
                        let key = operation / OPERATIONS_PER_KEY;
                        let invoked = time.fetch_add(1, Ordering::SeqCst);
                        let operation = random_operation(subject, key, thread << 32 | operation, &mut random);
                        let responded = time.fetch_add(1, Ordering::SeqCst);
                        history.push((key, Event { invoked, responded, operation }));
                    }
                    history
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    for key in 0..KEYS {
        let history: Vec<Event> =
            histories.iter().flatten().filter(|(of, _)| *of == key).map(|(_, event)| *event).collect();
        assert!(is_linearizable(&history, may_vanish), "{}: key {key}: {history:#?}", subject.name);
    }
}

fn random_operation(subject: &Subject, key: u64, unique: u64, random: &mut fastrand::Rng) -> Operation {
    let store = &subject.store;
    let name = format!("key-{key}");
    let key = shared(&name);
    let bytes = unique.to_be_bytes();
    let entry = Entry { key, value: &bytes, ttl: None };
    let number = |value: &Value| u64::from_be_bytes((**value).try_into().expect("eight bytes"));
    match random.u8(0..10) {
        0..=3 => {
            let value = wait(store.get(key)).expect("get");
            Operation::Get { saw: value.as_ref().map(number) }
        }
        4..=5 => {
            wait(store.set(entry)).expect("set");
            Operation::Set { value: unique }
        }
        6 => {
            let stored = wait(store.set_if_absent(entry)).expect("add") == SetIfAbsent::Stored;
            Operation::SetIfAbsent { value: unique, stored }
        }
        7..=8 => {
            let expected = wait(store.get(key)).expect("get").as_ref().map_or(0, number);
            let outcome = match wait(store.compare_and_set(&expected.to_be_bytes(), entry)).expect("cas") {
                CompareAndSet::Stored => Some(true),
                CompareAndSet::Mismatch => Some(false),
                CompareAndSet::NotFound => None,
            };
            Operation::CompareAndSet { expected, value: unique, outcome }
        }
        _ => Operation::Delete { existed: wait(store.delete(key)).expect("delete") },
    }
}

#[test]
fn limits_change_while_the_store_is_in_use() {
    each(Some(1000), 64 * MIB, MIB, |subject| {
        let Subject { store, name, .. } = subject;
        let before = store.limits();
        let small = Limits { max_items: Some(100), max_memory_bytes: 32 * MIB, max_value_bytes: 10 };
        for index in 0..1000 {
            subject.set(&format!("k{index}"), b"v", None).expect("set");
        }
        let resident = subject.counters();
        let evicted = match wait(store.set_limits(small)) {
            Err(StoreError::Unsupported(_)) => return assert_eq!(store.limits(), before, "{name}"),
            changed => changed.expect("changed or unsupported"),
        };
        assert_eq!((store.limits(), wait(store.stats()).expect("stats").limits), (small, small), "{name}");
        let after = subject.counters();
        assert!(after.entries <= 100 && after.entries >= 96, "{name}: {after:?}");
        assert_eq!(after.entries, resident.entries - evicted, "{name}");
        assert_eq!(after.evictions, resident.evictions + evicted, "{name}");
        assert!(subject.set("k", &[0; 11], None).is_err(), "{name}");
        for index in 0..500 {
            subject.set(&format!("l{index}"), b"v", None).expect("set");
            assert!(subject.counters().entries <= 100, "{name}");
        }
        wait(store.set_limits(before)).expect("grows again");
        for index in 0..3000 {
            subject.set(&format!("m{index}"), &[0; 11], None).expect("set");
        }
        let grown = subject.counters().entries;
        assert!((990..=1000).contains(&grown), "{name}: {grown} entries");
    });
}
