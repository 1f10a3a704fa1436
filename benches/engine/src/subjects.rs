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
/// What an entry is at the least.
pub const ENTRY_BYTES: usize = size_of::<KeyBytes>() + VALUE.len();

/// A cache as the loop sees it.
pub trait Subject: Send + Sync {
    /// Whether the read hit.
    fn get(&self, key: &KeyBytes) -> bool;
    /// Reads to where the bytes are wanted; whether the read hit.
    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool;
    /// Stores [`VALUE`].
    fn insert(&self, key: &KeyBytes);
    /// Reads several keys, and tells which of them missed.
    fn get_many(&self, keys: &[KeyBytes], missed: &mut Vec<KeyBytes>) {
        missed.extend(keys.iter().filter(|key| !self.get(key)));
    }
    /// Stores [`VALUE`] under several keys.
    fn insert_many(&self, keys: &[KeyBytes]) {
        for key in keys {
            self.insert(key);
        }
    }
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
        "bare table in a mutex" => Box::new(BareTable(Mutex::new(Bare::new(capacity)))),
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

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        let answer = self.0.get(Key::shared(key).expect("short"));
        let StoreFuture::Ready(Some(Ok(value))) = &answer else {
            unreachable!("the memory store answers at once");
        };
        copy(value.as_deref(), to)
    }

    fn insert(&self, key: &KeyBytes) {
        let entry = Entry { key: Key::shared(key).expect("short"), value: &VALUE, ttl: None };
        let StoreFuture::Ready(Some(Ok(()))) = self.0.set(entry) else {
            unreachable!("the memory store has room");
        };
    }

    fn get_many(&self, keys: &[KeyBytes], missed: &mut Vec<KeyBytes>) {
        let wanted: Vec<Key<'_>> = keys.iter().map(|key| Key::shared(key).expect("short")).collect();
        let answer = self.0.get_many(&wanted, usize::MAX);
        let StoreFuture::Ready(Some(Ok(values))) = &answer else {
            unreachable!("the memory store answers at once");
        };
        let values = keys.iter().zip(black_box(values));
        missed.extend(values.filter(|(_, value)| !matches!(value, Ok(Some(_)))).map(|(key, _)| *key));
    }

    fn insert_many(&self, keys: &[KeyBytes]) {
        let entry = |key| Entry { key: Key::shared(key).expect("short"), value: &VALUE[..], ttl: None };
        let entries: Vec<Entry<'_>> = keys.iter().map(|key| entry(&key[..])).collect();
        let StoreFuture::Ready(Some(Ok(results))) = self.0.set_many(&entries) else {
            unreachable!("the memory store answers at once");
        };
        assert!(results.iter().all(Result::is_ok), "the memory store has room");
    }

    fn tidy(&self) {
        while self.0.tidy() {}
    }
}

/// Copies what was read, if anything was.
fn copy(value: Option<&[u8]>, to: &mut [u8; VALUE.len()]) -> bool {
    value.inspect(|value| to.copy_from_slice(value)).is_some()
}

struct QuickCache(quick_cache::sync::Cache<KeyBytes, Bytes>);

impl Subject for QuickCache {
    fn get(&self, key: &KeyBytes) -> bool {
        black_box(self.0.get(key)).is_some()
    }

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        copy(self.0.get(key).as_deref(), to)
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

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        copy(self.0.get(&key[..]).as_deref(), to)
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

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        copy(self.0.get(key).as_deref(), to)
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

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        copy(self.0.lock().expect("no panic").get(key).map(|value| &value[..]), to)
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

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        copy(self.0.get(key).as_ref().map(|entry| &entry.value()[..]), to)
    }

    fn insert(&self, key: &KeyBytes) {
        self.0.insert(*key, Bytes::copy_from_slice(&VALUE));
    }
}

/// The least that a cache can do, which tells how fast a machine's memory lets anything of this size be: a read looks at an index
/// and then where that leads to. No policy, no chains, and an entry takes the place of whoever had it before.
struct BareTable(Mutex<Bare>);

struct Bare {
    /// By a key's hash: where its entry lies.
    index: Vec<u32>,
    entries: Vec<(KeyBytes, [u8; 100])>,
}

impl Bare {
    fn new(capacity: usize) -> Self {
        // Each entry once and in no order, since the step shares no factor with any decimal capacity.
        let place = |number: u64| (number * 1_000_000_007 % capacity as u64).try_into().expect("a u32");
        Self {
            index: (0..capacity as u64).map(place).collect(),
            entries: vec![([0; 16], [0; 100]); capacity],
        }
    }

    fn entry(&mut self, key: &KeyBytes) -> &mut (KeyBytes, [u8; 100]) {
        let word = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("eight bytes"));
        let product =
            u128::from(word(0) ^ 0x9E37_79B9_7F4A_7C15) * u128::from(word(8) ^ 0xD6E8_FEB8_6659_FD93);
        let hash = (product as u64) ^ (product >> 64) as u64;
        let number = (u128::from(hash) * self.index.len() as u128) >> 64;
        &mut self.entries[self.index[number as usize] as usize]
    }
}

impl Subject for BareTable {
    fn get(&self, key: &KeyBytes) -> bool {
        let mut bare = self.0.lock().expect("no panic");
        let (of, value) = bare.entry(key);
        let value = (of == key).then_some(*value);
        black_box(&value).is_some()
    }

    fn copy(&self, key: &KeyBytes, to: &mut [u8; VALUE.len()]) -> bool {
        let mut bare = self.0.lock().expect("no panic");
        let (of, value) = bare.entry(key);
        copy((of == key).then_some(&value[..]), to)
    }

    fn insert(&self, key: &KeyBytes) {
        *self.0.lock().expect("no panic").entry(key) = (*key, VALUE);
    }
}
