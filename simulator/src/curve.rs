//! Miss-ratio curves from miniature simulations: the miss ratio of a large cache, read off a small one that sees
//! only a sample of the objects.
//!
//! A sample holds every request to some of the objects; a cache that is smaller by the same rate behaves on it
//! much as the whole one does on the whole trace, whatever its policy (Waldspurger, Saemundsson, Ahmad and Park, "Cache
//! Modeling and Optimization using Miniature Simulations", USENIX ATC 2017). The trace is read once; samples of all
//! rates are cut from what was read, each from the next larger one.
//!
//! What is ours:
//!
//! - **Strata.** The paper's samples hold the objects whose keys have a low hash, and so more or fewer of the popular ones by
//!   luck. Ours hold one object out of each run of alike ones, and only within the run the hash decides, see
//!   [`Recording::sample`]. On the traces that we measured, that takes most of the error away.
//! - **Rates.** Each capacity has its own rate, such that its miniature has the least number of entries that
//!   [`Effort::Sampled`] names, so that small caches are simulated whole.
//!   Where that would cost more than a share of the exact simulation, which only long traces make it, rates fall,
//!   those of large caches first: by the square root of the capacity, since large caches are where samples are
//!   most exact.
//! - **Deviation.** The paper, like SHARDS before it (FAST 2015), corrects the count of requests for popular objects
//!   that are in the sample, or out of it, by chance: it divides misses not by the requests in the sample but by those that were
//!   to be expected. We expect them by the share of the *objects* that is in the sample rather than by the rate that was meant;
//!   then first requests, which miss at any capacity, are counted exactly. The same share scales capacities that count objects.
//! - **Early room.** Some policies do not scale down, see [`policies::Policy::SCALES_DOWN`]; their miniatures let
//!   entries go when the whole cache would, see [`Replay::miniature`](crate::replay::Replay::miniature).
//!
//! Rate 1 is the exact simulation, in the same code.

use crate::optimum::OPTIMUM;
use crate::replay::{Cache, Mode, Tally};
use crate::requests::{Recording, Survey};
use crate::result::SimulationResult;
use crate::run::{Job, Runner};
use crate::simulator::{ChoiceError, PolicyChoice, Simulator};

/// How much to simulate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effort {
    /// Everything.
    Exact,
    /// Samples.
    Sampled {
        /// How many entries a miniature has at least; smaller caches are simulated whole.
        min_entries: u64,
        /// The share of an exact simulation's requests that may be simulated. Where a long trace would take
        /// more, miniatures become smaller than `min_entries`, but not than 128 entries. 1: no limit.
        share: f64,
    },
}

impl Default for Effort {
    fn default() -> Self {
        Self::Sampled { min_entries: 4096, share: 0.04 }
    }
}

/// Below this a miniature is more grain than picture.
const FEWEST_ENTRIES: f64 = 128.0;

/// Requests that each policy may simulate whatever share of the whole they are: fractions of a second.
const FREE_REQUESTS: f64 = 2e6;

impl Effort {
    /// The sampling rate for each of some capacities.
    #[must_use]
    pub fn rates(self, capacities: &[u64], mode: Mode, survey: &Survey) -> Vec<f64> {
        let Self::Sampled { min_entries, share } = self else { return vec![1.0; capacities.len()] };
        let mean_size = match mode {
            Mode::Items => 1.0,
            Mode::Bytes => float(survey.footprint_bytes) / float(survey.distinct.max(1)),
        };
        let entries: Vec<f64> = capacities.iter().map(|capacity| float(*capacity) / mean_size).collect();
        let wanted = |entries: f64| (float(min_entries) / entries).min(1.0);
        let least = |entries: f64| (FEWEST_ENTRIES / entries).min(wanted(entries));
        let rates = |scale: f64| -> Vec<f64> {
            let rate = |entries: &f64| (scale / entries.sqrt()).clamp(least(*entries), wanted(*entries));
            entries.iter().map(rate).collect()
        };
        let affordable =
            (share * float(capacities.len() as u64)).max(FREE_REQUESTS / float(survey.requests.max(1)));
        // Beyond this scale every rate is the wanted one.
        let (mut low, mut high) = (0.0, entries.iter().fold(0.0_f64, |a, b| a.max(b.sqrt())));
        if share >= 1.0 || rates(high).iter().sum::<f64>() <= affordable {
            return rates(high);
        }
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if rates(middle).iter().sum::<f64>() > affordable { high = middle } else { low = middle }
        }
        rates(low)
    }
}

/// A simulated point of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// For the whole trace: requests and misses are what the whole would have.
    pub result: SimulationResult,
    /// Which share of the objects the sample was meant to hold; 1 where the result is exact.
    pub rate: f64,
}

/// The curves to compute.
#[derive(Debug)]
pub struct Curves<'a> {
    /// As results name it.
    pub trace: &'a str,
    /// The policies.
    pub policies: &'a [PolicyChoice],
    /// Whether the optimum's curve is wanted, too.
    pub with_optimum: bool,
    /// Everything about the caches but the capacity.
    pub cache: Cache,
    /// Rising and distinct.
    pub capacities: &'a [u64],
    /// How much to simulate.
    pub effort: Effort,
}

impl Curves<'_> {
    /// About how many requests will be simulated, each counted once per simulation.
    #[must_use]
    pub fn requests(&self, survey: &Survey) -> u64 {
        let rates = self.effort.rates(self.capacities, self.cache.mode, survey);
        let simulations = self.policies.len() + usize::from(self.with_optimum);
        rounded(float(survey.requests) * rates.iter().sum::<f64>() * float(simulations as u64))
    }

    /// Computes the curves, policy by policy in rising capacity. Where the runner is stopped, what it has
    /// not finished is missing.
    pub fn compute(
        &self,
        simulator: &Simulator,
        runner: &Runner,
        recording: &Recording,
    ) -> Result<Vec<Point>, ChoiceError> {
        let rates = self.effort.rates(self.capacities, self.cache.mode, recording.survey());
        let mut levels: Vec<(f64, Vec<u64>)> = Vec::new();
        // Rates fall as capacities rise, so that equal ones are neighbours and each sample is cut from the one before.
        for (capacity, rate) in self.capacities.iter().zip(rates) {
            match levels.last_mut() {
                Some((last, capacities)) if *last <= rate => capacities.push(*capacity),
                _ => levels.push((rate, vec![*capacity])),
            }
        }
        let mut found: Vec<(usize, Point)> = Vec::new();
        let mut sample: Option<Recording> = None;
        for (rate, capacities) in levels {
            if rate < 1.0 {
                let objects = rounded(rate * float(recording.survey().distinct)).max(1);
                sample = Some(sample.as_ref().unwrap_or(recording).sample(objects));
            }
            let level = Level {
                curves: self,
                rate,
                whole: recording.survey(),
                sample: sample.as_ref().unwrap_or(recording),
            };
            found.extend(level.compute(simulator, runner, &capacities)?);
        }
        found.sort_by_key(|(policy, point)| (*policy, point.result.capacity));
        Ok(found.into_iter().map(|(_, point)| point).collect())
    }
}

/// All simulations on one sample.
struct Level<'a> {
    curves: &'a Curves<'a>,
    rate: f64,
    whole: &'a Survey,
    sample: &'a Recording,
}

impl Level<'_> {
    fn compute(
        &self,
        simulator: &Simulator,
        runner: &Runner,
        capacities: &[u64],
    ) -> Result<Vec<(usize, Point)>, ChoiceError> {
        let policies = self.curves.policies;
        let mut keys = Vec::new();
        let mut jobs = Vec::new();
        for &capacity in capacities {
            let cache = Cache { capacity: self.miniature(capacity), ..self.curves.cache };
            for (place, choice) in policies.iter().enumerate() {
                keys.push((place, choice.name.as_str(), capacity));
                let simulation = if self.rate < 1.0 {
                    simulator.miniature(choice, &cache)?
                } else {
                    simulator.simulation(choice, &cache)?
                };
                jobs.push(Job::Policy(simulation));
            }
            if self.curves.with_optimum {
                keys.push((policies.len(), OPTIMUM, capacity));
                jobs.push(Job::Optimum(cache));
            }
        }
        let tallies = runner.recorded(self.sample, jobs);
        let point = |((place, policy, capacity), tally): ((usize, &str, u64), Option<Tally>)| {
            Some((place, self.point(policy, capacity, &tally?)))
        };
        Ok(keys.into_iter().zip(tallies).filter_map(point).collect())
    }

    /// The share of the objects that the sample really holds.
    fn share(&self) -> f64 {
        float(self.sample.survey().distinct) / float(self.whole.distinct.max(1))
    }

    fn miniature(&self, capacity: u64) -> u64 {
        let rate = match self.curves.cache.mode {
            Mode::Items => self.share(),
            // A few giants in the sample would make its share of the bytes a matter of luck.
            Mode::Bytes => self.rate,
        };
        if self.rate < 1.0 { rounded(float(capacity) * rate).max(1) } else { capacity }
    }

    fn point(&self, policy: &str, capacity: u64, tally: &Tally) -> Point {
        let Curves { trace, cache, .. } = self.curves;
        let mut result = SimulationResult::new(trace, cache.mode, capacity, policy, tally);
        if self.rate < 1.0 {
            let expected = float(self.whole.requests) * self.share();
            result.miss_ratio = (float(tally.misses) / expected.max(1.0)).min(1.0);
            if self.sample.whole().sizes().is_none() {
                result.byte_miss_ratio = result.miss_ratio;
            }
            result.requests = self.whole.requests;
            result.misses = rounded(result.miss_ratio * float(self.whole.requests));
        }
        Point { result, rate: self.rate }
    }
}

/// Capacities from a hundredth of the footprint to all of it, each larger than the one before by the same factor.
#[must_use]
pub fn spread(footprint: u64, points: u32) -> Vec<u64> {
    let last = f64::from(points.max(2) - 1);
    let capacity = |point: u32| {
        rounded(float(footprint) * 0.01_f64.powf(f64::from(point) / last)).clamp(1, footprint.max(1))
    };
    let mut capacities: Vec<u64> = (0..points.max(1)).rev().map(capacity).collect();
    capacities.dedup();
    capacities
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 53 bits")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it comes from a count, times a rate"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use super::*;
    use crate::requests::tests::recording;

    /// A seeded trace in which popularity follows Zipf's law, and nothing else is to be known of the next request.
    fn zipf(objects: u32, requests: u32, sizes: impl Fn(u32) -> u32) -> Recording {
        let weights: Vec<f64> = (1..=objects).map(|rank| f64::from(rank).powf(-0.9)).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulative: Vec<f64> = weights
            .iter()
            .map(|weight| {
                sum += weight / total;
                sum
            })
            .collect();
        let mut state = 1_u64;
        let mut rows = String::new();
        for _ in 0..requests {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let drawn = float(state >> 11) / float(1 << 53);
            let object = cumulative.partition_point(|bound| *bound < drawn);
            writeln!(rows, "{object},{}", sizes(u32::try_from(object).unwrap())).unwrap();
        }
        recording(&rows)
    }

    fn compute(recording: &Recording, mode: Mode, capacities: &[u64], effort: Effort) -> Vec<Point> {
        let policies = ["lru", "fifo", "sieve"].map(PolicyChoice::named);
        let cache = Cache { mode, capacity: 0, ttl_seconds: None, seed: 0 };
        let curves =
            Curves { trace: "zipf", policies: &policies, with_optimum: true, cache, capacities, effort };
        let runner = Runner::new(2, Arc::default()).unwrap();
        curves.compute(&Simulator::default(), &runner, recording).unwrap()
    }

    #[test]
    fn samples_are_within_a_hundredth_of_the_whole() {
        for (mode, recording) in [
            (Mode::Items, zipf(20_000, 120_000, |_| 1)),
            (Mode::Bytes, zipf(20_000, 120_000, |object| 100 + object * 7919 % 1000)),
        ] {
            let footprint = match mode {
                Mode::Items => recording.survey().distinct,
                Mode::Bytes => recording.survey().footprint_bytes,
            };
            let capacities = spread(footprint, 6);
            let effort = Effort::Sampled { min_entries: 500, share: 1.0 };
            let exact = compute(&recording, mode, &capacities, Effort::Exact);
            let sampled = compute(&recording, mode, &capacities, effort);
            assert_eq!(exact.len(), 4 * capacities.len());
            let mut errors = 0.0;
            for (exact, sampled) in exact.iter().zip(&sampled) {
                let (whole, part) = (&exact.result, &sampled.result);
                assert_eq!(
                    (&whole.policy, whole.capacity, whole.requests),
                    (&part.policy, part.capacity, part.requests)
                );
                assert!((exact.rate - 1.0).abs() < f64::EPSILON);
                assert_eq!(
                    sampled.rate < 1.0,
                    capacities.iter().position(|c| *c == part.capacity) > Some(1),
                    "{part:?}"
                );
                errors += (whole.miss_ratio - part.miss_ratio).abs();
            }
            let mean = errors / float(exact.len() as u64);
            assert!(mean < 0.01, "{mode:?}: mean absolute error of {mean}");
        }
    }

    #[test]
    fn a_cache_below_the_minimum_is_simulated_whole_to_the_last_request() {
        let recording = zipf(1_000, 20_000, |_| 1);
        let capacities = [10, 100, 1000];
        let misses =
            |points: Vec<Point>| points.into_iter().map(|point| point.result.misses).collect::<Vec<_>>();
        let exact = misses(compute(&recording, Mode::Items, &capacities, Effort::Exact));
        assert_eq!(misses(compute(&recording, Mode::Items, &capacities, Effort::default())), exact);
    }

    #[test]
    fn rates_follow_the_minimum_size_and_long_traces_stay_within_their_share() {
        let survey =
            |requests| Survey { requests, distinct: 1 << 20, footprint_bytes: 1 << 30, ..Survey::default() };
        let capacities = [64, 4096, 8192, 1 << 20];
        let effort = Effort::Sampled { min_entries: 4096, share: 0.25 };
        let rates = |mode, requests| effort.rates(&capacities, mode, &survey(requests));
        assert_eq!(rates(Mode::Items, 500_000), [1.0, 1.0, 0.5, 1.0 / 256.0]);
        // An object has 1 KiB, so even the largest of these capacities has only 1024 entries.
        assert_eq!(rates(Mode::Bytes, 500_000), [1.0; 4]);
        let long = rates(Mode::Items, 1_000_000_000);
        assert!(long.is_sorted_by(|a, b| a >= b), "{long:?}");
        assert!((long[0] - 1.0).abs() < f64::EPSILON, "64 entries are whole whatever they cost");
        assert!(long[3] * f64::from(1 << 20) >= 128.0, "{long:?}");
        let effort = Effort::Sampled { min_entries: 4096, share: 0.4 };
        let sum: f64 = effort.rates(&capacities, Mode::Items, &survey(1_000_000_000)).iter().sum();
        assert!((1.5..1.6001).contains(&sum), "{sum} of 4 passes");
    }

    #[test]
    fn a_newcomer_to_a_full_cache_does_not_stay_longer_in_a_sample() {
        // 3,000 objects again and again, and between them such as are requested once more after 6 requests, and then never.
        let rows: Vec<String> = (0..200_000_u32)
            .map(|turn| match turn % 4 {
                0 => format!("{},1", 1_000_000 + turn),
                2 => format!("{},1", 1_000_000 + turn.saturating_sub(6)),
                _ => format!("{},1", u64::from(turn).pow(3) % 2_999),
            })
            .collect();
        let recording = recording(&(rows.join("\n") + "\n"));
        let policies = ["lfu", "lru-k"].map(PolicyChoice::named);
        let cache = Cache { mode: Mode::Items, capacity: 0, ttl_seconds: None, seed: 0 };
        let curve = |effort| {
            let curves = Curves {
                trace: "zipf",
                policies: &policies,
                with_optimum: false,
                cache,
                capacities: &[1000, 2000],
                effort,
            };
            let runner = Runner::new(2, Arc::default()).unwrap();
            curves.compute(&Simulator::default(), &runner, &recording).unwrap()
        };
        let sampled = curve(Effort::Sampled { min_entries: 128, share: 1.0 });
        for (exact, sampled) in curve(Effort::Exact).iter().zip(sampled) {
            let (exact, sampled) = (&exact.result, &sampled.result);
            let error = sampled.miss_ratio - exact.miss_ratio;
            assert!(error.abs() < 0.01, "{} at {}: off by {error}", exact.policy, exact.capacity);
        }
    }

    #[test]
    fn capacities_are_spread_by_a_factor() {
        assert_eq!(spread(10_000, 5), [100, 316, 1000, 3162, 10_000]);
        assert_eq!(spread(3, 5), [1, 3]);
        assert_eq!(spread(1, 1), [1]);
    }
}
