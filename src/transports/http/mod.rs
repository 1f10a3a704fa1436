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
use axum::middleware;
use axum::routing::get;

use crate::service::CacheService;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracing;

pub use self::limits::limited;
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
/// Where `tracing` makes spans, requests get some.
pub fn router(
    service: Arc<CacheService>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    grpc_port: Option<u16>,
    scheme: &'static str,
    tracing: Option<Arc<Tracing>>,
) -> Router {
    let recorder = Recorder { metrics: metrics.http().cloned(), scheme, tracing };
    Router::new()
        .route("/", get(status::index))
        .route("/history", get(status::history))
        .route("/health", get(endpoints::health))
        .route("/ready", get(endpoints::ready))
        .route("/live", get(endpoints::live))
        .route("/metrics", get(endpoints::metrics))
        .route("/stats", get(endpoints::stats))
        .fallback(endpoints::not_found)
        .method_not_allowed_fallback(endpoints::method_not_allowed)
        .layer(middleware::from_fn_with_state(recorder, envelope::wrap))
        .with_state(Arc::new(Endpoints { service, metrics, history, grpc_port }))
}
