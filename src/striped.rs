//! One value per thread that is busy with requests, so that counting costs no trip between cores.
//!
//! A counter that all threads add to is one cache line that travels from core to core with every request. Here every
//! thread adds to a stripe of its own (threads share one only where there are more of them than stripes), and who reads,
//! which is rare, looks at all of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Neighbours do not share what a core fetches: two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A value for each thread, or for few of them.
#[derive(Debug)]
pub(crate) struct Striped<T> {
    /// A power of two of them.
    stripes: Box<[Padded<T>]>,
}

/// Numbers threads in the order in which they first ask.
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn thread_number() -> usize {
    THREAD.with(|thread| {
        thread.get().unwrap_or_else(|| {
            let number = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
            thread.set(Some(number));
            number
        })
    })
}

impl<T> Striped<T> {
    /// As many stripes as there are processors, or a few more; each made by `make`.
    pub(crate) fn new(make: impl FnMut() -> T) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = threads.next_power_of_two().min(64);
        Self { stripes: std::iter::repeat_with(make).take(stripes).map(Padded).collect() }
    }

    /// The calling thread's. Others may be using it too.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        &self.stripes[thread_number() & (self.stripes.len() - 1)].0
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.stripes.iter().map(|Padded(stripe)| stripe)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_however_many_threads_add() {
        let counters = Striped::new(AtomicU64::default);
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counters.mine().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let total: u64 = counters.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum();
        assert_eq!(total, 50 * 100);
    }

    #[test]
    fn a_thread_stays_with_its_stripe() {
        let stripes = Striped::new(|| ());
        assert!(std::ptr::eq(stripes.mine(), stripes.mine()));
        assert!(stripes.iter().count().is_power_of_two());
    }
}
