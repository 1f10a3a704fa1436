//! How clients reach the cache: connections, TLS, bytes, and what is refused before it is an operation.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Source::{Counter, Counters, Gauges};
use super::catalogue::{Metric, Observe};

/// How often certificates, or bearer tokens, were read again, over all listeners.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileReloads {
    /// Newer ones were taken into use.
    pub done: u64,
    /// Newer ones could not be used.
    pub failed: u64,
}

/// Figures of all transports of one kind, in a snapshot.
#[derive(Clone, Debug, Default)]
pub struct TransportFigures {
    /// "grpc", "http".
    pub kind: &'static str,
    /// Connections being served.
    pub open: u64,
    /// Connections ever taken on.
    pub accepted: u64,
    /// Connections that were not taken on, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections asked to go away for their age.
    pub age_closed: u64,
    /// TLS handshakes that failed.
    pub handshake_failures: u64,
    /// When the first of the certificates in use expires, in Unix seconds; `None` without TLS.
    pub certificate_expiry: Option<u64>,
    /// Bytes read from clients, as they were on the wire.
    pub received_bytes: u64,
    /// Bytes written to clients, as they were on the wire.
    pub sent_bytes: u64,
    /// Requests that wait.
    pub in_flight: u64,
    /// Bytes of messages and answers that are charged.
    pub in_flight_bytes: u64,
    /// Bytes that connections hold for clients that do not take them.
    pub untaken_bytes: u64,
    /// Requests that were refused before they came to anything, by reason.
    pub requests_refused: BTreeMap<&'static str, u64>,
    /// Request ids that were not taken over from their callers.
    pub request_ids_replaced: u64,
    /// What is configured, by the name of the key.
    pub limits: BTreeMap<&'static str, u64>,
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "tiny_cache.connections.open",
        unit: "{connection}",
        description: "Connections being served, their TLS handshakes included.",
        source: Gauges(|s, observe| each(s, observe, |transport| Some(transport.open))),
    },
    Metric {
        name: "tiny_cache.connections.accepted",
        unit: "{connection}",
        description: "Connections taken on.",
        source: Counters(|s, observe| each(s, observe, |transport| Some(transport.accepted))),
    },
    Metric {
        name: "tiny_cache.connections.refused",
        unit: "{connection}",
        description: "Connections not served, and failures to accept one, by reason.",
        source: Counters(|s, observe| by_reason(s, observe, |transport| &transport.refused)),
    },
    Metric {
        name: "tiny_cache.connections.age_closed",
        unit: "{connection}",
        description: "Connections asked to go away since they reached max_connection_age.",
        source: Counters(|s, observe| each(s, observe, |transport| Some(transport.age_closed))),
    },
    Metric {
        name: "tiny_cache.tls.handshake_failures",
        unit: "{handshake}",
        description: "TLS handshakes that failed or took too long.",
        source: Counters(|s, observe| each(s, observe, |transport| Some(transport.handshake_failures))),
    },
    Metric {
        name: "tiny_cache.tls.certificate_expiry",
        unit: "s",
        description: "When the first of the certificates in use expires, in seconds since 1970.",
        source: Gauges(|s, observe| each(s, observe, |transport| transport.certificate_expiry)),
    },
    Metric {
        name: "tiny_cache.io",
        unit: "By",
        description: "Bytes read from and written to clients, as they were on the wire.",
        source: Counters(io),
    },
    Metric {
        name: "tiny_cache.requests.in_flight",
        unit: "{request}",
        description: "Requests that could not be answered at once.",
        source: Gauges(|s, observe| each(s, observe, |transport| Some(transport.in_flight))),
    },
    Metric {
        name: "tiny_cache.requests.held",
        unit: "By",
        description: "Bytes of requests being gathered and of answers that have not left.",
        source: Gauges(|s, observe| each(s, observe, |transport| Some(transport.in_flight_bytes))),
    },
    Metric {
        name: "tiny_cache.requests.untaken",
        unit: "By",
        description: "Bytes that connections hold of requests that are about to be answered and of answers that their clients do not take.",
        source: Gauges(|s, observe| each(s, observe, |transport| Some(transport.untaken_bytes))),
    },
    Metric {
        name: "tiny_cache.requests_refused",
        unit: "{request}",
        description: "Requests refused before they came to anything, by reason.",
        source: Counters(|s, observe| by_reason(s, observe, |transport| &transport.requests_refused)),
    },
    Metric {
        name: "tiny_cache.request_ids_replaced",
        unit: "{request}",
        description: "Requests whose x-request-id was too long, or had characters that do not belong there, and got another.",
        source: Counters(|s, observe| each(s, observe, |transport| Some(transport.request_ids_replaced))),
    },
    Metric {
        name: "tiny_cache.tls_reloads",
        unit: "{reload}",
        description: "Times that newer TLS certificates were taken into use.",
        source: Counter(|s| s.tls.done),
    },
    Metric {
        name: "tiny_cache.tls_reload_failures",
        unit: "{reload}",
        description: "Times that newer TLS certificates could not be used and the old ones stayed.",
        source: Counter(|s| s.tls.failed),
    },
    Metric {
        name: "tiny_cache.token_reloads",
        unit: "{reload}",
        description: "Times that bearer tokens were read again, by the result.",
        source: Counters(|s, observe| {
            for (result, count) in [("ok", s.tokens.done), ("failed", s.tokens.failed)] {
                observe(count, &[KeyValue::new("result", result)]);
            }
        }),
    },
];

fn each(snapshot: &Snapshot, observe: &mut Observe<'_, u64>, value: fn(&TransportFigures) -> Option<u64>) {
    for transport in &snapshot.transports {
        if let Some(value) = value(transport) {
            observe(value, &[KeyValue::new("transport", transport.kind)]);
        }
    }
}

fn by_reason(
    snapshot: &Snapshot,
    observe: &mut Observe<'_, u64>,
    values: fn(&TransportFigures) -> &BTreeMap<&'static str, u64>,
) {
    for transport in &snapshot.transports {
        for (reason, count) in values(transport) {
            observe(*count, &[KeyValue::new("transport", transport.kind), KeyValue::new("reason", *reason)]);
        }
    }
}

fn io(snapshot: &Snapshot, observe: &mut Observe<'_, u64>) {
    for transport in &snapshot.transports {
        for (direction, bytes) in [("received", transport.received_bytes), ("sent", transport.sent_bytes)] {
            let transport = KeyValue::new("transport", transport.kind);
            observe(bytes, &[transport, KeyValue::new("direction", direction)]);
        }
    }
}
