//! Where the metrics' snapshots come from: the service, the connections of every transport, certificates, the process.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::StoreStats;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::limits::Limits;
use crate::auth::Tokens;
use crate::service::{CacheService, KeyRefusal};
use crate::telemetry::metrics::{
    ConfigReloads, ExportCounters, FileReloads, ProcessFigures, ServiceFigures, Snapshot, Sources,
    TransportFigures,
};
use crate::tls::ServerTls;
use crate::transports::Transport;
use crate::transports::listener::{ConnectionCounters, ConnectionRefusal};
use crate::transports::refused::RequestRefusal;

/// A store that has not answered by then has nothing to show.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is left of a transport to look at once it serves.
struct Watched {
    kind: &'static str,
    connections: Arc<ConnectionCounters>,
    tls: Option<Arc<ServerTls>>,
    tokens: Option<Arc<Tokens>>,
}

/// Everything that is told about a server.
pub(super) struct Figures {
    service: Arc<CacheService>,
    exports: Arc<ExportCounters>,
    config_reloads: Arc<ConfigReloads>,
    runtime: Handle,
    limits: BTreeMap<&'static str, Limits>,
    /// Set once all are bound.
    transports: OnceLock<Vec<Watched>>,
}

impl Figures {
    /// `limits` are those of each kind of transport. Must run within a tokio runtime.
    pub(super) fn new(
        service: Arc<CacheService>,
        exports: Arc<ExportCounters>,
        config_reloads: Arc<ConfigReloads>,
        limits: BTreeMap<&'static str, Limits>,
    ) -> Self {
        let runtime = Handle::current();
        Self { service, exports, config_reloads, runtime, limits, transports: OnceLock::new() }
    }

    /// Says what there is to look at. To be called once, before anybody asks.
    pub(super) fn watch(&self, transports: &[Box<dyn Transport>]) {
        let watched = transports.iter().map(|transport| Watched {
            kind: transport.kind(),
            connections: Arc::clone(transport.connections()),
            tls: transport.tls().cloned(),
            tokens: transport.tokens().cloned(),
        });
        self.transports.get_or_init(|| watched.collect());
    }

    fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.transports.get().into_iter().flatten()
    }
}

impl Sources for Figures {
    fn store(&self) -> Option<StoreStats> {
        self.runtime.block_on(async { timeout(STORE_TIMEOUT, self.service.own_counters()).await.ok()?.ok() })
    }

    fn snapshot(&self, store: StoreStats) -> Snapshot {
        let mut transports = BTreeMap::<_, TransportFigures>::new();
        for watched in self.watched() {
            add(watched, transports.entry(watched.kind).or_default());
        }
        for (kind, figures) in &mut transports {
            figures.limits = self.limits.get(kind).cloned().unwrap_or_default();
        }
        self.service.record_evictions();
        let certificates = || self.watched().filter_map(|watched| watched.tls.as_ref());
        let tokens = || self.watched().filter_map(|watched| watched.tokens.as_ref());
        Snapshot {
            store,
            insight: self.service.insight(),
            service: ServiceFigures {
                active_requests: self.service.active_requests(),
                rejected_keys: KeyRefusal::ALL
                    .map(|reason| (reason.name(), self.service.refused_keys(reason)))
                    .into(),
                uptime: self.service.uptime(),
                runtime_tasks: self.runtime.metrics().num_alive_tasks() as u64,
                operations: self.service.operations().counts(),
            },
            transports: transports.into_values().collect(),
            tls: FileReloads {
                done: certificates().map(|tls| tls.reloads_total()).sum(),
                failed: certificates().map(|tls| tls.reload_failures_total()).sum(),
            },
            tokens: FileReloads {
                done: tokens().map(|tokens| tokens.reloads_total()).sum(),
                failed: tokens().map(|tokens| tokens.reload_failures_total()).sum(),
            },
            config: self.config_reloads.figures(),
            process: ProcessFigures::read(),
            exports: self.exports.figures(),
        }
    }
}

/// Adds one listener to the figures of its kind.
fn add(watched: &Watched, figures: &mut TransportFigures) {
    let connections = &watched.connections;
    figures.kind = watched.kind;
    figures.open += connections.open();
    figures.accepted += connections.accepted_total();
    figures.age_closed += connections.age_closed_total();
    figures.handshake_failures += connections.tls_handshake_failures_total();
    figures.received_bytes += connections.received_bytes_total();
    figures.sent_bytes += connections.sent_bytes_total();
    for reason in ConnectionRefusal::ALL {
        *figures.refused.entry(reason.name()).or_default() += connections.refused_total(reason);
    }
    for reason in RequestRefusal::ALL {
        let refused = connections.refused_requests().total(reason);
        *figures.requests_refused.entry(reason.name()).or_default() += refused;
    }
    figures.request_ids_replaced += connections.refused_requests().request_ids();
    figures.in_flight += connections.in_flight().requests();
    figures.in_flight_bytes += connections.in_flight().bytes();
    figures.untaken_bytes += connections.untaken_bytes();
    let expiry = watched.tls.as_ref().and_then(|tls| tls.expiry());
    figures.certificate_expiry = figures.certificate_expiry.into_iter().chain(expiry).min();
}
