//! The replay of requests on one cache: a [`Directory`] with a policy, plus numeric keys.
//!
//! **Architecture invariant (simulate = ship).** The directory is the one that the server's shards
//! are made of, and so are the policy, its fingerprints and the wheel of deadlines. What a
//! simulation adds is where each numbered key is resident, which takes the place of comparing keys.

use std::time::{Duration, Instant};

use engine::{
    Budget, Directory, Entries, EvictionPolicy, Expired, ExpiryWheel, Insertion, Leaver, Newcomer, Slot,
    WeighBy,
};
use serde::Serialize;

use crate::requests::Block;

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
    /// Requests.
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

/// The index hash of a numbered key: any 64 well-mixed bits will do.
const fn index_hash(id: u32) -> u64 {
    let mixed = (id as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl Residents {
    fn expired(&mut self, slot: Slot) {
        let id = self.id_of[slot.index()];
        self.slot_of[id as usize] = ABSENT;
    }
}

impl Entries for Residents {
    fn hash(&self, slot: Slot) -> u64 {
        index_hash(self.id_of[slot.index()])
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.charge_of.get(slot.index()).copied().unwrap_or(1)
    }

    fn evicted(&mut self, slot: Slot) -> Leaver {
        let leaver = Leaver { hash: self.hash(slot), charge: self.charge(slot) };
        self.expired(slot);
        if !self.deadline_nanos_of.is_empty() {
            self.expiry.remove(slot);
        }
        leaver
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
        }
    }

    /// The directory, for a closer look.
    #[must_use]
    pub const fn directory(&self) -> &Directory<P> {
        &self.directory
    }

    fn run<const BYTES: bool, const TTL: bool>(&mut self, block: &Block<'_>) {
        let sizes = block.sizes();
        let (mut misses, mut missed_bytes) = (0, 0);
        for (index, &id) in block.ids().iter().enumerate() {
            if TTL {
                self.pass_time_to(block.times().map_or(0, |times| times[index]));
            }
            let Self { directory, residents, .. } = self;
            let slot = residents.slot_of[id as usize];
            if slot != ABSENT {
                directory.hit(Slot::new(slot), residents);
                continue;
            }
            let size = sizes.map_or(1, |sizes| sizes[index]);
            misses += 1;
            missed_bytes += u64::from(size);
            let charge = if BYTES { size } else { 1 };
            let newcomer = Newcomer { hash: index_hash(id), fingerprint: block.fingerprint(index), charge };
            if let Insertion::Inserted(slot) = directory.insert(newcomer, residents) {
                residents.slot_of[id as usize] = slot.get();
                set(&mut residents.id_of, slot, id);
                if BYTES {
                    set(&mut residents.charge_of, slot, charge);
                }
                if TTL {
                    self.set_deadline(slot);
                }
            }
        }
        self.tally.misses += misses;
        self.tally.missed_bytes += missed_bytes;
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
        match (self.mode, self.ttl_seconds.is_some()) {
            (Mode::Items, false) => self.run::<false, false>(block),
            (Mode::Items, true) => self.run::<false, true>(block),
            (Mode::Bytes, false) => self.run::<true, false>(block),
            (Mode::Bytes, true) => self.run::<true, true>(block),
        }
        self.tally.requests += block.len() as u64;
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
            let found = self.directory.find(self.residents.hash(slot), |found| found == slot);
            assert_eq!(found, Some(slot), "key {id} is found where the index says");
            items += 1;
        }
        assert_eq!(self.directory.items(), items, "every resident entry has a key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Recording;
    use crate::requests::tests::recording;
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
