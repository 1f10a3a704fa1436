//! What the memory store tells about what it evicts, and about its policies, on a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use engine::{
    Entry, EvictionSample, Evictions, Gauge, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions,
    OverShards, Store, StoreFuture, WeighBy,
};

const MILLISECOND: Duration = Duration::from_millis(1);

struct Subject {
    store: MemoryStore,
    clock: Arc<ManualClock>,
}

fn subject(policy: &str, max_items: u64, shards: usize) -> Subject {
    let entry = policies::find(policy).expect(policy);
    let factory = (entry.with_defaults)();
    let limits = Limits { max_items: Some(max_items), max_memory_bytes: 1 << 30, max_value_bytes: 1 << 20 };
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let clock = Arc::new(ManualClock::default());
    let options = MemoryStoreOptions {
        shards: Some(shards),
        weigh_by: WeighBy::Items,
        clock: Arc::clone(&clock) as Arc<dyn engine::Clock>,
        ..MemoryStoreOptions::new(limits, entry.name, entry.bytes_per_entry, build)
    };
    Subject { store: MemoryStore::new(options), clock }
}

impl Subject {
    fn set(&self, number: u64) {
        let name = number.to_le_bytes();
        let key = Key::shared(&name).expect("short");
        let done = self.store.set(Entry { key, value: b"v", ttl: None });
        assert!(matches!(done, StoreFuture::Ready(Some(Ok(())))));
    }

    fn get(&self, number: u64) -> bool {
        let name = number.to_le_bytes();
        let got = self.store.get(Key::shared(&name).expect("short"));
        matches!(got, StoreFuture::Ready(Some(Ok(Some(_)))))
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.store.insight().policy
    }
}

fn sampled(evictions: &Evictions) -> u64 {
    evictions.samples.len() as u64 + evictions.left_out
}

#[test]
fn the_age_at_eviction_is_the_time_since_the_value_was_stored() {
    for shards in [1, 4] {
        let subject = subject("fifo", 10_000, shards);
        for number in 0..50_000 {
            subject.set(number);
            subject.clock.advance(MILLISECOND);
        }
        let Evictions { samples, left_out } = subject.store.take_evictions();
        let evicted = 40_000;
        let taken = samples.len() as u64 + left_out;
        assert!((evicted / 128..evicted / 32).contains(&taken), "one in 64 of {evicted}, not {taken}");
        for EvictionSample { age, idle } in samples {
            assert_eq!(age, idle, "nobody read it");
            // Shards fill and empty unevenly, but not by much.
            let expected = if shards == 1 {
                10_000 * MILLISECOND..=10_000 * MILLISECOND
            } else {
                8_500 * MILLISECOND..=11_500 * MILLISECOND
            };
            assert!(expected.contains(&age), "{shards} shards: {age:?}");
        }
        assert_eq!(subject.store.take_evictions(), Evictions::default(), "each is told once");
    }
}

#[test]
fn the_idle_time_starts_anew_at_a_read_and_the_age_at_a_write() {
    let subject = subject("fifo", 20_000, 1);
    (0..20_000).for_each(|number| subject.set(number));
    subject.clock.advance(Duration::from_secs(100));
    // A FIFO queue keeps its order whatever is written or read.
    (0..10_000).for_each(|number| subject.set(number));
    subject.clock.advance(Duration::from_secs(20));
    (0..20_000).step_by(2).for_each(|number| assert!(subject.get(number)));
    subject.clock.advance(Duration::from_secs(3));
    (20_000..40_000).for_each(|number| subject.set(number));

    let evictions = subject.store.take_evictions();
    let mut kinds: Vec<(u64, u64)> =
        evictions.samples.iter().map(|sample| (sample.age.as_secs(), sample.idle.as_secs())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [(23, 3), (23, 23), (123, 3), (123, 123)], "some of each, and no others");
    assert_eq!(evictions.left_out, 0);
}

#[test]
fn what_leaves_for_another_reason_tells_no_age() {
    let subject = subject("lru", 10_000, 1);
    for number in 0..10_000_u64 {
        subject.set(number);
        let name = number.to_le_bytes();
        let key = Key::shared(&name).expect("short");
        match number % 3 {
            0 => drop(subject.store.delete(key)),
            1 => drop(subject.store.set(Entry { key, value: b"w", ttl: Some(MILLISECOND) })),
            _ => {}
        }
    }
    subject.store.check_invariants();
    subject.clock.advance(MILLISECOND);
    drop(subject.store.sweep());
    subject.store.check_invariants();
    drop(subject.store.clear());
    subject.store.check_invariants();
    assert_eq!(subject.store.take_evictions(), Evictions::default());
}

#[test]
fn evictions_that_nobody_takes_are_thinned_and_survive_a_clear() {
    let subject = subject("lru", 1000, 1);
    for number in 0..200_000 {
        subject.set(number);
        subject.clock.advance(MILLISECOND);
    }
    drop(subject.store.clear());
    let evictions = subject.store.take_evictions();
    assert!((256..=512).contains(&evictions.samples.len()), "{}", evictions.samples.len());
    let taken = sampled(&evictions);
    assert!((199_000 / 80..199_000 / 50).contains(&taken), "one in 64, not {taken}");
    assert!(evictions.samples.iter().all(|sample| sample.age == 1000 * MILLISECOND));
}

#[test]
fn a_large_store_dates_a_smaller_share_of_its_entries() {
    let subject = subject("fifo", 1 << 20, 1);
    let entries = 1 << 20;
    (0..entries).for_each(|number| subject.set(number));
    subject.store.check_invariants();
    (entries..2 * entries).for_each(|number| subject.set(number));
    let taken = sampled(&subject.store.take_evictions());
    assert!((1500..4100).contains(&taken), "a bounded number of a million, not {taken}");
}

#[test]
fn gauges_of_several_shards_add_up_or_are_averaged_as_they_say() {
    for shards in [1, 4] {
        let subject = subject("w-tinylfu", 4000, shards);
        (0..20_000).for_each(|number| subject.set(number));
        let gauges = subject.gauges();
        let value = |name| gauges.iter().find(|gauge| gauge.name == name).expect(name);
        let weights = ["window_weight", "probation_weight", "protected_weight"].map(value);
        let resident: f64 = weights.iter().map(|gauge| gauge.value).sum();
        let StoreFuture::Ready(Some(Ok(stats))) = subject.store.stats() else { unreachable!() };
        let entries = u32::try_from(stats.counters.entries).expect("a few thousand");
        assert!((resident - f64::from(entries)).abs() < 1e-9, "{shards} shards: {gauges:?}");
        assert!(weights.iter().all(|gauge| gauge.over_shards == OverShards::Sum));
        let ratio = value("window_target_ratio");
        assert!(ratio.over_shards == OverShards::Mean && ratio.value <= 1.0, "{shards} shards: {ratio:?}");
    }
}

#[test]
fn the_largest_shard_is_the_whole_of_one_and_more_than_the_mean_of_several() {
    for shards in [1, 4] {
        let subject = subject("lru", 10_000, shards);
        (0..5000).for_each(|number| subject.set(number));
        let StoreFuture::Ready(Some(Ok(stats))) = subject.store.stats() else { unreachable!() };
        let engine::Counters { memory_bytes, largest_shard_bytes, .. } = stats.counters;
        let mean = memory_bytes / shards as u64;
        assert!((mean..=mean * 5 / 4).contains(&largest_shard_bytes), "{largest_shard_bytes} against {mean}");
        assert!(shards > 1 || largest_shard_bytes == mean);
    }
}
