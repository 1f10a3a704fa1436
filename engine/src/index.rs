//! The index: from a hash to the places that may hold its key, whatever a place is to the owner: a cell of memory in the
//! store, a slot elsewhere.
//!
//! Buckets are a cache line each: twelve places, twelve one-byte tags of their hashes, and eight counts of
//! the entries that found this bucket full and went on to the next, by three bits of their tags. A look-up reads one
//! line in most cases, also of a key that is not there, and never follows a pointer. No key and no hash is kept: where buckets have to be filled
//! anew, the owner is asked for the hashes.
//!
//! The buckets are divided into segments that grow on their own and by a fifth at a time, so that
//! growing stalls nobody for long and little of the memory is empty. No two segments are as far in that as each other, so that
//! an entry costs about the same whatever their number: 7 to 8 bytes. Larger segments are whole pages, and leave nothing behind when they grow.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::{equal_bytes, prefetch_address, prefetch_one};
use crate::policy::Slot;
use crate::zone::Block;

const LANES: usize = 12;
const SEGMENTS: usize = 64;
/// Entries per bucket above which a segment grows: 12 lanes at a load of 0.79.
const FULL: u32 = 38; // quarters of an entry per bucket: 9.5
/// How often there is room for the entries of a segment when it shrinks to half of that.
const SPARSE: u32 = 4;

/// Room that a segment need not give back.
const KEPT: u32 = 82;
/// Buckets of a page of the system.
const PAGE: usize = 4096 / size_of::<Bucket>();
/// Segments of more buckets than this are made of whole pages.
const FEW: usize = 32;
/// Entries with room for which segments begin to differ from each other in size.
const DIVERGED: u32 = 160;

/// Mean bytes of an entry in the index.
pub(crate) const INDEX_BYTES_PER_ENTRY: usize = 8;

/// What is found under a hash: where its owner keeps an entry, as 32 bits.
pub(crate) trait Place: Copy + Eq + std::fmt::Debug {
    /// The place that these bits were made of.
    fn from_bits(bits: u32) -> Self;

    /// What the index keeps of it.
    fn bits(self) -> u32;
}

impl Place for Slot {
    #[inline]
    fn from_bits(bits: u32) -> Self {
        Self::new(bits)
    }

    #[inline]
    fn bits(self) -> u32 {
        self.get()
    }
}

#[derive(Clone)]
#[repr(align(64))]
struct Bucket {
    /// A tag for each lane, 0 where it is empty. Then, in four bytes, the [`Passed`]. Together, since sixteen bytes are
    /// compared at once.
    head: [u8; LANES + size_of::<u32>()],
    places: [u32; LANES],
}

const EMPTY: Bucket = Bucket { head: [0; LANES + size_of::<u32>()], places: [0; LANES] };

/// Reads what a place holds. No closure, since compilers would not make one of this size part of a look-up.
pub(crate) trait Reader<P> {
    /// What is read at a place that holds the key which is looked for.
    type Found;

    /// `None` where it holds another one.
    fn read(&mut self, place: P) -> Option<Self::Found>;
}

impl<P, T, F: FnMut(P) -> Option<T>> Reader<P> for F {
    type Found = T;

    fn read(&mut self, place: P) -> Option<T> {
        self(place)
    }
}

#[derive(Default)]
struct Segment {
    buckets: Block<Bucket>,
    len: u32,
    /// Entries above which it grows.
    room: u32,
}

/// Room for a fifth more entries; and once, on the way up, for a part of that which differs from segment to segment.
fn more(room: u32, segment: usize) -> u32 {
    let more = (room / 5).max(FULL / 2);
    let segment = u32::try_from(segment).expect("there are 64");
    let crosses = room < DIVERGED && room + more >= DIVERGED;
    room + if crosses { 1 + ((more * segment) >> SEGMENTS.ilog2()) } else { more }
}

/// Buckets for so many entries.
const fn buckets_for(room: u32) -> usize {
    let buckets = (room * 4).div_ceil(FULL) as usize;
    if buckets <= FEW {
        return buckets;
    }
    // What is little more than whole pages does without that.
    let little = if buckets / 16 < PAGE / 4 { buckets / 16 } else { PAGE / 4 };
    (buckets - little).div_ceil(PAGE) * PAGE
}

/// Where the buckets of some indexes lie: for those who may not look into an index yet, since they still have to acquire its lock, and
/// want to ask for a bucket meanwhile. What they are told may be out of date; nothing is read there.
#[derive(Clone)]
pub(crate) struct Signposts(Arc<[AtomicU64]>);

impl Signposts {
    const BUCKETS_BITS: u32 = 22;

    /// To so many indexes.
    pub(crate) fn new(indexes: usize) -> Self {
        Self((0..indexes * SEGMENTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Asks for the bucket of a hash in an index.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize, hash: u64) {
        let signpost = self.0[index * SEGMENTS + segment_of(hash)].load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "it was made of an address and a number")]
        let (line, buckets) =
            ((signpost >> Self::BUCKETS_BITS) as usize, signpost as usize & ((1 << Self::BUCKETS_BITS) - 1));
        prefetch_address(line.wrapping_add(home_of(hash, buckets)).wrapping_mul(size_of::<Bucket>()));
    }
}

/// The part of [`Signposts`] that leads to one index.
#[derive(Clone)]
pub(crate) struct Signpost {
    pub(crate) among: Signposts,
    pub(crate) index: usize,
}

impl Signpost {
    /// Addresses have 48 bits on common processors. Where one has more, or there are too many buckets, another line is asked for in vain.
    fn of(buckets: &[Bucket]) -> u64 {
        let line = (buckets.as_ptr().addr() / size_of::<Bucket>()) as u64;
        line << Signposts::BUCKETS_BITS | buckets.len() as u64
    }

    fn at(&self, segment: usize) -> &AtomicU64 {
        &self.among.0[self.index * SEGMENTS + segment]
    }

    fn set(&self, segment: usize, buckets: &[Bucket]) {
        self.at(segment).store(Self::of(buckets), Ordering::Relaxed);
    }
}

/// Which places may hold a key, by its hash.
pub(crate) struct Index<P> {
    segments: Box<[Segment; SEGMENTS]>,
    signpost: Signpost,
    /// Of all segments.
    buckets: usize,
    places: PhantomData<P>,
}

// The store takes the highest bits of a hash to choose a shard; what is left is divided among the
// three uses here, so that they are independent of each other.
const fn segment_of(hash: u64) -> usize {
    (hash >> 48) as usize % SEGMENTS
}

/// A number below `buckets`, by the hash's bits 16 to 47 (Lemire's multiplication).
const fn home_of(hash: u64, buckets: usize) -> usize {
    ((((hash >> 16) & 0xFFFF_FFFF) * buckets as u64) >> 32) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "the tag is one byte")]
const fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == 0 { 1 } else { tag }
}

/// Tags as the bits of lanes, from the lowest.
struct Lanes(u32);

impl Iterator for Lanes {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let lane = (self.0 != 0).then_some(self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        lane
    }
}

impl Bucket {
    /// The lanes whose tag is this one.
    #[inline]
    fn lanes_with(&self, tag: u8) -> Lanes {
        Lanes(equal_bytes(self.head, [tag; LANES + size_of::<u32>()]) & ((1 << LANES) - 1))
    }

    #[inline]
    fn passed(&self) -> Passed {
        let [.., a, b, c, d] = self.head;
        Passed(u32::from_le_bytes([a, b, c, d]))
    }

    fn set_passed(&mut self, Passed(counts): Passed) {
        self.head[LANES..].copy_from_slice(&counts.to_le_bytes());
    }
}

/// How many entries there are whose search starts at or before a bucket and that live beyond it: eight counts of four bits,
/// by their tag. A count that was once at its end stays there until the bucket is filled anew.
#[derive(Clone, Copy)]
struct Passed(u32);

impl Passed {
    const MOST: u32 = 15;

    const fn shift(tag: u8) -> u32 {
        (tag as u32 & 7) * 4
    }

    #[inline]
    const fn count(self, tag: u8) -> u32 {
        self.0 >> Self::shift(tag) & Self::MOST
    }

    /// Whether an entry with this tag may live beyond.
    #[inline]
    const fn any(self, tag: u8) -> bool {
        self.count(tag) > 0
    }

    const fn one_more(self, tag: u8) -> Self {
        if self.count(tag) == Self::MOST { self } else { Self(self.0 + (1 << Self::shift(tag))) }
    }

    fn one_less(self, tag: u8) -> Self {
        match self.count(tag) {
            0 => unreachable!("an indexed slot is found on its way"),
            Self::MOST => self,
            _ => Self(self.0 - (1 << Self::shift(tag))),
        }
    }
}

impl Segment {
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// What the reader finds at the first place under this hash at which it finds something. Nearly every search is over
    /// with the first lane that has its tag, or has none: so that much is made part of the caller, without a loop.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as for the next")]
    fn find<P: Place, R: Reader<P>>(&self, hash: u64, mut reader: R) -> Option<R::Found> {
        let bucket = self.buckets.get(home_of(hash, self.buckets.len()))?;
        let tag = tag_of(hash);
        match bucket.lanes_with(tag).next() {
            Some(lane) => match reader.read(P::from_bits(bucket.places[lane])) {
                Some(found) => Some(found),
                None => self.find_among_all(hash, reader),
            },
            None if !bucket.passed().any(tag) => None,
            None => self.find_among_all(hash, reader),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_among_all<P: Place, R: Reader<P>>(&self, hash: u64, mut reader: R) -> Option<R::Found> {
        let tag = tag_of(hash);
        let mut at = home_of(hash, self.buckets.len());
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for lane in bucket.lanes_with(tag) {
                if let Some(found) = reader.read(P::from_bits(bucket.places[lane])) {
                    return Some(found);
                }
            }
            if !bucket.passed().any(tag) {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// There must be an empty lane.
    fn put(&mut self, hash: u64, place: u32) {
        let tag = tag_of(hash);
        let mut at = home_of(hash, self.buckets.len());
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(lane) = bucket.lanes_with(0).next() {
                bucket.head[lane] = tag;
                bucket.places[lane] = place;
                return;
            }
            bucket.set_passed(bucket.passed().one_more(tag));
            at = self.after(at);
        }
    }

    fn replace(&mut self, hash: u64, place: u32, by: u32) {
        let tag = tag_of(hash);
        let mut at = home_of(hash, self.buckets.len());
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(lane) = bucket.lanes_with(tag).find(|&lane| bucket.places[lane] == place) {
                bucket.places[lane] = by;
                return;
            }
            at = self.after(at);
        }
        unreachable!("place {place:#x} is not in the index");
    }

    #[inline]
    fn take(&mut self, hash: u64, place: u32) {
        let tag = tag_of(hash);
        let mut at = home_of(hash, self.buckets.len());
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(lane) = bucket.lanes_with(tag).find(|&lane| bucket.places[lane] == place) {
                bucket.head[lane] = 0;
                return;
            }
            // Whoever lives beyond was counted on the way.
            bucket.set_passed(bucket.passed().one_less(tag));
            at = self.after(at);
        }
        unreachable!("place {place:#x} is not in the index");
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().flat_map(|bucket| {
            (0..LANES).filter(|&lane| bucket.head[lane] != 0).map(|lane| bucket.places[lane])
        })
    }

    #[cold]
    fn make_room(&mut self, room: u32, hash_of: impl Fn(u32) -> u64) {
        self.room = room;
        let buckets = buckets_for(room);
        if buckets == self.buckets.len() {
            return;
        }
        let mut fresh = Self { buckets: Block::filled(EMPTY, buckets), len: self.len, room };
        for place in self.places() {
            fresh.put(hash_of(place), place);
        }
        *self = fresh;
    }
}

impl<P: Place> Default for Index<P> {
    fn default() -> Self {
        Self::new(Signpost { among: Signposts::new(1), index: 0 })
    }
}

impl<P: Place> Index<P> {
    /// An empty index, which this leads to from now on.
    pub(crate) fn new(signpost: Signpost) -> Self {
        let segments: Box<[Segment; SEGMENTS]> = Box::new(std::array::from_fn(|_| Segment::default()));
        for (number, segment) in segments.iter().enumerate() {
            signpost.set(number, &segment.buckets);
        }
        Self { segments, signpost, buckets: 0, places: PhantomData }
    }

    pub(crate) const fn signpost(&self) -> &Signpost {
        &self.signpost
    }

    /// What the reader finds at the place under this hash at which it finds something.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a call would hand over all that was read: 40 instructions of a get"
    )]
    pub(crate) fn find<R: Reader<P>>(&self, hash: u64, reader: R) -> Option<R::Found> {
        self.segments[segment_of(hash)].find(hash, reader)
    }

    /// Asks for the bucket of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let buckets = &self.segments[segment_of(hash)].buckets;
        prefetch_one(buckets.get(home_of(hash, buckets.len())));
    }

    /// Enters a place that is not in the index. `hash_of` is asked about those that already are. Whether it had to grow.
    pub(crate) fn insert(&mut self, hash: u64, place: P, hash_of: impl Fn(P) -> u64) -> bool {
        let number = segment_of(hash);
        let segment = &mut self.segments[number];
        let is_full = segment.len == segment.room;
        if is_full {
            let buckets = segment.buckets.len();
            segment.make_room(more(segment.room, number), |bits| hash_of(P::from_bits(bits)));
            self.buckets += segment.buckets.len() - buckets;
            self.signpost.set(number, &segment.buckets);
        }
        segment.put(hash, place.bits());
        segment.len += 1;
        is_full
    }

    /// Takes a place out that was entered under this hash. `hash_of` is asked about the others.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, place: P, hash_of: impl Fn(P) -> u64) {
        let segment = &mut self.segments[segment_of(hash)];
        segment.take(hash, place.bits());
        segment.len -= 1;
        if segment.room > KEPT && segment.len < segment.room / SPARSE {
            let buckets = segment.buckets.len();
            segment.make_room(segment.room / 2, |bits| hash_of(P::from_bits(bits)));
            self.buckets -= buckets - segment.buckets.len();
            self.signpost.set(segment_of(hash), &segment.buckets);
        }
    }

    /// Enters another place instead of one that was entered under this hash.
    pub(crate) fn replace(&mut self, hash: u64, place: P, by: P) {
        self.segments[segment_of(hash)].replace(hash, place.bits(), by.bits());
    }

    /// Bytes that this many entries cost above the mean: where far fewer are left than there were. A page of each segment is
    /// nobody's concern.
    pub(crate) const fn excess_bytes(&self, entries: u64) -> u64 {
        const FEW: u64 = (SEGMENTS * PAGE * size_of::<Bucket>()) as u64;
        let buckets = (self.buckets * size_of::<Bucket>()) as u64;
        buckets.saturating_sub(entries * INDEX_BYTES_PER_ENTRY as u64 + FEW)
    }

    /// Number of places in the index.
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len as usize).sum()
    }

    /// Bytes of memory held.
    pub(crate) fn footprint_bytes(&self) -> usize {
        let buckets: usize = self.segments.iter().map(|segment| segment.buckets.footprint_bytes()).sum();
        buckets + SEGMENTS * size_of::<Segment>()
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub(crate) fn check_invariants(&self, hash_of: impl Fn(P) -> u64) {
        let buckets: usize = self.segments.iter().map(|segment| segment.buckets.len()).sum();
        assert_eq!(self.buckets, buckets, "buckets are counted");
        for (number, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.len as usize, segment.places().count(), "a segment counts its places");
            assert_eq!(
                segment.buckets.len(),
                buckets_for(segment.room),
                "a segment has buckets for its room"
            );
            let signpost = self.signpost.at(number).load(Ordering::Relaxed);
            assert_eq!(signpost, Signpost::of(&segment.buckets), "the signpost leads to the buckets");
            for place in segment.places().map(P::from_bits) {
                let hash = hash_of(place);
                assert_eq!(segment_of(hash), number, "{place:?} is in its segment");
                let found = segment.find(hash, |other: P| (other == place).then_some(()));
                assert_eq!(found, Some(()), "{place:?} is found");
            }
            let mut passed = vec![[0_u32; 8]; segment.buckets.len()];
            for (place, bucket) in segment.buckets.iter().enumerate() {
                for lane in (0..LANES).filter(|&lane| bucket.head[lane] != 0) {
                    let mut at = home_of(hash_of(P::from_bits(bucket.places[lane])), segment.buckets.len());
                    while at != place {
                        passed[at][usize::from(bucket.head[lane] % 8)] += 1;
                        at = segment.after(at);
                    }
                }
            }
            for (bucket, passed) in segment.buckets.iter().zip(passed) {
                for (tag, passed) in (0..).zip(passed) {
                    let counted = bucket.passed().count(tag);
                    let is_at_its_end = counted == Passed::MOST;
                    assert!(is_at_its_end || counted == passed, "a bucket counts who went on");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_exactly_what_a_map_would(
            steps in prop::collection::vec((0..400_u32, 0..5_u32), 1..2000),
            // Few bits, so that hashes collide as a whole and in their parts.
            mask in prop_oneof![Just(u64::MAX), Just(0x3_0007_0000_0003), Just(0xFF)],
        ) {
            // Two slots for each hash, between which an entry may change.
            let hash_of = |slot: Slot| {
                (u64::from(slot.get() / 2) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) & mask
            };
            let mut index = Index::default();
            let mut model = HashSet::new();
            for (number, step) in steps {
                let (slot, other) = (Slot::new(number), Slot::new(number ^ 1));
                let hash = hash_of(slot);
                match (step, model.contains(&slot)) {
                    (0..=1, false) => {
                        index.insert(hash, slot, hash_of);
                        model.insert(slot);
                    }
                    (2, true) => {
                        index.remove(hash, slot, hash_of);
                        model.remove(&slot);
                    }
                    (3, true) if !model.contains(&other) => {
                        index.replace(hash, slot, other);
                        model.remove(&slot);
                        model.insert(other);
                    }
                    (_, there) => {
                        let found = index.find(hash, |other| (other == slot).then_some(()));
                        prop_assert_eq!(found.is_some(), there);
                    }
                }
            }
            index.check_invariants(hash_of);
            prop_assert_eq!(index.len(), model.len());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn an_entry_costs_what_the_budget_says_at_any_size() {
        let hash_of = |slot: Slot| {
            let mixed = (u64::from(slot.get()) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
        };
        let mut index = Index::default();
        for number in 0..200_000_u32 {
            let slot = Slot::new(number);
            index.insert(hash_of(slot), slot, hash_of);
            if number >= 50_000 && number % 10_000 == 0 {
                let each = index.footprint_bytes() * 10 / number as usize;
                // With a page or two for a segment, half a page is much.
                let most = if number < 100_000 { 106 } else { 86 };
                assert!((64..=most).contains(&each), "{each} tenths of a byte at {number}");
            }
        }
        assert!(index.excess_bytes(50_000) > 700_000, "empty buckets are told");
        for number in 0..199_000_u32 {
            let slot = Slot::new(number);
            index.remove(hash_of(slot), slot, hash_of);
        }
        assert!(index.footprint_bytes() < 64 * 1024, "memory goes back when entries go");
        assert_eq!(index.excess_bytes(0), 0, "a few buckets are nobody's concern");
        index.check_invariants(hash_of);
    }
}
