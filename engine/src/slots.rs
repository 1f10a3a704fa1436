//! Slots: which are in use, and which comes next.
//!
//! The lowest unused slot is given out first. So where fewer entries are resident than once were,
//! those that come in settle below and the bound above which nothing is in use comes down behind
//! them: what is kept for each slot can shrink with it. Who has one of the last can be given one of the
//! lowest, so that it comes down without newcomers as well.

use crate::policy::Slot;
use crate::table::Table;

const BITS: u32 = u64::BITS;

/// The slots of a directory: a bit each, and a bit for each 64 of them that has any.
#[derive(Default)]
pub(crate) struct Slots {
    /// Set: below the bound and unused.
    unused: Table<u64>,
    /// Set: the word of `unused` is not 0.
    words: Table<u64>,
    /// Words of `words` before this one are 0.
    from: usize,
    count: u32,
    bound: u32,
}

const fn place(bit: u32) -> (usize, u64) {
    ((bit / BITS) as usize, 1 << (bit % BITS))
}

#[expect(clippy::cast_possible_truncation, reason = "slots are counted in u32")]
const fn bit(word: usize, bits: u64) -> u32 {
    word as u32 * BITS + bits.trailing_zeros()
}

impl Slots {
    /// One more than the largest slot in use.
    pub(crate) const fn bound(&self) -> u32 {
        self.bound
    }

    /// Slots below the bound that are not in use.
    pub(crate) const fn unused(&self) -> u32 {
        self.count
    }

    /// Takes the lowest unused slot into use.
    pub(crate) fn take(&mut self) -> Slot {
        if self.count == 0 {
            let slot = self.bound;
            self.bound = slot.checked_add(1).expect("fewer than 2^32 - 1 entries in a shard");
            return Slot::new(slot);
        }
        while self.words[self.from] == 0 {
            self.from += 1;
        }
        let word = bit(self.from, self.words[self.from]) as usize;
        let slot = bit(word, self.unused[word]);
        self.clear(slot);
        Slot::new(slot)
    }

    /// A slot is in use no longer.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        let (word, mask) = place(slot.get());
        if word >= self.unused.len() {
            self.unused.resize(word + 1, 0);
            self.words.resize(word / BITS as usize + 1, 0);
        }
        self.unused[word] |= mask;
        let (words, mask) = place(u32::try_from(word).expect("fewer than slots"));
        self.words[words] |= mask;
        self.from = self.from.min(words);
        self.count += 1;
        while self.bound > 0 && self.is_unused(self.bound - 1) {
            self.bound -= 1;
            self.clear(self.bound);
        }
    }

    /// Gives the last slot in use, for the lowest unused one: which two, unless there is no unused one.
    pub(crate) fn exchange_last(&mut self) -> Option<(Slot, Slot)> {
        if self.count == 0 {
            return None;
        }
        let (from, to) = (Slot::new(self.bound - 1), self.take());
        self.give_back(from);
        Some((from, to))
    }

    fn is_unused(&self, slot: u32) -> bool {
        let (word, mask) = place(slot);
        self.unused.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn clear(&mut self, slot: u32) {
        let (word, mask) = place(slot);
        self.unused[word] &= !mask;
        if self.unused[word] == 0 {
            let (words, mask) = place(u32::try_from(word).expect("fewer than slots"));
            self.words[words] &= !mask;
        }
        self.count -= 1;
    }

    /// Bytes of memory held.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.unused.footprint_bytes() + self.words.footprint_bytes()
    }

    /// Every slot in use.
    pub(crate) fn iter_used(&self) -> impl Iterator<Item = u32> {
        (0..self.bound).filter(|&slot| !self.is_unused(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_lowest_unused_slot_comes_first_and_the_last_goes(
            steps in prop::collection::vec(0..12_000_u32, 1..40),
        ) {
            let mut slots = Slots::default();
            let mut used = BTreeSet::new();
            for step in steps {
                // Enough to fill several words of either kind, or any of those in use.
                for number in 0..step {
                    if step % 7 == 6 {
                        let last = used.last().copied();
                        let lowest = (0..slots.bound()).find(|slot| !used.contains(slot));
                        let expected = last.zip(lowest).map(|(last, lowest)| (Slot::new(last), Slot::new(lowest)));
                        prop_assert_eq!(slots.exchange_last(), expected);
                        let Some((from, to)) = expected else { break };
                        used.remove(&from.get());
                        used.insert(to.get());
                        if number > 300 {
                            break;
                        }
                    } else if step % 3 == 0 {
                        let lowest = (0..=slots.bound()).find(|slot| !used.contains(slot)).expect("the bound is free");
                        prop_assert_eq!(slots.take().get(), lowest);
                        used.insert(lowest);
                        if number > 500 {
                            break;
                        }
                    } else if let Some(&slot) = used.range(number..).next() {
                        used.remove(&slot);
                        slots.give_back(Slot::new(slot));
                        if number > 700 {
                            break;
                        }
                    }
                }
                let bound = used.last().map_or(0, |last| last + 1);
                prop_assert_eq!(slots.bound(), bound);
                prop_assert_eq!(slots.unused() as usize, bound as usize - used.len());
                prop_assert!(slots.iter_used().eq(used.iter().copied()));
            }
        }
    }
}
