//! Every metric the server has: its name, its unit, what it means and where its value comes from. A file per domain;
//! docs/metrics.md tells an operator what to do about each, and a test holds it against a running server.
//!
//! The names are OpenTelemetry's. Prometheus sees them as that convention maps them: dots become
//! underscores, the unit becomes a suffix and a counter ends in `_total`, so that `tiny_cache.hits`
//! is `tiny_cache_hits_total`. A test holds the names that dashboards rely on.
//!
//! # One snapshot per scrape
//!
//! Nearly all instruments are observed, not updated: nothing is counted twice and a request pays nothing.
//! [`Metrics::render`] publishes a [`Snapshot`] and all instruments read that one; neither the store nor a lock of its is
//! touched while rendering. Other readers (a push exporter) read within [`Metrics::refreshed`], which takes a new one.
//! Only distributions are recorded when things happen: [`RpcMetrics`], [`HttpMetrics`], [`StoreMetrics`].

mod catalogue;
mod config;
mod exports;
mod http;
mod limits;
mod process;
mod published;
mod rpc;
mod service;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::sync::{Arc, Mutex, PoisonError};

use engine::{Insight, StoreStats};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, SdkMeterProvider};
use prometheus::TextEncoder;

use self::catalogue::Metric;
use self::published::Published;

pub use self::config::{ConfigReloadFigures, ConfigReloads};
pub use self::exports::{ExportCounters, ExportFigures};
pub use self::http::{ActiveHttpRequest, HttpMetrics, known_http_method};
pub use self::process::{ProcessFigures, resident_bytes};
pub use self::rpc::{OTHER, RpcMethod, RpcMetrics, rpc_status};
pub use self::service::ServiceFigures;
pub use self::store::StoreMetrics;
pub use self::transport::{FileReloads, TransportFigures};

/// The media type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the metrics of one scrape are made from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's counters and limits.
    pub store: StoreStats,
    /// What the store tells beside that.
    pub insight: Insight,
    /// Requests and operations.
    pub service: ServiceFigures,
    /// Each kind of transport once.
    pub transports: Vec<TransportFigures>,
    /// What became of certificates that were replaced.
    pub tls: FileReloads,
    /// What became of bearer tokens that were replaced.
    pub tokens: FileReloads,
    /// What became of configurations that were read again.
    pub config: ConfigReloadFigures,
    /// The process; `None` where the system does not tell.
    pub process: Option<ProcessFigures>,
    /// What became of telemetry that was to be handed on.
    pub exports: ExportFigures,
}

/// Where snapshots come from.
pub trait Sources: Send + Sync {
    /// Asks the store, and waits for the answer; `None` where there is none. Called by [`Metrics::refreshed`], where it
    /// may block.
    fn store(&self) -> Option<StoreStats>;

    /// Everything else, which is at hand.
    fn snapshot(&self, store: StoreStats) -> Snapshot;
}

/// Why metrics could not be set up or rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The exporter could not be built.
    #[error("cannot set up the metrics exporter")]
    Exporter(#[from] OTelSdkError),
    /// The figures could not be put into text.
    #[error("cannot render the metrics")]
    Encoding(#[from] prometheus::Error),
}

/// The server's metrics.
pub struct Metrics {
    registry: prometheus::Registry,
    published: Arc<Published>,
    sources: Arc<dyn Sources>,
    /// Held from publishing a snapshot until it is read, so that no reader sees another's.
    reading: Mutex<()>,
    rpc: Option<Arc<RpcMetrics>>,
    http: Option<Arc<HttpMetrics>>,
    store: Option<Arc<StoreMetrics>>,
    #[expect(dead_code, reason = "the instruments live as long as it does")]
    provider: SdkMeterProvider,
}

impl Metrics {
    /// Metrics for Prometheus. Without `recording` there are no distributions: requests then pay nothing.
    pub fn new(sources: Arc<dyn Sources>, recording: bool) -> Result<Self, MetricsError> {
        Self::with_readers(sources, recording, |builder| builder)
    }

    /// As [`new`](Self::new), for more readers than Prometheus: `configure` adds them, and the resource that they tell.
    pub fn with_readers(
        sources: Arc<dyn Sources>,
        recording: bool,
        configure: impl FnOnce(MeterProviderBuilder) -> MeterProviderBuilder,
    ) -> Result<Self, MetricsError> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        process::note_start();
        let provider = configure(SdkMeterProvider::builder().with_reader(exporter)).build();
        let published = Arc::new(Published::default());
        let meter = provider.meter("tiny-cache");
        observed().for_each(|metric| metric.register(&meter, &published));
        let rpc = recording.then(|| Arc::new(RpcMetrics::new(&meter)));
        let http = recording.then(|| Arc::new(HttpMetrics::new(&meter)));
        let store = recording.then(|| Arc::new(StoreMetrics::new(&meter)));
        Ok(Self { registry, published, sources, reading: Mutex::default(), rpc, http, store, provider })
    }

    /// Where gRPC calls are recorded; `None`: nowhere.
    #[must_use]
    pub const fn rpc(&self) -> Option<&Arc<RpcMetrics>> {
        self.rpc.as_ref()
    }

    /// Where HTTP requests are recorded; `None`: nowhere.
    #[must_use]
    pub const fn http(&self) -> Option<&Arc<HttpMetrics>> {
        self.http.as_ref()
    }

    /// Where evictions and sweeps are recorded; `None`: nowhere.
    #[must_use]
    pub const fn store(&self) -> Option<&Arc<StoreMetrics>> {
        self.store.as_ref()
    }

    /// Runs `read` while all instruments tell the figures as they are now, for another reader than Prometheus. `None`, and
    /// nothing read, where the store does not answer. Blocks until it does, or is given up.
    pub fn refreshed<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        // Before anything is locked: a store that is waited for keeps no scrape waiting.
        let store = self.sources.store()?;
        Some(self.showing(self.sources.snapshot(store), read))
    }

    /// The figures, with the store's as given, in the Prometheus text format, see [`CONTENT_TYPE`].
    ///
    /// Scrapes may overlap: each shows its own snapshot. Takes about a millisecond, mostly of arithmetic.
    pub fn render(&self, store: StoreStats) -> Result<String, MetricsError> {
        let snapshot = self.sources.snapshot(store);
        let families = self.showing(snapshot, || self.registry.gather());
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }

    fn showing<T>(&self, snapshot: Snapshot, read: impl FnOnce() -> T) -> T {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.published.publish(snapshot);
        read()
    }
}

/// Every metric that is read from a snapshot.
fn observed() -> impl Iterator<Item = &'static Metric> {
    [
        store::METRICS,
        service::METRICS,
        transport::METRICS,
        limits::METRICS,
        config::METRICS,
        process::METRICS,
        exports::METRICS,
    ]
    .into_iter()
    .flatten()
}
