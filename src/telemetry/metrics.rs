//! Every metric the server has: its name, its unit, what it means and where its value comes from.
//!
//! The names are OpenTelemetry's. Prometheus sees them as that convention maps them: dots become
//! underscores, the unit becomes a suffix and a counter ends in `_total`, so that `tiny_cache.hits`
//! is `tiny_cache_hits_total`. A test holds the names that dashboards rely on.
//!
//! # One snapshot per scrape
//!
//! The instruments are observed, not updated: nothing is counted twice and a request pays nothing.
//! [`Metrics::render`] publishes a [`Snapshot`] that its caller has taken and all instruments read
//! that one; neither the store nor a lock of its is touched while rendering. A reader that comes by
//! itself (a push exporter) sees the snapshot published last.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::StoreStats;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::TextEncoder;

/// The media type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the metrics of one scrape are made from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's counters and limits.
    pub store: StoreStats,
    /// gRPC requests in flight.
    pub active_requests: u64,
    /// Time since the start.
    pub uptime: Duration,
    /// What became of certificates that were replaced.
    pub tls: TlsReloads,
}

/// How often certificates were read again, over all listeners.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsReloads {
    /// Newer ones were taken into use.
    pub done: u64,
    /// Newer ones could not be used.
    pub failed: u64,
}

/// How a metric behaves, and its value in a snapshot.
enum Source {
    /// Only ever rises.
    Counter(fn(&Snapshot) -> u64),
    /// Rises and falls.
    Gauge(fn(&Snapshot) -> u64),
    /// A gauge that is not a whole number.
    Measure(fn(&Snapshot) -> f64),
}

/// One metric.
struct Metric {
    name: &'static str,
    /// In UCUM; in braces where it is only an annotation, which leaves no suffix.
    unit: &'static str,
    description: &'static str,
    source: Source,
}

use Source::{Counter, Gauge, Measure};

const METRICS: &[Metric] = &[
    Metric {
        name: "tiny_cache.hits",
        unit: "{hit}",
        description: "Reads that found a live entry.",
        source: Counter(|s| s.store.counters.hits),
    },
    Metric {
        name: "tiny_cache.misses",
        unit: "{miss}",
        description: "Reads that found no live entry.",
        source: Counter(|s| s.store.counters.misses),
    },
    Metric {
        name: "tiny_cache.evictions",
        unit: "{entry}",
        description: "Entries removed for room.",
        source: Counter(|s| s.store.counters.evictions),
    },
    Metric {
        name: "tiny_cache.lru_evictions",
        unit: "{entry}",
        description: "Entries removed for room, whatever the policy: the same as tiny_cache_evictions_total.",
        source: Counter(|s| s.store.counters.evictions),
    },
    Metric {
        name: "tiny_cache.expired_removals",
        unit: "{entry}",
        description: "Entries removed for age.",
        source: Counter(|s| s.store.counters.expired),
    },
    Metric {
        name: "tiny_cache.rejected_oversize",
        unit: "{write}",
        description: "Writes refused because the value is over the per-value limit.",
        source: Counter(|s| s.store.counters.rejected_oversize),
    },
    Metric {
        name: "tiny_cache.rejected_capacity",
        unit: "{write}",
        description: "Writes refused because no eviction could make room.",
        source: Counter(|s| s.store.counters.rejected_capacity),
    },
    Metric {
        name: "tiny_cache.entries",
        unit: "{entry}",
        description: "Resident entries.",
        source: Gauge(|s| s.store.counters.entries),
    },
    Metric {
        name: "tiny_cache.memory_usage",
        unit: "By",
        description: "Bytes charged to resident entries: keys, values and bookkeeping.",
        source: Gauge(|s| s.store.counters.memory_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.max_items",
        unit: "{entry}",
        description: "Limit on entries; 18446744073709551615 where there is none.",
        source: Gauge(|s| s.store.limits.max_items.unwrap_or(u64::MAX)),
    },
    Metric {
        name: "tiny_cache.capacity.max_memory",
        unit: "By",
        description: "Limit on the bytes charged to all entries together.",
        source: Gauge(|s| s.store.limits.max_memory_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.max_value",
        unit: "By",
        description: "Limit on the bytes of one value.",
        source: Gauge(|s| s.store.limits.max_value_bytes),
    },
    Metric {
        name: "tiny_cache.capacity.item_saturation",
        unit: "1",
        description: "Share of the limit on entries in use, 0 to 1; 0 where there is no limit.",
        source: Measure(|s| {
            saturation(s.store.counters.entries, s.store.limits.max_items.unwrap_or(u64::MAX))
        }),
    },
    Metric {
        name: "tiny_cache.capacity.memory_saturation",
        unit: "1",
        description: "Share of the memory limit in use, 0 to 1.",
        source: Measure(|s| saturation(s.store.counters.memory_bytes, s.store.limits.max_memory_bytes)),
    },
    Metric {
        name: "tiny_cache.active_requests",
        unit: "{request}",
        description: "gRPC requests in flight.",
        source: Gauge(|s| s.active_requests),
    },
    Metric {
        name: "tiny_cache.uptime",
        unit: "s",
        description: "Time since the start.",
        source: Measure(|s| s.uptime.as_secs_f64()),
    },
    Metric {
        name: "tiny_cache.tls_reloads",
        unit: "{reload}",
        description: "Times that newer TLS certificates were taken into use.",
        source: Counter(|s| s.tls.done),
    },
    Metric {
        name: "tiny_cache.tls_reload_failures",
        unit: "{reload}",
        description: "Times that newer TLS certificates could not be used and the old ones stayed.",
        source: Counter(|s| s.tls.failed),
    },
];

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn saturation(used: u64, limit: u64) -> f64 {
    if used >= limit { 1.0 } else { used as f64 / limit as f64 }
}

/// The snapshot that the instruments read; `None` before the first.
type Published = Arc<Mutex<Option<Snapshot>>>;

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
    published: Published,
    /// Held from publishing a snapshot until it is gathered, so that no scrape reads another's.
    scraping: Mutex<()>,
    tls_reloads: Box<dyn Fn() -> TlsReloads + Send + Sync>,
    /// The instruments live as long as it does.
    _provider: SdkMeterProvider,
}

impl Metrics {
    /// Metrics with nothing to show before the first [`render`](Self::render).
    /// `tls_reloads` is asked what became of certificates whenever a snapshot is taken.
    pub fn new(tls_reloads: impl Fn() -> TlsReloads + Send + Sync + 'static) -> Result<Self, MetricsError> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let published = Published::default();
        let meter = provider.meter("tiny-cache");
        for metric in METRICS {
            register(&meter, metric, &published);
        }
        Ok(Self {
            registry,
            published,
            scraping: Mutex::default(),
            tls_reloads: Box::new(tls_reloads),
            _provider: provider,
        })
    }

    /// What became of certificates until now, for a snapshot.
    #[must_use]
    pub fn tls_reloads(&self) -> TlsReloads {
        (self.tls_reloads)()
    }

    /// The figures of this snapshot in the Prometheus text format, see [`CONTENT_TYPE`].
    ///
    /// Scrapes may overlap: each shows its own snapshot.
    pub fn render(&self, snapshot: Snapshot) -> Result<String, MetricsError> {
        let families = {
            let _scraping = lock(&self.scraping);
            *lock(&self.published) = Some(snapshot);
            self.registry.gather()
        };
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }
}

fn register(meter: &Meter, metric: &'static Metric, published: &Published) {
    let published = Arc::clone(published);
    match metric.source {
        Counter(value) => {
            meter
                .u64_observable_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |observer| {
                    lock(&published).iter().for_each(|snapshot| observer.observe(value(snapshot), &[]));
                })
                .build();
        }
        Gauge(value) => {
            meter
                .u64_observable_gauge(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |observer| {
                    lock(&published).iter().for_each(|snapshot| observer.observe(value(snapshot), &[]));
                })
                .build();
        }
        Measure(value) => {
            meter
                .f64_observable_gauge(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_callback(move |observer| {
                    lock(&published).iter().for_each(|snapshot| observer.observe(value(snapshot), &[]));
                })
                .build();
        }
    }
}

/// Nothing is left half done under these locks, so a panic under one does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
