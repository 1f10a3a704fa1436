//! How durations are distributed over buckets, and what can be read off that: percentiles of any interval, from
//! two readings of counters that only ever rise.

/// What a histogram has counted until now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds of the buckets in nanoseconds, rising; what is above the last has a bucket of its own.
    bounds: &'static [u64],
    counts: Vec<u64>,
}

impl Distribution {
    /// Takes one count for each bound and one for what is above the last of them.
    ///
    /// # Panics
    ///
    /// Where the number of counts is another one.
    #[must_use]
    pub fn new(bounds: &'static [u64], counts: Vec<u64>) -> Self {
        assert_eq!(counts.len(), bounds.len() + 1, "a count for each bucket");
        Self { bounds, counts }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted after `earlier` was read. Of a histogram with other buckets: everything.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        if self.bounds != earlier.bounds {
            return self.clone();
        }
        let counts = self.counts.iter().zip(&earlier.counts);
        Self { bounds: self.bounds, counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect() }
    }

    /// The duration in seconds below which the share `quantile` of all lies, as if those of a bucket were spread
    /// evenly over it; `None` where there is none. What is above the last bound reads as that bound.
    #[expect(clippy::cast_precision_loss, reason = "an estimate within a bucket needs no more than 53 bits")]
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = self.count() as f64 * quantile;
        let mut below = 0.0;
        let mut lower = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            let upper = self.bounds.get(index).copied().unwrap_or(lower);
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                let share = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(((upper - lower) as f64).mul_add(share, lower as f64) / 1e9);
            }
            below += count;
            lower = upper;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[u64] = &[1_000, 2_000, 10_000];

    fn of(counts: [u64; 4]) -> Distribution {
        Distribution::new(BOUNDS, counts.to_vec())
    }

    #[test]
    fn percentiles_are_read_off_the_buckets() {
        for (counts, quantile, nanoseconds) in [
            ([10, 0, 0, 0], 0.5, 500.0),
            ([0, 10, 0, 0], 0.5, 1_500.0),
            ([50, 50, 0, 0], 0.5, 1_000.0),
            ([98, 0, 2, 0], 0.99, 6_000.0),
            ([98, 0, 2, 0], 0.5, 1_000.0 * 50.0 / 98.0),
            ([0, 0, 4, 0], 1.0, 10_000.0),
            ([0, 0, 0, 7], 0.5, 10_000.0),
        ] {
            let read = of(counts).quantile(quantile).expect("something was counted") * 1e9;
            assert!((read - nanoseconds).abs() < 1e-6, "{counts:?} at {quantile}: {read}");
        }
        assert_eq!(of([0; 4]).quantile(0.5), None);
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        assert_eq!(of([5, 4, 3, 2]).since(&of([1, 1, 1, 1])), of([4, 3, 2, 1]));
        assert_eq!(of([1, 0, 0, 0]).since(&of([5, 0, 0, 0])), of([0; 4]), "a histogram made anew");
        let other = Distribution::new(&[7], vec![1, 1]);
        assert_eq!(of([5, 4, 3, 2]).since(&other), of([5, 4, 3, 2]));
    }
}
