//! Values too large for a cell, by number.
//!
//! A value of up to [`MAPPED_FROM`] lies in pieces: as many of the largest cells as it fills and one
//! for the rest, so that it shares the promise of [`cells`](super::cells) that there are no holes. It
//! is copied out to its readers. A larger one has a mapping of its own, filled before the lock is
//! taken and shared with its readers; rounding it up to a page costs little, and unmapping it gives
//! all of it back at once. Nothing is left to the allocator, which keeps what was freed between
//! what was not.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};

use crate::policy::Slot;
use crate::slots::Slots;
use crate::table::Table;
use crate::value::Value;

use super::cells::{Cells, Location, MAX_CELL_BYTES, cell_bytes};

/// From this size on a value has a mapping of its own.
const MAPPED_FROM: usize = 128 * 1024;
/// Mappings in the process at the most: Linux allows 65,530 in all. Beyond, values lie in pieces.
const MOST_MAPPED: usize = 32_768;
const SYSTEM_PAGE_BYTES: usize = 4096;
/// What a cell begins with.
const OWNER_BYTES: usize = 4;
const PIECE_BYTES: usize = MAX_CELL_BYTES - OWNER_BYTES;
/// A cell's owner is a slot below this, or this plus a piece's number.
const FIRST_PIECE: u32 = 1 << 31;
/// Ends a chain.
const NONE: u32 = u32::MAX;
/// Numbers that are nobody's and that memory is kept for all the same, uncharged.
const SPARE: usize = 512;

static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// A mapping, counted.
struct Mapping(MmapMut);

impl Mapping {
    fn of(value: &[u8]) -> io::Result<Self> {
        // The pages are wanted at once, which is cheaper than one by one.
        let mut mapping = Self(MmapOptions::new().len(value.len()).populate().map_anon()?);
        MAPPED.fetch_add(1, Ordering::Relaxed);
        mapping.0.copy_from_slice(value);
        Ok(mapping)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A large value on its way in.
pub(super) enum NewLarge<'a> {
    Mapped(Bytes),
    InPieces(&'a [u8]),
}

impl<'a> NewLarge<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        if value.len() < MAPPED_FROM || MAPPED.load(Ordering::Relaxed) >= MOST_MAPPED {
            return Self::InPieces(value);
        }
        match Mapping::of(value) {
            Ok(mapping) => Self::Mapped(Bytes::from_owner(mapping)),
            // Whatever keeps the system from another mapping, pieces may find room in one that is there.
            Err(_) => Self::InPieces(value),
        }
    }

    /// Bytes of memory that it will cost.
    pub(super) fn charge(&self) -> usize {
        match self {
            Self::Mapped(value) => mapped_charge(value.len()),
            Self::InPieces(value) => pieces_charge(value.len()),
        }
    }
}

pub(super) const fn mapped_charge(len: usize) -> usize {
    size_of::<Option<Large>>() + size_of::<Mapping>() + len.next_multiple_of(SYSTEM_PAGE_BYTES)
}

pub(super) const fn pieces_charge(len: usize) -> usize {
    let (full, rest) = (len / PIECE_BYTES, len % PIECE_BYTES);
    let rest = if rest == 0 { 0 } else { cell_bytes(OWNER_BYTES + rest) + size_of::<Piece>() };
    size_of::<Option<Large>>() + full * (MAX_CELL_BYTES + size_of::<Piece>()) + rest
}

/// A large value that is stored.
enum Large {
    Mapped(Bytes),
    InPieces { first: u32, len: usize },
}

/// Where a piece lies, and the number of the next one of its value.
#[derive(Clone, Copy)]
struct Piece {
    at: Location,
    next: u32,
}

impl Piece {
    /// In place of one that has gone.
    const NONE: Self = Self { at: Location::NOWHERE, next: NONE };
}

/// Things by number. The lowest unused number comes first, and where the highest ones are used no longer what is kept for them
/// is given back.
struct Numbered<T> {
    rows: Table<T>,
    numbers: Slots,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { rows: Table::default(), numbers: Slots::default() }
    }
}

impl<T> Numbered<T> {
    fn insert(&mut self, row: T) -> u32 {
        let number = self.numbers.take();
        match self.rows.get_mut(number.index()) {
            Some(unused) => *unused = row,
            None => self.rows.push(row),
        }
        number.get()
    }

    /// Leaves something else in its place.
    fn remove(&mut self, number: u32, unused: T) -> T {
        let row = std::mem::replace(&mut self.rows[number as usize], unused);
        self.numbers.give_back(Slot::new(number));
        let bound = self.numbers.bound() as usize;
        if bound + bound / 4 + SPARE < self.rows.len() {
            self.rows.trim(bound);
        }
        row
    }

    /// Bytes kept for unused numbers below used ones, but for a few.
    const fn excess_bytes(&self) -> usize {
        (self.numbers.unused() as usize).saturating_sub(SPARE) * size_of::<T>()
    }

    fn used(&self) -> usize {
        self.numbers.iter_used().count()
    }
}

/// The large values of a shard.
#[derive(Default)]
pub(super) struct Outside {
    values: Numbered<Option<Large>>,
    pieces: Numbered<Piece>,
}

/// The piece that a cell's owner stands for, where it is none of the slots.
pub(super) const fn piece_of(owner: u32) -> Option<u32> {
    owner.checked_sub(FIRST_PIECE)
}

impl Outside {
    fn large(&self, number: usize) -> &Large {
        self.values.rows[number].as_ref().expect("a record knows where its value is")
    }

    pub(super) fn len(&self, number: usize) -> usize {
        match self.large(number) {
            Large::Mapped(value) => value.len(),
            Large::InPieces { len, .. } => *len,
        }
    }

    pub(super) fn charge(&self, number: usize) -> usize {
        match self.large(number) {
            Large::Mapped(value) => mapped_charge(value.len()),
            Large::InPieces { len, .. } => pieces_charge(*len),
        }
    }

    pub(super) fn value(&self, number: usize, cells: &Cells) -> Value {
        match self.large(number) {
            Large::Mapped(value) => Value::shared(value.clone()),
            Large::InPieces { first, len } => {
                let mut value = Vec::with_capacity(*len);
                self.chunks(*first, *len, cells).for_each(|chunk| value.extend_from_slice(chunk));
                Value::shared(value.into())
            }
        }
    }

    /// The value itself, where it has a mapping of its own.
    pub(super) fn mapped(&self, number: usize) -> Option<&Bytes> {
        match self.large(number) {
            Large::Mapped(value) => Some(value),
            Large::InPieces { .. } => None,
        }
    }

    pub(super) fn value_is(&self, number: usize, expected: &[u8], cells: &Cells) -> bool {
        match self.large(number) {
            Large::Mapped(value) => value == expected,
            Large::InPieces { first, len } => {
                *len == expected.len() && self.chunks(*first, *len, cells).eq(expected.chunks(PIECE_BYTES))
            }
        }
    }

    /// The bytes of a value in pieces, piece by piece.
    fn chunks<'a>(&'a self, first: u32, len: usize, cells: &'a Cells) -> impl Iterator<Item = &'a [u8]> {
        let (mut next, mut left) = (first, len);
        std::iter::from_fn(move || {
            let piece = self.pieces.rows.get(next as usize)?;
            let part = left.min(PIECE_BYTES);
            (next, left) = (piece.next, left - part);
            Some(&cells.bytes(piece.at)[OWNER_BYTES..][..part])
        })
    }

    /// Stores a value and says its number. No cell is moved.
    pub(super) fn insert(&mut self, value: NewLarge<'_>, cells: &mut Cells) -> u32 {
        let value = match value {
            NewLarge::Mapped(value) => Large::Mapped(value),
            NewLarge::InPieces(value) => {
                // From the end, so that each piece knows the next.
                let pieces = value.chunks(PIECE_BYTES).rev();
                let first = pieces.fold(NONE, |next, bytes| self.insert_piece(next, bytes, cells));
                Large::InPieces { first, len: value.len() }
            }
        };
        self.values.insert(Some(value))
    }

    fn insert_piece(&mut self, next: u32, bytes: &[u8], cells: &mut Cells) -> u32 {
        let at = cells.insert(OWNER_BYTES + bytes.len());
        let number = self.pieces.insert(Piece { at, next });
        let cell = cells.bytes_mut(at);
        cell[..OWNER_BYTES].copy_from_slice(&(FIRST_PIECE + number).to_le_bytes());
        cell[OWNER_BYTES..][..bytes.len()].copy_from_slice(bytes);
        number
    }

    /// Removes a value. What was mapped is the caller's to free. A slot whose cell was moved is told.
    pub(super) fn remove(
        &mut self,
        number: usize,
        cells: &mut Cells,
        mut moved: impl FnMut(u32, Location, &Cells),
    ) -> Option<Bytes> {
        let number = u32::try_from(number).expect("numbers are u32");
        let value = self.values.remove(number, None).expect("a record knows where its value is");
        let mut next = match value {
            Large::Mapped(value) => return Some(value),
            Large::InPieces { first, .. } => first,
        };
        while next != NONE {
            let piece = self.pieces.remove(next, Piece::NONE);
            if let Some((owner, to)) = cells.remove(piece.at) {
                match piece_of(owner) {
                    Some(other) => self.piece_moved(other, to),
                    None => moved(owner, to, cells),
                }
            }
            next = piece.next;
        }
        None
    }

    pub(super) fn piece_moved(&mut self, piece: u32, to: Location) {
        self.pieces.rows[piece as usize].at = to;
    }

    /// Where a piece is believed to be.
    pub(super) fn location(&self, piece: u32) -> Location {
        self.pieces.rows[piece as usize].at
    }

    /// Bytes kept for values and pieces that have gone, but for a few: others with higher numbers are still there.
    pub(super) const fn excess_bytes(&self) -> u64 {
        (self.values.excess_bytes() + self.pieces.excess_bytes()) as u64
    }

    /// Checks the whole structure, given how many records have their value here.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self, values: usize) {
        let stored = self.values.rows.iter().flatten();
        assert_eq!(
            (stored.clone().count(), self.values.used()),
            (values, values),
            "every value has a record"
        );
        let pieces = stored.map(|value| match value {
            Large::Mapped(_) => 0,
            Large::InPieces { first, len } => {
                let pieces = self.chain(*first).count();
                assert_eq!(pieces, len.div_ceil(PIECE_BYTES), "a value has as many pieces as it fills");
                pieces
            }
        });
        assert_eq!(pieces.sum::<usize>(), self.pieces.used(), "every piece is one of a value");
        let held = |rows: usize, bound: u32| rows <= bound as usize + bound as usize / 4 + SPARE;
        assert!(held(self.values.rows.len(), self.values.numbers.bound()), "no more values than are left");
        assert!(held(self.pieces.rows.len(), self.pieces.numbers.bound()), "no more pieces than are left");
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = u32> {
        let next = |&piece: &u32| Some(self.pieces.rows[piece as usize].next).filter(|&next| next != NONE);
        std::iter::successors(Some(first).filter(|&first| first != NONE), next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_kept_for_values_that_have_gone_is_given_back_or_charged() {
        const VALUES: u32 = 10_000;
        const ROW: usize = size_of::<Option<Large>>() + size_of::<Piece>();
        fn remove(outside: &mut Outside, number: u32, cells: &mut Cells) {
            outside.remove(number as usize, cells, |slot, _, _| panic!("slot {slot} has no cell"));
        }
        for stays in [0, VALUES - 1] {
            let mut cells = Cells::new(Arc::default());
            let mut outside = Outside::default();
            for number in 0..VALUES {
                assert_eq!(outside.insert(NewLarge::InPieces(b"value"), &mut cells), number);
            }
            assert_eq!(outside.excess_bytes(), 0, "all are there");
            for number in (0..VALUES).filter(|&number| number != stays) {
                remove(&mut outside, number, &mut cells);
            }
            outside.check_invariants(1);
            // With one piece each, there are as many of either.
            let held = outside.values.rows.len() * ROW;
            let excess = usize::try_from(outside.excess_bytes()).expect("small");
            assert!(held <= excess + 2 * SPARE * ROW, "{held} bytes are held, and {excess} charged");
            assert_eq!(excess > 0, stays > 0, "only what lies below the one that stays");
            remove(&mut outside, stays, &mut cells);
            outside.check_invariants(0);
            assert_eq!(outside.excess_bytes(), 0);
            let held = outside.values.rows.footprint_bytes() + outside.pieces.rows.footprint_bytes();
            assert!(held <= SPARE * ROW, "{held} bytes are kept for nobody");
        }
    }

    #[test]
    fn a_value_of_any_size_is_read_as_it_was_written_and_charged_what_it_fills() {
        let bytes: Vec<u8> = (0..=250).cycle().take(MAPPED_FROM + 5000).collect();
        let sizes = [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 50_000];
        let mut cells = Cells::new(Arc::default());
        let mut outside = Outside::default();
        let mut stored = Vec::new();
        for size in sizes.into_iter().chain([MAPPED_FROM - 1, MAPPED_FROM, MAPPED_FROM + 4097]) {
            let new = NewLarge::new(&bytes[..size]);
            assert_eq!(matches!(new, NewLarge::Mapped(_)), size >= MAPPED_FROM, "{size}");
            let charge = new.charge();
            assert!((size..size + size / 15 + 5000).contains(&charge), "{charge} for {size}");
            let number = outside.insert(new, &mut cells) as usize;
            assert_eq!((outside.len(number), outside.charge(number)), (size, charge));
            stored.push((number, size));
        }
        // The first goes first, so that cells of others are moved while they are still read.
        while !stored.is_empty() {
            for &(number, size) in &stored {
                assert_eq!(&*outside.value(number, &cells), &bytes[..size]);
                assert!(outside.value_is(number, &bytes[..size], &cells));
                assert!(!outside.value_is(number, &bytes[..size - 1], &cells));
                assert!(!outside.value_is(number, &bytes[1..=size], &cells));
            }
            let (number, size) = stored.remove(0);
            let mapped = outside.remove(number, &mut cells, |slot, _, _| panic!("slot {slot} has no cell"));
            assert_eq!(mapped.is_some(), size >= MAPPED_FROM, "{size}");
            outside.check_invariants(stored.len());
            cells.check_invariants(|owner| outside.location(piece_of(owner).expect("only pieces")));
        }
    }
}
