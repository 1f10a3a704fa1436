//! The eviction contract: what a policy is told, what it answers, and in which order.
//!
//! A policy decides *which entry goes*. It is one plain single-threaded structure that lives
//! inside a [`Directory`](crate::Directory), which in turn lives behind a shard's lock in the
//! server, or bare in the simulator. Because the directory drives it in both places, the code
//! that is simulated is the code that is shipped.

/// Dense index of a resident entry within one directory. Recycled once the entry is gone; an entry may be given a
/// smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot with this index. `u32::MAX` is reserved, so that structures can use it as "none".
    #[must_use]
    pub const fn new(index: u32) -> Self {
        debug_assert!(index != u32::MAX, "u32::MAX is reserved");
        Self(index)
    }

    /// The index as stored in compact structures.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index into a vector of per-entry metadata.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a policy may know about an entry: never its key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key's [fingerprint](crate::Key::fingerprint): 64 well-mixed bits that are the same in
    /// every process, so that ghosts and sketches decide alike in the server and the simulator.
    pub hash: u64,
    /// 1 where the budget counts items, bytes where it counts bytes. Never 0.
    pub weight: u32,
}

/// A policy's answer to "room is needed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This resident entry goes; the policy has forgotten it already (but for a ghost).
    Evict(Slot),
    /// The newcomer is worth less than everything resident: it is not stored.
    Reject,
}

/// How the gauges of several shards' policies make one of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverShards {
    /// They add up: sizes and counts.
    Sum,
    /// Their mean: ratios, chances, densities.
    Mean,
}

/// A figure about a policy's insides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    /// Lower-case words joined by underscores, the unit last: `_entries`, `_weight` (in units of
    /// [`Item::weight`]), `_ratio`, `_hits` and other counts since the start in plain plural.
    pub name: &'static str,
    /// Finite.
    pub value: f64,
    /// What it is in a store of several shards.
    pub over_shards: OverShards,
}

impl Gauge {
    /// A size or a count.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
    pub const fn count(name: &'static str, count: u64) -> Self {
        Self::sum(name, count as f64)
    }

    /// A size that is no whole number.
    #[must_use]
    pub const fn sum(name: &'static str, value: f64) -> Self {
        Self { name, value, over_shards: OverShards::Sum }
    }

    /// A ratio, a chance, a density.
    #[must_use]
    pub const fn mean(name: &'static str, value: f64) -> Self {
        Self { name, value, over_shards: OverShards::Mean }
    }
}

/// Chooses which entry leaves when room is needed.
///
/// # What the caller guarantees
///
/// - A newcomer is announced exactly once by [`admit`](Self::admit). If that says yes, zero or more
///   calls of [`evict`](Self::evict) with the same item follow, then [`insert`](Self::insert) with
///   the same item, unless `evict` rejected it. Nothing else comes in between, but where very many entries have to leave or to be
///   looked at: then the newcomer [steps aside](Self::step_aside), so that others are not kept waiting, and any other calls follow. It
///   [comes back](Self::step_forward) for more calls of `evict`, without another `admit`, or never.
/// - `evict` is called only while at least one entry is resident.
/// - [`hit`](Self::hit), [`update`](Self::update) and [`remove`](Self::remove) name a slot that is
///   resident, that is: inserted, and neither removed nor evicted since.
/// - Slots are dense: a slot is smaller than the largest number of entries ever resident at once. Where far fewer are
///   left, they are given smaller slots, one after the other, by [`relocate`](Self::relocate), and
///   [`trim`](Self::trim) says from where on slots are nobody's. Either may come at any time but within an insertion.
/// - [`update`](Self::update) may raise the resident weight above the capacity; `evict` calls with
///   the updated item follow until it fits. The updated entry itself may be the victim; it is then
///   inserted again as a newcomer would be, without an `admit`.
///
/// # What the implementer guarantees
///
/// - No call allocates once the vectors have grown to the number of entries; every call is O(1),
///   amortised, but where the algorithm itself is not.
/// - Metadata and ghosts are bounded by the capacity.
/// - Nothing depends on a clock, a lock, I/O or global randomness: the same calls give the same
///   decisions.
///
/// # Capacity
///
/// The capacity that a policy is built with is in units of [`Item::weight`]. Another limit may bind
/// first (bytes while weights count items). The policy notices, since `evict` is then called while
/// `resident + incoming < capacity`; shares of segments are then of what is resident:
/// `capacity.min(resident + incoming.weight)`.
pub trait EvictionPolicy: Send {
    /// A newcomer is at the door: look it up in the ghosts, adapt, and say whether it may come in.
    /// Called once per newcomer, before any eviction for it.
    fn admit(&mut self, incoming: &Item) -> bool {
        let _ = incoming;
        true
    }

    /// The resident entry of slot `from` has slot `to` from now on. That is smaller, was nobody's, and is within what is
    /// kept for slots. Nothing else has happened: no decision may depend on it. Comes where far fewer entries are
    /// resident than once were, so that those that stay lie side by side.
    fn relocate(&mut self, from: Slot, to: Slot);

    /// No slot from this one on is in use: what is kept for those can be given back. Comes after
    /// [`relocate`](Self::relocate), and changes no decision either.
    fn trim(&mut self, slots: usize);

    /// The newcomer is resident from now on. There is already room for it.
    fn insert(&mut self, slot: Slot, item: &Item);

    /// A live entry was read.
    fn hit(&mut self, slot: Slot);

    /// A live entry was read, and [`hit`](Self::hit) will come a little later: asks for the memory that it will look at
    /// ([`prefetch_one`](crate::prefetch_one)). A hint, which comes where there are many entries, with the next reads if at all, and maybe
    /// more than once.
    fn approach(&self, slot: Slot) {
        let _ = slot;
    }

    /// An item with this hash may be at the door soon: asks for the memory that [`admit`](Self::admit) will look at for it. A hint, as
    /// [`approach`](Self::approach) is, which comes for batches.
    fn approach_newcomer(&self, hash: u64) {
        let _ = hash;
    }

    /// Live entries were read, one after the other: [`hit`](Self::hit) for each, in one call.
    fn hit_all(&mut self, slots: &[Slot]) {
        for &slot in slots {
            self.hit(slot);
        }
    }

    /// The value of a resident entry was replaced; `item.weight` is the new weight. A policy that
    /// keeps weights must override this.
    fn update(&mut self, slot: Slot, item: &Item) {
        let _ = item;
        self.hit(slot);
    }

    /// A resident entry was deleted or has expired: forget it, without a ghost.
    fn remove(&mut self, slot: Slot);

    /// Chooses a victim, forgets it and names it, or rejects the newcomer.
    fn evict(&mut self, incoming: &Item) -> Verdict;

    /// Looks for the victim that [`evict`](Self::evict) would name, as far as so many entries, and says whether it has to look at
    /// more: for policies that may have to go by many entries until one has to leave. What it has done is what `evict` would
    /// have, which goes on from there; so it makes no difference to what is decided, unless something else comes in between.
    /// Comes before an `evict`, as often as it says so, or not at all.
    fn seek(&mut self, incoming: &Item, entries: usize) -> bool {
        let _ = (incoming, entries);
        false
    }

    /// The newcomer that `evict` was called for last waits, and others come first: from now on nobody is at the door. What
    /// [`admit`](Self::admit) has noted of it for later calls, if anything, is given back by [`step_forward`](Self::step_forward).
    fn step_aside(&mut self) -> Option<u64> {
        None
    }

    /// A newcomer that has [stepped aside](Self::step_aside) is at the door again, with what was noted of it then.
    fn step_forward(&mut self, incoming: &Item, noted: Option<u64>) {
        let _ = (incoming, noted);
    }

    /// The entry that would probably be the next victim, so that its memory can be fetched before it is needed. A
    /// hint: cheap, and nothing depends on it.
    fn next_victim(&self) -> Option<Slot> {
        None
    }

    /// The capacity has changed, in units of [`Item::weight`]. Evictions follow by
    /// [`evict`](Self::evict) as room is needed.
    fn resize(&mut self, capacity: u64);

    /// Number of resident entries.
    fn len(&self) -> usize;

    /// Whether nothing is resident.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held now: all vectors by their capacity, ghosts included.
    fn footprint_bytes(&self) -> usize;

    /// Whether the policy never looks at [`Item::hash`]: then the store spares itself to compute it, and it is 0. Constant
    /// over a policy's life.
    fn ignores_hashes(&self) -> bool {
        false
    }

    /// Whether a hit can make the policy let entries go on its own; then the directory calls
    /// [`shed`](Self::shed) after each hit. Constant over a policy's life.
    fn sheds_on_hit(&self) -> bool {
        false
    }

    /// The next entry that the last hit made the policy let go of (forgotten already), until `None`.
    fn shed(&mut self) -> Option<Slot> {
        None
    }

    /// Internals worth a metric: segment sizes, ghost hits, a window's size. The same names in the
    /// same order at every call, and at a cost that does not grow with the number of entries.
    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        let _ = visit;
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold. For tests and fuzzers: the cost is linear or worse.
    fn check_invariants(&self);
}

impl<P: EvictionPolicy + ?Sized> EvictionPolicy for Box<P> {
    fn admit(&mut self, incoming: &Item) -> bool {
        (**self).admit(incoming)
    }
    fn relocate(&mut self, from: Slot, to: Slot) {
        (**self).relocate(from, to);
    }
    fn trim(&mut self, slots: usize) {
        (**self).trim(slots);
    }
    fn insert(&mut self, slot: Slot, item: &Item) {
        (**self).insert(slot, item);
    }
    fn hit(&mut self, slot: Slot) {
        (**self).hit(slot);
    }
    fn approach(&self, slot: Slot) {
        (**self).approach(slot);
    }
    fn hit_all(&mut self, slots: &[Slot]) {
        (**self).hit_all(slots);
    }
    fn approach_newcomer(&self, hash: u64) {
        (**self).approach_newcomer(hash);
    }
    fn step_aside(&mut self) -> Option<u64> {
        (**self).step_aside()
    }
    fn step_forward(&mut self, incoming: &Item, noted: Option<u64>) {
        (**self).step_forward(incoming, noted);
    }
    fn next_victim(&self) -> Option<Slot> {
        (**self).next_victim()
    }
    fn update(&mut self, slot: Slot, item: &Item) {
        (**self).update(slot, item);
    }
    fn remove(&mut self, slot: Slot) {
        (**self).remove(slot);
    }
    fn evict(&mut self, incoming: &Item) -> Verdict {
        (**self).evict(incoming)
    }
    fn seek(&mut self, incoming: &Item, entries: usize) -> bool {
        (**self).seek(incoming, entries)
    }
    fn resize(&mut self, capacity: u64) {
        (**self).resize(capacity);
    }
    fn len(&self) -> usize {
        (**self).len()
    }
    fn footprint_bytes(&self) -> usize {
        (**self).footprint_bytes()
    }
    fn ignores_hashes(&self) -> bool {
        (**self).ignores_hashes()
    }
    fn sheds_on_hit(&self) -> bool {
        (**self).sheds_on_hit()
    }
    fn shed(&mut self) -> Option<Slot> {
        (**self).shed()
    }
    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        (**self).gauges(visit);
    }
    fn check_invariants(&self) {
        (**self).check_invariants();
    }
}
