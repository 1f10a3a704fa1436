//! `[telemetry.otlp]`: what is exported, and where to. The standard `OTEL_*` variables are read in [`super::otel`] and
//! lie over it; what they can say of one signal alone has no key in the file.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::document::{Raw, Setting, Table};
use super::duration::Span;
use super::format::{Choice, Format, Fraction, HIDDEN, OrWord, quoted};
use super::otel::Variables;
use super::section::{Report, Section};

/// `[telemetry.otlp]` with the `OTEL_*` variables on top. A signal that is `None` is not exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtlpConfig {
    /// Metrics, pushed beside what `/metrics` serves.
    pub metrics: Option<MetricExport>,
    /// Spans of requests.
    pub traces: Option<TraceExport>,
    /// The server's own log lines.
    pub logs: Option<LogExport>,
    /// Variables whose values could not be used and were passed over, as OpenTelemetry wants it: one line each.
    pub ignored: Vec<String>,
}

/// How metrics are pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricExport {
    /// Where to.
    pub target: OtlpTarget,
    /// `interval`: time between pushes. Default 60 s.
    pub interval: Duration,
    /// How long one push may take, retries included.
    pub export_timeout: Duration,
    /// What counters and histograms count from.
    pub temporality: Temporality,
}

/// What a pushed figure counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// From the start of the server. The default.
    Cumulative,
    /// From the push before.
    Delta,
    /// Delta for what is counted by events, cumulative for what is observed.
    LowMemory,
}

/// How spans are made and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// Where to.
    pub target: OtlpTarget,
    /// Which requests get a span.
    pub sampling: Sampling,
    /// Whether a caller's `traceparent` is followed.
    pub follow_callers: bool,
    /// The queue before the exporter.
    pub batches: BatchConfig,
}

/// How log records are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExport {
    /// Where to.
    pub target: OtlpTarget,
    /// The queue before the exporter.
    pub batches: BatchConfig,
}

/// Which requests get a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether a caller's own decision holds. Where it does, `ratio` is for requests without one.
    pub parent_based: bool,
    /// The share of traces, 0 to 1.
    pub ratio: f64,
}

/// Where one signal goes.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpTarget {
    /// `protocol`
    pub protocol: OtlpProtocol,
    /// `endpoint`, complete: over HTTP with the signal's path.
    pub endpoint: String,
    /// `headers`: names and values that can be sent.
    pub headers: Vec<(String, String)>,
    /// `timeout` of one request, retries included. Default 10 s.
    pub timeout: Duration,
    /// `compression`
    pub gzip: bool,
    /// A PEM bundle of certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files with a certificate and its key, to be shown to the collector.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, usually at port 4317.
    Grpc,
    /// Protobuf over HTTP/1.1, usually at port 4318.
    Http,
}

/// A bounded queue and how it is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// The most that wait; more are dropped and counted.
    pub max_queue: usize,
    /// The most that are sent at a time.
    pub max_batch: usize,
    /// How long one waits for others.
    pub delay: Duration,
    /// How long the export of a batch may take, retries included.
    pub export_timeout: Duration,
}

/// One kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Figures.
    Metrics,
    /// Spans.
    Traces,
    /// Log lines.
    Logs,
}

impl Signal {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Traces, Self::Logs];

    /// Its name in the file, and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }
}

pub(super) const PROTOCOL: Choice<OtlpProtocol> =
    Choice(&[("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::Http)]);
pub(super) const COMPRESSION: Choice<bool> = Choice(&[("none", false), ("gzip", true)]);

/// What the file says where no variable says otherwise.
pub(super) struct Common {
    pub(super) protocol: OtlpProtocol,
    pub(super) endpoint: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    pub(super) interval: Duration,
    pub(super) sampling_ratio: f64,
}

/// Reads the table with the variables on top.
pub(super) fn read(file: Option<Setting>, mut variables: Variables, report: &mut Report) -> OtlpConfig {
    let file = report.expect_table("telemetry.otlp", file);
    let in_file = file.get("signals").and_then(|setting| Signals.parse(&setting.raw)).unwrap_or_default();
    let overrides = variables.settings(&in_file);
    let mut section = Section::begin("telemetry.otlp", "[telemetry.otlp]", file, overrides, report);
    let signals = section.take("signals", &Signals, Vec::new()).value;
    let common = Common {
        protocol: section.take("protocol", &PROTOCOL, OtlpProtocol::Grpc).value,
        endpoint: section.take("endpoint", &OrWord("auto", Endpoint), None).value,
        headers: section.take("headers", &Headers, Vec::new()).value,
        timeout: section.take("timeout", &Span::MILLISECOND, Duration::from_secs(10)).value,
        gzip: section.take("compression", &COMPRESSION, false).value,
        interval: section.take("interval", &Span::MILLISECOND, Duration::from_secs(60)).value,
        sampling_ratio: section.take("sampling_ratio", &Fraction { zero: true }, 0.01).value,
    };
    section.end();
    let on = |signal: Signal| signals.contains(&signal);
    OtlpConfig {
        metrics: on(Signal::Metrics).then(|| variables.metrics(&common)),
        traces: on(Signal::Traces).then(|| variables.traces(&common)),
        logs: on(Signal::Logs).then(|| variables.logs(&common)),
        ignored: variables.into_ignored(),
    }
}

/// Names of signals, in an array.
struct Signals;

const SIGNAL: Choice<Signal> =
    Choice(&[("metrics", Signal::Metrics), ("traces", Signal::Traces), ("logs", Signal::Logs)]);

impl Format for Signals {
    type Value = Vec<Signal>;

    fn parse(&self, raw: &Raw) -> Option<Vec<Signal>> {
        let Raw::Array(items) = raw else { return None };
        items.iter().map(|item| SIGNAL.parse(&item.raw)).collect()
    }

    fn allowed(&self) -> String {
        format!("an array of {}", SIGNAL.allowed())
    }

    fn render(&self, signals: &Vec<Signal>) -> String {
        let names: Vec<String> = signals.iter().map(|signal| quoted(signal.name())).collect();
        format!("[{}]", names.join(", "))
    }
}

/// Signals as a setting that a variable made.
pub(super) fn signals_as_raw(signals: &[Signal], setting: impl Fn(Raw) -> Setting) -> Raw {
    Raw::Array(signals.iter().map(|signal| setting(Raw::Text(signal.name().to_owned()))).collect())
}

/// A URL of a collector.
pub(super) struct Endpoint;

impl Format for Endpoint {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Option<String> {
        let Raw::Text(text) = raw else { return None };
        let uri: Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        // Collectors are told who comes in headers. A user and a password, or a key in the query, would be shown in error messages
        // and by config show. (A fragment is never sent, and parsing leaves it out.)
        let has_secret = uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
            || uri.query().is_some()
            || text.contains('#');
        (is_http && !has_secret && uri.host().is_some_and(|host| !host.is_empty())).then(|| text.clone())
    }

    fn allowed(&self) -> String {
        "a URL such as \"http://127.0.0.1:4317\" or \"https://collector.example:4318\", without a user or a query in it, as \
         credentials belong into headers"
            .to_owned()
    }

    fn render(&self, text: &String) -> String {
        quoted(text)
    }
}

/// Names and values that can be sent as HTTP headers, as a table.
struct Headers;

impl Format for Headers {
    type Value = Vec<(String, String)>;

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        let Raw::Table(table) = raw else { return None };
        let header = |(name, setting): (&String, &Setting)| match &setting.raw {
            // A file made by config show would send just that.
            Raw::Text(value) if value != HIDDEN => header(name, value),
            _ => None,
        };
        table.iter().map(header).collect()
    }

    fn allowed(&self) -> String {
        "a table of header names and texts such as { authorization = \"Bearer abc\" }, the texts that config show hides \
         filled in"
            .to_owned()
    }

    fn render(&self, headers: &Self::Value) -> String {
        inline_table(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// They are credentials as often as not.
    fn show(&self, headers: &Self::Value) -> String {
        inline_table(headers.iter().map(|(name, _)| (name.as_str(), HIDDEN)))
    }

    fn is_secret(&self) -> bool {
        true
    }
}

fn inline_table<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// A header if it can be sent.
pub(super) fn header(name: &str, value: &str) -> Option<(String, String)> {
    HeaderName::try_from(name).ok()?;
    HeaderValue::try_from(value).ok()?;
    Some((name.to_ascii_lowercase(), value.to_owned()))
}

/// Headers as a setting that a variable made.
pub(super) fn headers_as_raw(headers: &[(String, String)], setting: impl Fn(Raw) -> Setting) -> Raw {
    let table: Table =
        headers.iter().map(|(name, value)| (name.clone(), setting(Raw::Text(value.clone())))).collect();
    Raw::Table(table)
}
