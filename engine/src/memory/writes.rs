//! Writes: copied, measured and dated before a lock is taken, and run under as many holds of it as they need.

use crate::directory::Interrupted;
use crate::store::{CompareAndSet, Entry, StoreError};
use crate::sync::Ordering;

use super::pool::Credit;
use super::records::NewRecord;
use super::resize::PAUSE;
use super::shard::{Compared, HashedKey, Removed, Shard, Undone, Write};
use super::{MemoryStore, nanos};

impl MemoryStore {
    /// Refuses a value that is larger than any may be.
    #[inline]
    fn check_size(&self, value: &[u8]) -> Result<(), StoreError> {
        let (size, limit) = (value.len() as u64, self.limits.max_value_bytes());
        if size > limit {
            self.rejected_oversize.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::ValueTooLarge { size, limit });
        }
        Ok(())
    }

    /// Copies and measures an entry of [permitted size](Self::check_size), of whose key this is the hash, before any lock is taken.
    #[inline]
    fn write<'a>(&self, entry: &'a Entry<'a>, hash: u64) -> Write<'a> {
        let deadline_nanos = entry.ttl.map(|ttl| self.now_nanos().saturating_add(nanos(ttl)));
        let record = NewRecord::new(&entry.key, entry.value, deadline_nanos);
        let charge = self.bytes_per_entry + record.charge();
        Write {
            key: HashedKey { key: &entry.key, hash },
            record,
            fingerprint: self.fingerprint(&entry.key),
            charge: u32::try_from(charge).expect("limits::possible keeps charges below 4 GiB"),
            interrupted: Interrupted::default(),
        }
    }

    /// Runs a write on its shard, which the hash of its key tells.
    #[inline]
    pub(super) fn run_write<'a, T>(
        &self,
        entry: &'a Entry<'a>,
        hash: u64,
        operation: impl FnMut(&mut Shard, &mut Write<'a>, &mut Removed) -> Result<T, Undone>,
    ) -> Result<T, StoreError> {
        self.check_size(entry.value)?;
        self.run(&mut self.write(entry, hash), operation)
    }

    /// Runs a write on its shard, lending room as it needs. Nearly always one hold of the lock is enough.
    #[inline]
    fn run<'a, T>(
        &self,
        write: &mut Write<'a>,
        mut operation: impl FnMut(&mut Shard, &mut Write<'a>, &mut Removed) -> Result<T, Undone>,
    ) -> Result<T, StoreError> {
        self.check_charge(write.charge)?;
        let index = self.shard_of(write.key.hash);
        let mut removed = Removed::default();
        let mut shard = self.lock(index);
        self.top_up(&mut shard, write);
        match operation(&mut shard, write, &mut removed) {
            Ok(done) => {
                self.settle(&mut shard);
                shard.release();
                Ok(done)
            }
            // What the shard was lent so far stays there for the next attempt.
            Err(undone) => {
                drop(shard);
                drop(removed);
                self.run_on(index, write, undone, &mut operation)
            }
        }
    }

    /// Goes on with a write for which one hold of the lock was not enough, reclaiming room as it needs. Where more entries have
    /// to leave than may under one hold, others have their turn in between, and the room that is made is put
    /// aside: whoever else writes meanwhile makes room of their own.
    #[cold]
    #[inline(never)]
    fn run_on<'a, T>(
        &self,
        index: usize,
        write: &mut Write<'a>,
        mut undone: Undone,
        operation: &mut dyn FnMut(&mut Shard, &mut Write<'a>, &mut Removed) -> Result<T, Undone>,
    ) -> Result<T, StoreError> {
        let charge = write.charge;
        let mut reclaiming = None;
        // Room put aside, or taken from other shards, for this write alone.
        let mut credit = Credit::none(&self.pool);
        loop {
            let was_alone = reclaiming.is_some();
            if undone != Undone::Seeking && !was_alone {
                // One at a time, or two could each hold half of what either needs.
                reclaiming = Some(self.turn(&self.reclaiming));
            }
            match undone {
                Undone::Interrupted | Undone::Seeking => self.pause(PAUSE),
                Undone::Shortage(shortage) if self.shards.len() > 1 => {
                    credit = self.block(|| self.reclaim(index, shortage));
                }
                Undone::Shortage(_) if was_alone => return Err(self.exhausted(charge)),
                // Somebody may have had room put aside.
                Undone::Shortage(_) => {}
            }
            // Asked each time: the limit may have been lowered since.
            self.check_charge(charge)?;
            let mut removed = Removed::default();
            let mut shard = self.lock(index);
            shard.add_to_budget(credit.spend());
            self.top_up(&mut shard, write);
            undone = match operation(&mut shard, write, &mut removed) {
                Ok(done) => {
                    self.settle(&mut shard);
                    drop(shard);
                    return Ok(done);
                }
                Err(undone) => undone,
            };
            if undone == Undone::Interrupted && reclaiming.is_some() {
                credit.budget.bytes = Self::put_aside(&mut shard, charge);
            }
            drop(shard);
            drop(removed);
        }
    }

    /// Refuses what is larger than everything may be.
    #[inline]
    fn check_charge(&self, charge: u32) -> Result<(), StoreError> {
        if u64::from(charge) > self.limits.max_memory_bytes() { Err(self.exhausted(charge)) } else { Ok(()) }
    }

    /// Stores an entry whatever is there.
    #[inline]
    pub(super) fn store<'a>(&self, entry: &'a Entry<'a>, hash: u64) -> Result<(), StoreError> {
        self.run_write(entry, hash, |shard, write, removed| shard.set(write, || self.now_nanos(), removed))
    }

    /// Stores an entry where the expected value is there. A large one is compared while nobody waits for the lock. If another is
    /// there afterwards, somebody else has stored it meanwhile, and it is looked at anew.
    pub(super) fn compare<'a>(
        &self,
        expected: &[u8],
        entry: &'a Entry<'a>,
        hash: u64,
    ) -> Result<CompareAndSet, StoreError> {
        self.check_size(entry.value)?;
        let write = &mut self.write(entry, hash);
        let mut equal = None;
        loop {
            let compared = self.run(write, |shard, write, removed| {
                shard.compare_and_set(expected, equal.as_ref(), write, || self.now_nanos(), removed)
            })?;
            match compared {
                Compared::Done(outcome) => return Ok(outcome),
                // It was there, whatever is now.
                Compared::Later(value) if value != expected => return Ok(CompareAndSet::Mismatch),
                Compared::Later(value) => equal = Some(value),
            }
        }
    }

    #[cold]
    fn exhausted(&self, charge: u32) -> StoreError {
        self.rejected_capacity.fetch_add(1, Ordering::Relaxed);
        StoreError::CapacityExhausted { needed: charge.into(), limit: self.limits.max_memory_bytes() }
    }
}
