//! gRPC calls, by the OpenTelemetry conventions for RPC.
//!
//! A call is recorded in some ten nanoseconds: the set of its labels is made once per method and status, and the SDK's
//! bound instrument then goes straight to its buckets.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};

use crate::telemetry::history::Durations;

use super::catalogue::{Distribution, REQUEST_SECONDS};

const DURATION: Distribution = Distribution {
    name: "rpc.server.call.duration",
    unit: "s",
    description: "How long gRPC calls took, from their headers read to their answer made.",
    boundaries: REQUEST_SECONDS,
};

/// The methods that are told by name, as a path has them after its first slash.
const METHODS: &[&str] = &[
    "cache.CacheService/Get",
    "cache.CacheService/Set",
    "cache.CacheService/MultiGet",
    "cache.CacheService/MultiSet",
    "cache.CacheService/SetIfAbsent",
    "cache.CacheService/CompareAndSet",
    "cache.CacheService/Delete",
    "cache.CacheService/MultiDelete",
    "cache.CacheService/Stats",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.health.v1.Health/List",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What all other methods are told as, of gRPC and of HTTP: they are the client's, and there is no end to them.
pub const OTHER: &str = "_OTHER";

/// The names of gRPC's status codes, and whether one says that the server failed, not the caller. By their number.
const STATUSES: [(&str, bool); 17] = [
    ("OK", false),
    ("CANCELLED", false),
    ("UNKNOWN", true),
    ("INVALID_ARGUMENT", false),
    ("DEADLINE_EXCEEDED", true),
    ("NOT_FOUND", false),
    ("ALREADY_EXISTS", false),
    ("PERMISSION_DENIED", false),
    ("RESOURCE_EXHAUSTED", false),
    ("FAILED_PRECONDITION", false),
    ("ABORTED", false),
    ("OUT_OF_RANGE", false),
    ("UNIMPLEMENTED", true),
    ("INTERNAL", true),
    ("UNAVAILABLE", true),
    ("DATA_LOSS", true),
    ("UNAUTHENTICATED", false),
];

/// The number of `UNKNOWN`.
const UNKNOWN: usize = 2;

/// A method, found once per call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcMethod(usize);

impl RpcMethod {
    /// The method of a path like `/cache.CacheService/Get`.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        Self(METHODS.iter().position(|method| *method == name).unwrap_or(METHODS.len()))
    }

    /// Whether its answer is a stream, which may last for as long as the client likes.
    #[must_use]
    pub fn is_streaming(self) -> bool {
        METHODS.get(self.0).is_some_and(|name| name.ends_with("/Watch") || name.ends_with("Info"))
    }

    /// As the label has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        METHODS.get(self.0).copied().unwrap_or(OTHER)
    }
}

/// The name of a status code, and whether it says that the server failed, not the caller.
#[must_use]
pub fn rpc_status(code: i32) -> (&'static str, bool) {
    STATUSES[status_at(code)]
}

fn status_at(code: i32) -> usize {
    usize::try_from(code).ok().filter(|code| *code < STATUSES.len()).unwrap_or(UNKNOWN)
}

/// Where gRPC calls are recorded.
pub struct RpcMetrics {
    duration: Histogram<f64>,
    /// Per method and status, made when there is one.
    bound: Vec<[OnceLock<BoundHistogram<f64>>; STATUSES.len()]>,
    /// All calls together, for the history: the SDK's figures can be read only with all others.
    unary: Durations,
}

impl RpcMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let bound = std::iter::repeat_with(Default::default).take(METHODS.len() + 1).collect();
        Self { duration: DURATION.build(meter), bound, unary: Durations::default() }
    }

    /// A call has ended with this status code.
    pub fn record(&self, method: RpcMethod, code: i32, took: Duration) {
        let status = status_at(code);
        self.bound[method.0][status].get_or_init(|| self.bind(method, status)).record(took.as_secs_f64());
        if !method.is_streaming() {
            self.unary.record(took);
        }
    }

    /// How long calls took until now, whatever they were and whatever came of them, but for those whose answer is a
    /// stream.
    #[must_use]
    pub const fn unary(&self) -> &Durations {
        &self.unary
    }

    fn bind(&self, method: RpcMethod, status: usize) -> BoundHistogram<f64> {
        let (status, is_failure) = STATUSES[status];
        let mut labels = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.name()),
            KeyValue::new("rpc.response.status_code", status),
        ];
        if is_failure {
            labels.push(KeyValue::new("error.type", status));
        }
        self.duration.bind(&labels)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn known_methods_are_told_by_name_and_all_others_as_one() {
        for (path, name) in [
            ("/cache.CacheService/Get", "cache.CacheService/Get"),
            ("/grpc.health.v1.Health/Watch", "grpc.health.v1.Health/Watch"),
            ("/cache.CacheService/Gets", "_OTHER"),
            ("/", "_OTHER"),
            ("", "_OTHER"),
        ] {
            assert_eq!(RpcMethod::of_path(path).name(), name, "{path}");
        }
    }

    #[test]
    fn status_codes_have_the_names_of_grpc() {
        for (number, (name, _)) in (0..).zip(STATUSES) {
            let ours = name.replace('_', "").to_lowercase();
            assert_eq!(format!("{:?}", Code::from_i32(number)).to_lowercase(), ours);
        }
        assert_eq!(STATUSES[UNKNOWN].0, "UNKNOWN");
    }
}
