//! Cells: where the bytes of records lie.
//!
//! A cell has one of 125 sizes; cells of a size lie side by side in pages of 64 KiB, and
//! pages in chunks of 2 MiB that are mapped and unmapped as a whole. So the process holds what the
//! store holds, whatever the allocator does, and gives back what the store no longer needs.
//!
//! **No holes.** The cells of a size are kept dense: whoever takes a cell out has the last one of
//! that size moved into the gap. One gap per size may stay open, for the next cell of that size to
//! fall into, so a full cache that replaces like by like moves nothing. However sizes shift over
//! time, what is lost is one partly filled page per size and little more than a chunk.
//!
//! A cell's first four bytes are its owner, a slot or a piece of a large value, so that whoever is
//! moved can be told; the rest belongs to [`records`](super::records) and [`outside`](super::outside).

use std::io;

use memmap2::MmapMut;

/// The largest cell.
pub(super) const MAX_CELL_BYTES: usize = 4096;
const PAGE_BYTES: usize = 64 * 1024;
const PAGES_PER_CHUNK: usize = 32;
const CHUNK_BYTES: usize = PAGES_PER_CHUNK * PAGE_BYTES;
/// Chunks that a shard has before it asks for huge pages: what a partly filled one holds is little against so many.
const SMALL_CHUNKS: usize = 16;
/// Frames that may lie idle before pages are moved to empty a chunk.
const IDLE_FRAMES: usize = PAGES_PER_CHUNK + 4;
/// Pages that are moved at the most when one becomes free: the copying of 256 KiB.
const GATHERED_PAGES: usize = 4;
/// Sizes are multiples of this.
const GRAIN: usize = 4;
const CELL_BITS: u32 = 12;
/// Why a page's chunk is there.
const MAPPED: &str = "a page lies in a mapped chunk";

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

/// A page, by its number in locations. Its frame, the memory it lies in, may change.
#[derive(Clone, Copy)]
struct Page {
    frame: u32,
    cell_bytes: u16,
    class: u8,
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

/// As large as a huge page of the common processors, and aligned like one: so most look-ups find
/// their address translation where it is fast.
struct Chunk {
    mapping: MmapMut,
    /// Where in the mapping the chunk begins.
    start: usize,
    /// A bit for each frame that no page lies in.
    free: u32,
    /// The page in each other frame.
    pages: [u32; PAGES_PER_CHUNK],
}

impl Chunk {
    fn map(huge: bool) -> io::Result<Self> {
        // Twice the size holds the aligned chunk wherever it is; what is not touched costs nothing.
        let mapping = MmapMut::map_anon(2 * CHUNK_BYTES)?;
        let start = mapping.as_ptr().align_offset(CHUNK_BYTES);
        #[cfg(target_os = "linux")]
        if huge {
            // A wish: where huge pages are switched off, small ones do. The whole mapping is advised, or
            // the kernel could not merge it with its neighbours and would run out of areas.
            let _ = mapping.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { mapping, start, free: u32::MAX, pages: [0; PAGES_PER_CHUNK] })
    }

    #[inline]
    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        let start = self.start + start;
        &self.mapping[start..start + len]
    }

    #[inline]
    fn bytes_from(&self, start: usize) -> &[u8] {
        &self.mapping[self.start + start..]
    }

    #[inline]
    fn bytes_mut(&mut self, start: usize, len: usize) -> &mut [u8] {
        let start = self.start + start;
        &mut self.mapping[start..start + len]
    }
}

/// All cells of a shard.
pub(super) struct Cells {
    /// `None` where a chunk has been given back.
    chunks: Vec<Option<Chunk>>,
    pages: Vec<Page>,
    unused_pages: Vec<u32>,
    free_frames: usize,
    classes: Box<[Class]>,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            pages: Vec::new(),
            unused_pages: Vec::new(),
            free_frames: 0,
            classes: (0..CLASSES).map(|_| Class::default()).collect(),
        }
    }
}

const fn per_page(class: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 4096 cells")]
    let cells = (PAGE_BYTES / SIZES[class] as usize) as u32;
    cells
}

impl Cells {
    /// The bytes of a cell, its slot first.
    #[inline]
    pub(super) fn bytes(&self, at: Location) -> &[u8] {
        let Page { frame, cell_bytes, .. } = self.pages[at.page()];
        let (chunk, start) = place(frame);
        let len = usize::from(cell_bytes);
        self.chunks[chunk].as_ref().expect(MAPPED).bytes(start + at.cell() * len, len)
    }

    /// A cell's bytes and whatever follows them, and how many are the cell's.
    #[inline]
    pub(super) fn from(&self, at: Location) -> (&[u8], usize) {
        let Page { frame, cell_bytes, .. } = self.pages[at.page()];
        let (chunk, start) = place(frame);
        let len = usize::from(cell_bytes);
        (self.chunks[chunk].as_ref().expect(MAPPED).bytes_from(start + at.cell() * len), len)
    }

    /// The same to write to.
    #[inline]
    pub(super) fn bytes_mut(&mut self, at: Location) -> &mut [u8] {
        let Page { frame, cell_bytes, .. } = self.pages[at.page()];
        let (chunk, start) = place(frame);
        let len = usize::from(cell_bytes);
        self.chunks[chunk].as_mut().expect(MAPPED).bytes_mut(start + at.cell() * len, len)
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
        let (source, target) = (self.pages[from.page()].frame, self.pages[to.page()].frame);
        let (from, to) = (from.cell() * len, to.cell() * len);
        self.copy_bytes((source, from), (target, to), len);
    }

    fn copy_bytes(&mut self, (source, from): (u32, usize), (target, to): (u32, usize), len: usize) {
        let ((source, source_start), (target, target_start)) = (place(source), place(target));
        let (from, to) = (source_start + from, target_start + to);
        if source == target {
            let chunk = self.chunks[source].as_mut().expect(MAPPED);
            let (from, to) = (chunk.start + from, chunk.start + to);
            chunk.mapping.copy_within(from..from + len, to);
        } else {
            let [source, target] =
                self.chunks.get_disjoint_mut([source, target]).expect("two chunks that exist");
            let (source, target) = (source.as_ref().expect(MAPPED), target.as_mut().expect(MAPPED));
            target.bytes_mut(to, len).copy_from_slice(source.bytes(from, len));
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
            self.pages.push(Page { frame: 0, cell_bytes: 0, class: 0 });
            number
        });
        let frame = self.take_frame(number, None);
        #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 classes")]
        let class = class as u8;
        self.pages[number as usize] = Page { frame, cell_bytes: SIZES[usize::from(class)], class };
        number
    }

    fn free_page(&mut self, page: u32) {
        self.release_frame(self.pages[page as usize].frame);
        self.unused_pages.push(page);
        for _ in 0..GATHERED_PAGES {
            if self.free_frames > IDLE_FRAMES {
                self.gather();
            }
        }
    }

    /// A frame for a page: in the first chunk that has one, so that the others may empty.
    #[expect(clippy::cast_possible_truncation, reason = "frames are counted in u32")]
    fn take_frame(&mut self, page: u32, not_in: Option<usize>) -> u32 {
        if self.free_frames == 0 {
            self.map_chunk();
        }
        let with_room = self.chunks.iter_mut().enumerate().find_map(|(number, chunk)| {
            let chunk = chunk.as_mut().filter(|chunk| chunk.free != 0 && Some(number) != not_in)?;
            let frame = chunk.free.trailing_zeros() as usize;
            chunk.free &= chunk.free - 1;
            chunk.pages[frame] = page;
            Some((number * PAGES_PER_CHUNK + frame) as u32)
        });
        self.free_frames -= 1;
        with_room.expect("a free frame is in a chunk")
    }

    fn map_chunk(&mut self) {
        let huge = self.chunks.len() >= SMALL_CHUNKS;
        // As where an allocation fails: there is no way to go on without memory.
        let chunk = Some(Chunk::map(huge).expect("the system has memory to map"));
        match self.chunks.iter_mut().find(|chunk| chunk.is_none()) {
            Some(hole) => *hole = chunk,
            None => self.chunks.push(chunk),
        }
        self.free_frames += PAGES_PER_CHUNK;
    }

    fn release_frame(&mut self, frame: u32) {
        let (number, start) = place(frame);
        let chunk = self.chunks[number].as_mut().expect(MAPPED);
        chunk.free |= 1 << (start / PAGE_BYTES);
        self.free_frames += 1;
        // One empty chunk is kept, so that a size at the edge of a page does not map and unmap.
        if chunk.free == u32::MAX && self.free_frames > PAGES_PER_CHUNK {
            self.chunks[number] = None;
            self.free_frames -= PAGES_PER_CHUNK;
        }
    }

    /// Gives back an empty chunk, or moves a page out of the emptiest one, so that it will be empty.
    #[cold]
    #[expect(clippy::cast_possible_truncation, reason = "frames are counted in u32")]
    fn gather(&mut self) {
        if let Some(empty) =
            self.chunks.iter_mut().find(|chunk| chunk.as_ref().is_some_and(|chunk| chunk.free == u32::MAX))
        {
            *empty = None;
            self.free_frames -= PAGES_PER_CHUNK;
            return;
        }
        let partly = self.chunks.iter().enumerate().filter_map(|(number, chunk)| {
            let free = chunk.as_ref()?.free;
            (free != 0 && free != u32::MAX).then_some((free.count_ones(), number, free))
        });
        let Some((_, emptiest, free)) = partly.max() else { return };
        let from = (!free).trailing_zeros() as usize;
        let page = self.chunks[emptiest].as_ref().expect("just seen").pages[from];
        let from = (emptiest * PAGES_PER_CHUNK + from) as u32;
        let to = self.take_frame(page, Some(emptiest));
        self.copy_bytes((from, 0), (to, 0), PAGE_BYTES);
        self.pages[page as usize].frame = to;
        self.release_frame(from);
    }

    /// Checks the whole structure; `location_of` says where the owner believes a slot's cell to be.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self, location_of: impl Fn(u32) -> Location) {
        let mut frames = 0;
        for (number, class) in self.classes.iter().enumerate() {
            let in_last_page = if class.pages.is_empty() { 0..=0 } else { 1..=per_page(number) };
            assert!(in_last_page.contains(&class.in_last_page), "pages are full");
            for (index, &page) in class.pages.iter().enumerate() {
                let Page { frame, cell_bytes, class: of } = self.pages[page as usize];
                assert_eq!((usize::from(of), cell_bytes), (number, SIZES[number]), "a page knows its class");
                let (chunk, start) = place(frame);
                let chunk = self.chunks[chunk].as_ref().expect(MAPPED);
                assert_eq!(chunk.pages[start / PAGE_BYTES], page, "a frame knows its page");
                assert_eq!(chunk.free & (1 << (start / PAGE_BYTES)), 0, "a page's frame is not free");
                frames += 1;
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
        let free: u32 = self.chunks.iter().flatten().map(|chunk| chunk.free.count_ones()).sum();
        assert_eq!(free as usize, self.free_frames, "free frames are counted");
        let all = self.chunks.iter().flatten().count() * PAGES_PER_CHUNK;
        assert_eq!(frames + self.free_frames, all, "every frame is used or free");
        assert!(
            self.free_frames <= IDLE_FRAMES + PAGES_PER_CHUNK / GATHERED_PAGES,
            "{} frames lie idle",
            self.free_frames
        );
    }
}

/// The chunk of a frame, and where in it the frame begins.
const fn place(frame: u32) -> (usize, usize) {
    let frame = frame as usize;
    (frame / PAGES_PER_CHUNK, frame % PAGES_PER_CHUNK * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells beside the naive account of who has which bytes.
    #[derive(Default)]
    struct Checked {
        cells: Cells,
        /// By slot: where the cell is, its length and the byte that fills it.
        slots: Vec<Option<(Location, usize, u8)>>,
        random: u64,
    }

    impl Checked {
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

        fn mapped(&self) -> usize {
            self.cells.chunks.iter().flatten().count() * CHUNK_BYTES
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
        let mut checked = Checked { slots: vec![None; 20_000], ..Checked::default() };
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
            let bound = used + CLASSES * PAGE_BYTES + CHUNK_BYTES + IDLE_FRAMES * PAGE_BYTES;
            assert!(checked.mapped() <= bound, "round {round}: {} mapped for {used} used", checked.mapped());
        }
        for slot in 0..20_000 {
            checked.remove(slot);
        }
        checked.check();
        assert!(checked.mapped() <= CHUNK_BYTES, "one empty chunk is kept at the most");
    }
}
