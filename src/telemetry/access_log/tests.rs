use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::config::LogDestination;
use crate::telemetry::operations::OperationKind;

use super::*;

const HASH: LoggedKeys = LoggedKeys::Hash;

struct Log {
    directory: tempfile::TempDir,
    log: Arc<AccessLog>,
}

impl Log {
    fn with(change: impl FnOnce(&mut AccessLogConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = AccessLogConfig {
            destination: LogDestination::File(directory.path().join("log")),
            place: Origin::Default,
            sample: 1.0,
            keys: HASH,
            queue_lines: 1 << 16,
            flush_interval: Duration::from_millis(5),
        };
        change(&mut config);
        let log = Arc::new(AccessLog::open(&config, Arc::default()).expect("opens"));
        Self { directory, log }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn get(&self, key: &str) {
        self.log.on_operation(&Operation {
            kind: OperationKind::Get,
            namespace: "",
            key,
            result: OperationResult::Hit,
            value_bytes: Some(1),
            ttl: None,
            latency: None,
            in_batch: false,
        });
    }

    fn end(self) -> tempfile::TempDir {
        let Self { directory, log } = self;
        log.stop();
        let log = Arc::into_inner(log).expect("nobody else has it");
        let shared = Arc::clone(&log.shared);
        drop(log);
        wait_for("the thread ends", || Arc::strong_count(&shared) == 1);
        directory
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        thread::yield_now();
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn every_operation_is_a_line_and_none_is_lost_at_the_end() {
    let log = Log::with(|config| config.flush_interval = Duration::from_secs(3600));
    for number in 0..5_000 {
        log.get(&format!("k{number}"));
    }
    assert_eq!(log.log.shared.lost_lines(), 0);
    let directory = log.end();
    let lines = lines(&directory.path().join("log"));
    assert_eq!(lines.len(), 5_000);
    for (number, line) in lines.iter().enumerate() {
        let fingerprint = Key::shared(format!("k{number}").as_bytes()).expect("short").fingerprint();
        assert_eq!(line["key_hash"], format!("{fingerprint:016x}"), "in order, by its fingerprint");
    }
}

#[test]
fn what_is_no_key_is_not_logged() {
    let log = Log::with(|_| ());
    let invalid = Operation {
        kind: OperationKind::Get,
        namespace: "",
        key: "",
        result: OperationResult::Invalid,
        value_bytes: None,
        ttl: None,
        latency: None,
        in_batch: false,
    };
    log.log.on_operation(&invalid);
    log.get("k");
    assert_eq!(lines(&log.end().path().join("log")).len(), 1);
}

#[test]
fn a_sample_has_all_operations_of_its_share_of_the_keys() {
    const KEYS: usize = 20_000;
    for (share, keys) in [(0.1, HASH), (0.1, LoggedKeys::Text), (0.5, HASH)] {
        let log = Log::with(|config| (config.sample, config.keys) = (share, keys));
        for number in 0..2 * KEYS {
            log.get(&format!("user:{}", number % KEYS));
        }
        let mut counts = std::collections::HashMap::new();
        for line in lines(&log.end().path().join("log")) {
            let name = if keys == HASH { "key_hash" } else { "key" };
            *counts.entry(line[name].as_str().expect("text").to_owned()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|&count| count == 2), "both or none");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let found = counts.len() as f64 / KEYS as f64;
        // Five standard deviations.
        let spread = 5.0 * (share * (1.0 - share) / 20_000.0_f64).sqrt();
        assert!((found - share).abs() < spread, "{found} of {share}");
    }
}

#[test]
fn a_full_queue_loses_lines_and_counts_them_and_never_waits() {
    // /dev/full takes nothing, so the queue stays full.
    let log = Log::with(|config| {
        config.destination = LogDestination::File("/dev/full".into());
        config.queue_lines = 8;
    });
    for number in 0..1_000_000 {
        log.get(&format!("k{number}"));
        if log.log.shared.lost_lines() >= 1000 {
            break;
        }
        thread::yield_now();
    }
    assert!(log.log.shared.lost_lines() >= 1000);
    log.end();
}

#[test]
fn a_disk_that_has_room_again_gets_what_was_queued() {
    let log = Log::with(|config| {
        let LogDestination::File(path) = &config.destination else { panic!("a file") };
        std::os::unix::fs::symlink("/dev/full", path).expect("made");
    });
    (0..3_000).for_each(|number| log.get(&format!("k{number}")));
    let [good, link] = ["good", "link"].map(|name| log.directory.path().join(name));
    std::os::unix::fs::symlink(&good, &link).expect("made");
    fs::rename(&link, log.path()).expect("replaced");
    wait_for("all lines are written", || text(&good).matches('\n').count() == 3_000);
    assert_eq!(log.log.shared.lost_lines(), 0);
    log.get("last");
    assert_eq!(lines(&log.end().path().join("good")).len(), 3_001);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew_and_no_line_is_lost() {
    for told in [true, false] {
        let log = Log::with(|_| ());
        let (path, moved) = (log.path(), log.directory.path().join("moved"));
        log.get("before");
        wait_for("the first line", || text(&path).ends_with('\n'));
        fs::rename(&path, &moved).expect("there");
        if told {
            log.log.reopen();
        }
        wait_for("a new file", || path.exists());
        log.get("after");
        let directory = log.end();
        assert_eq!(lines(&directory.path().join("moved")).len(), 1, "told: {told}");
        assert_eq!(lines(&directory.path().join("log")).len(), 1, "told: {told}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_anew_stays_in_use() {
    let log = Log::with(|_| ());
    let (path, moved) = (log.path(), log.directory.path().join("moved"));
    log.get("one");
    wait_for("the first line", || text(&path).ends_with('\n'));
    fs::rename(&path, &moved).expect("there");
    fs::create_dir(&path).expect("made");
    log.log.reopen();
    log.get("two");
    wait_for("the second line", || text(&moved).matches('\n').count() == 2);
    fs::remove_dir(&path).expect("empty");
    wait_for("a new file", || path.is_file());
    log.end();
}

#[test]
fn many_threads_log_without_mixing_their_lines() {
    let log = Log::with(|config| config.keys = LoggedKeys::Text);
    thread::scope(|scope| {
        for worker in 0..4 {
            let log = &log;
            scope.spawn(move || (0..5_000).for_each(|number| log.get(&format!("{worker}-{number}"))));
        }
    });
    assert_eq!(log.log.shared.lost_lines(), 0);
    let found = lines(&log.end().path().join("log"));
    let keys: std::collections::HashSet<&str> =
        found.iter().map(|line| line["key"].as_str().expect("text")).collect();
    assert_eq!((found.len(), keys.len()), (20_000, 20_000));
}

#[test]
fn a_path_that_cannot_be_opened_is_told_with_its_place() {
    let config = AccessLogConfig {
        destination: LogDestination::File("/no/such/directory/log".into()),
        place: Origin::Variable("SOME_PLACE".to_owned()),
        sample: 1.0,
        keys: HASH,
        queue_lines: 1,
        flush_interval: Duration::from_secs(1),
    };
    let told = AccessLog::open(&config, Arc::default()).err().expect("refused").to_string();
    assert!(
        told.ends_with(
            "SOME_PLACE: telemetry.access_log.path: cannot open \"/no/such/directory/log\": \
             the directory /no/such/directory does not exist"
        ),
        "{told}"
    );
}

#[test]
fn a_line_names_the_request_and_the_trace_that_it_is_for() {
    use opentelemetry::SpanId;
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};

    let log = Log::with(|_| ());
    {
        let _request = request_scope::RequestScope::enter(http::HeaderValue::from_static("r"));
        let span = SpanContext::new(
            TraceId::from(7),
            SpanId::from(8),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let _span = Context::new().with_remote_span_context(span).attach();
        log.get("k");
    }
    log.get("k");
    let lines = lines(&log.end().path().join("log"));
    assert_eq!((&lines[0]["request_id"], &lines[0]["trace_id"]), (&"r".into(), &format!("{:032}", 7).into()));
    assert!(lines[1].get("request_id").is_none() && lines[1].get("trace_id").is_none());
}
