//! Records: the bytes of entries, by key and by slot.
//!
//! An entry is one cell, which holds its [record](super::record). Only a value too large for a cell lies [`outside`](super::outside).
//! What lies in cells is copied out to readers, so that nothing that a reader holds keeps a cell alive.

use std::sync::Arc;

use bytes::Bytes;

use crate::cpu::prefetch;
use crate::expiry::ExpiryWheel;
use crate::frames::Frames;
use crate::index::{INDEX_BYTES_PER_ENTRY, Reader, Signpost};
use crate::key::{HashSeed, Key};
use crate::policy::Slot;
use crate::value::Value;

use super::cells::{Cells, Location, MAX_CELL_BYTES, cell_bytes};
use super::outside::{NewLarge, Outside, piece_of};
use super::places::Places;
use super::record::{
    Found, HAS_DEADLINE, OUTSIDE, OUTSIDE_BYTES, Record, Stored, before_value, deadline_in, key_at, key_in,
    lengths_of, u32_at, write,
};

/// Bytes that a resident entry costs beside its cell and its share of the index: where the cell is.
pub(super) const BYTES_PER_ENTRY: usize = size_of::<Location>();
/// Bytes that a record costs at the most beside what its value does outside.
pub(super) const MOST_RECORD_BYTES: usize = charge(MAX_CELL_BYTES, true, 0);
/// Bytes of its share of the index.
pub(super) const SHARE_OF_INDEX: usize = INDEX_BYTES_PER_ENTRY;

/// A key with its hash, computed once before the lock is taken.
#[derive(Clone, Copy)]
pub(super) struct HashedKey<'a> {
    pub(super) key: &'a Key<'a>,
    pub(super) hash: u64,
}

/// What is to be stored under a key.
pub(super) struct NewRecord<'a> {
    value: &'a [u8],
    /// A value too large for a cell, until it is stored: the largest are copied before a lock is taken.
    large: Option<Box<NewLarge<'a>>>,
    deadline_nanos: Option<u64>,
    /// Bytes of the cell that are used.
    len: usize,
}

impl<'a> NewRecord<'a> {
    #[inline]
    pub(super) fn new(key: &Key<'_>, value: &'a [u8], deadline_nanos: Option<u64>) -> Self {
        let before_value = before_value(key, deadline_nanos.is_some());
        let len = before_value + value.len();
        if len > MAX_CELL_BYTES {
            let large = Some(Box::new(NewLarge::new(value)));
            return Self { value, large, deadline_nanos, len: before_value + OUTSIDE_BYTES };
        }
        Self { value, large: None, deadline_nanos, len }
    }

    /// What the record will be charged: see [`charge`].
    #[inline]
    pub(super) fn charge(&self) -> usize {
        let outside = self.large.as_ref().map_or(0, |large| large.charge());
        charge(cell_bytes(self.len), self.deadline_nanos.is_some(), outside)
    }

    pub(super) const fn deadline_nanos(&self) -> Option<u64> {
        self.deadline_nanos
    }
}

/// Bytes of memory that a record costs: its cell, its location, its place on the wheel, and what its value
/// costs outside.
const fn charge(cell_bytes: usize, deadline: bool, outside: usize) -> usize {
    let wheel = if deadline { ExpiryWheel::bytes_per_deadline() } else { 0 };
    cell_bytes + BYTES_PER_ENTRY + wheel + outside
}

/// A record that was taken out.
pub(super) struct Taken {
    pub(super) hash: u64,
    pub(super) charge: usize,
    pub(super) has_deadline: bool,
}

/// Reads records that are under a key.
struct UnderKey<'a> {
    cells: &'a Cells,
    key: &'a Key<'a>,
    /// What the key says of them.
    lengths: u32,
}

impl<'a> Reader<Location> for UnderKey<'a> {
    type Found = Found<'a>;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for what it does")]
    fn read(&mut self, at: Location) -> Option<Found<'a>> {
        let (bytes, cell_bytes) = self.cells.from(at);
        // The value is asked for with the key: it is what comes next in most cases.
        prefetch(bytes, cell_bytes);
        Found::under(self.key, self.lengths, bytes)
    }
}

/// Asks for a record, whatever its key.
struct Ahead<'a> {
    cells: &'a Cells,
}

impl Reader<Location> for Ahead<'_> {
    type Found = ();

    #[inline]
    fn read(&mut self, at: Location) -> Option<()> {
        let (bytes, cell_bytes) = self.cells.from(at);
        prefetch(bytes, cell_bytes);
        Some(())
    }
}

/// The records of a shard.
pub(super) struct Records {
    places: Places,
    cells: Cells,
    outside: Outside,
    key_bytes: u64,
    value_bytes: u64,
}

impl Records {
    /// None, whose cells will lie in these frames and which this signpost leads to.
    pub(super) fn new(hash_seed: HashSeed, signpost: Signpost, frames: Arc<Frames>) -> Self {
        Self::of(Places::new(hash_seed, signpost), Cells::new(frames))
    }

    /// None, to take the place of these.
    pub(super) fn successor(&self) -> Self {
        Self::of(self.places.successor(), self.cells.successor())
    }

    fn of(places: Places, cells: Cells) -> Self {
        Self { places, cells, outside: Outside::default(), key_bytes: 0, value_bytes: 0 }
    }

    fn record(&self, slot: Slot) -> Record<'_> {
        Record::read(self.cells.bytes(self.places.of(slot)))
    }

    /// What is under this key.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for the reader")]
    pub(super) fn find<'a>(&'a self, HashedKey { key, hash }: HashedKey<'a>) -> Option<Found<'a>> {
        self.places.find(hash, UnderKey { cells: &self.cells, key, lengths: lengths_of(key) })
    }

    /// Asks for the first record that may be under this hash.
    pub(super) fn prefetch_under(&self, hash: u64) {
        self.places.find(hash, Ahead { cells: &self.cells });
    }

    /// Asks for what tells where a slot's record lies.
    #[inline]
    pub(super) fn prefetch_location(&self, slot: Slot) {
        self.places.prefetch(slot);
    }

    /// Asks for the memory of a slot's record, if it has one.
    #[inline]
    pub(super) fn prefetch(&self, slot: Slot) {
        if let Some(at) = self.places.get(slot) {
            let (bytes, cell_bytes) = self.cells.from(at);
            prefetch(bytes, cell_bytes);
        }
    }

    /// Asks for where the index has a slot's record, if it has one. The hash of its key.
    pub(super) fn prefetch_bucket(&self, slot: Slot) -> Option<u64> {
        let hash = self.places.hash(&key_in(self.cells.bytes(self.places.get(slot)?)));
        self.places.prefetch_bucket(hash);
        Some(hash)
    }

    pub(super) fn hash(&self, slot: Slot) -> u64 {
        self.places.hash(&self.record(slot).key)
    }

    pub(super) fn charge(&self, slot: Slot) -> usize {
        self.charge_of(&self.record(slot))
    }

    fn charge_of(&self, record: &Record<'_>) -> usize {
        let outside = match record.value {
            Stored::Inside(_) => 0,
            Stored::Outside(number) => self.outside.charge(number as usize),
        };
        charge(cell_bytes(record.len), record.deadline_nanos.is_some(), outside)
    }

    pub(super) fn deadline_nanos(&self, slot: Slot) -> Option<u64> {
        deadline_in(self.cells.bytes(self.places.of(slot)))
    }

    /// Reads the value that was found to where its reader will find it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for finding it: a call costs a fifth of what is done in it")]
    pub(super) fn read_value(&self, found: &Found<'_>, into: &mut Option<Value>) {
        match found.value() {
            (OUTSIDE, number) => *into = Some(self.outside_value(number)),
            (len, from) => Value::read(len as usize, from, into),
        }
    }

    #[inline(never)]
    fn outside_value(&self, number: &[u8]) -> Value {
        self.outside.value(u32_at(number, 0) as usize, &self.cells)
    }

    /// A slot's value, where it is so large that it has a mapping of its own.
    pub(super) fn mapped_value(&self, slot: Slot) -> Option<&Bytes> {
        match self.record(slot).value {
            Stored::Inside(_) => None,
            Stored::Outside(number) => self.outside.mapped(number as usize),
        }
    }

    pub(super) fn value_is(&self, slot: Slot, expected: &[u8]) -> bool {
        match self.record(slot).value {
            Stored::Inside(value) => value == expected,
            Stored::Outside(number) => self.outside.value_is(number as usize, expected, &self.cells),
        }
    }

    /// Stores a record in a slot that has none, under a key that has none. Whether the index had to grow.
    pub(super) fn insert(
        &mut self,
        slot: Slot,
        HashedKey { key, hash }: HashedKey<'_>,
        new: &mut NewRecord<'_>,
    ) -> bool {
        let at = self.cells.insert(new.len);
        self.key_bytes += key.len() as u64;
        self.write(at, slot, key, new);
        self.places.enter(slot, hash, at, &self.cells)
    }

    /// Writes a record into a cell that it fits.
    #[inline]
    fn write(&mut self, at: Location, slot: Slot, key: &Key<'_>, new: &mut NewRecord<'_>) {
        let NewRecord { value, deadline_nanos, .. } = *new;
        self.value_bytes += value.len() as u64;
        let value = match new.large.take() {
            Some(large) => Stored::Outside(self.outside.insert(*large, &mut self.cells)),
            None => Stored::Inside(value),
        };
        write(self.cells.bytes_mut(at), slot, key, deadline_nanos, &value);
    }

    /// Takes a slot's record out, and says what it was. The hash of its key is computed where it is not known. What is to be freed
    /// is for later, and for the caller.
    #[inline]
    pub(super) fn remove(&mut self, slot: Slot, hash: Option<u64>, free_later: impl FnOnce(Bytes)) -> Taken {
        let at = self.places.of(slot);
        let (bytes, cell_bytes) = self.cells.from(at);
        let lengths = u32_at(bytes, 4);
        let (key, value) = key_at(bytes, lengths);
        debug_assert!(hash.is_none_or(|hash| hash == self.places.hash(&key)), "the hash of another key");
        let hash = hash.unwrap_or_else(|| self.places.hash(&key));
        self.key_bytes -= key.len() as u64;
        let has_deadline = lengths & HAS_DEADLINE != 0;
        let mut charge = charge(cell_bytes, has_deadline, 0);
        self.places.leave(slot, hash, &self.cells);
        match lengths & OUTSIDE {
            OUTSIDE => {
                let number = u32_at(bytes, value) as usize;
                charge += self.outside.charge(number);
                self.remove_cell(at);
                self.remove_outside(number, free_later);
            }
            len => {
                self.value_bytes -= u64::from(len);
                self.remove_cell(at);
            }
        }
        Taken { hash, charge, has_deadline }
    }

    /// Puts another record under a key in the place of its former one. Whether that had a deadline.
    pub(super) fn replace(
        &mut self,
        slot: Slot,
        HashedKey { key, hash }: HashedKey<'_>,
        new: &mut NewRecord<'_>,
        free_later: impl FnOnce(Bytes),
    ) -> bool {
        let at = self.places.of(slot);
        let bytes = self.cells.bytes(at);
        let lengths = u32_at(bytes, 4);
        let outside = match lengths & OUTSIDE {
            OUTSIDE => Some(u32_at(bytes, key_at(bytes, lengths).1) as usize),
            len => {
                self.value_bytes -= u64::from(len);
                None
            }
        };
        if self.cells.fits(at, new.len) {
            self.write(at, slot, key, new);
        } else {
            let to = self.cells.insert(new.len);
            self.write(to, slot, key, new);
            self.places.replace(slot, hash, to);
            self.remove_cell(at);
        }
        if let Some(number) = outside {
            self.remove_outside(number, free_later);
        }
        lengths & HAS_DEADLINE != 0
    }

    #[inline(never)]
    fn remove_outside(&mut self, number: usize, free_later: impl FnOnce(Bytes)) {
        self.value_bytes -= self.outside.len(number) as u64;
        let places = &mut self.places;
        let removed =
            self.outside.remove(number, &mut self.cells, |slot, to, cells| places.moved(slot, to, cells));
        removed.map(free_later);
    }

    #[inline]
    fn remove_cell(&mut self, at: Location) {
        if let Some((owner, to)) = self.cells.remove(at) {
            match piece_of(owner) {
                Some(piece) => self.outside.piece_moved(piece, to),
                None => self.places.moved(owner, to, &self.cells),
            }
        }
    }

    /// Gives a record another slot, which has none and is smaller. Whether it has a deadline.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) -> bool {
        let at = self.places.relocate(from, to);
        let cell = self.cells.bytes_mut(at);
        cell[..size_of::<u32>()].copy_from_slice(&to.get().to_le_bytes());
        u32_at(cell, 4) & HAS_DEADLINE != 0
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self) {
        self.cells.check_invariants(|owner| match piece_of(owner) {
            Some(piece) => self.outside.location(piece),
            None => self.places.of(Slot::new(owner)),
        });
        self.places.check_invariants(&self.cells);
        let (mut outside, mut key_bytes, mut value_bytes) = (0, 0, 0);
        for slot in (0..).take(self.slots()).map(Slot::new).filter(|&slot| self.is_stored(slot)) {
            let record = self.record(slot);
            let key = HashedKey { key: &record.key, hash: self.hash(slot) };
            assert_eq!(
                self.find(key).map(|found| found.slot()),
                Some(slot),
                "a record is found under its key"
            );
            key_bytes += record.key.len() as u64;
            value_bytes += match record.value {
                Stored::Inside(value) => value.len(),
                Stored::Outside(number) => {
                    outside += 1;
                    self.outside.len(number as usize)
                }
            } as u64;
        }
        assert_eq!((key_bytes, value_bytes), self.payload_bytes(), "the bytes of keys and of values");
        self.outside.check_invariants(outside);
    }

    /// Bytes of all keys, and of all values.
    pub(super) const fn payload_bytes(&self) -> (u64, u64) {
        (self.key_bytes, self.value_bytes)
    }

    /// Bytes that so many entries do not account for: of the index, and of what is kept for large values.
    pub(super) const fn excess_bytes(&self, items: u64) -> u64 {
        self.places.excess_bytes(items) + self.outside.excess_bytes()
    }

    /// Whether more is kept for large values than there are.
    #[inline]
    pub(super) const fn has_gone_outside(&self) -> bool {
        self.outside.excess_bytes() > 0
    }

    /// Slots that memory is kept for.
    pub(super) fn slots(&self) -> usize {
        self.places.slots()
    }

    /// Gives back what is kept for slots from this one on, of which none has a record.
    pub(super) fn trim(&mut self, slots: usize) {
        self.places.trim(slots);
    }

    /// Whether a slot has a record.
    pub(super) fn is_stored(&self, slot: Slot) -> bool {
        self.places.get(slot).is_some()
    }
}
