//! The span of a call, by the OpenTelemetry conventions for RPC.

use std::borrow::Cow;

use http::{HeaderValue, Request, Response};
use opentelemetry::{ContextGuard, KeyValue};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_METHOD_ORIGINAL, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use tonic::{Code, Status};

use crate::telemetry::metrics::{OTHER, RpcMethod, rpc_status};
use crate::telemetry::traces::{ServerSpan, TRACERESPONSE, Tracing};
use crate::transports::peer::peer_attributes;

/// The span of a call in flight.
pub(super) struct CallSpan(Option<ServerSpan>);

/// Begins the span of a call, if it is to have one.
pub(super) fn begin<B>(tracing: &Tracing, method: RpcMethod, request: &Request<B>) -> Option<CallSpan> {
    let span = tracing.begin(request.headers(), || {
        let path = request.uri().path();
        let method = method.name();
        let mut attributes = vec![KeyValue::new(RPC_SYSTEM_NAME, "grpc"), KeyValue::new(RPC_METHOD, method)];
        if method == OTHER {
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
    let (name, is_failure) = rpc_status(code.into());
    let mut attributes = vec![KeyValue::new(RPC_RESPONSE_STATUS_CODE, name)];
    if is_failure {
        attributes.push(KeyValue::new(ERROR_TYPE, name));
    }
    span.end(attributes, is_failure.then_some(Cow::Borrowed("")));
}
