//! The memory store beside a map: what a read returns is what was written last or, where room may be needed, nothing. Any policy and options, values in
//! cells and outside, deadlines on a clock that is moved by hand, limits that change, batches, one shard and several.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use engine::{
    Clock, CompareAndSet, Entry, HashSeed, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions,
    SetIfAbsent, Store, StoreError, WeighBy,
};
use fuzz::{AnyPolicy, ready};
use libfuzzer_sys::fuzz_target;

/// The clock counts 584 years.
const MOST_YEARS: Duration = Duration::from_secs(500 * 31_557_600);

#[derive(Clone)]
struct Written {
    value: Vec<u8>,
    deadline: Option<Duration>,
}

struct Checked {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    limits: Limits,
    /// Whether nothing is ever evicted or refused.
    roomy: bool,
    model: HashMap<u8, Written>,
    names: Vec<String>,
}

/// A value that says whose it is, of a length in any class of cells and beyond.
fn value(key: u8, version: u32, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len: u16 = input.arbitrary()?;
    let len = match len >> 14 {
        0 => len & 0x7F,
        1 => len & 0x7FF,
        2 => len & 0x1FFF,
        _ => len & 0x7FFF,
    };
    let seal = (u64::from(key).wrapping_mul(0x9E37_79B9) + u64::from(version)).to_le_bytes();
    let mut value = seal.repeat(usize::from(len) / seal.len() + 1);
    value.truncate(usize::from(len));
    Ok(value)
}

fn limits(input: &mut Unstructured<'_>) -> Result<Limits> {
    let (items, memory): (u8, u16) = (input.arbitrary()?, input.arbitrary()?);
    Ok(Limits {
        max_items: (items > 60).then(|| u64::from(items - 60)),
        max_memory_bytes: 4096 + u64::from(memory) * 16,
        max_value_bytes: 20_000,
    })
}

impl Checked {
    fn key(&self, number: u8) -> Key<'_> {
        let namespace: &[u8] = if number.is_multiple_of(3) { b"team" } else { b"" };
        Key::new(namespace, self.names[usize::from(number)].as_bytes()).expect("short")
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        self.model.retain(|_, written| written.deadline.is_none_or(|deadline| now < deadline));
    }

    fn saw(&mut self, number: u8, value: Option<&[u8]>) {
        let written = self.model.get(&number).map(|written| &*written.value);
        if self.roomy || value.is_some() {
            assert!(value == written, "key {number} reads as it was written last");
        } else {
            self.model.remove(&number);
        }
    }

    /// Takes note of a write that was not refused. One that was refused has changed nothing.
    fn wrote(
        &mut self,
        number: u8,
        value: Vec<u8>,
        ttl: Option<Duration>,
        outcome: &std::result::Result<(), StoreError>,
    ) {
        match outcome {
            Ok(()) => {
                let deadline = ttl.map(|ttl| self.clock.now() + ttl);
                self.model.insert(number, Written { value, deadline });
                // What lives for no time at all has expired.
                self.expire();
            }
            Err(StoreError::ValueTooLarge { size, limit }) => {
                assert_eq!(*size, value.len() as u64);
                assert!(size > limit, "{size} is over {limit}");
            }
            Err(StoreError::CapacityExhausted { .. }) => assert!(!self.roomy, "there is room"),
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self, thoroughly: bool, swept: bool) {
        if thoroughly {
            self.store.check_invariants();
        }
        let counters = ready(self.store.stats()).expect("stats").counters;
        let (used, limit) = (counters.memory_bytes, self.limits.max_memory_bytes);
        assert!(
            used <= limit,
            "the limit on memory holds: {used} of {limit} bytes in {} entries",
            counters.entries
        );
        assert!(self.limits.max_items.is_none_or(|max| counters.entries <= max), "the limit on items holds");
        if self.roomy && swept {
            let bytes = self.model.values().map(|written| written.value.len() as u64);
            assert_eq!(counters.entries, self.model.len() as u64, "nothing else is there");
            assert_eq!(counters.value_bytes, bytes.sum::<u64>());
            assert_eq!(counters.evictions + counters.rejected_admission, 0);
        }
    }

    fn step(&mut self, version: u32, input: &mut Unstructured<'_>) -> Result<()> {
        let (operation, number): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
        // Keys of little traffic are few, so that something happens to them.
        let number = if number & 1 == 0 { number % 16 } else { number };
        let mut swept = false;
        let ttl = match operation >> 5 {
            0 => Some(Duration::from_secs(u64::from(number % 30))),
            1 => Some(Duration::from_millis(u64::from(number))),
            2 if number < 8 => Some(Duration::from_secs(i32::MAX as u64)),
            _ => None,
        };
        match operation % 32 {
            0..=7 => {
                let value = ready(self.store.get(self.key(number))).expect("get");
                self.saw(number, value.as_deref());
            }
            8..=15 => {
                let bytes = value(number, version, input)?;
                let outcome = ready(self.store.set(Entry { key: self.key(number), value: &bytes, ttl }));
                self.wrote(number, bytes, ttl, &outcome);
            }
            16..=17 => {
                let bytes = value(number, version, input)?;
                let entry = Entry { key: self.key(number), value: &bytes, ttl };
                match ready(self.store.set_if_absent(entry)) {
                    Ok(SetIfAbsent::Stored) => {
                        self.saw(number, None);
                        self.wrote(number, bytes, ttl, &Ok(()));
                    }
                    Ok(SetIfAbsent::Exists) => assert!(self.model.contains_key(&number)),
                    Err(error) => self.wrote(number, bytes, ttl, &Err(error)),
                }
            }
            18..=19 => {
                let bytes = value(number, version, input)?;
                let known = self.model.get(&number).map(|written| written.value.clone());
                let mut expected = known.clone().unwrap_or_default();
                let differs = operation >= 224;
                if differs {
                    expected.push(0);
                }
                let entry = Entry { key: self.key(number), value: &bytes, ttl };
                match ready(self.store.compare_and_set(&expected, entry)) {
                    Ok(CompareAndSet::Stored) => {
                        assert!(known.is_some() && !differs, "it was there, and as expected");
                        self.wrote(number, bytes, ttl, &Ok(()));
                    }
                    Ok(CompareAndSet::NotFound) => self.saw(number, None),
                    Ok(CompareAndSet::Mismatch) => assert!(known.is_some() && differs),
                    Err(error) => self.wrote(number, bytes, ttl, &Err(error)),
                }
            }
            20..=21 => {
                let existed = ready(self.store.delete(self.key(number))).expect("delete");
                let known = self.model.remove(&number).is_some();
                assert!(known == existed || known && !self.roomy, "it was there: {known}, {existed}");
            }
            22..=23 => {
                let step = Duration::from_nanos(1_u64 << (number % 60));
                if self.clock.now() + step < MOST_YEARS {
                    self.clock.advance(step);
                    self.expire();
                }
            }
            24 => {
                ready(self.store.sweep()).expect("sweep");
                swept = true;
            }
            25..=26 => {
                let numbers: Vec<u8> =
                    (0..1 + operation / 16).map(|step| number.wrapping_add(step / 2)).collect();
                let keys: Vec<Key<'_>> = numbers.iter().map(|&number| self.key(number)).collect();
                let values = ready(self.store.get_many(&keys, usize::MAX)).expect("a batch");
                assert_eq!(values.len(), numbers.len());
                for (number, value) in numbers.into_iter().zip(values) {
                    self.saw(number, value.expect("get").as_deref());
                }
            }
            27..=28 => {
                let numbers: Vec<u8> =
                    (0..1 + operation / 16).map(|step| number.wrapping_add(step / 2)).collect();
                let values: Vec<Vec<u8>> =
                    numbers.iter().map(|&number| value(number, version, input)).collect::<Result<_>>()?;
                let entries: Vec<Entry<'_>> = numbers
                    .iter()
                    .zip(&values)
                    .map(|(&number, value)| Entry { key: self.key(number), value, ttl })
                    .collect();
                let outcomes = ready(self.store.set_many(&entries)).expect("a batch");
                assert_eq!(outcomes.len(), numbers.len());
                for ((number, value), outcome) in numbers.into_iter().zip(values).zip(outcomes) {
                    self.wrote(number, value, ttl, &outcome);
                }
            }
            29 => {
                let other = number.wrapping_add(1);
                let keys = [self.key(number), self.key(other), self.key(number)];
                let existed = ready(self.store.delete_many(&keys)).expect("a batch");
                for (number, existed) in [number, other, number].into_iter().zip(existed) {
                    let known = self.model.remove(&number).is_some();
                    assert!(known == existed.expect("delete") || known && !self.roomy);
                }
            }
            30 if !self.roomy => {
                match ready(self.store.set_limits(limits(input)?)) {
                    Ok(_) | Err(StoreError::Unsupported(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                self.limits = self.store.limits();
            }
            30 => {
                let insight = self.store.insight();
                assert!(insight.policy.iter().all(|gauge| gauge.value.is_finite()));
                let sample = self.store.take_evictions();
                assert!(sample.samples.iter().all(|sample| sample.idle <= sample.age));
            }
            _ if number == 0 => {
                ready(self.store.clear()).expect("clear");
                self.model.clear();
            }
            _ => {
                let too_large = vec![0; 20_001 + usize::from(number)];
                let outcome = ready(self.store.set(Entry { key: self.key(number), value: &too_large, ttl }));
                outcome.expect_err("over the limit");
            }
        }
        self.check(version.is_multiple_of(8) || operation % 32 >= 30 || input.is_empty(), swept);
        Ok(())
    }
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let AnyPolicy { entry, factory, is_libcachesim } = fuzz::policy(input)?;
    let setup: u8 = input.arbitrary()?;
    let wide = setup & 3 == 0;
    let roomy = wide && !is_libcachesim;
    let limits = if wide {
        let max_items = (setup & 4 != 0).then_some(1000);
        Limits { max_items, max_memory_bytes: 64 << 20, max_value_bytes: 20_000 }
    } else {
        limits(input)?
    };
    let clock = Arc::new(ManualClock::default());
    let counts_items = limits.max_items.is_some() && setup & 32 == 0;
    let weigh_by = if counts_items { WeighBy::Items } else { WeighBy::Bytes };
    let bytes = factory.bytes_per_entry(weigh_by);
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let mut options = MemoryStoreOptions::new(limits, entry.name, bytes, build);
    options.shards = Some(1 << (setup >> 3 & 3));
    options.hash_seed = HashSeed::fixed(7);
    options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    options.weigh_by = weigh_by;
    let store = MemoryStore::new(options);
    let names = (0..=255_usize).map(|number| number.to_string().repeat(1 + number % 64)).collect();
    let limits = store.limits();
    let mut checked = Checked { store, clock, limits, roomy, model: HashMap::new(), names };
    let mut version = 0;
    while !input.is_empty() && version < 400 {
        checked.step(version, input)?;
        version += 1;
    }
    assert_eq!(checked.store.recoveries(), 0, "no policy has panicked");
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // The input's end is the history's.
    let _: Result<()> = run(&mut Unstructured::new(data));
});
