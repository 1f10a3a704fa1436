//! Points at even distances, the newest so many of them.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use super::{Point, Sample, Step};

/// The newest points of one step, numbered from the start on.
pub(super) struct Ring {
    step: Step,
    points: VecDeque<Point>,
    /// The number of the point that comes next.
    next: u64,
    /// Where the interval under way began.
    begun: Option<Sample>,
}

impl Ring {
    pub(super) fn new(step: Step) -> Self {
        Self { step, points: VecDeque::with_capacity(step.points()), next: 0, begun: None }
    }

    /// Ends the interval under way where it has lasted as long as a step.
    pub(super) fn take(&mut self, sample: &Sample) {
        if let Some(begun) = &self.begun {
            let lasted = sample.uptime.saturating_sub(begun.uptime);
            // Samples come a little early or late: within half a second they are meant.
            if lasted + Duration::from_millis(500) < self.step.duration() {
                return;
            }
            if self.points.len() == self.step.points() {
                self.points.pop_front();
            }
            self.points.push_back(point(begun, sample, lasted));
            self.next += 1;
        }
        self.begun = Some(sample.clone());
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The points from this number on; all that are left where it is not among them.
    pub(super) fn since(&self, number: u64) -> Vec<Point> {
        let missed = self.next.checked_sub(number).and_then(|count| usize::try_from(count).ok());
        let wanted = missed.unwrap_or(usize::MAX).min(self.points.len());
        self.points.range(self.points.len() - wanted..).copied().collect()
    }
}

/// What happened between two samples, and how it was at the end.
fn point(begun: &Sample, ended: &Sample, lasted: Duration) -> Point {
    let (before, after) = (&begun.store.counters, &ended.store.counters);
    let counted = |now: u64, then: u64| narrow(now.saturating_sub(then));
    let rejected = |counters: &engine::Counters| counters.rejected_oversize + counters.rejected_capacity;
    let requests = match (&begun.latency, &ended.latency) {
        (Some(begun), Some(ended)) => Some(ended.since(begun)),
        _ => None,
    };
    let ages = match (&begun.eviction_age, &ended.eviction_age) {
        (Some(begun), Some(ended)) => Some(ended.since(begun)),
        _ => None,
    };
    let latency = |quantile| requests.as_ref().and_then(|requests| requests.quantile(quantile));
    let end = ended.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Point {
        end_ms: u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
        lasted_ms: u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX),
        hits: counted(after.hits, before.hits),
        misses: counted(after.misses, before.misses),
        evictions: counted(after.evictions, before.evictions),
        expired: counted(after.expired, before.expired),
        rejected: counted(rejected(after), rejected(before)),
        requests: requests.as_ref().map(|requests| narrow(requests.count())),
        latency_p50: latency(0.5).map(coarse),
        latency_p99: latency(0.99).map(coarse),
        eviction_age_p50: ages.and_then(|ages| ages.quantile(0.5)).map(coarse),
        active_requests: narrow(ended.active_requests),
        entries: after.entries,
        memory_bytes: after.memory_bytes,
    }
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "an estimate within a bucket has few true digits")]
const fn coarse(seconds: f64) -> f32 {
    seconds as f32
}
