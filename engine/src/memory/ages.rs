//! Ages: how old and how idle entries are when they are evicted, measured on a sample.
//!
//! Whether a cache is too small shows in what it evicts: entries that were read a moment ago, or
//! entries that nobody has wanted for hours. To date every entry would cost each of them 16 bytes and
//! each hit a reading of the clock. So one newcomer in 64, by bits of its hash that neither the choice of
//! a shard nor the index uses, is dated in a table of its own; a hit on any other costs a test of
//! its hash. The table is bounded: where it is full, the sample is halved, and with it the share of
//! newcomers that join it.
//!
//! What the sample's evictions have come to waits in a buffer until somebody takes it. Where nobody
//! comes in time, every other eviction is dropped, then three of four, and so on: what is left is
//! spread evenly over the whole time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::policy::Slot;
use crate::store::EvictionSample;

/// One in 64.
const FIRST_MASK: u32 = 63;
/// Bits of a hash below these tell the entries of a bucket apart.
const UNUSED_BITS_FROM: u32 = 8;
const MOST_DATED: usize = 4096;
/// Even, so that halving them keeps the first of every stride.
const MOST_WAITING: usize = 512;

struct Dates {
    hash_bits: u32,
    stored_nanos: u64,
    used_nanos: u64,
}

/// Spreads slots over a hash table. They come from the allocator of slots, so nobody can choose them.
#[derive(Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a slot is hashed as a u32");
    }

    fn write_u32(&mut self, slot: u32) {
        self.0 = u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The dated entries of a shard, and what became of those that were evicted.
pub(super) struct Ages {
    /// Entries whose hash has none of these bits are dated.
    mask: u32,
    dated: HashMap<u32, Dates, BuildHasherDefault<SlotHasher>>,
    pub(super) evictions: Evictions,
}

impl Default for Ages {
    fn default() -> Self {
        Self { mask: FIRST_MASK, dated: HashMap::default(), evictions: Evictions::default() }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "32 of the bits are enough to choose from")]
const fn hash_bits(hash: u64) -> u32 {
    (hash >> UNUSED_BITS_FROM) as u32
}

impl Ages {
    /// Whether an entry with this hash is dated as it comes in.
    pub(super) const fn samples(&self, hash: u64) -> bool {
        hash_bits(hash) & self.mask == 0
    }

    /// An entry of the sample was stored in a slot that is not dated.
    #[cold]
    pub(super) fn stored(&mut self, slot: Slot, hash: u64, now_nanos: u64) {
        debug_assert!(self.samples(hash), "others are not dated");
        while self.dated.len() >= MOST_DATED {
            self.mask = self.mask << 1 | 1;
            self.dated.retain(|_, dates| dates.hash_bits & self.mask == 0);
        }
        // The sample may have been halved to less than this one.
        if self.samples(hash) {
            let dates = Dates { hash_bits: hash_bits(hash), stored_nanos: now_nanos, used_nanos: now_nanos };
            self.dated.insert(slot.get(), dates);
        }
    }

    /// An entry of the sample was read.
    #[cold]
    pub(super) fn used(&mut self, slot: Slot, now_nanos: u64) {
        if let Some(dates) = self.dated.get_mut(&slot.get()) {
            dates.used_nanos = now_nanos;
        }
    }

    /// An entry, of the sample or not, was removed for another reason than room.
    #[cold]
    pub(super) fn removed(&mut self, slot: Slot) {
        self.dated.remove(&slot.get());
    }

    /// An entry, of the sample or not, has another slot from now on.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) {
        if let Some(dates) = self.dated.remove(&from.get()) {
            self.dated.insert(to.get(), dates);
        }
    }

    /// An entry of the sample was evicted.
    #[cold]
    pub(super) fn evicted(&mut self, slot: Slot, now_nanos: u64) {
        if let Some(dates) = self.dated.remove(&slot.get()) {
            let since = |then: u64| Duration::from_nanos(now_nanos.saturating_sub(then));
            let (age, idle) = (since(dates.stored_nanos), since(dates.used_nanos));
            self.evictions.push(EvictionSample { age, idle });
        }
    }

    /// Checks that whoever is dated is resident, under a hash of the sample.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(super) fn check_invariants(&self, resident_hash: impl Fn(Slot) -> Option<u64>) {
        assert!(self.dated.len() <= MOST_DATED, "the sample is bounded");
        for (&slot, dates) in &self.dated {
            let hash = resident_hash(Slot::new(slot)).expect("who is dated is resident");
            assert_eq!(hash_bits(hash), dates.hash_bits, "slot {slot} was dated under its hash");
            assert!(self.samples(hash), "slot {slot} belongs to the sample");
            assert!(dates.stored_nanos <= dates.used_nanos, "slot {slot} was used after it came");
        }
    }
}

/// Evictions that wait to be taken: all, or evenly chosen ones where there were too many.
#[derive(Default)]
pub(super) struct Evictions {
    kept: Vec<EvictionSample>,
    /// One in 2^this is kept.
    thinned: u32,
    seen: u64,
}

impl Evictions {
    fn push(&mut self, sample: EvictionSample) {
        if self.seen.trailing_zeros() >= self.thinned {
            if self.kept.len() == MOST_WAITING {
                self.thinned += 1;
                let mut first = false;
                self.kept.retain(|_| {
                    first = !first;
                    first
                });
            }
            self.kept.push(sample);
        }
        self.seen += 1;
    }

    /// What waits. How many were seen, kept or not, since the last call.
    pub(super) fn take(&mut self) -> (Vec<EvictionSample>, u64) {
        let Self { kept, seen, .. } = std::mem::take(self);
        (kept, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64) -> EvictionSample {
        EvictionSample { age: Duration::from_secs(seconds), idle: Duration::ZERO }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn too_many_evictions_are_thinned_evenly() {
        // Seen, kept, and the distance between those that were.
        for (seen, kept, stride) in
            [(0, 0, 1), (512, 512, 1), (513, 257, 2), (1024, 512, 2), (1025, 257, 4), (1_000_000, 489, 2048)]
        {
            let mut evictions = Evictions::default();
            (0..seen).for_each(|number| evictions.push(sample(number)));
            let expected: Vec<_> = (0..kept).map(|number| sample(number * stride)).collect();
            assert_eq!(evictions.take(), (expected, seen), "of {seen}");
            evictions.push(sample(7));
            assert_eq!(evictions.take(), (vec![sample(7)], 1), "it starts anew");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn the_sample_is_halved_where_it_is_full() {
        let mut ages = Ages::default();
        let hash = |slot: u32| u64::from(slot) << (UNUSED_BITS_FROM + FIRST_MASK.trailing_ones());
        let most = u32::try_from(MOST_DATED).expect("some thousands");
        let all = 3 * most;
        for slot in 0..all {
            assert!(slot >= most || ages.samples(hash(slot)));
            if ages.samples(hash(slot)) {
                ages.stored(Slot::new(slot), hash(slot), u64::from(slot));
            }
            ages.check_invariants(|slot| Some(hash(slot.get())));
        }
        // Halved twice, and every fourth of all is in it, early or late.
        assert_eq!(ages.dated.len(), 3 * MOST_DATED / 4);
        assert!((0..all).step_by(4).all(|slot| ages.dated.contains_key(&slot)));
    }
}
