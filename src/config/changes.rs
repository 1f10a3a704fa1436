//! What differs between two configurations, by the names of the keys.

use std::collections::BTreeMap;

use super::effective::Effective;
use super::origin::Origin;

/// The keys that a running server takes over; all others need a restart. docs/configuration.md marks them, and a test
/// holds it against this.
pub const LIVE_KEYS: [&str; 4] =
    ["store.max_items", "store.max_memory", "store.max_value", "telemetry.log_level"];

/// Stands for a value that is not to be told.
pub(super) const HIDDEN: &str = "(not shown)";

/// Whether a key's values are credentials as often as not: who reads a log is not to read them.
pub(super) fn is_secret(key: &str) -> bool {
    key.rsplit('.').next() == Some("headers")
}

/// A key that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its full name, such as `store.max_items`; that of several tables, such as `transport.listen`, once.
    pub key: String,
    /// The value before, as TOML; empty where there was none. Of a key that holds credentials only that it had one.
    pub old: String,
    /// The value now, in the same way; empty where there is none.
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
        for (key, (new, origin)) in after {
            let (old, _) = before.remove(&key).unwrap_or_default();
            if old != new {
                changes.push(Self::of(key, &old, &new, origin.unwrap_or(Origin::Default)));
            }
        }
        for (key, (old, _)) in before {
            changes.push(Self::of(key, &old, &[], Origin::Default));
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    fn of(key: String, old: &[String], new: &[String], origin: Origin) -> Self {
        let told = |values: &[String]| match values {
            [_, ..] if is_secret(&key) => HIDDEN.to_owned(),
            values => values.join(", "),
        };
        let (old, new) = (told(old), told(new));
        Self { key, old, new, origin }
    }
}

/// The values of a key in all tables of its name, in their order, and where the last of them is from.
fn by_key(effective: &Effective) -> BTreeMap<String, (Vec<String>, Option<Origin>)> {
    let mut keys = BTreeMap::<String, (Vec<String>, Option<Origin>)>::new();
    for (header, key, value, origin) in effective.values() {
        let (values, from) = keys.entry(format!("{}.{key}", header.trim_matches(['[', ']']))).or_default();
        values.push(value.to_owned());
        *from = Some(origin.clone());
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
                    expected.len() != 5 || !line.contains("transport.max_") && !line.contains("reflection")
                })
                .collect();
            assert_eq!(told, expected, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn credentials_are_not_told() {
        let headers = |value: &str| format!("[telemetry.otlp.headers]\nauthorization = \"{value}\"\n");
        let (first, second) = (effective(&headers("secret-1")), effective(&headers("secret-2")));
        for (old, new) in [(&first, &second), (&first, &effective("")), (&effective(""), &second)] {
            let changes = Change::between(old, new);
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert_eq!(changes[0].key, "telemetry.otlp.headers");
            assert!(!format!("{changes:?}").contains("secret"), "{changes:?}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_used_are_not_told_either() {
        let loader = Loader { policies: policies::REGISTRY, stores: &["memory"] };
        let text = "[telemetry.otlp]\nheaders = \"authorization=secret\"";
        let errors = loader.load_text("file", text, &Sources::nothing()).expect_err("no table").to_string();
        assert!(errors.starts_with("file:2: telemetry.otlp.headers: found "), "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
    }
}
