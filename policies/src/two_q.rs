//! 2Q: newcomers wait in a short FIFO queue; only those asked for again after they left it, while a ghost
//! still remembers them, enter the LRU list of the main part. Several requests in a short time count as
//! one, and a scan passes through the queue without touching the main part.
//!
//! Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm",
//! VLDB 1994 (the full version: `A1in`, `A1out`, `Am`). Deviations, for weights that differ: a newcomer
//! counts as part of the queue before it is in it, so that the queue pays for it first; an entry of more than half
//! the queue's share is a guest, which leaves as soon as room is needed, without a ghost.
//!
//! `variant = "libcachesim"`: a newcomer does not count, an entry larger than the queue's share is refused,
//! and the main part pays first where it has outgrown the rest.

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant};
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{GhostQueue, Segments, relocate_slot, share};

/// `A1in` of the paper.
const QUEUE: usize = 0;
/// `Am` of the paper.
const MAIN: usize = 1;

/// Evicts the oldest entry of an entrance queue that is over its share, else the main part's least recent.
pub struct TwoQ {
    segments: Segments<2>,
    hashes: Table<u64>,
    /// `A1out` of the paper.
    ghosts: GhostQueue,
    options: TwoQOptions,
    capacity: u64,
    queue_share: u64,
    /// Whether the newcomer at the door was found among the ghosts.
    returns: bool,
    ghost_hits: u64,
}

/// The options of [`TwoQ`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TwoQOptions {
    /// Share of the capacity for the entrance queue.
    pub kin: f64,
    /// Share of the capacity that ghosts remember.
    pub kout: f64,
    /// Whose decisions to reproduce.
    pub variant: Variant,
}

impl Default for TwoQOptions {
    fn default() -> Self {
        Self { kin: 0.25, kout: 0.5, variant: Variant::Published }
    }
}

const KIN: OptionDoc = OptionDoc {
    name: "kin",
    allowed: "0.0 to 1.0",
    meaning: "share of the capacity for the entrance queue, through which every newcomer passes",
};
const KOUT: OptionDoc = OptionDoc {
    name: "kout",
    allowed: "0.0 to 1.0",
    meaning: "share of the capacity that ghosts remember of what has left the queue",
};

impl TwoQ {
    fn set_budget(&mut self, budget: u64) {
        self.queue_share = share(budget, self.options.kin);
        self.ghosts.set_capacity(share(budget, self.options.kout));
    }
}

impl Policy for TwoQ {
    const NAME: &'static str = "two-q";
    const SUMMARY: &'static str =
        "a FIFO entrance queue, and an LRU for what comes back after it left the queue";
    const PAPER: &'static str = "Johnson and Shasha, 2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm, VLDB 1994";
    const OPTIONS: &'static [OptionDoc] = &[KIN, KOUT, VARIANT];
    const BYTES_PER_ENTRY: usize = 29;
    const BYTES_PER_WEIGHED_ENTRY: usize = 35;
    type Options = TwoQOptions;

    fn validate(options: &TwoQOptions) -> Result<(), OptionError> {
        for (option, value) in [(KIN, options.kin), (KOUT, options.kout)] {
            if !(0.0..=1.0).contains(&value) {
                let found = value.to_string();
                return Err(OptionError { option: option.name, found, allowed: option.allowed });
            }
        }
        Ok(())
    }

    fn new(capacity: u64, _seed: u64, options: &TwoQOptions) -> Self {
        let mut two_q = Self {
            segments: Segments::default(),
            hashes: Table::default(),
            ghosts: GhostQueue::new(0),
            options: *options,
            capacity,
            queue_share: 0,
            returns: false,
            ghost_hits: 0,
        };
        two_q.set_budget(capacity);
        two_q
    }
}

impl EvictionPolicy for TwoQ {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.returns = self.ghosts.remove(incoming.hash);
        self.ghost_hits += u64::from(self.returns);
        self.options.variant == Variant::Published
            || u64::from(incoming.weight) <= share(self.capacity, self.options.kin)
    }

    fn step_aside(&mut self) -> Option<u64> {
        std::mem::take(&mut self.returns).then_some(1)
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        self.returns = noted.is_some();
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.segments.relocate(from, to);
        relocate_slot(&mut self.hashes, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.segments.trim(slots);
        self.hashes.trim(slots);
        self.ghosts.trim();
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let segment = if std::mem::take(&mut self.returns) { MAIN } else { QUEUE };
        self.segments.push_front(segment, slot, item.weight);
        if slot.index() >= self.hashes.len() {
            self.hashes.resize(slot.index() + 1, 0);
        }
        self.hashes[slot.index()] = item.hash;
    }

    fn hit(&mut self, slot: Slot) {
        if self.segments.segment_of(slot) == MAIN {
            self.segments.move_to_front(MAIN, slot);
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
        let published = self.options.variant == Variant::Published;
        if published {
            self.ghosts.limit_by_residents(self.segments.len(), self.segments.weight());
        }
        let queue = self.segments.segment_weight(QUEUE);
        let main_pays = if published {
            let newcomer = if self.returns { 0 } else { u64::from(incoming.weight) };
            queue == 0 || queue.saturating_add(newcomer) <= self.queue_share
        } else {
            queue <= self.queue_share || self.segments.segment_weight(MAIN) > self.capacity - self.queue_share
        };
        if main_pays && let Some(victim) = self.segments.pop_back(MAIN) {
            return Verdict::Evict(victim);
        }
        let newest = self.segments.front(QUEUE).expect("evict needs a resident entry");
        if published && u64::from(self.segments.weight_of(newest)) > (self.queue_share / 2).max(1) {
            self.segments.remove(newest);
            return Verdict::Evict(newest);
        }
        let victim = self.segments.pop_back(QUEUE).expect("evict needs a resident entry");
        let hash = self.hashes[victim.index()];
        self.ghosts.push(Item { hash, weight: self.segments.weight_of(victim) });
        Verdict::Evict(victim)
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.set_budget(capacity);
    }

    fn len(&self) -> usize {
        self.segments.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.segments.footprint_bytes() + self.hashes.footprint_bytes() + self.ghosts.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::count("small_weight", self.segments.segment_weight(QUEUE)));
        visit(Gauge::count("main_weight", self.segments.segment_weight(MAIN)));
        visit(Gauge::count("ghost_entries", self.ghosts.len() as u64));
        visit(Gauge::count("ghost_hits", self.ghost_hits));
    }

    fn check_invariants(&self) {
        self.segments.check_invariants();
        self.ghosts.check_invariants();
        assert!(self.ghosts.weight() <= self.capacity, "ghosts are bounded by the capacity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn what_comes_back_after_it_left_the_queue_is_kept() {
        for (script, expected) in [
            // Hits in the queue change nothing.
            ("a a a b c d e f", "ab"),
            // `a` comes back from its ghost: a scan no longer touches it.
            ("a b c d e a f g h i j", "abcdefg"),
            // The ghost of `a` is forgotten after two more.
            ("a b c d e f g a h i j k", "abcdefga"),
            // The queue is within its share when `f` comes back: the main part's least recent leaves.
            ("a b c d e a f b g e f", "abcdefa"),
            ("a b c d e a f b g a e f", "abcdefb"),
            ("a b c d e a -a f g h", "abcd"),
        ] {
            assert_eq!(victims::<TwoQ>(&TwoQOptions::default(), 4, script), expected, "{script}");
        }
    }

    #[test]
    fn tiny_capacities_work_but_for_libcachesim() {
        let libcachesim = TwoQOptions { variant: Variant::Libcachesim, ..TwoQOptions::default() };
        assert_eq!(victims::<TwoQ>(&TwoQOptions::default(), 1, "a b c"), "ab");
        assert_eq!(victims::<TwoQ>(&libcachesim, 3, "a b"), "(a)(b)");
        assert_eq!(victims::<TwoQ>(&libcachesim, 4, "a b c d e f"), "ab");
    }
}
