//! What keeps its thread for long: waiting for other writers, pausing for whoever wants the lock, evicting from every shard.
//!
//! The engine knows no runtime. Where tasks share threads, whoever makes the store says by
//! [`RunBlocking`] what has to happen to them meanwhile.

use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard, sleep};

use super::MemoryStore;

/// Runs what it is given, once and on the calling thread, which that may block for milliseconds.
pub type RunBlocking = fn(&mut dyn FnMut());

impl MemoryStore {
    /// Runs what blocks the thread; what comes of it.
    #[cold]
    pub(super) fn block<T>(&self, work: impl FnOnce() -> T) -> T {
        let (mut work, mut result) = (Some(work), None);
        (self.options.run_blocking)(&mut || result = work.take().map(|work| work()));
        result.expect("it is run, once")
    }

    /// Lets others have their turn.
    #[cold]
    pub(super) fn pause(&self, pause: Duration) {
        // Not a yield: after one, the system may well go on with this thread while one that was just woken waits.
        self.block(|| sleep(pause));
    }

    /// Waits for whoever else does what is done by one thread at a time.
    #[cold]
    pub(super) fn turn<'a>(&self, one_at_a_time: &'a Mutex<()>) -> MutexGuard<'a, ()> {
        match one_at_a_time.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.block(|| one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}
