//! Expiry: a hierarchical timing wheel over slots.
//!
//! Finding what has expired costs in proportion to what has expired, not to what is resident. The
//! wheel follows Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987: eight
//! levels of 64 buckets, a bucket of level *k* spanning 64^k ticks of 2^20 ns (about a
//! millisecond). A deadline waits on the level of the highest bit in which it differs from the
//! wheel's position and moves to a lower level as its time comes near. Deadlines stay exact to the
//! nanosecond: within the current tick each is compared with the time itself.
//!
//! Work is done one entry at a time, so that a caller holding a lock can stop after any number of
//! steps, even if a million entries share a bucket.

use crate::policy::Slot;

const NONE: u32 = u32::MAX;
const LEVELS: usize = 8;
const BUCKETS: usize = 64;
const BUCKET_BITS: u32 = 6;
const TICK_BITS: u32 = 20;

/// Links of a slot that waits in a bucket. The first of a bucket has no newer neighbour and says
/// instead which bucket it leads: [`HEAD`] plus the bucket's number.
#[derive(Clone, Copy)]
struct Node {
    newer: u32,
    older: u32,
}

/// Links of slots that are side by side, which are kept while one of them is on the wheel.
#[derive(Default)]
struct Group {
    nodes: Option<Box<[Node; GROUP]>>,
    /// Slots of it that are on the wheel.
    waiting: u32,
}

/// So many are as large as a page of the system, so that a deadline in a slot by itself costs no more than that.
const GROUP: usize = 512;

/// Why a slot has a node.
const HELD: &str = "who is on the wheel has a node";

/// Slots stay below this.
const HEAD: u32 = u32::MAX - 512;
const _: () = assert!(LEVELS * BUCKETS == 512);

/// What a step of [`ExpiryWheel::pop_expired`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// This slot's deadline has passed; it is off the wheel.
    Slot(Slot),
    /// The steps are used up and there may be more.
    OutOfSteps,
    /// Nothing else has expired.
    Nothing,
}

/// Slots in the order of their deadlines. The deadlines stay with the entries: whoever calls says what
/// they are, and must say the same as long as a slot is on the wheel. Costs 8 bytes for each slot
/// of every 512 side by side of which one has a deadline.
pub struct ExpiryWheel {
    groups: Vec<Group>,
    /// Groups that have nodes.
    held: usize,
    /// Those of the last group that was left, for the next one: or who has a single deadline now and then would allocate each time.
    spare: Option<Box<[Node; GROUP]>>,
    heads: [u32; LEVELS * BUCKETS],
    occupied: [u64; LEVELS],
    position: u64,
    len: usize,
}

impl Default for ExpiryWheel {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            held: 0,
            spare: None,
            heads: [NONE; LEVELS * BUCKETS],
            occupied: [0; LEVELS],
            position: 0,
            len: 0,
        }
    }
}

const fn tick_of(nanos: u64) -> u64 {
    nanos >> TICK_BITS
}

/// The bucket on a level that a tick falls into.
#[expect(clippy::cast_possible_truncation, reason = "masked to the 64 buckets of a level")]
const fn bucket_at(tick: u64, level: usize) -> usize {
    ((tick >> (BUCKET_BITS * level as u32)) & (BUCKETS as u64 - 1)) as usize
}

impl ExpiryWheel {
    /// Number of slots with a deadline.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot has a deadline.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held.
    #[must_use]
    pub const fn footprint_bytes(&self) -> usize {
        let spare = if self.spare.is_some() { GROUP } else { 0 };
        (self.slots() + spare) * size_of::<Node>()
            + self.groups.capacity() * size_of::<Group>()
            + size_of::<Self>()
    }

    /// Bytes that a slot costs on the wheel.
    #[must_use]
    pub const fn bytes_per_deadline() -> usize {
        size_of::<Node>()
    }

    /// Slots that memory is kept for: no fewer than have a deadline, and none where none has.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.held * GROUP
    }

    /// So many [slots](Self::slots) more at the most are those that memory is kept for after another one has got a deadline.
    #[must_use]
    pub const fn most_more_slots() -> usize {
        GROUP
    }

    /// Gives back the little that is kept for slots from this one on, of which none has a deadline.
    pub fn trim(&mut self, slots: usize) {
        self.groups.truncate(slots.div_ceil(GROUP));
        self.groups.shrink_to_fit();
        self.spare = None;
    }

    /// Puts a slot, which is not on the wheel, where its deadline belongs.
    pub fn insert(&mut self, slot: Slot, deadline_nanos: u64) {
        debug_assert!(slot.get() < HEAD, "slots stay below the marks of heads");
        self.hold(slot);
        self.link(slot.get(), deadline_nanos);
    }

    /// Takes a slot, which is on the wheel, off it.
    pub fn remove(&mut self, slot: Slot) {
        self.unlink(slot.get());
        self.release(slot);
    }

    /// Puts another slot, which is not on the wheel and smaller, in the place of one that is.
    pub fn relocate(&mut self, from: Slot, to: Slot) {
        let node = *self.node(from.get());
        self.hold(to);
        *self.node_mut(to.get()) = node;
        if node.older != NONE {
            self.node_mut(node.older).newer = to.get();
        }
        match node.newer.checked_sub(HEAD) {
            Some(bucket) => self.heads[bucket as usize] = to.get(),
            None => self.node_mut(node.newer).older = to.get(),
        }
        self.release(from);
    }

    /// Sees to it that there are nodes for a slot that comes onto the wheel.
    #[inline]
    fn hold(&mut self, slot: Slot) {
        let number = slot.index() / GROUP;
        if number >= self.groups.len() {
            self.groups.resize_with(number + 1, Group::default);
        }
        let group = &mut self.groups[number];
        if group.waiting == 0 {
            let unlinked = || Box::new([Node { newer: NONE, older: NONE }; GROUP]);
            group.nodes = Some(self.spare.take().unwrap_or_else(unlinked));
            self.held += 1;
        }
        group.waiting += 1;
    }

    /// A slot has left the wheel.
    #[inline]
    fn release(&mut self, slot: Slot) {
        let group = &mut self.groups[slot.index() / GROUP];
        group.waiting -= 1;
        if group.waiting == 0 {
            self.spare = group.nodes.take();
            self.held -= 1;
        }
    }

    #[inline]
    fn node(&self, slot: u32) -> &Node {
        let (group, slot) = (slot as usize / GROUP, slot as usize % GROUP);
        &self.groups[group].nodes.as_ref().expect(HELD)[slot]
    }

    #[inline]
    fn node_mut(&mut self, slot: u32) -> &mut Node {
        let (group, slot) = (slot as usize / GROUP, slot as usize % GROUP);
        &mut self.groups[group].nodes.as_mut().expect(HELD)[slot]
    }

    /// The next slot whose deadline is not after `now_nanos`. Takes each step from `steps`.
    pub fn pop_expired(
        &mut self,
        now_nanos: u64,
        steps: &mut usize,
        deadline_nanos: impl Fn(Slot) -> u64,
    ) -> Expired {
        let now_tick = tick_of(now_nanos).max(self.position);
        loop {
            if *steps == 0 {
                return Expired::OutOfSteps;
            }
            *steps -= 1;
            if let Some(waiting) = self.cascading() {
                self.unlink(waiting);
                self.link(waiting, deadline_nanos(Slot::new(waiting)));
                continue;
            }
            let mut due = self.heads[bucket_at(self.position, 0)];
            while due != NONE && deadline_nanos(Slot::new(due)) > now_nanos {
                // Only within the current tick, so a millisecond's worth at the most.
                due = self.node(due).older;
            }
            if due != NONE {
                self.remove(Slot::new(due));
                return Expired::Slot(Slot::new(due));
            }
            match self.next_occupied() {
                Some(start) if start <= now_tick => self.position = start,
                _ => {
                    self.position = now_tick;
                    return Expired::Nothing;
                }
            }
        }
    }

    /// How many slots on the wheel have a deadline that is not after `now_nanos`. Looks at that many
    /// slots at the most, the earliest deadlines first as far as the buckets tell.
    pub fn count_expired(
        &self,
        now_nanos: u64,
        mut steps: usize,
        deadline_nanos: impl Fn(Slot) -> u64,
    ) -> u64 {
        let now_tick = tick_of(now_nanos);
        let mut expired = 0;
        for (level, span_bits) in (0..LEVELS).zip((0..).step_by(BUCKET_BITS as usize)) {
            let rotation = self.position >> span_bits & !(BUCKETS as u64 - 1);
            for bucket in (0..BUCKETS).filter(|bucket| self.occupied[level] & (1 << bucket) != 0) {
                let start = (rotation | bucket as u64) << span_bits;
                if start > now_tick {
                    break;
                }
                // A deadline that had passed when it came waits at the position instead.
                let all = start + (1 << span_bits) <= now_tick;
                let mut next = self.heads[level * BUCKETS + bucket];
                while next != NONE {
                    if steps == 0 {
                        return expired;
                    }
                    steps -= 1;
                    expired += u64::from(all || deadline_nanos(Slot::new(next)) <= now_nanos);
                    next = self.node(next).older;
                }
            }
        }
        expired
    }

    /// A slot in a bucket that the position has entered and that spans more than one tick: it has to
    /// go down. An entry is never put into such a bucket, so this empties it.
    fn cascading(&self) -> Option<u32> {
        (1..LEVELS).rev().find_map(|level| {
            let bucket = bucket_at(self.position, level);
            (self.occupied[level] & (1 << bucket) != 0).then(|| self.heads[level * BUCKETS + bucket])
        })
    }

    /// The first tick of the next occupied bucket after the position.
    fn next_occupied(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| {
                let later = self.occupied[level] & (u64::MAX << bucket_at(self.position, level)) & {
                    !(1 << bucket_at(self.position, level))
                };
                (later != 0).then(|| {
                    let span_bits = BUCKET_BITS * u32::try_from(level).expect("eight levels");
                    let rotation = self.position >> (span_bits + BUCKET_BITS) << (span_bits + BUCKET_BITS);
                    rotation | (u64::from(later.trailing_zeros()) << span_bits)
                })
            })
            .min()
    }

    fn link(&mut self, slot: u32, deadline_nanos: u64) {
        let tick = tick_of(deadline_nanos).max(self.position);
        let differing = (tick ^ self.position) | (BUCKETS as u64 - 1);
        let level = (differing.ilog2() / BUCKET_BITS) as usize;
        let bucket = level * BUCKETS + bucket_at(tick, level);
        let older = std::mem::replace(&mut self.heads[bucket], slot);
        if older != NONE {
            self.node_mut(older).newer = slot;
        }
        let leads = HEAD + u32::try_from(bucket).expect("512 buckets");
        *self.node_mut(slot) = Node { newer: leads, older };
        self.occupied[level] |= 1 << (bucket % BUCKETS);
        self.len += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let Node { newer, older } = *self.node(slot);
        if older != NONE {
            self.node_mut(older).newer = newer;
        }
        if newer < HEAD {
            self.node_mut(newer).older = older;
        } else {
            let bucket = (newer - HEAD) as usize;
            self.heads[bucket] = older;
            if older == NONE {
                self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
            }
        }
        self.len -= 1;
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self, deadline_nanos: impl Fn(Slot) -> u64) {
        let mut linked = 0;
        let mut waiting = vec![0; self.groups.len()];
        for (number, &head) in self.heads.iter().enumerate() {
            let (level, bucket) = (number / BUCKETS, number % BUCKETS);
            let marked = self.occupied[level] & (1 << bucket) != 0;
            assert_eq!(marked, head != NONE, "level {level} bucket {bucket}: mark and list agree");
            let mut newer = HEAD + u32::try_from(number).expect("512 buckets");
            let mut next = head;
            while next != NONE {
                let node = *self.node(next);
                assert_eq!(node.newer, newer, "slot {next} links back, and the first knows its bucket");
                let tick = tick_of(deadline_nanos(Slot::new(next))).max(self.position);
                let cascading = level > 0 && bucket == bucket_at(self.position, level);
                assert!(cascading || bucket_at(tick, level) == bucket, "slot {next} is in its bucket");
                linked += 1;
                waiting[next as usize / GROUP] += 1;
                assert!(linked <= self.len, "more slots are linked than counted, or a list is a ring");
                newer = next;
                next = node.older;
            }
        }
        assert_eq!(linked, self.len, "every deadline is linked once");
        for (group, waiting) in self.groups.iter().zip(waiting) {
            assert_eq!(group.waiting, waiting, "a group counts those of it that wait");
            assert_eq!(group.nodes.is_some(), waiting > 0, "and has nodes while there are any");
        }
        let held = self.groups.iter().filter(|group| group.nodes.is_some()).count();
        assert_eq!(self.held, held, "groups with nodes are counted");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(wheel: &mut ExpiryWheel, now: u64, deadline: impl Fn(Slot) -> u64) -> Vec<u32> {
        let mut expired = Vec::new();
        loop {
            let mut steps = 3;
            match wheel.pop_expired(now, &mut steps, &deadline) {
                Expired::Slot(slot) => expired.push(slot.get()),
                Expired::OutOfSteps => {}
                Expired::Nothing => return expired,
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { slot: u32, in_nanos: u64 },
        Remove { slot: u32 },
        Relocate { slot: u32 },
        Advance { nanos: u64, stop_after: usize },
    }

    fn nanos() -> impl Strategy<Value = u64> {
        // Every level of the wheel is as likely as any other.
        (0_u32..62).prop_flat_map(|bits| 0..(2_u64 << bits))
    }

    /// Slots are so far apart that they lie in several groups.
    const APART: u32 = 150;

    fn slot() -> impl Strategy<Value = u32> {
        (0_u32..24).prop_map(|number| number * APART)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (slot(), nanos()).prop_map(|(slot, in_nanos)| Step::Insert { slot, in_nanos }),
            1 => slot().prop_map(|slot| Step::Remove { slot }),
            2 => slot().prop_map(|slot| Step::Relocate { slot }),
            3 => (0_u64..1 << 58, 0_u32..58, 0_usize..40)
                .prop_map(|(nanos, shift, stop_after)| Step::Advance { nanos: nanos >> shift, stop_after }),
        ]
    }

    proptest! {
        #[test]
        fn expires_exactly_what_a_sorted_map_would(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = ExpiryWheel::default();
            let mut model = BTreeMap::new();
            let mut deadlines = vec![0; 24 * APART as usize];
            let mut now = 0_u64;
            for step in steps {
                match step {
                    Step::Insert { slot, in_nanos } => {
                        let deadline = now.saturating_add(in_nanos);
                        if model.contains_key(&slot) {
                            wheel.remove(Slot::new(slot));
                        }
                        deadlines[slot as usize] = deadline;
                        wheel.insert(Slot::new(slot), deadline);
                        model.insert(slot, deadline);
                    }
                    Step::Remove { slot } => {
                        if model.remove(&slot).is_some() {
                            wheel.remove(Slot::new(slot));
                        }
                    }
                    Step::Relocate { slot } => {
                        let gap = (0..slot).step_by(APART as usize).find(|gap| !model.contains_key(gap));
                        if let (Some(gap), Some(deadline)) = (gap, model.get(&slot).copied()) {
                            model.remove(&slot);
                            model.insert(gap, deadline);
                            deadlines[gap as usize] = deadline;
                            wheel.relocate(Slot::new(slot), Slot::new(gap));
                        }
                    }
                    Step::Advance { nanos, stop_after } => {
                        now = now.saturating_add(nanos);
                        let due = model.values().filter(|&&deadline| deadline <= now).count();
                        let count = |steps| wheel.count_expired(now, steps, |slot| deadlines[slot.index()]);
                        prop_assert_eq!(count(usize::MAX), due as u64);
                        prop_assert!(count(2) <= 2);
                        // Stopping early must lose nothing.
                        let mut budget = stop_after;
                        while let Expired::Slot(slot) = wheel.pop_expired(now, &mut budget, |slot| deadlines[slot.index()]) {
                            let deadline = model.remove(&slot.get());
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        }
                        wheel.check_invariants(|slot| deadlines[slot.index()]);
                        let mut expired = drain(&mut wheel, now, |slot| deadlines[slot.index()]);
                        expired.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, deadline)| **deadline <= now).map(|(slot, _)| *slot).collect();
                        prop_assert_eq!(expired, expected);
                        model.retain(|_, deadline| *deadline > now);
                    }
                }
                wheel.check_invariants(|slot| deadlines[slot.index()]);
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }

    #[test]
    fn a_deadline_is_due_at_its_very_nanosecond() {
        let mut wheel = ExpiryWheel::default();
        wheel.insert(Slot::new(0), 1_000_000_000);
        assert_eq!(drain(&mut wheel, 999_999_999, |_| 1_000_000_000), Vec::<u32>::new());
        assert_eq!(drain(&mut wheel, 1_000_000_000, |_| 1_000_000_000), [0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
    fn a_crowded_bucket_is_taken_apart_within_the_steps_given() {
        let mut wheel = ExpiryWheel::default();
        // Each step looks at one deadline.
        let looks = Cell::new(0);
        let deadline = |slot: Slot| {
            looks.set(looks.get() + 1);
            3_600_000_000_000 + u64::from(slot.get())
        };
        for slot in (0..10_000).map(Slot::new) {
            wheel.insert(slot, deadline(slot));
        }
        let mut expired = 0;
        let mut out_of_steps = 0;
        loop {
            let mut steps = 16;
            looks.set(0);
            let outcome = wheel.pop_expired(u64::MAX, &mut steps, deadline);
            assert!(looks.get() <= 16, "{} looks in sixteen steps", looks.get());
            match outcome {
                Expired::Slot(_) => expired += 1,
                Expired::OutOfSteps => out_of_steps += 1,
                Expired::Nothing => break,
            }
        }
        assert_eq!(expired, 10_000);
        assert!(out_of_steps >= 10_000 / 16, "each slot goes down at least once");
    }
}
