//! What a scrape must look like, checked by a parser that accepts nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use engine::{Counters, EvictionSample, Evictions, Gauge, Insight, Limits};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader};

use super::*;
use crate::config::Signal;

const COUNTERS: [&str; 9] = [
    "tiny_cache_hits_total",
    "tiny_cache_misses_total",
    "tiny_cache_evictions_total",
    "tiny_cache_lru_evictions_total",
    "tiny_cache_expired_removals_total",
    "tiny_cache_rejected_oversize_total",
    "tiny_cache_rejected_capacity_total",
    "tiny_cache_tls_reloads_total",
    "tiny_cache_tls_reload_failures_total",
];

const GAUGES: [&str; 9] = [
    "tiny_cache_entries",
    "tiny_cache_memory_usage_bytes",
    "tiny_cache_capacity_max_items",
    "tiny_cache_capacity_max_memory_bytes",
    "tiny_cache_capacity_max_value_bytes",
    "tiny_cache_capacity_item_saturation_ratio",
    "tiny_cache_capacity_memory_saturation_ratio",
    "tiny_cache_active_requests",
    "tiny_cache_uptime_seconds",
];

#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    help: String,
    /// What follows the family's name in each sample (a suffix, labels), and the value.
    samples: BTreeMap<String, f64>,
}

impl Family {
    /// The value of the one sample without labels.
    #[track_caller]
    fn value(&self) -> f64 {
        assert_eq!(self.samples.keys().collect::<Vec<_>>(), [""], "{self:?}");
        self.samples[""]
    }
}

/// Reads families of HELP, TYPE and samples, each name and each sample once.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert_eq!(families.insert(name.to_owned(), family), None, "{name} twice");
            name.clone_into(&mut current);
            continue;
        }
        let family = families.get_mut(&current).expect("HELP comes first");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            kind.strip_prefix(&format!("{current} ")).expect(line).clone_into(&mut family.kind);
            continue;
        }
        let (sample, value) = line.strip_prefix(&current).and_then(|rest| rest.rsplit_once(' ')).expect(line);
        assert_eq!(
            family.samples.insert(sample.to_owned(), value.parse().expect(line)),
            None,
            "{line} twice"
        );
    }
    families
}

fn store() -> StoreStats {
    let counters = Counters {
        entries: 10,
        memory_bytes: 4096,
        hits: 1,
        misses: 2,
        evictions: 3,
        expired: 4,
        rejected_oversize: 5,
        rejected_capacity: 6,
        rejected_admission: 7,
        replaced: 15,
        deleted: 16,
        cleared: 17,
        swept: 2,
        key_bytes: 100,
        value_bytes: 3000,
        largest_shard_bytes: 1536,
        recoveries: 18,
    };
    let limits = Limits { max_items: Some(40), max_memory_bytes: 8192, max_value_bytes: 1024 };
    StoreStats { counters, limits, policy: "lru", store: "memory", shards: 4 }
}

/// Tells always the same, but for the hits of the store, which are the number of times that it was asked.
#[derive(Default)]
pub(crate) struct Fixed {
    asked: AtomicU64,
}

impl Sources for Fixed {
    fn store(&self) -> Option<StoreStats> {
        let mut stats = store();
        stats.counters.hits = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        Some(stats)
    }

    fn snapshot(&self, store: StoreStats) -> Snapshot {
        let active_requests = store.counters.hits + 8;
        let grpc = TransportFigures {
            kind: "grpc",
            open: 1,
            certificate_expiry: Some(2_000_000_000),
            refused: [("too_many", 4)].into(),
            request_ids_replaced: 21,
            limits: [("max_connections", 22)].into(),
            ..TransportFigures::default()
        };
        let http = TransportFigures { kind: "http", open: 2, sent_bytes: 3, ..TransportFigures::default() };
        let exports = ExportCounters::default();
        exports.exported(Signal::Traces, false);
        exports.lose_lines(12);
        exports.lose_log_lines(13);
        Snapshot {
            store,
            insight: Insight {
                sweep_backlog: 13,
                policy: vec![Gauge::count("ghost_hits", 14), Gauge::mean("window_target_ratio", 0.25)],
            },
            service: ServiceFigures {
                active_requests,
                rejected_keys: [("empty", 19), ("too_long", 20)].into(),
                uptime: Duration::from_millis(1500),
                runtime_tasks: 17,
                operations: Vec::new(),
            },
            transports: vec![grpc, http],
            tls: FileReloads { done: 11, failed: 12 },
            tokens: FileReloads { done: 17, failed: 18 },
            config: ConfigReloadFigures { succeeded: 15, failed: 16 },
            process: ProcessFigures::read(),
            exports: exports.figures(),
        }
    }
}

/// Metrics of a server that does nothing.
pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Arc::new(Fixed::default()), true).expect("builds"))
}

fn render(metrics: &Metrics, store: StoreStats) -> BTreeMap<String, Family> {
    parse(&metrics.render(store).expect("renders"))
}

#[test]
fn the_names_and_types_are_those_of_the_dashboards() {
    let families = render(&metrics(), store());
    for (names, kind) in [(COUNTERS, "counter"), (GAUGES, "gauge")] {
        for name in names {
            let family = families.get(name).expect(name);
            assert_eq!(family.kind, kind, "{name}");
            family.value();
        }
    }
    for (name, family) in families {
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
    }
}

#[test]
fn every_value_is_the_snapshots() {
    let families = render(&metrics(), store());
    let expected = COUNTERS
        .into_iter()
        .zip([1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0, 11.0, 12.0])
        .chain(GAUGES.into_iter().zip([10.0, 4096.0, 40.0, 8192.0, 1024.0, 0.25, 0.5, 9.0, 1.5]));
    for (name, value) in expected {
        assert!((families[name].value() - value).abs() < f64::EPSILON, "{name}: {:?}", families[name]);
    }
}

#[test]
fn labels_tell_transports_reasons_and_kinds_apart() {
    let families = render(&metrics(), store());
    for (family, sample, expected) in [
        ("tiny_cache_connections_open", r#"{transport="grpc"}"#, 1.0),
        ("tiny_cache_connections_open", r#"{transport="http"}"#, 2.0),
        ("tiny_cache_connections_refused_total", r#"{reason="too_many",transport="grpc"}"#, 4.0),
        ("tiny_cache_tls_certificate_expiry_seconds", r#"{transport="grpc"}"#, 2e9),
        ("tiny_cache_io_bytes_total", r#"{direction="sent",transport="http"}"#, 3.0),
        ("tiny_cache_telemetry_exports_total", r#"{result="failed",signal="traces"}"#, 1.0),
        ("tiny_cache_telemetry_dropped_total", r#"{signal="access_log"}"#, 12.0),
        ("tiny_cache_telemetry_dropped_total", r#"{signal="standard_error"}"#, 13.0),
        ("tiny_cache_config_reloads_total", r#"{result="ok"}"#, 15.0),
        ("tiny_cache_config_reloads_total", r#"{result="failed"}"#, 16.0),
        ("tiny_cache_rejected_keys_total", r#"{reason="empty"}"#, 19.0),
        ("tiny_cache_rejected_keys_total", r#"{reason="too_long"}"#, 20.0),
        ("tiny_cache_request_ids_replaced_total", r#"{transport="grpc"}"#, 21.0),
        ("tiny_cache_request_ids_replaced_total", r#"{transport="http"}"#, 0.0),
        ("tiny_cache_limit", r#"{limit="max_connections",transport="grpc"}"#, 22.0),
        ("tiny_cache_limit", r#"{limit="max_items"}"#, 40.0),
        ("tiny_cache_limit", r#"{limit="max_memory"}"#, 8192.0),
        ("tiny_cache_limit", r#"{limit="max_value"}"#, 1024.0),
        ("tiny_cache_removals_total", r#"{reason="evicted"}"#, 3.0),
        ("tiny_cache_removals_total", r#"{reason="expired"}"#, 4.0),
        ("tiny_cache_removals_total", r#"{reason="rejected"}"#, 7.0),
        ("tiny_cache_removals_total", r#"{reason="replaced"}"#, 15.0),
        ("tiny_cache_removals_total", r#"{reason="deleted"}"#, 16.0),
        ("tiny_cache_removals_total", r#"{reason="cleared"}"#, 17.0),
        ("tiny_cache_resident_bytes", r#"{kind="keys"}"#, 100.0),
        ("tiny_cache_resident_bytes", r#"{kind="values"}"#, 3000.0),
        ("tiny_cache_resident_bytes", r#"{kind="overhead"}"#, 996.0),
        ("tiny_cache_shards", "", 4.0),
        ("tiny_cache_shard_imbalance_ratio", "", 1.5),
        ("tiny_cache_sweep_removed_total", "", 2.0),
        ("tiny_cache_sweep_backlog", "", 13.0),
        ("tiny_cache_policy_state", r#"{gauge="ghost_hits",policy="lru"}"#, 14.0),
        ("tiny_cache_policy_state", r#"{gauge="window_target_ratio",policy="lru"}"#, 0.25),
        ("tiny_cache_policy_info", r#"{policy="lru",store="memory"}"#, 1.0),
    ] {
        let value = families[family].samples.get(sample).unwrap_or_else(|| panic!("{:?}", families[family]));
        assert!((value - expected).abs() < f64::EPSILON, "{family}{sample}: {value}");
    }
    let expiry = &families["tiny_cache_tls_certificate_expiry_seconds"];
    assert_eq!(expiry.samples.len(), 1, "plaintext has no certificate: {expiry:?}");
}

#[test]
fn sampled_evictions_are_told_as_they_were() {
    let metrics = metrics();
    let recorded = metrics.store().expect("recording");
    let samples = [(90, 2), (90, 90), (7200, 4)]
        .map(|(age, idle)| EvictionSample { age: Duration::from_secs(age), idle: Duration::from_secs(idle) });
    recorded.evicted(&Evictions { samples: samples.to_vec(), left_out: 0 });
    recorded.evicted(&Evictions { samples: Vec::new(), left_out: 5 });
    recorded.swept(Duration::from_millis(3));
    let families = render(&metrics, store());
    for (family, sample, expected) in [
        ("tiny_cache_eviction_age_seconds", "_count", 3.0),
        ("tiny_cache_eviction_age_seconds", "_sum", 7380.0),
        ("tiny_cache_eviction_age_seconds", r#"_bucket{le="60"}"#, 0.0),
        ("tiny_cache_eviction_age_seconds", r#"_bucket{le="300"}"#, 2.0),
        ("tiny_cache_eviction_idle_seconds", r#"_bucket{le="5"}"#, 2.0),
        ("tiny_cache_eviction_idle_seconds", "_sum", 96.0),
        ("tiny_cache_eviction_left_out_total", "", 5.0),
        ("tiny_cache_sweep_duration_seconds", r#"_bucket{le="0.0025"}"#, 0.0),
        ("tiny_cache_sweep_duration_seconds", r#"_bucket{le="0.005"}"#, 1.0),
    ] {
        let value = families[family].samples.get(sample).unwrap_or_else(|| panic!("{:?}", families[family]));
        assert!((value - expected).abs() < f64::EPSILON, "{family}{sample}: {value}");
    }
}

#[test]
fn an_empty_store_is_balanced() {
    let mut empty = store();
    empty.counters = Counters::default();
    let families = render(&metrics(), empty);
    assert!((families["tiny_cache_shard_imbalance_ratio"].value() - 1.0).abs() < f64::EPSILON);
}

#[test]
fn calls_are_told_with_method_and_status_and_failures_with_their_type() {
    let metrics = metrics();
    let rpc = metrics.rpc().expect("recording");
    let get = RpcMethod::of_path("/cache.CacheService/Get");
    for (method, code, microseconds) in
        [(get, 0, 20), (get, 0, 60), (get, 13, 60), (RpcMethod::of_path("/x/y"), 12, 1)]
    {
        rpc.record(method, code, Duration::from_micros(microseconds));
    }
    let family = &render(&metrics, store())["rpc_server_call_duration_seconds"];
    assert_eq!(family.kind, "histogram");
    let get = r#"rpc_method="cache.CacheService/Get",rpc_response_status_code="#;
    let system = r#"rpc_system_name="grpc""#;
    for (sample, expected) in [
        (format!("_count{{{get}\"OK\",{system}}}"), 2.0),
        (format!("_bucket{{{get}\"OK\",{system},le=\"0.000025\"}}"), 1.0),
        (format!("_bucket{{{get}\"OK\",{system},le=\"0.0001\"}}"), 2.0),
        (format!("_sum{{{get}\"OK\",{system}}}"), 80e-6),
        (format!("_count{{error_type=\"INTERNAL\",{get}\"INTERNAL\",{system}}}"), 1.0),
        (
            format!(
                "_count{{error_type=\"UNIMPLEMENTED\",rpc_method=\"_OTHER\",\
                 rpc_response_status_code=\"UNIMPLEMENTED\",{system}}}"
            ),
            1.0,
        ),
    ] {
        let value = family.samples.get(&sample).unwrap_or_else(|| panic!("no {sample} in {family:#?}"));
        assert!((value - expected).abs() < 1e-9, "{sample}: {value}");
    }
}

#[test]
fn nothing_is_recorded_where_that_is_off() {
    let metrics = Metrics::new(Arc::new(Fixed::default()), false).expect("builds");
    assert!(metrics.rpc().is_none() && metrics.http().is_none());
    let families = render(&metrics, store());
    assert!(families.values().all(|family| family.kind != "histogram"));
    assert!(families.contains_key("tiny_cache_hits_total"));
}

#[test]
fn a_scrape_shows_the_newest_snapshot_without_adding_up() {
    let metrics = metrics();
    render(&metrics, store());
    let mut later = store();
    later.counters.hits = 100;
    for _ in 0..2 {
        assert!(
            (render(&metrics, later.clone())["tiny_cache_hits_total"].value() - 100.0).abs() < f64::EPSILON
        );
    }
}

#[test]
fn overlapping_scrapes_each_show_their_own_snapshot_whole() {
    let metrics = metrics();
    thread::scope(|scope| {
        for scraper in 0..4 {
            let metrics = &metrics;
            scope.spawn(move || {
                for round in 0..50 {
                    let mark = scraper * 1000 + round;
                    let mut own = store();
                    own.counters.hits = mark;
                    let families = render(metrics, own);
                    let shown = |name: &str| format!("{}", families[name].value());
                    assert_eq!(shown("tiny_cache_hits_total"), mark.to_string());
                    assert_eq!(shown("tiny_cache_active_requests"), (mark + 8).to_string());
                }
            });
        }
    });
}

#[test]
fn another_reader_has_a_snapshot_taken() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let metrics = Metrics::with_readers(Arc::new(Fixed::default()), true, |builder| {
        builder.with_reader(reader.clone())
    });
    let metrics = metrics.expect("builds");
    metrics.refreshed(|| reader.force_flush()).expect("the store answers").expect("exports");
    let resources = exporter.get_finished_metrics().expect("whole");
    let mut values = BTreeMap::new();
    for metric in resources.iter().flat_map(ResourceMetrics::scope_metrics).flat_map(ScopeMetrics::metrics) {
        if let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() {
            values.extend(sum.data_points().map(|point| (metric.name().to_owned(), point.value())));
        }
    }
    // Asked once, though many instruments read it.
    assert_eq!(values.get("tiny_cache.hits"), Some(&1));
    assert_eq!(values.get("tiny_cache.misses"), Some(&2));
}

/// A store that is asked, and does not answer until somebody gives it up.
struct Hanging {
    asked: mpsc::Sender<()>,
    silence: Mutex<mpsc::Receiver<()>>,
}

impl Sources for Hanging {
    fn store(&self) -> Option<StoreStats> {
        self.asked.send(()).expect("the test listens");
        self.silence.lock().expect("asked by one at a time").recv().expect("the test gives up");
        None
    }

    fn snapshot(&self, store: StoreStats) -> Snapshot {
        Fixed::default().snapshot(store)
    }
}

#[test]
fn a_store_that_hangs_is_asked_once_and_holds_up_no_scrape() {
    let (asked, is_asked) = mpsc::channel();
    let (give_up, silence) = mpsc::channel();
    let sources = Hanging { asked, silence: Mutex::new(silence) };
    let metrics = Metrics::new(Arc::new(sources), true).expect("builds");
    thread::scope(|scope| {
        let other = scope.spawn(|| metrics.refreshed(|| unreachable!("there is nothing to read")));
        is_asked.recv().expect("asked");
        let families = render(&metrics, store());
        assert!((families["tiny_cache_hits_total"].value() - 1.0).abs() < f64::EPSILON);
        give_up.send(()).expect("waited for");
        assert_eq!(other.join().expect("no panic"), None::<()>);
    });
    assert!(is_asked.try_recv().is_err(), "asked again");
}

#[test]
fn no_limit_on_items_is_no_saturation() {
    let mut unlimited = store();
    unlimited.limits.max_items = None;
    let families = render(&metrics(), unlimited);
    assert!(families["tiny_cache_capacity_item_saturation_ratio"].value() < 1e-9);
    assert!(families["tiny_cache_capacity_max_items"].value() > 1e19);
}
