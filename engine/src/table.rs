//! Tables: vectors of as many rows as there are entries, in memory of their own.
//!
//! What an allocator gets back of a vector it keeps for whoever asks next, and gives it to the system when it sees fit. So where few
//! large entries take the place of millions of small ones, all that was kept for those would be held beside the large ones. Therefore
//! a table has a mapping to itself from a page on. It grows without being copied (`mremap`), and what it shrinks by goes back
//! to the system at once. A large one becomes huge pages as far as it is filled, by [`merge_one`] and not by who fills it. Elsewhere
//! than on Linux, tables come from the allocator.

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod memory;

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) use self::memory::{TableMemory, merge_one};

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
pub(crate) use allocator_api2::alloc::Global as TableMemory;

/// There is nothing to be merged.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
pub(crate) const fn merge_one() -> bool {
    false
}

/// A vector for what is kept of each entry.
pub struct Table<T>(Vec<T, TableMemory>);

impl<T> Table<T> {
    /// Adds a row.
    #[inline]
    pub fn push(&mut self, row: T) {
        self.0.push(row);
    }

    /// Takes the last row.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes a row, whose number the last one gets.
    ///
    /// # Panics
    ///
    /// Where there is none of this number.
    pub fn swap_remove(&mut self, number: usize) -> T {
        self.0.swap_remove(number)
    }

    /// Drops the rows from this number on, and gives back all memory that the others do not need.
    pub fn trim(&mut self, rows: usize) {
        self.0.truncate(rows);
        self.shrink_to_fit();
    }

    /// Gives back all memory that the rows do not need.
    pub fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Bytes of memory that it may take without growing.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.0.capacity() * size_of::<T>()
    }
}

impl<T: Clone> Table<T> {
    /// So many rows alike.
    #[must_use]
    pub fn filled(row: T, rows: usize) -> Self {
        let mut table = Vec::with_capacity_in(rows, TableMemory);
        table.resize(rows, row);
        Self(table)
    }

    /// Adds rows alike, or drops the last ones, until there are so many. Rare, so no part of those that ask first whether it has to be.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize, row: T) {
        self.0.resize(rows, row);
    }

    /// Adds all rows once more.
    pub fn double(&mut self) {
        self.0.extend_from_within(..);
    }
}

impl<const N: usize> Table<[u32; N]> {
    /// So many rows of zeroes, which take no memory until they are written to.
    ///
    /// # Panics
    ///
    /// Where they are more than memory can have.
    #[must_use]
    #[expect(unsafe_code, reason = "no vector can be made of zeroes that the system has")]
    pub fn zeroed(rows: usize) -> Self {
        if rows == 0 {
            return Self::default();
        }
        let layout = Layout::array::<[u32; N]>(rows).expect("rows of memory that there is");
        let Ok(zeroes) = TableMemory.allocate_zeroed(layout) else { handle_alloc_error(layout) };
        // SAFETY: allocated there, by the same allocator, for an array of so many rows; and zeroes are rows.
        Self(unsafe { Vec::from_raw_parts_in(zeroes.cast().as_ptr(), rows, rows, TableMemory) })
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new_in(TableMemory))
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32),
        Resize(usize, u32),
        Trim(usize),
        SwapRemove(usize),
        Pop,
        Double,
    }

    fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
        // Rows of four bytes: mapped from 1,024 of them on, if they take what they need and no more.
        let step = prop_oneof![
            any::<u32>().prop_map(Step::Push),
            (0..12_000_usize, any::<u32>()).prop_map(|(rows, row)| Step::Resize(rows, row)),
            (0..12_000_usize).prop_map(Step::Trim),
            (0..12_000_usize).prop_map(Step::SwapRemove),
            Just(Step::Pop),
            Just(Step::Double),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn a_table_holds_what_a_vector_would_however_large(steps in steps()) {
            let (mut table, mut vector) = (Table::default(), std::vec::Vec::new());
            for step in steps {
                match step {
                    Step::Push(row) => {
                        table.push(row);
                        vector.push(row);
                    }
                    Step::Resize(rows, row) => {
                        table.resize(rows, row);
                        vector.resize(rows, row);
                    }
                    Step::Trim(rows) => {
                        table.trim(rows);
                        vector.truncate(rows);
                        prop_assert_eq!(table.footprint_bytes(), vector.len() * size_of::<u32>());
                    }
                    Step::SwapRemove(number) if number < vector.len() => {
                        prop_assert_eq!(table.swap_remove(number), vector.swap_remove(number));
                    }
                    Step::Double if vector.len() < 100_000 => {
                        table.double();
                        vector.extend_from_within(..);
                    }
                    Step::Pop | Step::SwapRemove(_) | Step::Double => {
                        prop_assert_eq!(table.pop(), vector.pop());
                    }
                }
                prop_assert_eq!(&table[..], &vector[..]);
            }
        }
    }

    #[test]
    fn rows_of_zeroes_can_be_written_and_dropped_like_others() {
        for rows in [0, 1, 511, 512, 5000] {
            let mut table = Table::<[u32; 8]>::zeroed(rows);
            assert!(table.len() == rows && table.iter().flatten().all(|&word| word == 0), "{rows} rows");
            table.resize(rows + 1000, [7; 8]);
            assert_eq!(table[rows..], Table::filled([7; 8], 1000)[..]);
            table.trim(rows);
            assert!(table.iter().flatten().all(|&word| word == 0), "{rows} rows");
        }
    }
}
