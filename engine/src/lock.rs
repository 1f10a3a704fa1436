//! The lock of a shard: a mutex that is released by a plain store.
//!
//! To acquire a mutex takes an atomic exchange, and with most mutexes so does to release it. On common processors either
//! one lets nothing begin that follows it before everything else is done; and a look-up in a shard takes hardly longer
//! than the two of them. Here a release is a store, and a look at whether anybody sleeps: docs/benchmarks.md has what
//! that gains.
//!
//! That look may be taken before the store can be seen by other processors. So a thread that falls asleep while the lock is
//! being released may be overlooked: it is woken by the next release, and nobody sleeps for longer than [`NAP`] without
//! trying again. Under `tests/shuttle`, where every thread sees at once what others have written, nobody is overlooked and no
//! nap ends by itself: a wake-up that is missing is found there.
//!
//! Poisoned by a panic as the standard library's mutex is, and used like that.

#![expect(unsafe_code, reason = "a mutex lends out what it holds; measured in docs/benchmarks.md")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError};
use std::thread::panicking;
use std::time::Duration;

use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, spin_loop};

/// How long a thread sleeps at the most before it tries again, though nobody has woken it.
const NAP: Duration = Duration::from_millis(1);
/// How often a thread looks before it falls asleep. Most operations under a shard's lock are over by then.
const SPINS: u32 = if cfg!(shuttle) { 1 } else { 100 };

/// A mutex. What is written to with each use lies in front of what it holds, so that they may share a line of memory.
#[repr(C)]
pub(crate) struct Lock<T> {
    is_held: AtomicBool,
    is_poisoned: AtomicBool,
    /// Whether a release is to wake one of the `sleepers`. Not while one that was woken is on its way: it sees to the others.
    is_awaited: AtomicBool,
    data: UnsafeCell<T>,
    /// How many threads sleep.
    sleepers: Mutex<usize>,
    woken: Condvar,
}

// SAFETY: it is reached by `&self` from several threads, but only one of them at a time has a `Guard`, by which alone the data
// are reached: so they are handed from thread to thread, which `T: Send` allows, and never shared.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use what a [`Lock`] holds, until it is dropped.
#[must_use]
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
    was_panicking: bool,
    /// Neither `Send` nor `Sync`: to share a guard would be to share the data, which need not be `Sync`.
    stays: PhantomData<*const T>,
}

impl<T> Lock<T> {
    pub(crate) fn new(data: T) -> Self {
        Self {
            is_held: AtomicBool::new(false),
            is_poisoned: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            data: UnsafeCell::new(data),
            sleepers: Mutex::new(0),
            woken: Condvar::new(),
        }
    }

    /// Waits until nobody else has it. An error, with the guard, where somebody has panicked who had it.
    #[inline]
    pub(crate) fn lock(&self) -> LockResult<Guard<'_, T>> {
        if !self.try_acquire() {
            self.acquire_later();
        }
        let guard = Guard { lock: self, was_panicking: panicking(), stays: PhantomData };
        if self.is_poisoned.load(Ordering::Relaxed) { Err(PoisonError::new(guard)) } else { Ok(guard) }
    }

    /// What it holds is as it should be again. For who has its guard.
    pub(crate) fn clear_poison(&self) {
        self.is_poisoned.store(false, Ordering::Relaxed);
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        // What the last one did is visible: this acquires what its release has stored.
        self.is_held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    fn acquire_later(&self) {
        loop {
            for _ in 0..SPINS {
                if !self.is_held.load(Ordering::Relaxed) && self.try_acquire() {
                    return;
                }
                spin_loop();
            }
            if self.sleep() {
                return;
            }
        }
    }

    #[inline]
    fn release(&self) {
        self.is_held.store(false, Ordering::Release);
        if self.is_awaited.load(Ordering::Relaxed) {
            self.wake_one();
        }
    }

    /// Sleeps until it is worth trying again. Whether the lock has been acquired instead.
    fn sleep(&self) -> bool {
        let mut sleepers = self.sleepers();
        *sleepers += 1;
        self.is_awaited.store(true, Ordering::SeqCst);
        // Whoever has released it until now had nobody to wake. Whoever does so from now on has, and waits for `sleepers`.
        let acquired = self.try_acquire();
        if !acquired {
            let woken = self.woken.wait_timeout(sleepers, NAP);
            (sleepers, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        *sleepers -= 1;
        self.is_awaited.store(*sleepers > 0, Ordering::SeqCst);
        acquired
    }

    #[cold]
    #[inline(never)]
    fn wake_one(&self) {
        let _sleepers = self.sleepers();
        self.is_awaited.store(false, Ordering::SeqCst);
        self.woken.notify_one();
    }

    fn sleepers(&self) -> MutexGuard<'_, usize> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Guard<'_, T> {
    /// As to drop it, for who has come to the end of its use: since nothing has panicked, it is not asked for. Each instruction between
    /// the memory that one look-up waits for and what the next one asks for counts, as processors look only so far ahead.
    #[inline]
    pub(crate) fn release(self) {
        self.lock.release();
        std::mem::forget(self);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever has a guard has acquired the lock and not yet released it, so nobody else has one. The reference
        // lives no longer than the guard is borrowed.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and the guard is borrowed mutably, so there is no other reference by it.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.was_panicking && panicking() {
            self.lock.is_poisoned.store(true, Ordering::Relaxed);
        }
        self.lock.release();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::PoisonError;
    use std::thread;

    use super::*;

    const MANY: usize = if cfg!(miri) { 100 } else { 20_000 };

    /// Waits until so many threads sleep.
    fn wait_for_sleepers<T>(lock: &Lock<T>, number: usize) {
        while *lock.sleepers() < number {
            thread::yield_now();
        }
    }

    #[test]
    fn one_thread_at_a_time_has_it() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..MANY {
                        let mut number = lock.lock().expect("no panic");
                        let before = *number;
                        // Time for others to get in, if they could.
                        spin_loop();
                        *number = before + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock().expect("no panic"), 8 * MANY);
    }

    #[test]
    fn who_sleeps_gets_it_in_the_end() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            let guard = lock.lock().expect("no panic");
            for _ in 0..4 {
                scope.spawn(|| *lock.lock().expect("no panic") += 1);
            }
            wait_for_sleepers(&lock, 4);
            assert_eq!(*guard, 0, "nobody else has had it");
        });
        assert_eq!(*lock.lock().expect("no panic"), 4);
    }

    #[test]
    fn who_was_overlooked_wakes_up_nevertheless() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            let guard = lock.lock().expect("no panic");
            let sleeper = scope.spawn(|| *lock.lock().expect("no panic") += 1);
            wait_for_sleepers(&lock, 1);
            // As if the look had been taken too early.
            lock.is_awaited.store(false, Ordering::SeqCst);
            drop(guard);
            sleeper.join().expect("no panic");
        });
        assert_eq!(*lock.lock().expect("no panic"), 1);
        assert_eq!(*lock.sleepers(), 0, "whoever is awake is no sleeper");
    }

    #[test]
    fn a_panic_poisons_it_until_somebody_says_that_all_is_well() {
        let lock = Lock::new(0);
        let panics = || {
            let mut number = lock.lock().expect("not yet");
            *number = 1;
            panic!("with the lock");
        };
        catch_unwind(AssertUnwindSafe(panics)).expect_err("a panic");
        for _ in 0..2 {
            assert!(lock.lock().is_err(), "it stays so");
        }
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*guard, 1, "what it holds is there");
        lock.clear_poison();
        drop(guard);
        assert!(lock.lock().is_ok(), "all is well");
    }

    #[test]
    fn who_only_uses_it_while_a_panic_passes_does_not_poison_it() {
        struct Uses<'a>(&'a Lock<u32>);

        impl Drop for Uses<'_> {
            fn drop(&mut self) {
                *self.0.lock().expect("not poisoned") += 1;
            }
        }

        let lock = Lock::new(0);
        let panics = || {
            let _uses = Uses(&lock);
            panic!("without the lock");
        };
        catch_unwind(AssertUnwindSafe(panics)).expect_err("a panic");
        assert_eq!(*lock.lock().expect("not poisoned"), 1);
    }
}
