//! The HTTP endpoints for people, probes and Prometheus.
//!
//! [`router`] is all there is: a service to put behind a listener. Every answer is JSON but that of
//! `/metrics`, and the page that a browser gets for `/`; every one, also to a wrong path or after a panic, carries
//! `x-request-id`.

mod answers;
mod endpoints;
mod envelope;
mod limits;
mod span;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::config::Part;
use crate::service::CacheService;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracing;
use crate::transports::access::{Access, Denied};

pub use self::limits::limited;
use answers::Failure;
use endpoints::Endpoints;
use envelope::Recorder;

/// The endpoints over this service. `grpc_port` is what `GET /` tells; `None` where gRPC has no port. `scheme` is how
/// clients come, "http" or "https".
///
/// - `GET /` — what this is and where to look: JSON, or the status page for a browser.
/// - `GET /history` — the figures of the last minutes and hours, which that page draws.
/// - `GET /health` — 200 while the store answers, else 503.
/// - `GET /ready` — the same, and 503 from the moment a shutdown begins.
/// - `GET /live` — 200 as long as the process answers at all.
/// - `GET /metrics` — the Prometheus text format.
/// - `GET /stats` — every figure of the API's `CacheStats` by its name there.
///
/// Where `tracing` makes spans, requests get some. `access` says which of them are there, and whether all but `/health`,
/// `/ready` and `/live` need a bearer token.
pub fn router(
    service: Arc<CacheService>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    grpc_port: Option<u16>,
    scheme: &'static str,
    tracing: Option<Arc<Tracing>>,
    access: &Access,
) -> Router {
    let recorder = Recorder {
        metrics: metrics.http().cloned(),
        scheme,
        tracing,
        refused: Arc::clone(access.refused()),
        service: Arc::clone(&service),
    };
    let mut restricted = Router::new();
    if access.serves(Part::Metrics) {
        restricted = restricted.route("/metrics", get(endpoints::metrics));
    }
    if access.serves(Part::Status) {
        restricted = restricted
            .route("/", get(status::index))
            .route("/history", get(status::history))
            .route("/stats", get(endpoints::stats));
    }
    if access.needs_token() && restricted.has_routes() {
        restricted = restricted.route_layer(middleware::from_fn_with_state(access.clone(), authorize));
    }
    let mut probes = Router::new();
    if access.serves(Part::Probes) {
        probes = probes
            .route("/health", get(endpoints::health))
            .route("/ready", get(endpoints::ready))
            .route("/live", get(endpoints::live));
    }
    let listed = listed(access);
    restricted
        .merge(probes)
        .fallback(endpoints::not_found)
        .method_not_allowed_fallback(endpoints::method_not_allowed)
        .layer(middleware::from_fn_with_state(recorder, envelope::wrap))
        .with_state(Arc::new(Endpoints { service, metrics, history, grpc_port, listed }))
}

/// What `GET /` lists, and an answer to what is not there.
fn listed(access: &Access) -> Vec<&'static str> {
    let all: [(Part, &[&str]); 3] = [
        (Part::Probes, &["/health", "/ready", "/live"]),
        (Part::Metrics, &["/metrics"]),
        (Part::Status, &["/stats", "/history"]),
    ];
    all.iter().filter(|(part, _)| access.serves(*part)).flat_map(|(_, paths)| *paths).copied().collect()
}

/// Lets through whoever has a token.
async fn authorize(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let (challenge, message) = match denied {
                Denied::NoToken => ("Bearer realm=\"tiny-cache\"", "a bearer token is needed"),
                Denied::WrongToken => {
                    ("Bearer realm=\"tiny-cache\", error=\"invalid_token\"", "the bearer token is not known")
                }
            };
            let failure = Failure::new(StatusCode::UNAUTHORIZED, message);
            ([(header::WWW_AUTHENTICATE, challenge)], failure).into_response()
        }
    }
}
