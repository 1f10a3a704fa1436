//! Least recently used: a hit moves an entry to the front, the back leaves.
//!
//! Folklore since the first paged memories; analysed by Mattson, Gecsei, Slutz and Traiger,
//! "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970. No deviation.

use engine::{EvictionPolicy, Item, Slot, Verdict};

use crate::policy::{NoOptions, OptionDoc, Policy};
use crate::structures::{SlotLinks, SlotList};

/// Evicts the entry that was not used for the longest time.
#[derive(Default)]
pub struct Lru {
    links: SlotLinks,
    list: SlotList,
}

impl Policy for Lru {
    const NAME: &'static str = "lru";
    const SUMMARY: &'static str = "least recently used: what was not used for the longest time leaves";
    const PAPER: &'static str =
        "Mattson et al., Evaluation techniques for storage hierarchies, IBM Systems Journal 1970";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 8;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Lru {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.list.relocate(&mut self.links, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.list.push_front(&mut self.links, slot);
    }

    fn hit(&mut self, slot: Slot) {
        self.list.move_to_front(&mut self.links, slot);
    }

    fn approach(&self, slot: Slot) {
        self.links.prefetch(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.list.remove(&mut self.links, slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        Verdict::Evict(self.list.pop_back(&mut self.links).expect("evict needs a resident entry"))
    }

    fn next_victim(&self) -> Option<Slot> {
        self.list.back()
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.list.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.list.check_invariants(&self.links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_entry_unused_for_the_longest_time_leaves() {
        for (script, expected) in [
            ("a b c d e", "ab"),
            ("a b c a d", "b"),
            ("a b c a b d e", "ca"),
            ("a b c =a d", "b"),
            ("a b c -a d e", "b"),
            ("a b a ! !", "ba"),
        ] {
            assert_eq!(victims::<Lru>(&NoOptions {}, 3, script), expected, "{script}");
        }
    }
}
