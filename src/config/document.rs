//! A TOML file as nested settings, each of which knows its line.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Complaint, Problem};
use super::origin::Origin;

/// Settings by key.
pub(super) type Table = BTreeMap<String, Setting>;

/// One value in one layer.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) raw: Raw,
    /// The value as it was written, for messages.
    pub(super) shown: String,
    pub(super) origin: Origin,
    /// What the layer allows, where it says so in other words than the file's key.
    pub(super) allowed: Option<&'static str>,
}

/// A value that nobody has judged yet.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Setting>),
    Table(Table),
    /// A date, or an integer beyond 64 bits: nothing that any key allows.
    Other(String),
}

impl Raw {
    /// For options whose types only their policy knows.
    pub(super) fn to_toml(&self) -> toml::Value {
        match self {
            Self::Text(text) | Self::Other(text) => toml::Value::String(text.clone()),
            Self::Integer(integer) => toml::Value::Integer(*integer),
            Self::Float(float) => toml::Value::Float(*float),
            Self::Boolean(boolean) => toml::Value::Boolean(*boolean),
            Self::Array(items) => toml::Value::Array(items.iter().map(|item| item.raw.to_toml()).collect()),
            Self::Table(table) => toml::Value::Table(table_to_toml(table)),
        }
    }
}

pub(super) fn table_to_toml(table: &Table) -> toml::Table {
    table.iter().map(|(key, setting)| (key.clone(), setting.raw.to_toml())).collect()
}

/// Reads a whole document, or says everything that keeps it from being TOML.
pub(super) fn parse(name: &Arc<str>, text: &str) -> Result<Table, Vec<Problem>> {
    let source = Source::new(name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(source.table(document.into_inner()));
    }
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            place: source.place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            complaint: Complaint::Syntax(error.message().trim().replace('\n', ", ")),
        })
        .collect();
    // One slip of the pen makes the parser stumble several times over the same line.
    problems.dedup_by(|next, first| next.place == first.place);
    Err(problems)
}

struct Source<'t> {
    name: &'t Arc<str>,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    fn new(name: &'t Arc<str>, text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, line_starts }
    }

    fn place(&self, offset: usize) -> Origin {
        Origin::line(self.name, self.line_starts.partition_point(|start| *start <= offset))
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        table
            .into_iter()
            .map(|(key, value)| {
                let origin = self.place(key.span().start);
                (key.into_inner().into_owned(), self.setting(value, origin))
            })
            .collect()
    }

    fn setting(&self, value: Spanned<DeValue<'_>>, origin: Origin) -> Setting {
        let shown = match value.get_ref() {
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            _ => self.text.get(value.span()).unwrap_or_default().replace(char::is_control, "?"),
        };
        let raw = match value.into_inner() {
            DeValue::String(text) => Raw::Text(text.into_owned()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Raw::Other(integer.to_string()), Raw::Integer),
            DeValue::Float(float) => {
                float.as_str().parse().map_or_else(|_| Raw::Other(float.to_string()), Raw::Float)
            }
            DeValue::Boolean(boolean) => Raw::Boolean(boolean),
            DeValue::Datetime(datetime) => Raw::Other(datetime.to_string()),
            DeValue::Array(items) => Raw::Array(
                items
                    .into_iter()
                    .map(|item| {
                        let origin = self.place(item.span().start);
                        self.setting(item, origin)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Raw::Table(self.table(table)),
        };
        Setting { raw, shown, origin, allowed: None }
    }
}
