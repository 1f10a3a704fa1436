//! `[telemetry.access_log]`: which operations are written down, where, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::document::Setting;
use super::duration::Span;
use super::error::Complaint;
use super::format::{Choice, Count, FilePath, Fraction};
use super::origin::Origin;
use super::section::{Report, Section};

/// The path that stands for standard output.
const STANDARD_OUTPUT: &str = "-";

const KEYS: Choice<LoggedKeys> = Choice(&[("hash", LoggedKeys::Hash), ("text", LoggedKeys::Text)]);

/// `[telemetry.access_log]`
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// `path`: where the lines go.
    pub destination: LogDestination,
    /// Where `path` stands, for errors that are found once it is opened.
    pub place: Origin,
    /// `sample`: the share of the keys whose operations are logged, over 0 and up to 1. Default 1.
    pub sample: f64,
    /// `keys`: how a key is told. Default hash.
    pub keys: LoggedKeys,
    /// `queue`: lines that may wait to be written, at least 1. More are lost. Default 32768.
    pub queue_lines: usize,
    /// `flush_interval`: how long a line may wait for company. Default 1 s.
    pub flush_interval: Duration,
}

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// `path = "-"`
    StandardOutput,
    /// Any other `path`.
    File(PathBuf),
}

/// How an access log tells a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedKeys {
    /// By its fingerprint: the same key is the same hash in every process and release.
    Hash,
    /// As it is.
    Text,
}

/// Reads the table, if it is there: without it there is no access log.
pub(super) fn read(table: Option<Setting>, report: &mut Report) -> Option<AccessLogConfig> {
    const PATH: &str = "telemetry.access_log";
    let table = table?;
    let place = table.origin.clone();
    let table = report.expect_table(PATH, Some(table));
    let has_path = table.contains_key("path");
    let mut section = Section::begin(PATH, "[telemetry.access_log]", table, Vec::new(), report);
    let path = section.take_optional("path", &FilePath);
    let sample = section.take("sample", &Fraction { zero: false }, 1.0).value;
    let keys = section.take("keys", &KEYS, LoggedKeys::Hash).value;
    let queue = section.take("queue", &Count { min: 1, max: 1 << 24 }, 1 << 15).value;
    let flush_interval = section.take("flush_interval", &Span::MILLISECOND, Duration::from_secs(1)).value;
    if !has_path {
        let complaint = Complaint::Missing(format!(
            "an access log needs the path of a file, or {STANDARD_OUTPUT:?} for standard output"
        ));
        section.report.problem(&place, format!("{PATH}.path"), complaint);
    }
    section.end();
    path.map(|path| AccessLogConfig {
        place: path.origin(),
        destination: if path.value.as_os_str() == STANDARD_OUTPUT {
            LogDestination::StandardOutput
        } else {
            LogDestination::File(path.value)
        },
        sample,
        keys,
        queue_lines: usize::try_from(queue).expect("the format's limit fits"),
        flush_interval,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Loader, Sources};
    use crate::server::Server;

    use super::*;

    fn load(lines: &str) -> Result<Option<AccessLogConfig>, String> {
        let server = Server::builder();
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let outcome = loader.load_text("t.toml", lines, &Sources::nothing());
        outcome.map(|loaded| loaded.config.telemetry.access_log).map_err(|errors| errors.to_string())
    }

    #[test]
    fn there_is_no_access_log_unless_it_is_asked_for() {
        for text in ["", "[telemetry]\nlog_level = \"info\"\n"] {
            assert_eq!(load(text), Ok(None));
        }
    }

    #[test]
    fn a_path_is_enough_and_everything_can_be_said() {
        let config =
            |lines: &str| load(&format!("[telemetry.access_log]\n{lines}")).expect("good").expect("on");
        let least = config("path = \"/var/log/cache.jsonl\"\n");
        assert_eq!(least.destination, LogDestination::File("/var/log/cache.jsonl".into()));
        assert_eq!(least.place.to_string(), "t.toml:2");
        assert_eq!((least.sample.to_bits(), least.keys), (1.0_f64.to_bits(), LoggedKeys::Hash));
        assert_eq!((least.queue_lines, least.flush_interval), (32_768, Duration::from_secs(1)));
        let most =
            config("path = \"-\"\nsample = 0.01\nkeys = \"text\"\nqueue = 9\nflush_interval = \"5ms\"\n");
        assert_eq!(most.destination, LogDestination::StandardOutput);
        assert_eq!((most.sample.to_bits(), most.keys), (0.01_f64.to_bits(), LoggedKeys::Text));
        assert_eq!((most.queue_lines, most.flush_interval), (9, Duration::from_millis(5)));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let share = "allowed: a number over 0 and up to 1";
        for (lines, expected) in [
            (
                "sample = 0.5\n",
                "t.toml:1: telemetry.access_log.path: missing; an access log needs the path".to_owned(),
            ),
            (
                "path = 1\n",
                "t.toml:2: telemetry.access_log.path: found 1, allowed: the path of a file".to_owned(),
            ),
            (
                "path = \"a\"\nsample = 0\n",
                format!("t.toml:3: telemetry.access_log.sample: found 0, {share}"),
            ),
            (
                "path = \"a\"\nsample = 1.5\n",
                format!("t.toml:3: telemetry.access_log.sample: found 1.5, {share}"),
            ),
            (
                "path = \"a\"\nsample = nan\n",
                format!("t.toml:3: telemetry.access_log.sample: found nan, {share}"),
            ),
            (
                "path = \"a\"\nkeys = \"hsah\"\n",
                "allowed: \"hash\", \"text\"; did you mean \"hash\"?".to_owned(),
            ),
            ("path = \"a\"\nqueue = 0\n", "t.toml:3: telemetry.access_log.queue: found 0".to_owned()),
            (
                "paht = \"a\"\n",
                "t.toml:2: telemetry.access_log.paht: unknown key; did you mean \"path\"?".to_owned(),
            ),
        ] {
            let told = load(&format!("[telemetry.access_log]\n{lines}")).expect_err(lines);
            assert!(told.contains(&expected), "{told:?} lacks {expected:?}");
        }
        let told = load("[telemetry]\naccess_log = true\n").expect_err("no table");
        assert!(told.starts_with("t.toml:2: telemetry.access_log: found true, allowed: a table"), "{told}");
    }
}
