//! Stores to check: the memory store, shaken, and ones that are deliberately broken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use engine::{
    Clock, CompareAndSet, Entry, Key, Limits, MemoryStore, SetIfAbsent, Store, StoreFuture, StoreStats, Value,
};
use policies::PolicyEntry;
use tiny_cache::config::{EvictionConfig, StoreConfig};
use tiny_cache::registry::{StoreEntry, memory_store};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Defect {
    /// Nothing, but what is allowed happens often: everything is cleared and the limits change, again and again.
    Shaken,
    /// A read is answered with the value before the last one at times.
    Stale,
    /// A value is replaced at times though it is not the expected one.
    UncheckedCompare,
    /// The comparison and the write are two steps.
    TornCompare,
    /// Whoever stores where nothing is has always done so, though what was there stays.
    SecondWinner,
    /// A write is done again later, whatever has happened since.
    WrittenTwice,
    /// A deletion is undone later.
    Resurrected,
    /// A write is acknowledged and not done, so that its predecessor stays.
    LostWrite,
    /// Entries live longer than they may.
    ServedPastExpiry,
    /// Another key's value is served at times.
    WrongKey,
    /// A batch of writes stores its first value under all keys.
    MixedBatch,
}

impl Defect {
    pub(crate) const BROKEN: [Self; 10] = [
        Self::Stale,
        Self::UncheckedCompare,
        Self::TornCompare,
        Self::SecondWinner,
        Self::WrittenTwice,
        Self::Resurrected,
        Self::LostWrite,
        Self::ServedPastExpiry,
        Self::WrongKey,
        Self::MixedBatch,
    ];

    /// The store that has it, by a name to configure it.
    pub(crate) fn entry(self) -> StoreEntry {
        let (name, build): (&str, tiny_cache::registry::BuildStore) = match self {
            Self::Shaken => ("shaken", shaken),
            Self::Stale => ("stale", broken::<{ Self::Stale as u8 }>),
            Self::UncheckedCompare => ("unchecked", broken::<{ Self::UncheckedCompare as u8 }>),
            Self::TornCompare => ("torn", broken::<{ Self::TornCompare as u8 }>),
            Self::SecondWinner => ("winner", broken::<{ Self::SecondWinner as u8 }>),
            Self::WrittenTwice => ("twice", broken::<{ Self::WrittenTwice as u8 }>),
            Self::Resurrected => ("resurrected", broken::<{ Self::Resurrected as u8 }>),
            Self::LostWrite => ("lost", broken::<{ Self::LostWrite as u8 }>),
            Self::ServedPastExpiry => ("late", broken::<{ Self::ServedPastExpiry as u8 }>),
            Self::WrongKey => ("wrong", broken::<{ Self::WrongKey as u8 }>),
            Self::MixedBatch => ("mixed", broken::<{ Self::MixedBatch as u8 }>),
        };
        StoreEntry { name, summary: "for a test", build }
    }
}

fn shaken(
    config: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let store = Arc::new(memory_store(config, eviction, policy, clock));
    let weak = Arc::downgrade(&store);
    thread::spawn(move || {
        let mut next_clear = 20_000;
        let mut next_resize = 1000;
        // As long as somebody else holds the store. By reads, not by time: a slow machine is to find as much in it.
        while let Some(store) = weak.upgrade() {
            let StoreFuture::Ready(Some(Ok(stats))) = store.stats() else {
                unreachable!("it answers at once")
            };
            let reads = stats.counters.hits + stats.counters.misses;
            if reads > next_clear {
                next_clear += 20_000;
                drop(store.clear());
            }
            if reads > next_resize {
                next_resize += 1000;
                let Limits { max_items, max_memory_bytes, max_value_bytes } = stats.limits;
                let max_items = max_items.map(|items| if items == 400 { 150 } else { 400 });
                drop(store.set_limits(Limits { max_items, max_memory_bytes, max_value_bytes }));
            }
            drop(store);
            thread::sleep(Duration::from_millis(5));
        }
    });
    store
}

fn broken<const DEFECT: u8>(
    config: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let defect = *Defect::BROKEN.iter().find(|&&defect| defect as u8 == DEFECT).expect("one of them");
    Arc::new(Broken {
        store: memory_store(config, eviction, policy, clock),
        defect,
        calls: AtomicU64::new(0),
        remembered: Mutex::default(),
    })
}

type LastTwo = (Vec<u8>, Vec<u8>);

/// A memory store with a defect that shows at times.
struct Broken {
    store: MemoryStore,
    defect: Defect,
    calls: AtomicU64,
    /// The last value that was set under each key, and the one before.
    remembered: Mutex<HashMap<Vec<u8>, LastTwo>>,
}

/// Once in so many calls.
const AT_TIMES: u64 = 10;

impl Broken {
    fn strikes(&self, defect: Defect) -> bool {
        self.defect == defect && self.calls.fetch_add(1, Ordering::Relaxed) % AT_TIMES == AT_TIMES - 1
    }

    /// The names of keys in the shared keyspace and in the other one must not be mixed up here.
    fn name(key: &Key<'_>) -> Vec<u8> {
        [key.namespace(), b"/", key.name()].concat()
    }

    fn remember(&self, entry: &Entry<'_>) {
        let mut remembered = self.remembered.lock().expect("whole");
        let (last, before) = remembered.entry(Self::name(&entry.key)).or_default();
        *before = std::mem::replace(last, entry.value.to_vec());
    }

    fn before_last(&self, key: &Key<'_>) -> Option<Vec<u8>> {
        let remembered = self.remembered.lock().expect("whole");
        remembered.get(&Self::name(key)).map(|(_, before)| before.clone()).filter(|value| !value.is_empty())
    }

    fn last(&self, key: &Key<'_>) -> Option<Vec<u8>> {
        self.remembered.lock().expect("whole").get(&Self::name(key)).map(|(last, _)| last.clone())
    }
}

impl Store for Broken {
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        if self.strikes(Defect::Stale)
            && let Some(before) = self.before_last(&key)
        {
            return StoreFuture::ready(Ok(Some(Value::from(&before[..]))));
        }
        if self.strikes(Defect::WrongKey) {
            let any = self.remembered.lock().expect("whole").values().next().map(|(last, _)| last.clone());
            return StoreFuture::ready(Ok(any.map(|value| Value::from(&value[..]))));
        }
        if self.strikes(Defect::WrittenTwice)
            && let Some(before) = self.before_last(&key)
        {
            drop(self.store.set(Entry { key, value: &before, ttl: None }));
        }
        if self.strikes(Defect::Resurrected)
            && let Some(last) = self.last(&key)
        {
            drop(self.store.set_if_absent(Entry { key, value: &last, ttl: None }));
        }
        self.store.get(key)
    }

    fn set<'a>(&'a self, mut entry: Entry<'a>) -> StoreFuture<'a, ()> {
        if self.strikes(Defect::LostWrite) {
            return StoreFuture::ready(Ok(()));
        }
        self.remember(&entry);
        if self.defect == Defect::ServedPastExpiry {
            entry.ttl = entry.ttl.map(|ttl| ttl * 3 / 2);
        }
        self.store.set(entry)
    }

    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        if self.defect == Defect::SecondWinner {
            return StoreFuture::ready(Ok(SetIfAbsent::Stored));
        }
        self.store.set_if_absent(entry)
    }

    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        if self.strikes(Defect::UncheckedCompare) {
            drop(self.store.set(entry));
            return StoreFuture::ready(Ok(CompareAndSet::Stored));
        }
        if self.defect == Defect::TornCompare {
            return StoreFuture::pending(async move {
                let Some(found) = self.store.get(entry.key).await? else {
                    return Ok(CompareAndSet::NotFound);
                };
                tokio::time::sleep(Duration::from_millis(1)).await;
                if &found[..] != expected {
                    return Ok(CompareAndSet::Mismatch);
                }
                self.store.set(entry).await?;
                Ok(CompareAndSet::Stored)
            });
        }
        self.store.compare_and_set(expected, entry)
    }

    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        self.store.delete(key)
    }

    fn set_many<'a>(&'a self, entries: &'a [Entry<'a>]) -> StoreFuture<'a, engine::Batch<()>> {
        if self.strikes(Defect::MixedBatch) {
            let first = entries[0].value;
            let stored = entries.iter().map(|entry| Entry { value: first, ..*entry });
            return StoreFuture::ready(Ok(stored.map(|entry| drop(self.store.set(entry))).map(Ok).collect()));
        }
        self.store.set_many(entries)
    }

    fn clear(&self) -> StoreFuture<'_, u64> {
        self.store.clear()
    }

    fn sweep(&self) -> StoreFuture<'_, u64> {
        self.store.sweep()
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.store.stats()
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}
