//! The recency stack of LIRS and the two queues beside it.
//!
//! A node stands for an entry in the stack, in a queue or in both. It outlives the entry it was made for:
//! in the stack, the non-resident are what a newcomer's recency is judged by. So nodes have numbers of their
//! own, and the resident ones know their slot.

use engine::{ChainSecret, Slot, Table};

use crate::structures::{SlotLinks, SlotList, Weights};

/// A node's number. It is a slot of this structure's lists, not of the policy.
pub(super) type Node = Slot;

const NONE: u32 = u32::MAX;
/// Non-residents of one tag at the most, which is more than ever happens by chance: tags of different entries can be made
/// equal, and no secret would tell them apart.
const MOST_ALIKE: usize = 8;
/// There are at most twice as many nodes as entries, so nodes are together when slots are.
const NODES_PER_RELOCATION: usize = 2;

/// What an entry is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Hot: in the stack only.
    Lir,
    /// Resident on probation: in the queue, maybe in the stack.
    Hir,
    /// Left, but still in the stack.
    NonResident,
    /// Pushed out of the queue by its own hit, but still in the stack and resident until room is needed. An accident
    /// of libCacheSim's, where this takes no room at all.
    Overlooked,
    /// Evicted by the policy, but not yet by the directory.
    Condemned,
    /// No entry.
    Free,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The half of a fingerprint that non-residents are found by.
    tag: u32,
    /// Of a resident its slot, of a non-resident the next one in its bucket.
    slot: u32,
    status: Status,
    in_stack: bool,
}

/// Stack, queues, and who is in them.
#[derive(Default)]
pub(super) struct Stack {
    entries: Table<Entry>,
    weights: Weights,
    node_of: Table<u32>,
    recency_links: SlotLinks,
    recency: SlotList,
    weight_in_recency: u64,
    /// Whatever its status, a node is in one queue at most.
    queue_links: SlotLinks,
    hir: SlotList,
    non_resident: SlotList,
    overlooked: SlotList,
    condemned: SlotList,
    free: SlotList,
    /// Per bucket of tags, its first non-resident. A power of two.
    buckets: Table<u32>,
    /// Chooses buckets.
    secret: ChainSecret,
    residents: usize,
    lir_weight: u64,
    hir_weight: u64,
    /// Of those overlooked and condemned.
    other_weight: u64,
}

pub(super) fn tag_of(hash: u64) -> u32 {
    u32::try_from(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> u32::BITS).expect("half of it")
}

impl Stack {
    pub(super) const fn residents(&self) -> usize {
        self.residents
    }

    pub(super) const fn lir_weight(&self) -> u64 {
        self.lir_weight
    }

    pub(super) const fn hir_weight(&self) -> u64 {
        self.hir_weight
    }

    pub(super) const fn resident_weight(&self) -> u64 {
        self.lir_weight + self.hir_weight + self.other_weight
    }

    pub(super) const fn weight_in_stack(&self) -> u64 {
        self.weight_in_recency
    }

    pub(super) const fn len(&self) -> usize {
        self.recency.len()
    }

    pub(super) const fn hir_len(&self) -> usize {
        self.hir.len()
    }

    pub(super) const fn non_residents(&self) -> usize {
        self.non_resident.len()
    }

    pub(super) fn node_of(&self, slot: Slot) -> Node {
        Slot::new(self.node_of[slot.index()])
    }

    pub(super) fn status(&self, node: Node) -> Status {
        self.entries[node.index()].status
    }

    pub(super) fn is_in_stack(&self, node: Node) -> bool {
        self.entries[node.index()].in_stack
    }

    pub(super) fn weight(&self, node: Node) -> u64 {
        u64::from(self.weights.get(node))
    }

    pub(super) fn tag(&self, node: Node) -> u32 {
        self.entries[node.index()].tag
    }

    /// The slot of a resident.
    pub(super) fn slot(&self, node: Node) -> Slot {
        Slot::new(self.entries[node.index()].slot)
    }

    pub(super) fn bottom(&self) -> Option<Node> {
        self.recency.back()
    }

    pub(super) fn oldest_hir(&self) -> Option<Node> {
        self.hir.back()
    }

    pub(super) fn find_non_resident(&self, tag: u32) -> Option<Node> {
        let mut node = *self.buckets.get(self.bucket(tag))?;
        while node != NONE && self.entries[node as usize].tag != tag {
            node = self.entries[node as usize].slot;
        }
        (node != NONE).then(|| Slot::new(node))
    }

    fn bucket(&self, tag: u32) -> usize {
        self.secret.chain(tag.into(), self.buckets.len().max(1))
    }

    fn index(&mut self, node: Node) {
        if self.non_resident.len() > self.buckets.len() {
            self.rebuild_buckets((2 * self.buckets.len()).max(4), Some(node));
        }
        let bucket = self.bucket(self.tag(node));
        self.entries[node.index()].slot = std::mem::replace(&mut self.buckets[bucket], node.get());
    }

    /// So many buckets, with all non-residents in them but this one.
    fn rebuild_buckets(&mut self, buckets: usize, but: Option<Node>) {
        self.buckets = Table::filled(NONE, buckets);
        for node in self.non_resident.iter_from_back(&self.queue_links).filter(|&node| Some(node) != but) {
            let bucket = self.bucket(self.tag(node));
            self.entries[node.index()].slot = std::mem::replace(&mut self.buckets[bucket], node.get());
        }
    }

    /// Forgets the oldest of those next to a new non-resident that are like it, if they are too many. Not the one on top of
    /// the stack, which may be at the door.
    fn thin_out(&mut self, node: Node) {
        let like = |&other: &u32| self.entries.get(other as usize).is_some_and(|it| it.tag == self.tag(node));
        let behind = |node: u32| Some(self.entries[node as usize].slot).filter(like);
        let last = std::iter::successors(Some(node.get()), |&node| behind(node)).nth(MOST_ALIKE);
        if let Some(last) = last.map(Slot::new).filter(|&last| self.recency.front() != Some(last)) {
            self.free(last);
        }
    }

    fn unindex(&mut self, node: Node) {
        let behind = self.entries[node.index()].slot;
        *self.link_to(node) = behind;
    }

    /// What leads to a non-resident: its bucket, or the one before it there.
    fn link_to(&mut self, node: Node) -> &mut u32 {
        let bucket = self.bucket(self.tag(node));
        if self.buckets[bucket] == node.get() {
            return &mut self.buckets[bucket];
        }
        let mut before = self.buckets[bucket] as usize;
        while self.entries[before].slot != node.get() {
            before = self.entries[before].slot as usize;
        }
        &mut self.entries[before].slot
    }

    /// A new node, in no list.
    pub(super) fn allocate(&mut self, tag: u32, weight: u32) -> Node {
        let entry = Entry { tag, slot: NONE, status: Status::Free, in_stack: false };
        let node = if let Some(node) = self.free.front() {
            self.free.remove(&mut self.queue_links, node);
            self.entries[node.index()] = entry;
            node
        } else {
            self.entries.push(entry);
            Slot::new(u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 - 1 nodes"))
        };
        self.weights.set(node, weight);
        node
    }

    /// Puts the name of an entry that was never resident on top of the stack.
    pub(super) fn push_non_resident(&mut self, tag: u32, weight: u32) {
        let node = self.allocate(tag, weight);
        self.put_on_top(node);
        self.set_status(node, Status::NonResident);
        self.thin_out(node);
        self.prune();
    }

    /// Ties a node to the slot of its entry.
    pub(super) fn assign(&mut self, node: Node, slot: Slot) {
        self.entries[node.index()].slot = slot.get();
        if slot.index() >= self.node_of.len() {
            self.node_of.resize(slot.index() + 1, NONE);
        }
        self.node_of[slot.index()] = node.get();
    }

    pub(super) fn set_weight(&mut self, node: Node, weight: u32) {
        let status = self.status(node);
        let in_stack = self.is_in_stack(node);
        self.leave_queue(node);
        self.weight_in_recency -= if in_stack { self.weight(node) } else { 0 };
        self.weights.set(node, weight);
        self.weight_in_recency += if in_stack { self.weight(node) } else { 0 };
        self.enter_queue(node, status);
    }

    /// Changes what a node is; it becomes the most recent of those that are the same.
    pub(super) fn set_status(&mut self, node: Node, status: Status) {
        self.leave_queue(node);
        self.enter_queue(node, status);
    }

    /// Puts a node on top of the stack.
    pub(super) fn put_on_top(&mut self, node: Node) {
        if self.is_in_stack(node) {
            self.recency.move_to_front(&mut self.recency_links, node);
        } else {
            self.entries[node.index()].in_stack = true;
            self.recency.push_front(&mut self.recency_links, node);
            self.weight_in_recency += self.weight(node);
        }
    }

    pub(super) fn refresh_in_queue(&mut self, node: Node) {
        self.hir.move_to_front(&mut self.queue_links, node);
    }

    pub(super) fn leave_stack(&mut self, node: Node) {
        self.entries[node.index()].in_stack = false;
        self.recency.remove(&mut self.recency_links, node);
        self.weight_in_recency -= self.weight(node);
    }

    /// Forgets a node and everything about it.
    pub(super) fn free(&mut self, node: Node) {
        if self.is_in_stack(node) {
            self.leave_stack(node);
        }
        self.set_status(node, Status::Free);
        self.free.push_front(&mut self.queue_links, node);
    }

    /// Another slot for a resident. The nodes move together as well.
    pub(super) fn relocate(&mut self, from: Slot, to: Slot) {
        self.assign(self.node_of(from), to);
        for _ in 0..NODES_PER_RELOCATION {
            self.drop_free_nodes();
            let Some(gap) = self.free.back() else { return };
            let last = Slot::new(u32::try_from(self.entries.len() - 1).expect("nodes are counted in u32"));
            self.free.remove(&mut self.queue_links, gap);
            self.move_node(last, gap);
        }
    }

    /// Drops the last nodes that are free.
    fn drop_free_nodes(&mut self) {
        while self.entries.last().is_some_and(|entry| entry.status == Status::Free) {
            let last = Slot::new(u32::try_from(self.entries.len() - 1).expect("nodes are counted in u32"));
            self.free.remove(&mut self.queue_links, last);
            self.entries.pop();
        }
    }

    /// Moves the last node into a free one that is on no list.
    fn move_node(&mut self, last: Node, gap: Node) {
        let entry = self.entries[last.index()];
        if entry.in_stack {
            self.recency.relocate(&mut self.recency_links, last, gap);
        }
        let queue = match entry.status {
            Status::Hir => Some(&mut self.hir),
            Status::NonResident => Some(&mut self.non_resident),
            Status::Overlooked => Some(&mut self.overlooked),
            Status::Condemned => Some(&mut self.condemned),
            Status::Lir | Status::Free => None,
        };
        if let Some(queue) = queue {
            queue.relocate(&mut self.queue_links, last, gap);
        }
        self.weights.relocate(last, gap);
        if entry.status == Status::NonResident {
            *self.link_to(last) = gap.get();
        } else {
            self.node_of[entry.slot as usize] = gap.get();
        }
        self.entries[gap.index()] = entry;
        self.entries.pop();
    }

    /// Gives back what is kept for slots from this one on, which are nobody's, and for nodes that are none.
    pub(super) fn trim(&mut self, slots: usize) {
        self.node_of.trim(slots);
        self.drop_free_nodes();
        self.entries.shrink_to_fit();
        self.weights.trim(self.entries.len());
        self.recency_links.trim(self.entries.len());
        self.queue_links.trim(self.entries.len());
        if self.buckets.len() > 4 * self.non_resident.len().next_power_of_two() {
            self.rebuild_buckets(self.non_resident.len().next_power_of_two(), None);
        }
    }

    /// Drops what is below the lowest hot entry, but for the top of the stack.
    pub(super) fn prune(&mut self) {
        while let Some(node) = self.recency.back() {
            if self.status(node) == Status::Lir || self.recency.len() == 1 {
                return;
            }
            match self.status(node) {
                Status::NonResident => self.free(node),
                Status::Overlooked => {
                    self.leave_stack(node);
                    self.set_status(node, Status::Condemned);
                }
                _ => self.leave_stack(node),
            }
        }
    }

    /// Condemns a resident. If it is in the stack, a non-resident takes its place there.
    pub(super) fn condemn(&mut self, node: Node) {
        if self.is_in_stack(node) {
            let slot = self.slot(node);
            let body = self.allocate(self.tag(node), self.weights.get(node));
            self.set_status(node, Status::NonResident);
            self.set_status(body, Status::Condemned);
            self.assign(body, slot);
            self.thin_out(node);
        } else {
            self.set_status(node, Status::Condemned);
        }
    }

    /// Takes a resident that must go, and nothing else, out of the structure.
    pub(super) fn pop_condemned(&mut self) -> Option<Slot> {
        let node = self.condemned.back()?;
        let slot = self.slot(node);
        self.free(node);
        Some(slot)
    }

    pub(super) fn oldest_overlooked(&self) -> Option<Node> {
        self.overlooked.back()
    }

    /// Forgets the entry that left first of those still in the stack.
    pub(super) fn forget_oldest_non_resident(&mut self) -> bool {
        let oldest = self.non_resident.back();
        if let Some(node) = oldest {
            self.free(node);
            self.prune();
        }
        oldest.is_some()
    }

    fn leave_queue(&mut self, node: Node) {
        let weight = self.weight(node);
        let status = self.status(node);
        self.residents -= usize::from(!matches!(status, Status::NonResident | Status::Free));
        match status {
            Status::Lir => self.lir_weight -= weight,
            Status::Hir => {
                self.hir.remove(&mut self.queue_links, node);
                self.hir_weight -= weight;
            }
            Status::NonResident => {
                self.non_resident.remove(&mut self.queue_links, node);
                self.unindex(node);
            }
            Status::Overlooked => {
                self.overlooked.remove(&mut self.queue_links, node);
                self.other_weight -= weight;
            }
            Status::Condemned => {
                self.condemned.remove(&mut self.queue_links, node);
                self.other_weight -= weight;
            }
            Status::Free => {}
        }
    }

    fn enter_queue(&mut self, node: Node, status: Status) {
        let weight = self.weight(node);
        self.entries[node.index()].status = status;
        self.residents += usize::from(!matches!(status, Status::NonResident | Status::Free));
        match status {
            Status::Lir => self.lir_weight += weight,
            Status::Hir => {
                self.hir.push_front(&mut self.queue_links, node);
                self.hir_weight += weight;
            }
            Status::NonResident => {
                self.non_resident.push_front(&mut self.queue_links, node);
                self.index(node);
            }
            Status::Overlooked => {
                self.overlooked.push_front(&mut self.queue_links, node);
                self.other_weight += weight;
            }
            Status::Condemned => {
                self.condemned.push_front(&mut self.queue_links, node);
                self.other_weight += weight;
            }
            Status::Free => {}
        }
    }

    pub(super) fn footprint_bytes(&self) -> usize {
        self.entries.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.node_of.footprint_bytes()
            + self.recency_links.footprint_bytes()
            + self.queue_links.footprint_bytes()
            + self.buckets.footprint_bytes()
    }

    pub(super) fn check_invariants(&self) {
        self.recency.check_invariants(&self.recency_links);
        let mut weight_of = [0; 3];
        let mut queued = 0;
        for (queue, status) in [
            (&self.hir, Status::Hir),
            (&self.non_resident, Status::NonResident),
            (&self.overlooked, Status::Overlooked),
            (&self.condemned, Status::Condemned),
        ] {
            queue.check_invariants(&self.queue_links);
            queued += queue.len();
            for node in queue.iter_from_back(&self.queue_links) {
                assert_eq!(self.status(node), status, "a node is in the queue of its status");
                let in_stack = self.is_in_stack(node);
                assert!(
                    in_stack || !matches!(status, Status::NonResident | Status::Overlooked),
                    "{status:?}"
                );
                weight_of[0] += if status == Status::Hir { self.weight(node) } else { 0 };
            }
        }
        assert_eq!(weight_of[0], self.hir_weight, "the weight of the queue");
        for node in self.recency.iter_from_back(&self.recency_links) {
            assert!(self.is_in_stack(node), "a node in the stack knows");
            weight_of[1] += self.weight(node);
            weight_of[2] += if self.status(node) == Status::Lir { self.weight(node) } else { 0 };
        }
        assert_eq!(weight_of[1], self.weight_in_recency, "the weight of the stack");
        assert_eq!(weight_of[2], self.lir_weight, "the weight of the hot ones, which are all in the stack");
        self.free.check_invariants(&self.queue_links);
        let in_use = self.entries.iter().filter(|entry| entry.status != Status::Free);
        assert_eq!(in_use.clone().count() + self.free.len(), self.entries.len(), "other nodes are free");
        let residents = (0..)
            .map(Slot::new)
            .zip(self.entries.iter())
            .filter(|(_, entry)| !matches!(entry.status, Status::NonResident | Status::Free));
        for (node, entry) in residents {
            assert_eq!(self.node_of(Slot::new(entry.slot)), node, "a resident's slot leads to its node");
        }
        let hot = in_use.clone().filter(|entry| entry.status == Status::Lir).count();
        assert_eq!(in_use.count(), hot + queued, "every node is hot or in a queue");
        assert_eq!(self.residents, hot + queued - self.non_resident.len(), "residents");
        let is_found = |node| self.find_non_resident(self.tag(node)).is_some();
        assert!(
            self.non_resident.iter_from_back(&self.queue_links).all(is_found),
            "non-residents are indexed"
        );
        if let Some(bottom) = self.bottom() {
            assert!(self.status(bottom) == Status::Lir || self.recency.len() == 1, "the stack is pruned");
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::{EvictionPolicy, Item, Verdict};

    use super::*;
    use crate::lirs::{Lirs, LirsOptions};
    use crate::policy::Policy;

    fn longest_chain(stack: &Stack) -> usize {
        let chained = |head: u32| {
            let behind = |&node: &u32| Some(stack.entries[node as usize].slot).filter(|&next| next != NONE);
            std::iter::successors(Some(head).filter(|&head| head != NONE), behind).count()
        };
        stack.buckets.iter().map(|&head| chained(head)).max().unwrap_or(0)
    }

    #[test]
    fn fingerprints_that_are_alike_in_any_bits_do_not_share_a_chain() {
        const ENTRIES: u64 = 1 << 12;
        // The inverse of the number that makes tags of fingerprints: these tags end in zeroes, or are all the same.
        let tagged = |tag: u64| (tag << 32).wrapping_mul(0xF1DE_83E1_9937_733D);
        let alike: [&dyn Fn(u64) -> u64; 2] =
            [&|number| tagged(number << 16), &|number| if number < ENTRIES { 0 } else { tagged(number) }];
        for fingerprint in alike {
            let mut lirs = Lirs::new(ENTRIES, 1, &LirsOptions { hir_ratio: 0.9, ..LirsOptions::default() });
            let mut free = Vec::new();
            let mut longest = 0;
            for number in 0..4 * ENTRIES {
                let item = Item { hash: fingerprint(number), weight: 1 };
                assert!(lirs.admit(&item));
                if lirs.len() as u64 == ENTRIES {
                    let Verdict::Evict(victim) = lirs.evict(&item) else { panic!("it is not too heavy") };
                    free.push(victim);
                }
                let next = u32::try_from(lirs.len()).expect("few");
                lirs.insert(free.pop().unwrap_or_else(|| Slot::new(next)), &item);
                longest = longest.max(longest_chain(&lirs.stack));
            }
            lirs.check_invariants();
            assert!(longest < 32, "{longest} non-residents in one chain");
            assert!(lirs.stack.non_residents() > 100, "there are chains");
        }
    }
}
