//! Greedy dual size frequency: an entry is worth its uses divided by its weight, on top of an
//! inflation value that rises to the worth of whatever leaves, so that what is not used ages.
//!
//! Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy",
//! HP Laboratories report 98-69R1, 1998.
//!
//! Deviations. Priorities are fixed-point numbers modulo 2^64, not floating-point ones: a double
//! that keeps growing by small shares loses first their last bits and then all of them, while here an
//! addition is exact for ever. That the numbers wrap does no harm, since all that are alive lie within
//! 2^62 above the inflation value, and are compared by their distance. Ties go by the last use, oldest
//! first. A newcomer competes for its place: if it is worth less than what would have to leave, it is
//! turned away, and inflation rises to its worth; what left for it before stays out. Letting
//! victims go first and the newcomer come in unopposed, as is common, measures slightly worse.

use std::cmp::Ordering;

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, Policy};
use crate::structures::{SlotHeap, Weights, relocate_slot};

/// What one use of an entry of weight 1 is worth. Leaves 26 bits for uses before worth saturates,
/// and 36 bits for the weight before a single use is worth nothing.
const ONE: u64 = 1 << 36;
const LARGEST_WORTH: u64 = 1 << 62;

/// How a newcomer gets its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// It competes with who is resident, at the inflation of before, and may itself be the one to leave.
    #[default]
    Libcachesim,
    /// Entries leave until there is room; then it comes in, on top of the risen inflation.
    EvictFirst,
}

/// The options of [`Gdsf`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How a newcomer gets its place.
    pub variant: Variant,
}

/// Inflation plus worth, modulo 2^64: ordered by distance, which those that are alive keep below 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Priority(u64);

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.wrapping_sub(other.0).cast_signed().cmp(&0)
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Priority {
    /// The priority of an entry above this inflation.
    fn above(self, uses: u32, weight: u32) -> Self {
        let worth = u128::from(uses) * u128::from(ONE) / u128::from(weight.max(1));
        let worth = u64::try_from(worth).map_or(LARGEST_WORTH, |worth| worth.min(LARGEST_WORTH));
        Self(self.0.wrapping_add(worth))
    }
}

/// Evicts the entry with the fewest uses per unit of weight, aged by inflation.
pub struct Gdsf {
    variant: Variant,
    /// By priority, then by the turn of the last use.
    heap: SlotHeap<(Priority, u64)>,
    uses: Table<u32>,
    weights: Weights,
    /// The priority of what left last.
    inflation: Priority,
    /// The priority with which the newcomer at the door competes, where it does.
    newcomer: Option<Priority>,
    turn: u64,
}

impl Gdsf {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

impl Policy for Gdsf {
    const NAME: &'static str = "gdsf";
    const SUMMARY: &'static str = "greedy dual size frequency: the fewest uses per byte leave, with ageing";
    const PAPER: &'static str = "Cherkasova, Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency \
                                 Caching Policy, HP Laboratories 1998";
    const OPTIONS: &'static [OptionDoc] = &[OptionDoc {
        name: "variant",
        allowed: r#""libcachesim" or "evict-first""#,
        meaning: "whether a newcomer competes with who is resident and may be turned away, as in libCacheSim, \
                  or comes in once others have left",
    }];
    const BYTES_PER_ENTRY: usize = 32;
    const BYTES_PER_WEIGHED_ENTRY: usize = 36;
    type Options = Options;

    fn new(_capacity: u64, _seed: u64, options: &Options) -> Self {
        Self {
            variant: options.variant,
            heap: SlotHeap::default(),
            uses: Table::default(),
            weights: Weights::default(),
            inflation: Priority(0),
            newcomer: None,
            turn: 0,
        }
    }
}

impl EvictionPolicy for Gdsf {
    fn admit(&mut self, incoming: &Item) -> bool {
        let competes = self.variant == Variant::Libcachesim;
        self.newcomer = competes.then(|| self.inflation.above(1, incoming.weight));
        true
    }

    fn step_aside(&mut self) -> Option<u64> {
        self.newcomer.take().map(|Priority(priority)| priority)
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        self.newcomer = noted.map(Priority);
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.heap.relocate(from, to);
        relocate_slot(&mut self.uses, from, to);
        self.weights.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.heap.trim(slots);
        self.uses.trim(slots);
        self.weights.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        if slot.index() >= self.uses.len() {
            self.uses.resize(slot.index() + 1, 0);
        }
        self.uses[slot.index()] = 1;
        self.weights.set(slot, item.weight);
        let priority = self.newcomer.take().unwrap_or_else(|| self.inflation.above(1, item.weight));
        let turn = self.next_turn();
        self.heap.insert(slot, (priority, turn));
    }

    fn hit(&mut self, slot: Slot) {
        let uses = &mut self.uses[slot.index()];
        *uses = uses.saturating_add(1);
        let priority = self.inflation.above(*uses, self.weights.get(slot));
        let turn = self.next_turn();
        self.heap.change(slot, (priority, turn));
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.weights.set(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.heap.remove(slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let (victim, (priority, _)) = self.heap.first().expect("evict needs a resident entry");
        if let Some(newcomer) = self.newcomer.take_if(|newcomer| *newcomer < priority) {
            self.inflation = newcomer;
            return Verdict::Reject;
        }
        self.inflation = priority;
        self.heap.remove(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.heap.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.heap.footprint_bytes() + self.uses.footprint_bytes() + self.weights.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        let next = self.heap.first().map_or(0, |(slot, _)| self.uses[slot.index()]);
        visit(Gauge::mean("next_victim_uses", f64::from(next)));
    }

    fn check_invariants(&self) {
        self.heap.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_fewest_uses_leave_but_what_is_not_used_ages() {
        for (script, competing, evict_first) in [
            ("a b c d e", "ab", "ab"),
            ("a b c =a d", "b", "b"),
            ("a a b c -a d e", "b", "b"),
            // `d` came in at the inflation of before or after the eviction of `c`.
            ("a b c a b d e", "cd", "ca"),
            // Inflation has caught up with the two uses of `a`.
            ("a a b c d e f g", "bcda", "bcad"),
            // `d` is worth less than everybody, and inflation rises to its worth.
            ("a a b b c c d e", "(d)a", "ab"),
        ] {
            for (variant, expected) in [(Variant::Libcachesim, competing), (Variant::EvictFirst, evict_first)]
            {
                assert_eq!(
                    victims::<Gdsf>(&Options { variant }, 3, script),
                    expected,
                    "{variant:?}: {script}"
                );
            }
        }
    }

    #[test]
    fn order_holds_where_priorities_wrap() {
        let old = Priority(u64::MAX - 3).above(1, 1);
        assert!(Priority(u64::MAX - 3) < old && old < old.above(1, u32::MAX).above(2, 1));
        assert_eq!(Priority(7).above(u32::MAX, 1), Priority(7 + LARGEST_WORTH), "worth saturates");
        let mut gdsf = Gdsf::new(2, 0, &Options::default());
        gdsf.inflation = Priority(u64::MAX);
        for slot in [0, 1] {
            gdsf.insert(Slot::new(slot), &Item { hash: 0, weight: 2 - slot });
        }
        assert_eq!(gdsf.evict(&Item { hash: 0, weight: 1 }), Verdict::Evict(Slot::new(0)));
    }

    #[test]
    fn of_equally_used_entries_the_heaviest_leaves() {
        let mut gdsf = Gdsf::new(100, 0, &Options::default());
        for (slot, weight) in (0..).zip([5, 40, 8, 20]) {
            gdsf.insert(Slot::new(slot), &Item { hash: 0, weight });
        }
        gdsf.update(Slot::new(2), &Item { hash: 0, weight: 100 });
        let order = [(); 4].map(|()| gdsf.evict(&Item { hash: 0, weight: 1 }));
        assert_eq!(order, [2, 1, 3, 0].map(|slot| Verdict::Evict(Slot::new(slot))));
    }
}
