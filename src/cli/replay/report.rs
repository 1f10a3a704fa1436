//! What a replay measured, and how it is printed.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::output::{grouped, table};

const LONGEST_MICROSECONDS: u64 = 3_600_000_000;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Counts and latencies, of one worker or of all.
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Calls that failed, of either kind.
    pub(super) errors: u64,
    /// Gets that failed; they are requests, too, but neither hits nor misses.
    pub(super) failed_gets: u64,
    pub(super) gets: Latencies,
    pub(super) sets: Latencies,
}

/// How long calls took.
pub(super) struct Latencies(Histogram<u64>);

/// Right-aligned columns of ten characters.
fn row(columns: impl Iterator<Item = impl std::fmt::Display>) -> String {
    columns.fold(String::new(), |row, column| format!("{row}{column:>10}"))
}

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_MICROSECONDS, 3).expect("the bounds are in range"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_MICROSECONDS).max(1));
    }

    fn row(&self) -> String {
        let columns = QUANTILES.iter().map(|&(_, quantile)| self.0.value_at_quantile(quantile));
        row(columns.chain([self.0.max()]).map(grouped))
    }

    fn json(&self) -> Value {
        let mut object = json!({ "count": self.0.len(), "max": self.0.max() });
        for (name, quantile) in QUANTILES {
            object[name] = self.0.value_at_quantile(quantile).into();
        }
        object
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        let (gets, sets) = (Latencies::new(), Latencies::new());
        Self { hits: 0, misses: 0, errors: 0, failed_gets: 0, gets, sets }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.errors += other.errors;
        self.failed_gets += other.failed_gets;
        self.gets.0 += &other.gets.0;
        self.sets.0 += &other.sets.0;
    }

    /// Records of the trace that were played.
    pub(super) fn requests(&self) -> u64 {
        self.hits + self.misses + self.failed_gets
    }
}

/// The result of a replay.
pub(super) struct Report {
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "a ratio and a rate are for reading")]
    fn rates(&self) -> (f64, f64) {
        let tally = &self.tally;
        let hit_ratio = tally.hits as f64 / ((tally.hits + tally.misses) as f64).max(1.0);
        let throughput = tally.requests() as f64 / self.elapsed.as_secs_f64().max(1e-9);
        (hit_ratio, throughput)
    }

    pub(super) fn text(&self) -> String {
        let (hit_ratio, throughput) = self.rates();
        let header = row(QUANTILES.iter().map(|&(name, _)| name).chain(["max"]));
        table(&[
            ("requests", grouped(self.tally.requests())),
            ("hits", grouped(self.tally.hits)),
            ("misses", grouped(self.tally.misses)),
            ("hit ratio", format!("{hit_ratio:.6}")),
            ("errors", grouped(self.tally.errors)),
            ("seconds", format!("{:.3}", self.elapsed.as_secs_f64())),
            ("throughput", format!("{throughput:.0} req/s")),
            ("latency, µs", header),
            ("  get", self.tally.gets.row()),
            ("  set", self.tally.sets.row()),
        ])
    }

    pub(super) fn json(&self) -> Value {
        let (hit_ratio, throughput) = self.rates();
        json!({
            "requests": self.tally.requests(),
            "hits": self.tally.hits,
            "misses": self.tally.misses,
            "hit_ratio": hit_ratio,
            "errors": self.tally.errors,
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": throughput,
            "latency_microseconds": { "get": self.tally.gets.json(), "set": self.tally.sets.json() },
        })
    }
}
