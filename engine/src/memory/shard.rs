//! One shard: a directory plus records and deadlines, used under its lock.

use crate::directory::{Budget, Directory, Insertion, Newcomer, Update, WeighBy};
use crate::expiry::{Expired, ExpiryWheel};
use crate::key::Key;
use crate::policy::{EvictionPolicy, Slot};
use crate::store::{CompareAndSet, Counters, SetIfAbsent};
use crate::value::{Record, Value};

/// A key with its hash, computed once before the lock is taken.
#[derive(Clone, Copy)]
pub(super) struct HashedKey<'a> {
    pub(super) key: Key<'a>,
    pub(super) hash: u64,
}

/// A record ready to be stored: copied, measured and dated before the lock is taken.
pub(super) struct Write<'a> {
    pub(super) key: HashedKey<'a>,
    pub(super) record: Record,
    pub(super) charge: u32,
    pub(super) deadline_nanos: Option<u64>,
}

/// Records that were removed under the lock, to be freed after it is released. The first costs no
/// allocation, and most operations remove one at the most.
#[derive(Default)]
pub(super) struct Removed {
    first: Option<Record>,
    more: Vec<Record>,
}

impl Removed {
    pub(super) fn push(&mut self, record: Record) {
        if self.first.is_none() {
            self.first = Some(record);
        } else {
            self.more.push(record);
        }
    }
}

/// No room in the shard's budget, however much it evicts: the entry needs this much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

pub(super) struct Shard {
    directory: Directory<Box<dyn EvictionPolicy>>,
    records: Vec<Option<Record>>,
    expiry: ExpiryWheel,
    pub(super) counters: Counters,
}

/// Bytes that a resident entry costs in a shard beside its record and the policy's metadata: the
/// slab's cell, the directory's tag, and the index at its average load.
pub(super) const SHARD_BYTES_PER_ENTRY: usize = size_of::<Option<Record>>() + 8 + 8;

impl Shard {
    pub(super) fn new(policy: Box<dyn EvictionPolicy>, budget: Budget, weigh_by: WeighBy) -> Self {
        Self {
            directory: Directory::new(policy, budget, weigh_by),
            records: Vec::new(),
            expiry: ExpiryWheel::default(),
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
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> Option<Value> {
        let Some(slot) = self.find_live(key, now, removed) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        let value = self.record(slot).value();
        let Self { directory, records, expiry, counters } = self;
        directory.hit(slot, |victim| take(victim, records, expiry, &mut counters.evictions, removed));
        Some(value)
    }

    /// Stores the record whatever is there. What a shortage leaves undone has changed nothing.
    pub(super) fn set(
        &mut self,
        write: Write<'_>,
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> Result<(), (Shortage, Record)> {
        match self.find_live(write.key, now, removed) {
            Some(slot) => self.replace(slot, write, removed),
            None => self.insert(write, removed),
        }
    }

    pub(super) fn set_if_absent(
        &mut self,
        write: Write<'_>,
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> Result<SetIfAbsent, (Shortage, Record)> {
        match self.find_live(write.key, now, removed) {
            Some(_) => {
                removed.push(write.record);
                Ok(SetIfAbsent::Exists)
            }
            None => self.insert(write, removed).map(|()| SetIfAbsent::Stored),
        }
    }

    pub(super) fn compare_and_set(
        &mut self,
        expected: &[u8],
        write: Write<'_>,
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> Result<CompareAndSet, (Shortage, Record)> {
        let Some(slot) = self.find_live(write.key, now, removed) else {
            removed.push(write.record);
            return Ok(CompareAndSet::NotFound);
        };
        if self.record(slot).value_bytes() != expected {
            removed.push(write.record);
            return Ok(CompareAndSet::Mismatch);
        }
        self.replace(slot, write, removed).map(|()| CompareAndSet::Stored)
    }

    pub(super) fn delete(
        &mut self,
        key: HashedKey<'_>,
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> bool {
        let Some(slot) = self.find_live(key, now, removed) else {
            return false;
        };
        self.directory.remove(slot);
        self.discard(slot, removed);
        true
    }

    /// Removes expired entries, within the given number of steps. Whether there may be more.
    pub(super) fn sweep(&mut self, now_nanos: u64, steps: &mut usize, removed: &mut Removed) -> bool {
        loop {
            match self.expiry.pop_expired(now_nanos, steps) {
                Expired::Slot(slot) => {
                    self.directory.remove(slot);
                    self.discard(slot, removed);
                    self.counters.expired += 1;
                }
                Expired::OutOfSteps => return true,
                Expired::Nothing => return false,
            }
        }
    }

    /// Evicts one entry for the benefit of another shard. Whether there was one.
    pub(super) fn evict_one(&mut self, removed: &mut Removed) -> bool {
        let Some(victim) = self.directory.evict_one() else {
            return false;
        };
        self.discard(victim, removed);
        self.counters.evictions += 1;
        true
    }

    /// Puts a new, empty directory in place of this one. The old records are the caller's to free.
    pub(super) fn reset(
        &mut self,
        policy: Box<dyn EvictionPolicy>,
        weigh_by: WeighBy,
    ) -> Vec<Option<Record>> {
        self.directory = Directory::new(policy, self.directory.budget(), weigh_by);
        self.expiry = ExpiryWheel::default();
        std::mem::take(&mut self.records)
    }

    pub(super) fn check_invariants(&self) {
        self.directory.check_invariants();
        self.expiry.check_invariants();
        for index in 0..self.directory.slots() {
            let slot = Slot::new(u32::try_from(index).expect("slots are u32"));
            let resident = self.directory.is_resident(slot);
            let record = self.records.get(index).is_some_and(Option::is_some);
            assert_eq!(resident, record, "{slot:?}: resident entries have a record, others none");
            assert!(
                resident || self.expiry.deadline_nanos(slot).is_none(),
                "{slot:?}: only residents expire"
            );
        }
    }

    /// The slot of a live entry. An expired one is removed on the way, which is the only case in
    /// which the clock is read.
    fn find_live(
        &mut self,
        key: HashedKey<'_>,
        now: impl FnOnce() -> u64,
        removed: &mut Removed,
    ) -> Option<Slot> {
        let slot = self.directory.find(key.hash, |slot| self.record(slot).holds(&key.key))?;
        let expired = self.expiry.deadline_nanos(slot).is_some_and(|deadline| deadline <= now());
        if !expired {
            return Some(slot);
        }
        self.directory.remove(slot);
        self.discard(slot, removed);
        self.counters.expired += 1;
        None
    }

    fn insert(&mut self, write: Write<'_>, removed: &mut Removed) -> Result<(), (Shortage, Record)> {
        let Self { directory, records, expiry, counters } = self;
        let newcomer =
            Newcomer { hash: write.key.hash, fingerprint: write.key.key.fingerprint(), charge: write.charge };
        let insertion = directory
            .insert(newcomer, |victim| take(victim, records, expiry, &mut counters.evictions, removed));
        match insertion {
            Insertion::Inserted(slot) => {
                if slot.index() >= records.len() {
                    records.resize_with(slot.index() + 1, || None);
                }
                records[slot.index()] = Some(write.record);
                self.set_deadline(slot, write.deadline_nanos);
                Ok(())
            }
            Insertion::Rejected => {
                counters.rejected_admission += 1;
                removed.push(write.record);
                Ok(())
            }
            Insertion::TooLarge => Err((self.shortage(1, write.charge), write.record)),
        }
    }

    fn replace(
        &mut self,
        slot: Slot,
        write: Write<'_>,
        removed: &mut Removed,
    ) -> Result<(), (Shortage, Record)> {
        let Self { directory, records, expiry, counters } = self;
        let update = directory.update(slot, write.key.key.fingerprint(), write.charge, |victim| {
            take(victim, records, expiry, &mut counters.evictions, removed);
        });
        match update {
            Update::Kept => {
                if let Some(old) = records[slot.index()].replace(write.record) {
                    removed.push(old);
                }
                self.set_deadline(slot, write.deadline_nanos);
                Ok(())
            }
            Update::Rejected => {
                counters.rejected_admission += 1;
                self.discard(slot, removed);
                removed.push(write.record);
                Ok(())
            }
            Update::TooLarge => Err((self.shortage(0, write.charge), write.record)),
        }
    }

    /// What the budget lacks for an entry of this charge even if everything else goes.
    fn shortage(&self, items: u64, charge: u32) -> Shortage {
        let budget = self.directory.budget();
        Shortage {
            items: items.saturating_sub(budget.items),
            bytes: u64::from(charge).saturating_sub(budget.bytes),
        }
    }

    fn set_deadline(&mut self, slot: Slot, deadline_nanos: Option<u64>) {
        match deadline_nanos {
            Some(deadline) => self.expiry.insert(slot, deadline),
            None => self.expiry.remove(slot),
        }
    }

    fn record(&self, slot: Slot) -> &Record {
        self.records[slot.index()].as_ref().expect("a resident slot has a record")
    }

    fn discard(&mut self, slot: Slot, removed: &mut Removed) {
        self.expiry.remove(slot);
        if let Some(record) = self.records[slot.index()].take() {
            removed.push(record);
        }
    }
}

/// Takes out the record of a slot that the directory has evicted.
fn take(
    victim: Slot,
    records: &mut [Option<Record>],
    expiry: &mut ExpiryWheel,
    evictions: &mut u64,
    removed: &mut Removed,
) {
    *evictions += 1;
    expiry.remove(victim);
    if let Some(record) = records[victim.index()].take() {
        removed.push(record);
    }
}
