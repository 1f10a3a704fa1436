//! Checks that a concurrent history of operations on one key could have happened one by one.
//!
//! The search follows Wing and Gong, "Testing and Verifying Concurrent Objects", 1993, with the
//! memory of visited states that Lowe added in "Testing for linearizability", 2017.

use std::collections::HashSet;

/// What an operation did, as its caller saw it. Values are numbers that stand for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A read and what it saw.
    Get { saw: Option<u64> },
    /// An unconditional write.
    Set { value: u64 },
    /// A write where nothing was, and whether it was done.
    SetIfAbsent { value: u64, stored: bool },
    /// A write where `expected` was: `Some(true)` stored, `Some(false)` mismatch, `None` not found.
    CompareAndSet { expected: u64, value: u64, outcome: Option<bool> },
    /// A removal, and whether there was something.
    Delete { existed: bool },
}

/// An operation with the moments between which it took effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) invoked: u64,
    pub(crate) responded: u64,
    pub(crate) operation: Operation,
}

#[expect(clippy::option_option, reason = "the outer one is whether it was possible, the inner one the value")]
/// The value after an operation on `state`, or `None` where its outcome was impossible.
fn apply(state: Option<u64>, operation: Operation) -> Option<Option<u64>> {
    match operation {
        Operation::Get { saw } => (saw == state).then_some(state),
        Operation::Set { value } => Some(Some(value)),
        Operation::SetIfAbsent { value, stored: true } => state.is_none().then_some(Some(value)),
        Operation::SetIfAbsent { stored: false, .. } => state.is_some().then_some(state),
        Operation::CompareAndSet { expected, value, outcome: Some(true) } => {
            (state == Some(expected)).then_some(Some(value))
        }
        Operation::CompareAndSet { expected, outcome: Some(false), .. } => {
            state.is_some_and(|live| live != expected).then_some(state)
        }
        Operation::CompareAndSet { outcome: None, .. } => state.is_none().then_some(state),
        Operation::Delete { existed } => (existed == state.is_some()).then_some(None),
    }
}

/// Whether the history of one key, which starts out missing, is linearizable. With `may_vanish` an
/// entry may disappear between any two operations, as eviction and expiry make it.
///
/// # Panics
///
/// On more than 128 events.
pub(crate) fn is_linearizable(history: &[Event], may_vanish: bool) -> bool {
    assert!(history.len() <= 128, "split the history");
    let everything = if history.len() == 128 { u128::MAX } else { (1_u128 << history.len()) - 1 };
    let mut visited = HashSet::new();
    let mut stack = vec![(0_u128, None)];
    while let Some((done, state)) = stack.pop() {
        if done == everything {
            return true;
        }
        if !visited.insert((done, state)) {
            continue;
        }
        let open = |index: usize| done & (1 << index) == 0;
        // What was answered before another operation was asked for comes before it.
        let first_response = (0..history.len())
            .filter(|&index| open(index))
            .map(|index| history[index].responded)
            .min()
            .expect("something is open");
        for (index, event) in history.iter().enumerate() {
            if !open(index) || event.invoked > first_response {
                continue;
            }
            let mut step = |state| {
                if let Some(next) = apply(state, event.operation) {
                    stack.push((done | (1 << index), next));
                }
            };
            step(state);
            if may_vanish && state.is_some() {
                step(None);
            }
        }
    }
    false
}

#[test]
fn the_checker_tells_possible_histories_from_impossible_ones() {
    let event = |invoked, responded, operation| Event { invoked, responded, operation };
    let set = |value| Operation::Set { value };
    let get = |saw| Operation::Get { saw };
    // A read that overlaps a write may see the value before or after it.
    assert!(is_linearizable(&[event(0, 3, set(1)), event(1, 2, get(None))], false));
    assert!(is_linearizable(&[event(0, 3, set(1)), event(1, 2, get(Some(1)))], false));
    // A read after the write was acknowledged may not miss it, unless the entry was evicted.
    let lost = [event(0, 1, set(1)), event(2, 3, get(None))];
    assert!(!is_linearizable(&lost, false));
    assert!(is_linearizable(&lost, true));
    // Going back to an overwritten value is never right.
    let stale = [event(0, 1, set(1)), event(2, 3, set(2)), event(4, 5, get(Some(1)))];
    assert!(!is_linearizable(&stale, true));
    // Two callers cannot both win.
    let won = |value| Operation::SetIfAbsent { value, stored: true };
    assert!(!is_linearizable(&[event(0, 3, won(1)), event(1, 2, won(2))], false));
}
