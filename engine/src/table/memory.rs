//! The allocator of tables: mappings, but for small ones.
//!
//! **Large tables.** From a huge page on, a mapping is aligned like one. It is in small pages at first, of which only those are held
//! that have been written to, since tables double their room as vectors do. Tables are filled from their front, so once all small
//! pages in the place of the next huge page are held, they can be merged to one that holds no more than they did: that is what [`merge_one`] does. What comes
//! after the last whole huge page stays small.

#![expect(unsafe_code, reason = "only mappings give memory back at once; measured in docs/benchmarks.md")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
// Not shuttle's: nothing happens under it that the order of threads could matter for.
use std::sync::{Mutex, MutexGuard, PoisonError};

use allocator_api2::alloc::{AllocError, Allocator, Global};

use crate::chunk::{CHUNK_BYTES, PAGE_BYTES, collapse, pages_are_small};

/// Bytes from which on a table has a mapping to itself.
const MAPPED_FROM: usize = PAGE_BYTES;
/// Bytes from which on a mapping may hold a huge page.
const LARGE_FROM: usize = CHUNK_BYTES;

/// All large mappings of the process, by their address.
static LARGE: Mutex<BTreeMap<usize, Large>> = Mutex::new(BTreeMap::new());

/// A large mapping.
struct Large {
    bytes: usize,
    /// Huge pages at its front that were merged.
    merged: usize,
}

impl Large {
    /// Of another size.
    fn resized(self, bytes: usize) -> Self {
        Self { bytes, merged: self.merged.min(bytes / CHUNK_BYTES) }
    }
}

/// Held while a large mapping is made another, so that none is while it is being merged.
fn large() -> MutexGuard<'static, BTreeMap<usize, Large>> {
    LARGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a part of a large table a huge page, if there is one of which all is held. Whether there was. Whoever uses that part meanwhile, or
/// has a large table grow, waits for it: see [`collapse`].
pub(crate) fn merge_one() -> bool {
    if !pages_are_small() {
        return false;
    }
    for (start, table) in large().iter_mut() {
        let from = table.merged * CHUNK_BYTES;
        let at = ptr::without_provenance_mut::<u8>(start + from);
        if from + CHUNK_BYTES <= table.bytes && is_held(at) {
            advise(at, CHUNK_BYTES, libc::MADV_HUGEPAGE);
            collapse(at);
            // As the rest of the mapping again, or the kernel would have two areas in its place, and could not resize them as one.
            advise(at, CHUNK_BYTES, libc::MADV_NOHUGEPAGE);
            // If it was refused, as it is where there is no huge page, so be it.
            table.merged += 1;
            return true;
        }
    }
    false
}

/// Tells the kernel how to hold what is mapped there. Where it knows nothing of the kind, it refuses.
fn advise(at: *mut u8, bytes: usize, advice: i32) {
    // SAFETY: advice of this kind changes nothing of what is in memory, wherever it is.
    let _ = unsafe { libc::madvise(at.cast(), bytes, advice) };
}

/// Whether all small pages in the place of a huge one are held.
fn is_held(at: *mut u8) -> bool {
    let mut pages = [0_u8; CHUNK_BYTES / PAGE_BYTES];
    // SAFETY: the kernel writes a byte for each of as many pages as there are bytes.
    let answer = unsafe { libc::mincore(at.cast(), CHUNK_BYTES, pages.as_mut_ptr()) };
    answer == 0 && pages.iter().all(|page| page & 1 != 0)
}

/// The allocator.
#[derive(Clone, Copy, Default)]
pub(crate) struct TableMemory;

const fn is_mapped(layout: Layout) -> bool {
    layout.size() >= MAPPED_FROM && layout.align() <= PAGE_BYTES
}

const fn is_large(layout: Layout) -> bool {
    is_mapped(layout) && layout.size() >= LARGE_FROM
}

/// An address that the kernel has answered.
fn mapped(at: *mut libc::c_void) -> Result<NonNull<u8>, AllocError> {
    if at == libc::MAP_FAILED { Err(AllocError) } else { NonNull::new(at.cast()).ok_or(AllocError) }
}

/// A new mapping for so many bytes, in small pages; a large one is aligned like a huge page.
fn map(bytes: usize) -> Result<NonNull<u8>, AllocError> {
    // Room for it wherever the alignment is, in whole pages, of which what is beside it goes again.
    let room = if bytes >= LARGE_FROM && pages_are_small() {
        bytes.next_multiple_of(PAGE_BYTES) + CHUNK_BYTES
    } else {
        bytes
    };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever there is room, of no file.
    let start = mapped(unsafe { libc::mmap(ptr::null_mut(), room, access, kind, -1, 0) })?;
    let at = if room == bytes { start } else { trim_to_alignment(start, room, bytes) };
    // Huge pages would hold memory behind the last row, up to 2 MiB of it for each table.
    advise(at.as_ptr(), bytes, libc::MADV_NOHUGEPAGE);
    Ok(at)
}

/// Unmaps what lies before and behind so many bytes, aligned like a huge page, of a new mapping.
fn trim_to_alignment(start: NonNull<u8>, room: usize, bytes: usize) -> NonNull<u8> {
    let before = start.align_offset(CHUNK_BYTES);
    let end = before + bytes.next_multiple_of(PAGE_BYTES);
    // SAFETY: the mapping has a huge page more than the bytes, so it holds them aligned. Nobody has seen the rest of it yet.
    unsafe {
        unmap(start, before);
        unmap(start.add(end), room - end);
        start.add(before)
    }
}

/// # Safety
///
/// So many bytes are mapped there, and nobody looks at them again.
unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    if bytes > 0 {
        // SAFETY: as the caller promises.
        let unmapped = unsafe { libc::munmap(at.as_ptr().cast(), bytes) };
        debug_assert_eq!(unmapped, 0, "a mapping can be unmapped");
    }
}

/// Another size for a mapping, of which at least one is large; where it is from then on.
///
/// # Safety
///
/// It has the old size, and nobody looks at it there again if this succeeds.
unsafe fn resize_large(at: NonNull<u8>, old: usize, new: usize) -> Result<NonNull<u8>, AllocError> {
    let mut tables = large();
    // SAFETY: as the caller promises, here and below. Nothing is mapped elsewhere yet.
    let in_place = mapped(unsafe { libc::mremap(at.as_ptr().cast(), old, new, 0) });
    let stays = new < LARGE_FROM || !pages_are_small() || at.as_ptr().addr().is_multiple_of(CHUNK_BYTES);
    let resized = match in_place {
        Ok(_) if stays => at,
        // SAFETY: as the caller promises; and in place it would have the new size by now.
        in_place => unsafe { move_aligned(at, if in_place.is_ok() { new } else { old }, new)? },
    };
    let known = tables.remove(&at.addr().get());
    if new >= LARGE_FROM {
        let table = known.unwrap_or(Large { bytes: new, merged: 0 }).resized(new);
        tables.insert(resized.addr().get(), table);
    }
    Ok(resized)
}

/// Moves a mapping to where it is aligned like a huge page, and gives it another size.
///
/// # Safety
///
/// It has the old size, and nobody looks at it there again if this succeeds.
unsafe fn move_aligned(at: NonNull<u8>, old: usize, new: usize) -> Result<NonNull<u8>, AllocError> {
    let target = map(new)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: what was just mapped is nobody's yet, and what takes its place has the new size as well.
    let moved = mapped(unsafe { libc::mremap(at.as_ptr().cast(), old, new, flags, target.as_ptr()) });
    moved.or_else(|_| {
        // The kernel may have two areas in its place, which it cannot move as one. What was mapped first may be gone by now.
        let target = map(new)?;
        // SAFETY: both have room for so many bytes, and one of them is new. Then nobody looks at the old one.
        unsafe {
            target.copy_from_nonoverlapping(at, old.min(new));
            unmap(at, old);
        }
        Ok(target)
    })
}

// SAFETY: memory is a mapping or `Global`'s, which of them the layout tells alone, so it goes back to where it came from, whichever
// of these equal allocators it is handed to. A mapping begins with a page, and so is aligned as any layout that is mapped asks. It
// stays until it is unmapped or moved by `mremap`, by whoever has it.
unsafe impl Allocator for TableMemory {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if !is_mapped(layout) {
            return Global.allocate(layout);
        }
        let at = map(layout.size())?;
        if is_large(layout) {
            large().insert(at.addr().get(), Large { bytes: layout.size(), merged: 0 });
        }
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // A new mapping is zeroes.
        if is_mapped(layout) { self.allocate(layout) } else { Global.allocate_zeroed(layout) }
    }

    unsafe fn deallocate(&self, at: NonNull<u8>, layout: Layout) {
        if !is_mapped(layout) {
            // SAFETY: as the caller promises, it is of this layout, hence of `Global`.
            return unsafe { Global.deallocate(at, layout) };
        }
        let mut tables = is_large(layout).then(large);
        if let Some(tables) = &mut tables {
            tables.remove(&at.addr().get());
        }
        // SAFETY: a mapping of this size, or the caller would not hand it back with this layout; nobody looks at it again.
        unsafe { unmap(at, layout.size()) };
    }

    unsafe fn grow(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: as the caller promises, for either direction.
        unsafe { self.resize(at, old, new) }
    }

    unsafe fn shrink(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: as the caller promises, for either direction.
        unsafe { self.resize(at, old, new) }
    }
}

impl TableMemory {
    /// Memory of another size, with what both sizes have room for.
    ///
    /// # Safety
    ///
    /// The memory is of this allocator and of the old layout, and nobody looks at it there again if this succeeds.
    unsafe fn resize(self, at: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if is_mapped(old) && is_mapped(new) {
            let moved = if is_large(old) || is_large(new) {
                // SAFETY: as the caller promises.
                unsafe { resize_large(at, old.size(), new.size()) }
            } else {
                let flags = libc::MREMAP_MAYMOVE;
                // SAFETY: a mapping of the old size, which its owner no longer looks at where it was.
                mapped(unsafe { libc::mremap(at.as_ptr().cast(), old.size(), new.size(), flags) })
            };
            return Ok(NonNull::slice_from_raw_parts(moved?, new.size()));
        }
        let resized = self.allocate(new)?;
        // SAFETY: both have room for so many bytes, and one of them is new. Then nobody looks at the old one.
        unsafe {
            let bytes = old.size().min(new.size());
            resized.cast::<u8>().copy_from_nonoverlapping(at, bytes);
            self.deallocate(at, old);
        }
        Ok(resized)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Table;

    const ROWS: usize = CHUNK_BYTES / size_of::<u64>();

    #[derive(Clone, Debug)]
    enum Step {
        Fill(usize),
        Trim(usize),
        Merge,
    }

    /// What is known of the table whose rows these are: how many huge pages it has at its front.
    fn merged(rows: &[u64]) -> Option<usize> {
        large().get(&rows.as_ptr().addr()).map(|table| table.merged)
    }

    fn merge_all() {
        while merge_one() {}
    }

    /// In bytes, of what is mapped at and behind an address: held in all, and in huge pages.
    fn held(start: usize) -> (usize, usize) {
        let areas = std::fs::read_to_string("/proc/self/smaps").expect("Linux tells");
        let (mut is_here, mut all, mut huge) = (false, 0, 0);
        for line in areas.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|area| area.split_once('-')) {
                let address = |text| usize::from_str_radix(text, 16).ok();
                if let (Some(from), Some(to)) = (address(from), address(to)) {
                    is_here = (from..to).contains(&start);
                }
            }
            let kib = |name| {
                let value = line.strip_prefix(name).filter(|_| is_here)?;
                value.trim().strip_suffix(" kB")?.parse::<usize>().ok()
            };
            all += kib("Rss:").unwrap_or(0) * 1024;
            huge += kib("AnonHugePages:").unwrap_or(0) * 1024;
        }
        (all, huge)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn a_large_table_keeps_its_rows_whatever_is_merged_meanwhile(
            steps in proptest::collection::vec(
                prop_oneof![
                    (0..4 * ROWS).prop_map(Step::Fill),
                    (0..4 * ROWS).prop_map(Step::Trim),
                    Just(Step::Merge),
                ],
                1..12,
            )
        ) {
            let mut table = Table::default();
            for step in steps {
                match step {
                    Step::Fill(rows) => {
                        while table.len() < rows {
                            table.push(table.len() as u64);
                        }
                    }
                    Step::Trim(rows) => table.trim(rows),
                    Step::Merge => merge_all(),
                }
                prop_assert!(table.iter().enumerate().all(|(number, &row)| row == number as u64));
                let whole = table.footprint_bytes() / CHUNK_BYTES;
                prop_assert!(merged(&table).unwrap_or(0) <= whole);
                prop_assert_eq!(merged(&table).is_some(), whole > 0);
                prop_assert!(whole == 0 || table.as_ptr().addr().is_multiple_of(CHUNK_BYTES));
            }
        }
    }

    #[test]
    fn a_large_table_becomes_huge_pages_as_far_as_it_is_filled_and_holds_no_more_than_before() {
        let mut table = Table::default();
        // Two huge pages and a half, with room for four.
        for number in 0..5 * ROWS / 2 {
            table.push(number as u64);
        }
        let start = table.as_ptr().addr();
        assert_eq!(table.footprint_bytes(), 4 * CHUNK_BYTES);
        assert_eq!(held(start).0, 5 * CHUNK_BYTES / 2, "only what was written to is held");
        merge_all();
        assert_eq!(merged(&table), Some(2));
        let page = if crate::chunk::huge_pages_are_on() { CHUNK_BYTES } else { 0 };
        assert_eq!(held(start), (5 * CHUNK_BYTES / 2, 2 * page), "as much is held, in larger pages");
        // It may move, and takes its huge pages along.
        for number in 5 * ROWS / 2..9 * ROWS / 2 {
            table.push(number as u64);
        }
        let (all, huge) = held(table.as_ptr().addr());
        assert!(all == 9 * CHUNK_BYTES / 2 && huge >= 2 * page, "{all} bytes, {huge} of them in huge pages");
        merge_all();
        assert_eq!((merged(&table), held(table.as_ptr().addr())), (Some(4), (all, 4 * page)));
        table.trim(3 * ROWS / 2);
        assert_eq!(merged(&table), Some(1));
        assert_eq!(held(table.as_ptr().addr()).0, 3 * CHUNK_BYTES / 2, "the rest has gone back");
        assert!(table.iter().enumerate().all(|(number, &row)| row == number as u64));
        table.trim(0);
        assert_eq!(merged(&table), None);
    }

    #[test]
    fn a_large_table_grows_though_the_kernel_has_it_in_two_areas() {
        let mut table = Table::default();
        for number in 0..4 * ROWS {
            table.push(number as u64);
        }
        let start = table.as_ptr().addr();
        // Of another kind than the rest from now on.
        advise(ptr::without_provenance_mut(start), CHUNK_BYTES, libc::MADV_HUGEPAGE);
        table.push(4 * ROWS as u64);
        assert!(table.iter().enumerate().all(|(number, &row)| row == number as u64));
        let at = table.as_ptr().addr();
        assert_eq!((table.footprint_bytes(), at % CHUNK_BYTES), (8 * CHUNK_BYTES, 0));
        assert_eq!(large().get(&at).map(|table| table.bytes), Some(8 * CHUNK_BYTES));
    }
}
