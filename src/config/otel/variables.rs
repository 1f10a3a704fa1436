//! The variables that are set, and what could not be used of them.

use std::ffi::OsString;
use std::time::Duration;

use crate::config::format::without_credentials;

/// The variables as they were when the configuration was read.
#[derive(Default)]
pub(in crate::config) struct Variables {
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

impl Variables {
    /// Takes every variable that is set.
    pub(in crate::config) fn read(environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
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
    pub(in crate::config) fn into_ignored(self) -> Vec<String> {
        self.ignored
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.set.iter().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn ignore(&mut self, name: &str, allowed: &str) {
        // Headers are credentials as often as not.
        let shown = if name.ends_with("HEADERS") {
            String::new()
        } else {
            format!("{:?}, ", without_credentials(self.text(name).unwrap_or_default()))
        };
        let line = format!("{name}: {shown}allowed: {allowed}");
        if !self.ignored.contains(&line) {
            self.ignored.push(line);
        }
    }

    /// A variable's value where it is set and can be read.
    pub(super) fn value<T>(
        &mut self,
        name: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.text(name)?);
        if value.is_none() {
            self.ignore(name, allowed);
        }
        value
    }

    /// The same of the first of several variables that can be used.
    pub(super) fn first<T>(
        &mut self,
        names: &[String],
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        names.iter().find_map(|name| self.value(name, allowed, &read))
    }

    pub(super) fn milliseconds(&mut self, names: &[String]) -> Option<Duration> {
        let read = |text: &str| text.parse().ok().filter(|number| *number > 0).map(Duration::from_millis);
        self.first(names, "a whole number of milliseconds, at least 1", read)
    }
}

pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
