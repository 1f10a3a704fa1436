//! A small FIFO queue in front of a main one: what is not used again in the first never sees the second.
//!
//! S3-FIFO and Clock2Q+ are this structure under different [`Rules`]. Newcomers wait in the small queue. Those
//! used there move on to the main queue, a clock; the others leave, and a ghost remembers them. A ghost
//! that comes back goes to the main queue at once. Entries move only when room is needed: a hit counts, no more.
//!
//! What weighs more than half the small queue may would push out everything else that waits there. Once the cache is full, such
//! a newcomer waits as a ghost instead, and is let in, to the main queue, when it comes back the second time.

use std::marker::PhantomData;

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict, prefetch_one};

use super::{
    DENSE_BITS, DenseGhosts, GHOSTS_PER_RESIDENT, GhostQueue, SlotLinks, SlotList, Weights, dense_fingerprint,
};

/// What distinguishes one policy of this kind from another.
pub trait Rules: Send + 'static {
    /// Hits that are counted at most, 3 or less.
    const MOST_HITS: u32;
    /// Whether hits soon after the insertion are ignored.
    const WINDOWED: bool;
}

/// Proportions and thresholds.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The small queue's share of the capacity.
    pub small_ratio: f64,
    /// Ghosts remembered, as a share of the capacity.
    pub ghost_ratio: f64,
    /// Hits in the small queue that earn a place in the main one.
    pub promotion_hits: u32,
    /// The share of the small queue whose hits are ignored, from its young end; 0 unless [`Rules::WINDOWED`].
    pub window_ratio: f64,
    /// Do as libCacheSim does, wherever that changes a count.
    pub libcachesim: bool,
}

/// Entries looked at for one that would leave, when a hint is asked for.
const LOOK_AHEAD: usize = 4;
/// Dense ghosts are given this much more room, as some of them are forgotten early.
const DENSE_ALLOWANCE: f64 = 31.0 / 30.0;

/// An entry's hits, its queue, and as many low bits of its fingerprint as there is room for. Hits are frequent and look at
/// nothing else: what they look at has to fit in a near cache.
#[derive(Clone, Copy, Default)]
struct Mark(u8);

const HITS: u8 = 0b011;
const IN_MAIN: u8 = 0b100;
const FINGERPRINT_SHIFT: u32 = 3;
const FINGERPRINT_BITS: u32 = u8::BITS - FINGERPRINT_SHIFT;
const _: () =
    assert!(DENSE_BITS <= 3 * u8::BITS + FINGERPRINT_BITS, "a mark holds the rest of a fingerprint");

impl Mark {
    fn hits(self) -> u32 {
        u32::from(self.0 & HITS)
    }

    const fn is_in_main(self) -> bool {
        self.0 & IN_MAIN != 0
    }
}

/// A fingerprint in two parts: the mark of one that was not hit, and the rest.
fn split(fingerprint: u32) -> (Mark, [u8; 3]) {
    let [low, ..] = (fingerprint << FINGERPRINT_SHIFT).to_le_bytes();
    let [rest @ .., _] = (fingerprint >> FINGERPRINT_BITS).to_le_bytes();
    (Mark(low), rest)
}

/// The fingerprint that was split.
fn join(mark: Mark, [low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0]) << FINGERPRINT_BITS | u32::from(mark.0 >> FINGERPRINT_SHIFT)
}

/// What ghosts are limited by.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Occupancy {
    capacity: u64,
    residents: u64,
    resident_weight: u64,
}

/// Ghosts, and what they were limited by the last time: the same as the next time where items are counted.
#[derive(Default)]
struct LimitedGhosts {
    table: DenseGhosts,
    limited_by: Occupancy,
}

impl LimitedGhosts {
    /// Bounds ghosts by a share of the capacity, and their number by that of the residents, which pay for them.
    fn limit(&mut self, ghost_ratio: f64, by: Occupancy) {
        if self.limited_by == by {
            return;
        }
        self.limited_by = by;
        let ratio = ghost_ratio * DENSE_ALLOWANCE;
        let most = if by.resident_weight == by.residents { 1 } else { GHOSTS_PER_RESIDENT as u64 };
        let number = u32::try_from(most * share(ratio, by.residents)).unwrap_or(u32::MAX);
        self.table.set_limit(share(ratio, by.capacity), number);
    }
}

/// What is noted of a newcomer that waits.
const NOTED_RETURNS: u64 = 1;
const NOTED_AT_DOOR: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

/// Who was evicted from the small queue lately.
enum Ghosts {
    Dense(LimitedGhosts),
    /// In libCacheSim's order to the last entry, for which residents need their whole fingerprint.
    Exact {
        queue: GhostQueue,
        hashes: Table<u64>,
    },
}

/// What the queues may weigh.
#[derive(Clone, Copy)]
struct Limits {
    /// Of the whole cache.
    capacity: u64,
    small: u64,
    main: u64,
}

impl Limits {
    fn of(shape: &Shape, capacity: u64) -> Self {
        let small = share(shape.small_ratio, capacity);
        let small = if shape.libcachesim { small } else { small.max(1) };
        Self { capacity, small, main: capacity - small.min(capacity) }
    }
}

/// The small queue, the main queue and the ghosts.
pub struct SmallMain<R> {
    shape: Shape,
    capacity: u64,
    /// As of the last eviction: the same again where items are counted.
    limits: Limits,
    /// Beside them, what an entry's mark does not hold of its fingerprint: needed when the entry leaves the small queue, which
    /// changes the links of its neighbour, who is mostly the next to leave.
    links: SlotLinks<[u8; 3]>,
    small: SlotList,
    main: SlotList,
    marks: Table<Mark>,
    weights: Weights,
    small_weight: u64,
    main_weight: u64,
    ghosts: Ghosts,
    /// Per entry, [`Self::insertions`] when it came into the small queue. Only if windowed.
    inserted_at: Table<u32>,
    /// Insertions into the small queue, wrapping.
    insertions: u32,
    /// Further insertions that end an entry's window.
    window: u32,
    /// The newcomer was found among the ghosts.
    returns: bool,
    /// There is a newcomer, for which nothing has been evicted yet.
    is_at_door: bool,
    /// Something has been evicted before.
    was_full: bool,
    /// The queue in which a victim was being looked for.
    searched: Option<Queue>,
    ghost_hits: u64,
    rules: PhantomData<R>,
}

/// A share of a weight, rounded down.
#[expect(clippy::cast_precision_loss, reason = "capacities beyond 2^53 are never reached")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ratios are 0 or more")]
fn share(ratio: f64, of: u64) -> u64 {
    (ratio * of as f64) as u64
}

impl<R: Rules> SmallMain<R> {
    /// An empty structure.
    #[must_use]
    pub fn with_shape(capacity: u64, shape: Shape) -> Self {
        let ghosts = if shape.libcachesim {
            let queue = GhostQueue::new(share(shape.ghost_ratio, capacity));
            Ghosts::Exact { queue, hashes: Table::default() }
        } else {
            Ghosts::Dense(LimitedGhosts::default())
        };
        let mut new = Self {
            shape,
            capacity,
            limits: Limits::of(&shape, capacity),
            links: SlotLinks::default(),
            small: SlotList::default(),
            main: SlotList::default(),
            marks: Table::default(),
            weights: Weights::default(),
            small_weight: 0,
            main_weight: 0,
            ghosts,
            inserted_at: Table::default(),
            insertions: 0,
            window: 0,
            returns: false,
            is_at_door: false,
            was_full: false,
            searched: None,
            ghost_hits: 0,
            rules: PhantomData,
        };
        new.set_window(capacity);
        new
    }

    /// The queues' limits in a cache of this weight.
    fn limits(&self, capacity: u64) -> Limits {
        if self.limits.capacity == capacity { self.limits } else { Limits::of(&self.shape, capacity) }
    }

    /// The weight that the small queue may have of a cache of this weight.
    fn small_limit(&self, capacity: u64) -> u64 {
        self.limits(capacity).small
    }

    /// The window in insertions, for a cache of this weight.
    fn set_window(&mut self, capacity: u64) {
        if R::WINDOWED {
            let mut small = self.small_limit(capacity);
            let (weight, entries) = (self.weight(), self.len() as u64);
            if weight != entries && !self.shape.libcachesim {
                // Insertions are entries, so the small queue has to be measured in entries too.
                let entries = u128::from(small) * u128::from(entries) / u128::from(weight);
                small = u64::try_from(entries).unwrap_or(u64::MAX);
            }
            // An entry that is exactly half a window old is out of it: the smallest integer not below.
            let window = share(self.shape.window_ratio * 1024.0, small).div_ceil(1024);
            self.window = u32::try_from(window).unwrap_or(u32::MAX);
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let weight = u64::from(self.weights.get(slot));
        if self.marks[slot.index()].is_in_main() {
            self.main.remove(&mut self.links, slot);
            self.main_weight -= weight;
        } else {
            self.small.remove(&mut self.links, slot);
            self.small_weight -= weight;
        }
    }

    /// Moves entries until one comes that is to leave, past so many others at the most. That one, the oldest of the queue that is
    /// searched, if it came so far.
    fn advance(&mut self, mut entries: usize) -> Option<Slot> {
        loop {
            // Once begun, it goes on to a queue's end, whatever the queues weigh by then.
            let queue = *self.searched.get_or_insert(self.queue_to_search());
            let found = match queue {
                Queue::Main => self.advance_main(&mut entries),
                Queue::Small => self.advance_small(&mut entries),
            };
            if found.is_some() || entries == 0 {
                return found;
            }
            self.searched = None;
            debug_assert!(!self.is_empty(), "evict needs a resident entry");
        }
    }

    /// The oldest of the queue that is searched, if that is to leave.
    #[inline]
    fn first(&mut self) -> Option<Slot> {
        let queue = *self.searched.get_or_insert(self.queue_to_search());
        let (oldest, enough) = match queue {
            Queue::Main => (self.main.back(), 1),
            Queue::Small => (self.small.back(), self.shape.promotion_hits),
        };
        oldest.filter(|slot| self.marks[slot.index()].hits() < enough)
    }

    const fn queue_to_search(&self) -> Queue {
        if self.main_weight > self.limits.main || self.small.is_empty() { Queue::Main } else { Queue::Small }
    }

    /// Moves entries of the small queue that earned a place in the main one there, until the oldest is none of these.
    fn advance_small(&mut self, entries: &mut usize) -> Option<Slot> {
        while let Some(slot) = self.small.back() {
            let mark = &mut self.marks[slot.index()];
            if mark.hits() < self.shape.promotion_hits {
                return Some(slot);
            }
            *entries = entries.checked_sub(1)?;
            mark.0 = mark.0 & !HITS | IN_MAIN;
            let weight = u64::from(self.weights.get(slot));
            self.small.remove(&mut self.links, slot);
            self.small_weight -= weight;
            self.main.push_front(&mut self.links, slot);
            self.main_weight += weight;
        }
        None
    }

    /// Has entries of the main queue pay for another round, until the oldest has no hit left to pay with.
    fn advance_main(&mut self, entries: &mut usize) -> Option<Slot> {
        while let Some(slot) = self.main.back() {
            let mark = &mut self.marks[slot.index()];
            if mark.hits() == 0 {
                return Some(slot);
            }
            *entries = entries.checked_sub(1)?;
            mark.0 -= 1;
            self.main.move_to_front(&mut self.links, slot);
        }
        None
    }

    /// Takes note that something is to leave for this item. The capacity that counts for it.
    fn be_full(&mut self, incoming: &Item) -> u64 {
        let capacity = self.capacity.min(self.weight() + u64::from(incoming.weight));
        if self.limits.capacity != capacity {
            self.limits = Limits::of(&self.shape, capacity);
        }
        self.was_full = true;
        self.set_window(capacity);
        capacity
    }

    fn remember(&mut self, slot: Slot, weight: u32, capacity: u64) {
        let (residents, resident_weight) = (self.len() as u64 + 1, self.weight() + u64::from(weight));
        match &mut self.ghosts {
            Ghosts::Dense(ghosts) => {
                ghosts.limit(self.shape.ghost_ratio, Occupancy { capacity, residents, resident_weight });
                ghosts.table.push(join(self.marks[slot.index()], self.links.beside(slot)), weight);
            }
            Ghosts::Exact { queue, hashes } => {
                queue.set_capacity(share(self.shape.ghost_ratio, capacity));
                queue.push(Item { hash: hashes[slot.index()], weight });
            }
        }
    }

    /// Whether the newcomer has to wait as a ghost, since it is too heavy for the small queue. There is no room left.
    fn waits_outside(&mut self, incoming: &Item, capacity: u64) -> bool {
        self.is_heavy(incoming) && self.heavy_waits_outside(incoming, capacity)
    }

    /// Whether it would push out everything else that is in the small queue.
    fn is_heavy(&self, incoming: &Item) -> bool {
        u64::from(incoming.weight) > (self.limits.small / 2).max(1)
    }

    fn heavy_waits_outside(&mut self, incoming: &Item, capacity: u64) -> bool {
        let (residents, resident_weight) = (self.len() as u64, self.weight());
        let Ghosts::Dense(ghosts) = &mut self.ghosts else { return false };
        let (first, second) = (dense_fingerprint(incoming.hash), dense_fingerprint(!incoming.hash));
        if ghosts.table.take(second) {
            self.returns = true;
            return false;
        }
        ghosts.limit(self.shape.ghost_ratio, Occupancy { capacity, residents, resident_weight });
        ghosts.table.push(if self.returns { second } else { first }, incoming.weight);
        self.returns = false;
        true
    }

    const fn weight(&self) -> u64 {
        self.small_weight + self.main_weight
    }
}

impl<R: Rules> EvictionPolicy for SmallMain<R> {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.returns = match &mut self.ghosts {
            Ghosts::Dense(ghosts) => ghosts.table.take(dense_fingerprint(incoming.hash)),
            Ghosts::Exact { queue, .. } => queue.remove(incoming.hash),
        };
        self.ghost_hits += u64::from(self.returns);
        self.is_at_door = true;
        if !self.shape.libcachesim {
            return true;
        }
        let limit = self.small_limit(self.capacity);
        let weight = u64::from(incoming.weight);
        weight < limit || weight == limit && self.returns
    }

    fn step_aside(&mut self) -> Option<u64> {
        let returns = if std::mem::take(&mut self.returns) { NOTED_RETURNS } else { 0 };
        let is_at_door = if std::mem::take(&mut self.is_at_door) { NOTED_AT_DOOR } else { 0 };
        Some(returns | is_at_door)
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        let noted = noted.unwrap_or(0);
        (self.returns, self.is_at_door) = (noted & NOTED_RETURNS != 0, noted & NOTED_AT_DOOR != 0);
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        let queue = if self.marks[from.index()].is_in_main() { &mut self.main } else { &mut self.small };
        queue.relocate(&mut self.links, from, to);
        super::relocate_slot(&mut self.marks, from, to);
        if R::WINDOWED {
            super::relocate_slot(&mut self.inserted_at, from, to);
        }
        if let Ghosts::Exact { hashes, .. } = &mut self.ghosts {
            super::relocate_slot(hashes, from, to);
        }
        self.weights.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.marks.trim(slots);
        self.inserted_at.trim(slots);
        if let Ghosts::Exact { queue, hashes } = &mut self.ghosts {
            queue.trim();
            hashes.trim(slots);
        }
        self.weights.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        if slot.index() >= self.marks.len() {
            self.marks.resize(slot.index() + 1, Mark::default());
            if R::WINDOWED {
                self.inserted_at.resize(slot.index() + 1, 0);
            }
        }
        self.weights.set(slot, item.weight);
        let (mark, rest) = split(dense_fingerprint(item.hash));
        let is_filling = !self.was_full;
        if self.returns || is_filling && self.small_weight >= self.small_limit(self.capacity) {
            self.marks[slot.index()] = Mark(mark.0 | IN_MAIN);
            self.main.push_front_with(&mut self.links, slot, rest);
            self.main_weight += u64::from(item.weight);
        } else {
            self.marks[slot.index()] = mark;
            self.small.push_front_with(&mut self.links, slot, rest);
            self.small_weight += u64::from(item.weight);
            if R::WINDOWED {
                self.insertions = self.insertions.wrapping_add(1);
                self.inserted_at[slot.index()] = self.insertions;
            }
        }
        if let Ghosts::Exact { hashes, .. } = &mut self.ghosts {
            if slot.index() >= hashes.len() {
                hashes.resize(slot.index() + 1, 0);
            }
            hashes[slot.index()] = item.hash;
        }
        self.returns = false;
        self.is_at_door = false;
    }

    fn hit(&mut self, slot: Slot) {
        let mark = &mut self.marks[slot.index()];
        if R::WINDOWED && !mark.is_in_main() {
            let age = self.insertions.wrapping_sub(self.inserted_at[slot.index()]);
            if age < self.window {
                return;
            }
        }
        // Nobody can guess which of the two it is, so this is better no branch.
        mark.0 += u8::from(mark.hits() < R::MOST_HITS);
    }

    fn approach(&self, slot: Slot) {
        prefetch_one(self.marks.get(slot.index()));
    }

    fn approach_newcomer(&self, hash: u64) {
        if let Ghosts::Dense(ghosts) = &self.ghosts {
            ghosts.table.prefetch(dense_fingerprint(hash));
        }
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        let old = u64::from(self.weights.get(slot));
        let queue = if self.marks[slot.index()].is_in_main() {
            &mut self.main_weight
        } else {
            &mut self.small_weight
        };
        *queue = *queue - old + u64::from(item.weight);
        self.weights.set(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        let capacity = self.be_full(incoming);
        if std::mem::take(&mut self.is_at_door) && self.waits_outside(incoming, capacity) {
            return Verdict::Reject;
        }
        let found = self.first().or_else(|| self.advance(usize::MAX));
        let victim = found.expect("nobody has hits left after three rounds");
        let weight = self.weights.get(victim);
        match self.searched.take().expect("a queue was searched") {
            Queue::Main => {
                self.main.remove(&mut self.links, victim);
                self.main_weight -= u64::from(weight);
            }
            Queue::Small => {
                self.small.remove(&mut self.links, victim);
                self.small_weight -= u64::from(weight);
                self.remember(victim, weight, capacity);
            }
        }
        Verdict::Evict(victim)
    }

    fn seek(&mut self, incoming: &Item, entries: usize) -> bool {
        self.be_full(incoming);
        // Whoever may have to wait outside is nobody to look for room for.
        let may_wait = self.is_at_door && self.is_heavy(incoming);
        !may_wait && self.advance(entries).is_none()
    }

    fn next_victim(&self) -> Option<Slot> {
        let (queue, enough) = match self.searched.unwrap_or_else(|| self.queue_to_search()) {
            Queue::Main => (&self.main, 1),
            Queue::Small => (&self.small, self.shape.promotion_hits),
        };
        let mut oldest = queue.iter_from_back(&self.links).take(LOOK_AHEAD);
        let next = oldest.find(|slot| self.marks[slot.index()].hits() < enough)?;
        if let Ghosts::Dense(ghosts) = &self.ghosts {
            ghosts.table.prefetch(join(self.marks[next.index()], self.links.beside(next)));
        }
        Some(next)
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.set_window(capacity);
        if let Ghosts::Exact { queue, .. } = &mut self.ghosts {
            queue.set_capacity(share(self.shape.ghost_ratio, capacity));
        }
    }

    fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn footprint_bytes(&self) -> usize {
        let ghosts = match &self.ghosts {
            Ghosts::Dense(ghosts) => ghosts.table.footprint_bytes(),
            Ghosts::Exact { queue, hashes } => queue.footprint_bytes() + hashes.footprint_bytes(),
        };
        self.links.footprint_bytes()
            + self.marks.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.inserted_at.footprint_bytes()
            + ghosts
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        let ghosts = match &self.ghosts {
            Ghosts::Dense(ghosts) => ghosts.table.len(),
            Ghosts::Exact { queue, .. } => queue.len(),
        };
        visit(Gauge::count("small_entries", self.small.len() as u64));
        visit(Gauge::count("small_weight", self.small_weight));
        visit(Gauge::count("main_entries", self.main.len() as u64));
        visit(Gauge::count("main_weight", self.main_weight));
        visit(Gauge::count("ghost_entries", ghosts as u64));
        visit(Gauge::count("ghost_hits", self.ghost_hits));
        if R::WINDOWED {
            visit(Gauge::count("window_entries", self.window.into()));
        }
    }

    fn check_invariants(&self) {
        for (queue, weight, in_main) in
            [(&self.small, self.small_weight, false), (&self.main, self.main_weight, true)]
        {
            queue.check_invariants(&self.links);
            let slots = || queue.iter_from_back(&self.links);
            assert!(
                slots().all(|slot| self.marks[slot.index()].is_in_main() == in_main),
                "marked by its queue"
            );
            assert!(slots().all(|slot| self.marks[slot.index()].hits() <= R::MOST_HITS), "hits are capped");
            assert_eq!(slots().map(|slot| u64::from(self.weights.get(slot))).sum::<u64>(), weight, "the sum");
        }
        match &self.ghosts {
            Ghosts::Dense(ghosts) => ghosts.table.check_invariants(),
            Ghosts::Exact { queue, .. } => queue.check_invariants(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_the_same_once_they_were_split_and_entries_hit() {
        for fingerprint in [0, 1, 0b1_0101, 1 << (DENSE_BITS - 1), 0x1234_5678, (1 << DENSE_BITS) - 1] {
            let (mark, rest) = split(fingerprint);
            assert!((mark.hits(), mark.is_in_main()) == (0, false), "{fingerprint}");
            assert_eq!(join(Mark(mark.0 | HITS | IN_MAIN), rest), fingerprint);
        }
    }
}
