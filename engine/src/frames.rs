//! Frames: the memory that the cells of all shards lie in.
//!
//! A frame is 64 KiB that belong to whoever has taken it. 32 of them make a chunk, which is as large as a huge page of the common
//! processors, aligned like one, and mapped and unmapped as a whole. Once all of its frames are taken it is made one, so most
//! look-ups find their address translation where it is fast, and no memory is held that is not used. For that, shards share the
//! chunks: if each had its own, few would ever be full. To make one takes milliseconds at worst, so nobody who takes a frame
//! does: it is left to [`Frames::merge_one`].
//!
//! **What is given back.** A frame that nobody has keeps its memory, so that it can be taken again at once; but of all such only
//! [`KEPT_IDLE`] do for long. The memory of others goes back to the system, and with the last frame of a chunk the mapping
//! does. Nothing is moved for that.

#![expect(
    unsafe_code,
    reason = "shards have parts of a mapping each to themselves; measured in docs/benchmarks.md"
)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use crate::chunk::{CHUNK_BYTES, Chunk};
use crate::sync::{Mutex, MutexGuard};

pub(crate) const FRAME_BYTES: usize = 64 * 1024;
const FRAMES_PER_CHUNK: usize = CHUNK_BYTES / FRAME_BYTES;
/// Frames that nobody has and that hold memory, once there were more than [`MOST_IDLE`] of them.
const KEPT_IDLE: usize = FRAMES_PER_CHUNK + 4;
/// Beyond this many, all but [`KEPT_IDLE`] have their memory given back, many with one look at the chunks.
const MOST_IDLE: usize = KEPT_IDLE + 2 * FRAMES_PER_CHUNK;

/// 64 KiB that belong to their owner alone. What was written to them before may still be there.
///
/// To be handed to [`Frames::give_back`] in the end: one that is merely dropped is not taken again.
pub(crate) struct Frame {
    bytes: NonNull<[u8; FRAME_BYTES]>,
    number: u32,
    /// Keeps them mapped, and tells whose they are.
    chunk: Arc<Chunk>,
}

// SAFETY: what it points to belongs to it alone, as with a box, and is bytes.
unsafe impl Send for Frame {}
// SAFETY: by a shared reference its bytes are only read.
unsafe impl Sync for Frame {}

impl Frame {
    fn of(chunk: &Arc<Chunk>, number_of_chunk: usize, frame: usize) -> Self {
        let at = chunk.start().wrapping_add(frame * FRAME_BYTES);
        let bytes = NonNull::new(at.cast()).expect("a mapping is somewhere");
        let number =
            u32::try_from(number_of_chunk * FRAMES_PER_CHUNK + frame).expect("frames are counted in u32");
        Self { bytes, number, chunk: Arc::clone(chunk) }
    }
}

impl Deref for Frame {
    type Target = [u8; FRAME_BYTES];

    #[inline]
    fn deref(&self) -> &Self::Target {
        // SAFETY: mapped, since there is a chunk; initialised, as all memory from the system; and no other frame's, since `Frames` hands
        // out no frame that it has not been given back.
        unsafe { self.bytes.as_ref() }
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as above.
        unsafe { self.bytes.as_mut() }
    }
}

/// A chunk, and a bit for each of its frames that nobody has.
struct Mapped {
    chunk: Arc<Chunk>,
    free: u32,
    /// Those of them that hold memory.
    idle: u32,
    pages: Pages,
}

/// How a chunk lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pages {
    /// In small pages, so that a frame may hold no memory.
    Small,
    /// Still so, but it was full, and somebody is making it a huge page.
    Merging,
    /// It was made a huge page.
    Huge,
}

impl Mapped {
    /// Whether it is to be made a huge page.
    const fn is_to_merge(&self) -> bool {
        self.free == 0 && matches!(self.pages, Pages::Small)
    }
}

/// All chunks of a store.
#[derive(Default)]
pub(crate) struct Frames(Mutex<Chunks>);

#[derive(Default)]
struct Chunks {
    /// `None` where one has been unmapped.
    all: Vec<Option<Mapped>>,
    mapped: usize,
    free: usize,
    idle: usize,
    /// No chunk before this one has a free frame.
    first: usize,
    /// Chunks that are to be made huge pages.
    to_merge: usize,
}

impl Frames {
    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame that nobody has: one that holds memory if there is one, and in the first chunk that has such, so that the last ones
    /// may empty.
    pub(crate) fn take(&self) -> Frame {
        self.chunks().take()
    }

    /// # Panics
    ///
    /// Where the frame is not one of these.
    pub(crate) fn give_back(&self, frame: Frame) {
        self.chunks().give_back(frame);
    }

    /// Makes a chunk that is full a huge page, while others go on taking frames, giving them back and using what they have.
    /// Whether there was one.
    pub(crate) fn merge_one(&self) -> bool {
        // Looked for in a statement of its own, or the lock would be held until the end.
        let begun = self.chunks().begin_merge();
        let Some((number, chunk)) = begun else { return false };
        chunk.become_huge();
        self.chunks().end_merge(number, &chunk);
        true
    }

    /// Whether somebody has it, as its owner believes.
    pub(crate) fn is_taken(&self, frame: &Frame) -> bool {
        let (chunk, number) = place(frame.number);
        self.chunks().all[chunk].as_ref().is_some_and(|mapped| mapped.free & 1 << number == 0)
    }

    /// Frames that somebody has, and all that hold memory.
    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, usize) {
        let chunks = self.chunks();
        let taken = chunks.mapped * FRAMES_PER_CHUNK - chunks.free;
        (taken, taken + chunks.idle)
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        let chunks = self.chunks();
        let mapped = || chunks.all.iter().flatten();
        assert_eq!(mapped().count(), chunks.mapped, "chunks are counted");
        assert!(mapped().all(|mapped| mapped.idle & !mapped.free == 0), "who is idle is free");
        assert!(
            mapped().all(|mapped| mapped.pages == Pages::Small || mapped.idle == mapped.free),
            "all of what is or becomes a huge page holds memory"
        );
        assert_eq!(mapped().map(|mapped| mapped.free.count_ones() as usize).sum::<usize>(), chunks.free);
        assert_eq!(mapped().map(|mapped| mapped.idle.count_ones() as usize).sum::<usize>(), chunks.idle);
        let first =
            chunks.all.iter().position(|mapped| mapped.as_ref().is_some_and(|mapped| mapped.free != 0));
        assert!(first.is_none_or(|first| first >= chunks.first), "no free frame is overlooked");
        assert!(chunks.idle <= MOST_IDLE + FRAMES_PER_CHUNK, "{} frames lie idle", chunks.idle);
        let empty = mapped().filter(|mapped| mapped.free == u32::MAX).count();
        assert!(empty <= 1, "one empty chunk is kept at the most, not {empty}");
        let to_merge = mapped().filter(|mapped| mapped.is_to_merge()).count();
        assert_eq!(to_merge, chunks.to_merge, "who is to be merged is counted");
    }
}

/// The chunk of a frame, and which of its frames it is.
const fn place(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / FRAMES_PER_CHUNK, number % FRAMES_PER_CHUNK)
}

impl Chunks {
    fn take(&mut self) -> Frame {
        if self.free == 0 {
            self.map_chunk();
        }
        let any_idle = self.idle > 0;
        let with_room = self.all.iter_mut().enumerate().skip(self.first).find_map(|(number, mapped)| {
            let mapped = mapped.as_mut()?;
            let choice = if any_idle { mapped.idle } else { mapped.free };
            (choice != 0).then_some((number, mapped, choice.trailing_zeros()))
        });
        let (number, mapped, frame) = with_room.expect("a free frame is in a chunk");
        self.idle -= (mapped.idle >> frame & 1) as usize;
        mapped.idle &= !(1 << frame);
        mapped.free &= !(1 << frame);
        self.to_merge += usize::from(mapped.is_to_merge());
        let taken = Frame::of(&mapped.chunk, number, frame as usize);
        self.free -= 1;
        while self.free > 0 && self.all[self.first].as_ref().is_none_or(|mapped| mapped.free == 0) {
            self.first += 1;
        }
        taken
    }

    fn map_chunk(&mut self) {
        // As where an allocation fails: there is no way to go on without memory.
        let chunk = Arc::new(Chunk::map().expect("the system has memory to map"));
        let mapped = Some(Mapped { chunk, free: u32::MAX, idle: 0, pages: Pages::Small });
        let number = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
        match self.all.get_mut(number) {
            Some(hole) => *hole = mapped,
            None => self.all.push(mapped),
        }
        self.first = number;
        self.mapped += 1;
        self.free += FRAMES_PER_CHUNK;
    }

    fn give_back(&mut self, Frame { number, chunk, .. }: Frame) {
        let (number, frame) = place(number);
        let mapped = self.all[number].as_mut().expect("whoever had a frame kept its chunk");
        // Or the frame of ours that has this number would be handed out while its owner writes to it.
        assert!(Arc::ptr_eq(&mapped.chunk, &chunk), "a frame goes back to where it was taken");
        // Or it would keep a chunk mapped that is empty with this.
        drop(chunk);
        self.to_merge -= usize::from(mapped.is_to_merge());
        mapped.free |= 1 << frame;
        mapped.idle |= 1 << frame;
        self.free += 1;
        self.idle += 1;
        self.first = self.first.min(number);
        // One empty chunk is kept, so that a shard at the edge of a frame does not map and unmap.
        if mapped.free == u32::MAX && self.free >= 2 * FRAMES_PER_CHUNK {
            self.unmap(number);
        } else if self.idle > MOST_IDLE {
            self.shed();
        }
    }

    fn begin_merge(&mut self) -> Option<(usize, Arc<Chunk>)> {
        if self.to_merge == 0 {
            return None;
        }
        self.to_merge -= 1;
        let full = self.all.iter_mut().enumerate().find_map(|(number, mapped)| {
            mapped.as_mut().filter(|mapped| mapped.is_to_merge()).map(|mapped| (number, mapped))
        });
        let (number, mapped) = full.expect("who is to be merged is counted");
        mapped.pages = Pages::Merging;
        Some((number, Arc::clone(&mapped.chunk)))
    }

    fn end_merge(&mut self, number: usize, chunk: &Arc<Chunk>) {
        // Another one may have its number by now.
        let same = self.all[number].as_mut().filter(|mapped| Arc::ptr_eq(&mapped.chunk, chunk));
        if let Some(mapped) = same {
            mapped.pages = Pages::Huge;
        }
    }

    fn unmap(&mut self, number: usize) {
        let mapped = self.all[number].take().expect("it is there");
        self.mapped -= 1;
        self.free -= FRAMES_PER_CHUNK;
        self.idle -= mapped.idle.count_ones() as usize;
    }

    /// Gives the memory of idle frames back, of the last chunks first.
    #[cold]
    fn shed(&mut self) {
        for mapped in self.all.iter_mut().rev().flatten() {
            if self.idle <= KEPT_IDLE {
                return;
            }
            // What is given back of one that is just becoming a huge page would be filled up again by that.
            if mapped.idle == 0 || mapped.pages == Pages::Merging {
                continue;
            }
            if std::mem::replace(&mut mapped.pages, Pages::Small) == Pages::Huge {
                // Or the system would fill it up again.
                mapped.chunk.stay_small();
            }
            while mapped.idle != 0 {
                let first = mapped.idle.trailing_zeros();
                let frames = (mapped.idle >> first).trailing_ones();
                let (from, bytes) = (first as usize * FRAME_BYTES, frames as usize * FRAME_BYTES);
                // SAFETY: they are free.
                unsafe { mapped.chunk.give_back(from, bytes) };
                mapped.idle &= !(u32::MAX >> (u32::BITS - frames) << first);
                self.idle -= frames as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_frame_is_its_owners_until_it_is_given_back() {
        let frames = Frames::default();
        let mut taken: Vec<Frame> = Vec::new();
        // More than a chunk, and not in their order.
        for number in 0..3 * FRAMES_PER_CHUNK {
            let mut frame = frames.take();
            frame.fill(u8::try_from(number).expect("few"));
            taken.push(frame);
            frames.check_invariants();
        }
        for (number, frame) in taken.iter().enumerate() {
            assert!(frames.is_taken(frame));
            assert!(frame.iter().all(|&byte| usize::from(byte) == number), "frame {number} kept its bytes");
        }
        assert_eq!(frames.count().0, taken.len());
        while !taken.is_empty() {
            frames.give_back(taken.swap_remove(taken.len() / 2));
            frames.check_invariants();
        }
        let (taken, held) = frames.count();
        assert_eq!(taken, 0);
        assert!(held <= FRAMES_PER_CHUNK, "one empty chunk is kept at the most, not {held} frames");
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn memory_goes_back_though_every_chunk_is_in_use() {
        let frames = Frames::default();
        let mut taken: Vec<Frame> = (0..20 * FRAMES_PER_CHUNK).map(|_| frames.take()).collect();
        for frame in &mut taken {
            frame.fill(1);
        }
        // Of each chunk, one frame stays.
        let (stay, go): (Vec<Frame>, Vec<Frame>) =
            taken.into_iter().partition(|frame| place(frame.number).1 == 7);
        for frame in go {
            frames.give_back(frame);
            frames.check_invariants();
        }
        let (taken, held) = frames.count();
        assert_eq!(taken, stay.len());
        assert!(held <= taken + MOST_IDLE, "{held} frames hold memory, {taken} are taken");
        assert!(stay.iter().all(|frame| frame.iter().all(|&byte| byte == 1)), "who stays keeps its bytes");
        // Those that hold memory are taken first, and then those whose memory went back, before there is another chunk.
        let again: Vec<Frame> = (0..19 * FRAMES_PER_CHUNK).map(|_| frames.take()).collect();
        let fresh = again.iter().filter(|frame| frame.iter().all(|&byte| byte == 0)).count();
        assert!(fresh >= again.len() - MOST_IDLE, "the memory of {fresh} frames had gone back");
        assert_eq!(frames.chunks().mapped, 20);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_chunk_is_to_be_a_huge_page_from_when_it_is_full_until_its_memory_goes_back() {
        const CHUNKS: usize = 5;

        /// How the system has the memory where a frame lies.
        #[derive(Debug, Default)]
        struct Area {
            /// Whether it was advised to have huge pages there, or not to. `None`: it was told nothing, or knows of none.
            is_advised_huge: Option<bool>,
            huge_kib: u64,
        }

        fn area(frame: &Frame) -> Area {
            let at = frame.bytes.as_ptr() as usize;
            let address = |text| usize::from_str_radix(text, 16).expect("an address");
            let mut area = Area::default();
            let mut is_here = false;
            for line in std::fs::read_to_string("/proc/self/smaps").expect("it is there").lines() {
                let (name, told) = line.split_once(' ').unwrap_or_default();
                if let Some((start, end)) = name.split_once('-') {
                    is_here = (address(start)..address(end)).contains(&at);
                } else if is_here && name == "AnonHugePages:" {
                    let kib = told.split_whitespace().next();
                    area.huge_kib = kib.and_then(|kib| kib.parse().ok()).expect("a number");
                } else if is_here && name == "VmFlags:" {
                    let has = |flag| told.split_whitespace().any(|one| one == flag);
                    assert!(!(has("hg") && has("nh")), "{line}");
                    area.is_advised_huge = if has("hg") { Some(true) } else { has("nh").then_some(false) };
                }
            }
            area
        }

        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        // A system that is to have none takes the advice all the same, but one that knows of none has nothing to tell.
        let [huge, small] = [true, false].map(|is_huge| setting.is_ok().then_some(is_huge));
        let is_never = setting.is_ok_and(|setting| setting.contains("[never]"));
        let check = |frame: &Frame, expected: Option<bool>, when: &str| {
            let area = area(frame);
            assert_eq!(area.is_advised_huge, expected, "{when}: {area:?}");
            assert!(!is_never || area.huge_kib == 0, "{when}: nobody asked for {area:?}");
        };
        let frames = Frames::default();
        let mut first_of: Vec<Frame> = Vec::new();
        let mut others: Vec<Frame> = Vec::new();
        for _ in 0..CHUNKS {
            let mut first = frames.take();
            first.fill(1);
            for _ in 1..FRAMES_PER_CHUNK {
                check(&first, small, "not all are taken");
                let mut frame = frames.take();
                frame.fill(1);
                others.push(frame);
            }
            check(&first, small, "all are taken, but nobody has merged them");
            assert!(frames.merge_one());
            check(&first, huge, "all are taken");
            assert!(!frames.merge_one(), "once");
            first_of.push(first);
        }
        while let Some(frame) = others.pop() {
            frames.give_back(frame);
        }
        check(&first_of[0], huge, "the memory of the first is kept");
        check(&first_of[CHUNKS - 1], small, "that of the last went back");
        others.extend((0..CHUNKS * (FRAMES_PER_CHUNK - 1)).map(|_| frames.take()));
        while frames.merge_one() {}
        for first in &first_of {
            check(first, huge, "all are taken again");
        }
        frames.check_invariants();
    }

    #[test]
    fn memory_does_not_go_back_from_what_is_becoming_a_huge_page() {
        const CHUNKS: usize = 5;
        let frames = Frames::default();
        let mut taken: Vec<Frame> = (0..CHUNKS * FRAMES_PER_CHUNK).map(|_| frames.take()).collect();
        for _ in 1..CHUNKS {
            assert!(frames.merge_one());
        }
        // The last one, from which memory would go back first.
        let (number, chunk) = frames.chunks().begin_merge().expect("one is left");
        let stay: Vec<Frame> = taken.extract_if(.., |frame| place(frame.number).1 == 0).collect();
        // Its own first.
        for frame in taken.into_iter().rev() {
            frames.give_back(frame);
            frames.check_invariants();
        }
        frames.chunks().end_merge(number, &chunk);
        frames.check_invariants();
        let (taken, held) = frames.count();
        assert_eq!(taken, stay.len());
        assert!(held >= FRAMES_PER_CHUNK && held <= taken + MOST_IDLE, "{held} frames hold memory");
    }

    #[test]
    fn who_comes_after_a_chunk_is_not_taken_for_it() {
        let frames = Frames::default();
        let take =
            |chunks: usize| -> Vec<Frame> { (0..chunks * FRAMES_PER_CHUNK).map(|_| frames.take()).collect() };
        let mut taken = take(3);
        assert!(frames.merge_one() && frames.merge_one());
        let (number, chunk) = frames.chunks().begin_merge().expect("one is left");
        taken.drain(FRAMES_PER_CHUNK..).for_each(|frame| frames.give_back(frame));
        assert!(frames.chunks().all[number].is_none(), "it has gone");
        taken.extend(take(2));
        assert!(frames.chunks().all[number].is_some(), "another one has its number");
        frames.chunks().end_merge(number, &chunk);
        frames.check_invariants();
        assert!(frames.merge_one(), "and is still to be merged");
        taken.drain(..).for_each(|frame| frames.give_back(frame));
    }

    #[test]
    fn a_frame_of_others_is_refused() {
        let (frames, others) = (Frames::default(), Frames::default());
        let mut ours = frames.take();
        let theirs = others.take();
        assert_eq!(ours.number, theirs.number);
        let refused = std::panic::catch_unwind(|| frames.give_back(theirs));
        assert!(refused.is_err(), "they are not ours");
        assert!(frames.is_taken(&ours), "nobody else can have it");
        frames.check_invariants();
        ours.fill(1);
        frames.give_back(ours);
        assert_eq!((frames.count().0, others.count().0), (0, 1));
    }

    #[test]
    fn frames_outlive_what_handed_them_out() {
        let frames = Frames::default();
        let mut frame = frames.take();
        drop(frames);
        frame.fill(1);
        assert!(frame.iter().all(|&byte| byte == 1));
    }

    #[test]
    fn threads_never_have_the_same_frame() {
        // Together often more than a chunk, so that there is something to merge.
        const MOST: usize = if cfg!(miri) { 7 } else { 61 };
        let frames = &Frames::default();
        let merged = &AtomicUsize::new(0);
        let running = &AtomicUsize::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) > 0 {
                    merged.fetch_add(frames.merge_one().into(), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for round in 0..if cfg!(miri) { 20 } else { 400 } {
                        let mut taken: Vec<Frame> = (0..=round % MOST).map(|_| frames.take()).collect();
                        for frame in &mut taken {
                            frame.fill(thread);
                        }
                        std::thread::yield_now();
                        for frame in taken {
                            assert!(frame.iter().all(|&byte| byte == thread), "it is this thread's");
                            frames.give_back(frame);
                        }
                        frames.check_invariants();
                    }
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(frames.count().0, 0);
        assert!(cfg!(miri) || merged.load(Ordering::Relaxed) > 0, "some were merged meanwhile");
    }
}
