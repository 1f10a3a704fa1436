//! The standard `OTEL_*` variables: what they say lies over `[telemetry.otlp]`.
//!
//! They are often set for many programs at once, so a value that cannot be used is passed over and told in the log,
//! as OpenTelemetry's specification wants it, where every other setting would end the start. An empty variable counts
//! as unset. A file that a variable names is another matter: certificates that cannot be read or used end the start, since
//! to go on without them would be to trust somebody else. The resource (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) and the limits on spans (`OTEL_SPAN_*`,
//! but for lengths) are read by the SDK itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Raw, Setting};
use super::format::Format;
use super::origin::Origin;
use super::otlp::{
    BatchConfig, COMPRESSION, Common, Endpoint, LogExport, MetricExport, OtlpProtocol, OtlpTarget, PROTOCOL,
    Sampling, Signal, Temporality, TraceExport, header, headers_as_raw, signals_as_raw,
};

/// The variables as they were when the configuration was read.
#[derive(Default)]
pub(super) struct Variables {
    set: Vec<(String, String)>,
    ignored: Vec<String>,
}

/// Every variable that is read here. `{}` stands for nothing, and for each signal with an underscore.
const NAMES: &[&str] = &[
    "OTEL_SDK_DISABLED",
    "OTEL_METRICS_EXPORTER",
    "OTEL_TRACES_EXPORTER",
    "OTEL_LOGS_EXPORTER",
    "OTEL_EXPORTER_OTLP_{}ENDPOINT",
    "OTEL_EXPORTER_OTLP_{}PROTOCOL",
    "OTEL_EXPORTER_OTLP_{}HEADERS",
    "OTEL_EXPORTER_OTLP_{}TIMEOUT",
    "OTEL_EXPORTER_OTLP_{}COMPRESSION",
    "OTEL_EXPORTER_OTLP_{}INSECURE",
    "OTEL_EXPORTER_OTLP_{}CERTIFICATE",
    "OTEL_EXPORTER_OTLP_{}CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_{}CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_METRICS_EXEMPLAR_FILTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_PROPAGATORS",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_EXPORT_TIMEOUT",
    "OTEL_BLRP_MAX_QUEUE_SIZE",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
];

/// The part of a variable's name that is a signal's.
const fn part(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "METRICS",
        Signal::Traces => "TRACES",
        Signal::Logs => "LOGS",
    }
}

/// What `OTEL_EXPORTER_OTLP_{name}` is for one signal: its own variable, then the one for all.
fn names(signal: Signal, name: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_{}_{name}", part(signal)), format!("OTEL_EXPORTER_OTLP_{name}")]
}

impl Variables {
    /// Takes every variable that is set.
    pub(super) fn read(environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut variables = Self::default();
        for pattern in NAMES {
            let signals: &[&str] =
                if pattern.contains("{}") { &["", "METRICS_", "TRACES_", "LOGS_"] } else { &[""] };
            for signal in signals {
                let name = pattern.replace("{}", signal);
                let Some(value) = environment(&name).filter(|value| !value.is_empty()) else { continue };
                match value.into_string() {
                    Ok(value) => variables.set.push((name, value.trim().to_owned())),
                    Err(_) => variables.ignored.push(format!("{name}: not UTF-8")),
                }
            }
        }
        variables
    }

    /// What could not be used, told once everything has been read.
    pub(super) fn into_ignored(self) -> Vec<String> {
        self.ignored
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.set.iter().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    fn ignore(&mut self, name: &str, allowed: &str) {
        // Headers are credentials as often as not.
        let shown = if name.ends_with("HEADERS") {
            String::new()
        } else {
            format!("{:?}, ", self.text(name).unwrap_or_default())
        };
        let line = format!("{name}: {shown}allowed: {allowed}");
        if !self.ignored.contains(&line) {
            self.ignored.push(line);
        }
    }

    /// A variable's value where it is set and can be read.
    fn value<T>(&mut self, name: &str, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = read(self.text(name)?);
        if value.is_none() {
            self.ignore(name, allowed);
        }
        value
    }

    /// The same of the first of several variables that can be used.
    fn first<T>(&mut self, names: &[String], allowed: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        names.iter().find_map(|name| self.value(name, allowed, &read))
    }

    fn milliseconds(&mut self, names: &[String]) -> Option<Duration> {
        let read = |text: &str| text.parse().ok().filter(|number| *number > 0).map(Duration::from_millis);
        self.first(names, "a whole number of milliseconds, at least 1", read)
    }

    /// What lies over keys of the file, with its origin.
    pub(super) fn settings(&mut self, in_file: &[Signal]) -> Vec<(&'static str, Setting)> {
        let mut settings = Vec::new();
        if let Some((signals, origin)) = self.signals(in_file) {
            let setting = made_by(&origin);
            settings.push(("signals", setting(signals_as_raw(&signals, &setting))));
        }
        for (key, suffix) in [
            ("protocol", "PROTOCOL"),
            ("endpoint", "ENDPOINT"),
            ("headers", "HEADERS"),
            ("timeout", "TIMEOUT"),
            ("compression", "COMPRESSION"),
        ] {
            let name = format!("OTEL_EXPORTER_OTLP_{suffix}");
            let setting = made_by(&name);
            let raw = match key {
                "protocol" => {
                    self.protocol(&[name]).map(|protocol| Raw::Text(bare(&PROTOCOL.render(&protocol))))
                }
                "endpoint" => {
                    self.endpoint(&name, &["OTEL_EXPORTER_OTLP_INSECURE".to_owned()]).map(Raw::Text)
                }
                "headers" => self.headers(&[name]).map(|headers| headers_as_raw(&headers, &setting)),
                "timeout" => self.milliseconds(&[name]).map(in_milliseconds),
                _ => self.compression(&[name]).map(|gzip| Raw::Text(bare(&COMPRESSION.render(&gzip)))),
            };
            settings.extend(raw.map(|raw| (key, setting(raw))));
        }
        let interval = "OTEL_METRIC_EXPORT_INTERVAL".to_owned();
        let setting = made_by(&interval);
        let raw = self.milliseconds(&[interval]);
        settings.extend(raw.map(|interval| ("interval", setting(in_milliseconds(interval)))));
        settings
    }

    /// Which signals are exported, and the variables that say so; `None` where none does.
    fn signals(&mut self, in_file: &[Signal]) -> Option<(Vec<Signal>, String)> {
        if self.value("OTEL_SDK_DISABLED", "true or false", truth) == Some(true) {
            return Some((Vec::new(), "OTEL_SDK_DISABLED".to_owned()));
        }
        let mut signals = in_file.to_vec();
        let mut origins = Vec::new();
        for signal in Signal::ALL {
            let name = format!("OTEL_{}_EXPORTER", part(signal));
            // Prometheus is served in any case.
            let read = |text: &str| {
                let mut on = false;
                for exporter in text.split(',').map(str::trim) {
                    match exporter {
                        "otlp" => on = true,
                        "none" => {}
                        "prometheus" if signal == Signal::Metrics => {}
                        _ => return None,
                    }
                }
                Some(on)
            };
            if let Some(on) = self.value(&name, "otlp or none", read) {
                signals.retain(|other| *other != signal);
                signals.extend(on.then_some(signal));
                origins.push(name);
            }
        }
        (!origins.is_empty()).then(|| (signals, origins.join(" and ")))
    }

    fn protocol(&mut self, names: &[String]) -> Option<OtlpProtocol> {
        self.first(names, "grpc or http/protobuf", |text| PROTOCOL.parse(&Raw::Text(text.to_owned())))
    }

    fn compression(&mut self, names: &[String]) -> Option<bool> {
        self.first(names, "gzip or none", |text| COMPRESSION.parse(&Raw::Text(text.to_owned())))
    }

    /// An endpoint for gRPC may come without a scheme; whether that means TLS is for `insecure` to say.
    fn endpoint(&mut self, name: &str, insecure: &[String]) -> Option<String> {
        let insecure = self.first(insecure, "true or false", truth);
        let scheme = if insecure == Some(true) { "http" } else { "https" };
        self.value(name, "a URL such as http://127.0.0.1:4317", |text| {
            let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
            Endpoint.parse(&Raw::Text(url))
        })
    }

    /// `name=value,name=value`, with percent-encoded values.
    fn headers(&mut self, names: &[String]) -> Option<Vec<(String, String)>> {
        self.first(names, "name=value pairs with commas between them", |text| {
            let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    header(name.trim(), &percent_decoded(value.trim())?)
                })
                .collect()
        })
    }

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

    pub(super) fn metrics(&mut self, common: &Common) -> MetricExport {
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

    pub(super) fn traces(&mut self, common: &Common) -> TraceExport {
        TraceExport {
            target: self.target(Signal::Traces, common),
            sampling: self.sampling(common.sampling_ratio),
            follow_callers: self.follows_callers(),
            batches: self.batches("BSP", Duration::from_secs(5)),
        }
    }

    pub(super) fn logs(&mut self, common: &Common) -> LogExport {
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

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Settings that a variable made.
fn made_by(variable: &str) -> impl Fn(Raw) -> Setting + use<> {
    let variable = variable.to_owned();
    move |raw| Setting {
        raw,
        shown: String::new(),
        origin: Origin::Variable(variable.clone()),
        allowed: None,
    }
}

fn in_milliseconds(duration: Duration) -> Raw {
    Raw::Text(format!("{}ms", duration.as_millis()))
}

/// A rendered name without its quotes.
fn bare(rendered: &str) -> String {
    rendered.trim_matches('"').to_owned()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?[0]
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::otlp::{self, OtlpConfig};
    use super::super::section::Report;
    use super::*;

    /// What these variables make of a file without the table.
    fn read(variables: &[(&str, &str)]) -> OtlpConfig {
        let find = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into());
        let mut report = Report::default();
        let config = otlp::read(None, Variables::read(&find), &mut report);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        config
    }

    const METRICS: (&str, &str) = ("OTEL_METRICS_EXPORTER", "otlp");
    const TRACES: (&str, &str) = ("OTEL_TRACES_EXPORTER", "otlp");
    const LOGS: (&str, &str) = ("OTEL_LOGS_EXPORTER", "otlp");

    fn traces(variables: &[(&str, &str)]) -> TraceExport {
        let config = read(&[variables, &[TRACES]].concat());
        assert_eq!(config.ignored, [""; 0]);
        config.traces.expect("traces are on")
    }

    #[test]
    fn nothing_is_exported_unless_somebody_asks() {
        assert_eq!(read(&[]), OtlpConfig::default());
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4317")]), OtlpConfig::default());
        let on = |variables: &[(&str, &str)]| {
            let config = read(variables);
            (config.metrics.is_some(), config.traces.is_some(), config.logs.is_some())
        };
        assert_eq!(on(&[METRICS, TRACES, LOGS]), (true, true, true));
        assert_eq!(on(&[("OTEL_METRICS_EXPORTER", "prometheus, otlp"), LOGS]), (true, false, true));
        assert_eq!(on(&[METRICS, ("OTEL_TRACES_EXPORTER", "none")]), (true, false, false));
        assert_eq!(on(&[METRICS, TRACES, LOGS, ("OTEL_SDK_DISABLED", "TRUE")]), (false, false, false));
        assert_eq!(on(&[METRICS, ("OTEL_SDK_DISABLED", "false")]), (true, false, false));
    }

    #[test]
    fn an_endpoint_is_completed_as_its_protocol_wants_it() {
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        let own_insecure = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true");
        let cases: [(&[(&str, &str)], &str); 12] = [
            (&[], "http://localhost:4317"),
            (&[http], "http://localhost:4318/v1/traces"),
            (&[(endpoint, "https://there:1")], "https://there:1"),
            (&[(endpoint, "there:1")], "https://there:1"),
            (&[(endpoint, "there:1"), insecure], "http://there:1"),
            (&[(own, "there:1"), insecure], "http://there:1"),
            (&[(endpoint, "there:1"), own_insecure], "http://there:1"),
            (
                &[(own, "there:1"), insecure, ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false")],
                "https://there:1",
            ),
            (&[(endpoint, "http://there:1/x/"), http], "http://there:1/x/v1/traces"),
            (&[(own, "http://there:1/x"), http], "http://there:1/x"),
            (&[(endpoint, "http://all:1"), (own, "http://own:1")], "http://own:1"),
            (&[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")], "http://localhost:4318/v1/traces"),
        ];
        for (variables, expected) in cases {
            assert_eq!(traces(variables).target.endpoint, expected, "{variables:?}");
        }
    }

    #[test]
    fn a_signals_own_variable_is_over_the_one_for_all() {
        let target = traces(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Bearer%20x, b = 2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "all.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "own.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "client.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "client.key"),
        ])
        .target;
        let expected = OtlpTarget {
            protocol: OtlpProtocol::Grpc,
            endpoint: "http://localhost:4317".to_owned(),
            headers: [("authorization", "Bearer x"), ("b", "2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            timeout: Duration::from_millis(250),
            gzip: true,
            ca: Some("own.pem".into()),
            identity: Some(("client.pem".into(), "client.key".into())),
        };
        assert_eq!(target, expected);
        let logs = read(&[LOGS, ("OTEL_EXPORTER_OTLP_HEADERS", "a=1")]).logs.expect("logs are on");
        assert_eq!(logs.target.headers, [("a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_clients_certificate_without_its_key_is_passed_over_and_told() {
        for name in ["CLIENT_CERTIFICATE", "TRACES_CLIENT_CERTIFICATE", "CLIENT_KEY", "TRACES_CLIENT_KEY"] {
            let name = format!("OTEL_EXPORTER_OTLP_{name}");
            let config = read(&[TRACES, LOGS, (&name, "lone.pem")]);
            assert_eq!(config.traces.expect("traces are on").target.identity, None, "{name}");
            let [told] = &config.ignored[..] else { panic!("{name}: {:?}", config.ignored) };
            assert!(told.starts_with(&format!("{name}: \"lone.pem\", allowed: a client's ")), "{told}");
        }
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let arg = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        for (sampler, parent_based, ratio) in [
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 0.25),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_always_off", true, 0.0),
            ("parentbased_traceidratio", true, 0.25),
        ] {
            let sampling = traces(&[("OTEL_TRACES_SAMPLER", sampler), arg]).sampling;
            assert_eq!(sampling, Sampling { parent_based, ratio }, "{sampler}");
        }
        assert_eq!(traces(&[]).sampling, Sampling { parent_based: true, ratio: 0.01 });
        let all = Sampling { parent_based: false, ratio: 1.0 };
        assert_eq!(traces(&[("OTEL_TRACES_SAMPLER", "traceidratio")]).sampling, all);
        assert!(traces(&[("OTEL_PROPAGATORS", "tracecontext,baggage")]).follow_callers);
        assert!(!traces(&[("OTEL_PROPAGATORS", "none")]).follow_callers);
    }

    #[test]
    fn queues_and_intervals_are_read() {
        let batches = traces(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "3"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ])
        .batches;
        let milliseconds = Duration::from_millis;
        let (delay, export_timeout) = (milliseconds(1), milliseconds(2));
        // A batch is no larger than the queue.
        assert_eq!(batches, BatchConfig { max_queue: 3, max_batch: 3, delay, export_timeout });
        let metrics = read(&[
            METRICS,
            ("OTEL_METRIC_EXPORT_INTERVAL", "5"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "6"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ])
        .metrics
        .expect("metrics are on");
        assert_eq!((metrics.interval, metrics.export_timeout), (milliseconds(5), milliseconds(6)));
        assert_eq!(metrics.temporality, Temporality::Delta);
    }

    #[test]
    fn what_cannot_be_used_is_passed_over_and_told_without_secrets() {
        let bad = [
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://there"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_PROPAGATORS", "b3"),
        ];
        let config = read(&[&bad[..], &[TRACES]].concat());
        assert_eq!(config.traces, read(&[TRACES]).traces);
        for (name, _) in bad {
            let told = config.ignored.iter().filter(|line| line.starts_with(&format!("{name}: "))).count();
            assert_eq!(told, 1, "{name}: {:?}", config.ignored);
        }
        assert!(!format!("{:?}", config.ignored).contains("secret"));
    }
}
