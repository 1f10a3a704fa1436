//! What a shard tells its policy and when, and what it charges.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use super::*;
use crate::index::{Signpost, Signposts};
use crate::key::HashSeed;
use crate::policy::{Item, Verdict};

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
                let record = NewRecord::new(key.key, b"value", None);
                let charge = u32::try_from(8 + record.charge()).expect("small");
                let mut write = Write { key, record, charge, interrupted: Interrupted::default() };
                shard.set(&mut write, || 0, &mut removed).expect("room");
            }
            b'-' => assert!(shard.delete(key, || 0, &mut removed), "{word}"),
            b'!' => assert!(shard.evict_one(|| 0, &mut removed), "{word}"),
            _ => {
                let mut value = None;
                shard.get(key, || 0, &mut removed, &mut value);
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

#[test]
#[cfg_attr(miri, ignore = "hundreds of thousands of steps")]
fn what_the_index_has_in_excess_is_charged_as_soon_as_it_has_grown() {
    let policy = Recorder { told: Arc::default(), queue: Vec::new() };
    let seed = HashSeed::fixed(1);
    let records = Records::new(seed.clone(), Signpost { among: Signposts::new(1), index: 0 }, Arc::default());
    let budget = Budget::of_items(u64::MAX);
    let mut shard = Shard::new(Box::new(policy), budget, WeighBy::Items, records, 8, 0);
    // Keys that all lie in one part of the index, so that it grows as a whole.
    let of_one_segment = |number: &u64| {
        let name = number.to_le_bytes();
        (seed.hash(&Key::shared(&name).expect("short")) >> 48).is_multiple_of(64)
    };
    let mut most = 0;
    for (items, number) in (1..=300_000_u64).zip((0..).filter(of_one_segment)) {
        let name = number.to_le_bytes();
        let key = Key::shared(&name).expect("short");
        let key = HashedKey { key: &key, hash: seed.hash(&key) };
        let record = NewRecord::new(key.key, b"value", None);
        let charge = u32::try_from(8 + record.charge()).expect("small");
        let mut write = Write { key, record, charge, interrupted: Interrupted::default() };
        shard.set(&mut write, || 0, &mut Removed::default()).expect("room");
        let excess = shard.entries.records.excess_bytes(items);
        assert_eq!(shard.directory.dense_bytes(), items * u64::from(charge) + excess, "{items} items");
        most = most.max(excess);
    }
    assert!(most > 0, "there was some excess");
}

#[test]
fn no_hit_is_lost_however_many_there_are() {
    let script = format!("+a{} +b", " a".repeat(3 * Hits::MOST + 1));
    assert_eq!(told(&script), format!("+0{} +1", " 0".repeat(3 * Hits::MOST + 1)));
}
