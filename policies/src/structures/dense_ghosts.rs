//! Ghosts in four bytes each: a bucketed table of short fingerprints and coarse times.
//!
//! It answers the one question for which there are ghost queues, "did this leave not long ago?", without links and
//! without an index. A cell holds what its bucket does not tell about a fingerprint, and the tick in which it was
//! pushed. A tick is a sixty-fourth of the table's cells in pushes; a ring holds how many ghosts, and of which
//! weight, are left of each. That makes it a first-in-first-out queue that forgets a tick at a time.
//! Approximate in three ways, each small: fingerprints of [`DENSE_BITS`] bits may be equal, ages are rounded to
//! ticks, and where both of a fingerprint's buckets are full, the oldest ghost in them is forgotten early.
//!
//! Yang, Zhang, Qiu, Yue and Rashmi keep the ghosts of S3-FIFO in such a table (SOSP 2023). The second bucket is the
//! one of cuckoo filters (Fan et al., CoNEXT 2014), without moving anything.

use engine::{Table, prefetch_one};

/// Bits of a fingerprint that count. A policy may keep so many, and no more, of a resident entry's.
pub const DENSE_BITS: u32 = 29;

/// Cells of a bucket, which three bits tell apart.
const BUCKET: usize = 8;
/// Cells per ghost, in percent: buckets fill unevenly.
const CELLS_PERCENT: usize = 105;
/// Low bits of a cell, which hold the low bits of its fingerprint. The others hold the time.
const REST_BITS: u32 = 23;
const REST: u32 = (1 << REST_BITS) - 1;
/// Different times that a cell can hold. Many more than [`TICKS`] and those of a full sweep.
const CYCLE: u32 = 1 << (u32::BITS - REST_BITS);
/// The age of a cell that no ghost is in, as the sweep finds and leaves it; it is older than any ghost until the next sweep.
const EMPTY_AGE: u32 = CYCLE / 2;
/// Ticks that ghosts can live for, if so few of them are left that the queue never fills up.
const TICKS: usize = 128;
/// Ticks in which as many ghosts are pushed as there are cells.
const TICKS_PER_TABLE: usize = 64;
/// Buckets from which on they are asked for before they are needed: more than processors have near them.
const FAR: usize = 1 << 13;
/// Pushes after which the sweep goes on by a bucket, so that no ghost that is over is mistaken for one a cycle younger. It
/// goes round once while [`TICKS_PER_TABLE`] pass and a few pushes more.
const PUSHES_PER_SWEEP: usize = BUCKET;

/// Fingerprints pushed lately, up to a weight and a number, at about four bytes each.
#[derive(Default)]
pub struct DenseGhosts {
    /// Cells: a time above, the rest of a fingerprint below. Whether it is a ghost is a question of its age alone.
    buckets: Table<[u32; BUCKET]>,
    /// Ghosts left of each tick, by its number modulo [`TICKS`], and their weight.
    ring: Vec<Tick>,
    /// The current tick, and the oldest of which there may be ghosts.
    now: u64,
    oldest: u64,
    pushes_in_tick: usize,
    pushes_since_sweep: usize,
    /// The bucket that the sweep goes on at.
    sweep: usize,
    limit: Tick,
    held: Tick,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Tick {
    weight: u64,
    ghosts: u32,
}

/// The bits of a fingerprint that count, well mixed.
#[must_use]
pub const fn dense_fingerprint(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - DENSE_BITS)) as u32
}

impl DenseGhosts {
    /// Sets how many ghosts, of which weight together, are remembered from now on. A table that is too small
    /// for the number, or much too large, is replaced by an empty one: it should change rarely.
    pub fn set_limit(&mut self, weight: u64, ghosts: u32) {
        self.limit = Tick { weight, ghosts };
        let ghosts = ghosts as usize;
        let cells = self.buckets.len() * BUCKET;
        if ghosts > cells || cells > 2 * (ghosts + BUCKET) {
            let buckets = (ghosts * CELLS_PERCENT / 100).div_ceil(BUCKET);
            // Time begins such that cells of zeroes are empty.
            let now = u64::from(EMPTY_AGE);
            let buckets = Table::zeroed(buckets);
            *self = Self { limit: self.limit, buckets, now, oldest: now, ..Self::default() };
            self.ring = vec![Tick::default(); if ghosts == 0 { 0 } else { TICKS }];
        }
    }

    /// Makes a fingerprint the most recent ghost. One that is heavier than all may be together is not remembered.
    pub fn push(&mut self, fingerprint: u32, weight: u32) {
        let weight = u64::from(weight);
        if self.limit.ghosts == 0 || weight > self.limit.weight {
            return;
        }
        self.pushes_since_sweep += 1;
        if self.pushes_since_sweep == PUSHES_PER_SWEEP {
            self.sweep_on();
        }
        if self.pushes_in_tick == (self.buckets.len() * BUCKET).div_ceil(TICKS_PER_TABLE) {
            self.begin_tick();
        }
        self.pushes_in_tick += 1;
        self.make_room(weight);
        let (first, second) = self.buckets_of(fingerprint);
        let place = self.survey(first).max(self.survey(second));
        let cell = self.stored_now() << REST_BITS | fingerprint & REST;
        let before = std::mem::replace(&mut self.buckets[place.bucket()][place.cell()], cell);
        // A branch would depend on chance, and on memory that is far away.
        self.count_off(before, u32::from(!place.is_free()));
        let tick = &mut self.ring[ring_place(self.now)];
        (tick.ghosts, tick.weight) = (tick.ghosts + 1, tick.weight + weight);
        (self.held.ghosts, self.held.weight) = (self.held.ghosts + 1, self.held.weight + weight);
    }

    /// Asks for what a fingerprint that will be pushed soon leads to, where that is far away.
    pub fn prefetch(&self, fingerprint: u32) {
        if self.buckets.len() >= FAR {
            let (first, second) = self.buckets_of(fingerprint);
            prefetch_one(self.buckets.get(first));
            prefetch_one(self.buckets.get(second));
        }
    }

    /// Forgets a fingerprint. Returns whether it was remembered.
    pub fn take(&mut self, fingerprint: u32) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let (first, second) = self.buckets_of(fingerprint);
        let alike = |cell: u32| (cell ^ fingerprint) & REST == 0;
        // All at once, since none is alike in most cases.
        let (one, other) = (self.buckets[first], self.buckets[second]);
        let any = one.iter().zip(other).fold(false, |any, (&one, other)| any | alike(one) | alike(other));
        any && (self.take_from(first, alike) || self.take_from(second, alike))
    }

    /// Forgets the first such ghost of a bucket. Returns whether there was one.
    fn take_from(&mut self, bucket: usize, alike: impl Fn(u32) -> bool) -> bool {
        let found = self.buckets[bucket].iter().position(|&cell| alike(cell) && self.is_ghost(cell));
        if let Some(place) = found {
            let empty = self.empty();
            let ghost = std::mem::replace(&mut self.buckets[bucket][place], empty);
            self.count_off(ghost, 1);
        }
        found.is_some()
    }

    /// Number of ghosts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.held.ghosts as usize
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.held.ghosts == 0
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.buckets.footprint_bytes() + self.ring.capacity() * size_of::<Tick>()
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        let mut left = vec![0; self.ring.len()];
        for &cell in self.buckets.iter().flatten() {
            if self.is_ghost(cell) {
                left[ring_place(self.now - u64::from(self.age(cell)))] += 1;
            } else {
                assert!(self.age(cell) < CYCLE - EMPTY_AGE / 2, "the sweep comes before a cycle is over");
            }
        }
        let told = self.ring.iter().map(|tick| tick.ghosts).collect::<Vec<u32>>();
        assert_eq!(left, told, "the ring counts the ghosts left of each tick");
        assert_eq!(told.iter().sum::<u32>(), self.held.ghosts, "ghosts held");
        assert_eq!(self.ring.iter().map(|tick| tick.weight).sum::<u64>(), self.held.weight, "weight held");
        assert!(self.now - self.oldest < TICKS as u64, "no two ticks share a place in the ring");
    }

    /// Both buckets of a fingerprint.
    fn buckets_of(&self, fingerprint: u32) -> (usize, usize) {
        let buckets = self.buckets.len();
        let first = (fingerprint as usize * buckets) >> DENSE_BITS;
        // Each bucket is the other's mirror image, whichever of the two one starts from.
        let mirror = ((fingerprint & REST).wrapping_mul(0x9E37_79B1) as usize * buckets) >> u32::BITS;
        let second = if mirror >= first { mirror - first } else { mirror + buckets - first };
        (first, second)
    }

    /// The cell of a bucket that a push would take: the first of the oldest.
    #[inline]
    fn survey(&self, bucket: usize) -> Place {
        let oldest = short(self.oldest_age());
        // In sixteen bits, since processors compare eight of those at once.
        let ages = self.buckets[bucket].map(|cell| short(age(self.stored_now(), cell)));
        let free = ages.into_iter().map(|age| u16::from(age > oldest)).sum::<u16>();
        // The age above, and below it how far the cell is from the bucket's end.
        let rank = |(age, before_end)| (if age > oldest { short(EMPTY_AGE) } else { age }) << 3 | before_end;
        let best = ages.into_iter().zip((0..8).rev()).map(rank).fold(0, u16::max);
        let cell = BUCKET - 1 - usize::from(best) % BUCKET;
        Place::new(free.into(), (best >> 3).into(), bucket * BUCKET + cell)
    }

    fn sweep_on(&mut self) {
        self.pushes_since_sweep = 0;
        let (now, oldest, empty) = (self.stored_now(), self.oldest_age(), self.empty());
        let cells = &mut self.buckets[self.sweep];
        *cells = cells.map(|cell| if age(now, cell) > oldest { empty } else { cell });
        self.sweep = if self.sweep + 1 == self.buckets.len() { 0 } else { self.sweep + 1 };
    }

    fn begin_tick(&mut self) {
        if self.now - self.oldest + 1 == TICKS as u64 {
            self.forget_oldest_tick();
        }
        self.now += 1;
        self.pushes_in_tick = 0;
    }

    /// Forgets ticks until one more ghost fits, if half of the oldest tick is counted as forgotten already.
    fn make_room(&mut self, weight: u64) {
        loop {
            let oldest = self.ring[ring_place(self.oldest)];
            let ghosts = self.held.ghosts + 1 - oldest.ghosts / 2;
            let weight = self.held.weight + weight - oldest.weight / 2;
            if ghosts <= self.limit.ghosts && weight <= self.limit.weight {
                return;
            }
            if self.oldest == self.now {
                // Few, but heavier than expected. What is forgotten is forgotten by ticks.
                return;
            }
            self.forget_oldest_tick();
        }
    }

    fn forget_oldest_tick(&mut self) {
        let tick = std::mem::take(&mut self.ring[ring_place(self.oldest)]);
        self.held.ghosts -= tick.ghosts;
        self.held.weight -= tick.weight;
        self.oldest += 1;
    }

    /// Takes what was in a cell out of what is counted, if that was one ghost and not none. Its weight is taken to be the
    /// mean of its tick.
    fn count_off(&mut self, before: u32, ghosts: u32) {
        let place = ring_place(self.now.wrapping_sub(u64::from(self.age(before))));
        let tick = &mut self.ring[place];
        // A division takes as long as all the rest, and where items are counted there is no need of one.
        let mean =
            if tick.weight == u64::from(tick.ghosts) { 1 } else { tick.weight / u64::from(tick.ghosts) };
        let weight = u64::from(ghosts) * mean;
        (tick.ghosts, tick.weight) = (tick.ghosts - ghosts, tick.weight - weight);
        (self.held.ghosts, self.held.weight) = (self.held.ghosts - ghosts, self.held.weight - weight);
    }

    #[inline]
    fn is_ghost(&self, cell: u32) -> bool {
        self.age(cell) <= self.oldest_age()
    }

    /// What is in a cell that no ghost is in.
    const fn empty(&self) -> u32 {
        self.stored_now().wrapping_sub(EMPTY_AGE) << REST_BITS
    }

    /// Ticks since a ghost was pushed.
    const fn age(&self, cell: u32) -> u32 {
        age(self.stored_now(), cell)
    }

    /// How old the oldest ghosts are, in ticks.
    #[expect(clippy::cast_possible_truncation, reason = "less than TICKS")]
    const fn oldest_age(&self) -> u32 {
        (self.now - self.oldest) as u32
    }

    /// The current tick as cells store it.
    #[expect(clippy::cast_possible_truncation, reason = "less than a cycle")]
    const fn stored_now(&self) -> u32 {
        self.now as u32 % CYCLE
    }
}

/// Ticks since a ghost was pushed, for the current tick as cells store it.
const fn age(now: u32, cell: u32) -> u32 {
    now.wrapping_sub(cell >> REST_BITS) % CYCLE
}

/// An age in sixteen bits.
#[expect(clippy::cast_possible_truncation, reason = "less than a cycle")]
const fn short(age: u32) -> u16 {
    age as u16
}

#[expect(clippy::cast_possible_truncation, reason = "a place in the ring is small")]
const fn ring_place(tick: u64) -> usize {
    (tick % TICKS as u64) as usize
}

/// The best cell of a bucket. The better one is larger: of a bucket with more room, or an older ghost's. The room, the age and
/// the cell's number in one, from above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn new(free: u32, age: u32, cell: usize) -> Self {
        Self((u64::from(free) * u64::from(CYCLE) + u64::from(age)) << u32::BITS | cell as u64)
    }

    /// Whether no ghost is in the cell.
    const fn is_free(self) -> bool {
        self.0 >> u32::BITS >= CYCLE as u64
    }

    const fn bucket(self) -> usize {
        self.index() / BUCKET
    }

    const fn cell(self) -> usize {
        self.index() % BUCKET
    }

    #[expect(clippy::cast_possible_truncation, reason = "cells are counted in u32")]
    const fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Ghosts come and go as in a cache; an exact queue says which of them must be remembered.
    fn disagreements(ghosts: usize, pushes: u64) -> (f64, f64) {
        let mut dense = DenseGhosts::default();
        dense.set_limit(ghosts as u64, u32::try_from(ghosts).expect("small"));
        let mut exact: VecDeque<u32> = VecDeque::new();
        let (mut forgotten, mut asked, mut invented, mut strangers) = (0.0, 0.0, 0.0, 0.0);
        for turn in 0..pushes {
            dense.push(dense_fingerprint(turn), 1);
            exact.push_front(dense_fingerprint(turn));
            exact.truncate(ghosts);
            if turn % 16 == 0 {
                let random = usize::try_from(turn.wrapping_mul(0x9E37_79B9) % ghosts as u64).expect("small");
                if let Some(ghost) = exact.remove(random) {
                    asked += 1.0;
                    forgotten += f64::from(!dense.take(ghost));
                }
                strangers += 1.0;
                invented += f64::from(dense.take(dense_fingerprint(u64::MAX - turn)));
            }
            if turn % ghosts as u64 == 0 {
                dense.check_invariants();
            }
        }
        (forgotten / asked, invented / strangers)
    }

    #[test]
    fn it_remembers_almost_exactly_what_a_queue_would() {
        for (ghosts, pushes, may_forget, may_invent) in [
            (9, 10_000, 0.001, 1e-9),
            (100, 10_000, 0.02, 1e-9),
            (1000, 100_000, 0.02, 1e-3),
            (30_000, 200_000, 0.02, 1e-3),
        ] {
            let (forgotten, invented) = disagreements(ghosts, pushes);
            assert!(forgotten <= may_forget, "{ghosts} ghosts: {forgotten} of them forgotten");
            assert!(invented <= may_invent, "{ghosts} ghosts: {invented} of strangers taken for one");
        }
    }

    #[test]
    fn a_ghost_is_over_once_as_many_came_after_it_as_are_remembered() {
        for ghosts in [1_u64, 8, 50, 5000] {
            let mut dense = DenseGhosts::default();
            dense.set_limit(ghosts, u32::try_from(ghosts).expect("small"));
            for turn in 0..20 * ghosts {
                dense.push(dense_fingerprint(turn), 1);
            }
            // An age is right to a tick, a sixty-fourth of the table.
            let over = 19 * ghosts - ghosts / 32;
            let remembered = (0..over).filter(|&turn| dense.take(dense_fingerprint(turn))).count();
            assert!(remembered == 0, "{remembered} of those over are remembered");
        }
    }

    #[test]
    fn what_is_over_is_swept_before_its_time_comes_round_again() {
        let mut dense = DenseGhosts::default();
        // All cells are used once, and then a few of them again and again.
        for (most, pushes) in [(1000, 1000), (100, 20_000)] {
            dense.set_limit(most, 1000);
            for turn in 0..pushes {
                dense.push(dense_fingerprint(turn), 1);
                dense.check_invariants();
            }
        }
    }

    #[test]
    fn a_ghost_costs_less_than_four_and_a_half_bytes_and_none_cost_nothing() {
        let mut dense = DenseGhosts::default();
        assert!(!dense.take(7));
        dense.push(7, 1);
        assert_eq!((dense.footprint_bytes(), dense.take(7)), (0, false));
        for ghosts in [1000, 29_491, 1_000_000] {
            dense.set_limit(ghosts as u64, u32::try_from(ghosts).expect("small"));
            assert!(dense.footprint_bytes() * 2 <= ghosts * 9 + 2 * 4096, "{ghosts}");
        }
        dense.set_limit(10, 10);
        assert!(dense.footprint_bytes() < 5000, "a table that is much too large is given back");
    }
}
