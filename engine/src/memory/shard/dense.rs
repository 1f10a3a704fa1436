//! Slots that lie side by side: where entries have left, those that stay are given the slots that are unused, a few at a
//! time, so that what is kept by slot can be given back.

use crate::directory::{Bounds, Budget, Entries};

use super::super::resize::STEPS_PER_HOLD;
use super::{NextVictim, Removed, Shard, Soon};

/// What a step of [`Shard::shrink`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::memory) enum Shrink {
    Evicted,
    /// Who goes next is being looked for.
    Sought,
    /// An entry has another slot.
    Moved,
    Fits,
    /// The policy gives no entry up.
    Stuck,
}
/// Entries that are given other slots at the most for each that leaves, where too many slots are unused.
const MOVES_PER_REMOVAL: u64 = 2;
/// And so many more at the most for a write that there would be no room for with slots unused.
const MOVES_PER_WRITE: u64 = 1024;
impl Shard {
    /// A step towards a smaller budget: first entries leave, then those that stay are given the slots that are unused.
    pub(in crate::memory) fn shrink(
        &mut self,
        to: Budget,
        now: impl Fn() -> u64,
        removed: &mut Removed,
    ) -> Shrink {
        let directory = &self.directory;
        if directory.items() > to.items || directory.dense_bytes() > to.bytes {
            match self.evict_soon(now, removed) {
                Soon::Evicted => Shrink::Evicted,
                Soon::Sought => Shrink::Sought,
                Soon::Nobody => Shrink::Stuck,
            }
        } else if (directory.bytes() > to.bytes || self.is_sparse()) && self.relocate_last() {
            Shrink::Moved
        } else {
            self.trim();
            Shrink::Fits
        }
    }

    /// Whether so many slots are unused that those who have the last ones are to have others.
    fn is_sparse(&self) -> bool {
        let unused = self.directory.unused_slots();
        unused > self.spare_slots + (self.directory.slots() - unused) / 4
    }

    /// After entries have left: where far fewer are left than there were, makes the slots that are in use lie side by
    /// side, a few for each that has left, and gives back what is kept for those behind them.
    #[inline]
    pub(super) fn condense(&mut self, removals: u64) {
        if self.is_sparse() {
            self.relocate(MOVES_PER_REMOVAL * removals);
        }
        self.trim();
    }

    #[cold]
    fn relocate(&mut self, most: u64) {
        for _ in 0..most {
            if !self.is_sparse() || !self.relocate_last() {
                return;
            }
        }
    }

    /// Gives the entry with the last slot the lowest unused one. Whether there was one.
    fn relocate_last(&mut self) -> bool {
        // Whoever is still to be told of is known by the old slot.
        self.tell_hits();
        self.next_victim = NextVictim::Unknown;
        let moved = self.directory.relocate_last(&&self.entries);
        if let Some((from, to)) = moved {
            self.entries.relocate(from, to);
            self.recount();
        }
        moved.is_some()
    }

    /// What a write may do under one hold of the lock. With no more bytes over than this, [`Self::fit`] evicts
    /// no more than that either: each eviction is good for more than two unused slots.
    #[inline]
    pub(super) fn bounds(&self) -> Bounds {
        let bytes_over = if self.directory.has_unused() { self.most_bytes_over() } else { u64::MAX };
        Bounds { evictions: STEPS_PER_HOLD, bytes_over }
    }

    #[cold]
    fn most_bytes_over(&self) -> u64 {
        (MOVES_PER_WRITE + 2 * STEPS_PER_HOLD) * Entries::unused_slot_bytes(&&self.entries)
    }

    /// After a write was interrupted that has evicted so many: unused slots give way to it, as far as they are in its way.
    #[cold]
    pub(super) fn make_dense(&mut self, evicted: u64, charge: u64) {
        self.condense(evicted);
        for _ in 0..MOVES_PER_WRITE {
            let is_over = self.directory.bytes() + charge > self.directory.budget().bytes;
            if !is_over || !self.relocate_last() {
                break;
            }
        }
        self.trim();
    }

    /// After a write that has evicted so many, or has found slots unused: these give way to what was written. Each has
    /// been left by somebody, so an entry is not moved more often than entries have left; but they may have left
    /// before. So if it takes too long, others leave instead.
    #[cold]
    pub(super) fn fit(&mut self, evicted: u64, now: impl Fn() -> u64 + Copy, removed: &mut Removed) {
        self.condense(evicted);
        let mut moves = MOVES_PER_WRITE + MOVES_PER_REMOVAL * evicted;
        while self.directory.is_over_budget() {
            if moves > 0 && self.relocate_last() {
                moves -= 1;
            } else if self.evict_anyone(now, removed) {
                moves += MOVES_PER_REMOVAL;
            } else {
                break;
            }
        }
        self.trim();
    }

    /// Gives back what is kept for slots, where far fewer are in use than once were.
    #[inline]
    pub(super) fn trim(&mut self) {
        let slots = self.directory.slots();
        if slots + slots / 4 + self.spare_slots < self.entries.records.slots() {
            self.trim_to(slots);
        }
    }

    #[cold]
    fn trim_to(&mut self, slots: usize) {
        self.next_victim = NextVictim::Unknown;
        self.entries.records.trim(slots);
        self.directory.trim();
        self.entries.expiry.trim(slots);
    }

    /// Charges anew for what is kept for nobody in particular, where there is or was any: after an entry has come, gone or moved,
    /// which the directory has counted before.
    #[inline]
    pub(super) fn recount(&mut self) {
        if self.directory.has_unused() || self.entries.has_excess(self.directory.items()) {
            self.directory.count_unused(&&self.entries);
        }
    }
}
