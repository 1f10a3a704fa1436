//! CLOCK: a FIFO queue whose head is asked for a second chance: an entry that was hit since it was last
//! looked at goes round once more, the first one that was not leaves. With `bits` above 1 an entry goes
//! round once per hit, up to 2^bits - 1 times.
//!
//! Corbató, "A Paging Experiment with the Multics System", MIT Project MAC, 1968. Deviation: the hand
//! moves entries of a queue instead of walking over fixed frames, so that slots freed by removals do not
//! put newcomers in front of the hand. While nothing is removed the victims are the same.

use engine::{EvictionPolicy, Item, Slot, Table, Verdict, prefetch_one};
use serde::{Deserialize, Serialize};

use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{SlotLinks, SlotList, relocate_slot};

/// Evicts the oldest entry that was not hit since the hand last passed it.
pub struct Clock {
    links: SlotLinks,
    queue: SlotList,
    hits: Table<u8>,
    most_hits: u8,
}

/// The options of [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockOptions {
    /// Width of the counter of hits.
    pub bits: u32,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self { bits: 1 }
    }
}

const BITS: OptionDoc = OptionDoc {
    name: "bits",
    allowed: "1 to 8",
    meaning: "width of an entry's counter of hits: it is spared up to 2^bits - 1 times before it leaves",
};

impl Policy for Clock {
    const NAME: &'static str = "clock";
    const SUMMARY: &'static str = "FIFO with a second chance: what was hit goes round once more";
    const PAPER: &'static str = "Corbató, A Paging Experiment with the Multics System, MIT Project MAC 1968";
    const OPTIONS: &'static [OptionDoc] = &[BITS];
    const BYTES_PER_ENTRY: usize = 9;
    type Options = ClockOptions;

    fn validate(options: &ClockOptions) -> Result<(), OptionError> {
        if (1..=u8::BITS).contains(&options.bits) {
            return Ok(());
        }
        Err(OptionError { option: BITS.name, found: options.bits.to_string(), allowed: BITS.allowed })
    }

    fn new(_capacity: u64, _seed: u64, options: &ClockOptions) -> Self {
        let most_hits = u8::MAX >> (u8::BITS - options.bits);
        Self { links: SlotLinks::default(), queue: SlotList::default(), hits: Table::default(), most_hits }
    }
}

impl Clock {
    /// Moves the hand to the next entry that has no hits left, past so many others at the most. That entry, if it came so far.
    fn advance(&mut self, entries: usize) -> Option<Slot> {
        for _ in 0..entries {
            let oldest = self.queue.back().expect("evict needs a resident entry");
            let hits = &mut self.hits[oldest.index()];
            if *hits == 0 {
                return Some(oldest);
            }
            *hits -= 1;
            self.queue.move_to_front(&mut self.links, oldest);
        }
        None
    }
}

impl EvictionPolicy for Clock {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.queue.relocate(&mut self.links, from, to);
        relocate_slot(&mut self.hits, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.hits.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.queue.push_front(&mut self.links, slot);
        if slot.index() >= self.hits.len() {
            self.hits.resize(slot.index() + 1, 0);
        }
        self.hits[slot.index()] = 0;
    }

    fn hit(&mut self, slot: Slot) {
        let hits = &mut self.hits[slot.index()];
        *hits = self.most_hits.min(hits.saturating_add(1));
    }

    fn approach(&self, slot: Slot) {
        prefetch_one(self.hits.get(slot.index()));
    }

    fn remove(&mut self, slot: Slot) {
        self.queue.remove(&mut self.links, slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let oldest = self.advance(usize::MAX).expect("nobody has hits left after as many rounds");
        self.queue.remove(&mut self.links, oldest);
        Verdict::Evict(oldest)
    }

    fn seek(&mut self, _incoming: &Item, entries: usize) -> bool {
        self.advance(entries).is_none()
    }

    fn ignores_hashes(&self) -> bool {
        true
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes() + self.hits.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.queue.check_invariants(&self.links);
        let within = |slot: Slot| self.hits[slot.index()] <= self.most_hits;
        assert!(self.queue.iter_from_back(&self.links).all(within), "no counter exceeds its width");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn what_was_hit_is_spared_as_often_as_its_counter_says() {
        for (bits, script, expected) in [
            (1, "a b c d e", "ab"),
            // `a` goes round, and is then newer than `b` and `c`.
            (1, "a b c a d e f g", "bcad"),
            // Any number of hits buys one round, or three with two bits.
            (1, "a b c a a a a d e f g", "bcad"),
            (2, "a b c a a a a d e f g h i j k", "bcdefgah"),
            // All were hit: the hand comes back to the oldest.
            (1, "a b c a b c d e", "ab"),
            (1, "a b c =a d", "b"),
            (1, "a b c a -a d e f", "bc"),
        ] {
            let found = victims::<Clock>(&ClockOptions { bits }, 3, script);
            assert_eq!(found, expected, "{bits} bits: {script}");
        }
    }

    #[test]
    fn a_counter_that_is_no_byte_is_refused() {
        let allowed = |bits| Clock::validate(&ClockOptions { bits }).is_ok();
        assert_eq!([0, 1, 8, 9].map(allowed), [false, true, true, false]);
    }
}
