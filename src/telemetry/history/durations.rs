//! Counts durations, cheaply enough for every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::striped::Striped;

use super::Distribution;

/// Shorter ones are all alike: about a microsecond, as a power of two of nanoseconds.
const SHORTEST_POWER: u32 = 10;
/// Longer ones are all alike: 52 days.
const LONGEST_POWER: u32 = 52;
/// Four buckets each time that durations double: percentiles are off by a tenth at most.
const BUCKETS: usize = 1 + 4 * (LONGEST_POWER - SHORTEST_POWER) as usize;

const BOUNDS: [u64; BUCKETS] = {
    let mut bounds = [1 << SHORTEST_POWER; BUCKETS];
    let mut bucket = 1;
    while bucket < BUCKETS {
        let (doubled, quarter) = ((bucket - 1) / 4, (bucket - 1) % 4);
        bounds[bucket] = (5 + quarter as u64) << (SHORTEST_POWER as usize - 2 + doubled);
        bucket += 1;
    }
    bounds
};

/// How many durations of which length there have been since the start. Adding one takes a few nanoseconds, as each
/// thread counts for itself.
pub struct Durations(Striped<[AtomicU64; BUCKETS + 1]>);

impl Default for Durations {
    fn default() -> Self {
        Self(Striped::new(|| [const { AtomicU64::new(0) }; BUCKETS + 1]))
    }
}

impl Durations {
    /// Counts one.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.mine()[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let mut counts = vec![0; BUCKETS + 1];
        for stripe in self.0.iter() {
            for (count, counted) in counts.iter_mut().zip(stripe) {
                *count += counted.load(Ordering::Relaxed);
            }
        }
        Distribution::new(&BOUNDS, counts)
    }
}

/// The first bucket whose bound is above.
const fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < 1 << SHORTEST_POWER {
        return 0;
    }
    let power = nanoseconds.ilog2();
    if power >= LONGEST_POWER {
        return BUCKETS;
    }
    let quarter = (nanoseconds >> (power - 2)) & 3;
    1 + 4 * (power - SHORTEST_POWER) as usize + quarter as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        let edges =
            (0..63).flat_map(|power| [(1_u64 << power) - 1, 1 << power, (1 << power) + 1, 3 << (power / 2)]);
        for nanoseconds in edges.chain([0, u64::MAX]) {
            let bucket = bucket(nanoseconds);
            let below = BOUNDS.get(bucket).is_none_or(|bound| nanoseconds < *bound);
            let above = bucket == 0 || nanoseconds >= BOUNDS[bucket - 1];
            assert!(below && above, "{nanoseconds} is in {bucket}");
        }
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn percentiles_are_off_by_a_tenth_at_most() {
        for microseconds in [5, 99, 1000, 123_456, 7_000_000_000] {
            let durations = Durations::default();
            for share in 1..=1000 {
                durations.record(Duration::from_nanos(microseconds * share));
            }
            let read = durations.read();
            assert_eq!(read.count(), 1000);
            let expected = Duration::from_nanos(microseconds * 500).as_secs_f64();
            let median = read.quantile(0.5).expect("some were counted");
            assert!((median / expected - 1.0).abs() < 0.1, "{median} for {expected}");
        }
    }
}
