//! Two things that processors do well and that Rust has no safe and reliable name for: asking for memory ahead of its
//! use, so that several cache misses pass at once, and comparing sixteen bytes at a time.
//!
//! One of the four modules of the project with unsafe code. Neither use of it touches memory that it was not lent.

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

/// Asks for the line that this lies in.
#[inline]
pub(crate) fn prefetch_one<T>(at: Option<&T>) {
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

/// A bit for each byte that is this one, the first byte's the lowest.
#[inline]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "compilers do not find these instructions by themselves; measured in docs/benchmarks.md"
)]
pub(crate) fn equal_bytes(bytes: [u8; 16], byte: u8) -> u32 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: SSE2, which the instructions belong to, is part of x86-64; and any sixteen bytes are a vector of them.
    unsafe {
        let bytes = std::mem::transmute::<[u8; 16], __m128i>(bytes);
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()))).cast_unsigned()
    }
}

/// The same, spelt out.
#[inline]
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(crate) fn equal_bytes_in_turn(bytes: [u8; 16], byte: u8) -> u32 {
    (0..).zip(bytes).map(|(place, other)| u32::from(other == byte) << place).sum()
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use equal_bytes_in_turn as equal_bytes;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sixteen_bytes_are_compared_at_once_as_they_are_one_by_one(bytes: [u8; 16], place in 0..16_usize, other: u8) {
            for byte in [bytes[place], other, 0, u8::MAX] {
                prop_assert_eq!(equal_bytes(bytes, byte), equal_bytes_in_turn(bytes, byte));
            }
        }
    }

    #[test]
    fn any_range_may_be_asked_for() {
        for len in [0, 1, 63, 64, 65, 5000] {
            prefetch(&vec![0; len], len);
        }
    }
}
