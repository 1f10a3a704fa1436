//! The layers above the file: the original's environment variables and the command line's flags.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::Ipv6Addr;

use super::document::{Raw, Setting};
use super::environment::is_service_link;
use super::error::{Complaint, Problem};
use super::format::is_host_name;
use super::origin::Origin;
use super::otel;

/// A flag of the command line that overrides a value; the text is as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// `--listen`: where the first gRPC transport listens.
    Listen(String),
    /// `--http-listen`: where the first HTTP transport listens.
    HttpListen(String),
    /// `--policy`
    Policy(String),
    /// `--max-items`
    MaxItems(String),
    /// `--max-memory`
    MaxMemory(String),
    /// `--log-level`
    LogLevel(String),
    /// `--log-format`
    LogFormat(String),
}

/// What the environment and the flags set.
#[derive(Default)]
pub(super) struct Layers {
    settings: Vec<(&'static str, &'static str, Setting)>,
    pub(super) grpc: Endpoint,
    pub(super) http: Endpoint,
    pub(super) tls: Tls,
    pub(super) otel: otel::Variables,
}

/// The parts of a listen address, which the environment sets one by one and a flag as a whole.
#[derive(Default)]
pub(super) struct Endpoint {
    host: Option<(&'static str, String)>,
    port: Option<(&'static str, u16)>,
    flag: Option<Setting>,
}

/// The `CACHE_TLS_*` variables.
#[derive(Default)]
pub(super) struct Tls {
    pub(super) enabled: Option<bool>,
    pub(super) cert: Option<Setting>,
    pub(super) key: Option<Setting>,
    pub(super) require_client_auth: Option<bool>,
    pub(super) client_ca: Option<Setting>,
}

/// A variable or flag that sets one key: name, table, key, reading of the text, what is allowed (`None`:
/// what the key allows).
type Plain = (&'static str, &'static str, &'static str, fn(&str) -> Option<Raw>, Option<&'static str>);

const VARIABLES: [Plain; 7] = [
    ("CACHE_BACKEND", "store", "kind", lower_case, None),
    (
        "CACHE_MAX_ITEMS",
        "store",
        "max_items",
        number_or_text,
        Some("a whole number, at least 1, or \"unlimited\""),
    ),
    (
        "CACHE_MAX_MEMORY_MB",
        "store",
        "max_memory",
        |text| whole(text)?.checked_mul(1 << 20).map(Raw::Integer),
        Some("a whole number of MiB, at least 1"),
    ),
    (
        "CACHE_MAX_VALUE_BYTES",
        "store",
        "max_value",
        |text| whole(text).map(Raw::Integer),
        Some("a whole number of bytes, from 1 to the memory limit"),
    ),
    (
        "CACHE_CLEANUP_INTERVAL",
        "store",
        "sweep_interval",
        |text| whole(text).map(|seconds| Raw::Text(format!("{seconds}s"))),
        Some("a whole number of seconds, at least 1"),
    ),
    (
        "CACHE_LOG_LEVEL",
        "telemetry",
        "log_level",
        lower_case,
        Some("DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case"),
    ),
    ("CACHE_LOG_FORMAT", "telemetry", "log_format", lower_case, Some("text or json, in any case")),
];

const HOST: &str = "an IP address such as 0.0.0.0 or [::], or a host name that resolves";
const PORT: &str = "a port from 0 (any free one) to 65535";
const BOOLEAN: &str = "1, true, yes, y or on; 0, false, no, n or off";

/// The names of all variables that are read here.
pub(super) fn variables() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    let nothing = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    Layers::read(&nothing, &[], &mut Vec::new());
    asked.into_inner()
}

impl Layers {
    /// Reads every variable of the contract; an empty one counts as unset.
    pub(super) fn read(
        environment: &dyn Fn(&str) -> Option<OsString>,
        overrides: &[Override],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut variables = Variables { environment, problems };
        let mut layers = Self::default();
        for (name, table, key, read, allowed) in VARIABLES {
            if let Some((raw, shown)) = variables.read(name, read, allowed.unwrap_or_default()) {
                let setting = Setting { raw, shown, origin: Origin::Variable(name.to_owned()), allowed };
                layers.settings.push((table, key, setting));
            }
        }
        layers.grpc = variables.endpoint("CACHE_HOST", "CACHE_PORT");
        layers.http = variables.endpoint("CACHE_HEALTH_HOST", "CACHE_HEALTH_PORT");
        layers.tls = Tls {
            enabled: variables.switch("CACHE_TLS_ENABLED"),
            cert: variables.path("CACHE_TLS_CERT_PATH"),
            key: variables.path("CACHE_TLS_KEY_PATH"),
            require_client_auth: variables.switch("CACHE_TLS_REQUIRE_CLIENT_AUTH"),
            client_ca: variables.path("CACHE_TLS_CLIENT_CA_PATH"),
        };
        layers.otel = otel::Variables::read(environment);
        for flag in overrides {
            layers.flag(flag);
        }
        layers
    }

    fn flag(&mut self, flag: &Override) {
        let setting = |name, raw: Option<Raw>, text: &str| Setting {
            raw: raw.unwrap_or_else(|| Raw::Text(text.to_owned())),
            shown: format!("{text:?}"),
            origin: Origin::Flag(name),
            allowed: None,
        };
        let (table, key, setting) = match flag {
            Override::Listen(text) => {
                self.grpc.flag = Some(setting("--listen", None, text));
                return;
            }
            Override::HttpListen(text) => {
                self.http.flag = Some(setting("--http-listen", None, text));
                return;
            }
            Override::Policy(text) => ("eviction", "policy", setting("--policy", None, text)),
            Override::MaxItems(text) => {
                ("store", "max_items", setting("--max-items", number_or_text(text), text))
            }
            Override::MaxMemory(text) => {
                ("store", "max_memory", setting("--max-memory", number_or_text(text), text))
            }
            Override::LogLevel(text) => {
                ("telemetry", "log_level", setting("--log-level", lower_case(text), text))
            }
            Override::LogFormat(text) => {
                ("telemetry", "log_format", setting("--log-format", lower_case(text), text))
            }
        };
        self.settings.push((table, key, setting));
    }

    /// Takes what is set for a table.
    pub(super) fn take(&mut self, table: &str) -> Vec<(&'static str, Setting)> {
        self.settings
            .extract_if(.., |(of, ..)| *of == table)
            .map(|(_, key, setting)| (key, setting))
            .collect()
    }
}

impl Endpoint {
    /// What is to be blamed for a transport that the file does not have; `None`: nothing asks for one.
    pub(super) fn origin(&self) -> Option<Origin> {
        let names: Vec<&str> =
            self.host.iter().map(|(name, _)| *name).chain(self.port.iter().map(|(name, _)| *name)).collect();
        match &self.flag {
            _ if !names.is_empty() => Some(Origin::Variable(names.join(" and "))),
            flag => flag.as_ref().map(|flag| flag.origin.clone()),
        }
    }

    /// What to put over a listen address: `base` is what the file says, `default` fills in for a part
    /// that a Unix socket does not have.
    pub(super) fn settings(self, base: &str, default: &str) -> Vec<(&'static str, Setting)> {
        let mut settings = Vec::new();
        if self.host.is_some() || self.port.is_some() {
            let base = if base.starts_with("unix:") { default } else { base };
            let (base_host, base_port) = base.rsplit_once(':').unwrap_or((base, ""));
            let host = self.host.as_ref().map_or(base_host, |(_, host)| host);
            let port = self.port.map_or(base_port.to_owned(), |(_, port)| port.to_string());
            let text = format!("{host}:{port}");
            let origin = self.origin().expect("a host or a port is set");
            // The port was checked on its own, so that what can still be wrong with them is the host.
            let (shown, allowed) = match &self.host {
                Some((_, host)) => (format!("{host:?}"), Some(HOST)),
                None => (format!("{text:?}"), None),
            };
            let setting = Setting { shown, raw: Raw::Text(text), origin, allowed };
            settings.push(("listen", setting));
        }
        settings.extend(self.flag.map(|flag| ("listen", flag)));
        settings
    }
}

struct Variables<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    problems: &'a mut Vec<Problem>,
}

impl Variables<'_> {
    /// The variable's value as read, and as it was written.
    fn read<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Option<T>,
        allowed: &str,
    ) -> Option<(T, String)> {
        let text = (self.environment)(name).filter(|text| !text.is_empty())?;
        let shown = format!("{:?}", text.to_string_lossy());
        let value = text.to_str().and_then(|text| read(text.trim()));
        if value.is_none() {
            let allowed = if allowed.is_empty() { "UTF-8 text" } else { allowed }.to_owned();
            let complaint = Complaint::Value { found: shown.clone(), allowed, suggestion: None };
            self.problems.push(Problem {
                place: Origin::Variable(name.to_owned()),
                key: String::new(),
                complaint,
            });
        }
        value.map(|value| (value, shown))
    }

    fn endpoint(&mut self, host: &'static str, port: &'static str) -> Endpoint {
        let number = |text: &str| whole(text).and_then(|port| u16::try_from(port).ok());
        let is_ours = !is_service_link(self.environment, port);
        Endpoint {
            host: self.read(host, url_host, HOST).map(|(value, _)| (host, value)),
            port: is_ours.then(|| self.read(port, number, PORT)).flatten().map(|(value, _)| (port, value)),
            flag: None,
        }
    }

    fn switch(&mut self, name: &'static str) -> Option<bool> {
        let read = |text: &str| match text.to_lowercase().as_str() {
            "1" | "true" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "no" | "n" | "off" => Some(false),
            _ => None,
        };
        self.read(name, read, BOOLEAN).map(|(on, _)| on)
    }

    fn path(&mut self, name: &'static str) -> Option<Setting> {
        let text = |text: &str| Some(Raw::Text(text.to_owned()));
        let (raw, shown) = self.read(name, text, "the path of a file")?;
        Some(Setting { raw, shown, origin: Origin::Variable(name.to_owned()), allowed: None })
    }
}

fn whole(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[expect(clippy::unnecessary_wraps, reason = "has the shape of its neighbours in the table of variables")]
fn number_or_text(text: &str) -> Option<Raw> {
    Some(whole(text).map_or_else(|| Raw::Text(text.to_owned()), Raw::Integer))
}

#[expect(clippy::unnecessary_wraps, reason = "has the shape of its neighbours in the table of variables")]
fn lower_case(text: &str) -> Option<Raw> {
    Some(Raw::Text(text.to_lowercase()))
}

/// A host as it stands before a port: an IPv6 address in brackets.
fn url_host(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Some(format!("[{bare}]"));
    }
    (text.parse::<std::net::Ipv4Addr>().is_ok() || is_host_name(text)).then(|| text.to_owned())
}
