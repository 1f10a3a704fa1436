//! Doubly linked lists over slots: any number of lists share one vector of links.
//!
//! A slot is on at most one of the lists that share a [`SlotLinks`]. Every operation is O(1) and
//! costs 8 bytes per slot, whatever the number of lists. A policy that looks at something else of a slot whenever it looks
//! at its links keeps that beside them, so that both come with one line of memory.

use engine::{Slot, Table, prefetch_one};

const NONE: u32 = u32::MAX;

/// Packed, since most of what is kept beside is no multiple of four bytes.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Link<T: Copy> {
    /// Towards the front (the most recent end).
    newer: u32,
    /// Towards the back (the oldest end).
    older: u32,
    beside: T,
}

/// The links of every slot, shared by the lists of one policy, and what it keeps beside them.
#[derive(Default)]
pub struct SlotLinks<T: Copy = ()> {
    links: Table<Link<T>>,
}

impl<T: Copy + Default> SlotLinks<T> {
    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
    }

    /// What is kept beside the links of a slot that has been on a list.
    #[must_use]
    pub fn beside(&self, slot: Slot) -> T {
        self.links[slot.index()].beside
    }

    /// Asks for the links of a slot, which will be looked at soon.
    pub fn prefetch(&self, slot: Slot) {
        prefetch_one(self.links.get(slot.index()));
    }

    /// Gives back what is kept for slots from this one on, which are on no list.
    pub fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
    }

    #[inline]
    fn ensure(&mut self, slot: Slot) {
        if slot.index() >= self.links.len() {
            self.links.resize(slot.index() + 1, Link { newer: NONE, older: NONE, beside: T::default() });
        }
    }
}

/// One list: front is the most recent end, back the oldest.
#[derive(Clone, Copy, Debug)]
pub struct SlotList {
    front: u32,
    back: u32,
    len: u32,
}

impl Default for SlotList {
    fn default() -> Self {
        Self { front: NONE, back: NONE, len: 0 }
    }
}

fn slot_or_none(index: u32) -> Option<Slot> {
    (index != NONE).then(|| Slot::new(index))
}

impl SlotList {
    /// Number of slots on the list.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no slot is on the list.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most recent slot.
    #[must_use]
    pub fn front(&self) -> Option<Slot> {
        slot_or_none(self.front)
    }

    /// The oldest slot.
    #[must_use]
    pub fn back(&self) -> Option<Slot> {
        slot_or_none(self.back)
    }

    /// The neighbour of a slot of this list towards the front.
    #[must_use]
    pub fn newer<T: Copy>(&self, links: &SlotLinks<T>, slot: Slot) -> Option<Slot> {
        slot_or_none(links.links[slot.index()].newer)
    }

    /// The neighbour of a slot of this list towards the back.
    #[must_use]
    pub fn older<T: Copy>(&self, links: &SlotLinks<T>, slot: Slot) -> Option<Slot> {
        slot_or_none(links.links[slot.index()].older)
    }

    /// Puts a slot, which is on no list, at the front. What is kept beside its links stays.
    pub fn push_front<T: Copy + Default>(&mut self, links: &mut SlotLinks<T>, slot: Slot) {
        links.ensure(slot);
        let beside = links.links[slot.index()].beside;
        self.push_front_with(links, slot, beside);
    }

    /// Puts a slot, which is on no list, at the front, and something else beside its links.
    pub fn push_front_with<T: Copy + Default>(&mut self, links: &mut SlotLinks<T>, slot: Slot, beside: T) {
        links.ensure(slot);
        links.links[slot.index()] = Link { newer: NONE, older: self.front, beside };
        match self.front {
            NONE => self.back = slot.get(),
            front => links.links[front as usize].newer = slot.get(),
        }
        self.front = slot.get();
        self.len += 1;
    }

    /// Takes a slot of this list off it.
    pub fn remove<T: Copy>(&mut self, links: &mut SlotLinks<T>, slot: Slot) {
        let Link { newer, older, .. } = links.links[slot.index()];
        match newer {
            NONE => self.front = older,
            newer => links.links[newer as usize].older = older,
        }
        match older {
            NONE => self.back = newer,
            older => links.links[older as usize].newer = newer,
        }
        self.len -= 1;
    }

    /// Puts another slot, which is on no list and has links, in the place of one of this list. It is given what is kept
    /// beside the links, too.
    pub fn relocate<T: Copy>(&mut self, links: &mut SlotLinks<T>, from: Slot, to: Slot) {
        let link = links.links[from.index()];
        links.links[to.index()] = link;
        match link.newer {
            NONE => self.front = to.get(),
            newer => links.links[newer as usize].older = to.get(),
        }
        match link.older {
            NONE => self.back = to.get(),
            older => links.links[older as usize].newer = to.get(),
        }
    }

    /// Takes the oldest slot off the list.
    pub fn pop_back<T: Copy>(&mut self, links: &mut SlotLinks<T>) -> Option<Slot> {
        let slot = self.back()?;
        self.remove(links, slot);
        Some(slot)
    }

    /// Moves a slot of this list to the front.
    pub fn move_to_front<T: Copy>(&mut self, links: &mut SlotLinks<T>, slot: Slot) {
        if self.front == slot.get() {
            return;
        }
        // What is not in front has a newer neighbour, and the list a front.
        let Link { newer, older, beside } = links.links[slot.index()];
        links.links[newer as usize].older = older;
        match older {
            NONE => self.back = newer,
            older => links.links[older as usize].newer = newer,
        }
        links.links[self.front as usize].newer = slot.get();
        links.links[slot.index()] = Link { newer: NONE, older: self.front, beside };
        self.front = slot.get();
    }

    /// The slots from the oldest to the most recent.
    pub fn iter_from_back<'a, T: Copy>(
        &self,
        links: &'a SlotLinks<T>,
    ) -> impl Iterator<Item = Slot> + use<'a, T> {
        let mut next = self.back();
        std::iter::from_fn(move || {
            let slot = next?;
            next = slot_or_none(links.links[slot.index()].newer);
            Some(slot)
        })
    }

    /// Checks the links in both directions.
    ///
    /// # Panics
    ///
    /// Where they contradict each other or the length.
    pub fn check_invariants<T: Copy>(&self, links: &SlotLinks<T>) {
        let mut older = NONE;
        let mut len = 0;
        for slot in self.iter_from_back(links) {
            assert_eq!({ links.links[slot.index()].older }, older, "{slot:?} links back to its neighbour");
            older = slot.get();
            len += 1;
            assert!(len <= self.len, "the list is longer than its length, or a ring");
        }
        assert_eq!(older, self.front, "the walk ends at the front");
        assert_eq!(len, self.len, "the length counts the slots");
    }
}
