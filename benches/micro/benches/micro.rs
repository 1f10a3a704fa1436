//! How long the smallest parts take, one by one: `cargo bench -p tiny-cache-benches [PART]`.
//!
//! For the parts beside each other and one's own changes; what they come to together, and beside other caches, is
//! `scripts/bench-engine`'s to tell.
#![expect(
    clippy::wildcard_imports,
    reason = "the modules are the parts of one file, and their names those of the benchmarks"
)]

#[path = "../../../engine/src/memory/cells.rs"]
#[expect(dead_code, reason = "the memory store's own, of which only a part is measured")]
mod cells;
#[path = "../../../engine/src/chunk.rs"]
#[expect(dead_code, reason = "the memory store's own, of which only a part is measured")]
mod chunk;
#[path = "../../../engine/src/frames.rs"]
#[cfg_attr(test, expect(unused_imports, reason = "what its tests use; they run with the engine's"))]
#[expect(dead_code, reason = "the memory store's own, of which only a part is measured")]
mod frames;
/// As the engine has it.
mod sync {
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

use std::sync::Arc;

use divan::{Bencher, black_box};
use engine::{
    Budget, Entry, EvictionPolicy, HashSeed, Insertion, Item, Key, Limits, MemoryStore, MemoryStoreOptions,
    Newcomer, Slot, Store, StoreError, StoreFuture, TaggedDirectory, Verdict, WeighBy,
};
use policies::REGISTRY;

/// Entries: more than the processor's caches nearest to it hold.
const CAPACITY: u32 = 100_000;
/// A step through all of them that does not go in order.
const STRIDE: u32 = 61_803;

fn main() {
    divan::main();
}

/// Numbers below a limit, each as often as the others, and not in order.
struct Walk {
    at: u32,
    below: u32,
}

impl Walk {
    const fn below(below: u32) -> Self {
        Self { at: 0, below }
    }

    const fn step(&mut self) -> u32 {
        self.at = (self.at + STRIDE) % self.below;
        self.at
    }
}

/// 64 well-mixed bits.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn policy(name: &str) -> Box<dyn EvictionPolicy> {
    let entry = policies::find(name).expect("a registered policy");
    (entry.with_defaults)().build(CAPACITY.into(), 1)
}

fn names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|entry| entry.name)
}

mod store {
    use super::*;

    const VALUE: [u8; 100] = [7; 100];
    const POLICIES: [&str; 3] = ["lru", "sieve", "s3-fifo"];

    fn name(number: u32) -> [u8; 16] {
        format!("key-{number:012}").into_bytes().try_into().expect("sixteen bytes")
    }

    fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
        match future {
            StoreFuture::Ready(result) => result.expect("not polled yet"),
            StoreFuture::Pending(_) => unreachable!("the memory store answers at once"),
        }
    }

    fn set(store: &MemoryStore, name: &[u8; 16]) {
        let key = Key::shared(name).expect("short");
        ready(store.set(Entry { key, value: &VALUE, ttl: None })).expect("room is made");
    }

    fn get(store: &MemoryStore, name: &[u8; 16]) -> bool {
        black_box(ready(store.get(Key::shared(name).expect("short"))).expect("get")).is_some()
    }

    /// A store that holds the first names, as many as fit.
    fn full(policy: &str) -> MemoryStore {
        let entry = policies::find(policy).expect("a registered policy");
        let factory = (entry.with_defaults)();
        let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
        let limits =
            Limits { max_items: Some(CAPACITY.into()), max_memory_bytes: 1 << 30, max_value_bytes: 1 << 20 };
        let store = MemoryStore::new(MemoryStoreOptions {
            hash_seed: HashSeed::fixed(7),
            ..MemoryStoreOptions::new(limits, entry.name, entry.bytes_per_entry, build)
        });
        (0..CAPACITY).for_each(|number| set(&store, &name(number)));
        store
    }

    #[divan::bench(args = POLICIES)]
    fn get_hit(bencher: Bencher<'_, '_>, policy: &str) {
        let (store, mut walk) = (full(policy), Walk::below(CAPACITY));
        bencher.with_inputs(|| name(walk.step())).bench_local_refs(|name| get(&store, name));
    }

    #[divan::bench(args = POLICIES)]
    fn get_miss(bencher: Bencher<'_, '_>, policy: &str) {
        let (store, mut walk) = (full(policy), Walk::below(CAPACITY));
        bencher.with_inputs(|| name(CAPACITY + walk.step())).bench_local_refs(|name| get(&store, name));
    }

    #[divan::bench(args = POLICIES)]
    fn set_replacing(bencher: Bencher<'_, '_>, policy: &str) {
        let (store, mut walk) = (full(policy), Walk::below(CAPACITY));
        bencher.with_inputs(|| name(walk.step())).bench_local_refs(|name| set(&store, name));
    }

    #[divan::bench(args = POLICIES)]
    fn set_evicting(bencher: Bencher<'_, '_>, policy: &str) {
        let (store, mut next) = (full(policy), CAPACITY);
        let fresh = || {
            next += 1;
            name(next)
        };
        bencher.with_inputs(fresh).bench_local_refs(|name| set(&store, name));
    }
}

mod policy_alone {
    use super::*;

    /// A policy with as many residents as it has room for.
    fn full(name: &str) -> Box<dyn EvictionPolicy> {
        let mut policy = policy(name);
        for slot in 0..CAPACITY {
            let item = Item { hash: mixed(slot.into()), weight: 1 };
            if policy.admit(&item) {
                policy.insert(Slot::new(slot), &item);
            }
        }
        policy
    }

    #[divan::bench(args = names().filter(|name| !policy(name).sheds_on_hit()))]
    fn hit(bencher: Bencher<'_, '_>, name: &str) {
        let (mut policy, mut walk) = (full(name), Walk::below(CAPACITY));
        bencher.bench_local(|| policy.hit(Slot::new(walk.step())));
    }

    /// One goes, and a newcomer gets its slot.
    #[divan::bench(args = names())]
    fn evict_and_insert(bencher: Bencher<'_, '_>, name: &str) {
        let (mut policy, mut next) = (full(name), u64::from(CAPACITY));
        bencher.bench_local(|| {
            next += 1;
            let item = Item { hash: mixed(next), weight: 1 };
            if policy.admit(&item)
                && let Verdict::Evict(slot) = policy.evict(&item)
            {
                policy.insert(slot, &item);
            }
        });
    }
}

mod index {
    use super::*;

    fn full() -> TaggedDirectory<Box<dyn EvictionPolicy>> {
        let budget = Budget::of_items(CAPACITY.into());
        let mut directory = TaggedDirectory::new(policy("fifo"), budget, WeighBy::Items);
        for number in 0..CAPACITY {
            let hash = mixed(number.into());
            let inserted = directory.insert(hash, Newcomer { fingerprint: hash, charge: 1 }, |_| {});
            assert_eq!(inserted, Insertion::Inserted(Slot::new(number)), "slots are dense");
        }
        directory
    }

    #[divan::bench]
    fn probe_present(bencher: Bencher<'_, '_>) {
        let (directory, mut walk) = (full(), Walk::below(CAPACITY));
        bencher.bench_local(|| {
            let number = walk.step();
            directory.find(mixed(number.into()), |slot| slot.get() == number)
        });
    }

    #[divan::bench]
    fn probe_absent(bencher: Bencher<'_, '_>) {
        let (directory, mut walk) = (full(), Walk::below(CAPACITY));
        bencher.bench_local(|| directory.find(mixed(u64::from(CAPACITY + walk.step())), |_| false));
    }
}

mod cell {
    use super::cells::{Cells, Location};
    use super::*;

    struct Filled {
        cells: Cells,
        locations: Vec<Location>,
    }

    impl Filled {
        fn new(len_of: impl Fn(u32) -> usize) -> Self {
            let mut filled = Self { cells: Cells::new(Arc::default()), locations: Vec::new() };
            for slot in 0..CAPACITY {
                filled.locations.push(Location::NOWHERE);
                filled.insert(slot, len_of(slot));
            }
            filled
        }

        fn insert(&mut self, slot: u32, len: usize) {
            let at = self.cells.insert(len);
            self.cells.bytes_mut(at)[..4].copy_from_slice(&slot.to_le_bytes());
            self.locations[slot as usize] = at;
        }

        fn remove(&mut self, slot: u32) {
            if let Some((moved, to)) = self.cells.remove(self.locations[slot as usize]) {
                self.locations[moved as usize] = to;
            }
        }
    }

    /// A cell goes and one of its size comes: nothing is moved.
    #[divan::bench(args = [32, 128, 1024])]
    fn replace_like_by_like(bencher: Bencher<'_, '_>, len: usize) {
        let (mut filled, mut walk) = (Filled::new(|_| len), Walk::below(CAPACITY));
        bencher.bench_local(|| {
            let slot = walk.step();
            filled.remove(slot);
            filled.insert(slot, len);
        });
    }

    /// Sizes change places: gaps are filled with the last cell of their size.
    #[divan::bench]
    fn replace_by_another_size(bencher: Bencher<'_, '_>) {
        let len = |number: u32| 16 + (number as usize * 37) % 1000;
        let (mut filled, mut walk, mut turn) = (Filled::new(len), Walk::below(CAPACITY), 0);
        bencher.bench_local(|| {
            let slot = walk.step();
            turn += 1;
            filled.remove(slot);
            filled.insert(slot, len(slot.wrapping_add(turn)));
        });
    }
}
