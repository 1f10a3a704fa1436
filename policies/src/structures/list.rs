//! Doubly linked lists over slots: any number of lists share one vector of links.
//!
//! A slot is on at most one of the lists that share a [`SlotLinks`]. Every operation is O(1) and
//! costs 8 bytes per slot, whatever the number of lists.

use engine::Slot;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    /// Towards the front (the most recent end).
    newer: u32,
    /// Towards the back (the oldest end).
    older: u32,
}

/// The links of every slot, shared by the lists of one policy.
#[derive(Default)]
pub struct SlotLinks {
    links: Vec<Link>,
}

impl SlotLinks {
    /// Bytes of memory held.
    #[must_use]
    pub const fn footprint_bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }

    /// Gives back what is kept for slots from this one on, which are on no list.
    pub fn trim(&mut self, slots: usize) {
        super::trim_slots(&mut self.links, slots);
    }

    fn ensure(&mut self, slot: Slot) {
        if slot.index() >= self.links.len() {
            self.links.resize(slot.index() + 1, Link { newer: NONE, older: NONE });
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
    pub fn newer(&self, links: &SlotLinks, slot: Slot) -> Option<Slot> {
        slot_or_none(links.links[slot.index()].newer)
    }

    /// The neighbour of a slot of this list towards the back.
    #[must_use]
    pub fn older(&self, links: &SlotLinks, slot: Slot) -> Option<Slot> {
        slot_or_none(links.links[slot.index()].older)
    }

    /// Puts a slot, which is on no list, at the front.
    pub fn push_front(&mut self, links: &mut SlotLinks, slot: Slot) {
        links.ensure(slot);
        links.links[slot.index()] = Link { newer: NONE, older: self.front };
        match self.front {
            NONE => self.back = slot.get(),
            front => links.links[front as usize].newer = slot.get(),
        }
        self.front = slot.get();
        self.len += 1;
    }

    /// Takes a slot of this list off it.
    pub fn remove(&mut self, links: &mut SlotLinks, slot: Slot) {
        let Link { newer, older } = links.links[slot.index()];
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

    /// Puts another slot, which is on no list and has links, in the place of one of this list.
    pub fn relocate(&mut self, links: &mut SlotLinks, from: Slot, to: Slot) {
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
    pub fn pop_back(&mut self, links: &mut SlotLinks) -> Option<Slot> {
        let slot = self.back()?;
        self.remove(links, slot);
        Some(slot)
    }

    /// Moves a slot of this list to the front.
    pub fn move_to_front(&mut self, links: &mut SlotLinks, slot: Slot) {
        if self.front == slot.get() {
            return;
        }
        // What is not in front has a newer neighbour, and the list a front.
        let Link { newer, older } = links.links[slot.index()];
        links.links[newer as usize].older = older;
        match older {
            NONE => self.back = newer,
            older => links.links[older as usize].newer = newer,
        }
        links.links[self.front as usize].newer = slot.get();
        links.links[slot.index()] = Link { newer: NONE, older: self.front };
        self.front = slot.get();
    }

    /// The slots from the oldest to the most recent.
    pub fn iter_from_back<'a>(&self, links: &'a SlotLinks) -> impl Iterator<Item = Slot> + use<'a> {
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
    pub fn check_invariants(&self, links: &SlotLinks) {
        let mut older = NONE;
        let mut len = 0;
        for slot in self.iter_from_back(links) {
            assert_eq!(links.links[slot.index()].older, older, "{slot:?} links back to its neighbour");
            older = slot.get();
            len += 1;
            assert!(len <= self.len, "the list is longer than its length, or a ring");
        }
        assert_eq!(older, self.front, "the walk ends at the front");
        assert_eq!(len, self.len, "the length counts the slots");
    }
}
