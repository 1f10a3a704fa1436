//! By what a policy knows keys.

use std::sync::{Arc, Mutex};

use crate::memory::{BuildPolicy, FAR_BYTES, MemoryStore, MemoryStoreOptions};
use crate::policy::{EvictionPolicy, Item, Slot, Verdict};
use crate::store::{Entry, Limits, Store, StoreFuture};
use crate::{HashSeed, Key};

/// Evicts nobody; writes down by which hashes it is told of items.
struct Noting {
    told: Arc<Mutex<Vec<(&'static str, u64)>>>,
    ignores_hashes: bool,
    residents: usize,
}

impl Noting {
    fn note(&self, call: &'static str, hash: u64) {
        self.told.lock().expect("no panic").push((call, hash));
    }
}

impl EvictionPolicy for Noting {
    fn ignores_hashes(&self) -> bool {
        self.ignores_hashes
    }
    fn approach_newcomer(&self, hash: u64) {
        self.note("approach", hash);
    }
    fn admit(&mut self, incoming: &Item) -> bool {
        self.note("admit", incoming.hash);
        true
    }
    fn insert(&mut self, _slot: Slot, item: &Item) {
        self.note("insert", item.hash);
        self.residents += 1;
    }
    fn update(&mut self, _slot: Slot, item: &Item) {
        self.note("update", item.hash);
    }
    fn hit(&mut self, _slot: Slot) {}
    fn remove(&mut self, _slot: Slot) {
        self.residents -= 1;
    }
    fn evict(&mut self, _incoming: &Item) -> Verdict {
        Verdict::Reject
    }
    fn relocate(&mut self, _from: Slot, _to: Slot) {}
    fn trim(&mut self, _slots: usize) {}
    fn resize(&mut self, _capacity: u64) {}
    fn len(&self) -> usize {
        self.residents
    }
    fn footprint_bytes(&self) -> usize {
        0
    }
    fn check_invariants(&self) {}
}

const ENTRIES: u64 = 20_000;

/// What the policy is told of while one key comes in twice, and of a batch with another one, among so many entries of a KiB.
fn told(ignores_hashes: bool) -> Vec<(&'static str, u64)> {
    let limits = Limits { max_items: None, max_memory_bytes: 1 << 30, max_value_bytes: 1 << 20 };
    let told = Arc::<Mutex<Vec<(&'static str, u64)>>>::default();
    let notes = Arc::clone(&told);
    let build: Arc<BuildPolicy> =
        Arc::new(move |_, _| Box::new(Noting { told: Arc::clone(&notes), ignores_hashes, residents: 0 }));
    let options = MemoryStoreOptions {
        shards: Some(1),
        hash_seed: HashSeed::fixed(1),
        ..MemoryStoreOptions::new(limits, "noting", 0, build)
    };
    let store = MemoryStore::new(options);
    // Where a batch asks for records together.
    let value = vec![7; usize::try_from(FAR_BYTES / ENTRIES).expect("small")];
    let set = |name: &[u8]| {
        let key = Key::shared(name).expect("short");
        assert!(matches!(
            store.set(Entry { key, value: &value, ttl: None }),
            StoreFuture::Ready(Some(Ok(())))
        ));
    };
    for number in 0..ENTRIES {
        set(&number.to_le_bytes());
    }
    told.lock().expect("no panic").clear();
    set(b"new");
    set(b"new");
    let batch = [Entry { key: Key::shared(b"other").expect("short"), value: b"value", ttl: None }];
    let StoreFuture::Ready(Some(Ok(done))) = store.set_many(&batch) else { panic!("it is there at once") };
    assert!(done.iter().all(Result::is_ok), "there is room");
    std::mem::take(&mut *told.lock().expect("no panic"))
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps")]
fn a_policy_knows_keys_by_their_fingerprints_and_hears_early_of_a_batch_among_many_entries() {
    let [new, other] = [&b"new"[..], b"other"].map(|name| Key::shared(name).expect("short").fingerprint());
    let single = [("admit", new), ("insert", new), ("update", new)];
    let batch = [("approach", other), ("admit", other), ("insert", other)];
    assert_eq!(told(false), [single, batch].concat());
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps")]
fn no_fingerprint_is_made_for_a_policy_that_looks_at_none() {
    assert_eq!(told(true), [("admit", 0), ("insert", 0), ("update", 0), ("admit", 0), ("insert", 0)]);
}
