//! What the rings keep, and what a point says.

use std::time::UNIX_EPOCH;

use engine::{Counters, Limits};

use super::*;

const LIMITS: Limits = Limits { max_items: Some(9), max_memory_bytes: 1000, max_value_bytes: 100 };
/// 2001-09-09.
const START: Duration = Duration::from_secs(1_000_000_000);

fn sample(uptime: Duration, counters: Counters) -> Sample {
    Sample {
        time: UNIX_EPOCH + START + uptime,
        uptime,
        store: StoreStats { counters, limits: LIMITS, policy: "lru", store: "memory", shards: 1 },
        active_requests: 0,
        latency: None,
        eviction_age: None,
    }
}

/// A history of so many seconds in each of which there was one hit more than in the one before.
fn seconds(count: u64) -> History {
    let history = History::default();
    for second in 0..=count {
        let hits = second * (second + 1) / 2;
        history.record(&sample(Duration::from_secs(second), Counters { hits, ..Counters::default() }));
    }
    history
}

fn hits(view: &View) -> Vec<u32> {
    view.points.iter().map(|point| point.hits).collect()
}

#[test]
fn a_point_tells_what_happened_since_the_one_before() {
    let history = History::default();
    let before = Counters {
        entries: 1,
        memory_bytes: 10,
        hits: 100,
        misses: 200,
        evictions: 300,
        expired: 400,
        rejected_oversize: 500,
        rejected_capacity: 600,
        rejected_admission: 700,
        ..Counters::default()
    };
    let after = Counters {
        entries: 2,
        memory_bytes: 20,
        hits: 101,
        misses: 202,
        evictions: 303,
        expired: 404,
        rejected_oversize: 505,
        rejected_capacity: 606,
        rejected_admission: 707,
        ..Counters::default()
    };
    history.record(&sample(Duration::ZERO, before));
    assert_eq!(history.read(Step::Second, 0).points, []);
    let latency = |counts: [u64; 3]| Some(Distribution::new(&[1_000, 1_001_000], counts.to_vec()));
    let mut first = sample(Duration::from_millis(900), before);
    first.latency = latency([50, 50, 0]);
    history.record(&first);
    let mut second = sample(Duration::from_millis(2100), after);
    second.active_requests = 4;
    second.latency = latency([50, 150, 0]);
    second.eviction_age = latency([1, 0, 0]);
    history.record(&second);
    let view = history.read(Step::Second, 0);
    assert_eq!((view.next, view.points.len()), (2, 2));
    assert_eq!(view.points[0].requests, None, "nobody counted when the interval began");
    let expected = Point {
        end_ms: 1_000_000_002_100,
        lasted_ms: 1200,
        hits: 1,
        misses: 2,
        evictions: 3,
        expired: 4,
        rejected: 11,
        requests: Some(100),
        latency_p50: Some(0.000_501),
        latency_p99: Some(0.000_991),
        eviction_age_p50: None,
        active_requests: 4,
        entries: 2,
        memory_bytes: 20,
    };
    assert_eq!(view.points[1], expected);
}

#[test]
fn each_ring_keeps_its_newest_points_and_no_more() {
    let day = seconds(86_400);
    let fine = day.read(Step::Second, 0);
    assert_eq!(fine.next, 86_400);
    assert_eq!(hits(&fine), (86_101..=86_400).collect::<Vec<_>>());
    let coarse = day.read(Step::HalfMinute, 0);
    assert_eq!((coarse.next, coarse.points.len()), (2880, 720));
    assert!(coarse.points.iter().all(|point| point.lasted_ms == 30_000));
    assert_eq!(coarse.points[719].hits, (86_371..=86_400).sum::<u32>());
    let bytes: usize = Step::ALL.map(|step| step.points() * size_of::<Point>()).iter().sum();
    assert!(bytes < 96 * 1024, "{bytes}");
}

#[test]
fn a_reader_gets_what_is_new_to_it() {
    let history = seconds(1000);
    for (since, expected) in [
        (1000, vec![]),
        (999, vec![1000]),
        (997, vec![998, 999, 1000]),
        // Forgotten meanwhile, or told by a server that ran before: everything.
        (5, (701..=1000).collect()),
        (1001, (701..=1000).collect()),
        (u64::MAX, (701..=1000).collect()),
    ] {
        assert_eq!(hits(&history.read(Step::Second, since)), expected, "since {since}");
    }
}

#[test]
fn late_and_early_samples_shift_no_interval() {
    let history = History::default();
    let mut uptime = Duration::ZERO;
    for second in 0..600_u64 {
        history.record(&sample(uptime, Counters::default()));
        // Up to 0.2 s off the beat, one way or the other.
        let jitter = Duration::from_millis((second * 7919) % 400);
        uptime = Duration::from_secs(second + 1) + jitter;
    }
    let coarse = history.read(Step::HalfMinute, 0);
    assert_eq!(coarse.points.len(), 19);
    assert!(coarse.points.iter().all(|point| (29_500..30_500).contains(&point.lasted_ms)));
}

#[test]
fn a_store_that_does_not_answer_leaves_a_longer_interval() {
    let history = seconds(3);
    history.miss();
    let view = history.read(Step::Second, 0);
    assert!(!view.store_answers);
    assert_eq!(view.store.expect("as it was").counters.hits, 6);
    let later = Counters { hits: 16, ..Counters::default() };
    history.record(&sample(Duration::from_secs(8), later));
    let view = history.read(Step::Second, 3);
    assert!(view.store_answers);
    assert_eq!((view.points[0].hits, view.points[0].lasted_ms), (10, 5000));
}

#[test]
fn counters_that_were_set_back_and_enormous_ones_do_no_harm() {
    let history = seconds(2);
    history.record(&sample(Duration::from_secs(3), Counters::default()));
    let huge = Counters { hits: u64::MAX, entries: u64::MAX, ..Counters::default() };
    history.record(&sample(Duration::from_secs(4), huge));
    let view = history.read(Step::Second, 2);
    assert_eq!(hits(&view), [0, u32::MAX]);
    assert_eq!(view.points[1].entries, u64::MAX);
}
