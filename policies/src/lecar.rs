//! `LeCaR` (learning cache replacement): two experts, LRU and LFU, each name a victim, and chance decides
//! between them by their weights. A miss on something that an expert threw out is that expert's
//! regret: it loses weight, the more the shorter ago it was.
//!
//! Vietri, Rodriguez, Martinez, Lyons, Liu, Rangaswami, Zhao and Narasimhan, "Driving cache replacement
//! with ML-based `LeCaR`", `HotStorage` 2018.
//!
//! Deviations. Both experts share one history of half the capacity, where each has its own: less memory for
//! the same misses. What both experts name leaves no ghost, since nobody is to blame. A returning ghost
//! starts at one use, as in libCacheSim; the authors' own program restores its count. Where weights
//! are bytes, regret fades over as many requests as the capacity has bytes, as in libCacheSim: hardly.

use engine::{EvictionPolicy, Item, Slot, Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{FrequencyLists, GhostQueue, Random, SlotLinks, SlotList, Turn, Weights};

/// The options of [`Lecar`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How fast weights follow regret.
    pub learning_rate: f64,
    /// What is left of a regret after as many requests as the capacity has units of weight.
    pub discount: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { learning_rate: 0.45, discount: 0.005 }
    }
}

/// Neither expert is ever silenced, or it could not win its weight back.
const LEAST_WEIGHT: f64 = 1e-10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expert {
    Lru,
    Lfu,
}

/// What one of the experts threw out against the other's advice, and when.
struct History {
    ghosts: GhostQueue,
    /// The turn in which each ghost left, by its number, and who threw it out.
    left: Vec<(Turn, Expert)>,
}

impl History {
    fn push(&mut self, item: Item, turn: u64, expert: Expert) {
        self.ghosts.push(item);
        if let Some(number) = self.ghosts.number(item.hash) {
            if number >= self.left.len() {
                self.left.resize(number + 1, (Turn::new(0), expert));
            }
            self.left[number] = (Turn::new(turn), expert);
        }
    }

    /// Forgets a ghost and says when it had left, and whose advice that was.
    fn take(&mut self, hash: u64) -> Option<(u64, Expert)> {
        let number = self.ghosts.number(hash)?;
        self.ghosts.remove(hash);
        let (turn, expert) = self.left[number];
        Some((turn.get(), expert))
    }

    fn footprint_bytes(&self) -> usize {
        self.ghosts.footprint_bytes() + self.left.capacity() * size_of::<(Turn, Expert)>()
    }
}

/// Evicts LRU's or LFU's victim, whichever of the two has been the better advice of late.
pub struct Lecar {
    options: Options,
    capacity: u64,
    links: SlotLinks,
    recency: SlotList,
    frequency: FrequencyLists,
    hashes: Vec<u64>,
    weights: Weights,
    resident_weight: u64,
    history: History,
    /// The chance that LRU's victim is taken; LFU's is the rest.
    trust_in_lru: f64,
    random: Random,
    /// Requests so far.
    turn: u64,
}

impl Lecar {
    /// How much an expert regrets that something returns which it threw out then: 1 at most.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two numbers")]
    fn regret(&self, left: u64) -> f64 {
        self.options.discount.powf((self.turn - left) as f64 / self.capacity.max(1) as f64)
    }

    fn forget(&mut self, slot: Slot) {
        self.recency.remove(&mut self.links, slot);
        self.frequency.remove(slot);
        self.resident_weight -= u64::from(self.weights.get(slot));
    }
}

impl Policy for Lecar {
    const NAME: &'static str = "lecar";
    const SUMMARY: &'static str = "LRU or LFU by chance, with odds learnt from which of them is regretted";
    const PAPER: &'static str =
        "Vietri et al., Driving Cache Replacement with ML-based LeCaR, HotStorage 2018";
    const OPTIONS: &'static [OptionDoc] = &[LEARNING_RATE, DISCOUNT];
    const BYTES_PER_ENTRY: usize = 47;
    type Options = Options;

    fn validate(options: &Options) -> Result<(), OptionError> {
        for (doc, value) in [(LEARNING_RATE, options.learning_rate), (DISCOUNT, options.discount)] {
            if !(0.0..=1.0).contains(&value) {
                let OptionDoc { name: option, allowed, .. } = doc;
                return Err(OptionError { option, found: value.to_string(), allowed });
            }
        }
        Ok(())
    }

    fn new(capacity: u64, seed: u64, options: &Options) -> Self {
        Self {
            options: *options,
            capacity,
            links: SlotLinks::default(),
            recency: SlotList::default(),
            frequency: FrequencyLists::default(),
            hashes: Vec::new(),
            weights: Weights::default(),
            resident_weight: 0,
            history: History { ghosts: GhostQueue::new(capacity / 2), left: Vec::new() },
            trust_in_lru: 0.5,
            random: Random::new(seed),
            turn: 0,
        }
    }
}

const LEARNING_RATE: OptionDoc = OptionDoc {
    name: "learning_rate",
    allowed: "0.0 to 1.0",
    meaning: "how fast the odds follow regret; 0 keeps them even",
};

const DISCOUNT: OptionDoc = OptionDoc {
    name: "discount",
    allowed: "0.0 to 1.0",
    meaning: "what is left of a regret after as many requests as the capacity has units",
};

impl EvictionPolicy for Lecar {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.turn += 1;
        let (mut lru, mut lfu) = (self.trust_in_lru, 1.0 - self.trust_in_lru);
        if let Some((left, expert)) = self.history.take(incoming.hash) {
            let kept = (-self.options.learning_rate * self.regret(left)).exp();
            match expert {
                Expert::Lru => lru *= kept,
                Expert::Lfu => lfu *= kept,
            }
        }
        // Made to add up to 1 every time, so nothing can drift.
        self.trust_in_lru = (lru / (lru + lfu)).clamp(LEAST_WEIGHT, 1.0 - LEAST_WEIGHT);
        true
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        self.recency.push_front(&mut self.links, slot);
        self.frequency.insert(slot);
        if slot.index() >= self.hashes.len() {
            self.hashes.resize(slot.index() + 1, 0);
        }
        self.hashes[slot.index()] = item.hash;
        self.weights.set(slot, item.weight);
        self.resident_weight += u64::from(item.weight);
    }

    fn hit(&mut self, slot: Slot) {
        self.turn += 1;
        self.recency.move_to_front(&mut self.links, slot);
        self.frequency.count(slot);
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.resident_weight += u64::from(item.weight);
        self.resident_weight -= u64::from(self.weights.get(slot));
        self.weights.set(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.forget(slot);
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        let oldest = self.recency.back().expect("evict needs a resident entry");
        let rarest = self.frequency.first().expect("both orders hold the same entries");
        let (victim, expert) = if self.random.unit() < self.trust_in_lru {
            (oldest, Expert::Lru)
        } else {
            (rarest, Expert::Lfu)
        };
        if oldest != rarest {
            let ghost = Item { hash: self.hashes[victim.index()], weight: self.weights.get(victim) };
            let in_use = self.resident_weight + u64::from(incoming.weight);
            self.history.ghosts.set_capacity(self.capacity.min(in_use) / 2);
            self.history.push(ghost, self.turn, expert);
        }
        self.forget(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.history.ghosts.set_capacity(capacity / 2);
    }

    fn len(&self) -> usize {
        self.recency.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
            + self.frequency.footprint_bytes()
            + self.hashes.capacity() * size_of::<u64>()
            + self.weights.footprint_bytes()
            + self.history.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(&'static str, f64)) {
        visit("trust_in_lru", self.trust_in_lru);
    }

    fn check_invariants(&self) {
        self.recency.check_invariants(&self.links);
        self.frequency.check_invariants();
        assert_eq!(self.recency.len(), self.frequency.len(), "both orders hold the same entries");
        let weight = self.recency.iter_from_back(&self.links).map(|slot| u64::from(self.weights.get(slot)));
        assert_eq!(weight.sum::<u64>(), self.resident_weight, "the weight is the entries' sum");
        self.history.ghosts.check_invariants();
        assert!(self.history.ghosts.capacity() <= self.capacity / 2, "ghosts are bounded by the capacity");
        assert!((0.0..=1.0).contains(&self.trust_in_lru), "a chance is between 0 and 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn an_expert_that_is_trusted_alone_decides() {
        let run = |trust, script: &str| {
            let mut policy = Lecar::new(3, 1, &Options::default());
            policy.trust_in_lru = trust;
            let mut names = Vec::new();
            let mut left = String::new();
            for name in script.chars() {
                if let Some(index) = names.iter().position(|&other| other == Some(name)) {
                    policy.hit(Slot::new(u32::try_from(index).expect("few")));
                    continue;
                }
                let item = Item { hash: u64::from(u32::from(name)), weight: 1 };
                policy.admit(&item);
                let slot = if policy.len() < 3 {
                    names.push(None);
                    Slot::new(u32::try_from(names.len() - 1).expect("few"))
                } else {
                    let Verdict::Evict(slot) = policy.evict(&item) else { panic!("nobody is rejected") };
                    left.extend(names[slot.index()]);
                    slot
                };
                names[slot.index()] = Some(name);
                policy.insert(slot, &item);
                policy.check_invariants();
            }
            left
        };
        assert_eq!(run(1.0, "aabcdefg"), "abcd");
        assert_eq!(run(0.0, "aabcdefg"), "bcde");
    }

    #[test]
    fn the_expert_that_is_regretted_loses_trust_and_the_sooner_the_more() {
        let trust_after = |turns: u64| {
            let mut policy = Lecar::new(8, 1, &Options::default());
            for slot in 0..8 {
                policy.insert(Slot::new(slot), &Item { hash: u64::from(slot), weight: 1 });
            }
            policy.history.push(Item { hash: 99, weight: 1 }, 0, Expert::Lru);
            policy.turn = turns;
            policy.admit(&Item { hash: 99, weight: 1 });
            policy.trust_in_lru
        };
        assert!(trust_after(0) < 0.45, "regretted at once: {}", trust_after(0));
        assert!(trust_after(0) < trust_after(4) && trust_after(4) < trust_after(8));
        assert!(trust_after(80) > 0.4999, "long forgotten");
    }

    #[test]
    fn where_both_experts_agree_no_chance_is_involved() {
        for (script, expected) in [("a b c d e", "ab"), ("a b c b c d", "a"), ("a b c -a d e", "b")] {
            assert_eq!(victims::<Lecar>(&Options::default(), 3, script), expected, "{script}");
        }
    }

    #[test]
    fn rates_outside_0_to_1_are_refused() {
        for (rate, allowed) in [(-0.1, false), (0.0, true), (1.0, true), (1.1, false), (f64::NAN, false)] {
            for options in [
                Options { learning_rate: rate, ..Options::default() },
                Options { discount: rate, ..Options::default() },
            ] {
                assert_eq!(Lecar::validate(&options).is_ok(), allowed, "{options:?}");
            }
        }
    }
}
