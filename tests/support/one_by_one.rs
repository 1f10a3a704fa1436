//! A store in front of another one.

use std::sync::Arc;

use engine::{CompareAndSet, Entry, Key, Limits, SetIfAbsent, Store, StoreFuture, StoreStats, Value};

/// Passes everything on but batches, so that it has those that every store comes with.
pub(crate) struct OneByOne {
    pub(crate) store: Arc<dyn Store>,
    /// Is told of each key before it is read.
    pub(crate) before_get: fn(&Key<'_>),
    /// Is asked to tidy up.
    pub(crate) tidy: fn() -> bool,
}

impl Store for OneByOne {
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        (self.before_get)(&key);
        self.store.get(key)
    }
    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()> {
        self.store.set(entry)
    }
    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        self.store.set_if_absent(entry)
    }
    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        self.store.compare_and_set(expected, entry)
    }
    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        self.store.delete(key)
    }
    fn clear(&self) -> StoreFuture<'_, u64> {
        self.store.clear()
    }
    fn sweep(&self) -> StoreFuture<'_, u64> {
        self.store.sweep()
    }
    fn tidy(&self) -> bool {
        (self.tidy)()
    }
    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.store.stats()
    }
    fn limits(&self) -> Limits {
        self.store.limits()
    }
}
