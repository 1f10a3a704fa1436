//! Unit tests of policies as data: a line of requests in, the victims in order out.

use engine::{Budget, Insertion, Newcomer, Slot, TaggedDirectory, WeighBy};

use crate::policy::Policy;

/// Spreads the few keys of a script, as a fingerprint would.
fn fingerprint(key: char) -> u64 {
    u64::from(u32::from(key)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Replays a script in a directory of `capacity` entries and returns who left, in order.
///
/// A letter is a request (a miss inserts), `-a` removes, `=a` updates, `!` evicts one entry. An entry
/// that was turned away instead of stored is shown in parentheses.
pub(crate) fn victims<P: Policy>(options: &P::Options, capacity: u64, script: &str) -> String {
    let sized = script.split_whitespace().map(|word| (word, 1)).collect::<Vec<_>>();
    replay::<P>(options, Budget::of_items(capacity), WeighBy::Items, &sized)
}

fn replay<P: Policy>(
    options: &P::Options,
    budget: Budget,
    weigh_by: WeighBy,
    script: &[(&str, u32)],
) -> String {
    let policy = P::new(weigh_by.capacity(&budget), 1, options);
    let mut directory = TaggedDirectory::new(policy, budget, weigh_by);
    let mut keys: Vec<Option<char>> = vec![];
    let mut left = String::new();
    for &(word, charge) in script {
        let mut gone: Vec<Slot> = vec![];
        let mut rejected = String::new();
        let key = word.chars().find(char::is_ascii_alphabetic);
        let found = key.and_then(|key| keys.iter().position(|&other| other == Some(key)));
        let slot = found.map(|index| Slot::new(u32::try_from(index).expect("few slots")));
        match (word.chars().next().expect("a word"), key, slot) {
            ('!', _, _) => gone.extend(directory.evict_one()),
            ('-', _, Some(slot)) => {
                directory.remove(slot);
                keys[slot.index()] = None;
            }
            ('=', Some(key), Some(slot)) => {
                directory.update(slot, fingerprint(key), charge, |slot| gone.push(slot));
            }
            (_, _, Some(slot)) => directory.hit(slot, |slot| gone.push(slot)),
            (_, Some(key), None) => {
                let newcomer = Newcomer { fingerprint: fingerprint(key), charge };
                let insertion = directory.insert(fingerprint(key), newcomer, |slot| gone.push(slot));
                left.extend(gone.drain(..).map(|slot| keys[slot.index()].take().expect("resident")));
                if let Insertion::Inserted(slot) = insertion {
                    keys.resize(directory.slots(), None);
                    keys[slot.index()] = Some(key);
                } else {
                    rejected = format!("({key})");
                }
            }
            _ => panic!("{word} is not part of the language"),
        }
        left.extend(gone.into_iter().map(|slot| keys[slot.index()].take().expect("resident")));
        left.push_str(&rejected);
        directory.check_invariants();
    }
    left
}
