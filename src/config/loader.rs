//! Layers in, a checked configuration out, or everything that is wrong with it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use policies::PolicyEntry;

use super::access_log;
use super::document::{self, Setting, Table};
use super::duration::Span;
use super::effective::Effective;
use super::error::{Complaint, ConfigErrors, nearest};
use super::eviction;
use super::format::{Choice, Count, Name, Namespaces, OrWord, PowerOfTwo, Switch};
use super::layers::{Layers, Override};
use super::model::{Config, LogFormat, LogLevel, ServerConfig, StoreConfig, TelemetryConfig};
use super::origin::{Origin, one_line};
use super::otlp;
use super::section::{Report, Section, dotted};
use super::size::{self, Size};
use super::transport;

const TABLES: [&str; 5] = ["store", "eviction", "transport", "telemetry", "server"];
const MIB: u64 = 1 << 20;

const LOG_LEVEL: Choice<LogLevel> = Choice(&[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warning", LogLevel::Warning),
    ("error", LogLevel::Error),
    ("critical", LogLevel::Critical),
]);
const LOG_FORMAT: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

/// What a configuration may name. Third parties add to both slices.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    /// The policies that can be chosen. At least one.
    pub policies: &'a [PolicyEntry],
    /// The kinds of store that can be chosen. At least one; the first is the default.
    pub stores: &'a [&'static str],
}

/// Where the layers above the built-in defaults come from.
pub struct Sources<'a> {
    /// `--config`. Without it the variable `TINY_CACHE_CONFIG` names the file, if it is set.
    pub file: Option<PathBuf>,
    /// Looks up an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The flags that were given, in their order.
    pub overrides: &'a [Override],
}

impl Sources<'static> {
    /// One file and nothing else: what `config check` looks at.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::nothing() }
    }

    /// The built-in defaults.
    #[must_use]
    pub fn nothing() -> Self {
        Self { file: None, environment: &|_| None, overrides: &[] }
    }
}

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Typed and checked.
    pub config: Config,
    /// Every value with its origin.
    pub effective: Effective,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Loader<'_> {
    /// Reads the file, if any, and puts the layers together.
    pub fn load(&self, sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
        let from_environment = || (sources.environment)("TINY_CACHE_CONFIG").filter(|path| !path.is_empty());
        let Some(path) = sources.file.clone().or_else(|| from_environment().map(PathBuf::from)) else {
            return self.put_together(None, sources);
        };
        let name = one_line(&path);
        let text = std::fs::read(&path).map_err(|error| error.to_string()).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| format!("not UTF-8: {}", error.utf8_error()))
        });
        match text {
            Ok(text) => self.put_together(Some((path, text)), sources),
            Err(reason) => {
                let mut report = Report::default();
                report.problem(&Origin::line(&name, 0), "", Complaint::Unreadable(reason));
                // The environment's problems are worth knowing now, too.
                Layers::read(sources.environment, sources.overrides, &mut report.problems);
                Err(ConfigErrors::new(report.problems))
            }
        }
    }

    /// As [`Self::load`], with the file's text at hand; its path serves the messages only.
    pub fn load_text(
        &self,
        path: impl Into<PathBuf>,
        text: impl Into<String>,
        sources: &Sources<'_>,
    ) -> Result<Loaded, ConfigErrors> {
        self.put_together(Some((path.into(), text.into())), sources)
    }

    fn put_together(
        &self,
        file: Option<(PathBuf, String)>,
        sources: &Sources<'_>,
    ) -> Result<Loaded, ConfigErrors> {
        let mut report = Report::default();
        let mut layers = Layers::read(sources.environment, sources.overrides, &mut report.problems);
        let (file, table) = match file {
            None => (None, Table::new()),
            Some((path, text)) => match document::parse(&one_line(&path), &text) {
                Ok(table) => (Some(path), table),
                Err(problems) => {
                    report.problems.extend(problems);
                    return Err(ConfigErrors::new(report.problems));
                }
            },
        };
        let config = self.read(table, &mut layers, &mut report);
        if report.problems.is_empty() {
            Ok(Loaded { config, effective: report.effective, file })
        } else {
            Err(ConfigErrors::new(report.problems))
        }
    }

    fn read(&self, mut file: Table, layers: &mut Layers, report: &mut Report) -> Config {
        let store = self.store(file.remove("store"), layers, report);
        let limited = store.max_items.is_some();
        let eviction = eviction::read(file.remove("eviction"), layers, self.policies, limited, report);
        let store_limits = (store.max_memory_bytes, store.max_value_bytes);
        let transports = transport::read(file.remove("transport"), layers, store_limits, report);
        let telemetry = telemetry(file.remove("telemetry"), layers, report);
        let server = server(file.remove("server"), report);
        for (key, setting) in &file {
            let what =
                if setting.shown == "a table" || setting.shown == "an array" { "table" } else { "key" };
            let complaint = Complaint::Unknown { what, suggestion: nearest(key, TABLES) };
            report.problem(&setting.origin, dotted("", key), complaint);
        }
        Config { store, eviction, transports, telemetry, server }
    }

    fn store(&self, file: Option<Setting>, layers: &mut Layers, report: &mut Report) -> StoreConfig {
        let file = report.expect_table("store", file);
        let mut section = Section::begin("store", "[store]", file, layers.take("store"), report);
        let kind = section.take("kind", &Name(self.stores.to_vec()), self.stores[0].to_owned()).value;
        let max_items = section.take("max_items", &OrWord("unlimited", Count::at_least(1)), Some(1000)).value;
        let max_memory = section.take("max_memory", &Size::at_least(MIB), 100 * MIB);
        let max_value = section.take("max_value", &OrWord("auto", Size::at_least(1)), None);
        let sweep_interval = section.take("sweep_interval", &Span::SECOND, Duration::from_secs(10)).value;
        let shards = section.take("shards", &OrWord("auto", PowerOfTwo { max: 1024 }), None).value;
        section.end();

        if let (Some(bytes), Some(setting)) = (max_value.value, max_value.blamable())
            && bytes > max_memory.value
            && max_memory.valid
        {
            let limit = size::show(max_memory.value);
            let conflict =
                format!("allowed: at most store.max_memory, {limit} ({})", describe(&max_memory.origin()));
            report.conflict("store.max_value", setting, conflict);
        }
        StoreConfig {
            kind,
            max_items,
            max_memory_bytes: max_memory.value,
            max_value_bytes: max_value.value.unwrap_or(max_memory.value),
            sweep_interval,
            shards: shards.map(|shards| usize::try_from(shards).expect("the format's limit fits")),
        }
    }
}

fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Default => "the default".to_owned(),
        origin => format!("from {origin}"),
    }
}

fn telemetry(file: Option<Setting>, layers: &mut Layers, report: &mut Report) -> TelemetryConfig {
    let file = report.expect_table("telemetry", file);
    let default = TelemetryConfig::default();
    let mut section = Section::begin("telemetry", "[telemetry]", file, layers.take("telemetry"), report);
    let log_level = section.take("log_level", &LOG_LEVEL, default.log_level).value;
    let log_format = section.take("log_format", &LOG_FORMAT, default.log_format).value;
    let metrics = section.take("metrics", &Switch, default.metrics).value;
    let namespaces = section.take("namespaces", &Namespaces, default.namespaces).value;
    let access_log = section.take_table("access_log");
    let otlp = section.take_table("otlp");
    section.end();
    let access_log = access_log::read(access_log, report);
    let otlp = otlp::read(otlp, std::mem::take(&mut layers.otel), report);
    TelemetryConfig { log_level, log_format, metrics, namespaces, access_log, otlp }
}

fn server(file: Option<Setting>, report: &mut Report) -> ServerConfig {
    let file = report.expect_table("server", file);
    let mut section = Section::begin("server", "[server]", file, Vec::new(), report);
    let shutdown_grace = section.take("shutdown_grace", &Span::ZERO, Duration::from_secs(30)).value;
    let threads = section.take("worker_threads", &OrWord("auto", Count { min: 1, max: 1024 }), None).value;
    section.end();
    let worker_threads = threads.map(|threads| usize::try_from(threads).expect("the format's limit fits"));
    ServerConfig { shutdown_grace, worker_threads }
}
