//! The caches that are compared, each behind the two calls that the loop makes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use engine::{Entry, Key, Limits, MemoryStore, MemoryStoreOptions, Store, StoreFuture};

/// A key as every subject gets it.
pub type KeyBytes = [u8; 16];

/// What every subject stores.
pub const VALUE: [u8; 100] = [7; 100];

/// A cache as the loop sees it.
pub trait Subject: Send + Sync {
    /// Whether the read hit.
    fn get(&self, key: &KeyBytes) -> bool;
    /// Stores [`VALUE`].
    fn insert(&self, key: &KeyBytes);
    /// Does what a server would have it do in the background.
    fn tidy(&self) {}
}

/// What a subject's name begins with if it is this repository's store under some policy.
pub const OURS: &str = "tiny-cache ";

/// The subject of this name with room for so many entries; `None` where there is none.
pub fn build(name: &str, capacity: usize) -> Option<Box<dyn Subject>> {
    Some(match name {
        "quick_cache" => Box::new(QuickCache(quick_cache::sync::Cache::new(capacity))),
        "quick_cache of Bytes" => Box::new(QuickCacheOfBytes(quick_cache::sync::Cache::new(capacity))),
        "moka" => Box::new(Moka(moka::sync::Cache::new(capacity as u64))),
        "lru in a mutex" => Box::new(Lru(Mutex::new(lru::LruCache::new(NonZeroUsize::new(capacity)?)))),
        "foyer" => Box::new(Foyer(foyer_memory::CacheBuilder::new(capacity).build())),
        _ => Box::new(ours(name.strip_prefix(OURS)?, capacity as u64)?),
    })
}

struct Ours(MemoryStore);

/// A policy and its options, as in `s3-fifo small_ratio=0.01 ghost_ratio=0.5`.
fn ours(policy: &str, capacity: u64) -> Option<Ours> {
    let (name, options) = policy.split_once(' ').unwrap_or((policy, ""));
    let entry = policies::find(name)?;
    let options = options.split_whitespace().map(|option| option.split_once('='));
    let options: Option<Vec<String>> =
        options.map(|option| option.map(|(name, value)| format!("\"{name}\": {value}"))).collect();
    let options = format!("{{{}}}", options?.join(","));
    let mut options = serde_json::Deserializer::from_str(&options);
    let factory = (entry.configure)(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut options)).ok()?;
    let limits = Limits { max_items: Some(capacity), max_memory_bytes: 16 << 30, max_value_bytes: 1 << 20 };
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let options = MemoryStoreOptions::new(limits, entry.name, entry.bytes_per_entry, build);
    Some(Ours(MemoryStore::new(options)))
}

impl Subject for Ours {
    fn get(&self, key: &KeyBytes) -> bool {
        let answer = self.0.get(Key::shared(key).expect("short"));
        let StoreFuture::Ready(Some(Ok(value))) = &answer else {
            unreachable!("the memory store answers at once");
        };
        black_box(value).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        let entry = Entry { key: Key::shared(key).expect("short"), value: &VALUE, ttl: None };
        let StoreFuture::Ready(Some(Ok(()))) = self.0.set(entry) else {
            unreachable!("the memory store has room");
        };
    }

    fn tidy(&self) {
        while self.0.tidy() {}
    }
}

struct QuickCache(quick_cache::sync::Cache<KeyBytes, Bytes>);

impl Subject for QuickCache {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

/// With keys of any length, as this repository's store has them.
struct QuickCacheOfBytes(quick_cache::sync::Cache<Bytes, Bytes>);

impl Subject for QuickCacheOfBytes {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.get(&key[..])).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        self.0.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(&VALUE));
    }
}

struct Moka(moka::sync::Cache<KeyBytes, Bytes>);

impl Subject for Moka {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

struct Lru(Mutex<lru::LruCache<KeyBytes, Bytes>>);

impl Subject for Lru {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.lock().expect("no panic").get(key).cloned()).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        let value = Bytes::copy_from_slice(&VALUE);
        let _evicted = self.0.lock().expect("no panic").push(*key, value);
    }
}

struct Foyer(foyer_memory::Cache<KeyBytes, Bytes>);

impl Subject for Foyer {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn insert(&self, key: &KeyBytes) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}
