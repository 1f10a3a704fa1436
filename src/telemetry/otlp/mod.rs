//! Telemetry for an OpenTelemetry collector: metrics, traces and logs by OTLP, each where it is switched on.
//!
//! Everything that takes time happens on a thread of its own, with a runtime of its own: collecting, encoding, sending,
//! waiting for a collector that does not answer. A request only ever puts a finished span or a log record into a
//! bounded queue. What a collector does not take is counted ([`ExportCounters`]) and told in the log when it begins and
//! when it ends, and nobody else notices.

mod batches;
mod exporters;
mod exports;
mod push;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::MeterProviderBuilder;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanExporter as _};
use opentelemetry_semantic_conventions::resource::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use batches::{Batches, Records, Spans};
pub use exporters::OtlpError;
use exports::Exports;
use push::Push;
use push::PushReader;

use super::metrics::{ExportCounters, Metrics};
use super::traces::Tracing;
use crate::config::{LogExport, MetricExport, OtlpConfig, Signal, TraceExport};

/// Turns log lines into log records.
pub type LogBridge = OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>;

/// The exports of a server. Without any it is nothing but zeroes.
#[derive(Debug)]
pub struct Otlp {
    exports: Exports,
    resource: Resource,
    traces: Option<(SdkTracerProvider, TraceExport)>,
    logs: Option<SdkLoggerProvider>,
    reader: Option<PushReader>,
    push: Mutex<Option<Push>>,
    ignored: Vec<String>,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    /// `None` where nothing is exported.
    runtime: Option<Runtime>,
}

impl Drop for Otlp {
    fn drop(&mut self) {
        // The last owner may be a task of another runtime, which may not wait for this one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Otlp {
    /// Makes the exporters and starts those of traces and logs. No collector has to be there.
    pub fn start(config: &OtlpConfig) -> Result<Self, OtlpError> {
        let OtlpConfig { metrics, traces, logs, ignored } = config;
        let mut otlp = Self {
            exports: Exports::default(),
            resource: resource(),
            traces: None,
            logs: None,
            reader: None,
            push: Mutex::default(),
            ignored: ignored.clone(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
            runtime: None,
        };
        if metrics.is_none() && traces.is_none() && logs.is_none() {
            return Ok(otlp);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(OtlpError::Thread)?;
        let handle = runtime.handle().clone();
        // Before anything fails: it ends the runtime in the background, as the caller's own must not be held up.
        otlp.runtime = Some(runtime);
        // Connections belong to the runtime that is entered when an exporter is made.
        let entered = handle.enter();
        metrics.as_ref().map(|config| otlp.start_metrics(config)).transpose()?;
        traces.as_ref().map(|config| otlp.start_traces(config, &handle)).transpose()?;
        logs.as_ref().map(|config| otlp.start_logs(config, &handle)).transpose()?;
        drop(entered);
        Ok(otlp)
    }

    fn start_metrics(&mut self, config: &MetricExport) -> Result<(), OtlpError> {
        let reader = PushReader::new(config.temporality);
        self.reader = Some(reader.clone());
        *self.push.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(Push {
            reader,
            exporter: exporters::metrics(&config.target)?,
            config: config.clone(),
            exports: self.exports.clone(),
            stop: self.stop.clone(),
        });
        Ok(())
    }

    fn start_traces(&mut self, config: &TraceExport, runtime: &Handle) -> Result<(), OtlpError> {
        let mut exporter = exporters::spans(&config.target)?;
        exporter.set_resource(&self.resource);
        let queue = Batches::new(Signal::Traces, config.batches, self.exports.clone(), self.stop.clone());
        let run = Arc::clone(&queue).run(async move |batch| exporter.export(batch).await);
        self.tasks().spawn_on(run, runtime);
        let provider = SdkTracerProvider::builder()
            .with_resource(self.resource.clone())
            // Who makes a span has decided that there is to be one.
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(Spans(queue))
            .build();
        self.traces = Some((provider, config.clone()));
        Ok(())
    }

    fn start_logs(&mut self, config: &LogExport, runtime: &Handle) -> Result<(), OtlpError> {
        let mut exporter = exporters::logs(&config.target)?;
        exporter.set_resource(&self.resource);
        let queue = Batches::new(Signal::Logs, config.batches, self.exports.clone(), self.stop.clone());
        let run = Arc::clone(&queue).run(async move |batch: Vec<batches::Record>| {
            let records: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
            exporter.export(LogBatch::new(&records)).await
        });
        self.tasks().spawn_on(run, runtime);
        let provider = SdkLoggerProvider::builder()
            .with_resource(self.resource.clone())
            .with_log_processor(Records(queue))
            .build();
        self.logs = Some(provider);
        Ok(())
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts exports, also for others who hand telemetry on.
    #[must_use]
    pub const fn exports(&self) -> &Arc<ExportCounters> {
        &self.exports.counters
    }

    /// Has the instruments read by what pushes them, where metrics are exported.
    #[must_use]
    pub fn read_by(&self, builder: MeterProviderBuilder) -> MeterProviderBuilder {
        match &self.reader {
            Some(reader) => builder.with_resource(self.resource.clone()).with_reader(reader.clone()),
            None => builder,
        }
    }

    /// What makes spans, where they are exported.
    #[must_use]
    pub fn tracing(&self) -> Option<Tracing> {
        let (provider, config) = self.traces.as_ref()?;
        let tracer: SdkTracer = provider.tracer("tiny-cache");
        Some(Tracing::new(tracer, config.sampling, config.follow_callers))
    }

    /// Where log lines go besides standard error, where they are exported.
    #[must_use]
    pub fn log_bridge(&self) -> Option<LogBridge> {
        let bridge = |logs| {
            // Above all the request's id, which a line of HTTP has from the span around it.
            let builder = OpenTelemetryTracingBridge::builder(logs);
            builder.with_tracing_span_attributes(TracingSpanAttributes::all()).build()
        };
        self.logs.as_ref().map(bridge)
    }

    /// Begins to push metrics, where they are exported, now that there are instruments to read. Tells what of the
    /// environment was passed over, now that there is a log.
    pub fn run(&self, metrics: Arc<Metrics>) {
        for variable in &self.ignored {
            tracing::warn!(variable, "a variable cannot be used and is passed over");
        }
        let push = self.push.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(push), Some(runtime)) = (push, &self.runtime) {
            self.tasks().spawn_on(push.run(metrics), runtime.handle());
        }
    }

    /// Sends what is left, for at most `limit`.
    pub async fn shut_down(&self, limit: Duration) {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks());
        let finished = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!(?limit, "the collector took too long: what telemetry was left is lost");
        }
    }
}

/// Ours, then the SDK's, then what the environment says.
fn resource() -> Resource {
    let instance = data_encoding::HEXLOWER.encode(&fastrand::u128(..).to_be_bytes());
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let detectors: [Box<dyn ResourceDetector>; 2] =
        [Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())];
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new(SERVICE_NAME, "tiny-cache"),
            KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            KeyValue::new(SERVICE_INSTANCE_ID, instance),
        ])
        .with_detectors(&detectors)
        .with_attributes(name.map(|name| KeyValue::new(SERVICE_NAME, name)))
        .build()
}

#[cfg(test)]
mod tests {
    use crate::config::{BatchConfig, OtlpProtocol, OtlpTarget};

    use super::*;

    /// Whether logs can be exported to this endpoint with certificates that are not there.
    fn started(protocol: OtlpProtocol, endpoint: &str) -> Result<(), String> {
        let second = Duration::from_secs(1);
        let directory = tempfile::tempdir().expect("a directory");
        let missing = |name: &str| directory.path().join(name);
        let target = OtlpTarget {
            protocol,
            endpoint: endpoint.to_owned(),
            headers: Vec::new(),
            timeout: second,
            gzip: false,
            ca: Some(missing("none.pem")),
            identity: Some((missing("client.pem"), missing("client.key"))),
        };
        let batches = BatchConfig { max_queue: 1, max_batch: 1, delay: second, export_timeout: second };
        let logs = Some(LogExport { target, batches });
        let otlp = Otlp::start(&OtlpConfig { logs, ..OtlpConfig::default() });
        otlp.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn missing_certificates_are_an_error_where_they_are_needed_within_a_runtime_too() {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
            let error = started(protocol, "https://127.0.0.1:1").expect_err("no such file");
            assert!(error.contains("none.pem"), "{protocol:?}: {error}");
            assert_eq!(started(protocol, "http://127.0.0.1:1"), Ok(()), "{protocol:?}");
        }
    }
}
