//! The store to which things happen, and how it is built.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use engine::{
    Batch, Clock, CompareAndSet, Entry, Key, Limits, MemoryStore, MemoryStoreOptions, SetIfAbsent, Store,
    StoreError, StoreFuture, StoreStats, Value,
};
use policies::PolicyEntry;
use tiny_cache::config::{EvictionConfig, StoreConfig};
use tokio::sync::watch;

/// What a cause says that no caller is to read.
pub(crate) const SECRET: &str = "password=hunter2";

/// What befalls statistics and sweeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Well,
    Hanging,
    Failing,
}

/// A memory store to which things happen.
pub(crate) struct Troubled {
    pub(crate) memory: MemoryStore,
    pub(crate) mood: watch::Sender<Mood>,
    /// Calls that wait for ever, now and at the most.
    pub(crate) hanging: AtomicU64,
    pub(crate) most_hanging: AtomicU64,
}

/// A call that waits, for as long as this is there.
struct Hanging<'a>(&'a Troubled);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.hanging.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Troubled {
    /// What becomes of a call on this key, `Ok` where nothing does.
    async fn befall(&self, key: &[u8]) -> Result<(), StoreError> {
        match key.split(|&byte| byte == b'-').next() {
            Some(b"slow") => tokio::time::sleep(Duration::from_millis(50)).await,
            Some(b"hanging") => self.hang().await,
            Some(b"blocking") => self.block(),
            Some(b"unavailable") => return Err(StoreError::Unavailable(SECRET.into())),
            Some(b"failed") => return Err(StoreError::Failed(SECRET.into())),
            Some(b"unsupported") => return Err(StoreError::Unsupported(SECRET)),
            _ => {}
        }
        Ok(())
    }

    /// Waits until all is well again, which is for ever unless somebody says so.
    async fn hang(&self) {
        let now = self.hanging.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_hanging.fetch_max(now, Ordering::SeqCst);
        let _hanging = Hanging(self);
        let mut mood = self.mood.subscribe();
        if *mood.borrow_and_update() == Mood::Well {
            mood.changed().await.expect("the store is there");
        }
        mood.wait_for(|mood| *mood == Mood::Well).await.expect("the store is there");
    }

    /// The same, and keeps its thread.
    fn block(&self) {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let _hanging = Hanging(self);
        let mood = self.mood.subscribe();
        while !mood.has_changed().expect("the store is there") {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn in_this_mood<'a, T: Send + Unpin + 'a>(&'a self, answer: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        let mood = *self.mood.borrow();
        match mood {
            Mood::Well => answer,
            Mood::Failing => StoreFuture::ready(Err(StoreError::Unavailable(SECRET.into()))),
            Mood::Hanging => StoreFuture::pending(async move {
                self.hang().await;
                answer.await
            }),
        }
    }

    fn on_key<'a, T: Send + Unpin + 'a>(
        &'a self,
        key: Key<'a>,
        answer: StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        if key.name().contains(&b'-') {
            return StoreFuture::pending(async move {
                self.befall(key.name()).await?;
                answer.await
            });
        }
        answer
    }
}

impl Store for Troubled {
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        self.on_key(key, self.memory.get(key))
    }
    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()> {
        if entry.key.name() == b"mood" {
            self.mood.send_replace(match entry.value {
                b"hanging" => Mood::Hanging,
                b"failing" => Mood::Failing,
                _ => Mood::Well,
            });
        }
        self.on_key(entry.key, self.memory.set(entry))
    }
    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        self.on_key(entry.key, self.memory.set_if_absent(entry))
    }
    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        self.on_key(entry.key, self.memory.compare_and_set(expected, entry))
    }
    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        self.on_key(key, self.memory.delete(key))
    }
    fn get_many<'a>(&'a self, keys: &'a [Key<'a>], _: usize) -> StoreFuture<'a, Batch<Option<Value>>> {
        answered(keys.iter().map(|&key| (key, self.get(key))))
    }
    fn set_many<'a>(&'a self, entries: &'a [Entry<'a>]) -> StoreFuture<'a, Batch<()>> {
        answered(entries.iter().map(|&entry| (entry.key, self.set(entry))))
    }
    fn delete_many<'a>(&'a self, keys: &'a [Key<'a>]) -> StoreFuture<'a, Batch<bool>> {
        answered(keys.iter().map(|&key| (key, self.delete(key))))
    }
    fn clear(&self) -> StoreFuture<'_, u64> {
        self.memory.clear()
    }
    fn sweep(&self) -> StoreFuture<'_, u64> {
        self.in_this_mood(self.memory.sweep())
    }
    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.in_this_mood(self.memory.stats())
    }
    fn limits(&self) -> Limits {
        self.memory.limits()
    }
}

/// The answers of a batch, of which those for the key "unanswered" are missing.
fn answered<'a, T: Send + Unpin + 'a>(
    answers: impl Iterator<Item = (Key<'a>, StoreFuture<'a, T>)> + Send + 'a,
) -> StoreFuture<'a, Batch<T>> {
    StoreFuture::pending(async move {
        let mut results = Vec::new();
        for (_, answer) in answers.filter(|(key, _)| key.name() != b"unanswered") {
            results.push(answer.await);
        }
        Ok(results)
    })
}

/// The stores that were built and have not been fetched by their test, which knows its own by its number of items.
pub(crate) static BUILT: Mutex<Vec<Arc<Troubled>>> = Mutex::new(Vec::new());

pub(crate) fn troubled(
    config: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    _: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let limits = Limits { max_items: config.max_items, max_memory_bytes: 1 << 20, max_value_bytes: 1 << 10 };
    let factory = Arc::clone(&eviction.factory);
    let bytes = factory.bytes_per_entry(eviction.weigh_by);
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let store = Arc::new(Troubled {
        memory: MemoryStore::new(MemoryStoreOptions::new(limits, policy.name, bytes, build)),
        mood: watch::Sender::new(Mood::Well),
        hanging: AtomicU64::new(0),
        most_hanging: AtomicU64::new(0),
    });
    BUILT.lock().expect("no panic").push(Arc::clone(&store));
    store
}
