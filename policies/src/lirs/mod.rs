//! LIRS: what counts is the recency of an entry's last use but one. Entries used twice within the depth of a stack
//! are hot (LIR) and hold nearly all the room; the others (HIR) pass through a queue of 1 %, but their names stay in
//! the stack after they have left, so that a second use soon enough makes them hot.
//!
//! Jiang and Zhang, "LIRS: An Efficient Low Inter-reference Recency Set Replacement Policy to Improve Buffer Cache
//! Performance", SIGMETRICS 2002. Deviations:
//! - Fewer non-residents than residents are in the stack: beyond that, those that left first are forgotten. The paper
//!   leaves their number open. Nor are more than nine of them in the stack whose tags are equal, which chance does not bring
//!   about.
//! - Room that hot entries leave when they are deleted is given to newcomers, as it is while the cache fills.
//! - Where weights differ, as many hot entries are demoted as needed. A newcomer that is heavier than the queue may
//!   be is not hot even if there is room; once the cache is full, it leaves at once and only its name stays in the
//!   stack, as if it had passed through the queue. What is heavier than all hot ones may be together never is hot.
//!
//! `variant = "libcachesim"` demotes a hot entry also on a hit in the queue, may evict on a hit, and refuses
//! what is heavier than the queue. It differs in what its budget forbids: an entry that libCacheSim pushes out
//! of the queue by its own hit, yet still counts as resident, is resident here only while there is room; and
//! what libCacheSim evicts although there is room leaves here with the next call.

mod stack;

use engine::{EvictionPolicy, Gauge, Item, Slot, Verdict};
use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant, require};
use crate::policy::{OptionDoc, OptionError, Policy};
use stack::{Node, Stack, Status, tag_of};

/// Evicts what was not used twice within the depth of the stack.
pub struct Lirs {
    hir_ratio: f64,
    libcachesim: bool,
    capacity: u64,
    /// The weight that is shared out: the capacity, or what is resident where another limit binds first.
    bound: u64,
    stack: Stack,
    newcomer: Option<Newcomer>,
    ghost_hits: u64,
}

/// Who is at the door.
#[derive(Clone, Copy)]
struct Newcomer {
    /// Its node, if its name is still in the stack.
    returning: Option<Node>,
    /// Room has been made for it as libCacheSim does.
    is_prepared: bool,
}

/// See [`Policy::OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LirsOptions {
    /// The share of the capacity for entries that are not hot.
    pub hir_ratio: f64,
    /// Whose version.
    pub variant: Variant,
}

impl Default for LirsOptions {
    fn default() -> Self {
        Self { hir_ratio: 0.01, variant: Variant::Published }
    }
}

impl Lirs {
    #[expect(clippy::cast_precision_loss, reason = "capacities beyond 2^53 are never reached")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ratio is 0 or more")]
    fn hir_limit(&self) -> u64 {
        ((self.hir_ratio * self.bound as f64) as u64).max(1)
    }

    fn lir_limit(&self) -> u64 {
        self.bound.saturating_sub(self.hir_limit())
    }

    fn look_up(&mut self, tag: u32) -> Newcomer {
        let returning = self.stack.find_non_resident(tag);
        if let Some(node) = returning {
            self.stack.put_on_top(node);
            self.stack.prune();
            self.ghost_hits += 1;
        }
        Newcomer { returning, is_prepared: false }
    }

    /// Makes the hot entry at the bottom of the stack one of the queue. Returns its weight.
    fn demote(&mut self) -> u64 {
        let node = self.stack.bottom().expect("there are hot entries, which are in the stack");
        debug_assert_eq!(self.stack.status(node), Status::Lir);
        let weight = self.stack.weight(node);
        self.stack.leave_stack(node);
        if self.libcachesim && weight > self.hir_limit() {
            self.stack.condemn(node);
        } else {
            if self.libcachesim {
                self.shrink_queue(self.hir_limit() - weight);
            }
            self.stack.set_status(node, Status::Hir);
        }
        self.stack.prune();
        weight
    }

    fn shrink_queue(&mut self, weight: u64) {
        while self.stack.hir_weight() > weight {
            self.stack.condemn(self.stack.oldest_hir().expect("what weighs something is not empty"));
        }
    }

    /// Demotes while hot entries, one of this weight included, are over their limit.
    fn demote_for(&mut self, weight: u64) {
        while self.stack.lir_weight() > 0 && self.stack.lir_weight() + weight > self.lir_limit() {
            self.demote();
        }
    }

    /// Makes an entry on top of the stack hot, and as many others not.
    fn promote(&mut self, node: Node) {
        if self.stack.weight(node) > self.lir_limit() {
            self.stack.set_status(node, Status::Hir);
            return;
        }
        self.stack.set_status(node, Status::Lir);
        self.demote_for(0);
    }

    /// A hit on an entry that is in the queue only.
    fn hit_in_queue(&mut self, node: Node) {
        if self.libcachesim {
            let mut weight = self.stack.weight(node);
            while self.stack.lir_weight() > 0 && self.stack.lir_weight() + weight > self.lir_limit() {
                let demoted = self.demote();
                if self.stack.status(node) == Status::Condemned {
                    weight = demoted;
                }
            }
        }
        self.stack.put_on_top(node);
        if self.stack.status(node) == Status::Condemned {
            self.stack.set_status(node, Status::Overlooked);
        }
        self.stack.prune();
    }

    /// Makes room as libCacheSim does, whether or not there is some.
    fn prepare(&mut self, newcomer: Newcomer, weight: u64) {
        let hir_limit = self.hir_limit();
        if newcomer.returning.is_some() {
            self.demote_for(weight);
            // The newcomer counts twice: as hot already, and as the one that room is made for.
            while self.stack.lir_weight() + self.stack.hir_weight() + weight > self.capacity {
                self.shrink_queue(hir_limit - 1);
                if self.stack.lir_weight() == 0 {
                    return;
                }
                self.demote();
            }
        } else if self.stack.lir_weight() + weight > self.lir_limit()
            && self.stack.hir_weight() + weight > hir_limit
        {
            self.shrink_queue(hir_limit.saturating_sub(weight));
        }
    }

    /// An entry that is over its limit, or the oldest of the queue.
    fn condemn_one(&mut self) {
        while self.stack.lir_weight() > self.lir_limit() {
            self.demote();
        }
        let victim = self.stack.oldest_overlooked().or(self.stack.oldest_hir());
        if let Some(node) = victim.or(self.stack.bottom().filter(|_| self.stack.lir_weight() > 0)) {
            if self.stack.status(node) == Status::Lir {
                self.stack.leave_stack(node);
            }
            self.stack.condemn(node);
        }
        self.stack.prune();
    }

    fn place(&mut self, slot: Slot, tag: u32, weight: u32, newcomer: Newcomer) {
        if self.libcachesim && !newcomer.is_prepared {
            self.prepare(newcomer, u64::from(weight));
        }
        if let Some(node) = newcomer.returning {
            self.stack.set_weight(node, weight);
            self.stack.set_status(node, Status::Hir);
            self.stack.assign(node, slot);
            self.promote(node);
        } else {
            let node = self.stack.allocate(tag, weight);
            self.stack.assign(node, slot);
            let weight = u64::from(weight);
            let is_hot = weight <= self.hir_limit() && self.stack.lir_weight() + weight <= self.lir_limit();
            self.stack.set_status(node, if is_hot { Status::Lir } else { Status::Hir });
            self.stack.put_on_top(node);
        }
        self.stack.prune();
        self.limit_stack();
    }

    fn limit_stack(&mut self) {
        if self.libcachesim {
            let limit = self.capacity.saturating_mul(2);
            while self.stack.weight_in_stack() > limit && self.stack.forget_oldest_non_resident() {}
        } else {
            while self.stack.non_residents() + 1 >= self.stack.residents().max(2) {
                self.stack.forget_oldest_non_resident();
            }
        }
    }
}

impl Policy for Lirs {
    const NAME: &'static str = "lirs";
    const SUMMARY: &'static str =
        "low inter-reference recency: what was not used twice within a while leaves";
    const PAPER: &'static str = "Jiang and Zhang, LIRS: An Efficient Low Inter-reference Recency Set Replacement Policy, SIGMETRICS 2002";
    const OPTIONS: &'static [OptionDoc] = &[
        OptionDoc {
            name: "hir_ratio",
            allowed: "0.001 to 0.999",
            meaning: "the share of the capacity for entries that are not hot",
        },
        VARIANT,
    ];
    const BYTES_PER_ENTRY: usize = 80;
    const BYTES_PER_WEIGHED_ENTRY: usize = 88;
    type Options = LirsOptions;

    fn validate(options: &LirsOptions) -> Result<(), OptionError> {
        let hir_ratio = options.hir_ratio;
        require((0.001..=0.999).contains(&hir_ratio), "hir_ratio", hir_ratio, "0.001 to 0.999")
    }

    fn new(capacity: u64, _seed: u64, options: &LirsOptions) -> Self {
        Self {
            hir_ratio: options.hir_ratio,
            libcachesim: options.variant == Variant::Libcachesim,
            capacity,
            bound: capacity,
            stack: Stack::default(),
            newcomer: None,
            ghost_hits: 0,
        }
    }
}

impl EvictionPolicy for Lirs {
    fn admit(&mut self, incoming: &Item) -> bool {
        let newcomer = self.look_up(tag_of(incoming.hash));
        let weight = u64::from(incoming.weight);
        let is_refused = self.libcachesim
            && newcomer.returning.is_none()
            && (weight > self.lir_limit() || weight > self.hir_limit());
        self.newcomer = (!is_refused).then_some(newcomer);
        !is_refused
    }

    fn step_aside(&mut self) -> Option<u64> {
        self.newcomer.take().map(|newcomer| newcomer.is_prepared.into())
    }

    /// Its node may have been forgotten meanwhile, or be another one.
    fn step_forward(&mut self, incoming: &Item, noted: Option<u64>) {
        let hits = self.ghost_hits;
        self.newcomer = noted.map(|is_prepared| {
            let found = self.look_up(tag_of(incoming.hash));
            Newcomer { is_prepared: is_prepared == 1, ..found }
        });
        self.ghost_hits = hits;
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        debug_assert!(self.newcomer.is_none(), "nobody is at the door, whose node might move");
        self.stack.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.stack.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        let newcomer = self.newcomer.take().unwrap_or_else(|| self.look_up(tag_of(item.hash)));
        self.place(slot, tag_of(item.hash), item.weight, newcomer);
    }

    fn hit(&mut self, slot: Slot) {
        let node = self.stack.node_of(slot);
        let is_in_stack = self.stack.is_in_stack(node);
        match self.stack.status(node) {
            Status::Lir => {
                self.stack.put_on_top(node);
                self.stack.prune();
            }
            Status::Hir if !is_in_stack => {
                self.stack.refresh_in_queue(node);
                self.hit_in_queue(node);
            }
            Status::Condemned => {
                // For libCacheSim this is a miss. The entry has not left yet: it comes in again.
                let tag = self.stack.tag(node);
                let weight = u32::try_from(self.stack.weight(node)).expect("a weight has 32 bits");
                let newcomer = self.look_up(tag);
                self.stack.free(node);
                self.place(slot, tag, weight, newcomer);
            }
            _ => {
                self.stack.put_on_top(node);
                self.stack.prune();
                self.promote(node);
            }
        }
        self.limit_stack();
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        self.stack.set_weight(self.stack.node_of(slot), item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.stack.free(self.stack.node_of(slot));
        self.stack.prune();
        self.limit_stack();
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        self.bound = self.capacity.min(self.stack.resident_weight() + u64::from(incoming.weight));
        if let Some(newcomer) = self.newcomer.filter(|newcomer| self.libcachesim && !newcomer.is_prepared) {
            self.prepare(newcomer, u64::from(incoming.weight));
            self.newcomer = Some(Newcomer { is_prepared: true, ..newcomer });
        }
        let is_new = self.newcomer.is_some_and(|newcomer| newcomer.returning.is_none());
        if is_new && !self.libcachesim && u64::from(incoming.weight) > self.hir_limit() {
            self.newcomer = None;
            self.stack.push_non_resident(tag_of(incoming.hash), incoming.weight);
            self.limit_stack();
            return Verdict::Reject;
        }
        loop {
            if let Some(victim) = self.stack.pop_condemned() {
                return Verdict::Evict(victim);
            }
            self.condemn_one();
        }
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.bound = capacity;
    }

    fn len(&self) -> usize {
        self.stack.residents()
    }

    fn footprint_bytes(&self) -> usize {
        self.stack.footprint_bytes()
    }

    fn sheds_on_hit(&self) -> bool {
        self.libcachesim
    }

    fn shed(&mut self) -> Option<Slot> {
        self.stack.pop_condemned()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::count("lir_weight", self.stack.lir_weight()));
        visit(Gauge::count("hir_weight", self.stack.hir_weight()));
        visit(Gauge::count("hir_entries", self.stack.hir_len() as u64));
        visit(Gauge::count("stack_entries", self.stack.len() as u64));
        visit(Gauge::count("ghost_entries", self.stack.non_residents() as u64));
        visit(Gauge::count("ghost_hits", self.ghost_hits));
    }

    fn check_invariants(&self) {
        self.stack.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn what_was_used_twice_within_the_stack_stays() {
        // Of 4 entries, 3 may be hot.
        let options = LirsOptions { hir_ratio: 0.25, ..LirsOptions::default() };
        for (script, expected) in [
            // The first three are hot; the others pass through the queue.
            ("a b c d e f", "de"),
            // Used again while its name is in the stack, `d` becomes hot, and `a`, the bottom, does not stay so.
            ("a b c d d e f", "ae"),
            // Its name outlives it: `d` returns hot, and pushes `a` into the queue.
            ("a b c d e d f g", "deaf"),
            // With `a` on top, `b` is the bottom.
            ("a b c d a d e f", "be"),
            // In the queue only, since the stack was pruned: a hit does not make `d` hot yet.
            ("a b c d a b c d e f", "de"),
            ("a b c d a b c d d e f", "ae"),
            // The room of a hot entry that was removed is given to a newcomer.
            ("a b c d -b e f g", "df"),
            ("a b c d =d e ! ! ! !", "aebcd"),
        ] {
            assert_eq!(victims::<Lirs>(&options, 4, script), expected, "{script}");
        }
    }

    #[test]
    fn libcachesim_demotes_for_a_hit_in_the_queue() {
        let options = LirsOptions { hir_ratio: 0.25, variant: Variant::Libcachesim };
        for (script, expected) in [
            ("a b c d e f", "de"),
            // The hit on `d`, in the queue only, pushes `a` there and `d` out. Both are still resident.
            ("a b c d a b c d e", "d"),
            ("a b c d a b c d d e f", "ae"),
        ] {
            assert_eq!(victims::<Lirs>(&options, 4, script), expected, "{script}");
        }
    }
}
