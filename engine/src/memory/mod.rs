//! The sharded in-memory store.
//!
//! # Concurrency
//!
//! A key's hash chooses its shard; a shard is a plain single-threaded structure behind a mutex on a
//! cache line of its own. Everything that can be done outside the lock is: hashing, measuring and
//! dating a write, copying a value of 128 KiB and more into its mapping, and freeing what was removed.
//! Smaller values are copied under the lock, in and out, and so is any where mappings run out.
//!
//! **Lock order.** At most one shard's lock is held at a time. [`MemoryStore::reclaim`]'s own lock is
//! taken before a shard's, never after. So is that of [`resize`], which is never held together with the former.
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
mod cells;
mod limits;
mod outside;
mod pool;
mod records;
mod resize;
mod shard;

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::directory::{Budget, WeighBy};
use crate::key::{HashSeed, Key};
use crate::policy::{EvictionPolicy, Gauge, OverShards};
use crate::store::{
    Batch, CompareAndSet, Counters, Entry, Evictions, Insight, Limits, Recovery, SetIfAbsent, Store,
    StoreError, StoreFuture, StoreStats,
};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::value::Value;

use limits::SharedLimits;
use pool::{Credit, Pool};
use records::NewRecord;
use shard::{HashedKey, Removed, SHARD_BYTES_PER_ENTRY, Shard, Shortage, Write};

/// Makes an empty policy for a capacity in units of its weights and a seed.
pub type BuildPolicy = dyn Fn(u64, u64) -> Box<dyn EvictionPolicy> + Send + Sync;

/// What a memory store is made of.
#[derive(Clone)]
pub struct MemoryStoreOptions {
    /// Limits. `max_value_bytes` above what the memory limit can hold is lowered to it.
    pub limits: Limits,
    /// Whether the policy counts entries or bytes.
    pub weigh_by: WeighBy,
    /// Number of shards, a power of two; `None`: follows from the limits.
    pub shards: Option<usize>,
    /// Name of the policy, for the statistics.
    pub policy_name: &'static str,
    /// Bytes of metadata that the policy keeps for a resident entry, ghosts included.
    pub policy_bytes_per_entry: usize,
    /// Makes each shard's policy.
    pub build_policy: Arc<BuildPolicy>,
    /// Slots of a shard that memory is kept for though nobody has them, beside a quarter of those in use: where there are
    /// more, entries are given other slots, and memory is given back.
    pub spare_slots: usize,
    /// Where the policies' randomness starts.
    pub seed: u64,
    /// The index's secret.
    pub hash_seed: HashSeed,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl MemoryStoreOptions {
    /// Options with these limits and policy; the rest as production wants it.
    #[must_use]
    pub fn new(
        limits: Limits,
        policy_name: &'static str,
        policy_bytes_per_entry: usize,
        build_policy: Arc<BuildPolicy>,
    ) -> Self {
        Self {
            limits,
            weigh_by: if limits.max_items.is_some() { WeighBy::Items } else { WeighBy::Bytes },
            shards: None,
            policy_name,
            policy_bytes_per_entry,
            build_policy,
            spare_slots: SPARE_SLOTS,
            seed: 0,
            hash_seed: HashSeed::random(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Entries that a shard is expected to hold at least, before another shard is worth having.
const MIN_ENTRIES_PER_SHARD: u64 = 32_768;
/// Memory of a shard at least, so that what its partly filled pages hold is little against it.
const MIN_BYTES_PER_SHARD: u64 = 128 << 20;
/// Shards of a store that is too large for one to be expected to be exact. So many threads can read at once, mostly.
const MIN_SHARDS: u64 = 8;
const MAX_SHARDS: u64 = 64;
/// Shards for each processor at the most: what a shard's partly filled pages hold is not to be had for nothing.
const SHARDS_PER_PROCESSOR: u64 = 4;
/// The same where memory alone is limited, so that every byte that holds no entry is one entry less.
const SHARDS_PER_PROCESSOR_BY_MEMORY: u64 = 2;
/// Mean bytes of an entry, assumed where only memory is limited.
const ASSUMED_ENTRY_BYTES: u64 = 512;
/// See [`MemoryStoreOptions::spare_slots`].
const SPARE_SLOTS: usize = 4096;
/// Steps of a sweep under one hold of a shard's lock: tens of microseconds.
const SWEEP_STEPS: usize = 256;
/// Expired entries that are counted at most under one hold of a shard's lock: as long as the above.
const BACKLOG_STEPS: usize = 1024;

/// Puts each shard on cache lines of its own, two of them since some processors fetch pairs.
#[repr(align(128))]
struct Padded<T>(T);

/// Entries in this process's memory.
pub struct MemoryStore {
    shards: Box<[Padded<Mutex<Shard>>]>,
    /// How far to shift a hash right to get its shard; 64 stands for one shard.
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
    /// If the number of shards is not a power of two.
    #[must_use]
    pub fn new(options: MemoryStoreOptions) -> Self {
        let bytes_per_entry = SHARD_BYTES_PER_ENTRY + options.policy_bytes_per_entry;
        let limits = limits::possible(options.limits);

        let shards = options.shards.unwrap_or_else(|| default_shards(&limits));
        assert!(shards.is_power_of_two(), "the number of shards is a power of two, not {shards}");
        let pool = Pool::new(limits::budget(&limits), shards as u64);
        let store_shards = (0..shards)
            .map(|index| {
                let policy = build_policy(&options, &limits, shards, index);
                let budget = if shards == 1 { pool.take_all() } else { Budget { items: 0, bytes: 0 } };
                Padded(Mutex::new(Shard::new(
                    policy,
                    budget,
                    options.weigh_by,
                    options.hash_seed.clone(),
                    bytes_per_entry,
                    options.spare_slots,
                )))
            })
            .collect();
        Self {
            shards: store_shards,
            shard_shift: u64::BITS - shards.trailing_zeros(),
            pool,
            limits: SharedLimits::new(&limits),
            rejected_oversize: AtomicU64::new(0),
            rejected_capacity: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            recoveries_told: AtomicU64::new(0),
            reclaiming: Mutex::new(()),
            resizing: Mutex::new(()),
            bytes_per_entry,
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

    fn hashed<'a>(&self, key: Key<'a>) -> HashedKey<'a> {
        HashedKey { key, hash: self.options.hash_seed.hash(&key) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than the number of shards")]
    fn shard_of(&self, hash: u64) -> usize {
        hash.checked_shr(self.shard_shift).unwrap_or(0) as usize
    }

    fn now_nanos(&self) -> u64 {
        nanos(self.options.clock.now())
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        let mutex = &self.shards[index].0;
        mutex.lock().unwrap_or_else(|poisoned| self.recover(index, poisoned))
    }

    /// Empties a shard whose policy panicked: what it holds can no longer be trusted.
    #[cold]
    fn recover<'a>(
        &'a self,
        index: usize,
        poisoned: PoisonError<MutexGuard<'a, Shard>>,
    ) -> MutexGuard<'a, Shard> {
        let mut shard = poisoned.into_inner();
        let policy = build_policy(&self.options, &self.limits.get(), self.shards.len(), index);
        let old = shard.reset(policy, self.options.weigh_by, self.options.hash_seed.clone());
        self.settle(&mut shard);
        self.shards[index].0.clear_poison();
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        drop(shard);
        // To free all of it takes its time, and a policy that panics may do so at its end as well.
        drop(old);
        self.lock(index)
    }

    /// Copies and measures an entry before any lock is taken.
    #[inline]
    fn write<'a>(&self, entry: &Entry<'a>) -> Result<Write<'a>, StoreError> {
        let size = entry.value.len() as u64;
        let limit = self.limits.max_value_bytes();
        if size > limit {
            self.rejected_oversize.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::ValueTooLarge { size, limit });
        }
        let deadline_nanos = entry.ttl.map(|ttl| self.now_nanos().saturating_add(nanos(ttl)));
        let record = NewRecord::new(&entry.key, entry.value, deadline_nanos);
        let charge = self.bytes_per_entry + record.charge();
        Ok(Write {
            key: self.hashed(entry.key),
            record,
            charge: u32::try_from(charge).expect("max_value_bytes keeps entries below 4 GiB"),
        })
    }

    /// Runs a write on its shard, lending and reclaiming room as it needs.
    #[inline]
    fn run_write<'a, T>(
        &self,
        entry: &Entry<'a>,
        mut operation: impl FnMut(&mut Shard, &mut Write<'a>, &mut Removed) -> Result<T, Shortage>,
    ) -> Result<T, StoreError> {
        let write = &mut self.write(entry)?;
        let index = self.shard_of(write.key.hash);
        let charge = write.charge;
        // Room taken from other shards for this write alone.
        let mut credit = Credit::none(&self.pool);
        let mut reclaiming = None;
        loop {
            // Asked each time: the limit may have been lowered since.
            if u64::from(charge) > self.limits.max_memory_bytes() {
                return Err(self.exhausted(charge));
            }
            let mut removed = Removed::default();
            let mut shard = self.lock(index);
            self.top_up(&mut shard, charge, credit.spend());
            let shortage = match operation(&mut shard, write, &mut removed) {
                Ok(done) => {
                    self.settle(&mut shard);
                    drop(shard);
                    return Ok(done);
                }
                // What the shard was lent so far stays there for the next attempt.
                Err(undone) => undone,
            };
            drop(shard);
            drop(removed);
            if self.shards.len() == 1 {
                return Err(self.exhausted(charge));
            }
            // One at a time, or two could each hold half of what either needs.
            if reclaiming.is_none() {
                reclaiming = Some(self.reclaiming.lock().unwrap_or_else(PoisonError::into_inner));
            }
            credit = self.reclaim(index, shortage);
        }
    }

    #[cold]
    fn exhausted(&self, charge: u32) -> StoreError {
        self.rejected_capacity.fetch_add(1, Ordering::Relaxed);
        StoreError::CapacityExhausted { needed: charge.into(), limit: self.limits.max_memory_bytes() }
    }

    /// Adds to a shard's budget what an entry of this charge needs, as far as the pool has it.
    fn top_up(&self, shard: &mut Shard, charge: u32, credit: Budget) {
        // A single shard has everything from the start.
        if self.shards.len() == 1 {
            return;
        }
        let directory = shard.directory();
        let mut budget = directory.budget();
        budget.items = budget.items.saturating_add(credit.items);
        budget.bytes += credit.bytes;
        let items = (directory.items() + 1).saturating_sub(budget.items);
        let bytes = (directory.bytes() + u64::from(charge)).saturating_sub(budget.bytes);
        let loan = self.pool.lend(items, bytes);
        budget.items = budget.items.saturating_add(loan.items);
        budget.bytes += loan.bytes;
        shard.set_budget(budget);
    }

    /// Gives back what a shard has been lent far beyond its use.
    #[inline]
    fn settle(&self, shard: &mut Shard) {
        // A single shard keeps everything.
        if self.shards.len() > 1 {
            let (directory, slack) = (shard.directory(), self.pool.slack());
            let budget = directory.budget();
            if budget.items.saturating_sub(directory.items()) > slack.items
                || budget.bytes.saturating_sub(directory.bytes()) > slack.bytes
            {
                self.give_back_spare(shard, slack);
            }
        }
    }

    #[cold]
    fn give_back_spare(&self, shard: &mut Shard, slack: Budget) {
        let budget = shard.directory().budget();
        let spare = |budget: u64, used: u64, slack: u64| {
            let unused = budget.saturating_sub(used);
            if unused > slack { unused - slack / 2 } else { 0 }
        };
        let back = Budget {
            items: spare(budget.items, shard.directory().items(), slack.items),
            bytes: spare(budget.bytes, shard.directory().bytes(), slack.bytes),
        };
        shard.set_budget(Budget { items: budget.items - back.items, bytes: budget.bytes - back.bytes });
        self.pool.give_back(back);
    }

    /// Takes room from the other shards, evicting as it must, until the shortage is made up or
    /// nothing is left to take.
    fn reclaim(&self, wanting: usize, shortage: Shortage) -> Credit<'_> {
        let mut credit = Credit::none(&self.pool);
        credit.budget = self.pool.lend(shortage.items, shortage.bytes);
        let shards = self.shards.len();
        for index in (wanting + 1..wanting + shards).map(|index| index % shards) {
            loop {
                let missing = Budget {
                    items: shortage.items.saturating_sub(credit.budget.items),
                    bytes: shortage.bytes.saturating_sub(credit.budget.bytes),
                };
                if missing.items == 0 && missing.bytes == 0 {
                    return credit;
                }
                let mut removed = Removed::default();
                let mut shard = self.lock(index);
                let directory = shard.directory();
                let budget = directory.budget();
                let taken = Budget {
                    items: missing.items.min(budget.items - directory.items()),
                    bytes: missing.bytes.min(budget.bytes.saturating_sub(directory.bytes())),
                };
                shard.set_budget(Budget {
                    items: budget.items - taken.items,
                    bytes: budget.bytes - taken.bytes,
                });
                credit.budget.items += taken.items;
                credit.budget.bytes += taken.bytes;
                if taken.items == 0 && taken.bytes == 0 && !shard.evict_one(|| self.now_nanos(), &mut removed)
                {
                    break;
                }
            }
        }
        credit
    }
}

fn build_policy(
    options: &MemoryStoreOptions,
    limits: &Limits,
    shards: usize,
    index: usize,
) -> Box<dyn EvictionPolicy> {
    let capacity = limits::policy_capacity(limits, options.weigh_by, shards);
    (options.build_policy)(capacity, options.seed.wrapping_add(index as u64))
}

fn default_shards(limits: &Limits) -> usize {
    let by_memory = limits.max_memory_bytes / ASSUMED_ENTRY_BYTES;
    let entries = limits.max_items.unwrap_or(u64::MAX).min(by_memory);
    let by_items = match entries / MIN_ENTRIES_PER_SHARD {
        0 | 1 => 1,
        shards => shards.max(MIN_SHARDS),
    };
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let each = if limits.max_items.is_some() { SHARDS_PER_PROCESSOR } else { SHARDS_PER_PROCESSOR_BY_MEMORY };
    let most = (processors * each).min(MAX_SHARDS);
    let shards = by_items.min(limits.max_memory_bytes / MIN_BYTES_PER_SHARD).clamp(1, most);
    1 << shards.ilog2()
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        let key = self.hashed(key);
        let mut removed = Removed::default();
        let value = self.lock(self.shard_of(key.hash)).get(key, || self.now_nanos(), &mut removed);
        StoreFuture::ready(Ok(value))
    }

    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()> {
        StoreFuture::ready(
            self.run_write(&entry, |shard, write, removed| shard.set(write, || self.now_nanos(), removed)),
        )
    }

    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        StoreFuture::ready(self.run_write(&entry, |shard, write, removed| {
            shard.set_if_absent(write, || self.now_nanos(), removed)
        }))
    }

    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        StoreFuture::ready(self.run_write(&entry, |shard, write, removed| {
            shard.compare_and_set(expected, write, || self.now_nanos(), removed)
        }))
    }

    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        let key = self.hashed(key);
        let mut removed = Removed::default();
        let mut shard = self.lock(self.shard_of(key.hash));
        let deleted = shard.delete(key, || self.now_nanos(), &mut removed);
        self.settle(&mut shard);
        drop(shard);
        StoreFuture::ready(Ok(deleted))
    }

    fn get_many<'a>(&'a self, keys: &'a [Key<'a>]) -> StoreFuture<'a, Batch<Option<Value>>> {
        let mut removed = Removed::default();
        let mut results: Batch<Option<Value>> = keys.iter().map(|_| Ok(None)).collect();
        self.by_shard(keys.iter().map(|&key| self.hashed(key)), |shard, position, key| {
            results[position] = Ok(shard.get(key, || self.now_nanos(), &mut removed));
        });
        StoreFuture::ready(Ok(results))
    }

    fn set_many<'a>(&'a self, entries: &'a [Entry<'a>]) -> StoreFuture<'a, Batch<()>> {
        // Each write may have to lend or reclaim on its own, so the locks are not worth grouping.
        let results = entries.iter().map(|entry| {
            self.run_write(entry, |shard, write, removed| shard.set(write, || self.now_nanos(), removed))
        });
        StoreFuture::ready(Ok(results.collect()))
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key<'a>]) -> StoreFuture<'a, Batch<bool>> {
        let mut removed = Removed::default();
        let mut results: Batch<bool> = keys.iter().map(|_| Ok(false)).collect();
        self.by_shard(keys.iter().map(|&key| self.hashed(key)), |shard, position, key| {
            results[position] = Ok(shard.delete(key, || self.now_nanos(), &mut removed));
        });
        StoreFuture::ready(Ok(results))
    }

    fn clear(&self) -> StoreFuture<'_, u64> {
        let mut cleared = 0;
        for index in 0..self.shards.len() {
            let policy = build_policy(&self.options, &self.limits.get(), self.shards.len(), index);
            let mut shard = self.lock(index);
            cleared += shard.directory().items();
            let old = shard.reset(policy, self.options.weigh_by, self.options.hash_seed.clone());
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
                let before = shard.counters.expired;
                let more = shard.sweep(now_nanos, &mut steps, &mut removed);
                swept += shard.counters.expired - before;
                self.settle(&mut shard);
                more
            });
            std::thread::yield_now();
        }
        StoreFuture::ready(Ok(swept))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        let mut total = Counters {
            rejected_oversize: self.rejected_oversize.load(Ordering::Relaxed),
            rejected_capacity: self.rejected_capacity.load(Ordering::Relaxed),
            ..Counters::default()
        };
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            total.entries += shard.directory().items();
            total.memory_bytes += shard.directory().bytes();
            total.hits += shard.counters.hits;
            total.misses += shard.counters.misses;
            total.evictions += shard.counters.evictions;
            total.expired += shard.counters.expired;
            total.rejected_admission += shard.counters.rejected_admission;
            total.replaced += shard.counters.replaced;
            total.deleted += shard.counters.deleted;
            total.cleared += shard.counters.cleared;
            total.swept += shard.counters.swept;
            let (key_bytes, value_bytes) = shard.payload_bytes();
            total.key_bytes += key_bytes;
            total.value_bytes += value_bytes;
            total.largest_shard_bytes = total.largest_shard_bytes.max(shard.directory().bytes());
        }
        total.recoveries = self.recoveries();
        StoreFuture::ready(Ok(StoreStats {
            counters: total,
            limits: self.limits.get(),
            policy: self.options.policy_name,
            store: "memory",
            shards: self.shards.len(),
        }))
    }

    fn insight(&self) -> Insight {
        let now_nanos = self.now_nanos();
        let mut insight = Insight::default();
        let mut gauges = ShardGauges::default();
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            insight.sweep_backlog += shard.expired_residents(now_nanos, BACKLOG_STEPS);
            // What only tells cannot have changed anything: the entries need not go if it panics.
            let policy = AssertUnwindSafe(shard.directory().policy());
            let told = panic::catch_unwind(|| {
                let mut told = Vec::new();
                policy.gauges(&mut |gauge| told.push(gauge));
                told
            });
            drop(shard);
            told.unwrap_or_else(|panic| panic::resume_unwind(panic))
                .into_iter()
                .for_each(|gauge| gauges.add(gauge));
        }
        insight.policy = gauges.over_shards(self.shards.len());
        insight
    }

    fn take_evictions(&self) -> Evictions {
        let mut all = Evictions::default();
        for index in 0..self.shards.len() {
            let (samples, seen) = self.lock(index).take_evictions();
            all.left_out += seen - samples.len() as u64;
            all.samples.extend(samples);
        }
        all
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

/// The gauges of all shards' policies.
#[derive(Default)]
struct ShardGauges(Vec<Gauge>);

impl ShardGauges {
    fn add(&mut self, gauge: Gauge) {
        match self.0.iter_mut().find(|sum| sum.name == gauge.name) {
            Some(sum) => sum.value += gauge.value,
            None => self.0.push(gauge),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few shards")]
    fn over_shards(mut self, shards: usize) -> Vec<Gauge> {
        for gauge in &mut self.0 {
            if gauge.over_shards == OverShards::Mean {
                gauge.value /= shards as f64;
            }
        }
        self.0
    }
}

impl MemoryStore {
    /// Visits the keys of a batch shard by shard, each shard's lock taken once, keys of one shard in
    /// the order of the batch.
    fn by_shard<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = HashedKey<'k>>,
        mut visit: impl FnMut(&mut Shard, usize, HashedKey<'k>),
    ) {
        let mut order: Vec<(usize, usize, HashedKey<'k>)> =
            keys.enumerate().map(|(position, key)| (self.shard_of(key.hash), position, key)).collect();
        if self.shards.len() > 1 {
            order.sort_unstable_by_key(|&(shard, position, _)| (shard, position));
        }
        for group in order.chunk_by(|left, right| left.0 == right.0) {
            let mut shard = self.lock(group[0].0);
            for &(_, position, key) in group {
                visit(&mut shard, position, key);
            }
            self.settle(&mut shard);
        }
    }
}
