//! Weights of slots that cost no memory while all of them are 1, as they are where items are counted.

use engine::{Slot, Table};

/// The weight of each slot; 1 for those never set to anything else.
#[derive(Default)]
pub struct Weights {
    /// Slots beyond the end weigh 1.
    weights: Table<u32>,
}

impl Weights {
    /// The weight of a slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> u32 {
        self.weights.get(slot.index()).copied().unwrap_or(1)
    }

    /// Sets the weight of a slot.
    #[inline]
    pub fn set(&mut self, slot: Slot, weight: u32) {
        if weight != 1 || !self.weights.is_empty() {
            self.keep(slot, weight);
        }
    }

    fn keep(&mut self, slot: Slot, weight: u32) {
        if let Some(place) = self.weights.get_mut(slot.index()) {
            *place = weight;
        } else if weight != 1 {
            self.weights.resize(slot.index() + 1, 1);
            self.weights[slot.index()] = weight;
        }
    }

    /// Gives one slot the weight of another.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        self.set(to, self.get(from));
    }

    /// Gives back what is kept for slots from this one on.
    pub fn trim(&mut self, slots: usize) {
        self.weights.trim(slots);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.weights.footprint_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_weights_hold_no_memory_and_others_are_kept_per_slot() {
        let mut weights = Weights::default();
        for index in 0..100 {
            weights.set(Slot::new(index), 1);
        }
        assert_eq!((weights.get(Slot::new(7)), weights.footprint_bytes()), (1, 0));
        weights.set(Slot::new(7), 20);
        weights.set(Slot::new(3), 5);
        weights.set(Slot::new(7), 30);
        let read = |index| weights.get(Slot::new(index));
        assert_eq!([read(2), read(3), read(7), read(8)], [1, 5, 30, 1]);
    }
}
