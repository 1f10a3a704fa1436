//! The cache itself: what its store counts.

use super::catalogue::Metric;
use super::catalogue::Source::{Counter, Gauge, Measure};

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
        source: Gauge(|s| s.store.limits.max_items.unwrap_or(u64::MAX)),
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
];

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
