//! The use-cases, once for all transports: what a key, a namespace and a batch may be, and what
//! each call comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::{Limits, Store, StoreError, StoreStats};

/// Why a call failed, in terms that each transport maps to its own codes.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The caller's mistake; the text says which.
    #[error("{0}")]
    InvalidArgument(String),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The cache as its transports see it.
pub struct CacheService {
    store: Arc<dyn Store>,
    started: Instant,
    active_requests: AtomicU64,
    draining: AtomicBool,
}

impl CacheService {
    /// A service over this store, up since now.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            started: Instant::now(),
            active_requests: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// Removes what has expired, then reads counters and gauges: only live entries count.
    pub async fn stats(&self) -> Result<StoreStats, ServiceError> {
        self.store.sweep().await?;
        self.counters().await
    }

    /// Counters and gauges as they are, without a sweep.
    pub async fn counters(&self) -> Result<StoreStats, ServiceError> {
        Ok(self.store.stats().await?)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.store.limits()
    }

    /// Time since the service was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// gRPC requests in flight.
    #[must_use]
    pub fn active_requests(&self) -> u64 {
        self.active_requests.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.active_requests.fetch_add(1, Ordering::Relaxed);
        ActiveRequest { service: Arc::clone(self) }
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says that a shutdown has begun. There is no way back.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// A request in flight.
pub struct ActiveRequest {
    service: Arc<CacheService>,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.service.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
