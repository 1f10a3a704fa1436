//! Metrics on their way out: collected at an interval, from a snapshot taken for the purpose.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::exports::Exports;
use crate::config::{self, MetricExport, Signal};

/// Reads all instruments when it is asked to.
#[derive(Clone, Debug)]
pub(super) struct PushReader(Arc<ManualReader>);

impl PushReader {
    pub(super) fn new(temporality: config::Temporality) -> Self {
        let temporality = match temporality {
            config::Temporality::Cumulative => Temporality::Cumulative,
            config::Temporality::Delta => Temporality::Delta,
            config::Temporality::LowMemory => Temporality::LowMemory,
        };
        Self(Arc::new(ManualReader::builder().with_temporality(temporality).build()))
    }
}

impl MetricReader for PushReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// The exporter with all that it takes to run it.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) reader: PushReader,
    pub(super) exporter: MetricExporter,
    pub(super) config: MetricExport,
    pub(super) exports: Exports,
    pub(super) stop: CancellationToken,
}

impl Push {
    /// Pushes at every interval, and once more when told to stop. `refresh` is called before the instruments are read.
    pub(super) async fn run(self, refresh: impl Fn()) {
        let interval = self.config.interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stop.is_cancelled() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => {}
            }
            let reader = self.reader.clone();
            refresh();
            // The instruments have the store asked for a new snapshot, and wait for it.
            let collected = tokio::task::spawn_blocking(move || {
                let mut metrics = ResourceMetrics::default();
                reader.collect(&mut metrics).map(|()| metrics)
            });
            match collected.await {
                Ok(Ok(metrics)) => {
                    let export = self.exporter.export(&metrics);
                    self.exports.watch(Signal::Metrics, self.config.export_timeout, 0, export).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "cannot collect metrics to push"),
                Err(error) => tracing::error!(%error, "a collection of metrics ended by a panic"),
            }
        }
    }
}
