//! What every policy must do, checked over the whole registry: no test to write for a new one.
//!
//! Each policy runs with its defaults and once more for each value in quotes that one of its options
//! documents (`variant = "libcachesim"` for instance), inside a [`TaggedDirectory`] and bare. Random
//! operations go to the policy and to a model that knows nothing but who is resident. A failure
//! prints the seed; `POLICY_TEST_SEED=<seed>` repeats it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use engine::{
    Budget, EvictionPolicy, Gauge, Insertion, Item, Newcomer, OverShards, Slot, TaggedDirectory, Update,
    Verdict, WeighBy,
};
use policies::{PolicyEntry, PolicyFactory, REGISTRY};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use serde::de::value::{Error as ValueError, MapDeserializer};

type BoxedDirectory = TaggedDirectory<Box<dyn EvictionPolicy>>;

#[derive(Clone, Debug)]
enum Operation {
    /// A read through the cache: a hit, or a miss and an insertion.
    Access {
        key: u64,
        charge: u32,
    },
    /// A write to a resident key: a new value.
    Update {
        key: u64,
        charge: u32,
    },
    Remove {
        key: u64,
    },
    EvictOne,
    /// Both limits anew, in items and in bytes; evictions follow until it fits.
    Resize {
        items: u64,
        bytes: u64,
    },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = || prop_oneof![3 => 0..12_u64, 2 => 12..60_u64, 1 => 60..400_u64];
    let charge = || prop_oneof![4 => 1..20_u32, 1 => 20..120_u32];
    let operation = prop_oneof![
        60 => (key(), charge()).prop_map(|(key, charge)| Operation::Access { key, charge }),
        8 => (key(), charge()).prop_map(|(key, charge)| Operation::Update { key, charge }),
        8 => key().prop_map(|key| Operation::Remove { key }),
        2 => Just(Operation::EvictOne),
        1 => (1..50_u64, 1..600_u64).prop_map(|(items, bytes)| Operation::Resize { items, bytes }),
    ];
    vec(operation, 1..400)
}

fn fingerprint(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Runs a check with the defaults of every policy and with every documented choice of its options.
fn for_each_subject(mut check: impl FnMut(&PolicyEntry, &str, &dyn PolicyFactory)) {
    for entry in REGISTRY {
        check(entry, entry.name, &*(entry.with_defaults)());
        for option in entry.options {
            for choice in option.allowed.split('"').skip(1).step_by(2) {
                let options = MapDeserializer::<_, ValueError>::new([(option.name, choice)].into_iter());
                let mut options = <dyn erased_serde::Deserializer<'_>>::erase(options);
                let name = format!("{} with {} = {choice:?}", entry.name, option.name);
                let factory =
                    (entry.configure)(&mut options).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(entry, &name, &*factory);
            }
        }
    }
}

/// Runs a property over random operations and prints the seed where it fails.
fn for_random_operations(name: &str, mut check: impl FnMut(&[Operation])) {
    let seed = std::env::var("POLICY_TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one(name), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let check = std::cell::RefCell::new(&mut check);
    let outcome = runner.run(&operations(), |operations| {
        (check.borrow_mut())(&operations);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, operations)) => {
            panic!("{name}, POLICY_TEST_SEED={seed}: {why}\nafter {operations:?}")
        }
        Err(TestError::Abort(why)) => panic!("{name}, POLICY_TEST_SEED={seed}: {why}"),
    }
}

/// A directory beside a naive account of who is resident and what it is charged.
struct Checked {
    directory: BoxedDirectory,
    weigh_by: WeighBy,
    by_slot: Vec<Option<(u64, u32)>>,
    by_key: HashMap<u64, Slot>,
    /// Every decision in order, to compare runs.
    victims: Vec<u64>,
}

impl Checked {
    fn new(factory: &dyn PolicyFactory, budget: Budget, weigh_by: WeighBy, seed: u64) -> Self {
        let policy = factory.build(weigh_by.capacity(&budget), seed);
        let directory = TaggedDirectory::new(policy, budget, weigh_by);
        Self { directory, weigh_by, by_slot: vec![], by_key: HashMap::new(), victims: vec![] }
    }

    fn forget(&mut self, victims: Vec<Slot>) {
        for slot in victims {
            let gone = self.by_slot[slot.index()].take();
            let (key, _) = gone.unwrap_or_else(|| panic!("{slot:?} left, but was not resident"));
            self.by_key.remove(&key);
            self.victims.push(key);
        }
    }

    fn apply(&mut self, operation: &Operation) {
        let mut victims = vec![];
        match *operation {
            Operation::Access { key, charge } => match self.by_key.get(&key) {
                Some(&slot) => {
                    let by_slot = &self.by_slot;
                    let is_key = |slot: Slot| by_slot[slot.index()].is_some_and(|(other, _)| other == key);
                    assert_eq!(self.directory.find(fingerprint(key), is_key), Some(slot), "found again");
                    self.directory.hit(slot, |victim| victims.push(victim));
                    self.forget(victims);
                }
                None => self.insert(key, charge),
            },
            Operation::Update { key, charge } => {
                let Some(&slot) = self.by_key.get(&key) else { return };
                let fingerprint = fingerprint(key);
                match self.directory.update(slot, fingerprint, charge, |victim| victims.push(victim)) {
                    Update::Kept => self.by_slot[slot.index()] = Some((key, charge)),
                    Update::Rejected => victims.push(slot),
                    Update::TooLarge => assert!(u64::from(charge) > self.directory.budget().bytes),
                }
                self.forget(victims);
            }
            Operation::Remove { key } => {
                if let Some(slot) = self.by_key.remove(&key) {
                    self.directory.remove(slot);
                    self.by_slot[slot.index()] = None;
                }
            }
            Operation::EvictOne => {
                let victim = self.directory.evict_one();
                assert_eq!(
                    victim.is_some(),
                    !self.by_key.is_empty(),
                    "evict_one finds a victim if there is one"
                );
                self.forget(victim.into_iter().collect());
            }
            Operation::Resize { items, bytes } => {
                let budget = Budget { items, bytes };
                self.directory.set_budget(budget);
                self.directory.set_policy_capacity(self.weigh_by.capacity(&budget));
                while self.directory.is_over_budget() {
                    let victim = self.directory.evict_one().expect("what is over budget is not empty");
                    self.forget(vec![victim]);
                }
            }
        }
    }

    fn insert(&mut self, key: u64, charge: u32) {
        let mut victims = vec![];
        let newcomer = Newcomer { fingerprint: fingerprint(key), charge };
        let insertion = self.directory.insert(fingerprint(key), newcomer, |victim| victims.push(victim));
        self.forget(victims);
        match insertion {
            Insertion::Inserted(slot) => {
                assert!(slot.index() <= self.by_slot.len(), "slots are dense");
                if slot.index() == self.by_slot.len() {
                    assert_eq!(self.by_key.len(), self.by_slot.len(), "free slots are recycled first");
                    self.by_slot.push(None);
                }
                assert!(self.by_slot[slot.index()].replace((key, charge)).is_none(), "{slot:?} was free");
                self.by_key.insert(key, slot);
            }
            Insertion::Rejected => {}
            Insertion::TooLarge => assert!(u64::from(charge) > self.directory.budget().bytes),
        }
    }

    fn check(&self) {
        self.directory.check_invariants();
        let charges = self.by_slot.iter().flatten().map(|&(_, charge)| u64::from(charge));
        assert_eq!(self.directory.items(), self.by_key.len() as u64, "everybody is accounted for");
        assert_eq!(self.directory.bytes(), charges.sum::<u64>(), "every byte is accounted for");
        assert!(!self.directory.is_over_budget(), "the budget holds after every operation");
        for (index, entry) in (0..).zip(&self.by_slot) {
            assert_eq!(
                self.directory.is_resident(Slot::new(index)),
                entry.is_some(),
                "slot {index} is resident"
            );
        }
    }
}

/// One entry of the naive account: what the policy was told last.
#[derive(Clone, Copy)]
struct Resident {
    key: u64,
    weight: u32,
}

/// A policy alone, driven as its contract says, with slots recycled in another order than a directory's.
struct Bare {
    policy: Box<dyn EvictionPolicy>,
    capacity: u64,
    /// A second limit, in entries, that binds first at times.
    items: usize,
    by_slot: Vec<Option<Resident>>,
    by_key: HashMap<u64, Slot>,
    free: VecDeque<Slot>,
}

impl Bare {
    fn weight(&self) -> u64 {
        self.by_slot.iter().flatten().map(|entry| u64::from(entry.weight)).sum()
    }

    fn forget(&mut self, slot: Slot) {
        let gone = self.by_slot[slot.index()].take();
        let gone = gone.unwrap_or_else(|| panic!("{slot:?} left, but was not resident"));
        self.by_key.remove(&gone.key);
        self.free.push_back(slot);
    }

    fn shed(&mut self) {
        while let Some(slot) = self.policy.shed() {
            assert!(self.policy.sheds_on_hit(), "a policy that sheds says so");
            self.forget(slot);
        }
    }

    fn insert(&mut self, item: &Item, key: u64) {
        let slot = self.free.pop_front().unwrap_or_else(|| {
            self.by_slot.push(None);
            Slot::new(u32::try_from(self.by_slot.len() - 1).expect("few slots"))
        });
        self.by_slot[slot.index()] = Some(Resident { key, weight: item.weight });
        self.by_key.insert(key, slot);
        self.policy.insert(slot, item);
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Access { key, charge } => {
                let item = Item { hash: fingerprint(key), weight: charge };
                if let Some(&slot) = self.by_key.get(&key) {
                    self.policy.hit(slot);
                    self.shed();
                } else if u64::from(charge) <= self.capacity && self.policy.admit(&item) {
                    while self.by_key.len() >= self.items || self.weight() + u64::from(charge) > self.capacity
                    {
                        match self.policy.evict(&item) {
                            Verdict::Evict(victim) => self.forget(victim),
                            Verdict::Reject => return,
                        }
                    }
                    self.insert(&item, key);
                }
            }
            Operation::Update { key, charge } => {
                let Some(&slot) = self.by_key.get(&key) else { return };
                if u64::from(charge) > self.capacity {
                    return;
                }
                let item = Item { hash: fingerprint(key), weight: charge };
                self.by_slot[slot.index()] = Some(Resident { key, weight: charge });
                self.policy.update(slot, &item);
                while self.weight() > self.capacity {
                    match self.policy.evict(&item) {
                        Verdict::Evict(victim) => self.forget(victim),
                        Verdict::Reject => {
                            if self.by_key.contains_key(&key) {
                                self.policy.remove(slot);
                                self.forget(slot);
                            }
                            return;
                        }
                    }
                }
                if !self.by_key.contains_key(&key) {
                    self.insert(&item, key);
                }
            }
            Operation::Remove { key } => {
                if let Some(&slot) = self.by_key.get(&key) {
                    self.policy.remove(slot);
                    self.forget(slot);
                }
            }
            Operation::EvictOne => self.evict_anyone(),
            Operation::Resize { items, bytes } => {
                self.items = usize::try_from(items).expect("few items");
                self.capacity = bytes;
                self.policy.resize(bytes);
                while self.by_key.len() > self.items || self.weight() > self.capacity {
                    self.evict_anyone();
                }
            }
        }
    }

    fn evict_anyone(&mut self) {
        if !self.by_key.is_empty() {
            match self.policy.evict(&Item { hash: 0, weight: 1 }) {
                Verdict::Evict(victim) => self.forget(victim),
                Verdict::Reject => panic!("nobody came in, so nobody can be rejected"),
            }
        }
    }

    fn check(&self) {
        self.policy.check_invariants();
        assert_eq!(self.policy.len(), self.by_key.len(), "the policy counts who is resident");
        assert_eq!(self.policy.is_empty(), self.by_key.is_empty());
    }
}

/// A skewed stream of keys that shifts slowly, with a scan now and then.
fn skewed_keys(seed: u64, distinct: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    (0_u64..).map(move |turn| {
        state = state.wrapping_add(1);
        let random = fingerprint(state);
        if turn % 8 == 0 {
            return distinct + turn;
        }
        // The minimum of three draws prefers small numbers.
        let draw = |shift: u32| (random >> shift) % distinct;
        draw(0).min(draw(20)).min(draw(40)) + turn / 4096
    })
}

const BUDGETS: [(Budget, WeighBy); 4] = [
    (Budget::of_items(20), WeighBy::Items),
    (Budget::of_bytes(300), WeighBy::Bytes),
    (Budget { items: 20, bytes: 150 }, WeighBy::Items),
    (Budget { items: 20, bytes: 150 }, WeighBy::Bytes),
];

#[test]
fn random_operations_in_a_directory_agree_with_a_naive_account() {
    for_each_subject(|_, name, factory| {
        for (budget, weigh_by) in BUDGETS {
            for_random_operations(name, |operations| {
                let mut checked = Checked::new(factory, budget, weigh_by, 1);
                for operation in operations {
                    checked.apply(operation);
                    checked.check();
                }
            });
        }
    });
}

#[test]
fn random_calls_to_the_bare_policy_agree_with_a_naive_account() {
    for_each_subject(|_, name, factory| {
        for_random_operations(name, |operations| {
            let (by_slot, by_key, free) = (vec![], HashMap::new(), VecDeque::new());
            let mut bare =
                Bare { policy: factory.build(300, 1), capacity: 300, items: 40, by_slot, by_key, free };
            for operation in operations {
                bare.apply(operation);
                bare.check();
            }
        });
    });
}

#[test]
fn an_emptied_policy_holds_nothing_and_fills_again() {
    for_each_subject(|entry, name, factory| {
        for (budget, weigh_by) in BUDGETS {
            let mut checked = Checked::new(factory, budget, weigh_by, 1);
            for round in 0..3 {
                for key in skewed_keys(round, 50).take(500) {
                    checked.apply(&Operation::Access { key, charge: 7 });
                }
                // A variant may refuse what is too large for one of its segments.
                let is_default = name == entry.name;
                assert!(checked.directory.items() > 1 || !is_default, "{name} stores something");
                let (evicted, removed): (Vec<u64>, Vec<u64>) =
                    checked.by_key.keys().copied().partition(|key| key % 2 == 0);
                for key in removed {
                    checked.apply(&Operation::Remove { key });
                }
                for _ in evicted {
                    checked.apply(&Operation::EvictOne);
                }
                checked.check();
                assert!(checked.directory.policy().is_empty(), "{name} holds nothing");
                assert_eq!((checked.directory.items(), checked.directory.bytes()), (0, 0), "{name}");
                assert_eq!(checked.directory.evict_one(), None, "{name}");
            }
        }
    });
}

#[test]
fn slots_are_recycled_and_the_footprint_stays_bounded_over_a_million_operations() {
    const CAPACITY: u64 = 1024;
    for_each_subject(|entry, name, factory| {
        let budget = Budget::of_items(CAPACITY);
        let mut checked = Checked::new(factory, budget, WeighBy::Items, 1);
        let mut early = 0;
        for (turn, key) in skewed_keys(7, 8 * CAPACITY).take(1_000_000).enumerate() {
            checked.apply(&match turn % 16 {
                14 => Operation::Remove { key },
                15 => Operation::Update { key, charge: 1 },
                _ => Operation::Access { key, charge: 1 },
            });
            if turn == 100_000 {
                early = checked.directory.policy().footprint_bytes();
            }
        }
        checked.check();
        assert_eq!(checked.directory.slots() as u64, CAPACITY, "{name} recycles slots");
        let late = checked.directory.policy().footprint_bytes();
        assert!(late <= early + early / 2, "{name} grows: {early}, then {late} bytes");
        let bound = 2 * entry.bytes_per_entry * usize::try_from(CAPACITY).expect("small") + (128 << 10);
        assert!(late <= bound, "{name} holds {late} bytes for {CAPACITY} entries");
    });
}

#[test]
fn the_same_seed_makes_the_same_decisions() {
    for_each_subject(|_, name, factory| {
        for (budget, weigh_by) in BUDGETS {
            let run = || {
                let mut checked = Checked::new(factory, budget, weigh_by, 42);
                for (turn, key) in (0..).zip(skewed_keys(3, 100).take(5000)) {
                    checked.apply(&Operation::Access { key, charge: 1 + turn % 13 });
                }
                checked.victims
            };
            assert_eq!(run(), run(), "{name}");
        }
    });
}

/// Bytes of metadata held per entry, after many accesses to more keys than fit.
fn bytes_held_per_entry(factory: &dyn PolicyFactory, weigh_by: WeighBy) -> usize {
    // A power of two, so that vectors that grow by doubling are full.
    const CAPACITY: usize = 1 << 15;
    const ENTRIES: u64 = CAPACITY as u64;
    let (budget, charge): (_, fn(u64) -> u32) = match weigh_by {
        WeighBy::Items => (Budget::of_items(ENTRIES), |_| 1),
        // 100 to 200, and as many as the mean weighs: a few less, so that no vector is doubled by chance. Who prefers light
        // ones would have more of them.
        WeighBy::Bytes => (Budget { items: ENTRIES, bytes: 149 * ENTRIES }, |key| {
            100 + u32::try_from(fingerprint(key) % 101).expect("small")
        }),
    };
    let mut checked = Checked::new(factory, budget, weigh_by, 1);
    let mut access = |key| checked.apply(&Operation::Access { key, charge: charge(key) });
    for key in 0..6 * ENTRIES {
        access(key);
        access(key.saturating_sub(64));
        access(key.saturating_sub(64));
    }
    // Whoever has kept what was used last now finds that it was the wrong choice, and tries another.
    for key in 0..4 * ENTRIES {
        let key = key % (ENTRIES + ENTRIES / 4);
        for _ in 0..=key % 2 {
            access(key);
        }
    }
    // Nor are ghosts free: these leave as soon as they can.
    for key in 0..4 * ENTRIES {
        access(u64::MAX - key);
    }
    assert!(checked.directory.items() >= ENTRIES * 15 / 16, "it fills up");
    checked.directory.policy().footprint_bytes().div_ceil(CAPACITY)
}

#[test]
fn the_bytes_told_per_entry_are_the_bytes_held() {
    let mut wrong = Vec::new();
    for entry in REGISTRY {
        let factory = (entry.with_defaults)();
        for (weigh_by, told) in
            [(WeighBy::Items, entry.bytes_per_entry), (WeighBy::Bytes, entry.bytes_per_weighed_entry)]
        {
            let held = bytes_held_per_entry(&*factory, weigh_by);
            if held > told || told > held + held / 8 {
                wrong.push(format!("{} by {weigh_by:?} tells {told} bytes and holds {held}", entry.name));
            }
            assert_eq!(factory.bytes_per_entry(weigh_by), told);
            if weigh_by == WeighBy::Items && ["lru", "sieve", "s3-fifo"].contains(&entry.name) {
                assert!(held <= 16, "{} holds {held} bytes per entry", entry.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ghosts_of_small_entries_do_not_outlive_the_residents_that_pay_for_them() {
    const BYTES: u64 = 4 << 20;
    // Of `arc` it would cost hits that the reference has: its ghosts' weight is bounded, and their number steady.
    for entry in REGISTRY.iter().filter(|entry| entry.name != "arc") {
        let factory = (entry.with_defaults)();
        let mut checked = Checked::new(&*factory, Budget::of_bytes(BYTES), WeighBy::Bytes, 1);
        // Many small ones, each with a second use for those who remember only what had one.
        for key in (0..100_000_u64).flat_map(|key| [key, key, key.saturating_sub(50)]) {
            checked.apply(&Operation::Access { key, charge: 100 });
        }
        // Then large ones, each used several times.
        for turn in 0..1000_u64 {
            let key = 200_000 + turn / 200 * 30 + turn % 60;
            checked.apply(&Operation::Access { key, charge: 1 << 16 });
            let told = gauges(&checked);
            let ghosts = told.iter().filter(|gauge| gauge.name.ends_with("ghost_entries"));
            let ghosts: f64 = ghosts.map(|gauge| gauge.value).sum();
            let residents = f64::from(u32::try_from(checked.directory.items()).expect("few"));
            assert!(ghosts <= 8.0 * (residents + 1.0), "{}: {ghosts} for {residents} residents", entry.name);
        }
        checked.check();
    }
}

#[test]
fn a_misspelt_option_is_refused_and_names_are_unique() {
    for (index, entry) in REGISTRY.iter().enumerate() {
        assert!(
            REGISTRY[..index].iter().all(|other| other.name != entry.name),
            "{} is there once",
            entry.name
        );
        let options = MapDeserializer::<_, ValueError>::new([("no_such_option", 1)].into_iter());
        let mut options = <dyn erased_serde::Deserializer<'_>>::erase(options);
        assert!((entry.configure)(&mut options).is_err(), "{} refuses unknown options", entry.name);
        assert!(!entry.summary.is_empty() && !entry.paper.is_empty(), "{} tells its story", entry.name);
    }
}

#[test]
fn gauges_are_finite_and_keep_their_names() {
    for_each_subject(|_, name, factory| {
        let mut names: Option<Vec<(&str, OverShards)>> = None;
        for_random_operations(name, |operations| {
            let mut checked = Checked::new(factory, Budget::of_items(20), WeighBy::Items, 1);
            for operation in operations {
                let gauges = gauges(&checked);
                assert_eq!(gauges, self::gauges(&checked), "{name}: reading a gauge changes nothing");
                let told = gauges.iter().map(|gauge| (gauge.name, gauge.over_shards)).collect::<Vec<_>>();
                let names = names.get_or_insert_with(|| told.clone());
                assert_eq!(&told, names, "{name}: the same gauges at any time");
                for gauge in gauges {
                    assert!(gauge.value.is_finite(), "{name}: {gauge:?}");
                }
                checked.apply(operation);
            }
        });
        let mut names: Vec<_> =
            names.expect("there was an operation").iter().map(|(name, _)| *name).collect();
        let is_word = |word: &str| {
            !word.is_empty()
                && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        };
        assert!(names.iter().all(|name| name.split('_').all(is_word)), "{name}: snake_case: {names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{name}: a name is told once: {names:?}");
    });
}

fn gauges(checked: &Checked) -> Vec<Gauge> {
    let mut gauges = vec![];
    checked.directory.policy().gauges(&mut |gauge| gauges.push(gauge));
    gauges
}

#[test]
fn segments_named_in_gauges_hold_what_is_resident() {
    for (name, segments) in [
        ("slru", &["segment_0_weight", "segment_1_weight", "segment_2_weight", "segment_3_weight"][..]),
        ("two-q", &["small_weight", "main_weight"]),
        ("arc", &["recent_weight", "frequent_weight"]),
        ("s3-fifo", &["small_weight", "main_weight"]),
        ("clock2q-plus", &["small_entries", "main_entries"]),
        ("w-tinylfu", &["window_weight", "probation_weight", "protected_weight"]),
        ("lirs", &["lir_weight", "hir_weight"]),
    ] {
        let entry = policies::find(name).expect(name);
        let factory = (entry.with_defaults)();
        for_random_operations(name, |operations| {
            let mut checked = Checked::new(&*factory, Budget::of_items(20), WeighBy::Items, 1);
            for operation in operations {
                checked.apply(operation);
                let gauges = gauges(&checked);
                let of = |segment| {
                    gauges.iter().find(|gauge| gauge.name == segment).map_or(0.0, |gauge| gauge.value)
                };
                let held: f64 = segments.iter().map(|segment| of(*segment)).sum();
                let resident = f64::from(u8::try_from(checked.by_key.len()).expect("twenty at the most"));
                assert!((held - resident).abs() < 1e-9, "{name}: {resident} resident, but {gauges:?}");
            }
        });
    }
}
