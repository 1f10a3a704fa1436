//! Log lines that somebody else can cause, at a rate that they cannot.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through per interval and counts the others.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    kept_back: u64,
}

impl Throttle {
    /// One line per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Whether a line may be written now, and how many were kept back since the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|at| at.elapsed() < self.interval) {
            state.kept_back += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_passes_and_tells_how_many_did_not() {
        let rare = Throttle::new(Duration::from_secs(3600));
        assert_eq!([rare.pass(), rare.pass(), rare.pass()], [Some(0), None, None]);
        rare.state.lock().unwrap().last = None;
        assert_eq!(rare.pass(), Some(2));
        let free = Throttle::new(Duration::ZERO);
        assert_eq!([free.pass(), free.pass()], [Some(0), Some(0)]);
    }
}
