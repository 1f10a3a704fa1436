//! A cache divided into segments: every resident slot is on one of `N` lists, and each list knows its weight.
//!
//! Costs 9 bytes per slot, and 4 more only where weights are not 1.

use engine::{Slot, Table};

use super::{SlotLinks, SlotList, Weights};

/// `N` weighed lists over the same slots. Front is the most recent end of a list, back the oldest.
pub struct Segments<const N: usize> {
    links: SlotLinks,
    lists: [SlotList; N],
    list_weights: [u64; N],
    weight: u64,
    len: usize,
    weights: Weights,
    /// Stale for slots that are not resident.
    segment_of: Table<u8>,
}

impl<const N: usize> Default for Segments<N> {
    fn default() -> Self {
        Self {
            links: SlotLinks::default(),
            lists: [SlotList::default(); N],
            list_weights: [0; N],
            weight: 0,
            len: 0,
            weights: Weights::default(),
            segment_of: Table::default(),
        }
    }
}

impl<const N: usize> Segments<N> {
    /// Puts a slot, which is in no segment, at the front of one.
    pub fn push_front(&mut self, segment: usize, slot: Slot, weight: u32) {
        if slot.index() >= self.segment_of.len() {
            self.segment_of.resize(slot.index() + 1, 0);
        }
        self.weights.set(slot, weight);
        self.weight += u64::from(weight);
        self.len += 1;
        self.attach(segment, slot, weight);
    }

    /// Takes a slot out, wherever it is, and returns its segment.
    pub fn remove(&mut self, slot: Slot) -> usize {
        let segment = self.segment_of(slot);
        let weight = self.weights.get(slot);
        self.detach(segment, slot, weight);
        self.weight -= u64::from(weight);
        self.len -= 1;
        segment
    }

    /// Takes the oldest slot of a segment out.
    pub fn pop_back(&mut self, segment: usize) -> Option<Slot> {
        let slot = self.back(segment)?;
        self.remove(slot);
        Some(slot)
    }

    /// Moves a slot to the front of a segment: its own or another.
    pub fn move_to_front(&mut self, segment: usize, slot: Slot) {
        let from = self.segment_of(slot);
        if from == segment {
            self.lists[segment].move_to_front(&mut self.links, slot);
        } else {
            let weight = self.weights.get(slot);
            self.detach(from, slot, weight);
            self.attach(segment, slot, weight);
        }
    }

    /// Gives a resident slot another weight.
    pub fn set_weight(&mut self, slot: Slot, weight: u32) {
        let old = u64::from(self.weights.get(slot));
        let list_weight = &mut self.list_weights[usize::from(self.segment_of[slot.index()])];
        *list_weight = *list_weight - old + u64::from(weight);
        self.weight = self.weight - old + u64::from(weight);
        self.weights.set(slot, weight);
    }

    /// The most recent slot of a segment.
    #[must_use]
    pub fn front(&self, segment: usize) -> Option<Slot> {
        self.lists[segment].front()
    }

    /// The oldest slot of a segment.
    #[must_use]
    pub fn back(&self, segment: usize) -> Option<Slot> {
        self.lists[segment].back()
    }

    /// The segment of a resident slot.
    #[must_use]
    pub fn segment_of(&self, slot: Slot) -> usize {
        usize::from(self.segment_of[slot.index()])
    }

    /// The weight of a resident slot.
    #[must_use]
    pub fn weight_of(&self, slot: Slot) -> u32 {
        self.weights.get(slot)
    }

    /// The sum of the weights in a segment.
    #[must_use]
    pub const fn segment_weight(&self, segment: usize) -> u64 {
        self.list_weights[segment]
    }

    /// The sum of all weights.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// Number of slots in all segments.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is resident.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts another slot, which is in no segment and smaller, in the place of a resident one.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        self.lists[self.segment_of(from)].relocate(&mut self.links, from, to);
        self.weights.relocate(from, to);
        self.segment_of[to.index()] = self.segment_of[from.index()];
    }

    /// Gives back what is kept for slots from this one on, which are in no segment.
    pub fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.weights.trim(slots);
        self.segment_of.trim(slots);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes() + self.weights.footprint_bytes() + self.segment_of.footprint_bytes()
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        for (segment, list) in self.lists.iter().enumerate() {
            list.check_invariants(&self.links);
            let mut weight = 0;
            for slot in list.iter_from_back(&self.links) {
                assert_eq!(self.segment_of(slot), segment, "{slot:?} knows its segment");
                weight += u64::from(self.weights.get(slot));
            }
            assert_eq!(self.list_weights[segment], weight, "segment {segment} knows its weight");
        }
        assert_eq!(self.weight, self.list_weights.iter().sum::<u64>(), "the weight is the segments' sum");
        assert_eq!(self.len, self.lists.iter().map(SlotList::len).sum::<usize>(), "so is the length");
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 segments")]
    fn attach(&mut self, segment: usize, slot: Slot, weight: u32) {
        const { assert!(N <= 256, "a segment's number is a byte") };
        self.lists[segment].push_front(&mut self.links, slot);
        self.list_weights[segment] += u64::from(weight);
        self.segment_of[slot.index()] = segment as u8;
    }

    fn detach(&mut self, segment: usize, slot: Slot, weight: u32) {
        self.lists[segment].remove(&mut self.links, slot);
        self.list_weights[segment] -= u64::from(weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_move_between_segments_and_weights_follow() {
        let slot = Slot::new;
        let mut segments = Segments::<3>::default();
        for (index, segment, weight) in [(0, 0, 1), (1, 0, 1), (2, 1, 1), (3, 0, 7)] {
            segments.push_front(segment, slot(index), weight);
        }
        segments.move_to_front(2, slot(3));
        segments.move_to_front(0, slot(0));
        segments.set_weight(slot(2), 5);
        segments.check_invariants();
        let weights = [0, 1, 2].map(|segment| segments.segment_weight(segment));
        assert_eq!((weights, segments.weight(), segments.len()), ([2, 5, 7], 14, 4));
        assert_eq!(segments.pop_back(0), Some(slot(1)));
        assert_eq!((segments.remove(slot(2)), segments.pop_back(1)), (1, None));
        segments.check_invariants();
        assert_eq!((segments.weight(), segments.len()), (8, 2));
    }
}
