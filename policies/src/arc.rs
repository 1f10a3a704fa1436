//! ARC: one LRU list for entries seen once, one for those seen again, and a ghost list for each. A newcomer
//! found among the ghosts of one list says that this list was too short, and the target length moves.
//!
//! Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003. The target moves
//! by a real number, as in the paper. Deviations, for weights that differ only: one ghost is dropped per victim even
//! if that is not enough for the paper's limits, since a longer memory measures better; the target moves
//! by the ratio times the square root of the weight (by the ratio alone it hardly moves, by the whole
//! weight it overshoots).
//!
//! `variant = "libcachesim"`: the target moves by the ratio alone.

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant};
use crate::policy::{OptionDoc, Policy};
use crate::structures::{GhostQueue, Segments, as_float, relocate_slot};

/// `T1` of the paper, and index of its ghosts, `B1`.
const ONCE: usize = 0;
/// `T2` of the paper, and index of its ghosts, `B2`.
const AGAIN: usize = 1;

/// No ghost list weighs more than this many capacities. Only where weights differ can one weigh more than two: as
/// one ghost is dropped per victim, their number is steady and their weight is not. Their number is not bounded by the residents': with
/// four for each, and with sixteen, it missed more often than the reference.
const MOST_GHOSTS: u64 = 16;

/// Balances recency against frequency by what its ghosts tell.
pub struct Arc {
    segments: Segments<2>,
    hashes: Table<u64>,
    ghosts: [GhostQueue; 2],
    /// `p` of the paper: how much the entries seen once should weigh. Never outside 0 to the capacity.
    target: f64,
    capacity: u64,
    variant: Variant,
    /// Whose ghost the newcomer at the door was.
    returns_to: Option<usize>,
    ghost_hits: [u64; 2],
}

/// The options of [`Arc`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArcOptions {
    /// Whose decisions to reproduce.
    pub variant: Variant,
}

impl Arc {
    fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.target = self.target.min(as_float(capacity));
        for ghosts in &mut self.ghosts {
            ghosts.set_capacity(capacity);
            ghosts.set_capacity(capacity.saturating_mul(MOST_GHOSTS));
        }
    }

    fn remembered(&self, list: usize) -> u64 {
        self.segments.segment_weight(list) + self.ghosts[list].weight()
    }

    /// Drops a ghost where more is remembered than `budget` of those seen once, or twice as much of all.
    /// Returns whether those seen once are so many that the oldest has to leave unremembered.
    fn trim_ghosts(&mut self, budget: u64, incoming: u64) -> bool {
        if self.remembered(ONCE).saturating_add(incoming) > budget {
            return self.ghosts[ONCE].pop_oldest().is_none();
        }
        if self.remembered(ONCE) + self.remembered(AGAIN) >= budget.saturating_mul(2) {
            self.ghosts[AGAIN].pop_oldest();
        }
        false
    }
}

impl Policy for Arc {
    const NAME: &'static str = "arc";
    const SUMMARY: &'static str = "two LRU lists, for once and for again, balanced by what their ghosts tell";
    const PAPER: &'static str =
        "Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003";
    const OPTIONS: &'static [OptionDoc] = &[VARIANT];
    const BYTES_PER_ENTRY: usize = 65;
    const BYTES_PER_WEIGHED_ENTRY: usize = 77;
    type Options = ArcOptions;

    fn new(capacity: u64, _seed: u64, options: &ArcOptions) -> Self {
        let mut arc = Self {
            segments: Segments::default(),
            hashes: Table::default(),
            ghosts: [GhostQueue::new(0), GhostQueue::new(0)],
            target: 0.0,
            capacity,
            variant: options.variant,
            returns_to: None,
            ghost_hits: [0; 2],
        };
        arc.set_capacity(capacity);
        arc
    }
}

impl EvictionPolicy for Arc {
    fn admit(&mut self, incoming: &Item) -> bool {
        let weights = [ONCE, AGAIN].map(|list| as_float(self.ghosts[list].weight()));
        self.returns_to = [ONCE, AGAIN].into_iter().find(|&list| self.ghosts[list].remove(incoming.hash));
        if let Some(list) = self.returns_to {
            self.ghost_hits[list] += 1;
            let step = match self.variant {
                Variant::Published => f64::from(incoming.weight).sqrt(),
                Variant::Libcachesim => 1.0,
            };
            let step = step * (weights[1 - list] / weights[list]).max(1.0);
            let target = if list == ONCE { self.target + step } else { self.target - step };
            self.target = target.clamp(0.0, as_float(self.capacity));
        }
        true
    }

    fn step_aside(&mut self) -> Option<u64> {
        self.returns_to.take().map(|list| list as u64)
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        self.returns_to = [ONCE, AGAIN].into_iter().find(|&list| noted == Some(list as u64));
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.segments.relocate(from, to);
        relocate_slot(&mut self.hashes, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.segments.trim(slots);
        self.hashes.trim(slots);
        self.ghosts.iter_mut().for_each(GhostQueue::trim);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let list = if self.returns_to.take().is_some() { AGAIN } else { ONCE };
        self.segments.push_front(list, slot, item.weight);
        if slot.index() >= self.hashes.len() {
            self.hashes.resize(slot.index() + 1, 0);
        }
        self.hashes[slot.index()] = item.hash;
    }

    fn hit(&mut self, slot: Slot) {
        self.segments.move_to_front(AGAIN, slot);
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
        let budget = self.capacity.min(wanted);
        self.target = self.target.min(as_float(budget));
        if self.returns_to.is_none()
            && self.trim_ghosts(budget, u64::from(incoming.weight))
            && let Some(victim) = self.segments.pop_back(ONCE)
        {
            return Verdict::Evict(victim);
        }
        let once = as_float(self.segments.segment_weight(ONCE));
        let too_long = once > self.target || (once >= self.target && self.returns_to == Some(AGAIN));
        let list = if too_long || self.segments.back(AGAIN).is_none() { ONCE } else { AGAIN };
        let (list, victim) = self.segments.pop_back(list).map_or_else(
            || (AGAIN, self.segments.pop_back(AGAIN).expect("evict needs a resident entry")),
            |victim| (list, victim),
        );
        let hash = self.hashes[victim.index()];
        // Else it is an updated entry, which comes in again.
        if hash != incoming.hash {
            self.ghosts[list].push(Item { hash, weight: self.segments.weight_of(victim) });
        }
        Verdict::Evict(victim)
    }

    fn resize(&mut self, capacity: u64) {
        self.set_capacity(capacity);
    }

    fn len(&self) -> usize {
        self.segments.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.segments.footprint_bytes()
            + self.hashes.footprint_bytes()
            + self.ghosts.iter().map(GhostQueue::footprint_bytes).sum::<usize>()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::count("recent_weight", self.segments.segment_weight(ONCE)));
        visit(Gauge::count("frequent_weight", self.segments.segment_weight(AGAIN)));
        visit(Gauge::sum("recent_target_weight", self.target));
        visit(Gauge::count("recent_ghost_entries", self.ghosts[ONCE].len() as u64));
        visit(Gauge::count("frequent_ghost_entries", self.ghosts[AGAIN].len() as u64));
        visit(Gauge::count("recent_ghost_hits", self.ghost_hits[ONCE]));
        visit(Gauge::count("frequent_ghost_hits", self.ghost_hits[AGAIN]));
    }

    fn check_invariants(&self) {
        self.segments.check_invariants();
        self.ghosts.iter().for_each(GhostQueue::check_invariants);
        assert!(
            (0.0..=as_float(self.capacity)).contains(&self.target),
            "the target is a part of the capacity"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn ghost_hits_move_the_balance_between_once_and_again() {
        for (script, expected) in [
            // With nothing learnt, what was seen once leaves first, a hit protects.
            ("a b c d e f", "ab"),
            ("a a b c d e f g", "bcd"),
            // A list of those seen once that fills the cache leaves no ghosts: `a` is new again.
            ("a b c d e a f", "abc"),
            // `b` returns from the ghosts of those seen once, which raises the target to one.
            ("a a b c d e b f", "bcd"),
            // `c` and `d` return and raise it to two: `f` may stay, and the oldest seen again leave.
            ("a a b b c d e f c d g", "cdeab"),
            ("a b c d =a e f", "bc"),
            ("a b c d a -a e f", "b"),
        ] {
            assert_eq!(victims::<Arc>(&ArcOptions::default(), 4, script), expected, "{script}");
        }
    }

    #[test]
    fn one_place_is_enough() {
        for variant in [Variant::Published, Variant::Libcachesim] {
            assert_eq!(victims::<Arc>(&ArcOptions { variant }, 1, "a b a a c a"), "abac");
        }
    }
}
