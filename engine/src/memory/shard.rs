//! One shard: a directory plus records and deadlines, used under its lock.

use bytes::Bytes;

use crate::directory::{Budget, Directory, Entries, Insertion, Newcomer, Update, WeighBy};
use crate::expiry::{Expired, ExpiryWheel};
use crate::key::{HashSeed, Key};
use crate::policy::{EvictionPolicy, Slot};
use crate::store::{CompareAndSet, Counters, EvictionSample, SetIfAbsent};
use crate::value::Value;

use super::ages::Ages;
use super::records::{self, NewRecord, Records};

/// A key with its hash, computed once before the lock is taken.
#[derive(Clone, Copy)]
pub(super) struct HashedKey<'a> {
    pub(super) key: Key<'a>,
    pub(super) hash: u64,
}

/// A record ready to be stored: measured, dated, and copied if it is large, before the lock is taken.
pub(super) struct Write<'a> {
    pub(super) key: HashedKey<'a>,
    pub(super) record: NewRecord<'a>,
    pub(super) charge: u32,
}

/// Values that were removed under the lock, to be freed after it is released: only large ones have
/// anything to free. The first costs no allocation, and most operations remove one at the most.
#[derive(Default)]
pub(super) struct Removed {
    first: Option<Bytes>,
    more: Vec<Bytes>,
}

impl Removed {
    pub(super) fn push(&mut self, value: Option<Bytes>) {
        if self.first.is_none() {
            self.first = value;
        } else {
            self.more.extend(value);
        }
    }
}

/// No room in the shard's budget, however much it evicts: the entry needs this much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

/// A write that found no room, and how much it lacks. Nothing has changed.
pub(super) type Unstored<'a> = (Shortage, NewRecord<'a>);

pub(super) struct Shard {
    directory: Directory<Box<dyn EvictionPolicy>>,
    entries: Residents,
    pub(super) counters: Counters,
}

/// Bytes that a resident entry costs in a shard beside its record and the policy's metadata.
pub(super) const SHARD_BYTES_PER_ENTRY: usize = Directory::<Box<dyn EvictionPolicy>>::BYTES_PER_ENTRY;

/// Slots that memory may be kept for beyond a quarter more than are in use.
const SPARE_SLOTS: usize = 4096;

/// The least that an entry is charged beside the policy's metadata.
pub(super) const SMALLEST_ENTRY_BYTES: usize = SHARD_BYTES_PER_ENTRY + records::smallest_charge();

/// The entries of a shard: what its directory knows only as slots.
struct Residents {
    records: Records,
    expiry: ExpiryWheel,
    ages: Ages,
    /// Bytes that every entry is charged beside its record.
    bytes_per_entry: usize,
    /// Bytes of those, and of the record, that stay where the slot is left unused.
    bytes_per_slot: usize,
}

/// The entries during an operation that may evict some.
struct Evicting<'a, N> {
    residents: &'a mut Residents,
    evictions: &'a mut u64,
    now: N,
    removed: &'a mut Removed,
}

impl Residents {
    fn charge(&self, slot: Slot) -> u32 {
        let charge = self.bytes_per_entry + self.records.charge(slot);
        u32::try_from(charge).expect("it was a u32 when the entry was stored")
    }

    fn insert(
        &mut self,
        slot: Slot,
        HashedKey { key, hash }: HashedKey<'_>,
        record: NewRecord<'_>,
        now: impl Fn() -> u64,
    ) {
        if let Some(deadline) = record.deadline_nanos() {
            self.expiry.insert(slot, deadline);
        }
        self.records.insert(slot, &key, record);
        if self.ages.samples(hash) {
            self.ages.stored(slot, hash, now());
        }
    }

    fn remove(&mut self, slot: Slot, hash: u64) -> Option<Bytes> {
        if self.ages.samples(hash) {
            self.ages.removed(slot);
        }
        self.free(slot)
    }

    /// Removes an entry whose age has been seen to.
    fn free(&mut self, slot: Slot) -> Option<Bytes> {
        if self.records.deadline_nanos(slot).is_some() {
            self.expiry.remove(slot);
        }
        self.records.remove(slot)
    }
}

impl<N: Fn() -> u64> Entries for Evicting<'_, N> {
    fn hash(&self, slot: Slot) -> u64 {
        self.residents.records.hash(slot)
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.residents.charge(slot)
    }

    fn evicted(&mut self, slot: Slot, hash: u64) {
        *self.evictions += 1;
        if self.residents.ages.samples(hash) {
            self.residents.ages.evicted(slot, (self.now)());
        }
        self.removed.push(self.residents.free(slot));
    }
}

impl Entries for &Residents {
    fn hash(&self, slot: Slot) -> u64 {
        self.records.hash(slot)
    }

    fn charge(&self, slot: Slot) -> u32 {
        Residents::charge(self, slot)
    }

    fn evicted(&mut self, slot: Slot, _: u64) {
        unreachable!("{slot:?} was evicted by an operation that evicts nothing");
    }
}

impl Shard {
    pub(super) fn new(
        policy: Box<dyn EvictionPolicy>,
        budget: Budget,
        weigh_by: WeighBy,
        hash_seed: HashSeed,
        bytes_per_entry: usize,
    ) -> Self {
        Self {
            directory: Directory::new(policy, budget, weigh_by),
            entries: Residents {
                records: Records::new(hash_seed),
                expiry: ExpiryWheel::default(),
                ages: Ages::default(),
                bytes_per_entry,
                bytes_per_slot: bytes_per_entry - SHARD_BYTES_PER_ENTRY + records::BYTES_PER_ENTRY,
            },
            counters: Counters::default(),
        }
    }

    pub(super) const fn directory(&self) -> &Directory<Box<dyn EvictionPolicy>> {
        &self.directory
    }

    pub(super) fn set_budget(&mut self, budget: Budget) {
        self.directory.set_budget(budget);
    }

    pub(super) fn get(
        &mut self,
        key: HashedKey<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Option<Value> {
        let Some(slot) = self.find_live(key, now, removed) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        if self.entries.ages.samples(key.hash) {
            self.entries.ages.used(slot, now());
        }
        let value = self.entries.records.value(slot);
        let (directory, mut entries) = self.evicting(now, removed);
        directory.hit(slot, &mut entries);
        Some(value)
    }

    /// Stores the record whatever is there. What a shortage leaves undone has changed nothing.
    pub(super) fn set<'a>(
        &mut self,
        write: Write<'a>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Unstored<'a>> {
        match self.find_live(write.key, now, removed) {
            Some(slot) => self.replace(slot, write, now, removed),
            None => self.insert(write, now, removed),
        }
    }

    pub(super) fn set_if_absent<'a>(
        &mut self,
        write: Write<'a>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<SetIfAbsent, Unstored<'a>> {
        match self.find_live(write.key, now, removed) {
            Some(_) => {
                removed.push(write.record.into_outside());
                Ok(SetIfAbsent::Exists)
            }
            None => self.insert(write, now, removed).map(|()| SetIfAbsent::Stored),
        }
    }

    pub(super) fn compare_and_set<'a>(
        &mut self,
        expected: &[u8],
        write: Write<'a>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<CompareAndSet, Unstored<'a>> {
        let Some(slot) = self.find_live(write.key, now, removed) else {
            removed.push(write.record.into_outside());
            return Ok(CompareAndSet::NotFound);
        };
        if !self.entries.records.value_is(slot, expected) {
            removed.push(write.record.into_outside());
            return Ok(CompareAndSet::Mismatch);
        }
        self.replace(slot, write, now, removed).map(|()| CompareAndSet::Stored)
    }

    pub(super) fn delete(
        &mut self,
        key: HashedKey<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> bool {
        let Some(slot) = self.find_live(key, now, removed) else {
            return false;
        };
        self.discard(slot, key.hash, removed);
        self.counters.deleted += 1;
        true
    }

    /// Removes expired entries, within the given number of steps. Whether there may be more.
    pub(super) fn sweep(&mut self, now_nanos: u64, steps: &mut usize, removed: &mut Removed) -> bool {
        loop {
            let Residents { records, expiry, ages, .. } = &mut self.entries;
            let deadline = |slot| records.deadline_nanos(slot).expect("what is on the wheel has a deadline");
            match expiry.pop_expired(now_nanos, steps, deadline) {
                Expired::Slot(slot) => {
                    ages.removed(slot);
                    self.directory.remove(slot, &&self.entries);
                    // It is off the wheel already.
                    removed.push(self.entries.records.remove(slot));
                    self.counters.expired += 1;
                    self.counters.swept += 1;
                }
                Expired::OutOfSteps => return true,
                Expired::Nothing => {
                    self.trim();
                    return false;
                }
            }
        }
    }

    /// Evicts one entry for the benefit of another shard. Whether there was one.
    pub(super) fn evict_one(&mut self, now: impl Fn() -> u64, removed: &mut Removed) -> bool {
        let (directory, mut entries) = self.evicting(now, removed);
        directory.evict_one(&mut entries).is_some()
    }

    /// An empty shard in place of this one, with the same budget and counters. The old one is the caller's to free.
    pub(super) fn reset(
        &mut self,
        policy: Box<dyn EvictionPolicy>,
        weigh_by: WeighBy,
        hash_seed: HashSeed,
    ) -> Self {
        let fresh =
            Self::new(policy, self.directory.budget(), weigh_by, hash_seed, self.entries.bytes_per_entry);
        let mut old = std::mem::replace(self, fresh);
        self.counters = old.counters;
        self.counters.cleared += old.directory.items();
        self.entries.ages.evictions = std::mem::take(&mut old.entries.ages.evictions);
        old
    }

    /// Bytes of the resident keys, and of the resident values.
    pub(super) const fn payload_bytes(&self) -> (u64, u64) {
        self.entries.records.payload_bytes()
    }

    /// Entries that have expired and are still resident, as far as that many steps reach.
    pub(super) fn expired_residents(&self, now_nanos: u64, steps: usize) -> u64 {
        let Residents { records, expiry, .. } = &self.entries;
        let deadline = |slot| records.deadline_nanos(slot).expect("what is on the wheel has a deadline");
        expiry.count_expired(now_nanos, steps, deadline)
    }

    /// Evictions of entries of known age since the last call: chosen ones, and how many there were.
    pub(super) fn take_evictions(&mut self) -> (Vec<EvictionSample>, u64) {
        self.entries.ages.evictions.take()
    }

    pub(super) fn check_invariants(&self) {
        self.directory.check_invariants(&&self.entries);
        let Residents { records, expiry, ages, .. } = &self.entries;
        ages.check_invariants(|slot| records.is_stored(slot).then(|| records.hash(slot)));
        records.check_invariants();
        expiry.check_invariants(|slot| records.deadline_nanos(slot).expect("on the wheel"));
        let stored =
            (0..).take(self.directory.slots()).map(Slot::new).filter(|&slot| records.is_stored(slot));
        assert_eq!(stored.count() as u64, self.directory.items(), "residents have a record, others none");
        let resident: Vec<Slot> = self.directory.resident().collect();
        assert!(resident.iter().all(|&slot| records.is_stored(slot)), "residents have a record");
        let mortal = resident.iter().filter(|&&slot| records.deadline_nanos(slot).is_some()).count();
        assert_eq!(mortal, expiry.len(), "who has a deadline is on the wheel");
    }

    /// The slot of a live entry. An expired one is removed on the way, which is the only case in
    /// which the clock is read.
    fn find_live(
        &mut self,
        key: HashedKey<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Option<Slot> {
        let records = &self.entries.records;
        let slot = self.directory.find(key.hash, |slot| records.holds(slot, &key.key))?;
        let expired = records.deadline_nanos(slot).is_some_and(|deadline| deadline <= now());
        if !expired {
            return Some(slot);
        }
        self.discard(slot, key.hash, removed);
        self.counters.expired += 1;
        None
    }

    fn insert<'a>(
        &mut self,
        write: Write<'a>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Unstored<'a>> {
        let newcomer =
            Newcomer { hash: write.key.hash, fingerprint: write.key.key.fingerprint(), charge: write.charge };
        let (directory, mut entries) = self.evicting(now, removed);
        match directory.insert(newcomer, &mut entries) {
            Insertion::Inserted(slot) => {
                self.entries.insert(slot, write.key, write.record, now);
                self.trim();
            }
            Insertion::Rejected => {
                self.counters.rejected_admission += 1;
                removed.push(write.record.into_outside());
            }
            Insertion::TooLarge => return Err((self.shortage(1, write.charge), write.record)),
        }
        Ok(())
    }

    fn replace<'a>(
        &mut self,
        slot: Slot,
        write: Write<'a>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Unstored<'a>> {
        let (directory, mut entries) = self.evicting(now, removed);
        match directory.update(slot, write.key.key.fingerprint(), write.charge, &mut entries) {
            Update::Kept => {
                self.counters.replaced += 1;
                removed.push(self.entries.remove(slot, write.key.hash));
                self.entries.insert(slot, write.key, write.record, now);
            }
            Update::Rejected => {
                self.counters.replaced += 1;
                self.counters.rejected_admission += 1;
                removed.push(self.entries.remove(slot, write.key.hash));
                removed.push(write.record.into_outside());
            }
            Update::TooLarge => return Err((self.shortage(0, write.charge), write.record)),
        }
        Ok(())
    }

    /// What the budget lacks for an entry of this charge even if everything else goes.
    fn shortage(&self, items: u64, charge: u32) -> Shortage {
        let budget = self.directory.budget();
        Shortage {
            items: items.saturating_sub(budget.items),
            bytes: u64::from(charge).saturating_sub(budget.bytes),
        }
    }

    /// Removes a resident entry that was not evicted.
    fn discard(&mut self, slot: Slot, hash: u64, removed: &mut Removed) {
        self.directory.remove(slot, &&self.entries);
        removed.push(self.entries.remove(slot, hash));
        self.trim();
    }

    /// Gives back what is kept for slots, where far fewer are in use than once were, and charges what is kept for those
    /// that hold nothing.
    fn trim(&mut self) {
        let Residents { records, expiry, bytes_per_slot, .. } = &mut self.entries;
        let slots = self.directory.slots();
        if slots + slots / 4 + SPARE_SLOTS < records.slots() {
            records.trim(slots);
            self.directory.trim();
            if expiry.slots() > slots {
                expiry.trim(slots);
            }
        }
        let wheel = if expiry.slots() > 0 { ExpiryWheel::bytes_per_deadline() } else { 0 };
        self.directory.set_unused_slot_bytes(u32::try_from(*bytes_per_slot + wheel).expect("some bytes"));
    }

    fn evicting<'a, N: Fn() -> u64>(
        &'a mut self,
        now: N,
        removed: &'a mut Removed,
    ) -> (&'a mut Directory<Box<dyn EvictionPolicy>>, Evicting<'a, N>) {
        let entries =
            Evicting { residents: &mut self.entries, evictions: &mut self.counters.evictions, now, removed };
        (&mut self.directory, entries)
    }
}
