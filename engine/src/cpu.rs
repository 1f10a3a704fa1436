//! Three things that processors do well and that Rust has no safe and reliable name for: asking for memory ahead of its
//! use, so that several cache misses pass at once, comparing sixteen bytes at a time, and writing sixteen at once.
//!
//! One of the few modules of the project with unsafe code. No use of it touches memory that it was not lent.

/// As on most processors. Where a line is longer, some requests are for the same one.
const LINE_BYTES: usize = 64;

/// How far a range is asked for at the most: the processor follows what is longer by itself.
const MOST_BYTES: usize = 6 * LINE_BYTES;

/// Asks for the lines of the first so many bytes.
#[inline]
pub(crate) fn prefetch(bytes: &[u8], len: usize) {
    let (start, len) = (bytes.as_ptr(), len.min(MOST_BYTES));
    let mut at = 0;
    while at < len {
        prefetch_line(start.wrapping_add(at));
        at += LINE_BYTES;
    }
    // Bytes that do not begin with a line may end in one more.
    prefetch_line(start.wrapping_add(len));
}

/// Asks for the line at an address, whatever lies there.
#[inline]
pub(crate) fn prefetch_address(address: usize) {
    prefetch_line(std::ptr::without_provenance(address));
}

/// Asks for the line of memory that this lies in, if there is such a thing: it is on its way while other work is done. Changes nothing else.
#[inline]
pub fn prefetch_one<T>(at: Option<&T>) {
    if let Some(at) = at {
        prefetch_line(std::ptr::from_ref(at).cast());
    }
}

#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[expect(unsafe_code, reason = "there is no safe prefetch; measured in docs/benchmarks.md")]
fn prefetch_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE, which the instruction belongs to, is part of x86-64; and it neither faults nor changes anything
    // that a program could observe, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Elsewhere the processor's own guesses have to do.
#[inline]
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
const fn prefetch_line(_at: *const u8) {}

/// A bit for each byte that is the same on both sides, the first byte's the lowest.
#[inline]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "compilers do not find these instructions by themselves; measured in docs/benchmarks.md"
)]
pub(crate) fn equal_bytes(left: [u8; 16], right: [u8; 16]) -> u32 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8};
    // SAFETY: SSE2, which the instructions belong to, is part of x86-64; and any sixteen bytes are a vector of them.
    unsafe {
        let [left, right] = std::mem::transmute::<[[u8; 16]; 2], [__m128i; 2]>([left, right]);
        _mm_movemask_epi8(_mm_cmpeq_epi8(left, right)).cast_unsigned()
    }
}

/// The same, spelt out.
#[inline]
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(crate) fn equal_bytes_in_turn(left: [u8; 16], right: [u8; 16]) -> u32 {
    // As names are that have been found.
    if left == right {
        return u32::from(u16::MAX);
    }
    (0..).zip(left.iter().zip(right)).map(|(place, (left, right))| u32::from(*left == right) << place).sum()
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use equal_bytes_in_turn as equal_bytes;

/// A length in a block of sixteen bytes that is written as one: a processor that has to read as a whole what it wrote in pieces
/// a moment ago waits until all that it wrote before has reached its cache.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct LenBlock {
    len: u8,
    mark: Mark,
    unused: [u8; 14],
}

/// A byte with values that stand for something else than a length, in whatever type holds it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Mark {
    Len,
    #[expect(dead_code, reason = "with one variant only, it would be no byte")]
    Other,
}

impl LenBlock {
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "compilers write fields one by one; measured in docs/benchmarks.md")]
    pub(crate) fn new(len: u8) -> Self {
        use std::arch::x86_64::{__m128i, _mm_cvtsi32_si128};
        const _: () = assert!(Mark::Len as u8 == 0, "the byte after a length is a valid mark");
        // SAFETY: SSE2, which the instruction belongs to, is part of x86-64. It makes a vector of the length's byte and
        // fifteen zeros, of which the first is `Mark::Len`, and the others may be anything.
        unsafe { std::mem::transmute::<__m128i, Self>(_mm_cvtsi32_si128(i32::from(len))) }
    }

    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const fn new(len: u8) -> Self {
        Self { len, mark: Mark::Len, unused: [0; 14] }
    }

    #[inline]
    pub(crate) const fn get(self) -> u8 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sixteen_bytes_are_compared_at_once_as_they_are_one_by_one(bytes: [u8; 16], place in 0..16_usize, other: u8) {
            let mut like = bytes;
            like[place] = other;
            for others in [bytes, like, [bytes[place]; 16], [other; 16], [0; 16], [u8::MAX; 16]] {
                prop_assert_eq!(equal_bytes(bytes, others), equal_bytes_in_turn(bytes, others));
            }
        }
    }

    #[test]
    fn a_block_tells_its_length_and_leaves_room_for_other_variants() {
        for len in 0..=u8::MAX {
            let block = LenBlock::new(len);
            assert_eq!((block.get(), block.mark as u8, block.unused), (len, 0, [0; 14]));
            assert!(matches!(Some(Some(Some(block))), Some(Some(Some(block))) if block.get() == len));
        }
        assert_eq!(size_of::<Option<Option<Option<LenBlock>>>>(), size_of::<LenBlock>());
    }

    #[test]
    fn any_range_may_be_asked_for() {
        for len in [0, 1, 63, 64, 65, 5000] {
            prefetch(&vec![0; len], len);
        }
    }
}
