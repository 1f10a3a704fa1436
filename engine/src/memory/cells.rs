//! Cells: where the bytes of records lie.
//!
//! A cell has one of 125 sizes; cells of a size lie side by side in pages of 64 KiB, each of them a
//! [frame](crate::frames) that is the shard's own. So the process holds what the
//! store holds, whatever the allocator does, and gives back what the store no longer needs.
//!
//! **No holes.** The cells of a size are kept dense: whoever takes a cell out has the last one of
//! that size moved into the gap. One gap per size may stay open, for the next cell of that size to
//! fall into, so a full cache that replaces like by like moves nothing. However sizes shift over
//! time, what a shard loses is one partly filled page per size.
//!
//! A cell's first four bytes are its owner, a slot or a piece of a large value, so that whoever is
//! moved can be told; the rest belongs to [`records`](super::records) and [`outside`](super::outside).

use std::sync::Arc;

use crate::frames::{FRAME_BYTES, Frame, Frames};

/// The largest cell.
pub(super) const MAX_CELL_BYTES: usize = 4096;
const PAGE_BYTES: usize = FRAME_BYTES;
/// Sizes are multiples of this.
const GRAIN: usize = 4;
const CELL_BITS: u32 = 12;
/// Why a page has a frame.
const USED: &str = "a page with a cell has a frame";

const SIZES: [u16; CLASSES] = sizes();
const CLASSES: usize = 125;
/// From a length in grains to its class.
const CLASS_OF: [u8; MAX_CELL_BYTES / GRAIN + 1] = class_of();

/// Steps of 4 bytes up to 256, 16 to 512, 32 to 1024; then such that a page is filled to the end,
/// sixteen sizes to an octave.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cells are at most 4096 bytes, and no size is negative"
)]
const fn sizes() -> [u16; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut count = 0;
    let mut size = 16;
    while size <= 1024 {
        sizes[count] = size as u16;
        count += 1;
        size += if size < 256 {
            4
        } else if size < 512 {
            16
        } else {
            32
        };
    }
    let mut cells = PAGE_BYTES / 1024 - 1;
    while cells >= PAGE_BYTES / MAX_CELL_BYTES {
        sizes[count] = (PAGE_BYTES / cells / 8 * 8) as u16;
        count += 1;
        cells -= if cells > PAGE_BYTES / 2048 { 2 } else { 1 };
    }
    assert!(count == CLASSES && sizes[CLASSES - 1] as usize == MAX_CELL_BYTES);
    sizes
}

#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 classes")]
const fn class_of() -> [u8; MAX_CELL_BYTES / GRAIN + 1] {
    let mut table = [0; MAX_CELL_BYTES / GRAIN + 1];
    let mut class = 0;
    let mut grains = 0;
    while grains < table.len() {
        if grains * GRAIN > SIZES[class] as usize {
            class += 1;
        }
        table[grains] = class as u8;
        grains += 1;
    }
    table
}

/// The size of the cell that holds this many bytes, which must be at most [`MAX_CELL_BYTES`].
pub(super) const fn cell_bytes(len: usize) -> usize {
    SIZES[CLASS_OF[len.div_ceil(GRAIN)] as usize] as usize
}

/// Where a cell lies: a page and a place in it. Changes when the cell is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(pub(super) u32);

impl Location {
    /// Points nowhere: for slots that hold nothing.
    pub(super) const NOWHERE: Self = Self(u32::MAX);

    fn new(page: u32, cell: u32) -> Self {
        Self(page << CELL_BITS | cell)
    }

    const fn page(self) -> usize {
        (self.0 >> CELL_BITS) as usize
    }

    const fn cell(self) -> usize {
        (self.0 & ((1 << CELL_BITS) - 1)) as usize
    }
}

/// A page, by its number in locations.
#[derive(Default)]
struct Page {
    /// `None` where the page is not used.
    frame: Option<Frame>,
    cell_bytes: u16,
    class: u8,
}

impl Page {
    #[inline]
    fn frame(&self) -> &Frame {
        self.frame.as_ref().expect(USED)
    }

    #[inline]
    fn frame_mut(&mut self) -> &mut Frame {
        self.frame.as_mut().expect(USED)
    }
}

/// The cells of one size: dense, the pages in order, the last one partly filled.
#[derive(Default)]
struct Class {
    pages: Vec<u32>,
    /// Cells in use in the last page, the gap included: at least one, where there is a page.
    in_last_page: u32,
    gap: Option<Location>,
}

impl Class {
    #[inline]
    fn last(&self) -> Location {
        let page = *self.pages.last().expect("a class with a cell has a page");
        Location::new(page, self.in_last_page - 1)
    }
}

/// All cells of a shard.
pub(super) struct Cells {
    frames: Arc<Frames>,
    pages: Vec<Page>,
    unused_pages: Vec<u32>,
    classes: Box<[Class]>,
}

const fn per_page(class: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 4096 cells")]
    let cells = (PAGE_BYTES / SIZES[class] as usize) as u32;
    cells
}

impl Cells {
    pub(super) fn new(frames: Arc<Frames>) -> Self {
        Self {
            frames,
            pages: Vec::new(),
            unused_pages: Vec::new(),
            classes: (0..CLASSES).map(|_| Class::default()).collect(),
        }
    }

    /// None, to take the place of these.
    pub(super) fn successor(&self) -> Self {
        Self::new(Arc::clone(&self.frames))
    }

    /// The bytes of a cell, its slot first.
    #[inline]
    pub(super) fn bytes(&self, at: Location) -> &[u8] {
        let (bytes, len) = self.from(at);
        &bytes[..len]
    }

    /// A cell's bytes and whatever follows them, and how many are the cell's.
    #[inline]
    pub(super) fn from(&self, at: Location) -> (&[u8], usize) {
        let page = &self.pages[at.page()];
        let len = usize::from(page.cell_bytes);
        (&page.frame()[at.cell() * len..], len)
    }

    /// The same to write to.
    #[inline]
    pub(super) fn bytes_mut(&mut self, at: Location) -> &mut [u8] {
        let page = &mut self.pages[at.page()];
        let len = usize::from(page.cell_bytes);
        &mut page.frame_mut()[at.cell() * len..][..len]
    }

    fn slot(&self, at: Location) -> u32 {
        let bytes = self.bytes(at);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// A cell of at least this many bytes, at most [`MAX_CELL_BYTES`]. Its bytes are the caller's to
    /// write, the slot in front.
    #[inline]
    pub(super) fn insert(&mut self, len: usize) -> Location {
        let class = usize::from(CLASS_OF[len.div_ceil(GRAIN)]);
        match self.classes[class].gap.take() {
            Some(gap) => gap,
            None => self.append(class),
        }
    }

    /// Whether a cell is as large as one for this many bytes would be.
    #[inline]
    pub(super) fn fits(&self, at: Location, len: usize) -> bool {
        self.pages[at.page()].class == CLASS_OF[len.div_ceil(GRAIN)]
    }

    /// Takes a cell out. Where another one has been moved into its place: that one's slot and where it
    /// is now.
    #[inline]
    pub(super) fn remove(&mut self, at: Location) -> Option<(u32, Location)> {
        let number = usize::from(self.pages[at.page()].class);
        let class = &mut self.classes[number];
        let last = class.last();
        // A gap at the end is none.
        if class.gap.is_none() && last != at {
            class.gap = Some(at);
            return None;
        }
        self.close(number, at, last)
    }

    /// Takes the last cell of a size out, whose bytes go to another cell of it that nobody needs.
    #[inline(never)]
    fn close(&mut self, class: usize, at: Location, last: Location) -> Option<(u32, Location)> {
        let mut moved = None;
        if last != at {
            self.copy(last, at);
            moved = Some((self.slot(at), at));
        }
        self.pop(class);
        if self.classes[class].gap.is_some_and(|gap| gap == self.classes[class].last()) {
            self.classes[class].gap = None;
            self.pop(class);
        }
        moved
    }

    /// Copies a cell into another one of its size.
    fn copy(&mut self, from: Location, to: Location) {
        let len = usize::from(self.pages[from.page()].cell_bytes);
        let (start, end) = (from.cell() * len, to.cell() * len);
        if from.page() == to.page() {
            self.pages[from.page()].frame_mut().copy_within(start..start + len, end);
        } else {
            let pages = self.pages.get_disjoint_mut([from.page(), to.page()]);
            let [source, target] = pages.expect("two pages that exist");
            target.frame_mut()[end..end + len].copy_from_slice(&source.frame()[start..start + len]);
        }
    }

    /// One more cell at the end.
    #[inline(never)]
    fn append(&mut self, class: usize) -> Location {
        let is_full = self.classes[class].in_last_page == per_page(class);
        if is_full || self.classes[class].pages.is_empty() {
            let page = self.new_page(class);
            self.classes[class].pages.push(page);
            self.classes[class].in_last_page = 0;
        }
        self.classes[class].in_last_page += 1;
        self.classes[class].last()
    }

    /// One cell less at the end.
    fn pop(&mut self, class: usize) {
        let cells = &mut self.classes[class];
        cells.in_last_page -= 1;
        if cells.in_last_page == 0 {
            let page = cells.pages.pop().expect("a class with a cell has a page");
            if !cells.pages.is_empty() {
                cells.in_last_page = per_page(class);
            }
            self.free_page(page);
        }
    }

    fn new_page(&mut self, class: usize) -> u32 {
        let number = self.unused_pages.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.pages.len()).expect("pages are counted in u32");
            assert!(number < 1 << (u32::BITS - CELL_BITS), "a shard holds 64 GiB at the most");
            self.pages.push(Page::default());
            number
        });
        let frame = Some(self.frames.take());
        #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 classes")]
        let class = class as u8;
        self.pages[number as usize] = Page { frame, cell_bytes: SIZES[usize::from(class)], class };
        number
    }

    fn free_page(&mut self, page: u32) {
        self.frames.give_back(self.pages[page as usize].frame.take().expect(USED));
        self.unused_pages.push(page);
    }

    /// Checks the whole structure; `location_of` says where the owner believes a slot's cell to be.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self, location_of: impl Fn(u32) -> Location) {
        let mut used = 0;
        for (number, class) in self.classes.iter().enumerate() {
            let in_last_page = if class.pages.is_empty() { 0..=0 } else { 1..=per_page(number) };
            assert!(in_last_page.contains(&class.in_last_page), "pages are full");
            for (index, &page) in class.pages.iter().enumerate() {
                let Page { cell_bytes, class: of, .. } = self.pages[page as usize];
                assert_eq!((usize::from(of), cell_bytes), (number, SIZES[number]), "a page knows its class");
                assert!(self.frames.is_taken(self.pages[page as usize].frame()), "a page's frame is taken");
                used += 1;
                let is_last = index + 1 == class.pages.len();
                for cell in 0..if is_last { class.in_last_page } else { per_page(number) } {
                    let at = Location::new(page, cell);
                    if class.gap != Some(at) {
                        let slot = self.slot(at);
                        assert_eq!(location_of(slot), at, "slot {slot} is where it is believed to be");
                    }
                }
            }
            if let Some(gap) = class.gap {
                let class = usize::from(self.pages[gap.page()].class);
                assert_eq!(class, number, "the gap is among the cells of its size");
                assert_ne!(gap, self.classes[number].last(), "the gap is not at the end");
            }
        }
        assert_eq!(used + self.unused_pages.len(), self.pages.len(), "every page is used or not");
        assert!(
            self.unused_pages.iter().all(|&page| self.pages[page as usize].frame.is_none()),
            "an unused page has no frame"
        );
        self.frames.check_invariants();
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        for frame in self.pages.iter_mut().filter_map(|page| page.frame.take()) {
            self.frames.give_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells beside the naive account of who has which bytes.
    struct Checked {
        frames: Arc<Frames>,
        cells: Cells,
        /// By slot: where the cell is, its length and the byte that fills it.
        slots: Vec<Option<(Location, usize, u8)>>,
        random: u64,
    }

    impl Checked {
        fn new(slots: usize) -> Self {
            let frames = Arc::<Frames>::default();
            Self { cells: Cells::new(Arc::clone(&frames)), frames, slots: vec![None; slots], random: 0 }
        }

        fn draw(&mut self, below: usize) -> usize {
            self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            usize::try_from(self.random >> 33).expect("31 bits") % below
        }

        fn insert(&mut self, slot: usize, len: usize) {
            let at = self.cells.insert(len);
            let fill = u8::try_from(self.draw(256)).expect("a byte");
            self.cells.bytes_mut(at)[..4].copy_from_slice(&u32::try_from(slot).expect("few").to_le_bytes());
            self.cells.bytes_mut(at)[4..len].fill(fill);
            self.slots[slot] = Some((at, len, fill));
        }

        fn remove(&mut self, slot: usize) {
            let Some((at, len, fill)) = self.slots[slot].take() else { return };
            assert!(
                self.cells.bytes(at)[4..len].iter().all(|&byte| byte == fill),
                "slot {slot} kept its bytes"
            );
            if let Some((moved, to)) = self.cells.remove(at) {
                self.slots[moved as usize].as_mut().expect("who is moved is there").0 = to;
            }
        }

        fn check(&self) {
            self.cells
                .check_invariants(|slot| self.slots[slot as usize].map_or(Location::NOWHERE, |(at, ..)| at));
        }

        /// Bytes of pages, and of all frames that hold memory.
        fn held(&self) -> (usize, usize) {
            let (taken, held) = self.frames.count();
            (taken * FRAME_BYTES, held * FRAME_BYTES)
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn a_cell_is_as_large_as_asked_and_hardly_larger() {
        for len in 1..=MAX_CELL_BYTES {
            let cell = cell_bytes(len);
            assert!(cell >= len, "{len} fits {cell}");
            assert!(len < 64 || cell <= len + len / 15, "{cell} bytes for {len}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn bytes_stay_and_memory_goes_back_while_sizes_shift() {
        let mut checked = Checked::new(20_000);
        // The sizes drift through every class and jump back.
        for round in 0..12_usize {
            let typical = [40, 700, 3000, 90][round % 4];
            for step in 0..20_000 {
                let slot = checked.draw(20_000);
                checked.remove(slot);
                let len = 8 + checked.draw(typical + step / 50);
                checked.insert(slot, len.min(MAX_CELL_BYTES));
            }
            checked.check();
            let used: usize = checked.slots.iter().flatten().map(|&(_, len, _)| cell_bytes(len)).sum();
            let (pages, held) = checked.held();
            assert!(pages <= used + CLASSES * PAGE_BYTES, "round {round}: {pages} in pages for {used} used");
            assert!(held <= pages + (8 << 20), "round {round}: {held} held for {pages} in pages");
        }
        for slot in 0..20_000 {
            checked.remove(slot);
        }
        checked.check();
        let (pages, held) = checked.held();
        assert_eq!(pages, 0);
        assert!(held <= 2 << 20, "one empty chunk is kept at the most");
    }

    #[test]
    fn whoever_goes_gives_all_frames_back() {
        let mut checked = Checked::new(100);
        for slot in 0..100 {
            checked.insert(slot, 40 * slot + 8);
        }
        checked.check();
        assert!(checked.held().0 > 0);
        let frames = Arc::clone(&checked.frames);
        drop(checked);
        assert_eq!(frames.count().0, 0);
    }
}
