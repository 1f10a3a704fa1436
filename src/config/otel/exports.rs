//! How each signal is exported: where to, how often, how much of it.

use std::path::PathBuf;
use std::time::Duration;

use super::names;
use super::variables::Variables;
use crate::config::otlp::{
    BatchConfig, Common, LogExport, MetricExport, OtlpProtocol, OtlpTarget, Sampling, Signal, Temporality,
    TraceExport,
};

impl Variables {
    fn path(&mut self, names: &[String]) -> Option<PathBuf> {
        self.first(names, "the path of a file", |text| Some(PathBuf::from(text)))
    }

    /// A certificate with its key. One of them alone is passed over.
    fn identity(&mut self, certificates: &[String], keys: &[String]) -> Option<(PathBuf, PathBuf)> {
        match (self.path(certificates), self.path(keys)) {
            (Some(certificate), Some(key)) => return Some((certificate, key)),
            (Some(_), None) => self.ignore_lone(certificates, "a client's certificate together with its key"),
            (None, Some(_)) => self.ignore_lone(keys, "a client's key together with its certificate"),
            (None, None) => {}
        }
        None
    }

    /// Of several variables that mean the same, tells the one that counts.
    fn ignore_lone(&mut self, names: &[String], allowed: &str) {
        if let Some(name) = names.iter().find(|name| self.text(name).is_some()) {
            self.ignore(name, allowed);
        }
    }

    fn target(&mut self, signal: Signal, common: &Common) -> OtlpTarget {
        let [own, for_all] = names(signal, "ENDPOINT");
        let insecure = names(signal, "INSECURE");
        // Variables for all signals are in `common` already.
        let own_only = |name: &str| [names(signal, name)[0].clone()];
        let protocol = self.protocol(&own_only("PROTOCOL")).unwrap_or(common.protocol);
        let endpoint = self.endpoint(&own, &insecure).unwrap_or_else(|| {
            let default = match protocol {
                OtlpProtocol::Grpc => "http://localhost:4317",
                OtlpProtocol::Http => "http://localhost:4318",
            };
            // Once more, since what it means without a scheme may be another matter for this signal.
            let base = self.endpoint(&for_all, &insecure).or_else(|| common.endpoint.clone());
            let base = base.unwrap_or_else(|| default.to_owned());
            match protocol {
                OtlpProtocol::Grpc => base,
                OtlpProtocol::Http => format!("{}/v1/{}", base.trim_end_matches('/'), signal.name()),
            }
        });
        let identity = self.identity(&names(signal, "CLIENT_CERTIFICATE"), &names(signal, "CLIENT_KEY"));
        OtlpTarget {
            protocol,
            endpoint,
            headers: self.headers(&own_only("HEADERS")).unwrap_or_else(|| common.headers.clone()),
            timeout: self.milliseconds(&own_only("TIMEOUT")).unwrap_or(common.timeout),
            gzip: self.compression(&own_only("COMPRESSION")).unwrap_or(common.gzip),
            ca: self.path(&names(signal, "CERTIFICATE")),
            identity,
        }
    }

    pub(in crate::config) fn metrics(&mut self, common: &Common) -> MetricExport {
        let temporality = self.value(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "cumulative, delta or lowmemory",
            |text| match text.to_ascii_lowercase().as_str() {
                "cumulative" => Some(Temporality::Cumulative),
                "delta" => Some(Temporality::Delta),
                "lowmemory" => Some(Temporality::LowMemory),
                _ => None,
            },
        );
        self.value(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "explicit_bucket_histogram, since Prometheus reads the same histograms",
            |text| (text == "explicit_bucket_histogram").then_some(()),
        );
        self.value(
            "OTEL_METRICS_EXEMPLAR_FILTER",
            "always_off, since the SDK records no exemplars",
            |text| (text == "always_off").then_some(()),
        );
        MetricExport {
            target: self.target(Signal::Metrics, common),
            interval: common.interval,
            export_timeout: self
                .milliseconds(&["OTEL_METRIC_EXPORT_TIMEOUT".to_owned()])
                .unwrap_or(Duration::from_secs(30)),
            temporality: temporality.unwrap_or(Temporality::Cumulative),
        }
    }

    pub(in crate::config) fn traces(&mut self, common: &Common) -> TraceExport {
        TraceExport {
            target: self.target(Signal::Traces, common),
            sampling: self.sampling(common.sampling_ratio),
            follow_callers: self.follows_callers(),
            batches: self.batches("BSP", Duration::from_secs(5)),
        }
    }

    pub(in crate::config) fn logs(&mut self, common: &Common) -> LogExport {
        LogExport {
            target: self.target(Signal::Logs, common),
            batches: self.batches("BLRP", Duration::from_secs(1)),
        }
    }

    fn sampling(&mut self, ratio: f64) -> Sampling {
        const SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
                                parentbased_always_off or parentbased_traceidratio";
        let sampler = self.value("OTEL_TRACES_SAMPLER", SAMPLERS, |text| {
            let (parent_based, root) = match text.strip_prefix("parentbased_") {
                Some(root) => (true, root),
                None => (false, text),
            };
            match root {
                "always_on" => Some((parent_based, Some(1.0))),
                "always_off" => Some((parent_based, Some(0.0))),
                "traceidratio" => Some((parent_based, None)),
                _ => None,
            }
        });
        match sampler {
            None => Sampling { parent_based: true, ratio },
            Some((parent_based, Some(ratio))) => Sampling { parent_based, ratio },
            Some((parent_based, None)) => {
                let ratio = self.value("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", |text| {
                    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
                });
                Sampling { parent_based, ratio: ratio.unwrap_or(1.0) }
            }
        }
    }

    fn follows_callers(&mut self) -> bool {
        let read = |text: &str| {
            let mut follows = false;
            for propagator in text.split(',').map(str::trim) {
                match propagator {
                    "tracecontext" => follows = true,
                    // Nothing here asks for baggage, and nothing is called to hand it on to.
                    "baggage" | "none" => {}
                    _ => return None,
                }
            }
            Some(follows)
        };
        self.value("OTEL_PROPAGATORS", "tracecontext, baggage or none", read).unwrap_or(true)
    }

    fn batches(&mut self, prefix: &str, delay: Duration) -> BatchConfig {
        let name = |name: &str| format!("OTEL_{prefix}_{name}");
        let count = |text: &str| text.parse::<usize>().ok().filter(|count| (1..=1 << 20).contains(count));
        let counted = "a whole number from 1 to 1048576";
        let max_queue = self.value(&name("MAX_QUEUE_SIZE"), counted, count).unwrap_or(2048);
        let max_batch = self.value(&name("MAX_EXPORT_BATCH_SIZE"), counted, count).unwrap_or(512);
        BatchConfig {
            max_queue,
            max_batch: max_batch.min(max_queue),
            delay: self.milliseconds(&[name("SCHEDULE_DELAY")]).unwrap_or(delay),
            export_timeout: self.milliseconds(&[name("EXPORT_TIMEOUT")]).unwrap_or(Duration::from_secs(30)),
        }
    }
}
