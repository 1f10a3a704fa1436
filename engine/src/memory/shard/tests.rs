//! What a shard tells its policy and when, and what it charges.

mod fingerprints;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::{BuildPolicy, MemoryStore, MemoryStoreOptions};
use super::*;
use crate::index::{Signpost, Signposts};
use crate::key::{HashSeed, Key};
use crate::policy::{Item, Verdict};
use crate::store::{Entry, Limits, Store, StoreFuture};

/// With eight bytes for what is kept of an entry beside its record.
fn write<'a>(key: HashedKey<'a>, value: &'a [u8], deadline_nanos: Option<u64>) -> Write<'a> {
    let record = NewRecord::new(key.key, value, deadline_nanos);
    let charge = u32::try_from(8 + record.charge()).expect("small");
    Write { key, record, charge, fingerprint: key.key.fingerprint(), interrupted: Interrupted::default() }
}

/// First in, first out; writes down what it is told and asked.
struct Recorder {
    told: Arc<Mutex<String>>,
    queue: Vec<Slot>,
}

impl Recorder {
    fn note(&self, call: &str, slot: Slot) {
        write!(self.told.lock().expect("no panic"), "{call}{} ", slot.get()).expect("a string");
    }
}

impl EvictionPolicy for Recorder {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.note(">", to);
        let queued = self.queue.iter_mut().find(|queued| **queued == from).expect("resident");
        *queued = to;
    }
    fn trim(&mut self, _slots: usize) {}
    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.note("+", slot);
        self.queue.push(slot);
    }
    fn hit(&mut self, slot: Slot) {
        self.note("", slot);
    }
    fn update(&mut self, slot: Slot, _item: &Item) {
        self.note("=", slot);
    }
    fn remove(&mut self, slot: Slot) {
        self.note("-", slot);
        self.queue.retain(|&queued| queued != slot);
    }
    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let victim = self.queue.remove(0);
        self.note("!", victim);
        Verdict::Evict(victim)
    }
    /// Not always one, as some policies do not know.
    fn next_victim(&self) -> Option<Slot> {
        self.queue.first().copied().filter(|slot| slot.get() == 0)
    }
    fn resize(&mut self, _capacity: u64) {}
    fn len(&self) -> usize {
        self.queue.len()
    }
    fn footprint_bytes(&self) -> usize {
        0
    }
    fn check_invariants(&self) {}
}

/// Runs a script on a shard of two entries: `+a` writes, `a` reads, `-a` deletes, `!` evicts. What the policy was
/// told, by slot.
fn told(script: &str) -> String {
    let told = Arc::new(Mutex::new(String::new()));
    let policy = Recorder { told: Arc::clone(&told), queue: Vec::new() };
    let seed = HashSeed::fixed(1);
    let records = Records::new(seed.clone(), Signpost { among: Signposts::new(1), index: 0 }, Arc::default());
    let mut shard = Shard::new(Box::new(policy), Budget::of_items(2), WeighBy::Items, records, 8, 0);
    let mut removed = Removed::default();
    for word in script.split(' ') {
        let key = Key::shared(word.trim_start_matches(['+', '-']).as_bytes()).expect("short");
        let key = HashedKey { key: &key, hash: seed.hash(&key) };
        match word.as_bytes()[0] {
            b'+' => {
                shard.set(&mut write(key, b"value", None), || 0, &mut removed).expect("room");
            }
            b'-' => assert!(shard.delete(key, || 0, &mut removed), "{word}"),
            b'!' => assert_eq!(shard.evict_one(|| 0, &mut removed), Soon::Evicted, "{word}"),
            _ => {
                let mut value = None;
                assert_eq!(shard.get(key, || 0, &mut value), Read::Done, "{word}");
                assert!(value.is_some(), "{word}");
            }
        }
        shard.check_invariants();
    }
    told.lock().expect("no panic").trim_end().to_owned()
}

#[test]
fn hits_are_told_in_their_order_and_before_anything_else_is() {
    for (script, expected) in [
        ("+a +b b a b +c", "+0 +1 1 0 1 !0 +0"),
        ("+a +b b b +a", "+0 +1 1 1 =0"),
        // Who stays gets the lowest slot, and is known by that one.
        ("+a +b a -a b +c", "+0 +1 0 -0 >0 0 +1"),
        ("+a +b b !", "+0 +1 1 !0 >0"),
        // Whoever gets the slot of a victim that was foreseen is another one.
        ("+a +b b b +c c c +d", "+0 +1 1 1 !0 +0 0 0 !1 +1"),
        // Nobody asks, so nobody has to know.
        ("+a a a a", "+0"),
    ] {
        assert_eq!(told(script), expected, "{script}");
    }
}

/// A shard of this budget, of which entries are charged 8 bytes beside their records, and the keys of its entries.
struct Numbered {
    shard: Shard,
    seed: HashSeed,
}

impl Numbered {
    fn new(budget: Budget) -> Self {
        let policy = Recorder { told: Arc::default(), queue: Vec::new() };
        let seed = HashSeed::fixed(1);
        let signpost = Signpost { among: Signposts::new(1), index: 0 };
        let records = Records::new(seed.clone(), signpost, Arc::default());
        Self { shard: Shard::new(Box::new(policy), budget, WeighBy::Items, records, 8, 64), seed }
    }

    /// What it is charged.
    fn set(&mut self, number: u64, value: &[u8], deadline_nanos: Option<u64>) -> u32 {
        let name = number.to_le_bytes();
        let key = Key::shared(&name).expect("short");
        let key = HashedKey { key: &key, hash: self.seed.hash(&key) };
        let mut write = write(key, value, deadline_nanos);
        let charge = write.charge;
        let bytes = |shard: &Shard| {
            shard.directory.bytes() - shard.entries.records.excess_bytes(shard.directory.items())
        };
        let most = bytes(&self.shard) + u64::from(charge) + self.shard.most_beside(&write);
        let evictions = self.shard.counters.evictions;
        self.shard.set(&mut write, || 0, &mut Removed::default()).expect("room");
        let told = self.shard.counters.evictions > evictions || bytes(&self.shard) <= most;
        assert!(told, "a write costs no more than it was said to");
        let directory = &self.shard.directory;
        assert!(directory.bytes() <= directory.budget().bytes, "{} bytes", directory.bytes());
        charge
    }

    fn delete(&mut self, number: u64) -> bool {
        let name = number.to_le_bytes();
        let key = Key::shared(&name).expect("short");
        let key = HashedKey { key: &key, hash: self.seed.hash(&key) };
        self.shard.delete(key, || 0, &mut Removed::default())
    }
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
fn what_the_index_has_in_excess_is_charged_as_soon_as_it_has_it() {
    const ONCE: u64 = 120_000;
    let mut numbered = Numbered::new(Budget::of_items(u64::MAX));
    let charge = u64::from(numbered.set(0, b"value", None));
    let check = |numbered: &Numbered| {
        let items = numbered.shard.directory.items();
        let excess = numbered.shard.entries.records.excess_bytes(items);
        assert_eq!(numbered.shard.directory.dense_bytes(), items * charge + excess, "{items} items");
        excess
    };
    for number in 1..ONCE {
        numbered.set(number, b"value", None);
        assert_eq!(check(&numbered), 0, "all that there is has been paid for");
    }
    for number in ONCE / 4 + 8000..ONCE {
        assert!(numbered.delete(number));
        check(&numbered);
    }
    let mut excess = check(&numbered);
    assert!(excess > 200_000, "{excess} bytes");
    // Further keys that all lie in one part of the index, so that it grows while others are too large.
    let seed = numbered.seed.clone();
    let of_one_segment = |number: &u64| {
        let name = number.to_le_bytes();
        (seed.hash(&Key::shared(&name).expect("short")) >> 48).is_multiple_of(64)
    };
    let mut of_one_segment = (ONCE..).filter(of_one_segment);
    for number in of_one_segment.by_ref().take(10_000) {
        numbered.set(number, b"value", None);
        check(&numbered);
    }
    // Others that there is room for make up for the excess, until there is none; and then the one part grows.
    for number in ONCE / 4 + 8000.. {
        numbered.set(number, b"value", None);
        if check(&numbered) == 0 {
            break;
        }
    }
    for number in of_one_segment.take(4000) {
        numbered.set(number, b"value", None);
        excess = check(&numbered);
        if excess > 0 {
            break;
        }
    }
    assert!(excess > 0, "it has grown");
    for number in 0..ONCE {
        numbered.delete(number);
        check(&numbered);
    }
    assert_eq!(check(&numbered), 0, "nothing is left of it");
}

#[test]
fn a_link_on_the_wheel_is_charged_though_its_slot_has_no_deadline() {
    let mut numbered = Numbered::new(Budget::of_items(u64::MAX));
    let value = [0; 10];
    let record = NewRecord::new(&Key::shared(&[0; 8]).expect("short"), &value, None).charge() + 8;
    let mortal = NewRecord::new(&Key::shared(&[0; 8]).expect("short"), &value, Some(1)).charge() + 8;
    let check = |numbered: &mut Numbered, number, deadline, entries: [usize; 2], links: usize, what: &str| {
        numbered.set(number, &value, deadline);
        numbered.shard.check_invariants();
        let expected = entries[0] * record + entries[1] * mortal + 8 * links;
        assert_eq!(numbered.shard.directory.bytes(), expected as u64, "{what}");
    };
    for (number, items) in (0..2048).zip(1..) {
        check(&mut numbered, number, None, [items, 0], 0, "nobody has a deadline");
    }
    check(&mut numbered, 700, Some(1), [2047, 1], 511, "those beside it have a link");
    check(&mut numbered, 800, Some(1), [2046, 2], 510, "it was there already");
    check(&mut numbered, 2000, Some(1), [2045, 3], 1021, "those in between have none");
    check(&mut numbered, 800, None, [2046, 2], 1022, "it stays there");
    check(&mut numbered, 700, None, [2047, 1], 511, "nobody there needs them");
    check(&mut numbered, 2000, None, [2048, 0], 0, "nobody has a deadline");
    check(&mut numbered, 100, Some(1), [2047, 1], 511, "those beside it have a link");
    check(&mut numbered, 200, Some(1), [2046, 2], 510, "it was there already");
    assert!(numbered.delete(100), "it is there");
    numbered.shard.check_invariants();
    check(&mut numbered, 100, None, [2047, 1], 511, "somebody has its slot");
    check(&mut numbered, 2000, Some(1), [2046, 2], 1022, "those beside it have a link");
    for number in 300..900 {
        assert!(numbered.delete(number), "it is there");
        // Those with the last slots move down.
        numbered.shard.check_invariants();
    }
    assert_eq!(numbered.shard.entries.expiry.slots(), 512, "the two lie side by side");
}

#[test]
fn what_is_kept_for_slots_goes_back_where_most_have_left() {
    let mut numbered = Numbered::new(Budget::of_items(u64::MAX));
    for number in 0..4000 {
        numbered.set(number, b"value", Some(1));
    }
    for number in 0..3900 {
        assert!(numbered.delete(number), "it is there");
    }
    let Residents { records, expiry, .. } = &numbered.shard.entries;
    // Those in use, and a quarter and 64 of them: once unused, and once that nobody has.
    assert!(records.slots() <= 300, "{} slots are kept for a hundred entries", records.slots());
    assert!(expiry.slots() <= 512, "{} links are kept for a hundred deadlines", expiry.slots());
    numbered.shard.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps")]
fn what_is_charged_is_what_is_kept_whoever_comes_and_goes() {
    for bytes in [60_000, 120_000, u64::MAX] {
        let mut numbered = Numbered::new(Budget::of_bytes(bytes));
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (random >> 33) % below
        };
        let mut now = 0;
        for step in 0..12_000_u64 {
            let number = draw(4000);
            // Times in which nobody has a deadline, in which few have, and in which all have.
            let is_mortal = match step / 1200 % 4 {
                0 => false,
                1 => draw(100) == 0,
                2 => true,
                _ => draw(3) == 0,
            };
            // Times in which most are deleted.
            let turn = if step / 800 % 5 == 4 { draw(4) } else { draw(20) };
            match turn {
                0..3 => {
                    numbered.delete(number);
                }
                3 if draw(8) == 0 => {
                    now += draw(1 << 30);
                    numbered.shard.sweep(now, &mut usize::MAX.clone(), &mut Removed::default());
                }
                _ => {
                    let len = if draw(50) == 0 { 5000 } else { 10 };
                    numbered.set(number, &[0; 5000][..len], is_mortal.then(|| now + draw(1 << 33)));
                }
            }
            if turn < 4 || step % 97 == 0 {
                numbered.shard.check_invariants();
            }
        }
        numbered.shard.check_invariants();
        while numbered.shard.evict_one(|| 0, &mut Removed::default()) == Soon::Evicted {}
        numbered.shard.check_invariants();
        assert_eq!(numbered.shard.directory.bytes(), 0, "nobody is left");
    }
}

#[test]
fn what_is_kept_for_large_values_is_charged_once_they_are_replaced_by_small_ones() {
    let mut numbered = Numbered::new(Budget::of_items(u64::MAX));
    for number in 0..1500 {
        numbered.set(number, &[0; 5000], None);
    }
    let small = NewRecord::new(&Key::shared(&[0; 8]).expect("short"), b"value", None).charge() + 8;
    let large = NewRecord::new(&Key::shared(&[0; 8]).expect("short"), &[0; 5000], None).charge() + 8;
    let mut most = 0;
    for (number, replaced) in (0..1500).zip(1..) {
        numbered.set(number, b"value", None);
        let charges = replaced * small + (1500 - replaced) * large;
        let excess = numbered.shard.entries.records.excess_bytes(1500);
        assert_eq!(numbered.shard.directory.bytes(), charges as u64 + excess, "{replaced} are replaced");
        most = most.max(excess);
    }
    numbered.shard.check_invariants();
    assert!(most > 0, "more was kept than needed");
    assert!(!numbered.shard.directory.has_unused(), "none are left");
}

#[test]
fn nobody_leaves_for_a_link_on_the_wheel_while_there_is_room_in_the_pool() {
    let limits = Limits { max_items: None, max_memory_bytes: 1 << 20, max_value_bytes: 1 << 20 };
    let build: Arc<BuildPolicy> =
        Arc::new(|_, _| Box::new(Recorder { told: Arc::default(), queue: Vec::new() }));
    let options = MemoryStoreOptions {
        shards: Some(8),
        hash_seed: HashSeed::fixed(1),
        ..MemoryStoreOptions::new(limits, "recorder", 0, build)
    };
    let store = MemoryStore::new(options);
    for number in 0..8000_u64 {
        let name = number.to_le_bytes();
        let ttl = number.is_multiple_of(100).then_some(Duration::from_secs(60));
        let key = Key::shared(&name).expect("short");
        let done = store.set(Entry { key, value: b"value", ttl });
        assert!(matches!(done, StoreFuture::Ready(Some(Ok(())))));
    }
    store.check_invariants();
    let StoreFuture::Ready(Some(Ok(stats))) = store.stats() else { panic!("it is there at once") };
    assert!(stats.counters.memory_bytes < 1 << 19, "{} bytes", stats.counters.memory_bytes);
    assert_eq!(stats.counters.evictions, 0, "there was room");
}

#[test]
fn no_hit_is_lost_however_many_there_are() {
    let script = format!("+a{} +b", " a".repeat(3 * Hits::MOST + 1));
    assert_eq!(told(&script), format!("+0{} +1", " 0".repeat(3 * Hits::MOST + 1)));
}
