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
    values: Vec<(String, String, Origin)>,
}

impl Effective {
    /// Begins a table; `header` with its brackets.
    pub(super) fn table(&mut self, header: impl Into<String>) {
        self.tables.push(EffectiveTable { header: header.into(), values: Vec::new() });
    }

    /// Adds to the table begun last; `value` is TOML.
    pub(super) fn value(&mut self, key: impl Into<String>, value: impl Into<String>, origin: Origin) {
        let table = self.tables.last_mut().expect("a table is begun before its values");
        table.values.push((key.into(), value.into(), origin));
    }

    /// Every value as `(table header, key, TOML value, origin)`.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, &str, &Origin)> {
        self.tables.iter().flat_map(|table| {
            let header = table.header.as_str();
            table
                .values
                .iter()
                .map(move |(key, value, origin)| (header, key.as_str(), value.as_str(), origin))
        })
    }

    /// A TOML file that loads as the same configuration; a comment after each value names its origin.
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
                table.values.iter().map(|(key, value, _)| format!("{key} = {value}")).collect();
            // Comments stand in one column, which a single long path does not push away.
            let width = assignments.iter().map(|line| line.chars().count()).max().unwrap_or(0).min(40);
            for (assignment, (_, _, origin)) in assignments.iter().zip(&table.values) {
                let comment = match origin {
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
