//! The span of a request, by the OpenTelemetry conventions for HTTP.

use std::borrow::Cow;

use axum::extract::{MatchedPath, Request};
use axum::http::header::USER_AGENT;
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, URL_PATH, URL_SCHEME,
    USER_AGENT_ORIGINAL,
};

use crate::telemetry::metrics::{OTHER, known_http_method};
use crate::telemetry::traces::{ServerSpan, TRACERESPONSE, Tracing, cut};
use crate::transports::peer::peer_attributes;

/// The span of a request in flight.
pub(super) struct RequestSpan(ServerSpan);

/// Begins the span of a request, if it is to have one.
pub(super) fn begin(tracing: &Tracing, scheme: &'static str, request: &Request) -> Option<RequestSpan> {
    let span = tracing.begin(request.headers(), || {
        let known = known_http_method(request.method().as_str());
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let mut attributes = vec![
            KeyValue::new(HTTP_REQUEST_METHOD, known.unwrap_or(OTHER)),
            KeyValue::new(URL_PATH, cut(request.uri().path())),
            KeyValue::new(URL_SCHEME, scheme),
        ];
        if let Some(agent) = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            attributes.push(KeyValue::new(USER_AGENT_ORIGINAL, cut(agent)));
        }
        attributes.extend(peer_attributes(request.extensions()));
        let name = match &route {
            Some(route) => Cow::Owned(format!("{} {route}", known.unwrap_or("HTTP"))),
            None => Cow::Borrowed(known.unwrap_or("HTTP")),
        };
        attributes.extend(route.map(|route| KeyValue::new(HTTP_ROUTE, route)));
        (name, attributes)
    });
    span.map(RequestSpan)
}

impl RequestSpan {
    /// Runs the request within the span, ends it with what it was answered, and tells the caller of it.
    pub(super) async fn around(self, answer: impl Future<Output = Response>) -> Response {
        let Self(span) = self;
        let mut response = answer.with_context(span.context().clone()).await;
        response.headers_mut().insert(TRACERESPONSE, span.response_header());
        let status = response.status();
        let mut attributes = vec![KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()))];
        if status.is_server_error() {
            attributes.push(KeyValue::new(ERROR_TYPE, status.as_str().to_owned()));
        }
        span.end(attributes, status.is_server_error().then_some(Cow::Borrowed("")));
        response
    }
}
