//! How much memory is worth buying: what half, the same and double the capacity would give.

use serde::Serialize;

use crate::optimum::OPTIMUM;
use crate::replay::Mode;
use crate::result::SimulationResult;

/// A capacity and what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Objects or bytes.
    pub capacity: u64,
    /// The miss ratio there.
    pub miss_ratio: f64,
}

/// What half, the same and double the memory would give with one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The trace, as it was named.
    pub trace: String,
    /// What capacities count.
    pub mode: Mode,
    /// The policy's name.
    pub policy: String,
    /// Half the current capacity.
    pub half: Choice,
    /// The current capacity.
    pub same: Choice,
    /// Double the current capacity.
    pub double: Choice,
}

/// The capacities that [`Advice::of`] needs results for: half, the same and double, as far as the footprint goes.
#[must_use]
pub fn around(current: u64, footprint: u64) -> [u64; 3] {
    [current / 2, current, current.saturating_mul(2)].map(|capacity| capacity.clamp(1, footprint.max(1)))
}

impl Advice {
    /// Advice for each policy in the results, which must be of one trace and mode, in the order in which policies
    /// appear. One whose results are not complete is left out, and so is the optimum.
    #[must_use]
    pub fn of(results: &[SimulationResult], current: u64, footprint: u64) -> Vec<Self> {
        let simulated = around(current, footprint);
        let capacities = [(current / 2).max(1), current, current.saturating_mul(2)];
        let mut policies: Vec<&SimulationResult> = Vec::new();
        for result in results {
            if result.policy != OPTIMUM && policies.iter().all(|known| known.policy != result.policy) {
                policies.push(result);
            }
        }
        let choice = |policy: &str, at: usize| {
            let result =
                results.iter().find(|result| result.policy == policy && result.capacity == simulated[at])?;
            Some(Choice { capacity: capacities[at], miss_ratio: result.miss_ratio })
        };
        let advice = |first: &SimulationResult| {
            let SimulationResult { trace, mode, policy, .. } = first;
            let [half, same, double] = [0, 1, 2].map(|at| choice(policy, at));
            Some(Self {
                trace: trace.clone(),
                mode: *mode,
                policy: policy.clone(),
                half: half?,
                same: same?,
                double: double?,
            })
        };
        policies.into_iter().filter_map(advice).collect()
    }

    /// How many misses more or fewer a choice has than the current capacity: "-12.3 %".
    #[must_use]
    pub fn change(&self, choice: Choice) -> String {
        if self.same.miss_ratio <= 0.0 {
            return "–".to_owned();
        }
        let percent = (choice.miss_ratio / self.same.miss_ratio - 1.0) * 100.0;
        // Without a "-0.0 %".
        format!("{:+.1} %", if percent.abs() < 0.05 { 0.0 } else { percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Tally;

    fn result(policy: &str, capacity: u64, misses: u64) -> SimulationResult {
        let tally = Tally { requests: 100, misses, bytes: 100, missed_bytes: misses, ..Tally::default() };
        SimulationResult::new("t", Mode::Items, capacity, policy, &tally)
    }

    #[test]
    fn each_policy_with_complete_results_gets_advice() {
        let mut results = Vec::new();
        for (policy, misses) in [("lru", [80, 50, 20]), (OPTIMUM, [60, 30, 20])] {
            results.extend(
                [40, 80, 100]
                    .into_iter()
                    .zip(misses)
                    .map(|(capacity, misses)| result(policy, capacity, misses)),
            );
        }
        results.push(result("fifo", 40, 90));
        assert_eq!(around(80, 100), [40, 80, 100]);
        let advice = Advice::of(&results, 80, 100);
        assert_eq!(advice.iter().map(|advice| advice.policy.as_str()).collect::<Vec<_>>(), ["lru"]);
        let [lru] = advice.as_slice() else { panic!("one") };
        assert_eq!((lru.half.miss_ratio, lru.double.capacity, lru.double.miss_ratio), (0.8, 160, 0.2));
        assert_eq!(
            (lru.change(lru.half), lru.change(lru.double)),
            ("+60.0 %".to_owned(), "-60.0 %".to_owned())
        );
        assert_eq!(lru.change(lru.same), "+0.0 %");
    }
}
