//! Least frequently used: the entry with the fewest uses since it came in leaves; of several, the one
//! that reached that count first.
//!
//! Folklore, with the constant-time lists of Ketan Shah, Mitra and Matani, "An O(1) algorithm for
//! implementing the LFU cache eviction scheme", 2010. No deviation: counts are exact, start at 1,
//! never age, and are forgotten with their entry.

use engine::{EvictionPolicy, Gauge, Item, Slot, Verdict};

use crate::policy::{NoOptions, OptionDoc, Policy};
use crate::structures::FrequencyLists;

/// Evicts the entry that was used least often.
#[derive(Default)]
pub struct Lfu {
    lists: FrequencyLists,
}

impl Policy for Lfu {
    const NAME: &'static str = "lfu";
    const SUMMARY: &'static str = "least frequently used: the fewest uses since insertion leave";
    const PAPER: &'static str = "folklore; Shah et al., An O(1) algorithm for implementing the LFU cache eviction \
                                 scheme, 2010";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 13;
    const SCALES_DOWN: bool = false;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Lfu {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.lists.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.lists.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.lists.insert(slot);
    }

    fn hit(&mut self, slot: Slot) {
        self.lists.count(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.lists.remove(slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let victim = self.lists.first().expect("evict needs a resident entry");
        self.lists.remove(victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.lists.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.lists.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::mean("distinct_frequencies", f64::from(self.lists.frequencies())));
    }

    fn check_invariants(&self) {
        self.lists.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn the_fewest_uses_leave_and_of_equals_who_got_there_first() {
        for (script, expected) in [
            ("a b c d e", "ab"),
            ("a b c a b d e", "cd"),
            // `b` reached two uses before `a` did.
            ("a b c b a c d ! ! !", "bdac"),
            ("a a a b b c -a d e", "c"),
            ("a b c =a =b d", "c"),
            // Counts are forgotten with the entry.
            ("a a a b c -a a d", "b"),
        ] {
            assert_eq!(victims::<Lfu>(&NoOptions {}, 3, script), expected, "{script}");
        }
    }
}
