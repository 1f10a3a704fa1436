//! Random replacement: any entry may leave, each with the same probability.
//!
//! Folklore. What a policy has to beat to be worth remembering anything about entries, and hard to beat
//! where a loop is larger than the cache. The victims follow from the seed. No deviation.

use engine::{EvictionPolicy, Item, Slot, Verdict};

use crate::policy::{NoOptions, OptionDoc, Policy};
use crate::structures::{Random, Sampler};

/// Evicts an entry drawn uniformly.
pub struct RandomReplacement {
    residents: Sampler<()>,
    random: Random,
}

impl Policy for RandomReplacement {
    const NAME: &'static str = "random";
    const SUMMARY: &'static str = "a random entry leaves, whatever was used how often";
    const PAPER: &'static str = "folklore";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 8;
    type Options = NoOptions;

    fn new(_capacity: u64, seed: u64, _options: &NoOptions) -> Self {
        Self { residents: Sampler::default(), random: Random::new(seed) }
    }
}

impl EvictionPolicy for RandomReplacement {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.residents.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.residents.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.residents.insert(slot, ());
    }

    fn hit(&mut self, _slot: Slot) {}

    fn remove(&mut self, slot: Slot) {
        self.residents.remove(slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let (victim, ()) = self.residents.sample(&mut self.random);
        self.residents.remove(victim);
        Verdict::Evict(victim)
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.residents.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.residents.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.residents.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resident_leaves_equally_often_and_seeds_differ() {
        let first_victims = (0..8000).map(|seed| {
            let mut policy = RandomReplacement::new(8, seed, &NoOptions {});
            let item = Item { hash: 0, weight: 1 };
            for index in 0..9 {
                policy.insert(Slot::new(index), &item);
            }
            policy.remove(Slot::new(3));
            let Verdict::Evict(victim) = policy.evict(&item) else { panic!("random rejects nobody") };
            victim.index()
        });
        let mut counts = [0_u32; 9];
        first_victims.for_each(|victim| counts[victim] += 1);
        let (gone, others) = (counts[3], [&counts[..3], &counts[4..]].concat());
        assert_eq!(gone, 0);
        assert!(others.iter().all(|&count| count.abs_diff(1000) < 150), "{counts:?}");
    }
}
