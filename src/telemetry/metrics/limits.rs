//! What the configuration allows, so that a query can hold what is in use against it.

use engine::Limits;
use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Source::Gauges;
use super::catalogue::{Metric, Observe};

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "tiny_cache.limit",
    unit: "",
    description: "What the configuration allows, by the name of its key: a count, or bytes.",
    source: Gauges(limits),
}];

fn limits(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    let Limits { max_items, max_memory_bytes, max_value_bytes } = snapshot.store.limits;
    let of_store = [
        ("max_items", max_items),
        ("max_memory", Some(max_memory_bytes)),
        ("max_value", Some(max_value_bytes)),
    ];
    for (limit, value) in of_store {
        if let Some(value) = value {
            observe(value, &[KeyValue::new("limit", limit)]);
        }
    }
    for transport in &snapshot.transports {
        for (limit, value) in &transport.limits {
            let labels = [KeyValue::new("transport", transport.kind), KeyValue::new("limit", *limit)];
            observe(*value, &labels);
        }
    }
}
