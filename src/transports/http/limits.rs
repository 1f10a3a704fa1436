//! The most that HTTP requests may hold: how many are worked on at a time, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::answers::Failure;
use crate::transports::in_flight::InFlight;
use crate::transports::refused::RequestRefusal;
use crate::transports::request_id::{REQUEST_ID, request_id};

/// Probes are to be answered whatever else there is, and cost next to nothing.
const PROBES: [&str; 3] = ["/live", "/ready", "/health"];

#[derive(Clone)]
struct Limits {
    in_flight: Arc<InFlight>,
    request_timeout: Duration,
}

/// A router of which only so many requests are worked on at a time, as the listener in front allows, and each
/// for `request_timeout` at most. Everything beyond is answered with 503 at once.
pub fn limited(router: Router, in_flight: Arc<InFlight>, request_timeout: Duration) -> Router {
    let limits = Limits { in_flight, request_timeout };
    router.layer(from_fn_with_state(limits, limit))
}

async fn limit(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let Limits { in_flight, request_timeout } = &limits;
    let is_probe = PROBES.contains(&request.uri().path());
    let id = request_id(request.headers(), in_flight.refused());
    // Whatever becomes of it: its answer has the id that the log has.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let (reason, text) = if in_flight.is_full() && !is_probe {
        (RequestRefusal::TooManyInFlight, "too many requests in flight")
    } else {
        let _place = (!is_probe).then(|| in_flight.enter());
        if let Ok(response) = timeout(*request_timeout, next.run(request)).await {
            return response;
        }
        (RequestRefusal::TimedOut, "the request took too long")
    };
    in_flight.count_refused(reason);
    let mut response = Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
