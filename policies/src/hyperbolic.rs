//! Hyperbolic caching: an entry is worth its uses per request since it came in. That falls at every
//! moment for everybody, at different speeds, so no order can be kept; the least worthy of a random
//! sample leaves.
//!
//! Blankstein, Sen and Freedman, "Hyperbolic caching: flexible caching for web applications", USENIX
//! ATC 2017. Uses are divided by the weight, the paper's form for objects of different sizes; the
//! option `variant` gives the plain form that libCacheSim has. Samples are drawn with replacement.

use engine::{EvictionPolicy, Gauge, Item, Slot, Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Random, Sampler, Turn};

/// What a use is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Less for a heavy entry, in proportion: fewest misses.
    #[default]
    Published,
    /// The same for all, whatever they weigh.
    Libcachesim,
}

/// The options of [`Hyperbolic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How many entries are compared to find a victim.
    pub sample: u16,
    /// What a use is worth.
    pub variant: Variant,
}

impl Default for Options {
    fn default() -> Self {
        Self { sample: 64, variant: Variant::default() }
    }
}

const SAMPLE: OptionDoc = OptionDoc {
    name: "sample",
    allowed: "1 to 1024",
    meaning: "how many random entries are compared to find a victim",
};

struct Record {
    inserted: Turn,
    uses: u32,
    weight: u32,
}

/// Evicts, of a random sample, the entry with the fewest uses per request since it came in.
pub struct Hyperbolic {
    options: Options,
    residents: Sampler<Record>,
    random: Random,
    /// Requests so far.
    turn: u64,
    /// What the last victim cost per use.
    last_cost: f64,
}

impl Hyperbolic {
    /// The time in cache that one use has to pay for: small is good.
    #[expect(clippy::cast_precision_loss, reason = "an order between samples, made anew each time")]
    fn cost_per_use(&self, record: &Record) -> f64 {
        let age = (self.turn - record.inserted.get()) as f64;
        let weight = match self.options.variant {
            Variant::Published => f64::from(record.weight),
            Variant::Libcachesim => 1.0,
        };
        age * weight / f64::from(record.uses)
    }
}

impl Policy for Hyperbolic {
    const NAME: &'static str = "hyperbolic";
    const SUMMARY: &'static str = "of a random sample, the fewest uses per time in the cache and byte leave";
    const PAPER: &'static str =
        "Blankstein et al., Hyperbolic Caching: Flexible Caching for Web Applications, USENIX ATC 2017";
    const OPTIONS: &'static [OptionDoc] = &[
        SAMPLE,
        OptionDoc {
            name: "variant",
            allowed: r#""published" or "libcachesim""#,
            meaning: "whether uses count per unit of weight, or weights are ignored as in libCacheSim",
        },
    ];
    const BYTES_PER_ENTRY: usize = 24;
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
            random: Random::new(seed),
            turn: 0,
            last_cost: 0.0,
        }
    }
}

impl EvictionPolicy for Hyperbolic {
    fn admit(&mut self, _incoming: &Item) -> bool {
        self.turn += 1;
        true
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.residents.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.residents.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let inserted = Turn::new(self.turn);
        self.residents.insert(slot, Record { inserted, uses: 1, weight: item.weight });
    }

    fn hit(&mut self, slot: Slot) {
        self.turn += 1;
        let uses = &mut self.residents.get_mut(slot).uses;
        *uses = uses.saturating_add(1);
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
        let mut highest = -1.0;
        for _ in 0..self.options.sample {
            let (slot, record) = self.residents.sample(&mut self.random);
            let cost = self.cost_per_use(record);
            if cost > highest {
                (victim, highest) = (Some(slot), cost);
            }
        }
        let victim = victim.expect("a sample has one entry and more");
        self.last_cost = highest;
        self.residents.remove(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.residents.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.residents.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::mean("last_victim_cost_per_use", self.last_cost));
    }

    fn check_invariants(&self) {
        self.residents.check_invariants();
        for (slot, record) in self.residents.iter() {
            assert!(record.uses > 0 && record.inserted.get() <= self.turn, "{slot:?} has a past");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    /// So large a sample holds every one of a few entries: the outcome is that of the exact policy.
    const EXACT: Options = Options { sample: 1024, variant: Variant::Published };

    #[test]
    fn the_fewest_uses_per_request_since_insertion_leave() {
        for (script, expected) in [
            ("a b c d e", "ab"),
            ("a b c a d e", "bc"),
            // `a` is worth 4/7 when `e` comes, `c` only 1/2.
            ("a a a a b c d e", "bc"),
            // `a` is worth 2/6, less than `c` that came last.
            ("a a b b b c d", "a"),
            ("a b c =a -b d e", "c"),
        ] {
            assert_eq!(victims::<Hyperbolic>(&EXACT, 3, script), expected, "{script}");
        }
    }

    #[test]
    fn a_heavy_entry_leaves_before_a_light_one_unless_weights_are_ignored() {
        for (variant, expected) in [(Variant::Published, 1), (Variant::Libcachesim, 0)] {
            let mut policy = Hyperbolic::new(100, 0, &Options { variant, ..EXACT });
            for (slot, weight) in [(0, 5), (1, 50)] {
                let item = Item { hash: 0, weight };
                policy.admit(&item);
                policy.insert(Slot::new(slot), &item);
            }
            let incoming = Item { hash: 0, weight: 60 };
            policy.admit(&incoming);
            assert_eq!(policy.evict(&incoming), Verdict::Evict(Slot::new(expected)), "{variant:?}");
        }
    }

    #[test]
    fn a_sample_of_none_or_too_many_is_refused() {
        for (sample, allowed) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let options = Options { sample, ..Options::default() };
            assert_eq!(Hyperbolic::validate(&options).is_ok(), allowed, "{sample}");
        }
    }
}
