//! What a listener counts about its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::untaken::Untaken;
use crate::config::ConnectionConfig;
use crate::striped::Striped;
use crate::transports::in_flight::InFlight;
use crate::transports::refused::RefusedRequests;

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// There were `max_connections` already.
    TooMany,
    /// The system could not accept it, for want of file descriptors as a rule. It may be accepted later.
    AcceptFailed,
    /// The client's certificate is good, but `clients` does not list it.
    ClientNotListed,
}

impl ConnectionRefusal {
    /// Every reason there is.
    pub const ALL: [Self; 3] = [Self::TooMany, Self::AcceptFailed, Self::ClientNotListed];

    /// As metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::AcceptFailed => "accept_failed",
            Self::ClientNotListed => "client_not_listed",
        }
    }
}

/// The part of `max_in_flight_bytes` that connections may hold beside it for clients that do not take it.
const UNTAKEN_PART: u64 = 4;

/// Bytes that went over connections. Each thread that serves has its own.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// Counters of one listener. Reading them is always allowed, only the listener writes.
#[derive(Debug)]
pub struct ConnectionCounters {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: [AtomicU64; ConnectionRefusal::ALL.len()],
    refused_requests: Arc<RefusedRequests>,
    in_flight: Arc<InFlight>,
    untaken: Arc<Untaken>,
    traffic: Striped<Traffic>,
    tls_handshake_failures: AtomicU64,
    age_closed: AtomicU64,
}

impl ConnectionCounters {
    /// Those of a listener with these limits.
    #[must_use]
    pub fn new(config: &ConnectionConfig) -> Self {
        let refused_requests = Arc::<RefusedRequests>::default();
        let in_flight =
            InFlight::new(config.max_in_flight, config.max_in_flight_bytes, Arc::clone(&refused_requests));
        let untaken = Untaken::new(config.max_in_flight_bytes / UNTAKEN_PART, Arc::clone(&refused_requests));
        Self {
            in_flight: Arc::new(in_flight),
            untaken: Arc::new(untaken),
            open: AtomicU64::default(),
            accepted: AtomicU64::default(),
            refused: Default::default(),
            refused_requests,
            traffic: Striped::new(Traffic::default),
            tls_handshake_failures: AtomicU64::default(),
            age_closed: AtomicU64::default(),
        }
    }

    /// Connections being served now, their TLS handshakes included.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections ever taken on. Of those refused, only clients that are not listed are among them.
    pub fn accepted_total(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections not taken on for this reason.
    pub fn refused_total(&self, reason: ConnectionRefusal) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// What clients sent that came to nothing. The transport behind the listener counts here too.
    pub fn refused_requests(&self) -> &Arc<RefusedRequests> {
        &self.refused_requests
    }

    /// What requests that wait hold, and may hold. The transport behind the listener charges here too.
    pub fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// What connections hold for clients that do not take it, and may hold.
    pub(super) fn untaken(&self) -> &Arc<Untaken> {
        &self.untaken
    }

    /// Bytes of it.
    pub fn untaken_bytes(&self) -> u64 {
        self.untaken.bytes()
    }

    /// Bytes read from clients, as they were on the wire.
    pub fn received_bytes_total(&self) -> u64 {
        self.traffic.iter().map(|traffic| traffic.received.load(Ordering::Relaxed)).sum()
    }

    /// Bytes written to clients, as they were on the wire.
    pub fn sent_bytes_total(&self) -> u64 {
        self.traffic.iter().map(|traffic| traffic.sent.load(Ordering::Relaxed)).sum()
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
            self.refuse(ConnectionRefusal::TooMany);
            None
        }
    }

    pub(super) fn refuse(&self, reason: ConnectionRefusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.traffic.mine().received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.traffic.mine().sent.fetch_add(bytes as u64, Ordering::Relaxed);
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
    pub(super) fn counters(&self) -> &Arc<ConnectionCounters> {
        &self.0
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
