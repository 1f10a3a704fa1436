//! SIEVE: a FIFO queue with one visited bit per entry and a hand that sweeps from old to new,
//! clearing bits, and evicts the first entry it finds unvisited. Survivors stay where they are.
//!
//! Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is Simpler than LRU: an Efficient Turn-Key
//! Eviction Algorithm for Web Caches", NSDI 2024. No deviation.

use engine::{EvictionPolicy, Item, Slot, Verdict};

use crate::policy::{NoOptions, OptionDoc, Policy};
use crate::structures::{SlotBits, SlotLinks, SlotList};

/// Evicts the first unvisited entry that a hand sweeping from old to new comes across.
#[derive(Default)]
pub struct Sieve {
    links: SlotLinks,
    queue: SlotList,
    visited: SlotBits,
    /// Where the next sweep starts; `None`: at the oldest entry.
    hand: Option<Slot>,
}

impl Sieve {
    /// Moves the hand to the next entry that was not visited, past so many others at the most. That entry, if it came so far.
    fn advance(&mut self, entries: usize) -> Option<Slot> {
        let oldest = || self.queue.back().expect("evict needs a resident entry");
        let mut candidate = self.hand.unwrap_or_else(oldest);
        let mut left = entries;
        while left > 0 && self.visited.take(candidate) {
            candidate = self.queue.newer(&self.links, candidate).unwrap_or_else(oldest);
            left -= 1;
        }
        self.hand = Some(candidate);
        (left > 0).then_some(candidate)
    }

    fn unlink(&mut self, slot: Slot) {
        if self.hand == Some(slot) {
            self.hand = self.queue.newer(&self.links, slot);
        }
        self.queue.remove(&mut self.links, slot);
    }
}

impl Policy for Sieve {
    const NAME: &'static str = "sieve";
    const SUMMARY: &'static str =
        "FIFO with a visited bit and a sweeping hand: quick demotion of what is used once";
    const PAPER: &'static str = "Zhang et al., SIEVE is Simpler than LRU, NSDI 2024";
    const OPTIONS: &'static [OptionDoc] = &[];
    /// Links and a bit, rounded up.
    const BYTES_PER_ENTRY: usize = 9;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Sieve {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.queue.relocate(&mut self.links, from, to);
        self.visited.relocate(from, to);
        if self.hand == Some(from) {
            self.hand = Some(to);
        }
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.visited.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.queue.push_front(&mut self.links, slot);
        self.visited.enter(slot);
    }

    fn hit(&mut self, slot: Slot) {
        self.visited.set(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let candidate = self.advance(usize::MAX).expect("nobody is visited after two rounds");
        self.unlink(candidate);
        Verdict::Evict(candidate)
    }

    fn seek(&mut self, _incoming: &Item, entries: usize) -> bool {
        self.advance(entries).is_none()
    }

    fn next_victim(&self) -> Option<Slot> {
        self.hand.or_else(|| self.queue.back())
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes() + self.visited.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.queue.check_invariants(&self.links);
        let hand_is_queued = |hand| self.queue.iter_from_back(&self.links).any(|slot| slot == hand);
        assert!(self.hand.is_none_or(hand_is_queued), "the hand points at a queued entry");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_hand_spares_what_was_visited_and_goes_on_where_it_stopped() {
        for (script, expected) in [
            ("a b c d e", "ab"),
            // `a` is spared once and stays the oldest; the hand goes on towards `c`.
            ("a b c a d e", "bc"),
            // All visited: the hand clears every bit and comes back to the oldest.
            ("a b c a b c d", "a"),
            // The hand has passed `a`, which outlives the unvisited newer ones.
            ("a b c a d e f g", "bcde"),
            ("a b c =a d", "b"),
            // The entry under the hand, `c`, is removed: the hand goes on at `d`, which it spares.
            ("a b c d a d -c e f g", "abae"),
        ] {
            assert_eq!(victims::<Sieve>(&NoOptions {}, 3, script), expected, "{script}");
        }
    }
}
