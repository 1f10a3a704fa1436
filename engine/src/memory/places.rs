//! Where records lie: by key for those who ask, and by slot for the policy's sake, which knows entries as slots.
//!
//! The index tells a record's cell and not its slot, so that finding a key takes two looks at memory: at a bucket and at a
//! cell. A cell tells its slot. Whoever moves a cell has both told.

use crate::cpu::prefetch_one;
use crate::index::{Index, Place, Reader, Signpost};
use crate::key::{HashSeed, Key};
use crate::policy::Slot;
use crate::table::Table;

use super::cells::{Cells, Location};
use super::outside::piece_of;
use super::record::key_in;

impl Place for Location {
    #[inline]
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline]
    fn bits(self) -> u32 {
        self.0
    }
}

/// Where each record lies.
pub(super) struct Places {
    by_key: Index<Location>,
    by_slot: Table<Location>,
    hash_seed: HashSeed,
}

impl Places {
    pub(super) fn new(hash_seed: HashSeed, signpost: Signpost) -> Self {
        Self { by_key: Index::new(signpost), by_slot: Table::default(), hash_seed }
    }

    /// Empty ones that are to take the place of these.
    pub(super) fn successor(&self) -> Self {
        Self::new(self.hash_seed.clone(), self.by_key.signpost().clone())
    }

    /// What the reader finds at the place under this hash at which it finds something.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for the index")]
    pub(super) fn find<R: Reader<Location>>(&self, hash: u64, reader: R) -> Option<R::Found> {
        self.by_key.find(hash, reader)
    }

    /// Where the record of a slot lies that has one.
    #[inline]
    pub(super) fn of(&self, slot: Slot) -> Location {
        self.by_slot[slot.index()]
    }

    /// Where a slot's record lies, if it has one.
    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<Location> {
        self.by_slot.get(slot.index()).copied().filter(|&at| at != Location::NOWHERE)
    }

    /// Asks for what tells where a slot's record lies.
    #[inline]
    pub(super) fn prefetch(&self, slot: Slot) {
        prefetch_one(self.by_slot.get(slot.index()));
    }

    /// Asks for what the index has under a hash.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: u64) {
        self.by_key.prefetch(hash);
    }

    #[inline]
    pub(super) fn hash(&self, key: &Key<'_>) -> u64 {
        self.hash_seed.hash(key)
    }

    /// The hash of the key whose record lies there.
    fn hash_at(&self, at: Location, cells: &Cells) -> u64 {
        self.hash(&key_in(cells.bytes(at)))
    }

    /// There is a record, under this hash, of a slot that has had none. Whether the index had to grow.
    #[inline]
    pub(super) fn enter(&mut self, slot: Slot, hash: u64, at: Location, cells: &Cells) -> bool {
        if slot.index() >= self.by_slot.len() {
            self.extend_to(slot);
        }
        self.by_slot[slot.index()] = at;
        let seed = &self.hash_seed;
        self.by_key.insert(hash, at, |other| seed.hash(&key_in(cells.bytes(other))))
    }

    #[cold]
    fn extend_to(&mut self, slot: Slot) {
        assert!(piece_of(slot.get()).is_none(), "a shard has fewer than 2^31 entries");
        self.by_slot.resize(slot.index() + 1, Location::NOWHERE);
    }

    /// The slot's record, which is under this hash, is about to be taken out.
    #[inline]
    pub(super) fn leave(&mut self, slot: Slot, hash: u64, cells: &Cells) {
        let at = std::mem::replace(&mut self.by_slot[slot.index()], Location::NOWHERE);
        let seed = &self.hash_seed;
        self.by_key.remove(hash, at, |other| seed.hash(&key_in(cells.bytes(other))));
    }

    /// The slot's record, which is under this hash, lies somewhere else from now on.
    #[inline]
    pub(super) fn replace(&mut self, slot: Slot, hash: u64, to: Location) {
        let from = std::mem::replace(&mut self.by_slot[slot.index()], to);
        self.by_key.replace(hash, from, to);
    }

    /// A cell has been moved, with the slot's record in it.
    #[inline(never)]
    pub(super) fn moved(&mut self, slot: u32, to: Location, cells: &Cells) {
        self.replace(Slot::new(slot), self.hash_at(to, cells), to);
    }

    /// A record has another slot from now on, which has had none. Where it lies.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) -> Location {
        let at = std::mem::replace(&mut self.by_slot[from.index()], Location::NOWHERE);
        self.by_slot[to.index()] = at;
        at
    }

    /// Slots that memory is kept for.
    pub(super) fn slots(&self) -> usize {
        self.by_slot.len()
    }

    /// Gives back what is kept for slots from this one on, of which none has a record.
    pub(super) fn trim(&mut self, slots: usize) {
        self.by_slot.trim(slots);
    }

    /// Bytes of the index that so many records do not account for.
    pub(super) const fn excess_bytes(&self, records: u64) -> u64 {
        self.by_key.excess_bytes(records)
    }

    /// Checks that slots and keys lead to the same places.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self, cells: &Cells) {
        self.by_key.check_invariants(|at| self.hash_at(at, cells));
        let stored = self.by_slot.iter().filter(|&&at| at != Location::NOWHERE);
        assert_eq!(self.by_key.len(), stored.count(), "the index has every record");
    }
}
