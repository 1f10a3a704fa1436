//! The use-cases, once for all transports: what a key, a namespace and a batch may be, and what
//! each call comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::{Store, StoreError, StoreStats};

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
