//! A panel: all results of one trace in one mode, arranged as the drawings and tables need them.

use std::collections::BTreeMap;

use super::palette::Look;
use crate::{Mode, OPTIMUM, SimulationResult};

/// One policy's results over the capacities.
pub(super) struct Series<'a> {
    pub(super) policy: &'a str,
    /// Whether this is a bound, which no real policy can reach.
    pub(super) is_bound: bool,
    pub(super) look: Look,
    by_capacity: BTreeMap<u64, &'a SimulationResult>,
}

impl<'a> Series<'a> {
    pub(super) fn at(&self, capacity: u64) -> Option<&'a SimulationResult> {
        self.by_capacity.get(&capacity).copied()
    }

    /// Capacity and miss ratio, by rising capacity.
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, f64)> {
        self.by_capacity.iter().map(|(capacity, result)| (*capacity, result.miss_ratio))
    }

    fn mean(&self) -> f64 {
        let (sum, count) =
            self.points().fold((0.0, 0.0), |(sum, count), (_, ratio)| (sum + ratio, count + 1.0));
        sum / count
    }
}

/// The results of one trace in one mode.
pub(super) struct Panel<'a> {
    pub(super) trace: &'a str,
    pub(super) mode: Mode,
    /// Rising.
    pub(super) capacities: Vec<u64>,
    /// In the order of the results.
    pub(super) series: Vec<Series<'a>>,
}

impl<'a> Panel<'a> {
    /// Sorts results into panels. A policy has the same look in all of them.
    pub(super) fn all(results: &'a [SimulationResult]) -> Vec<Self> {
        let mut panels: Vec<Self> = Vec::new();
        let mut policies: Vec<&str> = Vec::new();
        for result in results {
            let found =
                panels.iter().position(|panel| panel.trace == result.trace && panel.mode == result.mode);
            let panel = found.unwrap_or_else(|| {
                panels.push(Panel {
                    trace: &result.trace,
                    mode: result.mode,
                    capacities: Vec::new(),
                    series: Vec::new(),
                });
                panels.len() - 1
            });
            panels[panel].add(result, &mut policies);
        }
        panels
    }

    fn add(&mut self, result: &'a SimulationResult, policies: &mut Vec<&'a str>) {
        if let Err(place) = self.capacities.binary_search(&result.capacity) {
            self.capacities.insert(place, result.capacity);
        }
        let policy = result.policy.as_str();
        let found = self.series.iter().position(|series| series.policy == policy);
        let at = found.unwrap_or_else(|| {
            let is_bound = policy == OPTIMUM;
            // A bound has its own look and takes no colour from the policies.
            let index = match policies.iter().position(|known| *known == policy) {
                _ if is_bound => 0,
                Some(index) => index,
                None => {
                    policies.push(policy);
                    policies.len() - 1
                }
            };
            self.series.push(Series {
                policy,
                is_bound,
                look: Look::of(index),
                by_capacity: BTreeMap::new(),
            });
            self.series.len() - 1
        });
        self.series[at].by_capacity.insert(result.capacity, result);
    }

    pub(super) fn bounds(&self) -> impl Iterator<Item = &Series<'a>> {
        self.series.iter().filter(|series| series.is_bound)
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &Series<'a>> {
        self.series.iter().filter(|series| !series.is_bound)
    }

    /// The policies, lowest mean miss ratio first.
    pub(super) fn ranked(&self) -> Vec<&Series<'a>> {
        let mut ranked: Vec<_> = self.policies().collect();
        ranked.sort_by(|a, b| a.mean().total_cmp(&b.mean()));
        ranked
    }

    /// Policies and their results at a capacity, lowest miss ratio first.
    pub(super) fn ranked_at(&self, capacity: u64) -> Vec<(&Series<'a>, &'a SimulationResult)> {
        let mut ranked: Vec<_> =
            self.policies().filter_map(|series| Some((series, series.at(capacity)?))).collect();
        ranked.sort_by(|(_, a), (_, b)| a.miss_ratio.total_cmp(&b.miss_ratio));
        ranked
    }

    /// The smallest and largest miss ratio.
    pub(super) fn range(&self) -> (f64, f64) {
        let ratios = || self.series.iter().flat_map(Series::points).map(|(_, ratio)| ratio);
        (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max))
    }

    /// Up to `count` capacities spread over all of them, without those where policies do not differ.
    pub(super) fn spread_capacities(&self, count: usize) -> Vec<u64> {
        let differ = |capacity: &u64| {
            let ranked = self.ranked_at(*capacity);
            let ratio = |result: Option<&(&Series<'_>, &SimulationResult)>| {
                result.map(|(_, result)| result.miss_ratio)
            };
            ranked.len() < 2 || ratio(ranked.first()) != ratio(ranked.last())
        };
        let mut capacities: Vec<u64> = self.capacities.iter().copied().filter(differ).collect();
        if capacities.is_empty() {
            capacities.clone_from(&self.capacities);
        }
        let last = capacities.len() - 1;
        if last < count {
            return capacities;
        }
        (0..count).map(|step| capacities[(step * last + (count - 1) / 2) / (count - 1)]).collect()
    }

    pub(super) fn unit(&self) -> &'static str {
        match self.mode {
            Mode::Items => "objects",
            Mode::Bytes => "bytes",
        }
    }

    /// The trace's name without its folders, and what is counted. The table of all results has the whole name.
    pub(super) fn heading(&self) -> String {
        let name = self.trace.rsplit(['/', '\\']).next().unwrap_or(self.trace);
        match self.mode {
            Mode::Items => format!("{name} – by number of objects"),
            Mode::Bytes => format!("{name} – by bytes"),
        }
    }
}
