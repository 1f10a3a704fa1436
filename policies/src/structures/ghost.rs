//! A ghost queue: fingerprints of entries that have left, oldest first out, bounded in weight, and in number where weights
//! differ.
//!
//! It tells a policy that a newcomer was resident not long ago. Memory holds one fingerprint, two list
//! links and one link of a hash chain per ghost, and one chain head per bucket: 24 bytes, and 4 more only
//! where weights are not 1. Chains rather than an open table, since ghosts come and go at the same rate:
//! no tombstones, hence no rehash and no allocation once the queue has reached its size. Until then there is a further chain
//! for each ghost, which takes from one other. Which chain it is is the process's secret, as fingerprints are none.
//! A ghost can carry a value, such as the time of its last use.

use engine::{ChainSecret, Item, Slot, Table};

use super::{SlotLinks, SlotList, Weights};

const NONE: u32 = u32::MAX;
/// How often there may be room for the ghosts that there are, when some of it is given back.
const MOST_ROOM: usize = 4;
/// Ghosts dropped in one go at the most, where there are more than residents pay for: thousands may have expired at once.
const DROPPED_AT_ONCE: usize = 32;
/// Where weights differ, there may be so many ghosts for each resident.
pub const GHOSTS_PER_RESIDENT: usize = 4;

/// Ghosts in the order in which they were pushed, each with a value; each fingerprint is in it at most once.
pub struct GhostQueue<T = ()> {
    capacity: u64,
    /// The largest number of ghosts.
    most: usize,
    weight: u64,
    /// Nodes in the order of age. A node is a slot of this queue, not of the policy.
    queue: SlotList,
    links: SlotLinks,
    hashes: Table<u64>,
    weights: Weights,
    values: Table<T>,
    /// Per node, the next one in its bucket, or in the list of free nodes.
    chain: Table<u32>,
    first_free: u32,
    /// Per bucket, its first node. As many as there are nodes.
    buckets: Table<u32>,
    secret: ChainSecret,
}

impl GhostQueue {
    /// Remembers an entry; see [`push_with`](Self::push_with).
    pub fn push(&mut self, item: Item) {
        self.push_with(item, ());
    }
}

impl<T: Copy> GhostQueue<T> {
    /// An empty queue that remembers ghosts of up to `capacity` in units of [`Item::weight`].
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            most: usize::MAX,
            weight: 0,
            queue: SlotList::default(),
            links: SlotLinks::default(),
            hashes: Table::default(),
            weights: Weights::default(),
            values: Table::default(),
            chain: Table::default(),
            first_free: NONE,
            buckets: Table::default(),
            secret: ChainSecret::default(),
        }
    }

    /// Remembers an entry as the most recent ghost. The oldest ones are dropped to make room; an entry
    /// that weighs more than the capacity is not remembered. A ghost of the same fingerprint is replaced.
    pub fn push_with(&mut self, item: Item, value: T) {
        self.remove(item.hash);
        let weight = u64::from(item.weight);
        if weight > self.capacity || self.most == 0 {
            return;
        }
        self.drop_down_to(self.capacity - weight);
        if self.len() >= self.most {
            self.pop_oldest();
        }
        let node = self.allocate(item.hash, value);
        self.queue.push_front(&mut self.links, node);
        self.weights.set(node, item.weight);
        self.weight += weight;
    }

    /// Whether a fingerprint is remembered.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.bucket(hash).is_some_and(|bucket| self.find(bucket, hash).is_some())
    }

    /// The number of a remembered fingerprint, for data that a policy keeps beside its ghosts. Numbers are
    /// dense, stay as long as the ghost does and nothing is [trimmed](Self::trim), and are then given to others.
    #[must_use]
    pub fn number(&self, hash: u64) -> Option<usize> {
        self.bucket(hash).and_then(|bucket| self.find(bucket, hash)).map(Slot::index)
    }

    /// Forgets a fingerprint. Returns whether it was remembered.
    pub fn remove(&mut self, hash: u64) -> bool {
        self.take(hash).is_some()
    }

    /// Forgets a fingerprint and returns its value, if it was remembered.
    pub fn take(&mut self, hash: u64) -> Option<T> {
        let node = self.bucket(hash).and_then(|bucket| self.find(bucket, hash))?;
        self.forget(node);
        Some(self.values[node.index()])
    }

    /// The ghost that was pushed first.
    #[must_use]
    pub fn oldest(&self) -> Option<Item> {
        self.queue.back().map(|node| self.item(node))
    }

    /// Forgets the ghost that was pushed first and returns it.
    pub fn pop_oldest(&mut self) -> Option<Item> {
        let node = self.queue.back()?;
        let item = self.item(node);
        self.forget(node);
        Some(item)
    }

    /// The largest sum of weights.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Changes the capacity; the oldest ghosts are dropped where it has become smaller.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.drop_down_to(capacity);
    }

    /// Bounds the number of ghosts by that of the residents, which pay for their memory: a weight alone would let thousands
    /// of small ones outlive the few large entries that have pushed them out. Not where all residents weigh 1, as a weight is
    /// a number then. Of too many the oldest are dropped, a few at a time.
    pub fn limit_by_residents(&mut self, residents: usize, weight: u64) {
        let is_counted = weight == residents as u64;
        self.most = if is_counted { usize::MAX } else { GHOSTS_PER_RESIDENT.saturating_mul(residents) };
        for _ in 0..self.len().saturating_sub(self.most).min(DROPPED_AT_ONCE) {
            self.pop_oldest();
        }
    }

    /// Gives memory back where there is room for many more ghosts than there are; which ones, and their order, stay.
    pub fn trim(&mut self) {
        if self.chain.len() <= MOST_ROOM * self.len() {
            return;
        }
        let nodes = self.queue.iter_from_back(&self.links);
        let ghosts: Vec<(Item, T)> = nodes.map(|node| (self.item(node), self.values[node.index()])).collect();
        *self = Self { most: self.most, ..Self::new(self.capacity) };
        for (item, value) in ghosts {
            self.push_with(item, value);
        }
    }

    /// The sum of the ghosts' weights.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// Number of ghosts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
            + self.hashes.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.values.footprint_bytes()
            + self.chain.footprint_bytes()
            + self.buckets.footprint_bytes()
    }

    /// Checks the whole structure.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        self.queue.check_invariants(&self.links);
        let nodes = || self.queue.iter_from_back(&self.links);
        let weight = nodes().map(|node| u64::from(self.weights.get(node))).sum::<u64>();
        assert_eq!(self.weight, weight, "the weight is the ghosts' sum");
        assert!(self.weight <= self.capacity, "the capacity holds");
        for node in nodes() {
            let hash = self.hashes[node.index()];
            let found = self.bucket(hash).and_then(|bucket| self.find(bucket, hash));
            assert_eq!(found, Some(node), "a ghost is found by its fingerprint, and is there once");
        }
        let chained = |head: u32| std::iter::successors(next(head), |&node| next(self.chain[node.index()]));
        let indexed = self.buckets.iter().map(|&head| chained(head).count()).sum::<usize>();
        assert_eq!(indexed, self.len(), "nothing but ghosts is indexed");
        assert_eq!(indexed + chained(self.first_free).count(), self.chain.len(), "other nodes are free");
    }

    fn item(&self, node: Slot) -> Item {
        Item { hash: self.hashes[node.index()], weight: self.weights.get(node) }
    }

    fn drop_down_to(&mut self, weight: u64) {
        while self.weight > weight {
            self.pop_oldest().expect("what weighs something is not empty");
        }
    }

    /// The bucket of a fingerprint; `None` before the first ghost.
    fn bucket(&self, hash: u64) -> Option<usize> {
        (!self.buckets.is_empty()).then(|| self.secret.chain(hash, self.buckets.len()))
    }

    fn find(&self, bucket: usize, hash: u64) -> Option<Slot> {
        let mut node = self.buckets[bucket];
        while node != NONE && self.hashes[node as usize] != hash {
            node = self.chain[node as usize];
        }
        next(node)
    }

    fn allocate(&mut self, hash: u64, value: T) -> Slot {
        let node = if self.first_free == NONE {
            self.add_bucket();
            self.hashes.push(hash);
            self.values.push(value);
            self.chain.push(NONE);
            u32::try_from(self.chain.len() - 1).expect("fewer than 2^32 - 1 ghosts")
        } else {
            let node = self.first_free;
            self.first_free = self.chain[node as usize];
            self.hashes[node as usize] = hash;
            self.values[node as usize] = value;
            node
        };
        self.enchain(node);
        Slot::new(node)
    }

    /// One bucket more, to which some go over from one other.
    fn add_bucket(&mut self) {
        let number = self.buckets.len();
        self.buckets.push(NONE);
        if let Some(bits) = number.checked_ilog2() {
            let mut node = std::mem::replace(&mut self.buckets[number - (1 << bits)], NONE);
            while let Some(moved) = next(node) {
                node = self.chain[moved.index()];
                self.enchain(moved.get());
            }
        }
    }

    fn enchain(&mut self, node: u32) {
        let bucket = self.bucket(self.hashes[node as usize]).expect("there are buckets");
        self.chain[node as usize] = std::mem::replace(&mut self.buckets[bucket], node);
    }

    fn forget(&mut self, node: Slot) {
        self.queue.remove(&mut self.links, node);
        self.weight -= u64::from(self.weights.get(node));
        let bucket = self.bucket(self.hashes[node.index()]).expect("there are buckets");
        let behind = self.chain[node.index()];
        if self.buckets[bucket] == node.get() {
            self.buckets[bucket] = behind;
        } else {
            let mut before = self.buckets[bucket] as usize;
            while self.chain[before] != node.get() {
                before = self.chain[before] as usize;
            }
            self.chain[before] = behind;
        }
        self.chain[node.index()] = std::mem::replace(&mut self.first_free, node.get());
    }
}

fn next(node: u32) -> Option<Slot> {
    (node != NONE).then(|| Slot::new(node))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// The same queue without an index.
    #[derive(Default)]
    struct Model {
        capacity: u64,
        ghosts: VecDeque<Item>,
    }

    impl Model {
        fn weight(&self) -> u64 {
            self.ghosts.iter().map(|ghost| u64::from(ghost.weight)).sum()
        }

        fn trim(&mut self) {
            while self.weight() > self.capacity {
                self.ghosts.pop_front();
            }
        }

        fn remove(&mut self, hash: u64) -> bool {
            let before = self.ghosts.len();
            self.ghosts.retain(|ghost| ghost.hash != hash);
            self.ghosts.len() < before
        }

        fn push(&mut self, item: Item) {
            self.remove(item.hash);
            if u64::from(item.weight) <= self.capacity {
                self.ghosts.push_back(item);
                self.trim();
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64, u32),
        Remove(u64),
        PopOldest,
        SetCapacity(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Some fingerprints differ in their highest bits only: they share a bucket at times.
        let hash = || prop_oneof![0..40_u64, (0..40_u64).prop_map(|hash| hash << 58)];
        let step = prop_oneof![
            12 => (hash(), prop_oneof![Just(1), 1..30_u32]).prop_map(|(hash, weight)| Step::Push(hash, weight)),
            6 => hash().prop_map(Step::Remove),
            1 => Just(Step::PopOldest),
            1 => (0..80_u64).prop_map(Step::SetCapacity),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_queue(steps in steps()) {
            let mut ghosts = GhostQueue::new(20);
            let mut model = Model { capacity: 20, ..Model::default() };
            for step in steps {
                match step {
                    Step::Push(hash, weight) => {
                        ghosts.push(Item { hash, weight });
                        model.push(Item { hash, weight });
                    }
                    Step::Remove(hash) => prop_assert_eq!(ghosts.remove(hash), model.remove(hash)),
                    Step::PopOldest => prop_assert_eq!(ghosts.pop_oldest(), model.ghosts.pop_front()),
                    Step::SetCapacity(capacity) => {
                        ghosts.set_capacity(capacity);
                        model.capacity = capacity;
                        model.trim();
                    }
                }
                ghosts.check_invariants();
                prop_assert_eq!(ghosts.len(), model.ghosts.len());
                prop_assert_eq!(ghosts.weight(), model.weight());
                prop_assert_eq!(ghosts.oldest(), model.ghosts.front().copied());
                for hash in 0..40 {
                    prop_assert_eq!(ghosts.contains(hash), model.ghosts.iter().any(|g| g.hash == hash));
                }
            }
        }
    }

    #[test]
    fn fingerprints_that_are_alike_in_any_bits_do_not_share_a_chain() {
        const GHOSTS: u64 = 1 << 14;
        // The inverse of the number that is mostly multiplied by before the highest bits choose.
        let alike =
            [|number: u64| number.wrapping_mul(0xF1DE_83E1_9937_733D), |n| n, |n| n << 32, |n| n << 50];
        for fingerprint in alike {
            let mut ghosts = GhostQueue::new(GHOSTS);
            (0..2 * GHOSTS).for_each(|number| ghosts.push(Item { hash: fingerprint(number), weight: 1 }));
            let chained =
                |head: u32| std::iter::successors(next(head), |&node| next(ghosts.chain[node.index()]));
            let longest = ghosts.buckets.iter().map(|&head| chained(head).count()).max();
            assert_eq!(ghosts.len() as u64, GHOSTS);
            assert!(longest < Some(32), "{longest:?} ghosts in one chain");
        }
    }

    #[test]
    fn residents_of_different_weights_limit_the_number_of_ghosts_and_memory_follows() {
        let mut ghosts = GhostQueue::new(1 << 20);
        for hash in 0..10_000 {
            ghosts.push(Item { hash, weight: 10 });
        }
        ghosts.limit_by_residents(5000, 5000);
        assert_eq!(ghosts.len(), 10_000, "where items are counted, their weight is the only limit");
        let over = 10_000 - 400;
        for turn in 1..=over / DROPPED_AT_ONCE {
            ghosts.limit_by_residents(100, 1 << 20);
            assert_eq!(ghosts.len(), 10_000 - turn * DROPPED_AT_ONCE, "a few at a time");
        }
        ghosts.limit_by_residents(100, 1 << 20);
        assert_eq!(ghosts.len(), 400);
        assert!(ghosts.contains(9_999) && ghosts.contains(9_600) && !ghosts.contains(9_599), "the latest");
        ghosts.trim();
        assert!(ghosts.footprint_bytes() <= 2 * 28 * 400, "{} bytes", ghosts.footprint_bytes());
        ghosts.push(Item { hash: 7, weight: 10 });
        assert_eq!((ghosts.len(), ghosts.contains(7), ghosts.contains(9_600)), (400, true, false));
        ghosts.limit_by_residents(0, 5);
        ghosts.push(Item { hash: 8, weight: 10 });
        assert!(!ghosts.contains(8), "nobody pays for it");
        ghosts.check_invariants();
    }

    #[test]
    fn a_value_comes_back_with_its_ghost() {
        let mut ghosts = GhostQueue::new(2);
        for (hash, value) in [(1, "one"), (2, "two"), (3, "three"), (2, "again")] {
            ghosts.push_with(Item { hash, weight: 1 }, value);
        }
        assert_eq!([1, 2, 2, 3].map(|hash| ghosts.take(hash)), [None, Some("again"), None, Some("three")]);
    }

    #[test]
    fn a_full_queue_of_unit_weights_costs_24_bytes_a_ghost_however_long_it_runs() {
        let mut ghosts = GhostQueue::new(1024);
        for hash in 0..100_000_u64 {
            ghosts.push(Item { hash, weight: 1 });
            if hash % 3 == 0 {
                assert!(ghosts.remove(hash / 2 * 2));
            }
        }
        for hash in 200_000..201_024_u64 {
            ghosts.push(Item { hash, weight: 1 });
        }
        assert_eq!((ghosts.len(), ghosts.footprint_bytes()), (1024, 24 * 1024));
    }
}
