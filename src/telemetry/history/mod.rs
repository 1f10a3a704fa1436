//! The server's own figures of the last hours, so that who opens the status page sees the past at once.
//!
//! One sample a second goes into two rings: every second of the last five minutes, and every half minute of the
//! last six hours. They hold 1,020 points of 88 bytes, whatever happens and however long the server runs. A point
//! tells what happened between two samples. All of that is counted anyway, but for [`Durations`]: those are for it alone.

mod distribution;
mod durations;
mod ring;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use engine::StoreStats;

pub use distribution::Distribution;
pub use durations::Durations;
use ring::Ring;

/// How far apart points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The last five minutes.
    Second,
    /// The last six hours.
    HalfMinute,
}

impl Step {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Second, Self::HalfMinute];

    /// In whole seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::HalfMinute => 30,
        }
    }

    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds() as u64)
    }

    /// How many points are kept.
    const fn points(self) -> usize {
        match self {
            Self::Second => 300,
            Self::HalfMinute => 720,
        }
    }
}

/// Everything there is to know at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was taken, on the clock on the wall.
    pub time: SystemTime,
    /// When it was taken, on a clock that never jumps.
    pub uptime: Duration,
    /// The store's counters and limits.
    pub store: StoreStats,
    /// gRPC requests in flight.
    pub active_requests: u64,
    /// How long gRPC requests took; `None` where nobody measures.
    pub latency: Option<Distribution>,
    /// How old entries were when they were evicted; `None` where nobody measures.
    pub eviction_age: Option<Distribution>,
}

/// What happened within one interval, and how it was at its end. Counts stop at 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The end, in milliseconds since 1970.
    pub end_ms: u64,
    /// How long the interval was: longer than a step where the server or its store was held up.
    pub lasted_ms: u32,
    /// Reads that found a live entry.
    pub hits: u32,
    /// Reads that did not.
    pub misses: u32,
    /// Entries removed for room.
    pub evictions: u32,
    /// Entries removed for age.
    pub expired: u32,
    /// Writes refused: too large, or no room to be made.
    pub rejected: u32,
    /// gRPC requests answered; `None` where nobody counts them.
    pub requests: Option<u32>,
    /// What half of the requests took at most, in seconds; `None` where there were none.
    pub latency_p50: Option<f32>,
    /// What 99 of 100 requests took at most, in seconds.
    pub latency_p99: Option<f32>,
    /// What half of the evicted entries were at most old, in seconds.
    pub eviction_age_p50: Option<f32>,
    /// gRPC requests in flight.
    pub active_requests: u32,
    /// Resident entries.
    pub entries: u64,
    /// Bytes charged to them.
    pub memory_bytes: u64,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub struct View {
    /// The store as it was when it answered last; `None` before that.
    pub store: Option<StoreStats>,
    /// Whether it answered when it was asked last.
    pub store_answers: bool,
    /// The number of the point that comes next.
    pub next: u64,
    /// The points asked for, the oldest first.
    pub points: Vec<Point>,
}

/// The rings. Whoever samples writes, whoever asks reads.
pub struct History {
    state: Mutex<State>,
}

struct State {
    rings: [Ring; 2],
    store: Option<StoreStats>,
    store_answers: bool,
}

impl Default for History {
    fn default() -> Self {
        let rings = Step::ALL.map(Ring::new);
        Self { state: Mutex::new(State { rings, store: None, store_answers: true }) }
    }
}

impl History {
    /// Takes a sample in. To be called once a second, in order of time.
    pub fn record(&self, sample: &Sample) {
        let mut state = self.lock();
        state.rings.iter_mut().for_each(|ring| ring.take(sample));
        state.store = Some(sample.store.clone());
        state.store_answers = true;
    }

    /// Notes that there is no sample since the store did not answer. The next point covers that time too.
    pub fn miss(&self) {
        self.lock().store_answers = false;
    }

    /// The points of a step from the number `since` on, as [`View::next`] told it; all of them where that is zero
    /// or unknown.
    #[must_use]
    pub fn read(&self, step: Step, since: u64) -> View {
        let state = self.lock();
        let ring = &state.rings[step as usize];
        View {
            store: state.store.clone(),
            store_answers: state.store_answers,
            next: ring.next(),
            points: ring.since(since),
        }
    }

    /// Nothing is left half done under this lock, so a panic under it does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
