//! What differs between two configurations, by the names of the keys.

use std::collections::BTreeMap;

use super::effective::Effective;
use super::origin::Origin;

/// The keys that a running server takes over; all others need a restart. docs/configuration.md marks them, and a test
/// holds it against this.
pub const LIVE_KEYS: [&str; 4] =
    ["store.max_items", "store.max_memory", "store.max_value", "telemetry.log_level"];

/// A key that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its full name, such as `store.max_items`; that of several tables, such as `transport.listen`, once.
    pub key: String,
    /// The value before, as TOML without what is secret in it; empty where there was none.
    pub old: String,
    /// The value now, as TOML; empty where there is none.
    pub new: String,
    /// Where the new value is from, or the default's place where there is none.
    pub origin: Origin,
}

impl Change {
    /// Whether a running server can take it over.
    #[must_use]
    pub fn is_live(&self) -> bool {
        LIVE_KEYS.contains(&self.key.as_str())
    }

    /// What compares two effective configurations key by key.
    #[must_use]
    pub fn between(old: &Effective, new: &Effective) -> Vec<Self> {
        let (mut before, after) = (by_key(old), by_key(new));
        let mut changes = Vec::new();
        for (key, new) in after {
            let old = before.remove(&key).unwrap_or_default();
            if old.values != new.values {
                let origin = new.origin.unwrap_or(Origin::Default);
                changes.push(Self { key, old: old.shown.join(", "), new: new.shown.join(", "), origin });
            }
        }
        for (key, old) in before {
            let (old, new) = (old.shown.join(", "), String::new());
            changes.push(Self { key, old, new, origin: Origin::Default });
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }
}

/// What a key is in all tables of its name, in their order.
#[derive(Default)]
struct Everywhere {
    values: Vec<String>,
    shown: Vec<String>,
    /// Where the last of them is from.
    origin: Option<Origin>,
}

fn by_key(effective: &Effective) -> BTreeMap<String, Everywhere> {
    let mut keys = BTreeMap::<String, Everywhere>::new();
    for (header, key, origin, [value, shown]) in effective.shown() {
        let all = keys.entry(format!("{}.{key}", header.trim_matches(['[', ']']))).or_default();
        all.values.push(value.to_owned());
        all.shown.push(shown.to_owned());
        all.origin = Some(origin.clone());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loader, Sources};

    fn effective(text: &str) -> Effective {
        let loader = Loader { policies: policies::REGISTRY, stores: &["memory"] };
        loader.load_text("file", text, &Sources::nothing()).expect("a good file").effective
    }

    #[test]
    fn changes_are_told_by_key_with_both_values() {
        let grpc = "[[transport]]\nkind = \"grpc\"\n";
        for (old, new, expected) in [
            ("", "", vec![]),
            // The same by another way of writing, and in another order.
            ("[store]\nmax_memory = \"1GiB\"", "[telemetry]\n[store]\nmax_memory = 1073741824", vec![]),
            ("[store]\nmax_items = 7", "", vec!["store.max_items: 7 -> 1000, default"]),
            (
                "[store]\nmax_items = 7",
                "[telemetry]\nlog_level = \"debug\"\n[store]\nmax_items = \"unlimited\"",
                vec![
                    "store.max_items: 7 -> \"unlimited\", file:4",
                    "telemetry.log_level: \"info\" -> \"debug\", file:2",
                ],
            ),
            (
                grpc,
                &format!("{grpc}{grpc}listen = \"127.0.0.1:1\"\nmax_connections = 5"),
                vec![
                    "restart transport.handshake_timeout: \"10s\" -> \"10s\", \"10s\", default",
                    "restart transport.keepalive_interval: \"30s\" -> \"30s\", \"30s\", default",
                    "restart transport.keepalive_timeout: \"20s\" -> \"20s\", \"20s\", default",
                    "restart transport.kind: \"grpc\" -> \"grpc\", \"grpc\", file:4",
                    "restart transport.listen: \"127.0.0.1:50051\" -> \"127.0.0.1:50051\", \"127.0.0.1:1\", file:5",
                    "restart transport.request_timeout: \"30s\" -> \"30s\", \"30s\", default",
                ],
            ),
            (
                "[telemetry.otlp]\nheaders = { a = \"old\" }",
                "[telemetry.otlp]\nheaders = { a = \"new\" }",
                vec![
                    "restart telemetry.otlp.headers: { \"a\" = \"(hidden)\" } -> { \"a\" = \"(hidden)\" }, file:2",
                ],
            ),
            (
                "[telemetry.access_log]\npath = \"p\"",
                "",
                vec![
                    "restart telemetry.access_log.flush_interval: \"1s\" -> , default",
                    "restart telemetry.access_log.keys: \"hash\" -> , default",
                    "restart telemetry.access_log.path: \"p\" -> , default",
                    "restart telemetry.access_log.queue: 32768 -> , default",
                    "restart telemetry.access_log.sample: 1.0 -> , default",
                ],
            ),
        ] {
            let changes = Change::between(&effective(old), &effective(new));
            let told: Vec<String> = changes
                .iter()
                .map(|change| {
                    let restart = if change.is_live() { "" } else { "restart " };
                    format!("{restart}{}: {} -> {}, {}", change.key, change.old, change.new, change.origin)
                })
                .filter(|line| {
                    let others = ["transport.max_", "transport.serve", "reflection"];
                    !new.contains("listen") || !others.iter().any(|other| line.contains(other))
                })
                .collect();
            assert_eq!(told, expected, "{old:?} to {new:?}");
        }
    }
}
