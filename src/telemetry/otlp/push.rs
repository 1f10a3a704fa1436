//! Metrics on their way out: collected at an interval, from a snapshot taken for the purpose.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::exports::Exports;
use crate::config::{self, MetricExport, Signal};
use crate::telemetry::metrics::Metrics;

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
pub(super) struct Push<E = MetricExporter> {
    pub(super) reader: PushReader,
    pub(super) exporter: E,
    pub(super) config: MetricExport,
    pub(super) exports: Exports,
    pub(super) stop: CancellationToken,
}

impl<E: PushMetricExporter> Push<E> {
    /// Pushes at every interval, and once more when told to stop.
    pub(super) async fn run(self, metrics: Arc<Metrics>) {
        let interval = self.config.interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Asked before the work: who is told to stop during a round has one more to do.
            let is_last = tokio::select! {
                biased;
                () = self.stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let figures = self.collect(&metrics).await;
            let export = async {
                match figures {
                    Ok(figures) => self.exporter.export(&figures).await,
                    Err(error) => Err(error),
                }
            };
            self.exports.watch(Signal::Metrics, self.config.export_timeout, 0, export).await;
            if is_last {
                return;
            }
        }
    }

    /// What all instruments tell, read where it may take its time.
    async fn collect(&self, metrics: &Arc<Metrics>) -> Result<ResourceMetrics, OTelSdkError> {
        let (reader, metrics) = (self.reader.clone(), Arc::clone(metrics));
        let collect = move || {
            let mut figures = ResourceMetrics::default();
            metrics.refreshed(|| reader.collect(&mut figures)).map(|collected| collected.map(|()| figures))
        };
        match tokio::task::spawn_blocking(collect).await {
            Ok(Some(collected)) => collected,
            Ok(None) => Err(OTelSdkError::InternalFailure("the store does not answer".to_owned())),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use engine::StoreStats;
    use opentelemetry_sdk::metrics::MeterProviderBuilder;

    use crate::config::{OtlpProtocol, OtlpTarget};
    use crate::telemetry::metrics::{self, Snapshot, Sources};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn push<E>(reader: PushReader, exporter: E, exports: &Exports, stop: &CancellationToken) -> Push<E> {
        let target = OtlpTarget {
            protocol: OtlpProtocol::Grpc,
            endpoint: String::new(),
            headers: Vec::new(),
            timeout: INTERVAL,
            gzip: false,
            ca: None,
            identity: None,
        };
        let temporality = config::Temporality::Cumulative;
        let config = MetricExport { target, interval: INTERVAL, export_timeout: INTERVAL, temporality };
        Push { reader, exporter, config, exports: exports.clone(), stop: stop.clone() }
    }

    /// Is told to stop during each export.
    struct Stopped {
        stop: CancellationToken,
        pushes: Arc<AtomicU64>,
    }

    impl PushMetricExporter for Stopped {
        async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
            self.pushes.fetch_add(1, Ordering::Relaxed);
            self.stop.cancel();
            Ok(())
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }

        fn temporality(&self) -> Temporality {
            Temporality::Cumulative
        }
    }

    /// Runs a push over these sources until it ends, and returns how often it exported and the figures of that.
    async fn pushed(sources: impl Sources + 'static, stop_after: Duration) -> (u64, [u64; 3]) {
        let (exports, stop) = (Exports::default(), CancellationToken::new());
        let reader = PushReader::new(config::Temporality::Cumulative);
        let with_reader = |builder: MeterProviderBuilder| builder.with_reader(reader.clone());
        let metrics = Metrics::with_readers(Arc::new(sources), true, with_reader).expect("builds");
        let pushes = Arc::new(AtomicU64::new(0));
        let exporter = Stopped { stop: stop.clone(), pushes: Arc::clone(&pushes) };
        let run = push(reader.clone(), exporter, &exports, &stop).run(Arc::new(metrics));
        let told = async {
            tokio::time::sleep(stop_after).await;
            stop.cancel();
        };
        tokio::join!(run, told);
        (pushes.load(Ordering::Relaxed), exports.counters.figures().of(Signal::Metrics))
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_push_follows_the_one_that_was_told_to_stop() {
        let sources = metrics::tests::Fixed::default();
        assert_eq!(pushed(sources, INTERVAL * 2).await, (2, [2, 0, 0]));
    }

    struct Silent;

    impl Sources for Silent {
        fn store(&self) -> Option<StoreStats> {
            None
        }

        fn snapshot(&self, _: StoreStats) -> Snapshot {
            unreachable!("there is no answer to make one of")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_store_does_not_answer_nothing_is_pushed_and_that_is_counted() {
        assert_eq!(pushed(Silent, INTERVAL * 5 / 2).await, (0, [0, 3, 0]));
    }
}
