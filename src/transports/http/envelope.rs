//! What every exchange has in common: a request id, a span that carries it into the log, and an
//! answer even where a handler panics.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, debug, error_span};

use crate::service::CacheService;
use crate::telemetry::metrics::HttpMetrics;
use crate::telemetry::panics::caught_in;
use crate::telemetry::traces::Tracing;
use crate::transports::refused::RefusedRequests;
use crate::transports::request_id::{REQUEST_ID, request_id};

use super::answers::Failure;
use super::span;

/// Where requests are recorded.
#[derive(Clone)]
pub(super) struct Recorder {
    /// `None`: nowhere.
    pub(super) metrics: Option<Arc<HttpMetrics>>,
    pub(super) scheme: &'static str,
    /// `None`: they have no spans.
    pub(super) tracing: Option<Arc<Tracing>>,
    /// Where ids that are not taken over are counted.
    pub(super) refused: Arc<RefusedRequests>,
    /// Who tells of panics.
    pub(super) service: Arc<CacheService>,
}

/// Runs a request within its span, records it, and puts its id on the answer.
pub(super) async fn wrap(State(recorder): State<Recorder>, request: Request, next: Next) -> Response {
    let Recorder { metrics, scheme, tracing, refused, service } = &recorder;
    let active = metrics.as_ref().map(|metrics| metrics.begin(request.method().as_str(), scheme));
    let route = request.extensions().get::<MatchedPath>().cloned();
    let server_span = tracing.as_ref().and_then(|tracing| span::begin(tracing, scheme, &request));
    let id = request_id(request.headers(), refused);
    // Of the highest level, so that the id is on every line that is logged at all.
    let span = error_span!(
        "http_request",
        request_id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path(),
    );
    let answer = answer(service, request, next).instrument(span);
    let mut response = match server_span {
        None => answer.await,
        Some(server_span) => server_span.around(answer).await,
    };
    if let Some(active) = active {
        active.answered(route.as_ref().map(MatchedPath::as_str), response.status().as_u16());
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A panic is the end of one request only: handlers share nothing that it could leave half done.
async fn answer(service: &CacheService, request: Request, next: Next) -> Response {
    let response = caught_in(next.run(request)).await.unwrap_or_else(|panic| {
        // Within the span, which has the request's id.
        service.tell_panic("a request's handler", None, &panic);
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
    });
    debug!(status = response.status().as_u16(), "answered");
    response
}
