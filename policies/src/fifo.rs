//! First in, first out: the oldest insertion leaves, hits change nothing.
//!
//! Folklore. The baseline that a policy has to beat to be worth its metadata. No deviation.

use engine::{EvictionPolicy, Item, Slot, Verdict};

use crate::policy::{NoOptions, OptionDoc, Policy};
use crate::structures::{SlotLinks, SlotList};

/// Evicts the entry that was inserted first.
#[derive(Default)]
pub struct Fifo {
    links: SlotLinks,
    queue: SlotList,
}

impl Policy for Fifo {
    const NAME: &'static str = "fifo";
    const SUMMARY: &'static str = "first in, first out: the oldest insertion leaves, hits change nothing";
    const PAPER: &'static str = "folklore";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 8;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Fifo {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.queue.relocate(&mut self.links, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.queue.push_front(&mut self.links, slot);
    }

    fn hit(&mut self, _slot: Slot) {}

    fn remove(&mut self, slot: Slot) {
        self.queue.remove(&mut self.links, slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        Verdict::Evict(self.queue.pop_back(&mut self.links).expect("evict needs a resident entry"))
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.queue.check_invariants(&self.links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_oldest_insertion_leaves_whatever_was_read_or_written() {
        for (script, expected) in [
            ("a b c d e", "ab"),
            ("a b c a a d e", "ab"),
            ("a b c =a d", "a"),
            ("a b c -a d e", "b"),
            ("a b c d a e", "abc"),
        ] {
            assert_eq!(victims::<Fifo>(&NoOptions {}, 3, script), expected, "{script}");
        }
    }
}
