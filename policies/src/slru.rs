//! Segmented LRU: newcomers enter the lowest of several LRU segments, each hit lifts an entry by one, and
//! what overflows a segment sinks to the one below. So one pass over many keys displaces the lowest
//! segment only, and what was hit often sinks slowly.
//!
//! Karedla, Love and Wherry, "Caching Strategies to Improve Disk System Performance", IEEE Computer 27(3),
//! 1994. Deviations, all of them measured: four segments instead of two, as in Huang et al., "An Analysis
//! of Facebook Photo Caching", SOSP 2013; a newcomer enters the lowest segment that has room, so that
//! the first entries of a cache that fills are protected and a loop larger than the cache keeps them; the
//! lowest segment may take whatever the others leave; an entry larger than a segment stays in the lowest.
//!
//! `variant = "libcachesim"`: a newcomer finds the lowest segment limited like the others, an entry larger
//! than a segment is refused, and a cascade down to an overfull lowest segment evicts on a hit.

use engine::{EvictionPolicy, Gauge, Item, Slot, Verdict};
use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant};
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Segments, share};

const MOST_SEGMENTS: usize = 8;
const LOWEST: usize = 0;

/// Evicts the least recently used entry of the lowest segment.
pub struct Slru {
    segments: Segments<MOST_SEGMENTS>,
    count: usize,
    protected: f64,
    libcachesim: bool,
    capacity: u64,
    /// What is shared out: the capacity, or what was resident when another limit last bound.
    budget: u64,
    /// The limit of each segment but the lowest.
    limit: u64,
    /// Whether something sank into the lowest segment in the last hit, where that makes it shed.
    overflown: bool,
}

/// The options of [`Slru`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlruOptions {
    /// Number of segments.
    pub segments: usize,
    /// Share of the capacity that all segments but the lowest have together.
    pub protected_ratio: f64,
    /// Whose decisions to reproduce.
    pub variant: Variant,
}

impl Default for SlruOptions {
    fn default() -> Self {
        Self { segments: 4, protected_ratio: 0.75, variant: Variant::Published }
    }
}

const SEGMENTS: OptionDoc = OptionDoc {
    name: "segments",
    allowed: "2 to 8",
    meaning: "number of segments: how many hits it takes to reach the best protected place",
};
const PROTECTED_RATIO: OptionDoc = OptionDoc {
    name: "protected_ratio",
    allowed: "0.0 to 1.0",
    meaning: "share of the capacity for all segments but the lowest, in equal parts; not used by libcachesim",
};

impl Slru {
    /// Shares the budget out anew.
    fn set_budget(&mut self, budget: u64) {
        if budget != self.budget {
            self.budget = budget;
            self.limit = self.limit_of(budget);
        }
    }

    fn limit_of(&self, budget: u64) -> u64 {
        if self.libcachesim {
            budget / self.count as u64
        } else {
            share(budget, self.protected) / (self.count - 1) as u64
        }
    }

    /// How far newcomers fill the lowest segment while a higher one has room.
    const fn lowest_limit(&self) -> u64 {
        if self.libcachesim { self.limit } else { self.budget - (self.count as u64 - 1) * self.limit }
    }

    /// Lets what is over the limit of a segment sink, from this one downwards.
    fn settle(&mut self, highest: usize) {
        for segment in (LOWEST + 1..=highest).rev() {
            while self.segments.segment_weight(segment) > self.limit {
                let oldest = self.segments.back(segment).expect("what weighs something is not empty");
                self.segments.move_to_front(segment - 1, oldest);
                self.overflown |= self.libcachesim && segment - 1 == LOWEST;
            }
        }
    }
}

impl Policy for Slru {
    const NAME: &'static str = "slru";
    const SUMMARY: &'static str =
        "LRU in segments: each hit lifts an entry by one, newcomers start at the bottom";
    const PAPER: &'static str =
        "Karedla, Love and Wherry, Caching Strategies to Improve Disk System Performance, IEEE Computer 1994";
    const OPTIONS: &'static [OptionDoc] = &[SEGMENTS, PROTECTED_RATIO, VARIANT];
    const BYTES_PER_ENTRY: usize = 9;
    const BYTES_PER_WEIGHED_ENTRY: usize = 13;
    type Options = SlruOptions;

    fn validate(options: &SlruOptions) -> Result<(), OptionError> {
        let refuse = |option: &OptionDoc, found| {
            Err(OptionError { option: option.name, found, allowed: option.allowed })
        };
        if !(2..=MOST_SEGMENTS).contains(&options.segments) {
            return refuse(&SEGMENTS, options.segments.to_string());
        }
        if !(0.0..=1.0).contains(&options.protected_ratio) {
            return refuse(&PROTECTED_RATIO, options.protected_ratio.to_string());
        }
        Ok(())
    }

    fn new(capacity: u64, _seed: u64, options: &SlruOptions) -> Self {
        let mut slru = Self {
            segments: Segments::default(),
            count: options.segments,
            protected: options.protected_ratio,
            libcachesim: options.variant == Variant::Libcachesim,
            capacity,
            budget: 0,
            limit: 0,
            overflown: false,
        };
        slru.set_budget(capacity);
        slru
    }
}

impl EvictionPolicy for Slru {
    fn admit(&mut self, incoming: &Item) -> bool {
        !self.libcachesim || u64::from(incoming.weight) <= self.limit_of(self.capacity)
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.segments.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.segments.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let has_room = |&segment: &usize| {
            let limit = if segment == LOWEST { self.lowest_limit() } else { self.limit };
            self.segments.segment_weight(segment) + u64::from(item.weight) <= limit
        };
        let segment = (LOWEST..self.count).find(has_room).unwrap_or(LOWEST);
        self.segments.push_front(segment, slot, item.weight);
        self.set_budget(self.budget.max(self.segments.weight()));
    }

    fn hit(&mut self, slot: Slot) {
        let segment = self.segments.segment_of(slot);
        self.overflown = false;
        if segment + 1 < self.count && u64::from(self.segments.weight_of(slot)) <= self.limit {
            self.segments.move_to_front(segment + 1, slot);
            self.settle(segment + 1);
        } else {
            self.segments.move_to_front(segment, slot);
        }
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.segments.set_weight(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.segments.remove(slot);
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        let wanted = self.segments.weight().saturating_add(u64::from(incoming.weight));
        self.set_budget(self.capacity.min(wanted));
        if !self.libcachesim {
            self.settle(self.count - 1);
        }
        let victim = (LOWEST..self.count).find_map(|segment| self.segments.pop_back(segment));
        Verdict::Evict(victim.expect("evict needs a resident entry"))
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.set_budget(capacity);
    }

    fn len(&self) -> usize {
        self.segments.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.segments.footprint_bytes()
    }

    fn sheds_on_hit(&self) -> bool {
        self.libcachesim
    }

    fn shed(&mut self) -> Option<Slot> {
        let overflown = self.overflown && self.segments.segment_weight(LOWEST) > self.limit;
        overflown.then(|| self.segments.pop_back(LOWEST)).flatten()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        const NAMES: [&str; MOST_SEGMENTS] = [
            "segment_0_weight",
            "segment_1_weight",
            "segment_2_weight",
            "segment_3_weight",
            "segment_4_weight",
            "segment_5_weight",
            "segment_6_weight",
            "segment_7_weight",
        ];
        for (segment, name) in NAMES.into_iter().enumerate().take(self.count) {
            visit(Gauge::count(name, self.segments.segment_weight(segment)));
        }
    }

    fn check_invariants(&self) {
        self.segments.check_invariants();
        assert_eq!(self.limit, self.limit_of(self.budget), "the limit follows from the budget");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn each_hit_lifts_an_entry_and_what_overflows_sinks() {
        let two = SlruOptions { segments: 2, protected_ratio: 0.5, ..SlruOptions::default() };
        let four = SlruOptions::default();
        for (options, script, expected) in [
            (two, "a b c d e f", "ab"),
            // `a` and `b` are protected: newcomers displace each other.
            (two, "a b a b c d e f g", "cde"),
            // `c` is the third in a segment of two: `a` sinks to the recent end of the lowest.
            (two, "a b c d a b c e f g", "dae"),
            // `e` takes the place that `b` left among the protected.
            (two, "a b a b c d =a -b e f g h", "cdf"),
            // One place in each segment: `a` to `d` fill them from the bottom, only the lowest is in the way.
            (four, "a b c d e f g", "aef"),
            // Lifted into the second segment, `e` lets `b` sink.
            (four, "a b c d e e f g h", "abfg"),
        ] {
            assert_eq!(victims::<Slru>(&options, 4, script), expected, "{script}");
        }
    }

    #[test]
    fn a_segment_too_small_for_an_entry_leaves_an_lru() {
        for (script, expected) in [("a b c", "a"), ("a b a c", "b"), ("a b a a b c d", "ab")] {
            assert_eq!(victims::<Slru>(&SlruOptions::default(), 2, script), expected, "{script}");
        }
    }

    #[test]
    fn libcachesim_fills_segments_from_the_bottom_and_evicts_on_a_hit() {
        let options = SlruOptions { variant: Variant::Libcachesim, ..SlruOptions::default() };
        for (capacity, script, expected) in [
            (3, "a a", "(a)(a)"),
            (4, "a b c d e", "a"),
            // The fifth place is surplus of the lowest segment. Lifting `a` lets `b` sink, and `e` leaves.
            (5, "a b c d e a", "e"),
            (5, "a b c d e e", "a"),
        ] {
            assert_eq!(victims::<Slru>(&options, capacity, script), expected, "{script}");
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let allowed = |segments, protected_ratio| {
            Slru::validate(&SlruOptions { segments, protected_ratio, ..SlruOptions::default() }).is_ok()
        };
        assert!(allowed(2, 0.0) && allowed(8, 1.0));
        assert!(!allowed(1, 0.5) && !allowed(9, 0.5) && !allowed(2, -0.1) && !allowed(2, f64::NAN));
    }
}
