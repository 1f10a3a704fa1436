//! `GET /history`: what the status page draws, and any script may read.

use std::time::Duration;

use serde::Serialize;

use crate::telemetry::history::{Point, Step, View};

use super::super::answers::unix_seconds;

/// Which points are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) step: Step,
    pub(super) since: u64,
}

impl Query {
    /// Reads `step=1|30` and `since=<number>`; both may be missing, anything else is passed over.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let mut parsed = Self { step: Step::Second, since: 0 };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "step" => {
                    let seconds = value.parse();
                    let step = Step::ALL.into_iter().find(|step| Ok(step.seconds()) == seconds);
                    parsed.step = step.ok_or("step must be 1 or 30")?;
                }
                "since" => {
                    parsed.since =
                        value.parse().map_err(|_| "since must be a whole number, as next told it")?;
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// The answer. The points come as columns: a name once instead of once a point.
#[derive(Serialize)]
pub(super) struct History {
    service: &'static str,
    version: &'static str,
    status: &'static str,
    timestamp: f64,
    uptime_seconds: f64,
    active_requests: u64,
    #[serde(flatten)]
    store: Option<Figures>,
    step_seconds: u32,
    next: u64,
    columns: Columns,
}

/// The store as it answered last, and what it has counted since the start.
#[derive(Serialize)]
struct Figures {
    policy: &'static str,
    store: &'static str,
    shards: usize,
    /// `null`: no limit.
    max_entries: Option<u64>,
    max_memory_bytes: u64,
    max_value_bytes: u64,
    entries: u64,
    memory_usage_bytes: u64,
    hits_total: u64,
    misses_total: u64,
    evictions_total: u64,
    expired_removals_total: u64,
    rejected_oversize_total: u64,
    rejected_capacity_total: u64,
    rejected_admission_total: u64,
}

#[derive(Serialize)]
struct Columns {
    time: Vec<f64>,
    seconds: Vec<f64>,
    hits: Vec<u32>,
    misses: Vec<u32>,
    evictions: Vec<u32>,
    expired_removals: Vec<u32>,
    rejected_writes: Vec<u32>,
    requests: Vec<Option<u32>>,
    latency_p50_seconds: Vec<Option<f32>>,
    latency_p99_seconds: Vec<Option<f32>>,
    eviction_age_p50_seconds: Vec<Option<f32>>,
    active_requests: Vec<u32>,
    entries: Vec<u64>,
    memory_usage_bytes: Vec<u64>,
}

impl History {
    pub(super) fn new(
        view: View,
        step: Step,
        uptime: Duration,
        active_requests: u64,
        draining: bool,
    ) -> Self {
        let status = match (draining, view.store_answers) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "the store does not answer",
        };
        Self {
            service: "tiny-cache",
            version: env!("CARGO_PKG_VERSION"),
            status,
            timestamp: unix_seconds(),
            uptime_seconds: uptime.as_secs_f64(),
            active_requests,
            store: view.store.map(|store| Figures {
                policy: store.policy,
                store: store.store,
                shards: store.shards,
                max_entries: store.limits.max_items,
                max_memory_bytes: store.limits.max_memory_bytes,
                max_value_bytes: store.limits.max_value_bytes,
                entries: store.counters.entries,
                memory_usage_bytes: store.counters.memory_bytes,
                hits_total: store.counters.hits,
                misses_total: store.counters.misses,
                evictions_total: store.counters.evictions,
                expired_removals_total: store.counters.expired,
                rejected_oversize_total: store.counters.rejected_oversize,
                rejected_capacity_total: store.counters.rejected_capacity,
                rejected_admission_total: store.counters.rejected_admission,
            }),
            step_seconds: step.seconds(),
            next: view.next,
            columns: Columns::new(&view.points),
        }
    }
}

impl Columns {
    fn new(points: &[Point]) -> Self {
        fn column<T>(points: &[Point], value: impl Fn(&Point) -> T) -> Vec<T> {
            points.iter().map(value).collect()
        }
        Self {
            time: column(points, |point| Duration::from_millis(point.end_ms).as_secs_f64()),
            seconds: column(points, |point| f64::from(point.lasted_ms) / 1000.0),
            hits: column(points, |point| point.hits),
            misses: column(points, |point| point.misses),
            evictions: column(points, |point| point.evictions),
            expired_removals: column(points, |point| point.expired),
            rejected_writes: column(points, |point| point.rejected),
            requests: column(points, |point| point.requests),
            latency_p50_seconds: column(points, |point| point.latency_p50),
            latency_p99_seconds: column(points, |point| point.latency_p99),
            eviction_age_p50_seconds: column(points, |point| point.eviction_age_p50),
            active_requests: column(points, |point| point.active_requests),
            entries: column(points, |point| point.entries),
            memory_usage_bytes: column(points, |point| point.memory_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_a_step_and_where_to_go_on() {
        for (query, step, since) in [
            ("", Step::Second, 0),
            ("step=1", Step::Second, 0),
            ("step=30", Step::HalfMinute, 0),
            ("since=7&step=30", Step::HalfMinute, 7),
            ("step=1&since=18446744073709551615", Step::Second, u64::MAX),
            ("other=x&flag&=", Step::Second, 0),
        ] {
            assert_eq!(Query::parse(query), Ok(Query { step, since }), "{query}");
        }
        for query in ["step=", "step=2", "step=1s", "step=1&step=x", "step=-1"] {
            assert_eq!(Query::parse(query), Err("step must be 1 or 30"), "{query}");
        }
        for query in ["since=", "since=-1", "since=1.5", "since=18446744073709551616"] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
    }
}
