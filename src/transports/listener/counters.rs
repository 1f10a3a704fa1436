//! What a listener counts about its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one listener. Reading them is always allowed, only the listener writes.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    tls_handshake_failures: AtomicU64,
    age_closed: AtomicU64,
}

impl ConnectionCounters {
    /// Connections being served now, their TLS handshakes included.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections ever taken on; those refused are not among them.
    pub fn accepted_total(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once since there were `max_connections` already.
    pub fn refused_total(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed or took longer than `handshake_timeout`.
    pub fn tls_handshake_failures_total(&self) -> u64 {
        self.tls_handshake_failures.load(Ordering::Relaxed)
    }

    /// Connections asked to go away since they reached `max_connection_age`.
    pub fn age_closed_total(&self) -> u64 {
        self.age_closed.load(Ordering::Relaxed)
    }

    /// Takes a connection on, unless there are `limit`. To be called by one thread at a time.
    pub(super) fn admit(self: &Arc<Self>, limit: usize) -> Option<OpenConnection> {
        if usize::try_from(self.open()).is_ok_and(|open| open < limit) {
            self.open.fetch_add(1, Ordering::Relaxed);
            self.accepted.fetch_add(1, Ordering::Relaxed);
            Some(OpenConnection(Arc::clone(self)))
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    pub(super) fn tls_handshake_failed(&self) {
        self.tls_handshake_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed_for_age(&self) {
        self.age_closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection's place among the open ones, given back when dropped, however its task ends.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<ConnectionCounters>);

impl OpenConnection {
    pub(super) fn counters(&self) -> &ConnectionCounters {
        &self.0
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
