//! The sharded in-memory store.
//!
//! # Concurrency
//!
//! A key's hash chooses its shard; a shard is a plain single-threaded structure behind a [`Lock`] on
//! cache lines of its own. Everything that can be done outside the lock is: hashing, measuring and
//! dating a write, copying a value of 128 KiB and more into its mapping, and freeing what was removed.
//! Smaller values are copied under the lock, in and out, and so is any where mappings run out.
//!
//! **Lock order.** At most one shard's lock is held at a time. [`MemoryStore::reclaim`]'s own lock is
//! taken before a shard's, never after, and so it is by a write that evicts under several holds. So is that of [`resize`], which is
//! never held together with the former.
//! That of [`Frames`] is taken after a shard's, or with none: where cells need another frame or give one back, which is
//! also when chunks are mapped and unmapped, and where full ones are looked for. So is that of the [zone], where a part of the index
//! grows or shrinks, and that of large [tables](table), where one of those does. Nothing else is locked under any of them.
//!
//! # Limits
//!
//! One shard is exact: an LRU of one shard is LRU to the entry. Several shards share the limits
//! through a [`Pool`]; a shard that has spent its budget and finds the pool empty evicts entries of
//! its own, and only for a value larger than all it has does it take room from other shards. So no
//! number of shards makes a value of the permitted size unstorable, and the limits always hold.
//!
//! # A panic under the lock
//!
//! A policy is a plug-in. If it panics, the shard's contents can no longer be trusted: the next
//! operation finds the lock poisoned, empties that shard, gives it a fresh policy and goes on.

mod ages;
mod blocking;
mod cells;
mod lending;
mod limits;
mod options;
mod outside;
mod places;
mod pool;
mod record;
mod records;
mod resize;
mod shard;
mod statistics;
#[cfg(test)]
mod tests;
mod writes;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::directory::Budget;
use crate::frames::Frames;
use crate::index::{Signpost, Signposts};
use crate::key::Key;
use crate::lock::{Guard, Lock};
use crate::store::{
    Batch, CompareAndSet, Entry, Evictions, Insight, Limits, Recovery, SetIfAbsent, Store, StoreFuture,
    StoreStats,
};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::value::Value;
use crate::{table, zone};

use limits::SharedLimits;
use options::{build_policy, default_shards};
use pool::Pool;
use records::{MOST_RECORD_BYTES, Records};
use shard::{HashedKey, Read, Removed, SHARD_BYTES_PER_ENTRY, Shard};

pub use blocking::RunBlocking;
pub use options::{BuildPolicy, MemoryStoreOptions};

/// Steps of a sweep under one hold of a shard's lock: tens of microseconds.
const SWEEP_STEPS: usize = 256;
/// Between rounds through all shards, where more has expired: for requests on a machine without an idle processor.
const SWEEP_PAUSE: Duration = Duration::from_micros(100);
/// Keys of a batch whose places in the index are asked for together.
const APPROACHED: usize = 16;
/// Bytes of entries from which on those of a batch are asked for together: more than processors have near them.
const FAR_BYTES: u64 = 64 << 20;

/// Whether the keys of a batch may come in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newcomers {
    Expected,
    None,
}

/// Puts each shard on cache lines of its own, two of them since some processors fetch pairs.
#[repr(align(128))]
struct Padded<T>(T);

/// Entries in this process's memory.
pub struct MemoryStore {
    shards: Box<[Padded<Lock<Shard>>]>,
    /// To the shards' indexes.
    signposts: Signposts,
    /// Where the shards' cells lie.
    frames: Arc<Frames>,
    /// How far to shift the higher 63 bits of a hash right to get its shard.
    shard_shift: u32,
    pool: Pool,
    limits: SharedLimits,
    rejected_oversize: AtomicU64,
    rejected_capacity: AtomicU64,
    recoveries: AtomicU64,
    /// Those of them that somebody was told of.
    recoveries_told: AtomicU64,
    reclaiming: Mutex<()>,
    resizing: Mutex<()>,
    bytes_per_entry: usize,
    /// Whether the policy looks at no key's fingerprint, which then need not be made.
    ignores_fingerprints: bool,
    options: MemoryStoreOptions,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl MemoryStore {
    /// An empty store.
    ///
    /// # Panics
    ///
    /// If the number of shards is not a power of two, or the policy says that its metadata for an entry takes a MiB.
    #[must_use]
    pub fn new(options: MemoryStoreOptions) -> Self {
        let bytes_per_entry = SHARD_BYTES_PER_ENTRY + options.policy_bytes_per_entry;
        assert!(
            bytes_per_entry < limits::MOST_BESIDE - MOST_RECORD_BYTES,
            "{bytes_per_entry} bytes for an entry"
        );
        let limits = limits::possible(options.limits);

        let shards = options.shards.unwrap_or_else(|| default_shards(&limits));
        assert!(shards.is_power_of_two(), "the number of shards is a power of two, not {shards}");
        let pool = Pool::new(limits::budget(&limits), shards as u64);
        let (signposts, frames) = (Signposts::new(shards), Arc::<Frames>::default());
        let mut ignores_fingerprints = true;
        let store_shards = (0..shards)
            .map(|index| {
                let policy = build_policy(&options, &limits, shards, index);
                ignores_fingerprints &= policy.ignores_hashes();
                let budget = if shards == 1 { pool.take_all() } else { Budget { items: 0, bytes: 0 } };
                let signpost = Signpost { among: signposts.clone(), index };
                let records = Records::new(options.hash_seed.clone(), signpost, Arc::clone(&frames));
                let shard = Shard::new(
                    policy,
                    budget,
                    options.weigh_by,
                    records,
                    bytes_per_entry,
                    options.spare_slots,
                );
                Padded(Lock::new(shard))
            })
            .collect();
        Self {
            shards: store_shards,
            signposts,
            frames,
            shard_shift: u64::BITS - 1 - shards.trailing_zeros(),
            pool,
            limits: SharedLimits::new(&limits),
            rejected_oversize: AtomicU64::new(0),
            rejected_capacity: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            recoveries_told: AtomicU64::new(0),
            reclaiming: Mutex::new(()),
            resizing: Mutex::new(()),
            bytes_per_entry,
            ignores_fingerprints,
            options,
        }
    }

    /// How often a shard was emptied because its policy panicked.
    #[must_use]
    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// Checks every shard and that their budgets add up to the limits.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold. No other thread may be using the store.
    pub fn check_invariants(&self) {
        let mut lent = self.pool.take_all();
        self.pool.give_back(lent);
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            shard.check_invariants();
            let budget = shard.directory().budget();
            lent.items = lent.items.saturating_add(budget.items);
            lent.bytes = lent.bytes.saturating_add(budget.bytes);
        }
        let (limits, debt) = (self.limits.get(), self.pool.debt());
        assert_eq!(
            lent.bytes,
            limits.max_memory_bytes + debt.bytes,
            "bytes lent and unlent make up the limit"
        );
        if let Some(max_items) = limits.max_items {
            assert_eq!(lent.items, max_items + debt.items, "items lent and unlent make up the limit");
        }
    }

    /// A key with its hash. What the index has under that is asked for: it may arrive while the lock is waited for.
    #[inline]
    fn approached<'k>(&self, key: &'k Key<'k>) -> HashedKey<'k> {
        let hash = self.options.hash_seed.hash(key);
        self.signposts.prefetch(self.shard_of(hash), hash);
        HashedKey { key, hash }
    }

    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 1 >> self.shard_shift) as usize
    }

    fn now_nanos(&self) -> u64 {
        nanos(self.options.clock.now())
    }

    fn lock(&self, index: usize) -> Guard<'_, Shard> {
        #[cfg(test)]
        tests::HOLDS.set(tests::HOLDS.get() + 1);
        let lock = &self.shards[index].0;
        lock.lock().unwrap_or_else(|poisoned| self.recover(index, poisoned))
    }

    /// Empties a shard whose policy panicked: what it holds can no longer be trusted.
    #[cold]
    fn recover<'a>(&'a self, index: usize, poisoned: PoisonError<Guard<'a, Shard>>) -> Guard<'a, Shard> {
        let mut shard = poisoned.into_inner();
        let policy = build_policy(&self.options, &self.limits.get(), self.shards.len(), index);
        let old = shard.reset(policy, self.options.weigh_by);
        self.settle(&mut shard);
        self.shards[index].0.clear_poison();
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        drop(shard);
        // To free all of it takes its time, and a policy that panics may do so at its end as well.
        drop(old);
        self.lock(index)
    }

    /// [Approaches](Self::approached) so many keys of a batch at a time, and then their records; their hashes.
    fn approach_all<'k>(
        &self,
        keys: impl Iterator<Item = &'k Key<'k>> + Clone,
        newcomers: Newcomers,
    ) -> [u64; APPROACHED] {
        let mut hashes = [0; APPROACHED];
        for (hash, key) in hashes.iter_mut().zip(keys.clone()) {
            *hash = self.approached(key).hash;
        }
        self.approach_records(keys.zip(hashes), newcomers);
        hashes
    }

    /// Asks for what is probably under these hashes, where there is so much that most of it is in no near cache: the records arrive together.
    fn approach_records<'k>(&self, keys: impl Iterator<Item = (&'k Key<'k>, u64)>, newcomers: Newcomers) {
        for (key, hash) in keys {
            let fingerprint = (newcomers == Newcomers::Expected).then(|| self.fingerprint(key));
            let mut shard = self.lock(self.shard_of(hash));
            if shard.directory().bytes() < FAR_BYTES / self.shards.len() as u64 {
                return;
            }
            shard.prefetch(hash);
            if let Some(fingerprint) = fingerprint {
                shard.prefetch_for(fingerprint);
            }
        }
    }

    /// What the policy knows a key by; 0 where it looks at none.
    #[inline]
    fn fingerprint(&self, key: &Key<'_>) -> u64 {
        if self.ignores_fingerprints { 0 } else { key.fingerprint() }
    }

    /// Reads a key's live value, if there is one, to where it is wanted.
    #[inline]
    fn read(&self, index: usize, key: HashedKey<'_>, value: &mut Option<Value>) {
        let mut shard = self.lock(index);
        match shard.get(key, || self.now_nanos(), value) {
            Read::Done => shard.release(),
            left => self.finish(shard, left),
        }
    }

    #[cold]
    #[inline(never)]
    fn finish(&self, mut shard: Guard<'_, Shard>, left: Read) {
        let mut removed = Removed::default();
        shard.finish(left, || self.now_nanos(), &mut removed);
        drop(shard);
    }

    /// Removes a key; whether a live value was there.
    fn remove(&self, key: HashedKey<'_>) -> bool {
        let mut removed = Removed::default();
        let mut shard = self.lock(self.shard_of(key.hash));
        let deleted = shard.delete(key, || self.now_nanos(), &mut removed);
        self.settle(&mut shard);
        shard.release();
        deleted
    }
}

impl Store for MemoryStore {
    #[inline]
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        let mut answer = StoreFuture::ready(Ok(None));
        if let StoreFuture::Ready(Some(Ok(value))) = &mut answer {
            let key = self.approached(&key);
            self.read(self.shard_of(key.hash), key, value);
        }
        answer
    }

    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()> {
        StoreFuture::ready(self.store(&entry, self.approached(&entry.key).hash))
    }

    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        let hash = self.approached(&entry.key).hash;
        StoreFuture::ready(self.run_write(&entry, hash, |shard, write, removed| {
            shard.set_if_absent(write, || self.now_nanos(), removed)
        }))
    }

    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        let hash = self.approached(&entry.key).hash;
        StoreFuture::ready(self.compare(expected, &entry, hash))
    }

    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        StoreFuture::ready(Ok(self.remove(self.approached(&key))))
    }

    // Locks are not grouped in the batches: sorting the keys by their shards takes more than a lock, reads are to stop at an
    // end in the order of the request, and each write may have to lend or reclaim on its own.

    fn get_many<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        max_bytes: usize,
    ) -> StoreFuture<'a, Batch<Option<Value>>> {
        let mut results = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        'batch: for keys in keys.chunks(APPROACHED) {
            for (key, hash) in keys.iter().zip(self.approach_all(keys.iter(), Newcomers::None)) {
                // Read to where it stays: to move a value takes as long as to read it.
                if let Ok(value) = results.push_mut(Ok(None)) {
                    self.read(self.shard_of(hash), HashedKey { key, hash }, value);
                    bytes += value.as_ref().map_or(0, |value| value.len());
                }
                if bytes >= max_bytes {
                    break 'batch;
                }
            }
        }
        StoreFuture::ready(Ok(results))
    }

    fn set_many<'a>(&'a self, entries: &'a [Entry<'a>]) -> StoreFuture<'a, Batch<()>> {
        let results = entries.chunks(APPROACHED).flat_map(|entries| {
            let hashes = self.approach_all(entries.iter().map(|entry| &entry.key), Newcomers::Expected);
            entries.iter().zip(hashes).map(|(entry, hash)| self.store(entry, hash))
        });
        StoreFuture::ready(Ok(results.collect()))
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key<'a>]) -> StoreFuture<'a, Batch<bool>> {
        let results = keys.chunks(APPROACHED).flat_map(|keys| {
            let hashes = self.approach_all(keys.iter(), Newcomers::None);
            keys.iter().zip(hashes).map(|(key, hash)| Ok(self.remove(HashedKey { key, hash })))
        });
        StoreFuture::ready(Ok(results.collect()))
    }

    fn clear(&self) -> StoreFuture<'_, u64> {
        let mut cleared = 0;
        for index in 0..self.shards.len() {
            let policy = build_policy(&self.options, &self.limits.get(), self.shards.len(), index);
            let mut shard = self.lock(index);
            cleared += shard.directory().items();
            let old = shard.reset(policy, self.options.weigh_by);
            self.settle(&mut shard);
            drop(shard);
            drop(old);
        }
        StoreFuture::ready(Ok(cleared))
    }

    fn sweep(&self) -> StoreFuture<'_, u64> {
        let now_nanos = self.now_nanos();
        let mut swept = 0;
        let mut unfinished: Vec<usize> = (0..self.shards.len()).collect();
        while !unfinished.is_empty() {
            // In turns, and not one shard to its end: a lock is not handed to who waits for it, so whoever takes it
            // again at once may keep the others out for long.
            unfinished.retain(|&index| {
                let mut removed = Removed::default();
                let mut steps = SWEEP_STEPS;
                let mut shard = self.lock(index);
                let before = shard.counters().expired;
                let more = shard.sweep(now_nanos, &mut steps, &mut removed);
                swept += shard.counters().expired - before;
                self.settle(&mut shard);
                more
            });
            if !unfinished.is_empty() {
                self.pause(SWEEP_PAUSE);
            }
        }
        StoreFuture::ready(Ok(swept))
    }

    fn tidy(&self) -> bool {
        self.frames.merge_one() || zone::merge_one() || table::merge_one()
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        StoreFuture::ready(Ok(self.read_counters()))
    }

    fn insight(&self) -> Insight {
        self.read_insides()
    }

    fn take_evictions(&self) -> Evictions {
        self.collect_evictions()
    }

    fn recover(&self) -> Recovery {
        for index in 0..self.shards.len() {
            drop(self.lock(index));
        }
        let recoveries = self.recoveries();
        let told = self.recoveries_told.swap(recoveries, Ordering::Relaxed);
        Recovery { emptied_shards: recoveries.saturating_sub(told), policy: self.options.policy_name }
    }

    fn limits(&self) -> Limits {
        self.limits.get()
    }

    fn set_limits(&self, limits: Limits) -> StoreFuture<'_, u64> {
        StoreFuture::ready(self.resize(limits))
    }
}
