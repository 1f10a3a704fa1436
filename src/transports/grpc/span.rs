//! The span of a call, by the OpenTelemetry conventions for RPC.

use std::borrow::Cow;

use http::{HeaderValue, Request, Response};
use opentelemetry::{ContextGuard, KeyValue};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_METHOD_ORIGINAL, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use tonic::{Code, Status};

use crate::telemetry::traces::{ServerSpan, TRACERESPONSE, Tracing};
use crate::transports::listener::peer_attributes;

/// The span of a call in flight.
pub(super) struct CallSpan(Option<ServerSpan>);

/// Begins the span of a call, if it is to have one.
pub(super) fn begin<B>(tracing: &Tracing, request: &Request<B>) -> Option<CallSpan> {
    let span = tracing.begin(request.headers(), || {
        let path = request.uri().path();
        let method = RpcMethod::of_path(path).name();
        let mut attributes = vec![KeyValue::new(RPC_SYSTEM_NAME, "grpc"), KeyValue::new(RPC_METHOD, method)];
        if method == "_OTHER" {
            attributes.push(KeyValue::new(RPC_METHOD_ORIGINAL, path.trim_start_matches('/').to_owned()));
        }
        attributes.extend(peer_attributes(request.extensions()));
        (Cow::Borrowed(method), attributes)
    });
    span.map(|span| CallSpan(Some(span)))
}

impl CallSpan {
    /// Makes it the current one of this thread.
    pub(super) fn enter(&self) -> Option<ContextGuard> {
        self.0.as_ref().map(ServerSpan::enter)
    }

    /// Ends it with what the call was answered, and tells the caller of it.
    pub(super) fn end(mut self, response: &mut Response<tonic::body::Body>) {
        let Some(span) = self.0.take() else { return };
        // A success says so in its trailers, which are not made yet.
        let code = response.headers().get(Status::GRPC_STATUS).map(HeaderValue::as_bytes);
        let code = code.map_or(Code::Ok, Code::from_bytes);
        response.headers_mut().insert(TRACERESPONSE, span.response_header());
        end(span, code);
    }
}

impl Drop for CallSpan {
    /// The caller gave up.
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            end(span, Code::Cancelled);
        }
    }
}

fn end(span: ServerSpan, code: Code) {
    let (name, is_failure) = rpc_status(code as i32);
    let mut attributes = vec![KeyValue::new(RPC_RESPONSE_STATUS_CODE, name)];
    if is_failure {
        attributes.push(KeyValue::new(ERROR_TYPE, name));
    }
    span.end(attributes, is_failure.then_some(Cow::Borrowed("")));
}

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

/// What all other paths are told as: they are the client's, and there is no end to them.
const OTHER: &str = "_OTHER";

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
struct RpcMethod(usize);

impl RpcMethod {
    /// The method of a path like `/cache.CacheService/Get`.
    #[must_use]
    fn of_path(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        Self(METHODS.iter().position(|method| *method == name).unwrap_or(METHODS.len()))
    }

    /// As the label has it.
    #[must_use]
    fn name(self) -> &'static str {
        METHODS.get(self.0).copied().unwrap_or(OTHER)
    }
}

fn rpc_status(code: i32) -> (&'static str, bool) {
    STATUSES[usize::try_from(code).ok().filter(|code| *code < STATUSES.len()).unwrap_or(UNKNOWN)]
}
