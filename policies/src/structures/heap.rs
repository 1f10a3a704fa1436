//! A heap of slots that finds the smallest key in O(1) and changes any slot's key in O(log n).
//!
//! Four children per node: half the depth of a binary heap, and siblings share cache lines. Keys
//! lie in the heap itself; every slot knows its place. Costs `size_of::<(K, u32)>()` + 4 bytes per slot.

use engine::{Slot, Table};

const CHILDREN: usize = 4;

/// Slots ordered by a key, the smallest first.
pub struct SlotHeap<K> {
    nodes: Table<Node<K>>,
    /// Each slot's place in `nodes`; stale for slots that are not in the heap.
    place: Table<u32>,
}

#[derive(Clone, Copy)]
struct Node<K> {
    key: K,
    slot: u32,
}

impl<K> Default for SlotHeap<K> {
    fn default() -> Self {
        Self { nodes: Table::default(), place: Table::default() }
    }
}

impl<K: Ord + Copy> SlotHeap<K> {
    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The slot with the smallest key.
    #[must_use]
    pub fn first(&self) -> Option<(Slot, K)> {
        self.nodes.first().map(|node| (Slot::new(node.slot), node.key))
    }

    /// Adds a slot that is not in the heap.
    pub fn insert(&mut self, slot: Slot, key: K) {
        if slot.index() >= self.place.len() {
            self.place.resize(slot.index() + 1, 0);
        }
        let node = Node { key, slot: slot.get() };
        self.nodes.push(node);
        self.settle_upwards(self.nodes.len() - 1, node);
    }

    /// Gives a slot of the heap another key.
    pub fn change(&mut self, slot: Slot, key: K) {
        self.settle(self.place[slot.index()] as usize, Node { key, slot: slot.get() });
    }

    /// Takes a slot of the heap out.
    pub fn remove(&mut self, slot: Slot) {
        let place = self.place[slot.index()] as usize;
        debug_assert_eq!(self.nodes[place].slot, slot.get(), "the slot is in the heap");
        if let Some(last) = self.nodes.pop()
            && place < self.nodes.len()
        {
            self.settle(place, last);
        }
    }

    /// Puts another slot, which is not in it and smaller, in the place of one of the heap.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        let place = self.place[from.index()];
        self.nodes[place as usize].slot = to.get();
        self.place[to.index()] = place;
    }

    /// Gives back what is kept for slots from this one on, which are not in it.
    pub fn trim(&mut self, slots: usize) {
        self.nodes.shrink_to_fit();
        self.place.trim(slots);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.nodes.footprint_bytes() + self.place.footprint_bytes()
    }

    /// Checks the order and that every slot is found where it lies.
    ///
    /// # Panics
    ///
    /// Where one of them does not hold.
    pub fn check_invariants(&self) {
        for (place, node) in self.nodes.iter().enumerate() {
            let parent = &self.nodes[place.saturating_sub(1) / CHILDREN];
            assert!(parent.key <= node.key, "slot {} is not smaller than its parent", node.slot);
            let found = self.place[node.slot as usize] as usize;
            assert_eq!(found, place, "slot {} lies where it is looked for", node.slot);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are no more places than slots")]
    fn put(&mut self, place: usize, node: Node<K>) {
        self.nodes[place] = node;
        self.place[node.slot as usize] = place as u32;
    }

    /// Finds the place for a node from the gap at `place`, in whichever direction.
    fn settle(&mut self, place: usize, node: Node<K>) {
        if place > 0 && node.key < self.nodes[(place - 1) / CHILDREN].key {
            self.settle_upwards(place, node);
        } else {
            self.settle_downwards(place, node);
        }
    }

    fn settle_upwards(&mut self, mut place: usize, node: Node<K>) {
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.nodes[parent].key <= node.key {
                break;
            }
            self.put(place, self.nodes[parent]);
            place = parent;
        }
        self.put(place, node);
    }

    fn settle_downwards(&mut self, mut place: usize, node: Node<K>) {
        loop {
            let first = place * CHILDREN + 1;
            let end = (first + CHILDREN).min(self.nodes.len());
            let Some(smallest) = (first..end).min_by_key(|&child| self.nodes[child].key) else { break };
            if node.key <= self.nodes[smallest].key {
                break;
            }
            self.put(place, self.nodes[smallest]);
            place = smallest;
        }
        self.put(place, node);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::structures::Random;

    #[test]
    fn a_heap_agrees_with_an_ordered_set_of_its_keys() {
        let mut random = Random::new(11);
        let mut heap = SlotHeap::default();
        let mut keys = [None; 64];
        let mut model = BTreeSet::new();
        for _ in 0..4000 {
            let index = random.below(keys.len());
            let slot = Slot::new(u32::try_from(index).expect("few slots"));
            let key = random.below(1000);
            let new = if random.below(4) == 0 { None } else { Some(key) };
            match (keys[index], new) {
                (None, Some(key)) => heap.insert(slot, key),
                (Some(_), Some(key)) => heap.change(slot, key),
                (Some(_), None) => heap.remove(slot),
                (None, None) => {}
            }
            model.remove(&(keys[index], index));
            keys[index] = new;
            model.extend(new.map(|_| (new, index)));
            heap.check_invariants();
            assert_eq!(heap.len(), model.len());
            assert_eq!(heap.first().map(|(_, key)| key), model.first().and_then(|&(key, _)| key));
        }
    }
}
