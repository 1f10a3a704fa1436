//! W-TinyLFU: a small window takes every newcomer; what falls out of it is admitted to the main part only if a sketch
//! of lately seen fingerprints says that it is used more often than the main part's victim. The main part is a
//! segmented LRU. How large the window is, recency or frequency, is found by hill climbing.
//!
//! Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage
//! 13(4), 2017; Einziger, Eytan, Friedman and Manes, "Adaptive Software Cache Management", Middleware 2018.
//! As in Caffeine: 80 % of the main part is protected, steps of 6.25 % of the capacity that shrink by 2 % each,
//! and a frequent candidate that ties is admitted now and then, against attacks on the sketch. Deviations:
//! - The window holds at least one entry, so that everything can be stored.
//! - A newcomer that is larger than the window is a candidate at once, and may be turned away.
//! - The sketch grows with the number of entries, so that it suits any weights.
//! - A candidate counts once more, as in libCacheSim: what keeps coming back gets in sooner.

use engine::{EvictionPolicy, Gauge, Item, Slot, Table, Verdict};
use serde::{Deserialize, Serialize};

use crate::options::require;
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Sketch, SlotLinks, SlotList, Weights, relocate_slot};

/// The main part's share that is protected.
const PROTECTED_RATIO: f64 = 0.8;
/// A step of the climber, as a share of the capacity, and what is left of it after each.
const STEP_RATIO: f64 = 0.0625;
const STEP_DECAY: f64 = 0.98;
/// A change of the hit ratio that starts the climber anew.
const RESTART: f64 = 0.05;
/// Requests per entry between two steps.
const SAMPLE_PER_ENTRY: u64 = 10;
/// A candidate seen as often as this may be admitted without being the more frequent one, once in 128 times.
const FREQUENT: u32 = 6;

/// Evicts what is used less often than the others, by an estimate that ages.
pub struct WTinyLfu {
    capacity: u64,
    links: SlotLinks,
    lists: [SlotList; 3],
    held: [u64; 3],
    places: Table<u8>,
    tags: Table<u32>,
    weights: Weights,
    sketch: Sketch,
    /// The window's share of the capacity.
    window_ratio: f64,
    climber: Option<Climber>,
    /// The weight that is shared out: the capacity, or what is resident where another limit binds first.
    bound: u64,
    random: u64,
    rejections: u64,
    /// Somebody is at the door, who may be turned away.
    has_newcomer: bool,
}

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// Moves the window's size towards more hits.
struct Climber {
    step: f64,
    hits: u64,
    requests: u64,
    last_hit_ratio: Option<f64>,
}

/// How the window's size is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// By hill climbing, from [`WTinyLfuOptions::window_ratio`].
    #[default]
    Adaptive,
    /// It stays as it is.
    Fixed,
}

/// See [`Policy::OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WTinyLfuOptions {
    /// How the window's size is found.
    pub window: Window,
    /// The window's share of the capacity, at first.
    pub window_ratio: f64,
}

impl Default for WTinyLfuOptions {
    fn default() -> Self {
        Self { window: Window::Adaptive, window_ratio: 0.01 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "capacities beyond 2^53 are never reached")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ratios are 0 or more")]
fn share(ratio: f64, of: u64) -> u64 {
    (ratio * of as f64) as u64
}

fn tag_of(hash: u64) -> u32 {
    u32::try_from(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> u32::BITS).expect("half of it")
}

impl WTinyLfu {
    fn window_limit(&self) -> u64 {
        share(self.window_ratio, self.bound).max(1).min(self.bound)
    }

    fn push(&mut self, slot: Slot, place: u8) {
        self.places[slot.index()] = place;
        self.lists[usize::from(place)].push_front(&mut self.links, slot);
        self.held[usize::from(place)] += u64::from(self.weights.get(slot));
    }

    fn unlink(&mut self, slot: Slot) {
        let place = usize::from(self.places[slot.index()]);
        self.lists[place].remove(&mut self.links, slot);
        self.held[place] -= u64::from(self.weights.get(slot));
    }

    fn oldest(&self, place: u8) -> Option<Slot> {
        self.lists[usize::from(place)].back()
    }

    fn demote_protected(&mut self) {
        let limit = share(PROTECTED_RATIO, self.bound - self.window_limit());
        while self.held[usize::from(PROTECTED)] > limit {
            let slot = self.oldest(PROTECTED).expect("what weighs something is not empty");
            self.unlink(slot);
            self.push(slot, PROBATION);
        }
    }

    /// Moves what is too much for the window to the main part. There is room for it.
    fn spill_window(&mut self) {
        let limit = self.window_limit();
        while self.held[usize::from(WINDOW)] > limit {
            let slot = self.oldest(WINDOW).expect("what weighs something is not empty");
            self.unlink(slot);
            self.push(slot, PROBATION);
        }
    }

    fn count_request(&mut self, tag: u32, is_hit: bool) {
        self.sketch.add(tag);
        let entries = self.len() as u64;
        let Some(climber) = &mut self.climber else { return };
        climber.requests += 1;
        climber.hits += u64::from(is_hit);
        if climber.requests >= SAMPLE_PER_ENTRY * entries.max(1) && self.bound < u64::MAX {
            let change = climber.climb();
            self.window_ratio = (self.window_ratio + change).clamp(0.0, 0.8);
        }
    }

    fn is_admitted(&mut self, candidate: u32, victim: u32) -> bool {
        let (candidate, victim) = (self.sketch.estimate(candidate), self.sketch.estimate(victim));
        if candidate > victim {
            return true;
        }
        if candidate < FREQUENT {
            return false;
        }
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        self.random >> 57 == 0
    }
}

impl Climber {
    /// The next change of the window's share.
    #[expect(clippy::cast_precision_loss, reason = "a sample is small")]
    fn climb(&mut self) -> f64 {
        let ratio = self.hits as f64 / self.requests as f64;
        let Some(last) = self.last_hit_ratio.replace(ratio) else {
            (self.hits, self.requests) = (0, 0);
            return self.step;
        };
        (self.hits, self.requests) = (0, 0);
        let gain = ratio - last;
        let step = if gain >= 0.0 { self.step } else { -self.step };
        self.step = if gain.abs() >= RESTART { STEP_RATIO.copysign(step) } else { STEP_DECAY * step };
        step
    }
}

impl Policy for WTinyLfu {
    const NAME: &'static str = "w-tinylfu";
    const SUMMARY: &'static str = "a window for what is new, and admission by frequency to the rest";
    const PAPER: &'static str =
        "Einziger, Friedman and Manes, TinyLFU: A Highly Efficient Cache Admission Policy, ACM TOS 2017";
    const OPTIONS: &'static [OptionDoc] = &[
        OptionDoc {
            name: "window",
            allowed: "\"adaptive\" or \"fixed\"",
            meaning: "whether the window's size is found by hill climbing or stays",
        },
        OptionDoc {
            name: "window_ratio",
            allowed: "0.0 to 0.8",
            meaning: "the window's share of the capacity, at first",
        },
    ];
    const BYTES_PER_ENTRY: usize = 21;
    const BYTES_PER_WEIGHED_ENTRY: usize = 25;
    type Options = WTinyLfuOptions;

    fn validate(options: &WTinyLfuOptions) -> Result<(), OptionError> {
        let ratio = options.window_ratio;
        require((0.0..=0.8).contains(&ratio), "window_ratio", ratio, "0.0 to 0.8")
    }

    fn new(capacity: u64, seed: u64, options: &WTinyLfuOptions) -> Self {
        let adaptive = Climber { step: STEP_RATIO, hits: 0, requests: 0, last_hit_ratio: None };
        let mut sketch = Sketch::default();
        sketch.ensure_entries(1);
        Self {
            capacity,
            links: SlotLinks::default(),
            lists: [SlotList::default(); 3],
            held: [0; 3],
            places: Table::default(),
            tags: Table::default(),
            weights: Weights::default(),
            sketch,
            window_ratio: options.window_ratio,
            climber: (options.window == Window::Adaptive).then_some(adaptive),
            bound: capacity,
            random: seed,
            rejections: 0,
            has_newcomer: false,
        }
    }
}

impl EvictionPolicy for WTinyLfu {
    fn admit(&mut self, incoming: &Item) -> bool {
        self.count_request(tag_of(incoming.hash), false);
        self.has_newcomer = true;
        true
    }

    fn step_aside(&mut self) -> Option<u64> {
        std::mem::take(&mut self.has_newcomer).then_some(1)
    }

    fn step_forward(&mut self, _incoming: &Item, noted: Option<u64>) {
        self.has_newcomer = noted.is_some();
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        let place = usize::from(self.places[from.index()]);
        self.lists[place].relocate(&mut self.links, from, to);
        relocate_slot(&mut self.places, from, to);
        relocate_slot(&mut self.tags, from, to);
        self.weights.relocate(from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
        self.places.trim(slots);
        self.tags.trim(slots);
        self.weights.trim(slots);
    }

    fn insert(&mut self, slot: Slot, item: &Item) {
        if slot.index() >= self.places.len() {
            self.places.resize(slot.index() + 1, WINDOW);
            self.tags.resize(slot.index() + 1, 0);
        }
        self.has_newcomer = false;
        self.tags[slot.index()] = tag_of(item.hash);
        self.weights.set(slot, item.weight);
        self.push(slot, WINDOW);
        self.spill_window();
        self.sketch.ensure_entries(self.len());
    }

    fn hit(&mut self, slot: Slot) {
        self.count_request(self.tags[slot.index()], true);
        let place = self.places[slot.index()];
        if place == PROBATION {
            self.unlink(slot);
            self.push(slot, PROTECTED);
            self.demote_protected();
        } else {
            self.lists[usize::from(place)].move_to_front(&mut self.links, slot);
        }
    }

    fn update(&mut self, slot: Slot, item: &Item) {
        let place = usize::from(self.places[slot.index()]);
        self.held[place] = self.held[place] - u64::from(self.weights.get(slot)) + u64::from(item.weight);
        self.weights.set(slot, item.weight);
        self.hit(slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
    }

    fn evict(&mut self, incoming: &Item) -> Verdict {
        let weight = u64::from(incoming.weight);
        self.bound = self.capacity.min(self.held.iter().sum::<u64>() + weight);
        self.demote_protected();
        let window = self.held[usize::from(WINDOW)] + weight;
        let candidate = self.oldest(WINDOW).filter(|_| window > self.window_limit());
        let victim = self.oldest(PROBATION).or(self.oldest(PROTECTED));
        if let (None, Some(victim)) = (candidate, victim) {
            // Too large for the window: it is the candidate itself.
            let is_candidate = self.has_newcomer && weight > self.window_limit();
            if is_candidate && !self.is_admitted(tag_of(incoming.hash), self.tags[victim.index()]) {
                self.rejections += 1;
                self.has_newcomer = false;
                return Verdict::Reject;
            }
        }
        let evicted = match (candidate, victim) {
            (Some(candidate), Some(victim)) => {
                if self.is_admitted(self.tags[candidate.index()], self.tags[victim.index()]) {
                    self.sketch.add(self.tags[candidate.index()]);
                    self.unlink(candidate);
                    self.push(candidate, PROBATION);
                    victim
                } else {
                    self.rejections += 1;
                    self.sketch.add(self.tags[candidate.index()]);
                    candidate
                }
            }
            (candidate, victim) => {
                candidate.or(victim).or(self.oldest(WINDOW)).expect("evict needs a resident entry")
            }
        };
        self.unlink(evicted);
        Verdict::Evict(evicted)
    }

    fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.bound = capacity;
        self.sketch.trim(self.len());
        self.spill_window();
        self.demote_protected();
    }

    fn len(&self) -> usize {
        self.lists.iter().map(SlotList::len).sum()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
            + self.places.footprint_bytes()
            + self.tags.footprint_bytes()
            + self.weights.footprint_bytes()
            + self.sketch.footprint_bytes()
    }

    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::mean("window_target_ratio", self.window_ratio));
        visit(Gauge::count("window_weight", self.held[usize::from(WINDOW)]));
        visit(Gauge::count("probation_weight", self.held[usize::from(PROBATION)]));
        visit(Gauge::count("protected_weight", self.held[usize::from(PROTECTED)]));
        visit(Gauge::count("rejections", self.rejections));
        visit(Gauge::count("sketch_halvings", self.sketch.halvings()));
    }

    fn check_invariants(&self) {
        for (place, list) in (0..).zip(&self.lists) {
            list.check_invariants(&self.links);
            let slots = || list.iter_from_back(&self.links);
            assert!(slots().all(|slot| self.places[slot.index()] == place), "an entry knows its list");
            let weight = slots().map(|slot| u64::from(self.weights.get(slot))).sum::<u64>();
            assert_eq!(weight, self.held[usize::from(place)], "the weight of a list");
        }
        assert!((0.0..=0.8).contains(&self.window_ratio), "a share");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn what_falls_out_of_the_window_stays_only_if_it_is_used_more_than_the_victim() {
        let options = WTinyLfuOptions { window: Window::Fixed, ..WTinyLfuOptions::default() };
        for (script, expected) in [
            // The window has one place; `c`, `d` and `e` fall out of it and are no better than `a`.
            ("a b c d e f", "cde"),
            // `c` was used more often than `a`, the oldest of the main part.
            ("a b c c c d e", "ad"),
            // A hit in the main part protects `a`: the victim is `b`.
            ("a b c a c c d e", "bd"),
            ("a b c -a d e", "d"),
        ] {
            assert_eq!(victims::<WTinyLfu>(&options, 3, script), expected, "{script}");
        }
    }
}
