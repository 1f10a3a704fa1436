//! What a scrape must look like, checked by a parser that accepts nothing else.

use std::collections::BTreeMap;
use std::thread;

use engine::{Counters, Limits};

use super::*;

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

#[derive(Debug, PartialEq)]
struct Family {
    kind: String,
    help: String,
    value: f64,
}

/// Reads families of exactly HELP, TYPE and one sample without labels, each name once.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let lines: Vec<&str> = text.lines().collect();
    let mut families = BTreeMap::new();
    for family in lines.chunks(3) {
        let &[help, kind, sample] = family else { panic!("incomplete: {family:?}") };
        let (name, help) = help.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(help);
        let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect(kind);
        let value = sample.strip_prefix(&format!("{name} ")).expect(sample);
        let value = value.parse().expect(value);
        let family = Family { kind: kind.to_owned(), help: help.to_owned(), value };
        assert_eq!(families.insert(name.to_owned(), family), None, "{name} twice");
    }
    families
}

fn snapshot() -> Snapshot {
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
        ..Counters::default()
    };
    let limits = Limits { max_items: Some(40), max_memory_bytes: 8192, max_value_bytes: 1024 };
    let store = StoreStats { counters, limits, policy: "lru", store: "memory", shards: 1 };
    Snapshot {
        store,
        active_requests: 9,
        uptime: Duration::from_millis(1500),
        tls: TlsReloads { done: 11, failed: 12 },
    }
}

fn render(metrics: &Metrics, snapshot: Snapshot) -> BTreeMap<String, Family> {
    parse(&metrics.render(snapshot).expect("renders"))
}

#[test]
fn the_names_and_types_are_those_of_the_dashboards() {
    let families = render(&Metrics::new(TlsReloads::default).expect("builds"), snapshot());
    let expected: BTreeMap<_, _> = COUNTERS
        .map(|name| (name, "counter"))
        .into_iter()
        .chain(GAUGES.map(|name| (name, "gauge")))
        .collect();
    let actual: BTreeMap<_, _> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(actual, expected);
    assert!(families.values().all(|family| family.help.ends_with('.')));
}

#[test]
fn every_value_is_the_snapshots() {
    let families = render(&Metrics::new(TlsReloads::default).expect("builds"), snapshot());
    let expected = COUNTERS
        .into_iter()
        .zip([1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0])
        .chain(GAUGES.into_iter().zip([10.0, 4096.0, 40.0, 8192.0, 1024.0, 0.25, 0.5, 9.0, 1.5]));
    for (name, value) in expected {
        assert!((families[name].value - value).abs() < f64::EPSILON, "{name}: {:?}", families[name]);
    }
}

#[test]
fn a_scrape_shows_the_newest_snapshot_without_adding_up() {
    let metrics = Metrics::new(TlsReloads::default).expect("builds");
    let first = render(&metrics, snapshot());
    assert_eq!(render(&metrics, snapshot()), first);
    let mut later = snapshot();
    later.store.counters.hits = 100;
    assert!((render(&metrics, later)["tiny_cache_hits_total"].value - 100.0).abs() < f64::EPSILON);
}

#[test]
fn overlapping_scrapes_each_show_their_own_snapshot_whole() {
    let metrics = Metrics::new(TlsReloads::default).expect("builds");
    thread::scope(|scope| {
        for scraper in 0..4 {
            let metrics = &metrics;
            scope.spawn(move || {
                for round in 0..50 {
                    let mark = scraper * 1000 + round;
                    let mut own = snapshot();
                    own.store.counters.hits = mark;
                    own.active_requests = mark;
                    let families = render(metrics, own);
                    let shown = |name: &str| format!("{}", families[name].value);
                    assert_eq!(shown("tiny_cache_hits_total"), mark.to_string());
                    assert_eq!(shown("tiny_cache_active_requests"), mark.to_string());
                }
            });
        }
    });
}

#[test]
fn saturation_stays_between_zero_and_one() {
    let cases = [(0, 40, 0.0), (10, 40, 0.25), (40, 40, 1.0), (50, 40, 1.0), (10, u64::MAX, 0.0)];
    for (used, limit, expected) in cases {
        assert!((saturation(used, limit) - expected).abs() < 1e-9, "{used} of {limit}");
    }
}

#[test]
fn no_limit_on_items_is_no_saturation() {
    let mut unlimited = snapshot();
    unlimited.store.limits.max_items = None;
    let families = render(&Metrics::new(TlsReloads::default).expect("builds"), unlimited);
    assert!(families["tiny_cache_capacity_item_saturation_ratio"].value < 1e-9);
    assert!(families["tiny_cache_capacity_max_items"].value > 1e19);
}
