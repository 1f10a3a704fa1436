//! One shard: a directory plus records and deadlines, used under its lock.

mod dense;
mod hits;
mod residents;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::directory::{Budget, Directory, Insertion, Interrupted, Newcomer, Update, WeighBy};
use crate::expiry::{Expired, ExpiryWheel};
use crate::policy::{EvictionPolicy, Slot};
use crate::store::{CompareAndSet, Counters, EvictionSample, SetIfAbsent};
use crate::value::Value;

use super::ages::Ages;
use super::records::{self, NewRecord, Records};

pub(super) use super::records::HashedKey;

pub(super) use self::dense::Shrink;
use self::hits::Hits;
use self::residents::{Evicting, Residents};

/// A record ready to be stored: measured, dated, and copied if it is large, before the lock is taken.
pub(super) struct Write<'a> {
    pub(super) key: HashedKey<'a>,
    pub(super) record: NewRecord<'a>,
    pub(super) charge: u32,
    /// What the policy knows the key by; 0 where it looks at none.
    pub(super) fingerprint: u64,
    pub(super) interrupted: Interrupted,
}

/// Values that were removed under the lock, to be freed after it is released: only large ones have
/// anything to free.
#[derive(Default)]
pub(super) struct Removed(Option<Vec<Bytes>>);

impl Removed {
    pub(super) fn push(&mut self, value: Bytes) {
        self.0.get_or_insert_default().push(value);
    }
}

/// No room in the shard's budget, however much it evicts: the entry needs this much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

/// Why a write has not been done. It has changed nothing but for evictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// To be tried again when there is room.
    Shortage(Shortage),
    /// More entries have to leave than may under one hold of the lock. To be tried again once others have had their turn.
    Interrupted,
    /// Nobody has left yet: more entries have to be looked at than may under one hold. To be tried again, too.
    Seeking,
}

/// What became of an eviction for nobody in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soon {
    Evicted,
    /// Not yet: the policy has to look at more entries.
    Sought,
    /// Nobody is there, or nobody is given up.
    Nobody,
}

/// What a read has left to be done, which may remove entries and is rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Done,
    /// The entry that was found has expired.
    Expired(Slot),
    /// The policy is still to be told, since it may let others go because of that.
    Hit(Slot),
}

/// What became of a comparison.
pub(super) enum Compared {
    Done(CompareAndSet),
    /// A large value is there: to be compared without the lock. If it is the expected one, the caller comes back with it.
    Later(Bytes),
}

/// In this order, since it lies behind its lock: what a read writes to, and then the rest. Each line of memory that is written
/// to has to come from the processor which used the shard before.
#[repr(C)]
pub(super) struct Shard {
    next_victim: NextVictim,
    hits: Hits,
    /// Without the hits that the policy has not been told yet.
    counters: Counters,
    directory: Directory<Box<dyn EvictionPolicy>>,
    entries: Residents,
    /// Slots that may be unused, beside a quarter of those in use.
    spare_slots: usize,
}

/// Who would probably be evicted next, and how much of what its eviction will read has been asked for. Each is found
/// by way of the one before, so it is asked for when the shard is used the next time, and nobody waits for it.
#[derive(Clone, Copy)]
enum NextVictim {
    Unknown,
    /// Where its record lies has been asked for.
    Named(Slot),
    /// So has the record.
    Read(Slot),
    /// So has the place in the index that its hash leads to. Forgotten before anybody else moves into a slot.
    Indexed(Slot, u64),
}

impl NextVictim {
    /// The hash of this slot's key, if it is known.
    fn hash_of(self, slot: Slot) -> Option<u64> {
        match self {
            Self::Indexed(next, hash) if next == slot => Some(hash),
            _ => None,
        }
    }
}

/// Bytes that a resident entry costs in a shard beside its record and the policy's metadata.
pub(super) const SHARD_BYTES_PER_ENTRY: usize = records::SHARE_OF_INDEX;

impl Shard {
    pub(super) fn new(
        policy: Box<dyn EvictionPolicy>,
        budget: Budget,
        weigh_by: WeighBy,
        records: Records,
        bytes_per_entry: usize,
        spare_slots: usize,
    ) -> Self {
        Self {
            directory: Directory::new(policy, budget, weigh_by),
            entries: Residents {
                records,
                expiry: ExpiryWheel::default(),
                ages: Ages::default(),
                bytes_per_entry,
                bytes_per_slot: bytes_per_entry - SHARD_BYTES_PER_ENTRY + records::BYTES_PER_ENTRY,
            },
            hits: Hits::default(),
            spare_slots,
            next_victim: NextVictim::Unknown,
            counters: Counters::default(),
        }
    }

    /// What has happened so far.
    pub(super) const fn counters(&self) -> Counters {
        Counters { hits: self.counters.hits + self.hits.len() as u64, ..self.counters }
    }

    pub(super) const fn directory(&self) -> &Directory<Box<dyn EvictionPolicy>> {
        &self.directory
    }

    pub(super) fn set_budget(&mut self, budget: Budget) {
        self.directory.set_budget(budget);
    }

    #[inline]
    pub(super) const fn add_to_budget(&mut self, more: Budget) {
        let Budget { items, bytes } = self.directory.budget();
        self.directory
            .set_budget(Budget { items: items.saturating_add(more.items), bytes: bytes + more.bytes });
    }

    pub(super) fn set_policy_capacity(&mut self, capacity: u64) {
        self.tell_hits();
        self.directory.set_policy_capacity(capacity);
    }

    /// Asks for the record that is probably under this hash, and for a little more of what the next eviction will read.
    pub(super) fn prefetch(&mut self, hash: u64) {
        self.prefetch_victim();
        self.entries.records.prefetch_under(hash);
    }

    /// Asks for what the policy will look at before it lets somebody in, where that is in no near cache.
    #[inline]
    pub(super) fn prefetch_for(&self, fingerprint: u64) {
        if self.directory.is_large() && !self.directory.ignores_fingerprints() {
            self.directory.approach_newcomer(fingerprint);
        }
    }

    /// Reads a key's live value, if there is one, to where it is wanted.
    pub(super) fn get(
        &mut self,
        key: HashedKey<'_>,
        now: impl Fn() -> u64 + Copy,
        value: &mut Option<Value>,
    ) -> Read {
        self.prefetch_victim();
        // What the hit before this one will look at, and not this one's own once it has hit: here the index is waited for anyway.
        if self.directory.is_large()
            && let Some(slot) = self.hits.last()
        {
            self.directory.approach(slot);
        }
        let records = &self.entries.records;
        let Some(found) = records.find(key) else {
            self.counters.misses += 1;
            return Read::Done;
        };
        let slot = found.slot();
        if found.deadline_nanos().is_some_and(|deadline| deadline <= now()) {
            self.counters.misses += 1;
            return Read::Expired(slot);
        }
        records.read_value(&found, value);
        if self.entries.ages.samples(key.hash) {
            self.entries.ages.used(slot, now());
        }
        if self.directory.sheds_on_hit() {
            self.counters.hits += 1;
            return Read::Hit(slot);
        }
        if !self.hits.push(slot) {
            self.tell_hits();
            self.hits.push(slot);
        }
        Read::Done
    }

    /// Does what a read has left to be done under the same hold.
    #[cold]
    #[inline(never)]
    pub(super) fn finish(&mut self, read: Read, now: impl Fn() -> u64, removed: &mut Removed) {
        match read {
            Read::Done => {}
            Read::Expired(slot) => self.expire(slot, removed),
            Read::Hit(slot) => {
                let (directory, mut entries) = self.evicting(now, removed);
                directory.hit(slot, &mut entries);
            }
        }
    }

    /// Stores the record whatever is there.
    pub(super) fn set(
        &mut self,
        write: &mut Write<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Undone> {
        match self.find_live(write.key, now, removed) {
            Some(slot) => self.replace(slot, write, now, removed),
            None => self.insert(write, now, removed),
        }
    }

    pub(super) fn set_if_absent(
        &mut self,
        write: &mut Write<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<SetIfAbsent, Undone> {
        match self.find_live(write.key, now, removed) {
            Some(_) => Ok(SetIfAbsent::Exists),
            None => self.insert(write, now, removed).map(|()| SetIfAbsent::Stored),
        }
    }

    /// Stores the record where the value that is there is the expected one. Of a large value that is told by the caller: `equal`
    /// is one that was found to be.
    pub(super) fn compare_and_set(
        &mut self,
        expected: &[u8],
        equal: Option<&Bytes>,
        write: &mut Write<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<Compared, Undone> {
        let Some(slot) = self.find_live(write.key, now, removed) else {
            return Ok(Compared::Done(CompareAndSet::NotFound));
        };
        let mapped = self.entries.records.mapped_value(slot);
        if let Some(value) = mapped.filter(|value| value.len() == expected.len()) {
            // Nobody else has that place while there is a handle on it, so it is the very same value.
            if equal.is_none_or(|equal| equal.as_ptr() != value.as_ptr()) {
                return Ok(Compared::Later(value.clone()));
            }
        } else if !self.entries.records.value_is(slot, expected) {
            return Ok(Compared::Done(CompareAndSet::Mismatch));
        }
        self.replace(slot, write, now, removed).map(|()| Compared::Done(CompareAndSet::Stored))
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
        self.discard(slot, removed);
        self.counters.deleted += 1;
        true
    }

    /// Removes expired entries, within the given number of steps. Whether there may be more.
    pub(super) fn sweep(&mut self, now_nanos: u64, steps: &mut usize, removed: &mut Removed) -> bool {
        loop {
            let Residents { records, expiry, .. } = &mut self.entries;
            let deadline = |slot| records.deadline_nanos(slot).expect("what is on the wheel has a deadline");
            match expiry.pop_expired(now_nanos, steps, deadline) {
                Expired::Slot(slot) => {
                    self.tell_hits();
                    self.entries.ages.removed(slot);
                    self.directory.remove(slot, &&self.entries);
                    // It is off the wheel already.
                    self.entries.records.remove(slot, None, |value| removed.push(value));
                    self.recount();
                    self.counters.expired += 1;
                    self.counters.swept += 1;
                    self.condense(1);
                }
                Expired::OutOfSteps => return true,
                Expired::Nothing => return false,
            }
        }
    }

    /// Evicts one entry, though none is coming in, or takes a step towards it.
    pub(super) fn evict_one(&mut self, now: impl Fn() -> u64, removed: &mut Removed) -> Soon {
        let came_to = self.evict_soon(now, removed);
        self.condense(1);
        came_to
    }

    fn evict_soon(&mut self, now: impl Fn() -> u64, removed: &mut Removed) -> Soon {
        self.tell_hits();
        if self.directory.seek_one() {
            Soon::Sought
        } else if self.evict_anyone(now, removed) {
            Soon::Evicted
        } else {
            Soon::Nobody
        }
    }

    fn evict_anyone(&mut self, now: impl Fn() -> u64, removed: &mut Removed) -> bool {
        let (directory, mut entries) = self.evicting(now, removed);
        directory.evict_one(&mut entries).is_some()
    }

    /// An empty shard in place of this one, with the same budget and counters. The old one is the caller's to free.
    pub(super) fn reset(&mut self, policy: Box<dyn EvictionPolicy>, weigh_by: WeighBy) -> Self {
        let (budget, bytes_per_entry) = (self.directory.budget(), self.entries.bytes_per_entry);
        let records = self.entries.records.successor();
        let fresh = Self::new(policy, budget, weigh_by, records, bytes_per_entry, self.spare_slots);
        let mut old = std::mem::replace(self, fresh);
        self.counters = old.counters();
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
        if let NextVictim::Indexed(slot, hash) = self.next_victim
            && records.is_stored(slot)
        {
            assert_eq!(records.hash(slot), hash, "the next victim's hash is its own");
        }
        let stored =
            (0..).take(self.directory.slots()).map(Slot::new).filter(|&slot| records.is_stored(slot));
        assert_eq!(stored.count() as u64, self.directory.items(), "residents have a record, others none");
        let resident: Vec<Slot> = self.directory.resident().collect();
        assert!(resident.iter().all(|&slot| records.is_stored(slot)), "residents have a record");
        let mortal = resident.iter().filter(|&&slot| records.deadline_nanos(slot).is_some()).count();
        assert_eq!(mortal, expiry.len(), "who has a deadline is on the wheel");
        let links = mortal + self.directory.unused_slots();
        let links = links as u64 + self.entries.idle_links(self.directory.items());
        let partly = ExpiryWheel::most_more_slots() as u64;
        assert!(expiry.slots() as u64 <= links + partly, "links on the wheel are charged, but for a few");
    }

    /// The slot of a live entry. An expired one is removed on the way, which is the only case in
    /// which the clock is read.
    fn find_live(
        &mut self,
        key: HashedKey<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Option<Slot> {
        // Whoever writes may evict before anything else that is asked for now could be here.
        if let NextVictim::Named(_) = self.next_victim {
            self.prefetch_more();
        }
        let records = &self.entries.records;
        let found = records.find(key)?;
        let slot = found.slot();
        if found.deadline_nanos().is_none_or(|deadline| deadline > now()) {
            return Some(slot);
        }
        self.expire(slot, removed);
        None
    }

    #[cold]
    fn expire(&mut self, slot: Slot, removed: &mut Removed) {
        self.discard(slot, removed);
        self.counters.expired += 1;
    }

    fn insert(
        &mut self,
        write: &mut Write<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Undone> {
        let newcomer = Newcomer { fingerprint: write.fingerprint, charge: write.charge };
        let evicted_before = self.counters.evictions;
        let bounds = self.bounds();
        let (directory, mut entries) = self.evicting(now, removed);
        let Some(insertion) = directory.insert_within(bounds, newcomer, &mut write.interrupted, &mut entries)
        else {
            return Err(self.interrupted(evicted_before, write));
        };
        match insertion {
            Insertion::Inserted(slot) => {
                self.store(slot, write, now);
                let evicted = self.counters.evictions - evicted_before;
                if evicted > 1 || self.directory.has_unused() {
                    self.fit(evicted, now, removed);
                }
                self.name_next_victim();
            }
            Insertion::Rejected => {
                self.counters.rejected_admission += 1;
                self.condense(self.counters.evictions - evicted_before);
            }
            Insertion::TooLarge => return Err(Undone::Shortage(self.shortage(1, write.charge))),
        }
        Ok(())
    }

    fn replace(
        &mut self,
        slot: Slot,
        write: &mut Write<'_>,
        now: impl Fn() -> u64 + Copy,
        removed: &mut Removed,
    ) -> Result<(), Undone> {
        let evicted_before = self.counters.evictions;
        let bounds = self.bounds();
        let (directory, mut entries) = self.evicting(now, removed);
        let interrupted = &mut write.interrupted;
        let update =
            directory.update_within(bounds, slot, write.fingerprint, write.charge, interrupted, &mut entries);
        let Some(update) = update else {
            return Err(self.interrupted(evicted_before, write));
        };
        match update {
            Update::Kept => {
                self.counters.replaced += 1;
                self.overwrite(slot, write, now, removed);
                let evicted = self.counters.evictions - evicted_before;
                if evicted > 0 || self.directory.has_unused() {
                    self.fit(evicted, now, removed);
                }
            }
            Update::Rejected => {
                self.counters.replaced += 1;
                self.counters.rejected_admission += 1;
                self.entries.remove(slot, removed);
                self.recount();
                self.condense(1 + self.counters.evictions - evicted_before);
            }
            Update::TooLarge => return Err(Undone::Shortage(self.shortage(0, write.charge))),
        }
        Ok(())
    }

    /// After a write was interrupted: slots that it has left unused give way to it.
    #[cold]
    fn interrupted(&mut self, evicted_before: u64, write: &Write<'_>) -> Undone {
        let evicted = self.counters.evictions - evicted_before;
        self.make_dense(evicted, write.charge.into());
        if evicted == 0 && !self.directory.has_unused() { Undone::Seeking } else { Undone::Interrupted }
    }

    fn store(&mut self, slot: Slot, write: &mut Write<'_>, now: impl Fn() -> u64) {
        // It may have been this slot's last entry.
        self.next_victim = NextVictim::Unknown;
        if self.entries.insert(slot, write.key, &mut write.record, now) {
            self.directory.count_unused(&&self.entries);
        }
        self.recount();
    }

    fn overwrite(&mut self, slot: Slot, write: &mut Write<'_>, now: impl Fn() -> u64, removed: &mut Removed) {
        self.entries.replace(slot, write.key, &mut write.record, now, removed);
        self.recount();
    }

    /// What a write can cost at the most beside its charge and what the index grows by: links on the wheel that are no deadline's.
    #[inline]
    pub(super) fn most_beside(&self, write: &Write<'_>) -> u64 {
        let deadlines = self.entries.expiry.len() as u64;
        let links = if write.record.deadline_nanos().is_none() {
            deadlines.min(1)
        } else {
            // From the first deadline on, unused slots are charged a link as well.
            let unused = if deadlines == 0 { self.directory.unused_slots() as u64 } else { 0 };
            unused + (self.directory.items() + 1 - deadlines).min(ExpiryWheel::most_more_slots() as u64)
        };
        links * ExpiryWheel::bytes_per_deadline() as u64
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
    fn discard(&mut self, slot: Slot, removed: &mut Removed) {
        self.tell_hits();
        self.directory.remove(slot, &&self.entries);
        self.entries.remove(slot, removed);
        self.recount();
        self.condense(1);
    }

    fn name_next_victim(&mut self) {
        if let Some(next) = self.directory.next_victim() {
            self.entries.records.prefetch_location(next);
            self.next_victim = NextVictim::Named(next);
        }
    }

    /// Asks for a little more of what the next eviction will read.
    #[inline]
    fn prefetch_victim(&mut self) {
        if let NextVictim::Named(_) | NextVictim::Read(_) = self.next_victim {
            self.prefetch_more();
        }
    }

    #[inline(never)]
    fn prefetch_more(&mut self) {
        let records = &self.entries.records;
        self.next_victim = match self.next_victim {
            NextVictim::Named(next) => {
                records.prefetch(next);
                NextVictim::Read(next)
            }
            NextVictim::Read(next) => records
                .prefetch_bucket(next)
                .map_or(NextVictim::Unknown, |hash| NextVictim::Indexed(next, hash)),
            far_enough => far_enough,
        };
    }

    fn tell_hits(&mut self) {
        let slots = self.hits.take();
        if !slots.is_empty() {
            self.counters.hits += slots.len() as u64;
            self.directory.hit_all(slots);
        }
    }

    /// The directory and the entries, for what may evict some.
    fn evicting<'a, N: Fn() -> u64>(
        &'a mut self,
        now: N,
        removed: &'a mut Removed,
    ) -> (&'a mut Directory<Box<dyn EvictionPolicy>>, Evicting<'a, N>) {
        self.tell_hits();
        let entries = Evicting {
            residents: &mut self.entries,
            evictions: &mut self.counters.evictions,
            next_victim: self.next_victim,
            now,
            removed,
        };
        (&mut self.directory, entries)
    }
}
