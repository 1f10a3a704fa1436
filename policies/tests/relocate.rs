//! Other slots for entries that stay, with every policy: nothing that it decides depends on who has which slot. So the
//! same calls go to a policy in which nothing is ever moved and to one in which slots are given out at random and
//! entries are moved to others at random, and what leaves, key by key, must be the same. So for newcomers that step aside.
//!
//! A failure prints the seed; `POLICY_TEST_SEED=<seed>` repeats it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use engine::{EvictionPolicy, Item, Slot, Verdict};
use policies::{PolicyFactory, REGISTRY};
use serde::de::value::{Error as ValueError, MapDeserializer};

const STEPS: u32 = 6_000;
/// Of items or of bytes.
const CAPACITY: u64 = 300;
/// Slots that there are for those that move: more than entries, so that there are gaps everywhere.
const SLOTS: u32 = 400;

/// Runs a check with the defaults of every policy and with every documented choice of its options.
fn for_each_subject(mut check: impl FnMut(&str, &dyn PolicyFactory)) {
    for entry in REGISTRY {
        check(entry.name, &*(entry.with_defaults)());
        for option in entry.options {
            for choice in option.allowed.split('"').skip(1).step_by(2) {
                let options = MapDeserializer::<_, ValueError>::new([(option.name, choice)].into_iter());
                let mut options = <dyn erased_serde::Deserializer<'_>>::erase(options);
                let name = format!("{} with {} = {choice:?}", entry.name, option.name);
                let factory =
                    (entry.configure)(&mut options).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(&name, &*factory);
            }
        }
    }
}

fn seed() -> u64 {
    std::env::var("POLICY_TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one("relocate"), |seed| seed.parse().expect("a number"))
}

fn fingerprint(key: u64) -> u64 {
    let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// What is asked of a cache.
#[derive(Clone, Copy, Debug)]
enum Call {
    Access { key: u64, weight: u32 },
    Update { key: u64, weight: u32 },
    Remove { key: u64 },
    Evict,
    Resize { capacity: u64 },
}

fn call(random: &mut fastrand::Rng, by_weight: bool) -> Call {
    let key = random.u64(0..900).min(random.u64(0..900));
    let weight = if by_weight { random.u32(1..12) } else { 1 };
    match random.u32(0..1000) {
        0..=849 => Call::Access { key, weight },
        850..=909 => Call::Update { key, weight },
        910..=979 => Call::Remove { key },
        980..=997 => Call::Evict,
        _ => Call::Resize { capacity: random.u64(CAPACITY / 10..=CAPACITY) },
    }
}

/// A policy and who has which slot. Writes down what it decides.
struct Driven {
    policy: Box<dyn EvictionPolicy>,
    capacity: u64,
    by_key: HashMap<u64, (Slot, u32)>,
    by_slot: HashMap<Slot, u64>,
    unused: BTreeSet<Slot>,
    weight: u64,
    /// Keys that left or were turned away.
    decisions: Vec<(&'static str, u64)>,
    /// Whether a newcomer steps aside whenever somebody has left for it, and whenever a few entries have been looked at, and comes back at once.
    steps_aside: bool,
    /// How often there was more to look at.
    sought: u64,
}

impl Driven {
    fn new(factory: &dyn PolicyFactory) -> Self {
        Self {
            policy: factory.build(CAPACITY, 1),
            capacity: CAPACITY,
            by_key: HashMap::new(),
            by_slot: HashMap::new(),
            unused: (0..SLOTS).map(Slot::new).collect(),
            weight: 0,
            decisions: Vec::new(),
            steps_aside: false,
            sought: 0,
        }
    }

    fn forget(&mut self, why: &'static str, slot: Slot) {
        let key = self.by_slot.remove(&slot).unwrap_or_else(|| panic!("{slot:?} left, but was not resident"));
        self.weight -= u64::from(self.by_key.remove(&key).expect("who has a slot is resident").1);
        self.unused.insert(slot);
        self.decisions.push((why, key));
    }

    fn insert(&mut self, key: u64, item: &Item, choose: &mut dyn FnMut(&BTreeSet<Slot>) -> Slot) {
        let slot = choose(&self.unused);
        self.unused.remove(&slot);
        self.by_key.insert(key, (slot, item.weight));
        self.weight += u64::from(item.weight);
        self.by_slot.insert(slot, key);
        self.policy.insert(slot, item);
    }

    fn apply(&mut self, call: Call, choose: &mut dyn FnMut(&BTreeSet<Slot>) -> Slot) {
        match call {
            Call::Access { key, weight } => {
                let item = Item { hash: fingerprint(key), weight };
                if let Some(&(slot, _)) = self.by_key.get(&key) {
                    self.policy.hit(slot);
                    while let Some(shed) = self.policy.shed() {
                        self.forget("shed", shed);
                    }
                } else if u64::from(weight) <= self.capacity && self.policy.admit(&item) {
                    while self.weight + u64::from(weight) > self.capacity {
                        self.seek(&item, true);
                        match self.policy.evict(&item) {
                            Verdict::Evict(victim) => {
                                self.forget("evicted", victim);
                                self.step_aside(&item);
                            }
                            Verdict::Reject => return self.decisions.push(("rejected", key)),
                        }
                    }
                    self.insert(key, &item, choose);
                } else {
                    self.decisions.push(("refused", key));
                }
            }
            Call::Update { key, weight } => {
                let Some(&(slot, before)) = self.by_key.get(&key) else { return };
                let item = Item { hash: fingerprint(key), weight };
                self.weight = self.weight - u64::from(before) + u64::from(weight);
                self.by_key.insert(key, (slot, weight));
                self.policy.update(slot, &item);
                while self.weight > self.capacity {
                    self.seek(&item, false);
                    match self.policy.evict(&item) {
                        Verdict::Evict(victim) => self.forget("evicted", victim),
                        Verdict::Reject => {
                            if self.by_key.contains_key(&key) {
                                self.policy.remove(slot);
                                self.forget("rejected", slot);
                            }
                            return;
                        }
                    }
                }
                if !self.by_key.contains_key(&key) {
                    self.insert(key, &item, choose);
                }
            }
            Call::Remove { key } => {
                if let Some(&(slot, _)) = self.by_key.get(&key) {
                    self.policy.remove(slot);
                    self.forget("removed", slot);
                }
            }
            Call::Evict => self.evict_one(),
            Call::Resize { capacity } => {
                self.capacity = capacity;
                self.policy.resize(capacity);
                while self.weight > capacity {
                    self.evict_one();
                }
            }
        }
    }

    fn evict_one(&mut self) {
        if !self.by_key.is_empty() {
            let nobody = Item { hash: 0, weight: 1 };
            self.seek(&nobody, false);
            match self.policy.evict(&nobody) {
                Verdict::Evict(victim) => self.forget("evicted", victim),
                Verdict::Reject => panic!("nobody came in, so nobody can be rejected"),
            }
        }
    }

    /// Looks for a victim, two entries at a time.
    fn seek(&mut self, item: &Item, is_newcomer: bool) {
        while self.steps_aside && self.policy.seek(item, 2) {
            self.sought += 1;
            if is_newcomer {
                self.step_aside(item);
            }
        }
    }

    fn step_aside(&mut self, item: &Item) {
        if self.steps_aside {
            let noted = self.policy.step_aside();
            self.policy.step_forward(item, noted);
        }
    }

    fn relocate(&mut self, from: Slot, to: Slot) {
        assert!(self.unused.remove(&to) && self.unused.insert(from), "from a slot in use to one that is not");
        let key = self.by_slot.remove(&from).expect("a slot in use");
        self.by_slot.insert(to, key);
        self.by_key.get_mut(&key).expect("resident").0 = to;
        self.policy.relocate(from, to);
    }

    /// Makes slots dense up to so many moves, as a directory does, and cuts off what is behind them.
    fn gather(&mut self, moves: usize) {
        for _ in 0..moves {
            let Some(&last) = self.by_slot.keys().max() else { break };
            match self.unused.first() {
                Some(&gap) if gap < last => self.relocate(last, gap),
                _ => break,
            }
        }
        self.policy.trim(self.by_slot.keys().max().map_or(0, |last| last.index() + 1));
    }

    fn next_victim(&self) -> Option<u64> {
        self.policy.next_victim().and_then(|slot| self.by_slot.get(&slot).copied())
    }
}

#[test]
fn no_decision_depends_on_who_has_which_slot() {
    let seed = seed();
    println!("POLICY_TEST_SEED={seed}");
    for_each_subject(|name, factory| {
        for by_weight in [false, true] {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut still, mut moved) = (Driven::new(factory), Driven::new(factory));
            for step in 0..STEPS {
                let call = call(&mut random, by_weight);
                still.apply(call, &mut |unused| *unused.first().expect("there are more slots than entries"));
                let slots: Vec<Slot> = moved.unused.iter().copied().collect();
                let preferred = slots[random.usize(0..slots.len())];
                moved.apply(call, &mut |unused| {
                    *unused.range(preferred..).chain(unused).next().expect("as above")
                });
                let told = || format!("{name}, seed {seed}, step {step}, {call:?}");
                assert_eq!(still.decisions, moved.decisions, "{}", told());
                assert_eq!(still.policy.len(), moved.policy.len(), "{}", told());
                assert_eq!(still.next_victim(), moved.next_victim(), "{}", told());
                still.decisions.clear();
                moved.decisions.clear();
                match random.u32(0..100) {
                    0..=59 => {
                        let mut residents: Vec<Slot> = moved.by_slot.keys().copied().collect();
                        residents.sort_unstable();
                        for _ in 0..random.usize(1..4).min(residents.len()) {
                            let from = residents.swap_remove(random.usize(0..residents.len()));
                            let gaps: Vec<Slot> = moved.unused.range(..from).copied().collect();
                            if !gaps.is_empty() {
                                moved.relocate(from, gaps[random.usize(0..gaps.len())]);
                            }
                        }
                    }
                    60 => moved.gather(SLOTS as usize),
                    61..=69 => moved.gather(2),
                    _ => {}
                }
                if step % 16 == 0 {
                    moved.policy.check_invariants();
                }
            }
        }
    });
}

#[test]
fn no_decision_depends_on_whether_a_newcomer_steps_aside() {
    let seed = seed();
    println!("POLICY_TEST_SEED={seed}");
    for_each_subject(|name, factory| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut stays, mut steps) = (Driven::new(factory), Driven::new(factory));
        steps.steps_aside = true;
        let first = &mut |unused: &BTreeSet<Slot>| *unused.first().expect("as above");
        for step in 0..STEPS {
            let call = call(&mut random, true);
            stays.apply(call, first);
            steps.apply(call, first);
            assert_eq!(stays.decisions, steps.decisions, "{name}, seed {seed}, step {step}, {call:?}");
            stays.decisions.clear();
            steps.decisions.clear();
        }
        steps.policy.check_invariants();
        let goes_round = ["clock", "clock2q-plus", "lru-k", "s3-fifo", "sieve"].contains(&entry_of(name));
        assert_eq!(steps.sought > 0, goes_round, "{name} goes by entries until one has to leave");
    });
}

/// The policy of a subject's name.
fn entry_of(name: &str) -> &str {
    name.split(' ').next().expect("a name")
}

#[test]
fn others_come_first_where_a_newcomer_has_stepped_aside() {
    let seed = seed();
    println!("POLICY_TEST_SEED={seed}");
    for_each_subject(|name, factory| {
        println!("{name}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut driven = Driven::new(factory);
        let first = &mut |unused: &BTreeSet<Slot>| *unused.first().expect("as above");
        for step in 0..STEPS {
            let (key, weight) = (random.u64(0..900), random.u32(1..100));
            let item = Item { hash: fingerprint(key), weight };
            let fits = u64::from(weight) <= driven.capacity && !driven.by_key.contains_key(&key);
            let mut is_coming = fits && driven.policy.admit(&item);
            while is_coming {
                if driven.weight + u64::from(weight) <= driven.capacity {
                    driven.insert(key, &item, first);
                    break;
                }
                if !driven.policy.seek(&item, 2) {
                    match driven.policy.evict(&item) {
                        Verdict::Evict(victim) => driven.forget("evicted", victim),
                        Verdict::Reject => break,
                    }
                }
                if random.u32(0..4) == 0 {
                    let noted = driven.policy.step_aside();
                    for _ in 0..random.u32(0..8) {
                        driven.apply(call(&mut random, true), first);
                    }
                    driven.gather(2);
                    driven.policy.check_invariants();
                    let fits = u64::from(weight) <= driven.capacity && !driven.by_key.contains_key(&key);
                    is_coming = fits && !driven.by_key.is_empty();
                    if is_coming {
                        driven.policy.step_forward(&item, noted);
                    }
                }
            }
            driven.apply(call(&mut random, true), first);
            if step % 16 == 0 {
                driven.policy.check_invariants();
            }
        }
    });
}

#[test]
fn memory_goes_back_once_the_entries_that_stay_are_together() {
    const FULL: u32 = 1 << 14;
    let mut wrong = Vec::new();
    for entry in REGISTRY {
        let mut driven = Driven::new(&*(entry.with_defaults)());
        driven.capacity = FULL.into();
        driven.unused = (0..FULL).map(Slot::new).collect();
        driven.policy.resize(FULL.into());
        let first =
            &mut |unused: &BTreeSet<Slot>| *unused.first().expect("there are as many slots as entries");
        for key in 0..4 * u64::from(FULL) {
            driven.apply(Call::Access { key: key % (u64::from(FULL) * 5 / 4), weight: 1 }, first);
        }
        let full = driven.policy.footprint_bytes();
        driven.apply(Call::Resize { capacity: u64::from(FULL) / 16 }, first);
        // As a store tells it again once entries have left.
        driven.policy.resize(u64::from(FULL) / 16);
        driven.gather(FULL as usize);
        driven.policy.check_invariants();
        let small = driven.policy.footprint_bytes();
        // Some have tables of the same size whatever is resident.
        if small > full / 4 + (64 << 10) {
            wrong.push(format!("{} holds {small} bytes where it held {full}", entry.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
