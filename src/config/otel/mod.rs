//! The standard `OTEL_*` variables: what they say lies over `[telemetry.otlp]`.
//!
//! They are often set for many programs at once, so a value that cannot be used is passed over and told in the log,
//! as OpenTelemetry's specification wants it, where every other setting would end the start. An empty variable counts
//! as unset. A file that a variable names is another matter: certificates that cannot be read or used end the start, since
//! to go on without them would be to trust somebody else. The resource (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) and the limits on spans (`OTEL_SPAN_*`,
//! but for lengths) are read by the SDK itself.

mod exports;
#[cfg(test)]
mod tests;
mod variables;

use std::time::Duration;

use super::document::{Raw, Setting};
use super::format::Format;
use super::origin::Origin;
use super::otlp::{
    COMPRESSION, Endpoint, OtlpProtocol, PROTOCOL, Signal, header, headers_as_raw, signals_as_raw,
};
use variables::truth;

pub(super) use variables::Variables;

/// The part of a variable's name that is a signal's.
const fn part(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "METRICS",
        Signal::Traces => "TRACES",
        Signal::Logs => "LOGS",
    }
}

/// What `OTEL_EXPORTER_OTLP_{name}` is for one signal: its own variable, then the one for all.
fn names(signal: Signal, name: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_{}_{name}", part(signal)), format!("OTEL_EXPORTER_OTLP_{name}")]
}

impl Variables {
    /// What lies over keys of the file, with its origin.
    pub(in crate::config) fn settings(&mut self, in_file: &[Signal]) -> Vec<(&'static str, Setting)> {
        let mut settings = Vec::new();
        if let Some((signals, origin)) = self.signals(in_file) {
            let setting = made_by(&origin);
            settings.push(("signals", setting(signals_as_raw(&signals, &setting))));
        }
        for (key, suffix) in [
            ("protocol", "PROTOCOL"),
            ("endpoint", "ENDPOINT"),
            ("headers", "HEADERS"),
            ("timeout", "TIMEOUT"),
            ("compression", "COMPRESSION"),
        ] {
            let name = format!("OTEL_EXPORTER_OTLP_{suffix}");
            let setting = made_by(&name);
            let raw = match key {
                "protocol" => {
                    self.protocol(&[name]).map(|protocol| Raw::Text(bare(&PROTOCOL.render(&protocol))))
                }
                "endpoint" => {
                    self.endpoint(&name, &["OTEL_EXPORTER_OTLP_INSECURE".to_owned()]).map(Raw::Text)
                }
                "headers" => self.headers(&[name]).map(|headers| headers_as_raw(&headers, &setting)),
                "timeout" => self.milliseconds(&[name]).map(in_milliseconds),
                _ => self.compression(&[name]).map(|gzip| Raw::Text(bare(&COMPRESSION.render(&gzip)))),
            };
            settings.extend(raw.map(|raw| (key, setting(raw))));
        }
        let interval = "OTEL_METRIC_EXPORT_INTERVAL".to_owned();
        let setting = made_by(&interval);
        let raw = self.milliseconds(&[interval]);
        settings.extend(raw.map(|interval| ("interval", setting(in_milliseconds(interval)))));
        settings
    }

    /// Which signals are exported, and the variables that say so; `None` where none does.
    fn signals(&mut self, in_file: &[Signal]) -> Option<(Vec<Signal>, String)> {
        if self.value("OTEL_SDK_DISABLED", "true or false", truth) == Some(true) {
            return Some((Vec::new(), "OTEL_SDK_DISABLED".to_owned()));
        }
        let mut signals = in_file.to_vec();
        let mut origins = Vec::new();
        for signal in Signal::ALL {
            let name = format!("OTEL_{}_EXPORTER", part(signal));
            // Prometheus is served in any case.
            let read = |text: &str| {
                let mut on = false;
                for exporter in text.split(',').map(str::trim) {
                    match exporter {
                        "otlp" => on = true,
                        "none" => {}
                        "prometheus" if signal == Signal::Metrics => {}
                        _ => return None,
                    }
                }
                Some(on)
            };
            if let Some(on) = self.value(&name, "otlp or none", read) {
                signals.retain(|other| *other != signal);
                signals.extend(on.then_some(signal));
                origins.push(name);
            }
        }
        (!origins.is_empty()).then(|| (signals, origins.join(" and ")))
    }

    fn protocol(&mut self, names: &[String]) -> Option<OtlpProtocol> {
        self.first(names, "grpc or http/protobuf", |text| PROTOCOL.parse(&Raw::Text(text.to_owned())))
    }

    fn compression(&mut self, names: &[String]) -> Option<bool> {
        self.first(names, "gzip or none", |text| COMPRESSION.parse(&Raw::Text(text.to_owned())))
    }

    /// An endpoint for gRPC may come without a scheme; whether that means TLS is for `insecure` to say.
    fn endpoint(&mut self, name: &str, insecure: &[String]) -> Option<String> {
        let insecure = self.first(insecure, "true or false", truth);
        let scheme = if insecure == Some(true) { "http" } else { "https" };
        self.value(name, "a URL such as http://127.0.0.1:4317", |text| {
            let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
            Endpoint.parse(&Raw::Text(url))
        })
    }

    /// `name=value,name=value`, with percent-encoded values.
    fn headers(&mut self, names: &[String]) -> Option<Vec<(String, String)>> {
        self.first(names, "name=value pairs with commas between them", |text| {
            let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    header(name.trim(), &percent_decoded(value.trim())?)
                })
                .collect()
        })
    }
}

/// Settings that a variable made.
fn made_by(variable: &str) -> impl Fn(Raw) -> Setting + use<> {
    let variable = variable.to_owned();
    move |raw| Setting {
        raw,
        shown: String::new(),
        origin: Origin::Variable(variable.clone()),
        allowed: None,
    }
}

fn in_milliseconds(duration: Duration) -> Raw {
    Raw::Text(format!("{}ms", duration.as_millis()))
}

/// A rendered name without its quotes.
fn bare(rendered: &str) -> String {
    rendered.trim_matches('"').to_owned()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?[0]
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
