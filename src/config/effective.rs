//! The effective configuration as a file, with where each value came from.

use std::fmt::Write as _;

use super::origin::Origin;

/// Every effective value, in the order in which a file lists them, with its origin.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    tables: Vec<EffectiveTable>,
}

#[derive(Clone, Debug)]
struct EffectiveTable {
    header: String,
    values: Vec<EffectiveValue>,
}

#[derive(Clone, Debug)]
struct EffectiveValue {
    key: String,
    value: String,
    /// The value without what is secret in it.
    shown: String,
    origin: Origin,
}

impl Effective {
    /// Begins a table; `header` with its brackets.
    pub(super) fn table(&mut self, header: impl Into<String>) {
        self.tables.push(EffectiveTable { header: header.into(), values: Vec::new() });
    }

    /// Adds to the table begun last; `value` is TOML.
    pub(super) fn value(&mut self, key: impl Into<String>, value: impl Into<String>, origin: Origin) {
        let value = value.into();
        self.hidden(key, value.clone(), value, origin);
    }

    /// As [`value`](Self::value), where people get to see another text.
    pub(super) fn hidden(&mut self, key: impl Into<String>, value: String, shown: String, origin: Origin) {
        let table = self.tables.last_mut().expect("a table is begun before its values");
        table.values.push(EffectiveValue { key: key.into(), value, shown, origin });
    }

    /// Every value as `(table header, key, TOML value, origin)`, secrets included.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, &str, &Origin)> {
        self.entries().map(|(header, EffectiveValue { key, value, origin, .. })| {
            (header, key.as_str(), value.as_str(), origin)
        })
    }

    /// Every value as `(table header, key, origin)` with what it is, and what people get to see of it.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, &str, &Origin, [&str; 2])> {
        self.entries().map(|(header, EffectiveValue { key, value, shown, origin })| {
            (header, key.as_str(), origin, [value.as_str(), shown.as_str()])
        })
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &EffectiveValue)> {
        self.tables.iter().flat_map(|table| table.values.iter().map(|value| (table.header.as_str(), value)))
    }

    /// A TOML file that loads as the same configuration, but for what is secret and therefore not in it; a comment after
    /// each value names its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for table in self.tables.iter().filter(|table| !table.values.is_empty()) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&table.header);
            text.push('\n');
            let assignments: Vec<String> =
                table.values.iter().map(|value| format!("{} = {}", value.key, value.shown)).collect();
            // Comments stand in one column, which a single long path does not push away.
            let width = assignments.iter().map(|line| line.chars().count()).max().unwrap_or(0).min(40);
            for (assignment, value) in assignments.iter().zip(&table.values) {
                let comment = match &value.origin {
                    Origin::Default => "default".to_owned(),
                    origin => format!("from {origin}"),
                };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{assignment:width$}  # {comment}");
            }
        }
        text
    }
}
