//! What happens under one hold of a shard's lock, and what others do between two of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ThreadId};

use bytes::Bytes;

use super::resize::STEPS_PER_HOLD;
use super::shard::Compared;
use super::statistics::BACKLOG_STEPS;
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::policy::{EvictionPolicy, Item, Slot, Verdict};
use crate::store::StoreError;

const MIB: u64 = 1 << 20;
/// What the policy is said to keep for an entry.
const POLICY_BYTES: usize = 32;

thread_local! {
    /// How often this thread has acquired a shard's lock.
    pub(super) static HOLDS: Cell<u64> = const { Cell::new(0) };
    /// How often this thread was told that it is about to be blocked.
    static BLOCKED: Cell<u64> = const { Cell::new(0) };
    /// Who hears of it, too.
    static LISTENER: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
}

fn run_blocking(work: &mut dyn FnMut()) {
    BLOCKED.set(BLOCKED.get() + 1);
    if let Some(listener) = LISTENER.take() {
        listener.send(()).expect("it listens");
    }
    work();
}

/// What policies have seen.
#[derive(Default)]
struct Seen {
    hold: Option<(ThreadId, u64)>,
    evicted_in_hold: u64,
    moved_in_hold: u64,
    removed_in_hold: u64,
    most_evicted: u64,
    most_moved: u64,
    most_removed: u64,
    /// Evictions and moves together.
    most_steps: u64,
    /// How often what is kept for slots that nobody has was to be given back.
    trims: usize,
    evicted: u64,
    evicted_by: HashMap<ThreadId, u64>,
    /// Steps of looking for a victim that are still to come, and those taken: all, and the most under one hold of a lock.
    to_seek: u64,
    sought: u64,
    sought_in_hold: u64,
    most_sought: u64,
    admitted: u64,
    /// How many had been evicted whenever somebody was read.
    evicted_at_hits: Vec<u64>,
}

impl Seen {
    fn look(&mut self) {
        let hold = Some((thread::current().id(), HOLDS.get()));
        if self.hold != hold {
            self.hold = hold;
            (self.evicted_in_hold, self.moved_in_hold) = (0, 0);
            (self.removed_in_hold, self.sought_in_hold) = (0, 0);
        }
    }

    fn evicts(&mut self) {
        self.look();
        self.evicted += 1;
        *self.evicted_by.entry(thread::current().id()).or_default() += 1;
        self.evicted_in_hold += 1;
        self.most_evicted = self.most_evicted.max(self.evicted_in_hold);
        self.most_steps = self.most_steps.max(self.evicted_in_hold + self.moved_in_hold);
    }

    fn seeks(&mut self) -> bool {
        self.look();
        let is_on = self.to_seek > 0;
        if is_on {
            self.to_seek -= 1;
            self.sought += 1;
            self.sought_in_hold += 1;
            self.most_sought = self.most_sought.max(self.sought_in_hold);
        }
        is_on
    }

    fn moves(&mut self) {
        self.look();
        self.moved_in_hold += 1;
        self.most_moved = self.most_moved.max(self.moved_in_hold);
        self.most_steps = self.most_steps.max(self.evicted_in_hold + self.moved_in_hold);
    }

    fn removes(&mut self) {
        self.look();
        self.removed_in_hold += 1;
        self.most_removed = self.most_removed.max(self.removed_in_hold);
    }
}

/// First in, first out.
struct Watching {
    seen: Arc<Mutex<Seen>>,
    queue: BTreeMap<u64, Slot>,
    places: HashMap<Slot, u64>,
    last: u64,
}

impl Watching {
    fn seen(&self) -> crate::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }
}

impl EvictionPolicy for Watching {
    fn admit(&mut self, _incoming: &Item) -> bool {
        self.seen().admitted += 1;
        true
    }
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.seen().moves();
        let place = self.places.remove(&from).expect("resident");
        self.places.insert(to, place);
        self.queue.insert(place, to);
    }
    fn trim(&mut self, _slots: usize) {
        self.seen().trims += 1;
    }
    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.last += 1;
        self.queue.insert(self.last, slot);
        self.places.insert(slot, self.last);
    }
    fn hit(&mut self, _slot: Slot) {
        let evicted = self.seen().evicted;
        self.seen().evicted_at_hits.push(evicted);
    }
    fn update(&mut self, _slot: Slot, _item: &Item) {}
    fn remove(&mut self, slot: Slot) {
        self.seen().removes();
        let place = self.places.remove(&slot).expect("resident");
        self.queue.remove(&place);
    }
    fn seek(&mut self, _incoming: &Item, _entries: usize) -> bool {
        self.seen().seeks()
    }
    fn evict(&mut self, _incoming: &Item) -> Verdict {
        self.seen().evicts();
        let (_, victim) = self.queue.pop_first().expect("resident");
        self.places.remove(&victim);
        Verdict::Evict(victim)
    }
    fn resize(&mut self, _capacity: u64) {}
    fn len(&self) -> usize {
        self.queue.len()
    }
    fn footprint_bytes(&self) -> usize {
        0
    }
    fn check_invariants(&self) {
        assert_eq!(self.queue.len(), self.places.len());
    }
}

/// A store that is to be filled, and what its policies see.
struct Subject {
    store: MemoryStore,
    seen: Arc<Mutex<Seen>>,
    clock: Arc<ManualClock>,
}

fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

fn entry<'a>(name: &'a [u8], value: &'a [u8]) -> Entry<'a> {
    Entry { key: Key::shared(name).expect("short"), value, ttl: None }
}

impl Subject {
    fn new(shards: usize, spare_slots: usize) -> Self {
        Self::with_room(shards, spare_slots, MIB)
    }

    fn with_room(shards: usize, spare_slots: usize, max_memory_bytes: u64) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let of_policies = Arc::clone(&seen);
        let build = move |_, _| -> Box<dyn EvictionPolicy> {
            let seen = Arc::clone(&of_policies);
            Box::new(Watching { seen, queue: BTreeMap::new(), places: HashMap::new(), last: 0 })
        };
        let limits = Limits { max_items: None, max_memory_bytes, max_value_bytes: MIB };
        let clock = Arc::<ManualClock>::default();
        let options = MemoryStoreOptions {
            shards: Some(shards),
            spare_slots,
            run_blocking,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..MemoryStoreOptions::new(limits, "watching", POLICY_BYTES, Arc::new(build))
        };
        Self { store: MemoryStore::new(options), seen, clock }
    }

    /// As many small entries as there is room for; what is seen begins after them. How many.
    fn fill(&self) -> u32 {
        let mut number = 0_u32;
        while self.stats().counters.evictions == 0 {
            for _ in 0..100 {
                self.set(&number.to_le_bytes(), b"small");
                number += 1;
            }
        }
        *self.seen() = Seen::default();
        number
    }

    fn set(&self, name: &[u8], value: &[u8]) {
        ready(self.store.set(entry(name, value))).expect("room");
    }

    fn set_mortal(&self, name: &[u8], value: &[u8], ttl: Duration) {
        ready(self.store.set(Entry { ttl: Some(ttl), ..entry(name, value) })).expect("room");
    }

    fn get(&self, name: &[u8]) -> Option<Value> {
        ready(self.store.get(Key::shared(name).expect("short"))).expect("a read")
    }

    fn stats(&self) -> StoreStats {
        ready(self.store.stats()).expect("statistics")
    }

    fn seen(&self) -> crate::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }
}

/// Whether it has stored a value under a name.
type Writes = fn(&Subject, &[u8], &[u8]) -> bool;

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn what_many_entries_give_way_to_takes_a_few_of_them_under_each_hold() {
    let large = vec![b'l'; 600 << 10];
    let oldest = |subject: &Subject, entries: u32| {
        let is_there = |number: &u32| subject.get(&number.to_le_bytes()).is_some();
        (0..entries).find(is_there).expect("some are resident").to_le_bytes()
    };
    let writes: [(&str, bool, Writes); 4] = [
        ("set", true, |subject, name, value| ready(subject.store.set(entry(name, value))).is_ok()),
        ("set of a resident", false, |subject, name, value| {
            ready(subject.store.set(entry(name, value))).is_ok()
        }),
        ("set_if_absent", true, |subject, name, value| {
            matches!(ready(subject.store.set_if_absent(entry(name, value))), Ok(SetIfAbsent::Stored))
        }),
        ("compare_and_set", false, |subject, name, value| {
            matches!(
                ready(subject.store.compare_and_set(b"small", entry(name, value))),
                Ok(CompareAndSet::Stored)
            )
        }),
    ];
    for shards in [1, 4] {
        for (what, is_new, write) in writes {
            let subject = Subject::new(shards, 100);
            let entries = subject.fill();
            // The first to go otherwise, where it is resident.
            let name = if is_new { *b"new!" } else { oldest(&subject, entries) };
            *subject.seen() = Seen::default();
            assert!(write(&subject, &name, &large), "{what}");
            {
                let seen = subject.seen();
                let told = format!("{what}, {shards} shards");
                assert!(seen.evicted > 10 * STEPS_PER_HOLD / shards as u64, "{told}: {} went", seen.evicted);
                assert!(seen.most_evicted <= STEPS_PER_HOLD, "{told}: {} in a hold", seen.most_evicted);
                assert!(seen.most_moved <= 8 * STEPS_PER_HOLD, "{told}: {} in a hold", seen.most_moved);
                assert_eq!(seen.admitted, u64::from(is_new), "{told}: a newcomer is announced once");
            }
            assert_eq!(subject.get(&name).as_deref(), Some(&large[..]), "{what}");
            subject.store.check_invariants();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn slots_give_way_a_few_under_each_hold_and_nobody_is_evicted_for_them() {
    let subject = Subject::new(1, 1 << 20);
    let entries = subject.fill();
    // Those that are left have the last slots, and are more than may be given others under one hold.
    for number in 0..entries * 4 / 5 {
        ready(subject.store.delete(Key::shared(&number.to_le_bytes()).expect("short"))).expect("a delete");
    }
    let left = subject.stats().counters.entries;
    assert!(left > 8 * STEPS_PER_HOLD, "{left} are left");
    subject.set(b"large", &vec![b'l'; 700 << 10]);
    let seen = subject.seen();
    assert_eq!(
        (seen.evicted, subject.stats().counters.entries),
        (0, left + 1),
        "there is room once the slots are gone"
    );
    assert!((1..=8 * STEPS_PER_HOLD).contains(&seen.most_moved), "{} in a hold", seen.most_moved);
    drop(seen);
    subject.store.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn a_limit_that_shrinks_takes_a_few_steps_under_each_hold() {
    for shards in [1, 4] {
        let subject = Subject::new(shards, 100);
        subject.fill();
        let less = Limits { max_memory_bytes: MIB / 8, ..subject.store.limits() };
        let evicted = ready(subject.store.set_limits(less)).expect("it can shrink");
        {
            let seen = subject.seen();
            assert!(evicted > 10 * STEPS_PER_HOLD, "{shards} shards: {evicted} went");
            assert!(seen.most_moved > 0, "{shards} shards: those that stay have other slots");
            assert!(seen.most_steps <= STEPS_PER_HOLD, "{shards} shards: {} in a hold", seen.most_steps);
        }
        let used = subject.stats().counters.memory_bytes;
        assert!((MIB / 10..=MIB / 8).contains(&used), "{shards} shards: {used} bytes");
        subject.store.check_invariants();
        let trims = subject.seen().trims;
        assert!(trims >= shards, "{shards} shards, {trims} policies gave back what they kept by slot");
    }
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn what_expires_at_once_leaves_and_is_counted_a_few_under_each_hold() {
    const ENTRIES: u32 = 10_000;
    for shards in [1, 4] {
        let subject = Subject::new(shards, 100);
        for number in 0..ENTRIES {
            subject.set_mortal(&number.to_le_bytes(), b"small", Duration::from_secs(60));
        }
        subject.clock.advance(Duration::from_secs(60));
        let backlog = subject.store.insight().sweep_backlog;
        assert_eq!(backlog, (shards * BACKLOG_STEPS) as u64, "{shards} shards: counted as far as that");
        assert_eq!(ready(subject.store.sweep()).expect("a sweep"), u64::from(ENTRIES), "{shards} shards");
        let (seen, most) = (subject.seen(), SWEEP_STEPS as u64);
        assert!((1..=most).contains(&seen.most_removed), "{shards} shards: {} in a hold", seen.most_removed);
        assert!(seen.most_moved <= 2 * most, "{shards} shards: {} in a hold", seen.most_moved);
    }
}

#[test]
fn entries_and_the_slots_that_they_leave_are_charged_what_is_kept_for_them() {
    const ENTRIES: u32 = 100;
    // What is kept by slot: where the cell is, the policy's share, and a link on the wheel.
    let (location, policy, link) = (4, POLICY_BYTES as u64, 8);
    let share_of_index = 8;
    let subject = Subject::new(1, 1000);
    let used = || subject.stats().counters.memory_bytes;
    let delete = |number: u32| {
        let was_there = ready(subject.store.delete(Key::shared(&number.to_le_bytes()).expect("short")));
        assert!(was_there.expect("a delete"), "{number}");
    };
    // With a header of eight bytes.
    let immortal = 8 + 4 + 8 + location + share_of_index + policy;
    for entries in 1..=ENTRIES {
        subject.set(&entries.to_le_bytes(), b"of eight");
        assert_eq!(used(), u64::from(entries) * immortal, "{entries} entries");
    }
    for unused in 1..ENTRIES {
        delete(unused);
        let expected = u64::from(ENTRIES - unused) * immortal + u64::from(unused) * (location + policy);
        assert_eq!(used(), expected, "{unused} slots are unused");
    }
    subject.set_mortal(&ENTRIES.to_le_bytes(), b"of eight", Duration::from_secs(1));
    let (mortal, unused) = (immortal + 8 + link, u64::from(ENTRIES - 1));
    assert_eq!(used(), mortal + unused * (location + policy + link), "somebody has a deadline");
    delete(ENTRIES);
    assert_eq!(used(), 0, "nobody is left");
    // In one cell and rounded up, in two pieces, and in pages of the system.
    for (value, least, most) in [(9, 24, 24), (5000, 5000 + 16, 5300), (200_000, 200_704 + 16, 200_900)] {
        subject.set(b"name", &vec![b'l'; value]);
        let lies = used() - location - share_of_index - policy;
        assert!((least..=most).contains(&lies), "{lies} bytes for a value of {value}");
    }
}

#[test]
fn what_is_not_stored_evicts_nobody() {
    let subject = Subject::new(1, 100);
    let last = subject.fill() - 1;
    let (name, large) = (last.to_le_bytes(), vec![b'l'; 600 << 10]);
    let exists = ready(subject.store.set_if_absent(entry(&name, &large)));
    assert!(matches!(exists, Ok(SetIfAbsent::Exists)));
    let mismatch = ready(subject.store.compare_and_set(b"other", entry(&name, &large)));
    assert!(matches!(mismatch, Ok(CompareAndSet::Mismatch)));
    let missing = ready(subject.store.compare_and_set(b"other", entry(b"none", &large)));
    assert!(matches!(missing, Ok(CompareAndSet::NotFound)));
    assert_eq!(subject.seen().evicted, 0);
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn readers_get_in_while_many_entries_leave() {
    // A busy machine may give the reader no processor in time: one that has many tries gets in, unless it is kept out.
    let gets_in = (0..100).any(|_| {
        let subject = Subject::new(1, 100);
        let last = subject.fill() - 1;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reads = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(subject.get(&last.to_le_bytes()).is_some(), "the last one stays");
                }
            });
            while subject.stats().counters.hits == 0 {
                thread::yield_now();
            }
            subject.set(b"large", &vec![b'l'; 600 << 10]);
            is_over.store(true, Ordering::Relaxed);
            reads.join().expect("no panic");
        });
        let seen = subject.seen();
        seen.evicted_at_hits.iter().any(|&evicted| 0 < evicted && evicted < seen.evicted)
    });
    assert!(gets_in, "nobody was ever read before all were gone");
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn who_is_to_leave_is_looked_for_a_few_steps_under_each_hold() {
    let write: fn(&Subject) = |subject| subject.set(b"new!", b"small");
    let update: fn(&Subject) = |subject| {
        let last = subject.stats().counters.entries;
        let is_there = |number: &u64| {
            let name = u32::try_from(*number).expect("few").to_le_bytes();
            subject.get(&name).is_some()
        };
        let resident = (0..last + 1000).rev().find(is_there);
        let name = u32::try_from(resident.expect("some are resident")).expect("few").to_le_bytes();
        subject.set(&name, &[b'l'; 4000]);
    };
    let shrink: fn(&Subject) = |subject| {
        let limits = Limits { max_memory_bytes: 3 * MIB, ..subject.store.limits() };
        ready(subject.store.set_limits(limits)).expect("new limits");
    };
    for (what, act) in [("a newcomer", write), ("a larger value", update), ("a lower limit", shrink)] {
        let subject = Subject::with_room(1, 100, 4 * MIB);
        subject.fill();
        subject.seen().to_seek = 10 * STEPS_PER_HOLD;
        act(&subject);
        let seen = subject.seen();
        assert_eq!((seen.to_seek, seen.sought), (0, 10 * STEPS_PER_HOLD), "{what}");
        assert!(seen.evicted > 0, "{what}: somebody had to leave");
        assert!(seen.most_sought <= STEPS_PER_HOLD, "{what}: {} in a hold", seen.most_sought);
        drop(seen);
        subject.store.check_invariants();
    }
}

/// Stores small values until the last of these has returned, and looks whether the limit holds.
fn while_others_write(subject: &Subject, writes: &mut [&mut (dyn FnMut() + Send)]) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let small = scope.spawn(|| {
            for number in (0_u64..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                subject.set(&number.to_le_bytes(), b"small");
                // Several shards are read one after the other, and meanwhile room may go from one that was read to one that is next.
                if number.is_multiple_of(64) && subject.store.shards.len() == 1 {
                    let used = subject.stats().counters.memory_bytes;
                    assert!(used <= MIB, "{used} bytes");
                }
            }
        });
        let writes: Vec<_> = writes.iter_mut().map(|write| scope.spawn(write)).collect();
        let outcomes: Vec<_> = writes.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        small.join().expect("there is room, and the limit holds");
        assert!(outcomes.iter().all(Result::is_ok), "there is room for each");
    });
    subject.store.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn whoever_writes_meanwhile_takes_nothing_of_what_was_made_room_for() {
    let large = vec![b'l'; 600 << 10];
    let alone = Subject::new(1, 100);
    alone.fill();
    alone.set(b"large", &large);
    let subject = Subject::new(1, 100);
    subject.fill();
    let mut thread = None;
    while_others_write(
        &subject,
        &mut [&mut || {
            thread = Some(thread::current().id());
            subject.set(b"large", &large);
        }],
    );
    let evicted = subject.seen().evicted_by[&thread.expect("it has run")];
    let needed = alone.seen().evicted;
    assert!(evicted <= needed + needed / 4, "{evicted} evicted for what needs {needed}");
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn large_values_find_room_while_others_are_written() {
    for shards in [1, 4] {
        let subject = Subject::new(shards, 100);
        subject.fill();
        let is_over = AtomicBool::new(false);
        // No two of them have room at a time.
        let sets = |name: &[u8], kib: usize| {
            for _ in 0..20 {
                subject.set(name, &vec![b'l'; kib << 10]);
            }
            is_over.store(true, Ordering::Relaxed);
        };
        while_others_write(
            &subject,
            &mut [
                &mut || sets(b"a", 600),
                &mut || sets(b"b", 1015),
                // In one step, unless there is hardly room that is not put aside.
                &mut || {
                    while !is_over.load(Ordering::Relaxed) {
                        subject.set(b"c", &vec![b'l'; 14 << 10]);
                    }
                },
            ],
        );
    }
}

#[test]
fn large_values_are_compared_between_two_holds() {
    let subject = Subject::new(1, 100);
    let large = vec![b'l'; 200 << 10];
    let (longer, other) = ([&large[..], b"l"].concat(), [&large[1..], b"L"].concat());
    for (value, expected, stored, holds) in [
        (&b"small"[..], &b"small"[..], true, 1),
        (b"small", b"other", false, 1),
        (b"small", &large, false, 1),
        (&large, &large, true, 2),
        (&large, &other, false, 1),
        (&large, &longer, false, 1),
        (&large, b"small", false, 1),
    ] {
        subject.set(b"key", value);
        let before = HOLDS.get();
        let outcome = ready(subject.store.compare_and_set(expected, entry(b"key", b"new")));
        let told = format!("{} bytes, {} expected", value.len(), expected.len());
        assert_eq!(HOLDS.get() - before, holds, "{told}");
        let wanted = if stored { CompareAndSet::Stored } else { CompareAndSet::Mismatch };
        assert_eq!(outcome.expect("room"), wanted, "{told}");
        assert_eq!(subject.get(b"key").as_deref(), Some(if stored { b"new" } else { value }), "{told}");
    }
}

#[test]
fn what_was_found_equal_counts_for_the_value_that_it_was_found_of_alone() {
    let subject = Subject::new(1, 100);
    let (large, other) = (vec![b'l'; 200 << 10], vec![b'o'; 200 << 10]);
    let new = entry(b"key", b"new");
    let hash = subject.store.approached(&new.key).hash;
    let compare = |equal: Option<&Bytes>| {
        let compared = subject.store.run_write(&new, hash, |shard, write, removed| {
            shard.compare_and_set(&large, equal, write, || 0, removed)
        });
        match compared.expect("room") {
            Compared::Later(value) => Some(value),
            Compared::Done(outcome) => {
                assert_eq!(outcome, CompareAndSet::Stored);
                None
            }
        }
    };
    subject.set(b"key", &large);
    let mut equal = compare(None).expect("to be compared");
    // Others write, the same bytes or not.
    for value in [&other, &large] {
        subject.set(b"key", value);
        equal = compare(Some(&equal)).expect("to be compared anew");
        assert_eq!(equal, value);
    }
    assert_eq!(compare(Some(&equal)), None, "it is still there");
    assert_eq!(subject.get(b"key").as_deref(), Some(&b"new"[..]));
}

#[test]
#[cfg_attr(miri, ignore = "compares many megabytes")]
fn no_write_is_lost_between_the_comparison_of_a_large_value_and_its_replacement() {
    const EACH: u64 = 500;
    let subject = Subject::new(1, 100);
    // The number comes last, so that all has to be compared.
    let value = |number: u64| {
        let mut value = vec![b'l'; 200 << 10];
        value.extend_from_slice(&number.to_le_bytes());
        value
    };
    let number = |value: &[u8]| u64::from_le_bytes(*value.last_chunk().expect("a number"));
    subject.set(b"key", &value(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut left = EACH;
                while left > 0 {
                    let before = subject.get(b"key").expect("nothing leaves");
                    let next = value(number(&before) + 1);
                    let outcome = ready(subject.store.compare_and_set(&before, entry(b"key", &next)));
                    left -= u64::from(outcome.expect("room") == CompareAndSet::Stored);
                }
            });
        }
    });
    assert_eq!(number(&subject.get(b"key").expect("nothing leaves")), 3 * EACH);
}

/// What blocks its thread.
type Blocks = fn(&Subject);

fn set_large(subject: &Subject) {
    subject.set(b"large", &vec![b'l'; 900 << 10]);
}

fn shrink(subject: &Subject) {
    let limits = Limits { max_memory_bytes: MIB / 2, ..subject.store.limits() };
    ready(subject.store.set_limits(limits)).expect("they may be lowered");
}

/// Has it wait for another thread, which goes on only once it was told that.
fn wait_for_other(subject: &Subject, one_at_a_time: &Mutex<()>, waits: Blocks) {
    let (has_turn, its_turn) = mpsc::channel();
    let (listener, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _turn = one_at_a_time.lock().expect("no panic");
            has_turn.send(()).expect("it listens");
            told.recv_timeout(Duration::from_secs(10)).expect("it is told before it waits");
        });
        its_turn.recv().expect("it has its turn");
        LISTENER.set(Some(listener));
        waits(subject);
    });
}

#[test]
#[cfg_attr(miri, ignore = "many thousands of steps")]
fn whatever_blocks_its_thread_is_told_before() {
    let cases: [(&str, usize, Blocks); 5] = [
        ("a write that evicts many", 1, set_large),
        ("a write that takes room from other shards", 4, set_large),
        ("limits that shrink", 1, shrink),
        ("a write that waits for another one", 1, |subject| {
            wait_for_other(subject, &subject.store.reclaiming, set_large);
        }),
        ("limits that wait for others", 1, |subject| {
            wait_for_other(subject, &subject.store.resizing, shrink);
        }),
    ];
    for (what, shards, blocks) in cases {
        let subject = Subject::new(shards, 100);
        subject.fill();
        let before = BLOCKED.get();
        subject.set(b"small", b"small");
        assert_eq!(BLOCKED.get(), before, "what does not block is just done");
        blocks(&subject);
        assert!(BLOCKED.get() > before, "{what}");
    }
}

#[test]
fn a_sweep_of_more_than_a_slice_tells_that_it_blocks() {
    let subject = Subject::new(1, 100);
    for number in 0..1000_u32 {
        let name = number.to_le_bytes();
        let short_lived = Entry { ttl: Some(Duration::from_nanos(1)), ..entry(&name, b"small") };
        ready(subject.store.set(short_lived)).expect("room");
    }
    subject.clock.advance(Duration::from_secs(1));
    let before = BLOCKED.get();
    assert!(ready(subject.store.sweep()).expect("swept") > 0);
    assert!(BLOCKED.get() > before);
}
