//! A count-min sketch of four-bit counters: how often was a fingerprint seen lately?
//!
//! Cormode and Muthukrishnan, "An Improved Data Stream Summary: the Count-Min Sketch and its Applications",
//! Journal of Algorithms 55(1), 2005; ageing by halving from Einziger, Friedman and Manes, "TinyLFU: A Highly
//! Efficient Cache Admission Policy", ACM Transactions on Storage 13(4), 2017. The four counters of a fingerprint
//! lie within 64 bytes, so that counting costs one cache line.

use engine::Table;

const WORDS_PER_BLOCK: usize = 8;
/// How often there may be room for the entries that there are, when some of it is given back.
const MOST_ROOM: usize = 4;
/// A small cache turns down many more than it holds, and has to tell them apart.
const FEWEST_ENTRIES: usize = 256;
const LOW_BITS: u64 = 0x1111_1111_1111_1111;
const WITHOUT_TOP_BITS: u64 = 0x7777_7777_7777_7777;
const MOST: u64 = 15;
/// Counters of a fingerprint.
const ROWS: usize = 4;

/// Estimates of how often fingerprints were counted, from 0 to 15, in eight bytes per expected entry.
#[derive(Default)]
pub struct Sketch {
    words: Table<u64>,
    /// Additions since the counters were halved last, those that the halving has left included.
    additions: u64,
    /// Additions after which they are.
    sample: u64,
    halvings: u64,
}

impl Sketch {
    /// Makes room for this number of entries, if there is not. Counts are kept: a block's two successors
    /// start as what it was.
    pub fn ensure_entries(&mut self, entries: usize) {
        if self.words.is_empty() {
            self.words = Table::filled(0, FEWEST_ENTRIES);
        }
        while entries > self.words.len() {
            self.words.double();
        }
        self.sample = 10 * entries.max(FEWEST_ENTRIES) as u64;
    }

    /// Gives memory back where there is room for many more than this number of entries. Fingerprints that were told apart
    /// before are not any longer, and have the mean of what both were counted.
    pub fn trim(&mut self, entries: usize) {
        while self.words.len() > MOST_ROOM * entries.max(FEWEST_ENTRIES) {
            let half = self.words.len() / 2;
            let (lower, upper) = self.words.split_at_mut(half);
            for (word, other) in lower.iter_mut().zip(upper) {
                // A mean of each counter, which cannot carry over.
                *word = (*word & *other) + ((*word ^ *other) >> 1 & WITHOUT_TOP_BITS);
            }
            self.words.trim(half);
            self.additions /= 2;
        }
    }

    /// Counts a fingerprint.
    #[inline]
    pub fn add(&mut self, tag: u32) {
        let (block, choices) = self.place(tag);
        let Some(block) = self.block_mut(block) else { return };
        let mut is_added = false;
        for row in 0..ROWS {
            let (word, shift) = counter(choices, row);
            let is_below = block[word] >> shift & MOST < MOST;
            block[word] += u64::from(is_below) << shift;
            is_added |= is_below;
        }
        self.additions += u64::from(is_added);
        if self.additions >= self.sample {
            self.halve();
        }
    }

    /// How often a fingerprint was counted lately, or more.
    #[must_use]
    #[inline]
    pub fn estimate(&self, tag: u32) -> u32 {
        let (block, choices) = self.place(tag);
        let Some(block) = self.words.get(block..).and_then(|words| words.first_chunk::<WORDS_PER_BLOCK>())
        else {
            return 0;
        };
        let mut least = u32::MAX;
        for row in 0..ROWS {
            let (word, shift) = counter(choices, row);
            least = least.min((block[word] >> shift & MOST) as u32);
        }
        least
    }

    /// How often the counts have aged.
    #[must_use]
    pub const fn halvings(&self) -> u64 {
        self.halvings
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.words.footprint_bytes()
    }

    /// Where a fingerprint's block begins, and the bits that choose its counters there.
    #[inline]
    fn place(&self, tag: u32) -> (usize, u64) {
        let mixed = u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = mixed ^ mixed >> 29;
        let blocks = self.words.len() / WORDS_PER_BLOCK;
        let block = ((mixed >> 32) as usize & blocks.wrapping_sub(1)) * WORDS_PER_BLOCK;
        (block, mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 44)
    }

    #[inline]
    fn block_mut(&mut self, start: usize) -> Option<&mut [u64; WORDS_PER_BLOCK]> {
        self.words.get_mut(start..)?.first_chunk_mut()
    }

    #[cold]
    fn halve(&mut self) {
        self.halvings += 1;
        let mut odd = 0;
        for word in self.words.iter_mut() {
            odd += u64::from((*word & LOW_BITS).count_ones());
            *word = *word >> 1 & WITHOUT_TOP_BITS;
        }
        self.additions = self.additions.saturating_sub(odd / 4) / 2;
    }
}

/// The word and the shift of a counter: each row has a quarter of the block.
#[inline]
const fn counter(choices: u64, row: usize) -> (usize, u64) {
    let choice = choices >> (5 * row);
    (2 * row + (choice & 1) as usize, 4 * (choice >> 1 & 15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_never_too_low_and_rarely_too_high() {
        let mut sketch = Sketch::default();
        sketch.ensure_entries(1024);
        for tag in 0..1024 {
            for _ in 0..tag % 4 {
                sketch.add(tag);
            }
        }
        let excess = (0..1024).map(|tag| sketch.estimate(tag).checked_sub(tag % 4).expect("not below"));
        assert!(excess.sum::<u32>() < 100);
    }

    #[test]
    fn counters_stop_at_15_and_are_halved_after_ten_times_as_many_additions_as_entries() {
        let mut sketch = Sketch::default();
        sketch.ensure_entries(512);
        (0..100).for_each(|_| sketch.add(7));
        assert_eq!(sketch.estimate(7), 15);
        (0..5105).for_each(|tag| sketch.add(1000 + tag));
        assert!((7..=8).contains(&sketch.estimate(7)), "{}", sketch.estimate(7));
    }

    #[test]
    fn a_trimmed_sketch_is_smaller_and_still_tells_what_was_frequent() {
        let mut sketch = Sketch::default();
        sketch.ensure_entries(1 << 14);
        (0..1000).for_each(|tag| (0..tag % 2 * 12).for_each(|_| sketch.add(tag)));
        sketch.trim(1000);
        assert_eq!(sketch.footprint_bytes(), 8 * 2048);
        let (rare, frequent): (Vec<u32>, Vec<u32>) = (0..1000).partition(|tag| tag % 2 == 0);
        let sum = |tags: Vec<u32>| tags.into_iter().map(|tag| sketch.estimate(tag)).sum::<u32>();
        let (rare, frequent) = (sum(rare), sum(frequent));
        assert!(frequent > 4 * rare, "{frequent} and {rare}");
        sketch.trim(1000);
        assert_eq!(sketch.footprint_bytes(), 8 * 2048);
    }

    #[test]
    fn a_sketch_without_room_counts_nothing() {
        let mut sketch = Sketch::default();
        sketch.add(1);
        assert_eq!((sketch.estimate(1), sketch.footprint_bytes()), (0, 0));
        sketch.ensure_entries(1000);
        assert_eq!(sketch.footprint_bytes(), 8 * 1024);
    }
}
