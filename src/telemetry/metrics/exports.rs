//! Telemetry about telemetry: what was handed on, and what was lost.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Source::Counters;
use super::catalogue::{Metric, Observe};

/// What is handed on to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Metrics, pushed.
    Metrics,
    /// Spans.
    Traces,
    /// Log records, pushed.
    Logs,
    /// Lines of the access log.
    AccessLog,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Metrics, Self::Traces, Self::Logs, Self::AccessLog];

    /// As the label has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::AccessLog => "access_log",
        }
    }
}

/// Counts exports and losses. Shared by everything that hands telemetry on.
#[derive(Debug, Default)]
pub struct ExportCounters {
    succeeded: [AtomicU64; Signal::ALL.len()],
    failed: [AtomicU64; Signal::ALL.len()],
    dropped: [AtomicU64; Signal::ALL.len()],
}

impl ExportCounters {
    /// One attempt to hand on has ended.
    pub fn exported(&self, signal: Signal, succeeded: bool) {
        let counters = if succeeded { &self.succeeded } else { &self.failed };
        counters[signal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many spans, records or lines will never be handed on.
    pub fn dropped(&self, signal: Signal, count: u64) {
        self.dropped[signal as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How many spans, records or lines have been lost so far.
    #[must_use]
    pub fn dropped_so_far(&self, signal: Signal) -> u64 {
        self.dropped[signal as usize].load(Ordering::Relaxed)
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
        }
    }
}

/// What became of telemetry, in a snapshot: one figure per signal.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportFigures {
    succeeded: [u64; Signal::ALL.len()],
    failed: [u64; Signal::ALL.len()],
    dropped: [u64; Signal::ALL.len()],
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
        description: "Spans, log records and access log lines lost, since a queue was full or an export failed.",
        source: Counters(dropped),
    },
];

fn exports(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    let figures = &snapshot.exports;
    for signal in [Signal::Metrics, Signal::Traces, Signal::Logs] {
        for (result, counts) in [("ok", &figures.succeeded), ("failed", &figures.failed)] {
            let labels = [KeyValue::new("signal", signal.name()), KeyValue::new("result", result)];
            observe(counts[signal as usize], &labels);
        }
    }
}

fn dropped(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    // Metrics that could not be pushed are not lost: the next push has them.
    for signal in [Signal::Traces, Signal::Logs, Signal::AccessLog] {
        observe(snapshot.exports.dropped[signal as usize], &[KeyValue::new("signal", signal.name())]);
    }
}
