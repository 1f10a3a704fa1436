//! The directory's index and slots with thousands of entries, beside a map: segments grow and shrink, and keys collide as much as the input likes.
#![no_main]

use std::collections::{BTreeSet, HashMap};

use arbitrary::{Result, Unstructured};
use engine::{Budget, Insertion, Newcomer, Slot, TaggedDirectory, WeighBy};
use libfuzzer_sys::fuzz_target;

const MOST: u64 = 1500;

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let fifo = (policies::find("fifo").expect("registered").with_defaults)();
    let budget = Budget::of_items(MOST);
    let mut directory = TaggedDirectory::new(fifo.build(MOST, 0), budget, WeighBy::Items);
    let mut keys: HashMap<u32, Slot> = HashMap::new();
    let mut at: Vec<Option<u32>> = Vec::new();
    let mut unused: BTreeSet<usize> = BTreeSet::new();
    // Bits that hashes keep, so that they crowd in segments, buckets or under one tag.
    let mask: u64 = input.arbitrary()?;
    let shift = u32::from(input.arbitrary::<u8>()?) % 64;
    let hash_of = |key: u32| (u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15) & mask).rotate_left(shift);
    // Entries that cannot be told apart by their hashes lie in one chain: with few of them that is quick enough.
    let most = if mask.count_ones() < 12 { 200 } else { MOST };
    while !input.is_empty() {
        let operation: u8 = input.arbitrary()?;
        let first = u32::from(input.arbitrary::<u16>()?);
        let count = u32::from(input.arbitrary::<u8>()?) * if operation & 4 == 0 { 1 } else { 4 };
        for key in first..first + count {
            match (operation & 3, keys.get(&key).copied()) {
                (0 | 1, None) if (keys.len() as u64) < most => {
                    let newcomer = Newcomer { fingerprint: u64::from(key), charge: 1 };
                    let insertion = directory.insert(hash_of(key), newcomer, |_| panic!("there is room"));
                    let Insertion::Inserted(slot) = insertion else { panic!("there is room") };
                    if slot.index() == at.len() {
                        at.push(None);
                        unused.insert(slot.index());
                    }
                    assert_eq!(unused.pop_first(), Some(slot.index()), "the lowest unused slot comes first");
                    at[slot.index()] = Some(key);
                    keys.insert(key, slot);
                }
                (2, Some(slot)) => {
                    directory.remove(slot);
                    at[slot.index()] = None;
                    unused.insert(slot.index());
                    keys.remove(&key);
                }
                (3, Some(_)) => {
                    let victim = directory.evict_one().expect("somebody is resident");
                    let gone = at[victim.index()].take().expect("the victim was resident");
                    unused.insert(victim.index());
                    keys.remove(&gone);
                }
                (_, slot) => {
                    let is_key = |slot: Slot| at[slot.index()] == Some(key);
                    assert_eq!(directory.find(hash_of(key), is_key), slot, "who is resident is found");
                }
            }
        }
        directory.check_invariants();
        assert_eq!(directory.items(), keys.len() as u64);
        let bound = at.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        assert_eq!(directory.slots(), bound, "no slot is kept beyond the last that is used");
    }
    for (&key, &slot) in &keys {
        assert_eq!(directory.find(hash_of(key), |slot| at[slot.index()] == Some(key)), Some(slot));
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // The input's end is the history's.
    let _: Result<()> = run(&mut Unstructured::new(&data[..data.len().min(96)]));
});
