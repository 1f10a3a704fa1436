//! Log lines to standard error, as text for people or as JSON for machines. Who logs never waits for whoever reads them: they go
//! through a queue (`log_queue.rs`).
//!
//! The configured level is that of tiny-cache's own lines. Of its dependencies only warnings and
//! errors are shown, since their lines are about their insides, and only errors of those that read what strangers send; at `debug` they are
//! shown in full, and warnings of those.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, stderr};
use std::panic;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogFormat, LogLevel, TelemetryConfig};

use super::json_lines::JsonLines;
pub use super::log_queue::FlushAtEnd;
use super::log_queue::LogQueue;
use super::metrics::ExportCounters;
use super::otlp::LogBridge;
use super::panics;

/// The target of lines about what ends the process, and of panics. They are logged as errors, there
/// being no higher level, and are the only ones shown at [`LogLevel::Critical`].
pub const FATAL: &str = "tiny_cache::fatal";

/// The target of warnings that nobody may miss: they are shown at every level.
pub const ALWAYS: &str = "tiny_cache::always";

/// What the names of our own targets start with.
const OWN: &str = "tiny_cache";

/// What the names of targets start with whose lines are about exports.
const EXPORTERS: &str = "tiny_cache::telemetry::otlp";

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Something else in this process takes the log lines.
    #[error("logging is already set up in this process")]
    AlreadySetUp(#[from] TryInitError),
    /// There is no thread to write it, or no standard error.
    #[error("cannot start to write the log: {0}")]
    Writer(#[source] io::Error),
    /// The level cannot be changed any more.
    #[error("the log level cannot be changed")]
    Level(#[from] reload::Error),
}

/// Changes the log level while the server runs.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
}

impl LogControl {
    /// From now on, log as much as this.
    pub fn set_level(&self, level: LogLevel) -> Result<(), LogError> {
        Ok(self.filter.reload(filter(level))?)
    }
}

/// Sends the log lines of this process to standard error; panics become log lines as well.
///
/// Text is coloured on a terminal only, and not where `NO_COLOR` is set.
/// What `bridge` gets besides, where there is one, are our own lines only: dependencies have theirs when telemetry is
/// exported, which would then never end.
///
/// Lines that are lost, since nobody reads standard error, are counted in `exports`. What is queued at the end of the process is
/// written before what comes back beside the control is gone.
pub fn init(
    config: &TelemetryConfig,
    bridge: Option<LogBridge>,
    exports: Arc<ExportCounters>,
) -> Result<(LogControl, FlushAtEnd), LogError> {
    let colour = colour(stderr().is_terminal(), env::var_os("NO_COLOR").as_deref());
    let (queue, flush_at_end) = LogQueue::to_standard_error(exports).map_err(LogError::Writer)?;
    let (subscriber, control) = subscriber(config, colour, queue.clone());
    subscriber.with(bridge.map(|bridge| bridge.with_filter(exported()))).try_init()?;
    panics::install_hook();
    // A panic may be the last that the process says, as one is while things are dropped for another.
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        tell(panic);
        queue.flush_after_panic();
    }));
    Ok((control, flush_at_end))
}

pub(super) fn subscriber<W>(
    config: &TelemetryConfig,
    colour: bool,
    writer: W,
) -> (impl Subscriber + for<'s> LookupSpan<'s> + Send + Sync + use<W>, LogControl)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(config.log_level));
    let lines = match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(writer).boxed(),
        LogFormat::Json => JsonLines::new(writer).boxed(),
    };
    (Registry::default().with(filter).with(lines), LogControl { filter: handle })
}

/// Libraries that read what clients send before anybody knows who they are.
const CLIENTS: [&str; 2] = ["h2", "rustls"];

fn filter(level: LogLevel) -> Targets {
    let (own, others) = match level {
        LogLevel::Critical => (LevelFilter::OFF, LevelFilter::OFF),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warning => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
    };
    // What these warn of is what a client sends, for each frame and each handshake of that kind; and what they say at the level debug is
    // each frame.
    let of_clients =
        if level == LogLevel::Debug { LevelFilter::WARN } else { others.min(LevelFilter::ERROR) };
    let targets = CLIENTS.iter().map(|target| (*target, of_clients));
    Targets::new()
        .with_default(others)
        .with_targets(targets)
        .with_target(OWN, own)
        .with_target(FATAL, own.max(LevelFilter::ERROR))
        .with_target(ALWAYS, own.max(LevelFilter::WARN))
}

/// The lines that are exported, as far as they are shown.
fn exported() -> Targets {
    Targets::new().with_target(OWN, LevelFilter::TRACE).with_target(EXPORTERS, LevelFilter::OFF)
}

/// <https://no-color.org>: set and not empty means no colour.
fn colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use serde_json::Value;
    use tracing::subscriber::with_default;
    use tracing::{debug, error, error_span, field, info, warn};

    use crate::telemetry::capture::Captured;

    use super::*;

    fn captured(log_level: LogLevel, log_format: LogFormat, log: impl FnOnce(&LogControl)) -> Captured {
        let captured = Captured::default();
        let (subscriber, control) = captured.subscriber(log_level, log_format);
        with_default(subscriber, || log(&control));
        captured
    }

    /// Which of a fixed set of lines are shown at a level.
    fn shown_at(level: LogLevel) -> String {
        let lines = captured(level, LogFormat::Json, |_| {
            error!(target: FATAL, "F");
            warn!(target: ALWAYS, "A");
            error!(target: "tiny_cache::server", "E");
            warn!(target: "tiny_cache::server", "W");
            info!(target: "tiny_cache::server", "I");
            debug!(target: "tiny_cache::server", "D");
            error!(target: "h2::codec", "e");
            warn!(target: "h2::proto", "c");
            warn!(target: "hyper::proto", "w");
            info!(target: "hyper::server", "i");
            debug!(target: "tonic::transport", "d");
            info!(target: "h2::codec", "n");
        });
        lines.json_lines().iter().map(|line| line["message"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn levels_show_our_lines_and_of_dependencies_what_matters() {
        assert_eq!(shown_at(LogLevel::Critical), "FA");
        assert_eq!(shown_at(LogLevel::Error), "FAEe");
        assert_eq!(shown_at(LogLevel::Warning), "FAEWew");
        assert_eq!(shown_at(LogLevel::Info), "FAEWIew");
        assert_eq!(shown_at(LogLevel::Debug), "FAEWIDecwid");
    }

    #[test]
    fn the_level_changes_at_run_time() {
        let lines = captured(LogLevel::Error, LogFormat::Json, |control| {
            let log = |text| info!("{text}");
            log("before");
            control.set_level(LogLevel::Info).expect("the subscriber lives");
            log("after");
        });
        let lines = lines.json_lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "after");
    }

    #[test]
    fn a_json_line_is_one_flat_object_with_the_spans_fields() {
        let lines = captured(LogLevel::Info, LogFormat::Json, |_| {
            let span = error_span!("request", request_id = "abc", kind = "outer", late = field::Empty);
            let _outer = span.enter();
            span.record("late", 7);
            let _inner = error_span!("step", kind = "inner", target = "field", message = "span's").entered();
            info!(count = 3_u64, ratio = f64::INFINITY, ok = true, "two\nlines \"{}\"", "quoted");
        });
        let text = lines.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let names = ["{\"timestamp\":", ",\"level\":", ",\"target\":", ",\"message\":"];
        let places: Vec<_> = names.iter().map(|name| text.find(name).expect(name)).collect();
        assert!(places[0] == 0 && places.is_sorted(), "{text}");

        let mut line = lines.json_lines().remove(0);
        let timestamp = line["timestamp"].take();
        let timestamp = timestamp.as_str().expect("text");
        let shape: String = timestamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
        let expected = serde_json::json!({
            "timestamp": null,
            "level": "INFO",
            "target": module_path!(),
            "message": "two\nlines \"quoted\"",
            "request_id": "abc",
            "kind": "inner",
            "late": 7,
            "target_": "field",
            "message_": "span's",
            "count": 3,
            "ratio": "inf",
            "ok": true,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let lines = captured(LogLevel::Info, LogFormat::Json, |_| {
            let error = engine::StoreError::Unavailable("connection refused".into());
            warn!(error = &error as &dyn std::error::Error, "no answer");
        });
        assert_eq!(lines.json_lines()[0]["error"], "store unavailable: connection refused");
    }

    #[test]
    fn a_text_line_carries_the_request_id() {
        let lines = captured(LogLevel::Info, LogFormat::Text, |_| {
            let _span = error_span!("request", request_id = "abc").entered();
            info!("served");
        });
        let text = lines.text();
        assert!(
            text.contains("INFO") && text.contains("request_id=\"abc\"") && text.contains("served"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert!(colour(true, None));
        assert!(colour(true, Some(OsStr::new(""))));
        assert!(!colour(true, Some(OsStr::new("1"))));
        assert!(!colour(false, None));
    }

    fn say_everything() {
        let config = TelemetryConfig { log_format: LogFormat::Json, ..TelemetryConfig::default() };
        let init = || init(&config, None, Arc::default());
        let (_control, _flush_at_end) = init().expect("the first time");
        assert!(matches!(init().err(), Some(LogError::AlreadySetUp(_))));
        tracing_log::log::warn!(target: "hyper::check", "from the log crate");
        let _span = error_span!("request", request_id = "abc").entered();
        panic::catch_unwind(|| panic!("gone {}", "wrong")).expect_err("panics");
        // Whoever tells is the only one who does, of a panic on another thread too.
        let elsewhere =
            || std::thread::spawn(|| panics::caught(|| panic!("elsewhere"))).join().expect("caught");
        let told = panics::caught(|| elsewhere().map_or_else(|panic| panic.resume(), |()| ()));
        let told = told.expect_err("panics");
        error!(target: FATAL, location = told.location(), "told: {}", told.text());
        // What is caught in between is told when that is known, and before what comes after it.
        let swallowed = |text: &str| drop(panic::catch_unwind(|| panic!("{text}")));
        assert!(panics::caught(|| swallowed("first")).is_ok());
        let last = panics::caught(|| {
            swallowed("second");
            assert!(panics::caught(|| swallowed("third")).is_ok());
            swallowed("fourth");
            panic!("fifth")
        });
        error!(target: FATAL, location = last.as_ref().err().and_then(|last| last.location()), "told: fifth");
        drop(panic::catch_unwind(|| panic!("last")));
    }

    const CHILD: &str = "TINY_CACHE_TEST_LOGS";

    /// Logging is set up once in a process, so a test runs itself in another one: how that ended, and what it said.
    fn ended(test: &str) -> (ExitStatus, String) {
        let child = Command::new(env::current_exe().expect("runs"))
            .args(["--exact", "--nocapture", &format!("telemetry::logs::tests::{test}")])
            .env(CHILD, "1")
            .output()
            .expect("starts");
        (child.status, String::from_utf8(child.stderr).expect("text"))
    }

    #[test]
    fn all_that_a_process_says_is_json_panics_included() {
        if env::var_os(CHILD).is_some() {
            return say_everything();
        }
        let (status, text) = ended("all_that_a_process_says_is_json_panics_included");
        assert!(status.success(), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines[0]["target"], "hyper::check");
        assert_eq!(lines[0]["message"], "from the log crate");
        assert_eq!(lines[0].as_object().expect("object").len(), 4, "{text}");
        assert_eq!(lines[1]["target"], FATAL);
        let told: Vec<_> = lines[1..].iter().map(|line| line["message"].as_str().expect("text")).collect();
        let expected = [
            "panic: gone wrong",
            "told: elsewhere",
            "panic: first",
            "panic: second",
            "panic: third",
            "panic: fourth",
            "told: fifth",
            "panic: last",
        ];
        assert_eq!(told, expected, "{text}");
        for line in &lines[1..] {
            assert_eq!(line["request_id"], "abc");
            assert!(line["location"].as_str().expect("text").starts_with(file!()), "{text}");
        }
    }

    /// Panics while it is dropped for a panic, which is the end of the process.
    struct Last;

    impl Drop for Last {
        fn drop(&mut self) {
            panic!("the last one");
        }
    }

    /// More than is written in a moment: a pipe takes it piece by piece, as it is read.
    const LONG: usize = 900_000;

    #[test]
    fn what_a_process_says_before_a_panic_ends_it_is_written() {
        if env::var_os(CHILD).is_some() {
            let _log = init(&TelemetryConfig::default(), None, Arc::default()).expect("the first time");
            info!("{}", "x".repeat(LONG));
            let _last = Last;
            panic!("the first one");
        }
        let (status, text) = ended("what_a_process_says_before_a_panic_ends_it_is_written");
        assert!(status.signal().is_some(), "{status}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains(&"x".repeat(LONG)), "{} bytes of it", lines[0].len());
        for told in ["panic: the first one", "panic: the last one"] {
            assert!(lines[1..].iter().any(|line| line.contains(told)), "{:?}", &lines[1..]);
        }
    }

    #[test]
    fn what_a_process_says_before_it_ends_is_written() {
        if env::var_os(CHILD).is_some() {
            let log = init(&TelemetryConfig::default(), None, Arc::default()).expect("the first time");
            info!("{}", "x".repeat(LONG));
            info!("the end");
            drop(log);
            std::process::exit(7);
        }
        let (status, text) = ended("what_a_process_says_before_it_ends_is_written");
        assert_eq!(status.code(), Some(7));
        assert!(text.contains(&"x".repeat(LONG)) && text.ends_with("the end\n"), "{} bytes", text.len());
    }
}
