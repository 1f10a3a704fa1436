//! What a store tells of itself: sums over its shards, looked at one after another.

use std::panic::{self, AssertUnwindSafe};

use super::MemoryStore;
use crate::policy::{Gauge, OverShards};
use crate::store::{Counters, Evictions, Insight, StoreStats};
use crate::sync::Ordering;

/// Expired entries that are counted at most under one hold of a shard's lock: as long as the above.
pub(super) const BACKLOG_STEPS: usize = 1024;

impl MemoryStore {
    /// The counters of all shards, each as it is while its lock is held.
    pub(super) fn read_counters(&self) -> StoreStats {
        let mut total = Counters {
            rejected_oversize: self.rejected_oversize.load(Ordering::Relaxed),
            rejected_capacity: self.rejected_capacity.load(Ordering::Relaxed),
            ..Counters::default()
        };
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            total.entries += shard.directory().items();
            total.memory_bytes += shard.directory().bytes();
            let counters = shard.counters();
            total.hits += counters.hits;
            total.misses += counters.misses;
            total.evictions += counters.evictions;
            total.expired += counters.expired;
            total.rejected_admission += counters.rejected_admission;
            total.replaced += counters.replaced;
            total.deleted += counters.deleted;
            total.cleared += counters.cleared;
            total.swept += counters.swept;
            let (key_bytes, value_bytes) = shard.payload_bytes();
            total.key_bytes += key_bytes;
            total.value_bytes += value_bytes;
            total.largest_shard_bytes = total.largest_shard_bytes.max(shard.directory().bytes());
        }
        total.recoveries = self.recoveries();
        StoreStats {
            counters: total,
            limits: self.limits.get(),
            policy: self.options.policy_name,
            store: "memory",
            shards: self.shards.len(),
        }
    }

    /// What shards and policies tell of their insides.
    pub(super) fn read_insides(&self) -> Insight {
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

    /// Evictions that were sampled since the last time.
    pub(super) fn collect_evictions(&self) -> Evictions {
        let mut all = Evictions::default();
        for index in 0..self.shards.len() {
            let (samples, seen) = self.lock(index).take_evictions();
            all.left_out += seen - samples.len() as u64;
            all.samples.extend(samples);
        }
        all
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
