//! Work on long batches, in slices. What would hold a thread for milliseconds lets others have their turn now and then, or
//! leaves the thread's other tasks to another one.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::line::rest;

/// How many items are looked at before others have their turn: as many as take some 0.1 ms.
pub(crate) const SLICE_ITEMS: usize = 4096;

/// How many bytes are copied or given back before others have their turn: as many as take 0.1 to 0.2 ms into memory that was not used before.
pub(crate) const SLICE_BYTES: usize = 256 << 10;

/// Counts what is worked on.
#[derive(Default)]
pub(crate) struct Pace {
    items: usize,
    bytes: usize,
}

impl Pace {
    /// To be awaited for each item.
    pub(crate) async fn step(&mut self) {
        self.step_of(0).await;
    }

    /// To be awaited for each item of which so many bytes are copied or given back.
    pub(crate) async fn step_of(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes;
        if self.items >= SLICE_ITEMS || self.bytes >= SLICE_BYTES {
            *self = Self::default();
            rest().await;
        }
    }
}

/// Lets others have their turn between two works on so many items, if they are many.
pub(crate) async fn pause(items: usize) {
    if items >= SLICE_ITEMS {
        rest().await;
    }
}

/// Runs what blocks its thread. What else that thread serves goes on on another one, until the task is polled the next time.
/// A runtime that is one thread has no other, so all that it serves waits. Not for tasks of a `LocalSet`.
pub(crate) fn run_blocking(work: &mut dyn FnMut()) {
    let has_threads = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    if Handle::try_current().is_ok_and(has_threads) { block_in_place(work) } else { work() }
}

/// What [`Iterator::collect`] gives.
pub(crate) async fn collect<T>(mut items: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::with_capacity(items.size_hint().0);
    loop {
        let slice_end = all.len() + SLICE_ITEMS;
        all.extend(items.by_ref().take(SLICE_ITEMS));
        if all.len() < slice_end {
            return all;
        }
        rest().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// What comes of it, and how often others had their turn.
    fn run<T>(work: impl Future<Output = T>) -> (T, usize) {
        let mut work = pin!(work);
        let mut turns = 0;
        loop {
            if let std::task::Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return (done, turns);
            }
            turns += 1;
        }
    }

    #[test]
    fn all_is_collected_and_others_have_their_turn_after_each_slice() {
        for (items, turns) in
            [(0, 0), (1, 0), (SLICE_ITEMS - 1, 0), (SLICE_ITEMS, 1), (3 * SLICE_ITEMS + 1, 3)]
        {
            assert_eq!(run(collect(0..items)), ((0..items).collect(), turns));
            let steps = async {
                let mut pace = Pace::default();
                for _ in 0..items {
                    pace.step().await;
                }
            };
            assert_eq!(run(steps), ((), turns));
            let bytes = async {
                let mut pace = Pace::default();
                for _ in 0..items {
                    pace.step_of(SLICE_BYTES / SLICE_ITEMS * 2).await;
                }
            };
            assert_eq!(run(bytes), ((), 2 * items / SLICE_ITEMS), "they are twice as large");
        }
    }
}
