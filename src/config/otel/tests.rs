//! What sets of variables make of a file without the table.

use std::time::Duration;

use super::Variables;
use crate::config::otlp::{
    self, BatchConfig, OtlpConfig, OtlpProtocol, OtlpTarget, Sampling, Temporality, TraceExport,
};
use crate::config::section::Report;

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
        (&[(own, "there:1"), insecure, ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false")], "https://there:1"),
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
