//! LHD, least hit density: of a random sample, the entry leaves from which the fewest hits can be expected
//! per request that it stays and unit of weight. What to expect is learnt from what became of
//! entries of the same age and class; a class is how soon an entry returned so far.
//!
//! Beckmann, Chen and Cidon, "LHD: improving cache hit rate by maximizing hit density", NSDI 2018.
//!
//! Deviations, all of which measure better on traces of all lengths. Ages have a logarithmic scale, where the
//! paper adapts a linear one of 20,000 steps, so tables stay small and need no adaptation. Learning happens once
//! per as many requests as there are entries, not per 2^20, so that it begins at all in
//! small caches; a prior keeps it steady. Classes are relative to the cache's size. No explorers that
//! are kept against all odds, and no list of recent admissions: with a prior, chance explores enough.

mod densities;

use std::ops::RangeInclusive;

use engine::{EvictionPolicy, Gauge, Item, Slot, Verdict};
use serde::{Deserialize, Serialize};

use self::densities::{Densities, LAST_CLASS};
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Random, Sampler, Turn};

/// The options of [`Lhd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How many entries are compared to find a victim.
    pub sample: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { sample: 32 }
    }
}

const SAMPLE: OptionDoc = OptionDoc {
    name: "sample",
    allowed: "1 to 1024",
    meaning: "how many random entries are compared to find a victim, rounded up to an even number",
};

/// Requests between two lessons: as many as there are entries, within these limits.
const PERIOD: RangeInclusive<u64> = 1 << 12..=1 << 20;

/// The class of what was never hit; those of the others follow [`class`].
const NEVER_HIT: u8 = 0;

/// The class of an entry whose last two ages at a hit add up to `sum`: one more with each halving.
fn class(sum: u64, entries: u64) -> u8 {
    let halvings = (8 * entries / sum.max(1)).max(1).ilog2();
    u8::try_from(halvings + 1).map_or(LAST_CLASS, |class| class.min(LAST_CLASS))
}

struct Record {
    accessed: Turn,
    /// The age at the last hit; 0 before the first.
    last_age: u32,
    weight: u32,
    class: u8,
}

/// Evicts, of a random sample, the entry with the fewest hits to expect per time and byte.
pub struct Lhd {
    options: Options,
    residents: Sampler<Record>,
    densities: Densities,
    random: Random,
    /// Requests so far.
    turn: u64,
    last_lesson: u64,
}

impl Lhd {
    fn age(&self, record: &Record) -> u32 {
        u32::try_from(self.turn - record.accessed.get()).unwrap_or(u32::MAX)
    }

    fn advance(&mut self) {
        self.turn += 1;
        let period = (self.residents.len() as u64).clamp(*PERIOD.start(), *PERIOD.end());
        if self.turn - self.last_lesson >= period {
            self.last_lesson = self.turn;
            self.densities.learn();
        }
    }
}

impl Policy for Lhd {
    const NAME: &'static str = "lhd";
    const SUMMARY: &'static str = "of a random sample, the fewest expected hits per time and byte leave";
    const PAPER: &'static str =
        "Beckmann, Chen and Cidon, LHD: Improving Cache Hit Rate by Maximizing Hit Density, NSDI 2018";
    const OPTIONS: &'static [OptionDoc] = &[SAMPLE];
    const BYTES_PER_ENTRY: usize = 30;
    type Options = Options;

    fn validate(options: &Options) -> Result<(), OptionError> {
        if (1..=1024).contains(&options.sample) {
            return Ok(());
        }
        let OptionDoc { name: option, allowed, .. } = SAMPLE;
        Err(OptionError { option, found: options.sample.to_string(), allowed })
    }

    fn new(_capacity: u64, seed: u64, options: &Options) -> Self {
        Self {
            options: *options,
            residents: Sampler::default(),
            densities: Densities::new(),
            random: Random::new(seed),
            turn: 0,
            last_lesson: 0,
        }
    }
}

impl EvictionPolicy for Lhd {
    fn admit(&mut self, _incoming: &Item) -> bool {
        self.advance();
        true
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.residents.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.residents.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let accessed = Turn::new(self.turn);
        self.residents.insert(slot, Record { accessed, last_age: 0, weight: item.weight, class: NEVER_HIT });
    }

    fn hit(&mut self, slot: Slot) {
        self.advance();
        let entries = self.residents.len() as u64;
        let age = self.age(self.residents.get(slot));
        let turn = self.turn;
        let record = self.residents.get_mut(slot);
        self.densities.count_hit(record.class, age);
        record.class = class(u64::from(age) + u64::from(record.last_age), entries);
        record.last_age = age;
        record.accessed = Turn::new(turn);
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.residents.get_mut(slot).weight = item.weight;
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.residents.remove(slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        assert!(!self.residents.is_empty(), "evict needs a resident entry");
        let mut victim = None;
        // The victim's density so far, as a fraction: products are compared, which saves a division each.
        let (mut lowest, mut its_weight) = (f64::INFINITY, 1.0);
        for _ in 0..self.options.sample.div_ceil(2) {
            for (slot, record) in self.residents.sample_two(&mut self.random) {
                let age = self.age(record);
                let (density, weight) =
                    (f64::from(self.densities.get(record.class, age)), f64::from(record.weight));
                if density * its_weight < lowest * weight {
                    (victim, lowest, its_weight) = (Some((slot, record.class, age)), density, weight);
                }
            }
        }
        let (victim, class, age) = victim.expect("a sample has one entry and more");
        self.densities.count_eviction(class, age);
        self.residents.remove(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.residents.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.residents.footprint_bytes() + self.densities.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::mean("newcomer_hit_density", f64::from(self.densities.get(NEVER_HIT, 0))));
    }

    fn check_invariants(&self) {
        self.residents.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use engine::{Budget, Newcomer, TaggedDirectory, WeighBy};

    use super::*;

    /// Misses of the last tenth of a loop over `distinct` keys.
    fn late_misses_of_a_loop(capacity: u64, distinct: u64, rounds: u64) -> u64 {
        let policy = Lhd::new(capacity, 1, &Options::default());
        let mut directory = TaggedDirectory::new(policy, Budget::of_items(capacity), WeighBy::Items);
        let mut keys = Vec::new();
        let mut misses = 0;
        for turn in 0..rounds * distinct {
            let key = turn % distinct;
            let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if let Some(slot) = directory.find(hash, |slot| keys[slot.index()] == key) {
                directory.hit(slot, |_| {});
                continue;
            }
            misses += u64::from(turn >= rounds * distinct * 9 / 10);
            let newcomer = Newcomer { fingerprint: hash, charge: 1 };
            if let engine::Insertion::Inserted(slot) = directory.insert(hash, newcomer, |_| {}) {
                keys.resize(directory.slots(), 0);
                keys[slot.index()] = key;
            }
        }
        misses
    }

    #[test]
    fn a_loop_larger_than_the_cache_is_learnt() {
        let misses = late_misses_of_a_loop(200, 400, 100);
        assert!(misses < 4000 * 6 / 10, "the optimum misses 50 %, LRU 100 %, this {misses} of 4000");
    }

    #[test]
    fn of_entries_alike_the_heaviest_leaves() {
        let mut lhd = Lhd::new(100, 1, &Options { sample: 1024 });
        for (slot, weight) in (0..).zip([5, 40, 8, 20]) {
            lhd.insert(Slot::new(slot), &Item { hash: 0, weight });
        }
        let order = [(); 4].map(|()| lhd.evict(&Item { hash: 0, weight: 1 }));
        assert_eq!(order, [1, 3, 2, 0].map(|slot| Verdict::Evict(Slot::new(slot))));
    }

    #[test]
    fn what_returns_sooner_is_of_a_higher_class() {
        for (sum, expected) in [(u64::MAX, 1), (8000, 1), (4000, 2), (1000, 4), (1, 13), (0, 13)] {
            assert_eq!(class(sum, 1000), expected, "{sum}");
        }
        assert_eq!(class(1, u64::from(u32::MAX)), LAST_CLASS);
    }

    #[test]
    fn a_sample_of_none_or_too_many_is_refused() {
        for (sample, allowed) in [(0, false), (1, true), (1024, true), (1025, false)] {
            assert_eq!(Lhd::validate(&Options { sample }).is_ok(), allowed, "{sample}");
        }
    }
}
