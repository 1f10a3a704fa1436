//! The cache itself: what its store counts, holds and evicts, and what its policy tells.
//!
//! # Distributions
//!
//! How old an entry is when it is evicted is known only under a shard's lock, at up to a million evictions a second, and
//! OpenTelemetry has no histogram that could be observed like a counter. Handing on counts per bucket and recording the
//! middle of each would falsify sums. So the store keeps a bounded, fair sample of its evictions and [`StoreMetrics`]
//! records every one of them, as it was, in ordinary histograms, which Prometheus and OTLP both see as such: before
//! every snapshot, so that a scrape shows all until then, and after every sweep, so that hardly any has to be left out
//! where nobody scrapes. Recording costs some fifty nanoseconds each, outside of every lock of the store.
//!
//! The histograms' shapes, means and quantiles are those of all evictions; their counts are those of the sample.

use std::time::Duration;

use engine::Evictions;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter as Counts, Histogram, Meter};

use crate::telemetry::history::Durations;

use super::Snapshot;
use super::catalogue::Source::{Counter, Counters, Gauge, Gauges, Measure, Measures};
use super::catalogue::{Distribution, Metric, Observe, REQUEST_SECONDS};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "tiny_cache.hits",
        unit: "{hit}",
        description: "Reads that found a live entry.",
        source: Counter(|s| s.store.counters.hits),
    },
    Metric {
        name: "tiny_cache.misses",
        unit: "{miss}",
        description: "Reads that found no live entry.",
        source: Counter(|s| s.store.counters.misses),
    },
    Metric {
        name: "tiny_cache.evictions",
        unit: "{entry}",
        description: "Entries removed for room.",
        source: Counter(|s| s.store.counters.evictions),
    },
    Metric {
        name: "tiny_cache.lru_evictions",
        unit: "{entry}",
        description: "Entries removed for room, whatever the policy: the same as tiny_cache_evictions_total.",
        source: Counter(|s| s.store.counters.evictions),
    },
    Metric {
        name: "tiny_cache.expired_removals",
        unit: "{entry}",
        description: "Entries removed for age.",
        source: Counter(|s| s.store.counters.expired),
    },
    Metric {
        name: "tiny_cache.rejected_oversize",
        unit: "{write}",
        description: "Writes refused because the value is over the per-value limit.",
        source: Counter(|s| s.store.counters.rejected_oversize),
    },
    Metric {
        name: "tiny_cache.rejected_capacity",
        unit: "{write}",
        description: "Writes refused because no eviction could make room.",
        source: Counter(|s| s.store.counters.rejected_capacity),
    },
    Metric {
        name: "tiny_cache.entries",
        unit: "{entry}",
        description: "Resident entries.",
        source: Gauge(|s| s.store.counters.entries),
    },
    Metric {
        name: "tiny_cache.memory_usage",
        unit: "By",
        description: "Bytes charged to resident entries: keys, values and bookkeeping.",
        source: Gauge(|s| s.store.counters.memory_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.max_items",
        unit: "{entry}",
        description: "Limit on entries; 18446744073709551615 where there is none.",
        // No whole number, of which OTLP has only those below 2^63.
        source: Measure(max_items),
    },
    Metric {
        name: "tiny_cache.capacity.max_memory",
        unit: "By",
        description: "Limit on the bytes charged to all entries together.",
        source: Gauge(|s| s.store.limits.max_memory_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.max_value",
        unit: "By",
        description: "Limit on the bytes of one value.",
        source: Gauge(|s| s.store.limits.max_value_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.item_saturation",
        unit: "1",
        description: "Share of the limit on entries in use, 0 to 1; 0 where there is no limit.",
        source: Measure(|s| {
            saturation(s.store.counters.entries, s.store.limits.max_items.unwrap_or(u64::MAX))
        }),
    },
    Metric {
        name: "tiny_cache.capacity.memory_saturation",
        unit: "1",
        description: "Share of the memory limit in use, 0 to 1.",
        source: Measure(|s| saturation(s.store.counters.memory_bytes, s.store.limits.max_memory_bytes)),
    },
    Metric {
        name: "tiny_cache.removals",
        unit: "{entry}",
        description: "Values that were stored and are no more, by the reason.",
        source: Counters(removals),
    },
    Metric {
        name: "tiny_cache.resident",
        unit: "By",
        description: "What the bytes charged to resident entries are: keys, values, or overhead.",
        source: Gauges(resident),
    },
    Metric {
        name: "tiny_cache.shards",
        unit: "{shard}",
        description: "Parts of the store with a lock each.",
        source: Gauge(|s| s.store.shards as u64),
    },
    Metric {
        name: "tiny_cache.shard.imbalance",
        unit: "1",
        description: "Memory of the largest shard by that of the mean one: 1 where all are alike.",
        source: Measure(imbalance),
    },
    Metric {
        name: "tiny_cache.shard.recoveries",
        unit: "{recovery}",
        description: "Shards that were emptied since their eviction policy panicked.",
        source: Counter(|s| s.store.counters.recoveries),
    },
    Metric {
        name: "tiny_cache.sweep.removed",
        unit: "{entry}",
        description: "Expired entries that a sweep removed, and no access to their key.",
        source: Counter(|s| s.store.counters.swept),
    },
    Metric {
        name: "tiny_cache.sweep.backlog",
        unit: "{entry}",
        description: "Entries that have expired and are not removed yet, counted up to 1024 in each shard.",
        source: Gauge(|s| s.insight.sweep_backlog),
    },
    Metric {
        name: "tiny_cache.policy.state",
        unit: "",
        description: "What the eviction policy tells of its insides; docs/policies.md has the meaning of each gauge.",
        source: Measures(policy_state),
    },
    Metric {
        name: "tiny_cache.policy.info",
        unit: "",
        description: "Always 1; the labels name the eviction policy and the store.",
        source: Gauges(|s, observe| {
            observe(1, &[KeyValue::new("policy", s.store.policy), KeyValue::new("store", s.store.store)]);
        }),
    },
];

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53, and none is 2^64")]
fn max_items(snapshot: &Snapshot) -> f64 {
    snapshot.store.limits.max_items.unwrap_or(u64::MAX) as f64
}

fn removals(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    let counters = &snapshot.store.counters;
    for (reason, count) in [
        ("evicted", counters.evictions),
        ("expired", counters.expired),
        ("replaced", counters.replaced),
        ("deleted", counters.deleted),
        ("cleared", counters.cleared),
        ("rejected", counters.rejected_admission),
    ] {
        observe(count, &[KeyValue::new("reason", reason)]);
    }
}

fn resident(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    let counters = &snapshot.store.counters;
    let payload = counters.key_bytes + counters.value_bytes;
    for (kind, bytes) in [
        ("keys", counters.key_bytes),
        ("values", counters.value_bytes),
        ("overhead", counters.memory_bytes.saturating_sub(payload)),
    ] {
        observe(bytes, &[KeyValue::new("kind", kind)]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn imbalance(snapshot: &Snapshot) -> f64 {
    let counters = &snapshot.store.counters;
    if counters.largest_shard_bytes == 0 {
        return 1.0;
    }
    counters.largest_shard_bytes as f64 * snapshot.store.shards as f64 / counters.memory_bytes as f64
}

fn policy_state(snapshot: &Snapshot, observe: &mut Observe<'_, f64>) {
    for gauge in &snapshot.insight.policy {
        let labels = [KeyValue::new("policy", snapshot.store.policy), KeyValue::new("gauge", gauge.name)];
        observe(gauge.value, &labels);
    }
}

/// From what a burst of writes leaves no time for to what nobody has come back to for a month.
const AGE_SECONDS: &[f64] = &[
    1e-3,
    5e-3,
    25e-3,
    100e-3,
    500e-3,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
];

const EVICTION_AGE: Distribution = Distribution {
    name: "tiny_cache.eviction.age",
    unit: "s",
    description: "Time since entries that were evicted for room had been stored, of a sample of them.",
    boundaries: AGE_SECONDS,
};

const EVICTION_IDLE: Distribution = Distribution {
    name: "tiny_cache.eviction.idle",
    unit: "s",
    description: "Time since entries that were evicted for room had been read or stored, of a sample of them.",
    boundaries: AGE_SECONDS,
};

const SWEEP_DURATION: Distribution = Distribution {
    name: "tiny_cache.sweep.duration",
    unit: "s",
    description: "How long it took to remove what had expired from all shards.",
    boundaries: REQUEST_SECONDS,
};

/// What happens in a store and is recorded then.
pub struct StoreMetrics {
    age: Histogram<f64>,
    idle: Histogram<f64>,
    left_out: Counts<u64>,
    /// The same as `age`, for the history: the SDK's figures can be read only with all others.
    ages: Durations,
    sweep: Histogram<f64>,
}

impl StoreMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let left_out = meter
            .u64_counter("tiny_cache.eviction.left_out")
            .with_unit("{entry}")
            .with_description(
                "Evictions of the sample that its histograms do not show, since there were too many at a time.",
            )
            .build();
        // A counter that has counted nothing yet is to be there, too.
        left_out.add(0, &[]);
        let [age, idle, sweep] =
            [EVICTION_AGE, EVICTION_IDLE, SWEEP_DURATION].map(|distribution| distribution.build(meter));
        Self { age, idle, left_out, ages: Durations::default(), sweep }
    }

    /// Entries were evicted.
    pub fn evicted(&self, evictions: &Evictions) {
        for sample in &evictions.samples {
            self.age.record(sample.age.as_secs_f64(), &[]);
            self.idle.record(sample.idle.as_secs_f64(), &[]);
            self.ages.record(sample.age);
        }
        self.left_out.add(evictions.left_out, &[]);
    }

    /// How old entries were that were evicted until now, of the sample.
    #[must_use]
    pub const fn ages(&self) -> &Durations {
        &self.ages
    }

    /// A sweep over the whole store has ended.
    pub fn swept(&self, took: Duration) {
        self.sweep.record(took.as_secs_f64(), &[]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn saturation(used: u64, limit: u64) -> f64 {
    if used >= limit { 1.0 } else { used as f64 / limit as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_stays_between_zero_and_one() {
        let cases = [(0, 40, 0.0), (10, 40, 0.25), (40, 40, 1.0), (50, 40, 1.0), (10, u64::MAX, 0.0)];
        for (used, limit, expected) in cases {
            assert!((saturation(used, limit) - expected).abs() < 1e-9, "{used} of {limit}");
        }
    }
}
