//! The span of a call, by the OpenTelemetry conventions for RPC.

use std::borrow::Cow;

use http::{Request, Response};
use opentelemetry::{ContextGuard, KeyValue};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_METHOD_ORIGINAL, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use tonic::Code;

use crate::telemetry::metrics::{OTHER, RpcMethod, rpc_status};
use crate::telemetry::traces::{ServerSpan, TRACERESPONSE, Tracing, cut};
use crate::transports::peer::peer_attributes;

/// The span of a call in flight.
pub(super) struct CallSpan(ServerSpan);

/// Begins the span of a call, if it is to have one.
pub(super) fn begin<B>(tracing: &Tracing, method: RpcMethod, request: &Request<B>) -> Option<CallSpan> {
    let span = tracing.begin(request.headers(), || {
        let path = request.uri().path();
        let method = method.name();
        let mut attributes = vec![KeyValue::new(RPC_SYSTEM_NAME, "grpc"), KeyValue::new(RPC_METHOD, method)];
        if method == OTHER {
            attributes.push(KeyValue::new(RPC_METHOD_ORIGINAL, cut(path.trim_start_matches('/'))));
        }
        attributes.extend(peer_attributes(request.extensions()));
        (Cow::Borrowed(method), attributes)
    });
    span.map(CallSpan)
}

impl CallSpan {
    /// Makes it the current one of this thread.
    pub(super) fn enter(&self) -> ContextGuard {
        self.0.enter()
    }

    /// Tells the caller of it.
    pub(super) fn tell<B>(&self, response: &mut Response<B>) {
        response.headers_mut().insert(TRACERESPONSE, self.0.response_header());
    }

    /// Ends it with what the call came to.
    pub(super) fn end(self, code: Code) {
        let (name, is_failure) = rpc_status(code.into());
        let mut attributes = vec![KeyValue::new(RPC_RESPONSE_STATUS_CODE, name)];
        if is_failure {
            attributes.push(KeyValue::new(ERROR_TYPE, name));
        }
        self.0.end(attributes, is_failure.then_some(Cow::Borrowed("")));
    }
}
