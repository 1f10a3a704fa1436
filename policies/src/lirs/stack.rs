//! The recency stack of LIRS and the two queues beside it.
//!
//! A node stands for an entry in the stack, in a queue or in both. It outlives the entry it was made for:
//! in the stack, the non-resident are what a newcomer's recency is judged by. So nodes have numbers of their
//! own, and the resident ones know their slot.

use engine::Slot;

use crate::structures::{SlotLinks, SlotList, Weights};

/// A node's number. It is a slot of this structure's lists, not of the policy.
pub(super) type Node = Slot;

const NONE: u32 = u32::MAX;

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
    /// Of a resident its slot, of a non-resident the next one in its bucket, of a free node the next free one.
    slot: u32,
    status: Status,
    in_stack: bool,
}

/// Stack, queues, and who is in them.
#[derive(Default)]
pub(super) struct Stack {
    entries: Vec<Entry>,
    weights: Weights,
    first_free: Option<Node>,
    node_of: Vec<u32>,
    recency_links: SlotLinks,
    recency: SlotList,
    weight_in_recency: u64,
    /// Whatever its status, a node is in one queue at most.
    queue_links: SlotLinks,
    hir: SlotList,
    non_resident: SlotList,
    overlooked: SlotList,
    condemned: SlotList,
    /// Per bucket of tags, its first non-resident. A power of two.
    buckets: Vec<u32>,
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
        tag as usize & self.buckets.len().wrapping_sub(1)
    }

    fn index(&mut self, node: Node) {
        if self.non_resident.len() > self.buckets.len() {
            self.buckets = vec![NONE; (2 * self.buckets.len()).max(4)];
            for other in self.non_resident.iter_from_back(&self.queue_links).filter(|&other| other != node) {
                let bucket = self.bucket(self.tag(other));
                let first = std::mem::replace(&mut self.buckets[bucket], other.get());
                self.entries[other.index()].slot = first;
            }
        }
        let bucket = self.bucket(self.tag(node));
        self.entries[node.index()].slot = std::mem::replace(&mut self.buckets[bucket], node.get());
    }

    fn unindex(&mut self, node: Node) {
        let bucket = self.bucket(self.tag(node));
        let behind = self.entries[node.index()].slot;
        if self.buckets[bucket] == node.get() {
            self.buckets[bucket] = behind;
            return;
        }
        let mut before = self.buckets[bucket] as usize;
        while self.entries[before].slot != node.get() {
            before = self.entries[before].slot as usize;
        }
        self.entries[before].slot = behind;
    }

    /// A new node, in no list.
    pub(super) fn allocate(&mut self, tag: u32, weight: u32) -> Node {
        let entry = Entry { tag, slot: NONE, status: Status::Free, in_stack: false };
        let node = if let Some(node) = self.first_free {
            let next = std::mem::replace(&mut self.entries[node.index()], entry).slot;
            self.first_free = (next != NONE).then(|| Slot::new(next));
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
        self.entries[node.index()].slot = self.first_free.map_or(NONE, Slot::get);
        self.first_free = Some(node);
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
        self.entries.capacity() * size_of::<Entry>()
            + self.weights.footprint_bytes()
            + self.node_of.capacity() * size_of::<u32>()
            + self.recency_links.footprint_bytes()
            + self.queue_links.footprint_bytes()
            + self.buckets.capacity() * size_of::<u32>()
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
        let in_use = self.entries.iter().filter(|entry| entry.status != Status::Free);
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
