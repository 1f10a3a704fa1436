//! Slots by how often they were used: counting a use and finding the least used are both O(1).
//!
//! A list of buckets in ascending order of frequency, each with the list of its slots in the order
//! in which they reached that frequency (Ketan Shah, Mitra and Matani, "An O(1) algorithm for
//! implementing the LFU cache eviction scheme", 2010). Costs 12 bytes per slot and 32 per
//! frequency in use; frequencies have 64 bits and never overflow.

use engine::{Slot, Table};

use super::{SlotLinks, SlotList};

const NONE: u32 = u32::MAX;

/// The slots of one frequency. There is none without slots, but for those on the free list.
struct Bucket {
    frequency: u64,
    slots: SlotList,
    higher: u32,
    lower: u32,
}

/// Slots in the order of their frequency and, where it is equal, of reaching it.
pub struct FrequencyLists {
    links: SlotLinks,
    /// Each slot's bucket; stale for slots that are not in the lists.
    bucket_of: Table<u32>,
    buckets: Table<Bucket>,
    lowest: u32,
    /// Buckets to reuse, linked by `higher`.
    free: u32,
    in_use: u32,
    len: usize,
}

impl Default for FrequencyLists {
    fn default() -> Self {
        Self {
            links: SlotLinks::default(),
            bucket_of: Table::default(),
            buckets: Table::default(),
            lowest: NONE,
            free: NONE,
            in_use: 0,
            len: 0,
        }
    }
}

impl FrequencyLists {
    /// Number of slots.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no slot.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of different frequencies.
    #[must_use]
    pub const fn frequencies(&self) -> u32 {
        self.in_use
    }

    /// Of the least frequent slots the one that reached that frequency first.
    #[must_use]
    pub fn first(&self) -> Option<Slot> {
        self.buckets.get(self.lowest as usize)?.slots.back()
    }

    /// The frequency of a slot that is in the lists.
    #[must_use]
    pub fn frequency(&self, slot: Slot) -> u64 {
        self.buckets[self.bucket_of[slot.index()] as usize].frequency
    }

    /// Adds a slot, which is not in the lists, at frequency 1.
    pub fn insert(&mut self, slot: Slot) {
        if slot.index() >= self.bucket_of.len() {
            self.bucket_of.resize(slot.index() + 1, NONE);
        }
        let first = match self.buckets.get(self.lowest as usize) {
            Some(bucket) if bucket.frequency == 1 => self.lowest,
            _ => self.add_bucket(1, NONE, self.lowest),
        };
        self.join(first, slot);
        self.len += 1;
    }

    /// Counts a use of a slot that is in the lists.
    pub fn count(&mut self, slot: Slot) {
        let old = self.bucket_of[slot.index()];
        let Bucket { frequency, slots, higher, .. } = self.buckets[old as usize];
        let next = match self.buckets.get(higher as usize) {
            Some(bucket) if bucket.frequency == frequency + 1 => higher,
            _ if slots.len() == 1 => {
                self.buckets[old as usize].frequency += 1;
                return;
            }
            _ => self.add_bucket(frequency + 1, old, higher),
        };
        self.leave(old, slot);
        self.join(next, slot);
    }

    /// Takes a slot out of the lists.
    pub fn remove(&mut self, slot: Slot) {
        self.leave(self.bucket_of[slot.index()], slot);
        self.len -= 1;
    }

    /// Puts another slot, which is not in the lists and smaller, in the place of one that is.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        let bucket = self.bucket_of[from.index()];
        self.buckets[bucket as usize].slots.relocate(&mut self.links, from, to);
        self.bucket_of[to.index()] = bucket;
    }

    /// Gives back what is kept for slots from this one on, which are not in the lists.
    pub fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.bucket_of.trim(slots);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes() + self.bucket_of.footprint_bytes() + self.buckets.footprint_bytes()
    }

    /// Checks order, links and counts.
    ///
    /// # Panics
    ///
    /// Where one of them is wrong.
    pub fn check_invariants(&self) {
        let mut len = 0;
        let mut frequencies = 0;
        let mut lower = NONE;
        let mut frequency = 0;
        let mut next = self.lowest;
        while let Some(bucket) = self.buckets.get(next as usize) {
            assert!(bucket.frequency > frequency, "frequencies ascend");
            assert_eq!(bucket.lower, lower, "buckets are linked in both directions");
            assert!(!bucket.slots.is_empty(), "no bucket is kept without slots");
            bucket.slots.check_invariants(&self.links);
            for slot in bucket.slots.iter_from_back(&self.links) {
                assert_eq!(self.bucket_of[slot.index()], next, "{slot:?} knows its bucket");
            }
            len += bucket.slots.len();
            frequencies += 1;
            frequency = bucket.frequency;
            lower = next;
            next = bucket.higher;
        }
        assert_eq!((len, frequencies), (self.len, self.in_use), "slots and buckets are counted");
    }

    fn join(&mut self, bucket: u32, slot: Slot) {
        self.buckets[bucket as usize].slots.push_front(&mut self.links, slot);
        self.bucket_of[slot.index()] = bucket;
    }

    fn leave(&mut self, index: u32, slot: Slot) {
        let bucket = &mut self.buckets[index as usize];
        bucket.slots.remove(&mut self.links, slot);
        if !bucket.slots.is_empty() {
            return;
        }
        let (lower, higher) = (bucket.lower, bucket.higher);
        bucket.higher = std::mem::replace(&mut self.free, index);
        self.in_use -= 1;
        self.link(lower, higher);
    }

    /// Makes two buckets neighbours; `NONE` stands for the end of the list.
    fn link(&mut self, lower: u32, higher: u32) {
        match self.buckets.get_mut(lower as usize) {
            Some(bucket) => bucket.higher = higher,
            None => self.lowest = higher,
        }
        if let Some(bucket) = self.buckets.get_mut(higher as usize) {
            bucket.lower = lower;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are no more buckets than slots and one")]
    fn add_bucket(&mut self, frequency: u64, lower: u32, higher: u32) -> u32 {
        let bucket = Bucket { frequency, slots: SlotList::default(), higher: NONE, lower: NONE };
        let index = if self.free == NONE {
            self.buckets.push(bucket);
            (self.buckets.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = std::mem::replace(&mut self.buckets[index as usize], bucket).higher;
            index
        };
        self.link(lower, index);
        self.link(index, higher);
        self.in_use += 1;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structures::Random;

    #[test]
    fn the_first_is_the_least_used_that_got_there_first() {
        let mut random = Random::new(5);
        let mut lists = FrequencyLists::default();
        // Frequency and the turn in which it was reached, by slot.
        let mut model = [None; 24];
        for turn in 0..5000 {
            let index = random.below(model.len());
            let slot = Slot::new(u32::try_from(index).expect("few slots"));
            match model[index] {
                None => {
                    lists.insert(slot);
                    model[index] = Some((1, turn));
                }
                Some(_) if random.below(8) == 0 => {
                    lists.remove(slot);
                    model[index] = None;
                }
                Some((frequency, _)) => {
                    lists.count(slot);
                    model[index] = Some((frequency + 1, turn));
                    assert_eq!(lists.frequency(slot), frequency + 1);
                }
            }
            lists.check_invariants();
            let expected = (0..).zip(&model).filter_map(|(index, &entry)| Some((entry?, index))).min();
            assert_eq!(lists.first().map(Slot::get), expected.map(|(_, index)| index));
            assert_eq!(lists.len(), model.iter().flatten().count());
            assert!(lists.buckets.len() <= model.len() + 1, "buckets are reused");
        }
    }
}
