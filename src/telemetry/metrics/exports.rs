//! Telemetry about telemetry: what was handed on, and what was lost.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Source::Counters;
use super::catalogue::{Metric, Observe};
use crate::config::Signal;

/// Counts exports and losses. Shared by everything that hands telemetry on: by the exporters, and by the log and the access log,
/// which can only lose lines.
#[derive(Debug, Default)]
pub struct ExportCounters {
    succeeded: [AtomicU64; Signal::ALL.len()],
    failed: [AtomicU64; Signal::ALL.len()],
    dropped: [AtomicU64; Signal::ALL.len()],
    lost_lines: AtomicU64,
    lost_log_lines: AtomicU64,
}

impl ExportCounters {
    /// One attempt to hand on has ended.
    pub fn exported(&self, signal: Signal, succeeded: bool) {
        let counters = if succeeded { &self.succeeded } else { &self.failed };
        counters[signal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many spans or records will never be handed on.
    pub fn dropped(&self, signal: Signal, count: u64) {
        self.dropped[signal as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// So many lines of the access log will never be written.
    pub fn lose_lines(&self, count: u64) {
        self.lost_lines.fetch_add(count, Ordering::Relaxed);
    }

    /// How many lines of the access log have been lost so far.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Ordering::Relaxed)
    }

    /// So many lines of the log will never be written to standard error.
    pub fn lose_log_lines(&self, count: u64) {
        self.lost_log_lines.fetch_add(count, Ordering::Relaxed);
    }

    /// How many lines of the log have been lost so far.
    #[must_use]
    pub fn lost_log_lines(&self) -> u64 {
        self.lost_log_lines.load(Ordering::Relaxed)
    }

    /// The figures so far.
    #[must_use]
    pub fn figures(&self) -> ExportFigures {
        let read = |counters: &[AtomicU64; Signal::ALL.len()]| {
            std::array::from_fn(|signal| counters[signal].load(Ordering::Relaxed))
        };
        ExportFigures {
            succeeded: read(&self.succeeded),
            failed: read(&self.failed),
            dropped: read(&self.dropped),
            lost_lines: self.lost_lines(),
            lost_log_lines: self.lost_log_lines(),
        }
    }
}

/// What became of telemetry, in a snapshot: three figures per signal, and one each of the log and the access log.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportFigures {
    succeeded: [u64; Signal::ALL.len()],
    failed: [u64; Signal::ALL.len()],
    dropped: [u64; Signal::ALL.len()],
    lost_lines: u64,
    lost_log_lines: u64,
}

impl ExportFigures {
    /// Exports of a signal that succeeded, those that failed, and what was dropped.
    #[must_use]
    pub const fn of(&self, signal: Signal) -> [u64; 3] {
        let signal = signal as usize;
        [self.succeeded[signal], self.failed[signal], self.dropped[signal]]
    }
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "tiny_cache.telemetry.exports",
        unit: "{export}",
        description: "Attempts to push telemetry to a collector, by their result.",
        source: Counters(exports),
    },
    Metric {
        name: "tiny_cache.telemetry.dropped",
        unit: "{item}",
        description: "Spans, log records and lines of the log and the access log lost, since a queue was full or an export failed.",
        source: Counters(dropped),
    },
];

fn exports(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    for signal in Signal::ALL {
        let [succeeded, failed, _] = snapshot.exports.of(signal);
        for (result, count) in [("ok", succeeded), ("failed", failed)] {
            observe(count, &[KeyValue::new("signal", signal.name()), KeyValue::new("result", result)]);
        }
    }
}

fn dropped(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    // Metrics are no items that could be counted: the next push tells the same and more, unless it tells differences.
    for signal in [Signal::Traces, Signal::Logs] {
        let [.., dropped] = snapshot.exports.of(signal);
        observe(dropped, &[KeyValue::new("signal", signal.name())]);
    }
    observe(snapshot.exports.lost_lines, &[KeyValue::new("signal", "access_log")]);
    observe(snapshot.exports.lost_log_lines, &[KeyValue::new("signal", "standard_error")]);
}
