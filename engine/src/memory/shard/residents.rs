//! The entries of a shard, as its directory asks for them: records, deadlines and ages by slot.

use crate::directory::{Entries, Leaver};
use crate::expiry::ExpiryWheel;
use crate::policy::Slot;

use super::super::ages::Ages;
use super::super::records::{NewRecord, Records, Taken};
use super::{HashedKey, Removed};

/// The entries of a shard: what its directory knows only as slots.
pub(super) struct Residents {
    pub(super) records: Records,
    pub(super) expiry: ExpiryWheel,
    pub(super) ages: Ages,
    /// Bytes that every entry is charged beside its record.
    pub(super) bytes_per_entry: usize,
    /// Bytes of those, and of the record, that stay where the slot is left unused.
    pub(super) bytes_per_slot: usize,
}

/// The entries during an operation that may evict some.
pub(super) struct Evicting<'a, N> {
    pub(super) residents: &'a mut Residents,
    pub(super) evictions: &'a mut u64,
    pub(super) now: N,
    pub(super) removed: &'a mut Removed,
}

impl Residents {
    fn charge(&self, slot: Slot) -> u32 {
        self.whole_charge(self.records.charge(slot))
    }

    fn whole_charge(&self, record: usize) -> u32 {
        u32::try_from(self.bytes_per_entry + record).expect("it was a u32 when the entry was stored")
    }

    pub(super) fn insert(
        &mut self,
        slot: Slot,
        HashedKey { key, hash }: HashedKey<'_>,
        record: &mut NewRecord<'_>,
        now: impl Fn() -> u64,
    ) {
        if let Some(deadline) = record.deadline_nanos() {
            self.expiry.insert(slot, deadline);
        }
        self.records.insert(slot, key, record);
        if self.ages.samples(hash) {
            self.ages.stored(slot, hash, now());
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, removed: &mut Removed) -> Leaver {
        let taken = self.records.remove(slot, |value| removed.push(value));
        if self.ages.samples(taken.hash) {
            self.ages.removed(slot);
        }
        self.let_go(slot, &taken)
    }

    /// Moves what is kept for an entry to another slot.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) {
        if self.records.relocate(from, to) {
            self.expiry.relocate(from, to);
        }
        self.ages.relocate(from, to);
    }

    /// What is left to do for an entry whose record and age have been seen to.
    #[inline]
    fn let_go(&mut self, slot: Slot, taken: &Taken) -> Leaver {
        if taken.has_deadline {
            self.expiry.remove(slot);
        }
        Leaver { hash: taken.hash, charge: self.whole_charge(taken.charge) }
    }
}

impl<N: Fn() -> u64> Entries for Evicting<'_, N> {
    fn hash(&self, slot: Slot) -> u64 {
        self.residents.records.hash(slot)
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.residents.charge(slot)
    }

    #[inline]
    fn evicted(&mut self, slot: Slot) -> Leaver {
        *self.evictions += 1;
        let taken = self.residents.records.remove(slot, |value| self.removed.push(value));
        if self.residents.ages.samples(taken.hash) {
            self.residents.ages.evicted(slot, (self.now)());
        }
        self.residents.let_go(slot, &taken)
    }
}

impl Entries for &Residents {
    fn hash(&self, slot: Slot) -> u64 {
        self.records.hash(slot)
    }

    fn charge(&self, slot: Slot) -> u32 {
        Residents::charge(self, slot)
    }

    fn evicted(&mut self, slot: Slot) -> Leaver {
        unreachable!("{slot:?} was evicted by an operation that evicts nothing");
    }
}
