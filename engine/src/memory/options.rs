//! What a memory store is made of, and how many shards it has where nobody says.

use std::sync::Arc;

use super::blocking::RunBlocking;
use super::limits;
use crate::clock::{Clock, SystemClock};
use crate::directory::WeighBy;
use crate::key::HashSeed;
use crate::policy::EvictionPolicy;
use crate::store::Limits;

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
    /// Bytes of metadata that the policy keeps for a resident entry, ghosts included, where it counts what `weigh_by` says.
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
    /// Runs what blocks the calling thread for long: the pauses of a write that many entries have to leave for, of a sweep
    /// and of new limits, what such a write takes from other shards, and waiting for another one. By itself it is just run.
    pub run_blocking: RunBlocking,
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
            run_blocking: |work| work(),
        }
    }
}

/// Entries that a shard is expected to hold at least, before another shard is worth having.
const MIN_ENTRIES_PER_SHARD: u64 = 32_768;
/// Memory of a shard at least, so that what its partly filled pages hold is little against it.
const MIN_BYTES_PER_SHARD: u64 = 128 << 20;
/// Shards of a store that is too large for one to be expected to be exact. So many threads can read at once, mostly.
const MIN_SHARDS: u64 = 16;
const MAX_SHARDS: u64 = 64;
/// Shards for each processor at the most: what a shard's partly filled pages hold is not to be had for nothing.
const SHARDS_PER_PROCESSOR: u64 = 8;
/// The same where memory alone is limited, so that every byte that holds no entry is one entry less.
const SHARDS_PER_PROCESSOR_BY_MEMORY: u64 = 2;
/// Mean bytes of an entry, assumed where only memory is limited.
const ASSUMED_ENTRY_BYTES: u64 = 512;
/// See [`MemoryStoreOptions::spare_slots`].
const SPARE_SLOTS: usize = 4096;
/// The policy of the shard at this index.
pub(super) fn build_policy(
    options: &MemoryStoreOptions,
    limits: &Limits,
    shards: usize,
    index: usize,
) -> Box<dyn EvictionPolicy> {
    let capacity = limits::policy_capacity(limits, options.weigh_by, shards);
    (options.build_policy)(capacity, options.seed.wrapping_add(index as u64))
}

/// How many shards are worth having for these limits on this machine.
pub(super) fn default_shards(limits: &Limits) -> usize {
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
