//! `LeCaR` (learning cache replacement): two experts, LRU and LFU, each name a victim, and chance decides
//! between them by their weights. A miss on something that an expert threw out is that expert's
//! regret: it loses weight, the more the shorter ago it was.
//!
//! Vietri, Rodriguez, Martinez, Lyons, Liu, Rangaswami, Zhao and Narasimhan, "Driving cache replacement
//! with ML-based `LeCaR`", `HotStorage` 2018.
//!
//! Each expert has a history of its own, of half the capacity. One for both would not do: an expert that
//! is trusted less throws out less, so its own history reaches back the further, and it is reminded of
//! old mistakes as well. That holds a bad expert down; the good one would flush them from a shared history.
//!
//! Deviations. What both experts name leaves no ghost, since nobody is to blame. A returning ghost
//! starts at one use, as in libCacheSim; the authors' own program restores its count. Where weights
//! are bytes, regret fades over as many requests as the capacity has bytes, as in libCacheSim: hardly.

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{
    FrequencyLists, GhostQueue, Random, SlotLinks, SlotList, Turn, Weights, relocate_slot,
};

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

/// What one of the experts threw out against the other's advice, each with the turn in which it left.
type History = GhostQueue<Turn>;

/// Evicts LRU's or LFU's victim, whichever of the two has been the better advice of late.
pub struct Lecar {
    options: Options,
    capacity: u64,
    links: SlotLinks,
    recency: SlotList,
    frequency: FrequencyLists,
    hashes: Table<u64>,
    weights: Weights,
    resident_weight: u64,
    lru_history: History,
    lfu_history: History,
    /// The chance that LRU's victim is taken; LFU's is the rest.
    trust_in_lru: f64,
    lru_regrets: u64,
    lfu_regrets: u64,
    random: Random,
    /// Requests so far.
    turn: u64,
}

impl Lecar {
    /// What an expert keeps of its weight when something returns which it threw out then.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two numbers")]
    fn kept(&self, left: Turn) -> f64 {
        let age = (self.turn - left.get()) as f64 / self.capacity.max(1) as f64;
        let regret = self.options.discount.powf(age);
        (-self.options.learning_rate * regret).exp()
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
    const BYTES_PER_ENTRY: usize = 61;
    const BYTES_PER_WEIGHED_ENTRY: usize = 69;
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
            hashes: Table::default(),
            weights: Weights::default(),
            resident_weight: 0,
            lru_history: History::new(capacity / 2),
            lfu_history: History::new(capacity / 2),
            trust_in_lru: 0.5,
            lru_regrets: 0,
            lfu_regrets: 0,
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
        // A ghost is in one history at most: who is thrown out was resident, and had left both.
        if let Some(left) = self.lru_history.take(incoming.hash) {
            lru *= self.kept(left);
            self.lru_regrets += 1;
        } else if let Some(left) = self.lfu_history.take(incoming.hash) {
            lfu *= self.kept(left);
            self.lfu_regrets += 1;
        }
        // Made to add up to 1 every time, so nothing can drift.
        self.trust_in_lru = (lru / (lru + lfu)).clamp(LEAST_WEIGHT, 1.0 - LEAST_WEIGHT);
        true
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.recency.relocate(&mut self.links, from, to);
        self.frequency.relocate(from, to);
        relocate_slot(&mut self.hashes, from, to);
        self.weights.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.frequency.trim(slots);
        self.hashes.trim(slots);
        self.weights.trim(slots);
        self.lru_history.trim();
        self.lfu_history.trim();
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
        for history in [&mut self.lru_history, &mut self.lfu_history] {
            history.limit_by_residents(self.recency.len(), self.resident_weight);
        }
        let oldest = self.recency.back().expect("evict needs a resident entry");
        let rarest = self.frequency.first().expect("both orders hold the same entries");
        let (victim, history) = if self.random.unit() < self.trust_in_lru {
            (oldest, &mut self.lru_history)
        } else {
            (rarest, &mut self.lfu_history)
        };
        if oldest != rarest {
            let ghost = Item { hash: self.hashes[victim.index()], weight: self.weights.get(victim) };
            let in_use = self.resident_weight + u64::from(incoming.weight);
            history.set_capacity(self.capacity.min(in_use) / 2);
            history.push_with(ghost, Turn::new(self.turn));
        }
        self.forget(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.lru_history.set_capacity(capacity / 2);
        self.lfu_history.set_capacity(capacity / 2);
    }

    fn len(&self) -> usize {
        self.recency.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
            + self.frequency.footprint_bytes()
            + self.hashes.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.lru_history.footprint_bytes()
            + self.lfu_history.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::mean("trust_in_lru_ratio", self.trust_in_lru));
        for (history, hits, [entries_name, hits_name]) in [
            (&self.lru_history, self.lru_regrets, ["lru_ghost_entries", "lru_ghost_hits"]),
            (&self.lfu_history, self.lfu_regrets, ["lfu_ghost_entries", "lfu_ghost_hits"]),
        ] {
            visit(Gauge::count(entries_name, history.len() as u64));
            visit(Gauge::count(hits_name, hits));
        }
    }

    fn check_invariants(&self) {
        self.recency.check_invariants(&self.links);
        self.frequency.check_invariants();
        assert_eq!(self.recency.len(), self.frequency.len(), "both orders hold the same entries");
        let weight = self.recency.iter_from_back(&self.links).map(|slot| u64::from(self.weights.get(slot)));
        assert_eq!(weight.sum::<u64>(), self.resident_weight, "the weight is the entries' sum");
        for history in [&self.lru_history, &self.lfu_history] {
            history.check_invariants();
            assert!(history.capacity() <= self.capacity / 2, "ghosts are bounded by the capacity");
        }
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
            policy.lru_history.push_with(Item { hash: 99, weight: 1 }, Turn::new(0));
            policy.turn = turns;
            policy.admit(&Item { hash: 99, weight: 1 });
            policy.trust_in_lru
        };
        assert!(trust_after(0) < 0.45, "regretted at once: {}", trust_after(0));
        assert!(trust_after(0) < trust_after(4) && trust_after(4) < trust_after(8));
        assert!(trust_after(80) > 0.4999, "long forgotten");
    }

    #[test]
    fn the_victims_of_one_expert_do_not_push_the_others_from_memory() {
        let mut policy = Lecar::new(4, 1, &Options::default());
        let item = |hash| Item { hash, weight: 1 };
        for slot in 0..4 {
            policy.insert(Slot::new(slot), &item(u64::from(slot)));
        }
        for slot in [0, 0, 1, 2, 3] {
            policy.hit(Slot::new(slot));
        }
        // LRU takes 0, the most used and oldest; from then on LFU the newcomers, which were used once.
        policy.trust_in_lru = 1.0;
        for hash in 4..20 {
            policy.admit(&item(hash));
            let Verdict::Evict(slot) = policy.evict(&item(hash)) else { panic!("nobody is rejected") };
            policy.insert(slot, &item(hash));
            policy.trust_in_lru = 0.0;
        }
        policy.check_invariants();
        policy.trust_in_lru = 0.5;
        policy.admit(&item(0));
        assert!(policy.trust_in_lru < 0.5, "LRU's mistake is remembered: {}", policy.trust_in_lru);
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
