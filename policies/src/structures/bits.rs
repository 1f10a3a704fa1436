//! A bit for each slot, 512 of them in a line of memory: what hits set of entries that are far apart is near.

use engine::{Slot, Table};

/// What is known of every slot that has been [entered](Self::enter).
#[derive(Default)]
pub struct SlotBits {
    words: Table<u64>,
}

/// Where a slot's bit is: the word, and the bit in it.
const fn place(slot: Slot) -> (usize, u64) {
    let number = slot.index();
    (number / u64::BITS as usize, 1 << (number % u64::BITS as usize))
}

impl SlotBits {
    /// Makes room for a slot, whose bit is not set.
    #[inline]
    pub fn enter(&mut self, slot: Slot) {
        let (word, bit) = place(slot);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] &= !bit;
    }

    /// Sets a slot's bit.
    #[inline]
    pub fn set(&mut self, slot: Slot) {
        let (word, bit) = place(slot);
        self.words[word] |= bit;
    }

    /// Clears a slot's bit. Whether it was set.
    #[inline]
    pub fn take(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        let was_set = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        was_set
    }

    /// Keeps for one slot what was kept for another.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        if self.take(from) {
            self.set(to);
        } else {
            self.take(to);
        }
    }

    /// Gives back what is kept for slots from this one on.
    pub fn trim(&mut self, slots: usize) {
        self.words.trim(slots.div_ceil(u64::BITS as usize));
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.words.footprint_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_those_of_a_vector_of_them(steps in proptest::collection::vec((0..5_u8, 0..200_u32, 0..200_u32), 1..200)) {
            let (mut bits, mut model) = (SlotBits::default(), Vec::new());
            for number in 0..200 {
                bits.enter(Slot::new(number));
                model.push(false);
            }
            for (step, slot, to) in steps {
                let of = Slot::new(slot);
                match step {
                    0 => {
                        bits.enter(of);
                        model[of.index()] = false;
                    }
                    1 | 2 => {
                        bits.set(of);
                        model[of.index()] = true;
                    }
                    3 => prop_assert_eq!(bits.take(of), std::mem::take(&mut model[of.index()])),
                    _ if to < slot => {
                        bits.relocate(of, Slot::new(to));
                        model[to as usize] = std::mem::take(&mut model[of.index()]);
                    }
                    _ => {}
                }
            }
            bits.trim(100);
            prop_assert_eq!(bits.footprint_bytes(), 16, "two words");
            for (number, &was_set) in (0..).zip(&model[..100]) {
                prop_assert_eq!(bits.take(Slot::new(number)), was_set, "{}", number);
            }
        }
    }
}
