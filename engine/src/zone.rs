//! The zone: memory for parts of the index, page by page, side by side in huge pages.
//!
//! A part is small and takes exactly what it needs, so it would never have a huge page to itself; and in a large index, finding
//! where a bucket's page lies takes half as long as fetching the bucket. So parts of all indexes of the process share chunks, as large
//! as a huge page and aligned like one. First they are in small pages, of which only those are held that somebody has. Once next to none is left
//! a chunk is made a huge page, by [`merge_one`] and not by who takes a page, since that takes milliseconds at worst. What
//! is given back goes back to the system at once, and a chunk of which nothing is left is unmapped. Elsewhere than on Linux, and where pages
//! are larger, parts come from the allocator.

use std::ops::{Deref, DerefMut};

use allocator_api2::vec::Vec;

pub(crate) use self::memory::merge_one;

use self::memory::ZoneMemory;

/// So many rows, no more and no fewer.
pub(crate) struct Block<T>(Vec<T, ZoneMemory>);

impl<T: Clone> Block<T> {
    /// So many rows alike.
    pub(crate) fn filled(row: T, rows: usize) -> Self {
        let mut block = Vec::with_capacity_in(rows, ZoneMemory);
        block.resize(rows, row);
        Self(block)
    }
}

impl<T> Block<T> {
    /// Bytes of memory held.
    pub(crate) fn footprint_bytes(&self) -> usize {
        self.0.capacity() * size_of::<T>()
    }
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self(Vec::new_in(ZoneMemory))
    }
}

impl<T> Deref for Block<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Block<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod tests;

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
mod memory {
    pub(super) use allocator_api2::alloc::Global as ZoneMemory;

    /// There is nothing to be merged.
    pub(crate) const fn merge_one() -> bool {
        false
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
mod memory {
    #![expect(unsafe_code, reason = "parts of a mapping are handed out; measured in docs/benchmarks.md")]

    use std::alloc::Layout;
    use std::collections::BTreeMap;
    use std::ptr::NonNull;
    // Not shuttle's: nothing happens under it that the order of threads could matter for.
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use allocator_api2::alloc::{AllocError, Allocator};

    use crate::chunk::{CHUNK_BYTES, Chunk, PAGE_BYTES, pages_are_small};
    use crate::table::TableMemory;

    const PAGES_PER_CHUNK: usize = CHUNK_BYTES / PAGE_BYTES;
    const WORDS: usize = PAGES_PER_CHUNK / u64::BITS as usize;
    /// With no more free pages than this a chunk is made a huge page, which holds them, too.
    const FEW: usize = PAGES_PER_CHUNK / 32;
    /// What is larger would leave much of a chunk over.
    const MOST_BYTES: usize = CHUNK_BYTES / 2;

    static ZONE: Zone = Zone::new();

    /// Makes a chunk of which next to nothing is free a huge page, while others go on using it. Whether there was one.
    pub(crate) fn merge_one() -> bool {
        ZONE.merge_one()
    }

    /// How a chunk lies in memory.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Pages {
        /// In small pages: those that nobody has hold no memory.
        Small,
        /// Somebody is making it a huge page.
        Merging,
        /// It was made a huge page.
        Huge,
    }

    pub(super) struct Mapped {
        chunk: Arc<Chunk>,
        /// A bit for each page that somebody has.
        used: [u64; WORDS],
        free: usize,
        pages: Pages,
    }

    impl Mapped {
        const fn is_to_merge(&self) -> bool {
            self.free <= FEW && matches!(self.pages, Pages::Small)
        }

        const fn is_used(&self, page: usize) -> bool {
            self.used[page / 64] >> (page % 64) & 1 != 0
        }

        /// The first of so many free pages side by side.
        fn first_of(&self, pages: usize) -> Option<usize> {
            let mut first = 0;
            for page in 0..PAGES_PER_CHUNK {
                if self.is_used(page) {
                    first = page + 1;
                } else if page + 1 - first == pages {
                    return Some(first);
                }
            }
            None
        }

        fn mark(&mut self, first: usize, pages: usize, used: bool) {
            for page in first..first + pages {
                assert_ne!(self.is_used(page), used, "a page has one owner");
                self.used[page / 64] ^= 1 << (page % 64);
            }
        }

        /// Has all free pages hold no memory, and those that will be.
        fn hold_what_is_used(&mut self) {
            self.pages = Pages::Small;
            // Or the system would fill it up again.
            self.chunk.stay_small();
            let mut end = 0;
            while let Some(first) = (end..PAGES_PER_CHUNK).find(|&page| !self.is_used(page)) {
                end = (first..PAGES_PER_CHUNK).find(|&page| self.is_used(page)).unwrap_or(PAGES_PER_CHUNK);
                // SAFETY: nobody has them.
                unsafe { self.chunk.give_back(first * PAGE_BYTES, (end - first) * PAGE_BYTES) };
            }
        }
    }

    /// Chunks by their address.
    pub(super) struct Zone(Mutex<BTreeMap<usize, Mapped>>);

    impl Zone {
        pub(super) const fn new() -> Self {
            Self(Mutex::new(BTreeMap::new()))
        }

        fn chunks(&self) -> MutexGuard<'_, BTreeMap<usize, Mapped>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// So many pages side by side that nobody has, and nobody else will until they are given back.
        pub(super) fn take(&self, pages: usize) -> Option<NonNull<u8>> {
            let mut chunks = self.chunks();
            let mut with_room = chunks.values_mut().filter(|mapped| mapped.free >= pages);
            let found = with_room.find_map(|mapped| Some((mapped.first_of(pages)?, mapped)));
            let (first, mapped) = if let Some(found) = found {
                found
            } else {
                let chunk = Arc::new(Chunk::map().ok()?);
                let start = chunk.start().addr();
                let mapped = Mapped { chunk, used: [0; WORDS], free: PAGES_PER_CHUNK, pages: Pages::Small };
                (0, chunks.entry(start).or_insert(mapped))
            };
            mapped.mark(first, pages, true);
            mapped.free -= pages;
            NonNull::new(mapped.chunk.start().wrapping_add(first * PAGE_BYTES))
        }

        /// # Safety
        ///
        /// So many pages have been taken there, and nobody looks at them again.
        pub(super) unsafe fn give_back(&self, at: NonNull<u8>, pages: usize) {
            let start = at.addr().get() / CHUNK_BYTES * CHUNK_BYTES;
            let first = (at.addr().get() - start) / PAGE_BYTES;
            let mut chunks = self.chunks();
            let mapped = chunks.get_mut(&start).expect("who had a page kept its chunk");
            mapped.mark(first, pages, false);
            mapped.free += pages;
            if mapped.free == PAGES_PER_CHUNK {
                chunks.remove(&start);
            } else if mapped.pages != Pages::Huge {
                // SAFETY: as the caller promises. What is being merged may be filled up again, and is given back after that.
                unsafe { mapped.chunk.give_back(first * PAGE_BYTES, pages * PAGE_BYTES) };
            } else if mapped.free > FEW {
                // For less it is not taken apart.
                mapped.hold_what_is_used();
            }
        }

        pub(super) fn merge_one(&self) -> bool {
            // In a statement of its own, or the lock would be held until the end.
            let begun =
                self.chunks().iter_mut().find(|(_, mapped)| mapped.is_to_merge()).map(|(start, mapped)| {
                    mapped.pages = Pages::Merging;
                    (*start, Arc::clone(&mapped.chunk))
                });
            let Some((start, chunk)) = begun else { return false };
            chunk.become_huge();
            let mut chunks = self.chunks();
            // Another one may be there by now.
            let same = chunks.get_mut(&start).filter(|mapped| Arc::ptr_eq(&mapped.chunk, &chunk));
            if let Some(mapped) = same {
                if mapped.free <= FEW {
                    mapped.pages = Pages::Huge;
                } else {
                    mapped.hold_what_is_used();
                }
            }
            true
        }

        #[cfg(test)]
        pub(super) fn check_invariants(&self) {
            for (start, mapped) in self.chunks().iter() {
                assert_eq!(*start, mapped.chunk.start().addr(), "a chunk is found by its address");
                let used: u32 = mapped.used.iter().map(|word| word.count_ones()).sum();
                assert_eq!(mapped.free, PAGES_PER_CHUNK - used as usize, "free pages are counted");
                assert!(used > 0, "an empty chunk is unmapped");
                assert!(mapped.pages != Pages::Huge || mapped.free <= FEW, "a huge page is full");
            }
        }

        /// Chunks, and those of them that were made huge pages.
        #[cfg(test)]
        pub(super) fn count(&self) -> (usize, usize) {
            let chunks = self.chunks();
            (chunks.len(), chunks.values().filter(|mapped| mapped.pages == Pages::Huge).count())
        }
    }

    /// The allocator of blocks: the zone, but for those that are smaller than a page or very large, which are no other than tables.
    #[derive(Clone, Copy, Default)]
    pub(super) struct ZoneMemory;

    /// Pages in the zone for this; `None` where it does not lie there.
    fn pages_of(layout: Layout) -> Option<usize> {
        let fits = (PAGE_BYTES..=MOST_BYTES).contains(&layout.size()) && layout.align() <= PAGE_BYTES;
        (fits && pages_are_small()).then(|| layout.size().div_ceil(PAGE_BYTES))
    }

    // SAFETY: memory is of the zone or of tables, which of them the layout tells alone, so it goes back to where it came from, whichever
    // of these equal allocators it is handed to. The zone hands out whole pages, none twice, and keeps them mapped until they are given back.
    unsafe impl Allocator for ZoneMemory {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            let Some(pages) = pages_of(layout) else { return TableMemory.allocate(layout) };
            let at = ZONE.take(pages).ok_or(AllocError)?;
            Ok(NonNull::slice_from_raw_parts(at, layout.size()))
        }

        unsafe fn deallocate(&self, at: NonNull<u8>, layout: Layout) {
            match pages_of(layout) {
                // SAFETY: taken with this layout, as the caller promises, who does not look at it again.
                Some(pages) => unsafe { ZONE.give_back(at, pages) },
                // SAFETY: as the caller promises, it is of this layout, hence not of the zone.
                None => unsafe { TableMemory.deallocate(at, layout) },
            }
        }
    }
}
