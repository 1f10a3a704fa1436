//! LRU-K for K = 2: the entry leaves whose last but one use is longest ago, so that a single use does not
//! count for much. Entries used once leave first, the least recently used before the others. The last use
//! of what has left is remembered, so that an entry which comes back has two.
//!
//! O'Neil, O'Neil and Weikum, "The LRU-K Page Replacement Algorithm for Database Disk Buffering", SIGMOD
//! 1993. Time is the number of requests. The correlated reference period, within which several uses count
//! as one, is a quarter of the number of entries: without one, LRU-2 is worse than LRU on most traces
//! measured. Deviations: the history is bounded in weight instead of time, and an entry within its correlated period can
//! leave, if there is nothing better.
//!
//! A heap of entries by the use that counts. A hit does not touch it: uses only move forward, so a key in
//! the heap is a lower bound, and is corrected when it comes to the top. A hit is O(1), an eviction
//! O(log n) for each hit since.

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{GhostQueue, SlotHeap, Weights, relocate_slot, share};

/// Evicts the entry whose last but one use is longest ago.
pub struct LruK {
    /// By [`Uses::rank`] as it was when the slot was last at the top.
    heap: SlotHeap<u64>,
    uses: Table<Uses>,
    hashes: Table<u64>,
    weights: Weights,
    weight: u64,
    /// Entries that have left, with their last use.
    history: GhostQueue<u64>,
    options: LruKOptions,
    capacity: u64,
    /// Requests so far.
    now: u64,
    /// Requests within which two uses of an entry count as one.
    correlated: u64,
    /// The last use of the newcomer at the door, if it is remembered.
    returns: Option<u64>,
    history_hits: u64,
}

/// When an entry was used, in requests since the beginning, which are counted from 1.
#[derive(Clone, Copy, Default)]
struct Uses {
    last: u64,
    /// The use before the last; 0 if there was none.
    before: u64,
}

impl Uses {
    /// Smaller leaves earlier. Never decreases.
    const fn rank(self) -> u64 {
        const USED_AGAIN: u64 = 1 << 63;
        if self.before == 0 { self.last } else { USED_AGAIN | self.before }
    }
}

/// The options of [`LruK`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LruKOptions {
    /// Share of the capacity whose last use is remembered after it has left.
    pub history_ratio: f64,
    /// Share of the number of entries: within as many requests two uses of an entry count as one.
    pub correlated_ratio: f64,
}

impl Default for LruKOptions {
    fn default() -> Self {
        Self { history_ratio: 1.0, correlated_ratio: 0.25 }
    }
}

const HISTORY_RATIO: OptionDoc = OptionDoc {
    name: "history_ratio",
    allowed: "0.0 to 1.0",
    meaning: "share of the capacity whose last use is remembered after it has left",
};
const CORRELATED_RATIO: OptionDoc = OptionDoc {
    name: "correlated_ratio",
    allowed: "0.0 to 1.0",
    meaning: "share of the number of entries: within as many requests two uses of an entry count as one",
};

impl LruK {
    fn set_budget(&mut self, budget: u64) {
        self.history.set_capacity(share(budget, self.options.history_ratio));
    }

    /// Gives the first of the heap their present ranks, so many of them at the most, until one has it already. That one, if it came so far.
    fn settle_first(&mut self, entries: usize) -> Option<Slot> {
        for _ in 0..entries {
            let (first, rank) = self.heap.first().expect("evict needs a resident entry");
            let present = self.uses[first.index()].rank();
            if present == rank {
                return Some(first);
            }
            self.heap.change(first, present);
        }
        None
    }

    fn forget(&mut self, slot: Slot) {
        self.heap.remove(slot);
        self.weight -= u64::from(self.weights.get(slot));
    }
}

impl Policy for LruK {
    const NAME: &'static str = "lru-k";
    const SUMMARY: &'static str = "LRU by the last but one use: what was used only once leaves first";
    const PAPER: &'static str = "O'Neil, O'Neil and Weikum, The LRU-K Page Replacement Algorithm for Database Disk Buffering, SIGMOD 1993";
    const OPTIONS: &'static [OptionDoc] = &[HISTORY_RATIO, CORRELATED_RATIO];
    const BYTES_PER_ENTRY: usize = 76;
    const BYTES_PER_WEIGHED_ENTRY: usize = 84;
    const SCALES_DOWN: bool = false;
    type Options = LruKOptions;

    fn validate(options: &LruKOptions) -> Result<(), OptionError> {
        for (option, value) in
            [(HISTORY_RATIO, options.history_ratio), (CORRELATED_RATIO, options.correlated_ratio)]
        {
            if !(0.0..=1.0).contains(&value) {
                let found = value.to_string();
                return Err(OptionError { option: option.name, found, allowed: option.allowed });
            }
        }
        Ok(())
    }

    fn new(capacity: u64, _seed: u64, options: &LruKOptions) -> Self {
        let mut lru_k = Self {
            heap: SlotHeap::default(),
            uses: Table::default(),
            hashes: Table::default(),
            weights: Weights::default(),
            weight: 0,
            history: GhostQueue::new(0),
            options: *options,
            capacity,
            now: 0,
            correlated: 0,
            returns: None,
            history_hits: 0,
        };
        lru_k.set_budget(capacity);
        lru_k
    }
}

impl EvictionPolicy for LruK {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.returns = self.history.take(incoming.hash);
        self.history_hits += u64::from(self.returns.is_some());
        true
    }

    fn step_aside(&mut self) -> Option<u64> {
        self.returns.take()
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        self.returns = noted;
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        self.heap.relocate(from, to);
        relocate_slot(&mut self.uses, from, to);
        relocate_slot(&mut self.hashes, from, to);
        self.weights.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.heap.trim(slots);
        self.uses.trim(slots);
        self.hashes.trim(slots);
        self.weights.trim(slots);
        self.history.trim();
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        if slot.index() >= self.uses.len() {
            self.uses.resize(slot.index() + 1, Uses::default());
            self.hashes.resize(slot.index() + 1, 0);
        }
        self.now += 1;
        let uses = Uses { last: self.now, before: self.returns.take().unwrap_or(0) };
        self.uses[slot.index()] = uses;
        self.hashes[slot.index()] = item.hash;
        self.weights.set(slot, item.weight);
        self.weight += u64::from(item.weight);
        self.heap.insert(slot, uses.rank());
        self.correlated = share(self.heap.len() as u64, self.options.correlated_ratio);
    }

    fn hit(&mut self, slot: Slot) {
        self.now += 1;
        let uses = &mut self.uses[slot.index()];
        if self.now - uses.last > self.correlated {
            uses.before = uses.last;
        }
        uses.last = self.now;
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.weight = self.weight - u64::from(self.weights.get(slot)) + u64::from(item.weight);
        self.weights.set(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.forget(slot);
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        let wanted = self.weight.saturating_add(u64::from(incoming.weight));
        self.set_budget(self.capacity.min(wanted));
        self.history.limit_by_residents(self.heap.len(), self.weight);
        let first = self.settle_first(usize::MAX).expect("each is moved once");
        self.forget(first);
        let item = Item { hash: self.hashes[first.index()], weight: self.weights.get(first) };
        self.history.push_with(item, self.uses[first.index()].last);
        Verdict::Evict(first)
    }

    fn seek(&mut self, _incoming: &Item, entries: usize) -> bool {
        self.settle_first(entries).is_none()
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.set_budget(capacity);
    }

    fn len(&self) -> usize {
        self.heap.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.heap.footprint_bytes()
            + self.uses.footprint_bytes()
            + self.hashes.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.history.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::count("ghost_entries", self.history.len() as u64));
        visit(Gauge::count("ghost_hits", self.history_hits));
    }

    fn check_invariants(&self) {
        self.heap.check_invariants();
        self.history.check_invariants();
        assert!(self.history.weight() <= self.capacity, "the history is bounded by the capacity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_entry_with_the_oldest_use_but_one_leaves() {
        let default = LruKOptions { correlated_ratio: 0.0, ..LruKOptions::default() };
        let forgetful = LruKOptions { history_ratio: 0.0, ..default };
        let correlated = LruKOptions { correlated_ratio: 0.7, ..default };
        for (options, script, expected) in [
            (default, "a b c d e", "ab"),
            // What was used once leaves first, however recently.
            (default, "a a b b c d e", "cd"),
            // Uses: a at 1 and 4, b at 2 and 3, c at 5 and 6. The oldest use but one is a's.
            (default, "a b b a c c d e", "ad"),
            // `a` comes back with the use at 1 and at 5, `b` was used at 2 and 6.
            (default, "a b c d a b ! !", "abcda"),
            // Remembered, `a` outlives `f`, which is newer; forgotten, it does not.
            (default, "a b c d a e f g h", "abcdef"),
            (forgetful, "a b c d a e f g h", "abcdae"),
            // The two uses of `c` in a burst are one, those of `b` are not.
            (default, "a b c c b d e", "ad"),
            (correlated, "a b c c b d e", "ac"),
            (default, "a a b b c =c -a d e f", "de"),
        ] {
            assert_eq!(victims::<LruK>(&options, 3, script), expected, "{options:?}: {script}");
        }
    }
}
