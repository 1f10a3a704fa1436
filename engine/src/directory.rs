//! The directory: which entries are resident, how much they weigh, and which goes next.
//!
//! A [`Directory`] holds everything about a set of entries except the entries and how they are found: the slot allocator,
//! the budget and the policy. A shard of the memory store is a directory
//! plus records and their index; the simulator is the *same* directory plus numeric keys. That is what makes a
//! simulated miss count a promise about the server.
//!
//! What an entry costs can be read off a record, so a directory does not
//! keep it: it asks its owner, through [`Entries`]. [`TaggedDirectory`] is for owners that have no
//! records to ask.

use crate::policy::{EvictionPolicy, Item, Slot, Verdict};
use crate::slots::Slots;

/// Nobody in particular is coming in, so there is nobody to reject.
const NOBODY: Item = Item { hash: 0, weight: 1 };

/// What a directory asks the owner of the entries, and tells it.
pub trait Entries {
    /// What a resident entry is charged, in bytes. Never 0.
    fn charge(&self, slot: Slot) -> u32;

    /// The directory evicts this entry: its owner lets it go and says what it was [charged](Self::charge). Its slot may be
    /// recycled at once.
    fn evicted(&mut self, slot: Slot) -> u32;

    /// What is charged for a slot that holds nothing and lies below one that does, in bytes: where fewer entries are resident
    /// than once were, what the owner and the policy keep for the others.
    fn unused_slot_bytes(&self) -> u64 {
        0
    }

    /// Bytes that are charged beside slots and entries, where so many are resident: what the owner keeps for nobody in particular,
    /// as where it once had more of them to find.
    fn excess_bytes(&self, items: u64) -> u64 {
        let _ = items;
        0
    }
}

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

/// Entries that a policy may [go by](EvictionPolicy::seek) in a step that takes as long as an eviction or two.
const SEEN_IN_STEP: usize = 64;
/// So few that a policy may go by all of them under one hold, a few times, and that what it keeps for them is near.
const FEW: u64 = 1 << 14;

/// How much a write may do before others have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries that may be evicted, or steps of the search for one that may be taken.
    pub evictions: u64,
    /// Bytes that may be left over the budget, for unused slots that give way afterwards.
    pub bytes_over: u64,
}

impl Bounds {
    /// Everything at once.
    pub const NONE: Self = Self { evictions: u64::MAX, bytes_over: u64::MAX };
}

/// What a write that was [interrupted](Bounds) has to know when it goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interrupted {
    /// It was, at least once.
    before: bool,
    /// The policy has let the newcomer in.
    is_admitted: bool,
    /// See [`EvictionPolicy::step_aside`].
    noted: Option<u64>,
}

/// Slot allocator, budget and policy: a cache without its entries. Which slot holds a key, if any, its owner knows.
pub struct Directory<P> {
    slots: Slots,
    items: u64,
    bytes: u64,
    /// [`Entries::excess_bytes`]; kept, since it changes more rarely than it is asked for.
    excess_bytes: u64,
    /// What is charged for those and for unused slots.
    unused_bytes: u64,
    budget: Budget,
    weigh_by: WeighBy,
    sheds_on_hit: bool,
    ignores_hashes: bool,
    policy: P,
}

impl<P: EvictionPolicy> Directory<P> {
    /// An empty directory. The policy must have been built with `weigh_by.capacity(&budget)`.
    #[must_use]
    pub fn new(policy: P, budget: Budget, weigh_by: WeighBy) -> Self {
        Self {
            slots: Slots::default(),
            items: 0,
            bytes: 0,
            excess_bytes: 0,
            unused_bytes: 0,
            budget,
            weigh_by,
            sheds_on_hit: policy.sheds_on_hit(),
            ignores_hashes: policy.ignores_hashes(),
            policy,
        }
    }

    /// Tells the policy that a resident entry was read. Some policies let others go because of that.
    pub fn hit(&mut self, slot: Slot, entries: &mut impl Entries) {
        self.policy.hit(slot);
        if self.sheds_on_hit {
            while let Some(shed) = self.policy.shed() {
                self.evicted(shed, entries);
            }
        }
    }

    /// Whether nobody looks at fingerprints, which then need not be made.
    #[must_use]
    pub const fn ignores_fingerprints(&self) -> bool {
        self.ignores_hashes
    }

    /// Whether a hit can make others leave, so that it must be told at once.
    #[must_use]
    pub const fn sheds_on_hit(&self) -> bool {
        self.sheds_on_hit
    }

    /// Whether most of what is kept for entries is in no near cache.
    #[inline]
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.items > FEW
    }

    /// See [`EvictionPolicy::approach`].
    pub fn approach(&self, slot: Slot) {
        self.policy.approach(slot);
    }

    /// See [`EvictionPolicy::approach_newcomer`].
    pub fn approach_newcomer(&self, fingerprint: u64) {
        self.policy.approach_newcomer(fingerprint);
    }

    /// [`hit`](Self::hit) for several entries, in this order, where [none leave for it](Self::sheds_on_hit).
    pub fn hit_all(&mut self, slots: &[Slot]) {
        debug_assert!(!self.sheds_on_hit, "what leaves must be told at once");
        self.policy.hit_all(slots);
    }

    /// See [`EvictionPolicy::next_victim`].
    #[must_use]
    pub fn next_victim(&self) -> Option<Slot> {
        self.policy.next_victim()
    }

    /// Makes room for a newcomer and lets it in. The key must not be resident. `entries` is asked
    /// about the newcomer's slot only after this has returned. Nobody is evicted for what is charged for unused slots:
    /// [`Self::relocate_last`] while [`Self::is_over_budget`].
    #[expect(clippy::missing_panics_doc, reason = "what has no bounds is not interrupted")]
    pub fn insert(&mut self, newcomer: Newcomer, entries: &mut impl Entries) -> Insertion {
        self.insert_within(Bounds::NONE, newcomer, &mut Interrupted::default(), entries)
            .expect("it is not interrupted")
    }

    /// [`Self::insert`], of which there is as much as the bounds allow. `None` where more is to do: evictions were made, or looked for, and
    /// nothing else has changed. To be called again with the same `interrupted`, whatever happens meanwhile, or not at all.
    #[inline]
    pub fn insert_within(
        &mut self,
        bounds: Bounds,
        newcomer: Newcomer,
        interrupted: &mut Interrupted,
        entries: &mut impl Entries,
    ) -> Option<Insertion> {
        let item = self.item(newcomer.fingerprint, newcomer.charge);
        let charge = u64::from(newcomer.charge);
        if charge > self.budget.bytes || self.budget.items == 0 {
            return Some(Insertion::TooLarge);
        }
        if interrupted.is_admitted {
            self.policy.step_forward(&item, interrupted.noted);
        } else if !self.policy.admit(&item) {
            return Some(Insertion::Rejected);
        }
        let mut left = bounds.evictions;
        // Mostly the newcomer gets its victim's slot, which then never was an unused one.
        let mut vacated = None;
        while !self.fits(1, charge) && self.items > 0 {
            if left == 0 {
                self.step_aside(vacated, interrupted, entries);
                return None;
            }
            left -= 1;
            if self.is_large() && self.seeks(&bounds, &item) {
                continue;
            }
            match self.policy.evict(&item) {
                Verdict::Evict(victim) => {
                    let charge = entries.evicted(victim);
                    self.uncount(charge);
                    if let Some(another) = vacated.replace(victim) {
                        self.vacate(another, entries);
                    }
                }
                Verdict::Reject => {
                    if let Some(slot) = vacated {
                        self.vacate(slot, entries);
                    }
                    return Some(Insertion::Rejected);
                }
            }
        }
        if self.unused_bytes > 0 && self.items > 0 && self.bytes_over(charge) > bounds.bytes_over {
            self.step_aside(vacated, interrupted, entries);
            return None;
        }
        let slot = match vacated {
            Some(slot) if self.slots.unused() == 0 => slot,
            Some(slot) => {
                self.vacate(slot, entries);
                self.slots.take()
            }
            None => self.slots.take(),
        };
        self.items += 1;
        self.bytes += charge;
        if self.unused_bytes > 0 {
            self.count_unused(entries);
        }
        self.policy.insert(slot, &item);
        Some(Insertion::Inserted(slot))
    }

    /// Whether there is more to be looked at before an eviction for this item is a matter of a moment. A step of that has been done.
    #[inline(never)]
    fn seeks(&mut self, bounds: &Bounds, item: &Item) -> bool {
        *bounds != Bounds::NONE && self.policy.seek(item, SEEN_IN_STEP)
    }

    /// The newcomer at the door waits. The slot of its last victim is nobody's.
    #[cold]
    fn step_aside(&mut self, vacated: Option<Slot>, interrupted: &mut Interrupted, entries: &impl Entries) {
        if let Some(slot) = vacated {
            self.vacate(slot, entries);
        }
        *interrupted = Interrupted { before: true, is_admitted: true, noted: self.policy.step_aside() };
    }

    /// Gives a resident entry a new charge, as its value is replaced. Other entries are evicted only
    /// where bytes are missing, and not for unused slots, as upon [`Self::insert`]: an update never takes an item's place. `entries` still answers with
    /// the old charge while this runs, and with the new one once it has returned [`Update::Kept`].
    #[expect(clippy::missing_panics_doc, reason = "what has no bounds is not interrupted")]
    pub fn update(
        &mut self,
        slot: Slot,
        fingerprint: u64,
        charge: u32,
        entries: &mut impl Entries,
    ) -> Update {
        self.update_within(Bounds::NONE, slot, fingerprint, charge, &mut Interrupted::default(), entries)
            .expect("it is not interrupted")
    }

    /// [`Self::update`], as [`Self::insert_within`] does it. Where it is interrupted the entry is resident, under its old
    /// charge.
    #[inline]
    pub fn update_within(
        &mut self,
        bounds: Bounds,
        slot: Slot,
        fingerprint: u64,
        charge: u32,
        interrupted: &mut Interrupted,
        entries: &mut impl Entries,
    ) -> Option<Update> {
        if u64::from(charge) > self.budget.bytes {
            return Some(Update::TooLarge);
        }
        let mut left = bounds.evictions;
        let item = self.item(fingerprint, charge);
        let old = entries.charge(slot);
        if interrupted.before {
            let old_item = self.item(fingerprint, old);
            let more = u64::from(charge.saturating_sub(old));
            self.evict_others(&bounds, slot, &old_item, more, &mut left, entries);
            if left == 0 || self.fits(0, more) && self.bytes_over(more) > bounds.bytes_over {
                return None;
            }
        }
        self.bytes = self.bytes - u64::from(old) + u64::from(charge);
        self.policy.update(slot, &item);
        let mut known_to_policy = true;
        let mut is_interrupted = false;
        while !self.fits(0, 0) && self.items > 1 {
            if left == 0 {
                is_interrupted = true;
                break;
            }
            left -= 1;
            if self.is_large() && self.seeks(&bounds, &item) {
                continue;
            }
            match self.policy.evict(&item) {
                // Its place in the queue is spent, its new value is not: it comes in again below.
                Verdict::Evict(victim) if victim == slot => known_to_policy = false,
                Verdict::Evict(victim) => self.evicted(victim, entries),
                Verdict::Reject => {
                    if known_to_policy {
                        self.policy.remove(slot);
                    }
                    self.forget(slot, charge, entries);
                    return Some(Update::Rejected);
                }
            }
        }
        if is_interrupted || self.fits(0, 0) && self.bytes_over(0) > bounds.bytes_over {
            interrupted.before = true;
            self.bytes = self.bytes - u64::from(charge) + u64::from(old);
            let old_item = self.item(fingerprint, old);
            if known_to_policy {
                self.policy.update(slot, &old_item);
            } else {
                self.policy.insert(slot, &old_item);
            }
            return None;
        }
        if !known_to_policy {
            self.policy.insert(slot, &item);
        }
        Some(Update::Kept)
    }

    /// Evicts for an entry that is to have so many bytes more, as many as are `left` at the most. The policy is not told of
    /// the update yet: it would take every time for another use.
    #[cold]
    fn evict_others(
        &mut self,
        bounds: &Bounds,
        slot: Slot,
        item: &Item,
        more_bytes: u64,
        left: &mut u64,
        entries: &mut impl Entries,
    ) {
        while *left > 0 && !self.fits(0, more_bytes) && self.items > 1 {
            *left -= 1;
            if self.is_large() && self.seeks(bounds, &NOBODY) {
                continue;
            }
            match self.policy.evict(&NOBODY) {
                Verdict::Evict(victim) if victim == slot => self.policy.insert(slot, item),
                Verdict::Evict(victim) => self.evicted(victim, entries),
                Verdict::Reject => return,
            }
        }
    }

    /// Forgets a resident entry that was deleted or has expired. Its owner still has it.
    pub fn remove(&mut self, slot: Slot, entries: &impl Entries) {
        self.policy.remove(slot);
        self.forget(slot, entries.charge(slot), entries);
    }

    /// Takes a step in the search for who is evicted next, whatever the budget says. Whether more of them are to be taken before an eviction is a
    /// matter of a moment.
    pub fn seek_one(&mut self) -> bool {
        self.is_large() && self.policy.seek(&NOBODY, SEEN_IN_STEP)
    }

    /// Evicts one entry to hand its room to others, whatever the budget says. Whether there was one.
    pub fn evict_one(&mut self, entries: &mut impl Entries) -> Option<Slot> {
        if self.items == 0 {
            return None;
        }
        let Verdict::Evict(victim) = self.policy.evict(&NOBODY) else {
            return None;
        };
        self.evicted(victim, entries);
        Some(victim)
    }

    /// Gives the entry with the last slot the lowest unused one: from which to which, unless no slot is unused. Its owner
    /// moves what it keeps for it.
    pub fn relocate_last(&mut self, entries: &impl Entries) -> Option<(Slot, Slot)> {
        let (from, to) = self.slots.exchange_last()?;
        self.policy.relocate(from, to);
        self.count_unused(entries);
        Some((from, to))
    }

    /// Changes the limits. Nothing is evicted: call [`Self::evict_one`] while [`Self::is_over_budget`].
    #[inline]
    pub const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Tells the policy to give back what it keeps for slots from [`Self::slots`] on.
    pub fn trim(&mut self) {
        self.policy.trim(self.slots());
    }

    /// Tells the policy its new capacity, in units of its weights.
    pub fn set_policy_capacity(&mut self, capacity: u64) {
        self.policy.resize(capacity);
    }

    /// Whether there is more than the budget allows, which a shrunk budget and unused slots can cause.
    #[must_use]
    pub const fn is_over_budget(&self) -> bool {
        self.items > self.budget.items || self.bytes() > self.budget.bytes
    }

    /// Number of resident entries.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.items
    }

    /// Sum of the resident entries' charges in bytes, and of what is charged for [unused slots](Entries::unused_slot_bytes)
    /// and for [nobody in particular](Entries::excess_bytes).
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes + self.unused_bytes
    }

    /// What [`bytes`](Self::bytes) will be once no slot is unused.
    #[must_use]
    pub const fn dense_bytes(&self) -> u64 {
        self.bytes + self.excess_bytes
    }

    /// Whether anything is charged beside the entries themselves.
    #[inline]
    #[must_use]
    pub const fn has_unused(&self) -> bool {
        self.unused_bytes > 0
    }

    /// Slots that hold nothing and lie below one that does.
    #[must_use]
    pub const fn unused_slots(&self) -> usize {
        self.slots.unused() as usize
    }

    /// Charges for unused slots and for [excess](Entries::excess_bytes) anew: the owner has another amount of that than before.
    #[inline(never)]
    pub fn count_unused(&mut self, entries: &impl Entries) {
        self.excess_bytes = entries.excess_bytes(self.items);
        let unused_slots = u64::from(self.slots.unused()) * entries.unused_slot_bytes();
        self.unused_bytes = unused_slots + self.excess_bytes;
    }

    /// The limits in force.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// The policy, for its gauges.
    #[must_use]
    pub const fn policy(&self) -> &P {
        &self.policy
    }

    /// One more than the largest slot in use.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots.bound() as usize
    }

    /// Every resident slot, in no order that means anything.
    pub fn resident(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter_used().map(Slot::new)
    }

    /// Bytes of memory held now by the free slots and the policy.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.slots.footprint_bytes() + self.policy.footprint_bytes()
    }

    /// Checks the whole structure, the policy's included.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self, entries: &impl Entries) {
        assert_eq!(self.items, self.resident().count() as u64, "items = slots in use");
        assert_eq!(self.items, self.policy.len() as u64, "items = the policy's");
        let charges: u64 = self.resident().map(|slot| u64::from(entries.charge(slot))).sum();
        assert_eq!(self.bytes, charges, "bytes = charges");
        let excess = entries.excess_bytes(self.items);
        assert_eq!(self.excess_bytes, excess, "what the owner has in excess is charged");
        let unused_slots = u64::from(self.slots.unused()) * entries.unused_slot_bytes();
        assert_eq!(self.unused_bytes, unused_slots + excess, "and so are unused slots");
        self.policy.check_invariants();
    }

    fn item(&self, fingerprint: u64, charge: u32) -> Item {
        debug_assert!(charge > 0, "nothing is free of charge");
        Item { hash: fingerprint, weight: self.weigh_by.weight(charge) }
    }

    /// Whether there is room, but for unused slots: evicting would leave more of them.
    const fn fits(&self, more_items: u64, more_bytes: u64) -> bool {
        self.items.saturating_add(more_items) <= self.budget.items
            && self.dense_bytes().saturating_add(more_bytes) <= self.budget.bytes
    }

    /// What the budget lacks for so many bytes more, as long as slots are unused.
    const fn bytes_over(&self, more_bytes: u64) -> u64 {
        self.bytes().saturating_add(more_bytes).saturating_sub(self.budget.bytes)
    }

    fn evicted(&mut self, victim: Slot, entries: &mut impl Entries) {
        let charge = entries.evicted(victim);
        self.forget(victim, charge, entries);
    }

    /// Counts out an entry that the policy has forgotten, and frees its slot.
    fn forget(&mut self, slot: Slot, charge: u32, entries: &impl Entries) {
        self.uncount(charge);
        self.vacate(slot, entries);
    }

    fn uncount(&mut self, charge: u32) {
        self.items -= 1;
        self.bytes -= u64::from(charge);
    }

    fn vacate(&mut self, slot: Slot, entries: &impl Entries) {
        self.slots.give_back(slot);
        self.count_unused(entries);
    }
}
