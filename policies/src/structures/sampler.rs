//! Resident slots in a dense array, so that a random one is found in O(1).
//!
//! Each slot's record lies in the array beside the slot, not in a vector by slot: a policy
//! that compares many samples then pays one cache miss per sample, not two. Costs
//! `size_of::<(u32, T)>()` + 4 bytes per slot.

use engine::{Slot, Table};

use super::Random;

/// Slots and what a policy keeps about each of them, in an order without meaning.
pub struct Sampler<T> {
    dense: Table<Sample<T>>,
    /// Each slot's place in `dense`; stale for slots that are not resident.
    place: Table<u32>,
}

struct Sample<T> {
    slot: u32,
    record: T,
}

impl<T> Default for Sampler<T> {
    fn default() -> Self {
        Self { dense: Table::default(), place: Table::default() }
    }
}

impl<T> Sampler<T> {
    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dense.len()
    }

    /// Whether there is no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dense.is_empty()
    }

    /// Adds a slot that is not in it.
    #[expect(clippy::cast_possible_truncation, reason = "there are no more places than slots")]
    pub fn insert(&mut self, slot: Slot, record: T) {
        if slot.index() >= self.place.len() {
            self.place.resize(slot.index() + 1, 0);
        }
        self.place[slot.index()] = self.dense.len() as u32;
        self.dense.push(Sample { slot: slot.get(), record });
    }

    /// Takes out a slot that is in it; the last one fills the gap.
    pub fn remove(&mut self, slot: Slot) -> T {
        let place = self.place[slot.index()];
        let gone = self.dense.swap_remove(place as usize);
        debug_assert_eq!(gone.slot, slot.get(), "the slot is in the sampler");
        if let Some(moved) = self.dense.get(place as usize) {
            self.place[moved.slot as usize] = place;
        }
        gone.record
    }

    /// The record of a slot that is in it.
    #[must_use]
    pub fn get(&self, slot: Slot) -> &T {
        &self.dense[self.place[slot.index()] as usize].record
    }

    /// The record of a slot that is in it, to change it.
    pub fn get_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.dense[self.place[slot.index()] as usize].record
    }

    /// A slot drawn uniformly. There must be one.
    pub fn sample(&self, random: &mut Random) -> (Slot, &T) {
        let Sample { slot, record } = &self.dense[random.below(self.dense.len())];
        (Slot::new(*slot), record)
    }

    /// Two slots drawn uniformly, for little more than one. There must be one.
    pub fn sample_two(&self, random: &mut Random) -> [(Slot, &T); 2] {
        random.two_below(self.dense.len()).map(|place| {
            let Sample { slot, record } = &self.dense[place];
            (Slot::new(*slot), record)
        })
    }

    /// Every slot with its record.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.dense.iter().map(|sample| (Slot::new(sample.slot), &sample.record))
    }

    /// Puts another slot, which is not in it and smaller, in the place of one that is in it.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        let place = self.place[from.index()];
        self.dense[place as usize].slot = to.get();
        self.place[to.index()] = place;
    }

    /// Gives back what is kept for slots from this one on, which are not in it.
    pub fn trim(&mut self, slots: usize) {
        self.dense.shrink_to_fit();
        self.place.trim(slots);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.dense.footprint_bytes() + self.place.footprint_bytes()
    }

    /// Checks that every slot is found where it lies.
    ///
    /// # Panics
    ///
    /// Where one is not.
    pub fn check_invariants(&self) {
        for (place, sample) in self.dense.iter().enumerate() {
            let found = self.place[sample.slot as usize] as usize;
            assert_eq!(found, place, "slot {} lies where it is looked for", sample.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_never_drawn_and_the_rest_equally_often() {
        let mut sampler = Sampler::default();
        for index in 0..10 {
            sampler.insert(Slot::new(index), index);
        }
        for gone in [0, 9, 4] {
            assert_eq!(sampler.remove(Slot::new(gone)), gone);
            sampler.check_invariants();
        }
        sampler.insert(Slot::new(4), 4);
        *sampler.get_mut(Slot::new(7)) += 100;
        let mut random = Random::new(1);
        let mut counts = [0_u32; 10];
        for _ in 0..8000 {
            let (slot, &record) = sampler.sample(&mut random);
            assert_eq!(record, if slot.get() == 7 { 107 } else { slot.get() });
            counts[slot.index()] += 1;
        }
        assert_eq!((counts[0], counts[9], sampler.len()), (0, 0, 8));
        assert!(counts[1..9].iter().all(|&count| count.abs_diff(1000) < 150), "{counts:?}");
    }
}
