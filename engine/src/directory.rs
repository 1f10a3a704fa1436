//! The directory: which entries are resident, how much they weigh, and which goes next.
//!
//! A [`Directory`] holds everything about a set of entries except the entries: a hash index of
//! slots (no keys), the slot allocator, the charges, the budget and the policy. A shard of the
//! memory store is a directory plus records; the simulator is the *same* directory plus numeric
//! keys. That is what makes a simulated miss count a promise about the server.

use hashbrown::HashTable;

use crate::policy::{EvictionPolicy, Item, Slot, Verdict};

/// Upper limits of a directory. Both always hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Number of entries; `u64::MAX` where there is no limit.
    pub items: u64,
    /// Sum of charges in bytes; `u64::MAX` where there is no limit.
    pub bytes: u64,
}

impl Budget {
    /// A limit on the number of entries alone.
    #[must_use]
    pub const fn of_items(items: u64) -> Self {
        Self { items, bytes: u64::MAX }
    }

    /// A limit on the sum of charges alone.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self { items: u64::MAX, bytes }
    }
}

/// The unit in which the policy's weights and capacity count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeighBy {
    /// Every entry weighs 1; the policy's capacity is `Budget::items`.
    Items,
    /// An entry weighs its charge in bytes; the policy's capacity is `Budget::bytes`.
    Bytes,
}

impl WeighBy {
    /// The part of a budget that is the policy's capacity.
    #[must_use]
    pub const fn capacity(self, budget: &Budget) -> u64 {
        match self {
            Self::Items => budget.items,
            Self::Bytes => budget.bytes,
        }
    }

    const fn weight(self, charge: u32) -> u32 {
        match self {
            Self::Items => 1,
            Self::Bytes => charge,
        }
    }
}

/// A key to insert, reduced to what a directory keeps.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    /// The hash that the index uses. May be seeded per process.
    pub hash: u64,
    /// The fingerprint that the policy sees: [`Item::hash`].
    pub fingerprint: u64,
    /// Bytes that the entry costs. Never 0.
    pub charge: u32,
}

/// What became of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// Resident, in this slot.
    Inserted(Slot),
    /// The policy refused it. Entries may have been evicted before it did.
    Rejected,
    /// It is larger than the whole budget. Nothing was evicted.
    TooLarge,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The entry is still resident, under its new charge.
    Kept,
    /// The policy turned the entry away; its slot is free.
    Rejected,
    /// The new charge is larger than the whole budget. Nothing has changed.
    TooLarge,
}

#[derive(Clone, Copy)]
struct Tag {
    /// The low half of the index hash: enough to find the slot's place in the index again.
    hash: u32,
    /// Bytes; 0 marks a free slot, whose `hash` is then the next free slot.
    charge: u32,
}

const NO_SLOT: u32 = u32::MAX;

/// Hash index, slot allocator, charges, budget and policy: a cache without its entries.
///
/// Keys are compared by the caller: every look-up takes a closure that says whether a slot holds
/// the key in question. A hash alone is never trusted.
pub struct Directory<P> {
    index: HashTable<u32>,
    tags: Vec<Tag>,
    first_free: u32,
    items: u64,
    bytes: u64,
    budget: Budget,
    weigh_by: WeighBy,
    sheds_on_hit: bool,
    policy: P,
}

/// Spreads a tag over the bits that the table reads: position from the low, control byte from the top.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[expect(clippy::cast_possible_truncation, reason = "the tag is the hash's low half")]
const fn tag_of(hash: u64) -> u32 {
    hash as u32
}

impl<P: EvictionPolicy> Directory<P> {
    /// An empty directory. The policy must have been built with `weigh_by.capacity(&budget)`.
    #[must_use]
    pub fn new(policy: P, budget: Budget, weigh_by: WeighBy) -> Self {
        Self {
            index: HashTable::new(),
            tags: Vec::new(),
            first_free: NO_SLOT,
            items: 0,
            bytes: 0,
            budget,
            weigh_by,
            sheds_on_hit: policy.sheds_on_hit(),
            policy,
        }
    }

    /// The slot whose key has this hash and satisfies `is_key`.
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.index.find(spread(tag_of(hash)), |&slot| is_key(Slot::new(slot))).map(|&slot| Slot::new(slot))
    }

    /// Tells the policy that a resident entry was read. `on_evict` gets what the policy let go of
    /// because of that (most never do).
    pub fn hit(&mut self, slot: Slot, mut on_evict: impl FnMut(Slot)) {
        self.policy.hit(slot);
        if self.sheds_on_hit {
            while let Some(shed) = self.policy.shed() {
                self.forget(shed);
                on_evict(shed);
            }
        }
    }

    /// Whether an entry of this charge fits in without an eviction.
    #[must_use]
    pub fn has_room_for(&self, charge: u32) -> bool {
        self.fits(1, u64::from(charge))
    }

    /// Makes room for a newcomer and lets it in. The key must not be resident.
    ///
    /// `on_evict` gets each victim's slot, which may be recycled as soon as this returns.
    pub fn insert(&mut self, newcomer: Newcomer, mut on_evict: impl FnMut(Slot)) -> Insertion {
        let item = self.item(newcomer.fingerprint, newcomer.charge);
        let charge = u64::from(newcomer.charge);
        if charge > self.budget.bytes || self.budget.items == 0 {
            return Insertion::TooLarge;
        }
        if !self.policy.admit(&item) {
            return Insertion::Rejected;
        }
        while !self.fits(1, charge) {
            match self.policy.evict(&item) {
                Verdict::Evict(victim) => {
                    self.forget(victim);
                    on_evict(victim);
                }
                Verdict::Reject => return Insertion::Rejected,
            }
        }
        let slot = self.allocate(Tag { hash: tag_of(newcomer.hash), charge: newcomer.charge });
        self.policy.insert(slot, &item);
        Insertion::Inserted(slot)
    }

    /// Gives a resident entry a new charge, as its value is replaced. Other entries are evicted only
    /// where bytes are missing: an update never takes an item's place.
    pub fn update(
        &mut self,
        slot: Slot,
        fingerprint: u64,
        charge: u32,
        mut on_evict: impl FnMut(Slot),
    ) -> Update {
        if u64::from(charge) > self.budget.bytes {
            return Update::TooLarge;
        }
        let item = self.item(fingerprint, charge);
        let old = std::mem::replace(&mut self.tags[slot.index()].charge, charge);
        self.bytes = self.bytes - u64::from(old) + u64::from(charge);
        self.policy.update(slot, &item);
        let mut known_to_policy = true;
        while !self.fits(0, 0) {
            match self.policy.evict(&item) {
                // Its place in the queue is spent, its new value is not: it comes in again below.
                Verdict::Evict(victim) if victim == slot => known_to_policy = false,
                Verdict::Evict(victim) => {
                    self.forget(victim);
                    on_evict(victim);
                }
                Verdict::Reject => {
                    if known_to_policy {
                        self.policy.remove(slot);
                    }
                    self.forget(slot);
                    return Update::Rejected;
                }
            }
        }
        if !known_to_policy {
            self.policy.insert(slot, &item);
        }
        Update::Kept
    }

    /// Forgets a resident entry that was deleted or has expired.
    pub fn remove(&mut self, slot: Slot) {
        self.policy.remove(slot);
        self.forget(slot);
    }

    /// Evicts one entry to hand its room to others, whatever the budget says. `None` when empty.
    pub fn evict_one(&mut self) -> Option<Slot> {
        if self.items == 0 {
            return None;
        }
        // Nobody in particular is coming in, so there is nobody to reject.
        let nobody = Item { hash: 0, weight: 1 };
        let Verdict::Evict(victim) = self.policy.evict(&nobody) else {
            return None;
        };
        self.forget(victim);
        Some(victim)
    }

    /// Changes the limits. Nothing is evicted: call [`Self::evict_one`] while [`Self::is_over_budget`].
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Tells the policy its new capacity, in units of its weights.
    pub fn set_policy_capacity(&mut self, capacity: u64) {
        self.policy.resize(capacity);
    }

    /// Whether more is resident than the budget allows, which only a shrunk budget can cause.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        !self.fits(0, 0)
    }

    /// Number of resident entries.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.items
    }

    /// Sum of the resident entries' charges in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The limits in force.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// A resident entry's charge in bytes.
    #[must_use]
    pub fn charge(&self, slot: Slot) -> u32 {
        self.tags[slot.index()].charge
    }

    /// The policy, for its gauges.
    #[must_use]
    pub const fn policy(&self) -> &P {
        &self.policy
    }

    /// One more than the largest slot ever in use.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.tags.len()
    }

    /// Whether a slot holds an entry.
    #[must_use]
    pub fn is_resident(&self, slot: Slot) -> bool {
        self.tags.get(slot.index()).is_some_and(|tag| tag.charge != 0)
    }

    /// Bytes of memory held now by the index, the tags and the policy.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.index.allocation_size() + self.tags.capacity() * size_of::<Tag>() + self.policy.footprint_bytes()
    }

    /// Checks the whole structure, the policy's included.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        let resident = || self.tags.iter().filter(|tag| tag.charge != 0);
        assert_eq!(self.items, resident().count() as u64, "items = resident tags");
        assert_eq!(self.items, self.index.len() as u64, "items = indexed slots");
        assert_eq!(self.items, self.policy.len() as u64, "items = the policy's");
        assert_eq!(self.bytes, resident().map(|tag| u64::from(tag.charge)).sum::<u64>(), "bytes = charges");
        let mut free = 0;
        let mut next = self.first_free;
        while next != NO_SLOT {
            let tag = self.tags[next as usize];
            assert_eq!(tag.charge, 0, "slot {next} is on the free list and resident");
            free += 1;
            assert!(free <= self.tags.len(), "the free list has a cycle");
            next = tag.hash;
        }
        assert_eq!(self.tags.len() as u64, self.items + free as u64, "every slot is resident or free");
        for &slot in &self.index {
            let tag = self.tags[slot as usize];
            assert!(tag.charge != 0, "slot {slot} is indexed and free");
            let found = self.index.find(spread(tag.hash), |&other| other == slot);
            assert!(found.is_some(), "slot {slot} is indexed under another hash than its tag's");
        }
        self.policy.check_invariants();
    }

    fn item(&self, fingerprint: u64, charge: u32) -> Item {
        debug_assert!(charge > 0, "a charge of 0 marks a free slot");
        Item { hash: fingerprint, weight: self.weigh_by.weight(charge) }
    }

    const fn fits(&self, more_items: u64, more_bytes: u64) -> bool {
        self.items.saturating_add(more_items) <= self.budget.items
            && self.bytes.saturating_add(more_bytes) <= self.budget.bytes
    }

    fn allocate(&mut self, tag: Tag) -> Slot {
        let slot = if self.first_free == NO_SLOT {
            let slot = u32::try_from(self.tags.len()).expect("fewer than 2^32 - 1 entries in a shard");
            self.tags.push(tag);
            slot
        } else {
            let slot = self.first_free;
            let free = std::mem::replace(&mut self.tags[slot as usize], tag);
            self.first_free = free.hash;
            slot
        };
        let tags = &self.tags;
        self.index.insert_unique(spread(tag.hash), slot, |&slot| spread(tags[slot as usize].hash));
        self.items += 1;
        self.bytes += u64::from(tag.charge);
        Slot::new(slot)
    }

    /// Takes an entry that the policy has forgotten out of the index and frees its slot.
    fn forget(&mut self, slot: Slot) {
        let tag = self.tags[slot.index()];
        debug_assert!(tag.charge != 0, "{slot:?} is not resident");
        let found = self.index.find_entry(spread(tag.hash), |&other| other == slot.get());
        found.expect("a resident slot is in the index").remove();
        self.tags[slot.index()] = Tag { hash: self.first_free, charge: 0 };
        self.first_free = slot.get();
        self.items -= 1;
        self.bytes -= u64::from(tag.charge);
    }
}
