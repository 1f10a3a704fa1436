//! What became of configurations that were read again.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Metric;
use super::catalogue::Source::Counters;

/// Counts how often the configuration was read again.
#[derive(Debug, Default)]
pub struct ConfigReloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl ConfigReloads {
    /// An attempt has ended.
    pub fn ended(&self, succeeded: bool) {
        let counter = if succeeded { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The figures so far.
    #[must_use]
    pub fn figures(&self) -> ConfigReloadFigures {
        ConfigReloadFigures {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// How often the configuration was read again, in a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigReloadFigures {
    /// It is in force, but for what needs a restart.
    pub succeeded: u64,
    /// It was wrong or could not be applied; the one before stays.
    pub failed: u64,
}

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "tiny_cache.config_reloads",
    unit: "{reload}",
    description: "Times that the configuration was read again, by the result.",
    source: Counters(|snapshot: &Snapshot, observe| {
        let ConfigReloadFigures { succeeded, failed } = snapshot.config;
        for (result, count) in [("ok", succeeded), ("failed", failed)] {
            observe(count, &[KeyValue::new("result", result)]);
        }
    }),
}];
