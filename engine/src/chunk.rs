//! Chunks: memory as large as a huge page of the common processors, and aligned like one.
//!
//! Most look-ups in a large store lead to places that no near cache has, and then finding out where a small page lies takes about as
//! long as fetching what is in it. In a huge page it is found where it is fast. But a huge page holds all of its memory, so a chunk becomes one
//! only when all of it is used, and is taken apart when some is given back. What lies in chunks is up to their owners:
//! [frames](crate::frames) of cells, and [parts of the index](crate::zone).

#![expect(unsafe_code, reason = "the system is told how to hold memory; measured in docs/benchmarks.md")]

use std::io;
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
use std::sync::OnceLock;

use memmap2::{MmapMut, MmapRaw};

pub(crate) const CHUNK_BYTES: usize = 2 << 20;

/// As much memory as a huge page has, and aligned like one.
pub(crate) struct Chunk {
    mapping: MmapRaw,
    /// Where in the mapping the chunk begins.
    start: usize,
}

impl Chunk {
    /// One in small pages, of which none is held yet.
    pub(crate) fn map() -> io::Result<Self> {
        // Twice the size holds the aligned chunk wherever it is; what is not touched costs nothing.
        let mapping = MmapMut::map_anon(2 * CHUNK_BYTES)?;
        let start = mapping.as_ptr().align_offset(CHUNK_BYTES);
        assert!(start <= CHUNK_BYTES, "a chunk lies in its mapping");
        let chunk = Self { mapping: mapping.into(), start };
        chunk.stay_small();
        Ok(chunk)
    }

    /// From now on only what is written to is held. The whole mapping is advised, here and below, or the kernel could not merge
    /// it with its neighbours and would run out of areas.
    pub(crate) fn stay_small(&self) {
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = self.mapping.advise(memmap2::Advice::NoHugePage);
    }

    /// Makes it a huge page. A wish: where huge pages are switched off or there is none, small ones do, and the kernel may
    /// see to it later. All that it holds is copied: medians of 0.7 and 3.6 ms on a machine whose memory was very slow. What lies in it
    /// may be used meanwhile: whoever needs a page that is being copied waits for that.
    pub(crate) fn become_huge(&self) {
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = self.mapping.advise(memmap2::Advice::HugePage);
        #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
        collapse(self.start());
    }

    /// Where its memory begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.mapping.as_mut_ptr().wrapping_add(self.start)
    }

    /// Gives the memory of some of it back: what is there from then on is zeroes.
    ///
    /// # Safety
    ///
    /// Nobody has it.
    pub(crate) unsafe fn give_back(&self, from: usize, bytes: usize) {
        assert!(from + bytes <= CHUNK_BYTES, "what is given back is the chunk's");
        let start = self.start + from;
        #[cfg(all(target_os = "linux", not(miri)))]
        // Memory that its owner has locked (mlockall) stays; nothing else can refuse it.
        // SAFETY: the range is one of an anonymous private mapping, and nobody has a reference into it.
        let _ =
            unsafe { self.mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, bytes) };
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = (start, bytes);
    }
}

/// Whether the system is to have any: this advice does not ask.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) fn huge_pages_are_on() -> bool {
    static ARE_ON: OnceLock<bool> = OnceLock::new();
    *ARE_ON.get_or_init(|| {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        setting.is_ok_and(|setting| !setting.contains("[never]"))
    })
}

/// Makes as much memory as a chunk has, aligned like one, a huge page, if the system is to have any. All that it holds is copied, and
/// whoever needs a page meanwhile waits for that.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) fn collapse(start: *mut u8) {
    if huge_pages_are_on() {
        // SAFETY: whatever lies there stays as it is; and where nothing does, the system refuses.
        let _ = unsafe { libc::madvise(start.cast(), CHUNK_BYTES, libc::MADV_COLLAPSE) };
    }
}

/// What a page of most systems has.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) const PAGE_BYTES: usize = 4096;

/// Whether it is so here: elsewhere the system can give back nothing that small, and its huge pages are no chunks.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) fn pages_are_small() -> bool {
    static ARE_SMALL: OnceLock<bool> = OnceLock::new();
    // SAFETY: sysconf(3) only tells.
    let page_bytes = || unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    *ARE_SMALL.get_or_init(|| usize::try_from(page_bytes()) == Ok(PAGE_BYTES))
}
