//! Statistics in the shape that clients get, once for all transports.

use engine::StoreStats;

use crate::proto::CacheStats;

/// The API's statistics of a snapshot.
///
/// The fields below 100 are 32 bits wide for the original's clients and saturate; those from 100 on
/// hold the figures in full. No limit on items reads as the largest number of the field's type.
#[must_use]
pub fn cache_stats(stats: &StoreStats) -> CacheStats {
    let counters = &stats.counters;
    let limits = &stats.limits;
    let max_entries = limits.max_items.unwrap_or(u64::MAX);
    let evictions = saturate_i32(counters.evictions);
    CacheStats {
        size: saturate_i32(counters.entries),
        hits: saturate_i32(counters.hits),
        misses: saturate_i32(counters.misses),
        evictions,
        hit_rate: ratio(counters.hits, counters.hits.saturating_add(counters.misses)),
        memory_usage_bytes: saturate_i64(counters.memory_bytes),
        max_memory_bytes: saturate_i64(limits.max_memory_bytes),
        max_items: saturate_i32(max_entries),
        max_value_bytes: saturate_i64(limits.max_value_bytes),
        lru_evictions: evictions,
        expired_removals: saturate_i32(counters.expired),
        rejected_oversize: saturate_i32(counters.rejected_oversize),
        rejected_capacity: saturate_i32(counters.rejected_capacity),
        entries: counters.entries,
        hits_total: counters.hits,
        misses_total: counters.misses,
        evictions_total: counters.evictions,
        expired_removals_total: counters.expired,
        rejected_oversize_total: counters.rejected_oversize,
        rejected_capacity_total: counters.rejected_capacity,
        rejected_admission_total: counters.rejected_admission,
        max_entries,
        policy: stats.policy.to_owned(),
        store: stats.store.to_owned(),
        shards: u32::try_from(stats.shards).unwrap_or(u32::MAX),
    }
}

fn saturate_i32(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn saturate_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use engine::{Counters, Limits};

    use super::*;

    fn stats(counters: Counters, max_items: Option<u64>) -> StoreStats {
        let limits = Limits { max_items, max_memory_bytes: 1 << 40, max_value_bytes: 1 << 20 };
        StoreStats { counters, limits, policy: "lru", store: "memory", shards: 4 }
    }

    #[test]
    fn every_field_comes_from_its_own_counter() {
        let counters = Counters {
            entries: 1,
            memory_bytes: 2,
            hits: 3,
            misses: 9,
            evictions: 5,
            expired: 6,
            rejected_oversize: 7,
            rejected_capacity: 8,
            rejected_admission: 10,
            ..Counters::default()
        };
        let expected = CacheStats {
            size: 1,
            hits: 3,
            misses: 9,
            evictions: 5,
            hit_rate: 0.25,
            memory_usage_bytes: 2,
            max_memory_bytes: 1 << 40,
            max_items: 1000,
            max_value_bytes: 1 << 20,
            lru_evictions: 5,
            expired_removals: 6,
            rejected_oversize: 7,
            rejected_capacity: 8,
            entries: 1,
            hits_total: 3,
            misses_total: 9,
            evictions_total: 5,
            expired_removals_total: 6,
            rejected_oversize_total: 7,
            rejected_capacity_total: 8,
            rejected_admission_total: 10,
            max_entries: 1000,
            policy: "lru".to_owned(),
            store: "memory".to_owned(),
            shards: 4,
        };
        assert_eq!(cache_stats(&stats(counters, Some(1000))), expected);
    }

    #[test]
    fn narrow_fields_saturate_and_wide_ones_do_not() {
        let beyond = u64::from(i32::MAX.unsigned_abs()) + 1;
        let counters = Counters {
            entries: beyond,
            memory_bytes: u64::MAX,
            hits: beyond,
            misses: beyond,
            evictions: beyond,
            expired: beyond,
            rejected_oversize: beyond,
            rejected_capacity: beyond,
            rejected_admission: beyond,
            ..Counters::default()
        };
        let actual = cache_stats(&stats(counters, Some(beyond)));
        let narrow = [
            actual.size,
            actual.hits,
            actual.misses,
            actual.evictions,
            actual.lru_evictions,
            actual.expired_removals,
            actual.rejected_oversize,
            actual.rejected_capacity,
            actual.max_items,
        ];
        assert_eq!(narrow, [i32::MAX; 9]);
        assert_eq!(actual.memory_usage_bytes, i64::MAX);
        let wide = [
            actual.entries,
            actual.hits_total,
            actual.misses_total,
            actual.evictions_total,
            actual.expired_removals_total,
            actual.rejected_oversize_total,
            actual.rejected_capacity_total,
            actual.rejected_admission_total,
            actual.max_entries,
        ];
        assert_eq!(wide, [beyond; 9]);
    }

    #[test]
    fn the_largest_narrow_number_is_still_exact() {
        let at = u64::from(i32::MAX.unsigned_abs());
        let actual = cache_stats(&stats(Counters { hits: at - 1, misses: at, ..Counters::default() }, None));
        assert_eq!((actual.hits, actual.misses), (i32::MAX - 1, i32::MAX));
    }

    #[test]
    fn no_limit_on_items_reads_as_the_largest_number() {
        let actual = cache_stats(&stats(Counters::default(), None));
        assert_eq!((actual.max_items, actual.max_entries), (i32::MAX, u64::MAX));
    }

    #[test]
    fn the_hit_rate_of_nothing_is_zero_and_never_overflows() {
        let rate = |hits, misses| {
            cache_stats(&stats(Counters { hits, misses, ..Counters::default() }, None)).hit_rate
        };
        assert!(rate(0, 0).abs() < f64::EPSILON);
        assert!((rate(1, 0) - 1.0).abs() < f64::EPSILON);
        assert!((0.0..=1.0).contains(&rate(u64::MAX, u64::MAX)));
    }
}
