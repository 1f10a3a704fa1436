//! The replay of requests on one cache: a [`Directory`] with a policy, plus numeric keys.
//!
//! **Architecture invariant (simulate = ship).** The directory is the one that the server's shards
//! are made of, and so are the policy, its fingerprints and the wheel of deadlines. What a
//! simulation adds is where each numbered key is resident, which takes the place of comparing keys.

use std::time::{Duration, Instant};

use engine::{
    Budget, Directory, Entries, EvictionPolicy, Expired, ExpiryWheel, Insertion, Newcomer, Slot, Update,
    WeighBy,
};
use serde::Serialize;

use crate::requests::Block;
use crate::trace::Operation;

/// What a capacity counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Objects: each takes one place, whatever its size.
    #[default]
    Items,
    /// Bytes: an object takes its size, without any overhead.
    Bytes,
}

/// The cache to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// What the capacity counts.
    pub mode: Mode,
    /// Objects or bytes.
    pub capacity: u64,
    /// Seconds after its insertion at which an object expires.
    pub ttl_seconds: Option<u32>,
    /// The seed of the policy's randomness; the server's is 0 unless configured.
    pub seed: u64,
}

/// What a simulation counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests: reads alone.
    pub requests: u64,
    /// Requests whose object was not resident.
    pub misses: u64,
    /// The sum of the requests' sizes.
    pub bytes: u64,
    /// The sum of the missed requests' sizes.
    pub missed_bytes: u64,
    /// Time spent in the loop.
    pub elapsed: Duration,
}

/// A simulation that runs on blocks of requests: consecutive ones, of one trace.
pub trait Simulation: Send {
    /// Replays the next requests.
    fn replay(&mut self, block: &Block<'_>);

    /// The counts so far.
    fn tally(&self) -> Tally;

    /// Checks all structures, the policy's included.
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    fn check_invariants(&self);
}

const ABSENT: u32 = u32::MAX;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A cache under simulation. Compiled for each policy, so that the loop has no virtual call.
pub struct Replay<P> {
    directory: Directory<P>,
    residents: Residents,
    mode: Mode,
    ttl_seconds: Option<u32>,
    now_seconds: u32,
    tally: Tally,
    early: Option<EarlyRoom>,
}

/// Makes room in a miniature when the whole cache would have to, not when the sample's next newcomer comes.
///
/// In the whole cache the next newcomer comes soon, and may be one that the sample lacks. Most policies let go
/// of an entry of the same age then, whatever the size of the cache; but where newcomers push each other out of a single
/// place, a newcomer of the sample would have that place to itself for too long.
struct EarlyRoom {
    /// Share of requests that miss, as it was lately.
    miss_ratio: f64,
    /// Since which of the whole trace's requests there is a newcomer in a full cache, and how many more go by until the next.
    newcomer: Option<(u32, u32)>,
    /// Whether anything had to go yet.
    full: bool,
}

impl EarlyRoom {
    const MEMORY_REQUESTS: f64 = 256.0;

    /// Whether by now the whole cache would have let something go.
    fn is_due(&mut self, place: u32) -> bool {
        let due = self.newcomer.is_some_and(|(since, requests)| place.wrapping_sub(since) > requests);
        if due {
            self.newcomer = None;
        }
        due
    }

    fn requested(&mut self, missed: bool) {
        self.miss_ratio += (f64::from(u8::from(missed)) - self.miss_ratio) / Self::MEMORY_REQUESTS;
    }

    /// A newcomer came. In a full cache, how long it is until the next is drawn from a geometric distribution.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is right")]
    fn came(&mut self, place: u32, pushed_out_another: bool) {
        self.full |= pushed_out_another;
        if !self.full {
            return;
        }
        let drawn = f64::from((mixed(place) >> 32) as u32) / f64::from(u32::MAX);
        let requests = -drawn.max(1e-9).ln() / self.miss_ratio.max(1e-9);
        self.newcomer = Some((place, requests as u32));
    }
}

/// Which key is in which slot, what it weighs, and until when it is there.
#[derive(Default)]
struct Residents {
    /// The slot of each key, or [`ABSENT`].
    slot_of: Vec<u32>,
    /// The key in each slot.
    id_of: Vec<u32>,
    /// The charge of each slot's entry; empty where each is charged 1.
    charge_of: Vec<u32>,
    /// The deadline of each slot's entry; empty where there are none.
    deadline_nanos_of: Vec<u64>,
    expiry: ExpiryWheel,
}

/// Sets a slot's place in a column, which grows by one where the slot is new.
fn set<T>(column: &mut Vec<T>, slot: Slot, value: T) {
    match column.get_mut(slot.index()) {
        Some(place) => *place = value,
        None => column.push(value),
    }
}

/// A number's bits, well mixed.
const fn mixed(number: u32) -> u64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl Residents {
    fn expired(&mut self, slot: Slot) {
        let id = self.id_of[slot.index()];
        self.slot_of[id as usize] = ABSENT;
    }

    fn left(&mut self, slot: Slot) {
        self.expired(slot);
        if !self.deadline_nanos_of.is_empty() {
            self.expiry.remove(slot);
        }
    }
}

impl Entries for Residents {
    fn charge(&self, slot: Slot) -> u32 {
        self.charge_of.get(slot.index()).copied().unwrap_or(1)
    }

    fn evicted(&mut self, slot: Slot) -> u32 {
        self.left(slot);
        self.charge(slot)
    }
}

impl<P: EvictionPolicy> Replay<P> {
    /// An empty cache. The policy must have been built for the cache's capacity.
    #[must_use]
    pub fn new(policy: P, cache: &Cache) -> Self {
        let (budget, weigh_by) = match cache.mode {
            Mode::Items => (Budget::of_items(cache.capacity), WeighBy::Items),
            Mode::Bytes => (Budget::of_bytes(cache.capacity), WeighBy::Bytes),
        };
        Self {
            directory: Directory::new(policy, budget, weigh_by),
            residents: Residents::default(),
            mode: cache.mode,
            ttl_seconds: cache.ttl_seconds,
            now_seconds: 0,
            tally: Tally::default(),
            early: None,
        }
    }

    /// A cache for a sample, of a policy whose newcomers push each other out of a single place. One entry more than the
    /// sample's share has room, since that place is the sample's own for a moment only.
    #[must_use]
    pub fn miniature(build: impl FnOnce(&Cache) -> P, cache: &Cache) -> Self {
        let cache = match cache.mode {
            Mode::Items => Cache { capacity: cache.capacity + 1, ..*cache },
            Mode::Bytes => *cache,
        };
        let early = Some(EarlyRoom { miss_ratio: 1.0, newcomer: None, full: false });
        Self { early, ..Self::new(build(&cache), &cache) }
    }

    /// The directory, for a closer look.
    #[must_use]
    pub const fn directory(&self) -> &Directory<P> {
        &self.directory
    }

    /// `EXTRAS`: something else happens between requests, a ttl or what a miniature needs.
    fn run<const BYTES: bool, const EXTRAS: bool>(&mut self, block: &Block<'_>) {
        let (sizes, operations) = (block.sizes(), block.operations());
        let (mut misses, mut missed_bytes) = (0, 0);
        for (index, &id) in block.ids().iter().enumerate() {
            let place = block.places().map_or(0, |places| places[index]);
            if EXTRAS {
                self.pass_time_to(block.times().map_or(0, |times| times[index]));
                self.make_early_room(place);
            }
            let operation = operations.map_or(Operation::Read, |operations| operations[index]);
            let size = || sizes.map_or(1, |sizes| sizes[index]);
            let charge = || if BYTES { size() } else { 1 };
            let Self { directory, residents, early, .. } = self;
            let slot = residents.slot_of[id as usize];
            if EXTRAS
                && operation != Operation::Delete
                && let Some(early) = early
            {
                early.requested(slot == ABSENT);
            }
            match operation {
                Operation::Read if slot != ABSENT => {
                    directory.hit(Slot::new(slot), residents);
                    continue;
                }
                Operation::Read => {
                    misses += 1;
                    missed_bytes += u64::from(size());
                }
                Operation::Write if slot != ABSENT => {
                    self.overwrite::<BYTES>(Slot::new(slot), block.fingerprint(index), charge());
                    continue;
                }
                Operation::Write => {}
                Operation::Delete => {
                    if slot != ABSENT {
                        self.delete(Slot::new(slot));
                    }
                    continue;
                }
            }
            let charge = charge();
            let newcomer = Newcomer { fingerprint: block.fingerprint(index), charge };
            let items = directory.items();
            if let Insertion::Inserted(slot) = directory.insert(newcomer, residents) {
                residents.slot_of[id as usize] = slot.get();
                set(&mut residents.id_of, slot, id);
                if BYTES {
                    set(&mut residents.charge_of, slot, charge);
                }
                if EXTRAS {
                    if let Some(early) = early {
                        early.came(place, directory.items() <= items);
                    }
                    self.set_deadline(slot);
                }
            }
        }
        self.tally.misses += misses;
        self.tally.missed_bytes += missed_bytes;
    }

    /// Replaces the value of a resident object.
    fn overwrite<const BYTES: bool>(&mut self, slot: Slot, fingerprint: u64, charge: u32) {
        match self.directory.update(slot, fingerprint, charge, &mut self.residents) {
            Update::Kept => {
                if BYTES {
                    set(&mut self.residents.charge_of, slot, charge);
                }
                if self.ttl_seconds.is_some() {
                    self.residents.expiry.remove(slot);
                    self.set_deadline(slot);
                }
            }
            Update::Rejected => self.residents.left(slot),
            // As in the server, what was there stays.
            Update::TooLarge => {}
        }
    }

    fn delete(&mut self, slot: Slot) {
        self.directory.remove(slot, &self.residents);
        self.residents.left(slot);
    }

    fn make_early_room(&mut self, place: u32) {
        if self.early.as_mut().is_some_and(|early| early.is_due(place)) {
            self.directory.evict_one(&mut self.residents);
        }
    }

    /// Removes what has expired until now. Where times go backwards, time stands still.
    fn pass_time_to(&mut self, seconds: u32) {
        if seconds <= self.now_seconds {
            return;
        }
        self.now_seconds = seconds;
        let now_nanos = u64::from(seconds) * NANOS_PER_SECOND;
        let mut steps = usize::MAX;
        loop {
            let Residents { expiry, deadline_nanos_of, .. } = &mut self.residents;
            let deadline = |slot: Slot| deadline_nanos_of[slot.index()];
            let Expired::Slot(slot) = expiry.pop_expired(now_nanos, &mut steps, deadline) else { return };
            self.directory.remove(slot, &self.residents);
            self.residents.expired(slot);
        }
    }

    fn set_deadline(&mut self, slot: Slot) {
        let Some(ttl_seconds) = self.ttl_seconds else { return };
        let deadline_seconds = u64::from(self.now_seconds) + u64::from(ttl_seconds);
        let deadline_nanos = deadline_seconds * NANOS_PER_SECOND;
        set(&mut self.residents.deadline_nanos_of, slot, deadline_nanos);
        self.residents.expiry.insert(slot, deadline_nanos);
    }
}

impl<P: EvictionPolicy> Simulation for Replay<P> {
    fn replay(&mut self, block: &Block<'_>) {
        let started = Instant::now();
        self.residents.slot_of.resize(block.distinct().max(self.residents.slot_of.len()), ABSENT);
        match (self.mode, self.ttl_seconds.is_some() || self.early.is_some()) {
            (Mode::Items, false) => self.run::<false, false>(block),
            (Mode::Items, true) => self.run::<false, true>(block),
            (Mode::Bytes, false) => self.run::<true, false>(block),
            (Mode::Bytes, true) => self.run::<true, true>(block),
        }
        self.tally.requests += block.reads();
        self.tally.bytes += block.bytes();
        self.tally.elapsed += started.elapsed();
    }

    fn tally(&self) -> Tally {
        self.tally
    }

    fn check_invariants(&self) {
        self.directory.check_invariants(&self.residents);
        let resident = self.residents.slot_of.iter().enumerate().filter(|(_, slot)| **slot != ABSENT);
        let mut items = 0;
        for (id, &slot) in resident {
            let slot = Slot::new(slot);
            assert_eq!(self.residents.id_of[slot.index()] as usize, id, "{slot:?} holds its key");
            items += 1;
        }
        assert_eq!(self.directory.items(), items, "every resident entry has a key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimum::optimum;
    use crate::requests::Recording;
    use crate::requests::tests::{log, recording};
    use crate::simulator::{PolicyChoice, Simulator};

    fn run(recording: &Recording, policy: &str, cache: &Cache) -> Tally {
        let mut simulation = Simulator::default().simulation(&PolicyChoice::named(policy), cache).unwrap();
        for block in recording.blocks() {
            simulation.replay(&block);
            simulation.check_invariants();
        }
        simulation.tally()
    }

    const CACHE: Cache = Cache { mode: Mode::Items, capacity: 2, ttl_seconds: None, seed: 0 };

    #[test]
    fn misses_and_missed_bytes_are_counted_by_hand() {
        let ten_each = recording("a,10\nb,10\na,10\nc,10\nb,10\na,10\n");
        for (policy, misses) in [("lru", 5), ("fifo", 4)] {
            let tally = run(&ten_each, policy, &CACHE);
            assert_eq!((tally.requests, tally.misses), (6, misses), "{policy}");
            assert_eq!((tally.bytes, tally.missed_bytes), (60, 10 * misses), "{policy}");
        }
    }

    #[test]
    fn in_bytes_an_object_takes_the_size_it_came_in_with_and_a_too_large_one_is_a_miss() {
        let bytes = Cache { mode: Mode::Bytes, capacity: 20, ..CACHE };
        for (trace, misses, missed_bytes) in [
            ("a,10\nb,10\na,10\nb,10\n", 2, 20),
            // Nothing leaves for what cannot be stored.
            ("a,10\nc,21\na,10\nc,21\n", 3, 52),
            // The hit says 20, the object still takes 10.
            ("a,10\na,20\nb,10\na,10\nb,10\n", 2, 20),
            ("a,10\nb,15\na,10\n", 3, 35),
        ] {
            let tally = run(&recording(trace), "lru", &bytes);
            assert_eq!((tally.misses, tally.missed_bytes), (misses, missed_bytes), "{trace}");
        }
    }

    #[test]
    fn writes_and_deletes_change_the_cache_and_are_not_counted() {
        for (mode, capacity, ttl_seconds, lines, misses, missed_bytes) in [
            (Mode::Items, 2, None, "set a 10, get a 10, set a 10, get a 10", 0, 0),
            (Mode::Items, 2, None, "get a 10, delete a 10, get a 10, delete a 10", 2, 20),
            // The write renews `a`, so that `b` leaves.
            (Mode::Items, 2, None, "get a 1, get b 1, set a 1, get c 1, get a 1, get b 1", 4, 4),
            (Mode::Items, 2, None, "get a 1, get b 1, set c 1, get b 1, get c 1", 2, 2),
            // The new value is larger, so that `b` leaves; one that does not fit changes nothing.
            (Mode::Bytes, 20, None, "get a 5, get b 10, set a 15, get b 10, get a 15", 4, 40),
            (Mode::Bytes, 20, None, "get a 5, set a 21, get a 5", 1, 5),
            // A write begins a new life.
            (Mode::Items, 2, Some(3), "get a 1 0, set a 1 2, get a 1 4, get a 1 5", 2, 2),
            (Mode::Bytes, 9, Some(3), "get a 1 0, delete a 1 2, get b 1 4, get a 1 4", 3, 3),
        ] {
            let tally = run(&log(lines), "lru", &Cache { mode, capacity, ttl_seconds, seed: 0 });
            assert_eq!((tally.misses, tally.missed_bytes), (misses, missed_bytes), "{lines}");
            assert_eq!(tally.requests, lines.matches("get").count() as u64, "{lines}");
        }
    }

    #[test]
    fn under_writes_and_deletes_every_policy_stays_whole_and_none_is_better_than_the_optimum() {
        for seed in 0..4_u64 {
            let mut state = seed;
            let mut draw = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let line = |_| {
                let op = ["get", "get", "get", "set", "delete"][usize::try_from(draw(5)).unwrap()];
                format!("{op} k{} {}", draw(12) * draw(12), 1 + draw(30))
            };
            let log = log(&(0..3_000).map(line).collect::<Vec<_>>().join(", "));
            for (mode, capacity) in [(Mode::Items, 10), (Mode::Bytes, 200)] {
                let cache = Cache { mode, capacity, ..CACHE };
                let least = optimum(&log, &cache);
                for entry in Simulator::default().policies() {
                    let found = run(&log, entry.name, &cache);
                    let story = format!("seed {seed}, {mode:?}, {}: {found:?}, {least:?}", entry.name);
                    assert_eq!(found.requests, least.requests, "{story}");
                    assert!(found.misses < found.requests, "{story}");
                    // For objects the optimum stores whatever is read; who does not may save a few.
                    let allowed = if mode == Mode::Items { least.misses * 9 / 10 } else { least.misses };
                    assert!(found.misses >= allowed, "{story}");
                }
            }
        }
    }

    #[test]
    fn an_object_expires_a_ttl_after_it_came_in_and_leaves_its_place_to_others() {
        let three = Cache { ttl_seconds: Some(3), ..CACHE };
        for (trace, misses) in [
            ("a,1,0\na,1,2\na,1,3\na,1,5\na,1,6\n", 3),
            // `a` has expired when `c` comes, so that `b` can stay.
            ("a,1,0\nb,1,2\nc,1,3\nb,1,4\n", 3),
            // Time that goes backwards stands still.
            ("a,1,9\na,1,0\na,1,12\n", 2),
        ] {
            assert_eq!(run(&recording(trace), "fifo", &three).misses, misses, "{trace}");
        }
    }
}
