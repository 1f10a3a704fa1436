//! Checks that what clients saw of one key could have happened one operation after the other, each at some moment
//! between its call and its answer, in a cache: an entry may vanish at any moment, and has vanished once it is expired.
//!
//! Linearizability is local: where it holds for each key, it holds for all of them together. For a key, the search is
//! that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory of visited states that Lowe
//! added ("Testing for linearizability", 2017), walked in the order of time: between two events there is a set of
//! configurations, each the value under the key and which of the operations in flight have taken effect. An operation
//! takes effect as late as its answer demands it. Since values are unique, hardly more than one configuration ever
//! survives, and the cost is linear in the length of the history but for what is in flight at a time.
//!
//! Two things keep the set small and lose nothing. What only observes, and agrees with the value, takes effect at once:
//! it could do nothing better later. And an entry vanishes only where an operation in flight saw nothing.

use std::collections::{HashMap, HashSet};

use super::history::{Event, NEVER, NOTHING, Operation, Value};

/// Why no order explains a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A value was seen that nobody has written under this key.
    Invented { by: usize },
    /// A value was seen by an operation that began after it was expired.
    Expired { by: usize },
    /// Up to and with this answer, there is no order.
    NoOrder { by: usize },
}

/// A part of a key's history that is as impossible as the whole.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) cause: Cause,
    pub(crate) events: Vec<Event>,
}

/// Checks the history of one key, which starts out missing. On failure, what is left of it once everything is taken
/// away that the failure does not need.
pub(crate) fn check(history: &[Event]) -> Result<(), Violation> {
    let Err(cause) = explain(history) else { return Ok(()) };
    let events = match cause {
        Cause::Invented { by } => vec![history[by]],
        Cause::Expired { by } => {
            let seen = history[by].operation.sees();
            let write = history.iter().find(|event| event.operation.writes() == seen);
            write.into_iter().chain([&history[by]]).copied().collect()
        }
        Cause::NoOrder { by } => {
            let end = history[by].responded;
            // What began later cannot matter.
            minimal(history.iter().filter(|event| event.invoked <= end).copied().collect())
        }
    };
    Err(Violation { cause, events })
}

/// Whether there is an order, and else where the last one ends.
fn explain(history: &[Event]) -> Result<(), Cause> {
    let deadlines: HashMap<Value, u64> = history
        .iter()
        .filter_map(|event| event.operation.writes().map(|value| (value, event.deadline())))
        .collect();
    for (by, event) in history.iter().enumerate() {
        // What was never answered may not have happened.
        let Some(seen) = event.operation.sees().filter(|_| event.responded != NEVER) else { continue };
        match deadlines.get(&seen) {
            None => return Err(Cause::Invented { by }),
            Some(&deadline) if deadline < event.invoked => return Err(Cause::Expired { by }),
            Some(_) => {}
        }
    }
    Walk::new(history, &deadlines).run()
}

/// The value under the key, and which of the operations in flight have taken effect: a bit for each place.
type Configuration = (Value, u128);

struct Walk<'a> {
    history: &'a [Event],
    deadlines: &'a HashMap<Value, u64>,
    /// Operations in flight, in places that are used again.
    in_flight: Vec<Option<usize>>,
    configurations: Vec<Configuration>,
}

impl<'a> Walk<'a> {
    fn new(history: &'a [Event], deadlines: &'a HashMap<Value, u64>) -> Self {
        Self { history, deadlines, in_flight: Vec::new(), configurations: vec![(NOTHING, 0)] }
    }

    fn run(mut self) -> Result<(), Cause> {
        // At the same moment calls come before answers: such operations overlap.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * self.history.len());
        for (index, event) in self.history.iter().enumerate() {
            moments.push((event.invoked, false, index));
            if event.responded != NEVER {
                moments.push((event.responded, true, index));
            }
        }
        moments.sort_unstable();
        for (_, is_answer, index) in moments {
            if is_answer {
                let place = self.in_flight.iter().position(|&other| other == Some(index));
                let place = place.expect("it was called");
                self.answered(place);
                self.in_flight[place] = None;
                if self.configurations.is_empty() {
                    return Err(Cause::NoOrder { by: index });
                }
            } else {
                let free = self.in_flight.iter().position(Option::is_none);
                let place = free.unwrap_or_else(|| {
                    self.in_flight.push(None);
                    self.in_flight.len() - 1
                });
                assert!(place < 128, "more than 128 operations in flight on a key");
                self.in_flight[place] = Some(index);
            }
        }
        Ok(())
    }

    /// Keeps the configurations in which the operation at this place has taken effect, and those that follow from the
    /// others by letting it.
    fn answered(&mut self, place: usize) {
        let bit = 1 << place;
        let mut visited = HashSet::new();
        let mut kept = HashSet::new();
        let mut open = std::mem::take(&mut self.configurations);
        while let Some(configuration) = open.pop() {
            let (value, done) = self.observed(configuration);
            if done & bit != 0 {
                kept.insert((value, done & !bit));
                continue;
            }
            if !visited.insert((value, done)) {
                continue;
            }
            let mut somebody_saw_nothing = false;
            for (other, event) in self.open(done) {
                let operation = event.operation;
                somebody_saw_nothing |= needs_nothing(operation);
                if let Some(next) = Self::effect(value, operation) {
                    open.push((next, done | 1 << other));
                }
            }
            if value != NOTHING && somebody_saw_nothing {
                open.push((NOTHING, done));
            }
        }
        // Who has yet to do what need never be done can do all that others can who have done it.
        let optional = self.open(0).filter(|(_, event)| event.responded == NEVER);
        let optional = optional.fold(0, |bits, (place, _)| bits | 1 << place);
        let is_beaten = |&(value, done): &Configuration| {
            done & optional != 0
                && kept.iter().any(|&(other, by)| {
                    other == value && by != done && by & !optional == done & !optional && by & !done == 0
                })
        };
        self.configurations.extend(kept.iter().filter(|configuration| !is_beaten(configuration)));
    }

    /// Operations in flight that have not taken effect.
    fn open(&self, done: u128) -> impl Iterator<Item = (usize, &Event)> {
        let in_flight = self.in_flight.iter().enumerate();
        in_flight
            .filter(move |(place, _)| done & (1 << place) == 0)
            .filter_map(|(place, index)| index.map(|index| (place, &self.history[index])))
    }

    /// Lets everything take effect that only observes and agrees.
    fn observed(&self, (value, mut done): Configuration) -> Configuration {
        for (place, event) in self.open(done) {
            let agrees = match event.operation {
                Operation::Get(seen) => seen == value,
                Operation::NotFound => value == NOTHING,
                Operation::Exists => self.is_live(value, event),
                Operation::Mismatch { expected } => value != expected && self.is_live(value, event),
                _ => false,
            };
            if agrees {
                done |= 1 << place;
            }
        }
        (value, done)
    }

    /// The value after an operation that changes it, where that is possible.
    fn effect(value: Value, operation: Operation) -> Option<Value> {
        match operation {
            Operation::Set(new) => Some(new),
            Operation::SetIfAbsent(new) => (value == NOTHING).then_some(new),
            Operation::CompareAndSet { expected, value: new } => (value == expected).then_some(new),
            Operation::Delete => Some(NOTHING),
            Operation::Get(_) | Operation::Exists | Operation::Mismatch { .. } | Operation::NotFound => None,
        }
    }

    /// Whether an operation can have met this value: it had not expired before the call.
    fn is_live(&self, value: Value, event: &Event) -> bool {
        value != NOTHING && self.deadlines[&value] >= event.invoked
    }
}

const fn needs_nothing(operation: Operation) -> bool {
    matches!(operation, Operation::Get(NOTHING) | Operation::NotFound | Operation::SetIfAbsent(_))
}

/// Takes away, in ever smaller pieces, what the failure does not need.
///
/// Nothing is taken away that could be the very reason why the rest is possible: only what observes, removals (what they
/// do an entry may do by itself), and writes whose value nobody claims to have seen.
fn minimal(mut events: Vec<Event>) -> Vec<Event> {
    let mut piece = events.len().div_ceil(2);
    loop {
        let mut start = 0;
        let mut has_shrunk = false;
        while start < events.len() {
            let fewer = without(&events, start..(start + piece).min(events.len()));
            if fewer.len() < events.len() && matches!(explain(&fewer), Err(Cause::NoOrder { .. })) {
                events = fewer;
                has_shrunk = true;
            } else {
                start += piece;
            }
        }
        if piece == 1 && !has_shrunk {
            return events;
        }
        piece = (piece / 2).max(1);
    }
}

fn without(events: &[Event], piece: std::ops::Range<usize>) -> Vec<Event> {
    let is_in = |index: usize| piece.contains(&index);
    let observes = |operation: Operation| operation.writes().is_none();
    // First what observes goes, then what nobody who is left has seen.
    let left =
        events.iter().enumerate().filter(|(index, event)| !is_in(*index) || !observes(event.operation));
    let left: Vec<(usize, Event)> = left.map(|(index, event)| (index, *event)).collect();
    // They may have seen any value.
    let is_seen_by_any = |(_, event): &(usize, Event)| {
        matches!(event.operation, Operation::Exists | Operation::Mismatch { .. })
    };
    if left.iter().any(is_seen_by_any) {
        return left.into_iter().map(|(_, event)| event).collect();
    }
    let seen: HashSet<Value> = left.iter().filter_map(|(_, event)| event.operation.sees()).collect();
    let stays = |(index, event): &(usize, Event)| {
        !is_in(*index) || event.operation.writes().is_none_or(|value| seen.contains(&value))
    };
    left.into_iter().filter(stays).map(|(_, event)| event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn event(text: &str) -> Event {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{word} in {text}"));
        let (invoked, responded) = words[0].split_once('-').expect("moments");
        let operation = match (words[1], &words[2..]) {
            ("get", [seen]) => Operation::Get(number(seen)),
            ("set", [value, ..]) => Operation::Set(number(value)),
            ("absent", [value]) => Operation::SetIfAbsent(number(value)),
            ("exists", []) => Operation::Exists,
            ("cas", [expected, value]) => {
                Operation::CompareAndSet { expected: number(expected), value: number(value) }
            }
            ("mismatch", [expected]) => Operation::Mismatch { expected: number(expected) },
            ("missing", []) => Operation::NotFound,
            ("delete", []) => Operation::Delete,
            _ => panic!("{text}"),
        };
        let mortal = words.get(3).filter(|_| words[1] == "set");
        Event {
            invoked: number(invoked) * SECOND,
            responded: if responded == "?" { NEVER } else { number(responded) * SECOND },
            ttl: mortal.map(|ttl| number(ttl) * SECOND),
            client: 0,
            operation,
        }
    }

    fn history(text: &str) -> Vec<Event> {
        text.split(',').map(event).collect()
    }

    #[test]
    fn possible_histories_are_told_from_impossible_ones() {
        for (text, is_possible) in [
            ("0-1 get 0", true),
            // Whoever overlaps with a write may see the value before or after it.
            ("0-3 set 1, 1-2 get 0", true),
            ("0-3 set 1, 1-2 get 1", true),
            ("0-1 set 1, 2-5 set 2, 3-4 get 1, 3-4 get 2", true),
            ("0-1 set 1, 2-6 set 2, 3-4 get 2, 5-6 get 1", false),
            // An entry may vanish, but not come back.
            ("0-1 set 1, 2-3 get 0", true),
            ("0-1 set 1, 2-3 get 0, 4-5 get 1", false),
            ("0-1 set 1, 2-3 delete, 4-5 get 1", false),
            ("0-1 set 1, 2-5 delete, 3-4 get 1", true),
            ("0-1 set 1, 2-3 set 2, 4-5 get 1", false),
            ("0-1 set 1, 2-3 set 2, 4-5 get 0", true),
            // Of two overlapping writes each may be the last one, but for all readers the same.
            ("0-3 set 1, 0-3 set 2, 4-5 get 1", true),
            ("0-3 set 1, 0-3 set 2, 4-5 get 1, 6-7 get 2", false),
            // Nobody else wins, unless the entry vanished between them.
            ("0-3 absent 1, 1-2 absent 2", true),
            ("0-3 absent 1, 1-2 absent 2, 4-5 get 1, 4-5 get 2", false),
            ("0-1 absent 1, 2-3 get 1, 4-5 exists, 6-7 get 1", true),
            ("0-1 absent 1, 2-3 absent 2, 4-5 get 1", false),
            ("0-1 exists", false),
            ("0-1 set 1, 2-3 get 0, 4-5 exists", false),
            // A value is replaced once.
            ("0-1 set 1, 2-3 cas 1 2, 4-5 get 2", true),
            ("0-1 set 1, 2-5 cas 1 2, 2-5 cas 1 3", false),
            ("0-1 set 1, 2-5 cas 1 2, 2-5 mismatch 1", true),
            ("0-1 set 1, 2-3 mismatch 1", false),
            ("0-1 set 1, 2-3 mismatch 7", true),
            ("0-1 set 1, 2-3 missing, 4-5 get 1", false),
            ("0-1 set 1, 2-3 missing", true),
            ("0-1 set 1, 2-3 set 2, 4-5 cas 1 3", false),
            // What was never answered may be done at any time, or never.
            ("0-? set 1, 2-3 get 0, 4-5 get 1", true),
            ("0-? set 1, 2-3 get 1, 4-5 set 2, 6-7 get 1", false),
            ("0-1 set 1, 2-? delete, 3-4 get 1", true),
            ("0-1 set 1, 2-? cas 1 2, 3-4 get 1, 5-6 get 2", true),
            // Nobody writes these.
            ("0-1 get 1", false),
            ("0-1 set 1, 2-3 cas 2 3", false),
            // A ttl counts from the answer at the latest.
            ("0-1 set 1 9, 9-10 get 1", true),
            ("0-1 set 1 9, 10-12 get 1", true),
            ("0-1 set 1 9, 11-12 get 1", false),
            ("0-1 set 1 9, 11-12 get 0", true),
            ("0-1 set 1 9, 11-12 exists", false),
            ("0-1 set 1 9, 9-12 exists", true),
            ("0-1 set 1 9, 11-12 mismatch 2", false),
        ] {
            assert_eq!(check(&history(text)).is_ok(), is_possible, "{text}");
        }
    }

    #[test]
    fn a_failure_is_told_by_what_it_needs() {
        for (text, expected) in [
            (
                "0-1 set 1, 1-2 get 1, 2-3 set 2, 3-4 get 2, 4-5 delete, 5-6 set 3, 7-8 get 3, 8-9 get 2, 9-10 set 4",
                "2-3 set 2, 5-6 set 3, 8-9 get 2",
            ),
            ("0-1 set 1, 2-3 get 1, 4-5 get 0, 6-7 get 1", "0-1 set 1, 4-5 get 0, 6-7 get 1"),
            ("0-1 set 5, 0-1 set 1 9, 2-3 get 1, 11-12 get 1", "0-1 set 1 9, 11-12 get 1"),
        ] {
            assert_eq!(check(&history(text)).expect_err(text).events, history(expected), "{text}");
        }
    }

    /// All orders of all subsets of what is unknown, one after the other: slow, and hard to get wrong.
    fn by_brute_force(history: &[Event]) -> bool {
        fn step(history: &[Event], done: u32, value: Value) -> bool {
            let open = |index: usize| done & (1 << index) == 0;
            let all_answered =
                (0..history.len()).all(|index| !open(index) || history[index].responded == NEVER);
            if all_answered {
                return true;
            }
            let first = (0..history.len()).filter(|&index| open(index)).map(|index| history[index].responded);
            let first = first.min().expect("some are open");
            for (index, event) in history.iter().enumerate() {
                if !open(index) || event.invoked > first {
                    continue;
                }
                for value in [value, NOTHING] {
                    let next = match event.operation {
                        Operation::Get(seen) => (seen == value).then_some(value),
                        Operation::Exists => (value != NOTHING).then_some(value),
                        Operation::Mismatch { expected } => {
                            (value != NOTHING && value != expected).then_some(value)
                        }
                        Operation::NotFound => (value == NOTHING).then_some(value),
                        Operation::Set(new) => Some(new),
                        Operation::SetIfAbsent(new) => (value == NOTHING).then_some(new),
                        Operation::CompareAndSet { expected, value: new } => {
                            (value == expected).then_some(new)
                        }
                        Operation::Delete => Some(NOTHING),
                    };
                    if next.is_some_and(|next| step(history, done | 1 << index, next)) {
                        return true;
                    }
                }
            }
            false
        }
        step(history, 0, NOTHING)
    }

    #[test]
    fn the_walk_says_what_trying_everything_says() {
        let mut verdicts = [0; 2];
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut values = 0;
            let mut events: Vec<Event> = Vec::new();
            for _ in 0..random.usize(2..8) {
                let invoked = random.u64(0..12);
                let responded = if random.u8(0..10) == 0 { NEVER } else { invoked + random.u64(0..6) };
                let mut new = || {
                    values += 1;
                    values
                };
                let operation = match random.u8(0..9) {
                    0 | 1 => Operation::Set(new()),
                    2 => Operation::SetIfAbsent(new()),
                    3 => Operation::Exists,
                    4 => Operation::CompareAndSet { expected: 0, value: new() },
                    5 => Operation::Mismatch { expected: 0 },
                    6 => Operation::Delete,
                    7 => Operation::NotFound,
                    _ => Operation::Get(0),
                };
                events.push(Event { invoked, responded, ttl: None, client: 0, operation });
            }
            for event in &mut events {
                let any = random.u64(1..=values.max(1));
                match &mut event.operation {
                    Operation::Get(seen) if random.u8(0..4) > 0 => *seen = any,
                    Operation::CompareAndSet { expected, .. } | Operation::Mismatch { expected } => {
                        *expected = any;
                    }
                    _ => {}
                }
            }
            let is_possible = by_brute_force(&events);
            verdicts[usize::from(is_possible)] += 1;
            assert_eq!(check(&events).is_ok(), is_possible, "seed {seed}: {events:?}");
        }
        assert!(verdicts.iter().all(|&count| count > 2000), "{verdicts:?}");
    }
}
