//! Reading one table key by key: every layer's value is checked, the last valid one counts, what
//! nobody asked for is unknown.

use super::document::{Raw, Setting, Table};
use super::effective::Effective;
use super::error::{Complaint, Problem, nearest};
use super::format::{Format, HIDDEN, without_credentials};
use super::origin::Origin;

/// What reading gathers besides the values.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    pub(super) effective: Effective,
}

impl Report {
    pub(super) fn problem(&mut self, place: &Origin, key: impl Into<String>, complaint: Complaint) {
        self.problems.push(Problem { place: place.clone(), key: key.into(), complaint });
    }

    /// The setting's value is not what `allowed` says.
    pub(super) fn rejected(
        &mut self,
        key: impl Into<String>,
        setting: &Setting,
        allowed: String,
        names: &[&str],
    ) {
        let allowed = setting.allowed.map_or(allowed, str::to_owned);
        let suggestion = match &setting.raw {
            Raw::Text(text) => nearest(text, names.iter().copied()),
            _ => None,
        };
        self.problem(
            &setting.origin,
            key,
            Complaint::Value { found: setting.shown.clone(), allowed, suggestion },
        );
    }

    pub(super) fn conflict(&mut self, key: &str, setting: &Setting, conflict: String) {
        let complaint = Complaint::Conflict { found: setting.shown.clone(), conflict };
        self.problem(&setting.origin, key, complaint);
    }

    /// The table that a setting holds; an empty one, and a problem, where it holds something else.
    pub(super) fn expect_table(&mut self, key: &str, setting: Option<Setting>) -> Table {
        match setting {
            None => Table::new(),
            Some(Setting { raw: Raw::Table(table), .. }) => table,
            Some(other) => {
                self.rejected(key, &other, "a table".to_owned(), &[]);
                Table::new()
            }
        }
    }
}

/// A key's value, and the setting that it is from.
pub(super) struct Chosen<T> {
    pub(super) value: T,
    /// `None`: the default.
    pub(super) setting: Option<Setting>,
    /// Whether the last layer that set it got it right: only then other values are held against it.
    pub(super) valid: bool,
}

impl<T> Chosen<T> {
    pub(super) fn origin(&self) -> Origin {
        self.setting.as_ref().map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// The setting that can be blamed for the value.
    pub(super) fn blamable(&self) -> Option<&Setting> {
        self.setting.as_ref().filter(|_| self.valid)
    }
}

/// A table while its keys are being taken out.
pub(super) struct Section<'r> {
    path: &'static str,
    file: Table,
    overrides: Vec<(&'static str, Setting)>,
    known: Vec<&'static str>,
    pub(super) report: &'r mut Report,
}

impl<'r> Section<'r> {
    /// Begins a table. `overrides` hold what later layers set, the last one winning.
    pub(super) fn begin(
        path: &'static str,
        header: &str,
        file: Table,
        overrides: Vec<(&'static str, Setting)>,
        report: &'r mut Report,
    ) -> Self {
        report.effective.table(header);
        Self { path, file, overrides, known: Vec::new(), report }
    }

    /// Takes a key that has a default.
    pub(super) fn take<F: Format>(
        &mut self,
        key: &'static str,
        format: &F,
        default: F::Value,
    ) -> Chosen<F::Value> {
        let mut chosen = Chosen { value: default, setting: None, valid: true };
        self.choose(key, format, |value, setting| {
            chosen.valid = value.is_some();
            if let Some(value) = value {
                chosen.value = value;
                chosen.setting = Some(setting);
            }
        });
        let (value, shown) = (format.render(&chosen.value), format.show(&chosen.value));
        self.report.effective.hidden(key, value, shown, chosen.origin());
        chosen
    }

    /// Takes a key that may be absent.
    pub(super) fn take_optional<F: Format>(
        &mut self,
        key: &'static str,
        format: &F,
    ) -> Option<Chosen<F::Value>> {
        let mut chosen = None;
        self.choose(key, format, |value, setting| {
            if let Some(value) = value {
                chosen = Some(Chosen { value, setting: Some(setting), valid: true });
            }
        });
        if let Some(chosen) = &chosen {
            let (value, shown) = (format.render(&chosen.value), format.show(&chosen.value));
            self.report.effective.hidden(key, value, shown, chosen.origin());
        }
        chosen
    }

    fn choose<F: Format>(
        &mut self,
        key: &'static str,
        format: &F,
        mut candidate: impl FnMut(Option<F::Value>, Setting),
    ) {
        self.known.push(key);
        let overrides = self.overrides.extract_if(.., |(name, _)| *name == key).map(|(_, setting)| setting);
        for setting in self.file.remove(key).into_iter().chain(overrides) {
            let value = format.parse(&setting.raw);
            if value.is_none() {
                let wrong = wrong_item(format, &setting);
                let told = wrong.unwrap_or(&setting);
                let shown = match &told.raw {
                    Raw::Array(items) if items.is_empty() => "an empty array".to_owned(),
                    Raw::Table(_) | Raw::Array(_) => told.shown.clone(),
                    _ if format.is_secret() => HIDDEN.to_owned(),
                    _ => without_credentials(&told.shown),
                };
                let within = if wrong.is_some() { " in an array" } else { "" };
                let told = Setting { shown: shown + within, allowed: setting.allowed, ..told.clone() };
                let key = format!("{}.{key}", self.path);
                self.report.rejected(key, &told, format.allowed(), &format.names());
            }
            candidate(value, setting);
        }
    }

    /// Takes a table below this one as it stands.
    pub(super) fn take_table(&mut self, key: &'static str) -> Option<Setting> {
        self.known.push(key);
        self.file.remove(key)
    }

    /// Takes every table that is left: those whose names only a registry knows.
    pub(super) fn take_tables(&mut self) -> Table {
        let is_table = |_: &String, setting: &mut Setting| matches!(setting.raw, Raw::Table(_));
        self.file.extract_if(.., is_table).collect()
    }

    /// Ends the table: what is left in it is unknown.
    pub(super) fn end(self) {
        for (key, setting) in &self.file {
            let what = if matches!(setting.raw, Raw::Table(_)) { "table" } else { "key" };
            let suggestion = nearest(key, self.known.iter().copied());
            let complaint = Complaint::Unknown { what, suggestion };
            self.report.problem(&setting.origin, dotted(self.path, key), complaint);
        }
    }
}

/// The first item of an array for which it is not allowed, if it is one of them and not how many there are.
fn wrong_item<'s, F: Format>(format: &F, setting: &'s Setting) -> Option<&'s Setting> {
    let Raw::Array(items) = &setting.raw else { return None };
    items.iter().find(|item| format.parse(&Raw::Array(vec![(*item).clone()])).is_none())
}

/// `path.key`, the key quoted where TOML would quote it.
pub(super) fn dotted(path: &str, key: &str) -> String {
    let bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
