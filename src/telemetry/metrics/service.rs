//! What the service does: requests in flight, and operations on keys.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::KeyValue;

use super::catalogue::Metric;
use super::catalogue::Source::{Counters, Gauge, Measure};
use super::{Snapshot, catalogue::Observe};
use crate::telemetry::operations::OperationCount;

/// Figures of the service, in a snapshot.
#[derive(Clone, Debug, Default)]
pub struct ServiceFigures {
    /// gRPC requests in flight.
    pub active_requests: u64,
    /// Keys that were none, by reason.
    pub rejected_keys: BTreeMap<&'static str, u64>,
    /// Time since the start.
    pub uptime: Duration,
    /// Tasks of the runtime that have not ended.
    pub runtime_tasks: u64,
    /// What became of operations.
    pub operations: Vec<OperationCount>,
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "tiny_cache.active_requests",
        unit: "{request}",
        description: "gRPC requests in flight.",
        source: Gauge(|s| s.service.active_requests),
    },
    Metric {
        name: "tiny_cache.uptime",
        unit: "s",
        description: "Time since the start.",
        source: Measure(|s| s.service.uptime.as_secs_f64()),
    },
    Metric {
        name: "tiny_cache.runtime_tasks",
        unit: "{task}",
        description: "Tasks of the runtime that have not ended.",
        source: Gauge(|s| s.service.runtime_tasks),
    },
    Metric {
        name: "tiny_cache.operations",
        unit: "{operation}",
        description: "Operations on keys by kind and result; each key of a batch is one.",
        source: Counters(operations),
    },
    Metric {
        name: "tiny_cache.rejected_keys",
        unit: "{key}",
        description: "Keys that are none, by reason; each key of a batch is one.",
        source: Counters(|s, observe| {
            for (reason, count) in &s.service.rejected_keys {
                observe(*count, &[KeyValue::new("reason", *reason)]);
            }
        }),
    },
];

fn operations(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    for OperationCount { kind, result, namespace, count } in &snapshot.service.operations {
        let labels = [KeyValue::new("operation", kind.name()), KeyValue::new("result", result.name())];
        match namespace {
            None => observe(*count, &labels),
            Some(namespace) => {
                let [operation, result] = labels;
                observe(*count, &[operation, result, KeyValue::new("namespace", namespace.clone())]);
            }
        }
    }
}
