//! The entries of a shard, as its directory asks for them: records, deadlines and ages by slot.

use crate::directory::Entries;
use crate::expiry::ExpiryWheel;
use crate::policy::Slot;

use super::super::ages::Ages;
use super::super::records::{HashedKey, NewRecord, Records};
use super::{NextVictim, Removed};

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
    pub(super) next_victim: NextVictim,
    pub(super) now: N,
    pub(super) removed: &'a mut Removed,
}

impl Residents {
    /// Links on the wheel that no deadline accounts for, where so many entries are resident: they are those of residents that have
    /// none. (Where there are fewer residents than links, the others are those of unused slots.)
    #[inline]
    pub(super) fn idle_links(&self, items: u64) -> u64 {
        (self.expiry.slots() as u64).min(items).saturating_sub(self.expiry.len() as u64)
    }

    /// Whether there is any excess, but for that of the index, with so many entries.
    #[inline]
    pub(super) fn has_excess(&self, items: u64) -> bool {
        self.idle_links(items) > 0 || self.records.has_gone_outside()
    }

    fn unused_slot_bytes(&self) -> u64 {
        let link = if self.expiry.is_empty() { 0 } else { ExpiryWheel::bytes_per_deadline() };
        (self.bytes_per_slot + link) as u64
    }

    fn excess_bytes(&self, items: u64) -> u64 {
        self.records.excess_bytes(items) + self.idle_links(items) * ExpiryWheel::bytes_per_deadline() as u64
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.whole_charge(self.records.charge(slot))
    }

    fn whole_charge(&self, record: usize) -> u32 {
        u32::try_from(self.bytes_per_entry + record).expect("it was a u32 when the entry was stored")
    }

    /// Stores an entry in a slot that has none. Whether the index had to grow.
    pub(super) fn insert(
        &mut self,
        slot: Slot,
        key: HashedKey<'_>,
        record: &mut NewRecord<'_>,
        now: impl Fn() -> u64,
    ) -> bool {
        if let Some(deadline) = record.deadline_nanos() {
            self.expiry.insert(slot, deadline);
        }
        let has_grown = self.records.insert(slot, key, record);
        if self.ages.samples(key.hash) {
            self.ages.stored(slot, key.hash, now());
        }
        has_grown
    }

    /// Puts another record in the place of one under the same key.
    pub(super) fn replace(
        &mut self,
        slot: Slot,
        key: HashedKey<'_>,
        record: &mut NewRecord<'_>,
        now: impl Fn() -> u64,
        removed: &mut Removed,
    ) {
        if self.records.replace(slot, key, record, |value| removed.push(value)) {
            self.expiry.remove(slot);
        }
        if let Some(deadline) = record.deadline_nanos() {
            self.expiry.insert(slot, deadline);
        }
        if self.ages.samples(key.hash) {
            self.ages.removed(slot);
            self.ages.stored(slot, key.hash, now());
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, removed: &mut Removed) {
        let taken = self.records.remove(slot, None, |value| removed.push(value));
        if self.ages.samples(taken.hash) {
            self.ages.removed(slot);
        }
        if taken.has_deadline {
            self.expiry.remove(slot);
        }
    }

    /// Moves what is kept for an entry to another slot.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) {
        if self.records.relocate(from, to) {
            self.expiry.relocate(from, to);
        }
        self.ages.relocate(from, to);
    }
}

impl<N: Fn() -> u64> Entries for Evicting<'_, N> {
    fn charge(&self, slot: Slot) -> u32 {
        self.residents.charge(slot)
    }

    #[inline]
    fn evicted(&mut self, slot: Slot) -> u32 {
        *self.evictions += 1;
        let hash = self.next_victim.hash_of(slot);
        let taken = self.residents.records.remove(slot, hash, |value| self.removed.push(value));
        if self.residents.ages.samples(taken.hash) {
            self.residents.ages.evicted(slot, (self.now)());
        }
        if taken.has_deadline {
            self.residents.expiry.remove(slot);
        }
        self.residents.whole_charge(taken.charge)
    }

    fn unused_slot_bytes(&self) -> u64 {
        self.residents.unused_slot_bytes()
    }

    fn excess_bytes(&self, items: u64) -> u64 {
        self.residents.excess_bytes(items)
    }
}

impl Entries for &Residents {
    fn charge(&self, slot: Slot) -> u32 {
        Residents::charge(self, slot)
    }

    fn evicted(&mut self, slot: Slot) -> u32 {
        unreachable!("{slot:?} was evicted by an operation that evicts nothing");
    }

    fn unused_slot_bytes(&self) -> u64 {
        Residents::unused_slot_bytes(self)
    }

    fn excess_bytes(&self, items: u64) -> u64 {
        Residents::excess_bytes(self, items)
    }
}
