//! One handler per endpoint.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::StoreStats;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::service::{CacheService, ServiceError};
use crate::telemetry::history::History;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};
use crate::telemetry::panics::caught;
use crate::transports::stats::cache_stats;

use super::answers::{Failure, Health, Live, NotThere, Stats, unix_seconds};

/// A store that has not answered by then counts as one that does not: probes must not pile up.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// One scrape at a time: each keeps a processor busy, which requests need more.
static RENDERING: Semaphore = Semaphore::const_new(1);

/// What the handlers work on.
pub(super) struct Endpoints {
    pub(super) service: Arc<CacheService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
    pub(super) grpc_port: Option<u16>,
    /// What `GET /` lists, and an answer to what is not there.
    pub(super) listed: Vec<&'static str>,
}

pub(super) type Shared = State<Arc<Endpoints>>;

pub(super) async fn health(State(shared): Shared) -> Result<Json<Health>, Failure> {
    let service = &shared.service;
    let stats = in_time(service.counters()).await?;
    Ok(Json(Health {
        status: "healthy",
        uptime_seconds: service.uptime().as_secs_f64(),
        cache_size: stats.counters.entries,
        cache_hits: stats.counters.hits,
        cache_misses: stats.counters.misses,
        active_requests: service.active_requests(),
        timestamp: unix_seconds(),
    }))
}

pub(super) async fn ready(state: Shared) -> Result<Json<Health>, Failure> {
    if state.service.is_draining() {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    }
    health(state).await
}

pub(super) async fn live(State(shared): Shared) -> Json<Live> {
    Json(Live {
        status: "alive",
        uptime_seconds: shared.service.uptime().as_secs_f64(),
        timestamp: unix_seconds(),
    })
}

pub(super) async fn metrics(State(shared): Shared) -> Result<Response, Failure> {
    let store = in_time(shared.service.counters()).await?;
    // Off the threads that serve: it takes longer than a thousand requests.
    let turn = RENDERING.acquire().await.expect("never closed");
    let rendered = spawn_blocking(move || {
        let _turn = turn;
        caught(|| shared.metrics.render(store))
    });
    let error: Box<dyn std::error::Error + Send + Sync> = match rendered.await {
        Ok(Ok(Ok(text))) => return Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Ok(Ok(Err(error))) => error.into(),
        Ok(Err(panic)) => panic.resume(),
        Err(ended) => ended.into(),
    };
    error!(error = &*error as &dyn std::error::Error, "the metrics could not be rendered");
    Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered"))
}

pub(super) async fn stats(State(shared): Shared) -> Result<Json<Stats>, Failure> {
    let service = &shared.service;
    let stats = in_time(service.stats()).await?;
    Ok(Json(Stats::new(cache_stats(&stats), service.uptime(), service.active_requests())))
}

pub(super) async fn not_found(State(shared): Shared) -> Response {
    (StatusCode::NOT_FOUND, Json(NotThere::new(&shared.listed))).into_response()
}

pub(super) async fn method_not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
}

/// What the store says, if it says it in time. The cause of a failure goes to the log only.
async fn in_time(
    answer: impl Future<Output = Result<StoreStats, ServiceError>>,
) -> Result<StoreStats, Failure> {
    match timeout(STORE_TIMEOUT, answer).await {
        Ok(Ok(stats)) => return Ok(stats),
        Ok(Err(error)) => warn!(error = &error as &dyn std::error::Error, "the store does not answer"),
        Err(_) => warn!(timeout = ?STORE_TIMEOUT, "the store does not answer in time"),
    }
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"))
}
