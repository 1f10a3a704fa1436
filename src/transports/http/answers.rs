//! The JSON bodies. Their fields are the contract's, in the order in which they are written here.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::proto::CacheStats;

/// `GET /`
#[derive(Serialize)]
pub(super) struct Index<'a> {
    service: &'static str,
    endpoints: &'a [&'static str],
    grpc_port: Option<u16>,
}

impl<'a> Index<'a> {
    pub(super) const fn new(endpoints: &'a [&'static str], grpc_port: Option<u16>) -> Self {
        Self { service: "tiny-cache", endpoints, grpc_port }
    }
}

/// `GET /health` and `GET /ready`
#[derive(Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
    pub(super) uptime_seconds: f64,
    pub(super) cache_size: u64,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
    pub(super) active_requests: u64,
    pub(super) timestamp: f64,
}

/// `GET /live`
#[derive(Serialize)]
pub(super) struct Live {
    pub(super) status: &'static str,
    pub(super) uptime_seconds: f64,
    pub(super) timestamp: f64,
}

/// `GET /stats`: the fields of [`CacheStats`] by their names there, and a few for people.
#[derive(Serialize)]
pub(super) struct Stats {
    size: i32,
    hits: i32,
    misses: i32,
    evictions: i32,
    hit_rate: f64,
    memory_usage_bytes: i64,
    max_memory_bytes: i64,
    max_items: i32,
    max_value_bytes: i64,
    lru_evictions: i32,
    expired_removals: i32,
    rejected_oversize: i32,
    rejected_capacity: i32,
    entries: u64,
    hits_total: u64,
    misses_total: u64,
    evictions_total: u64,
    expired_removals_total: u64,
    rejected_oversize_total: u64,
    rejected_capacity_total: u64,
    rejected_admission_total: u64,
    max_entries: u64,
    policy: String,
    store: String,
    shards: u32,
    memory_usage_mb: f64,
    max_memory_mb: f64,
    uptime_seconds: f64,
    active_requests: u64,
    timestamp: f64,
}

impl Stats {
    pub(super) fn new(stats: CacheStats, uptime: Duration, active_requests: u64) -> Self {
        Self {
            size: stats.size,
            hits: stats.hits,
            misses: stats.misses,
            evictions: stats.evictions,
            hit_rate: stats.hit_rate,
            memory_usage_bytes: stats.memory_usage_bytes,
            max_memory_bytes: stats.max_memory_bytes,
            max_items: stats.max_items,
            max_value_bytes: stats.max_value_bytes,
            lru_evictions: stats.lru_evictions,
            expired_removals: stats.expired_removals,
            rejected_oversize: stats.rejected_oversize,
            rejected_capacity: stats.rejected_capacity,
            entries: stats.entries,
            hits_total: stats.hits_total,
            misses_total: stats.misses_total,
            evictions_total: stats.evictions_total,
            expired_removals_total: stats.expired_removals_total,
            rejected_oversize_total: stats.rejected_oversize_total,
            rejected_capacity_total: stats.rejected_capacity_total,
            rejected_admission_total: stats.rejected_admission_total,
            max_entries: stats.max_entries,
            policy: stats.policy,
            store: stats.store,
            shards: stats.shards,
            memory_usage_mb: mebibytes(stats.memory_usage_bytes),
            max_memory_mb: mebibytes(stats.max_memory_bytes),
            uptime_seconds: uptime.as_secs_f64(),
            active_requests,
            timestamp: unix_seconds(),
        }
    }
}

/// MiB, as in `CACHE_MAX_MEMORY_MB`, rounded to two decimals.
#[expect(clippy::cast_precision_loss, reason = "two decimals of MiB are left below 2^53 bytes")]
fn mebibytes(bytes: i64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 100.0).round() / 100.0
}

/// Now, in seconds since 1970.
pub(super) fn unix_seconds() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

/// The answer to a path that is not there: a [`Failure`] that tells which are.
#[derive(Serialize)]
pub(super) struct NotThere<'a> {
    status: &'static str,
    message: &'static str,
    endpoints: &'a [&'static str],
}

impl<'a> NotThere<'a> {
    pub(super) const fn new(endpoints: &'a [&'static str]) -> Self {
        Self { status: "error", message: "not found", endpoints }
    }
}

/// Any answer that is not the one asked for.
pub(super) struct Failure {
    code: StatusCode,
    message: &'static str,
}

impl Failure {
    /// The message is for everyone: it never quotes an inner error.
    pub(super) const fn new(code: StatusCode, message: &'static str) -> Self {
        Self { code, message }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            status: &'static str,
            message: &'static str,
        }
        (self.code, Json(Body { status: "error", message: self.message })).into_response()
    }
}
