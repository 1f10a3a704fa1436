//! `[eviction]`: the policy and its options. Options of policies that are not chosen are checked, too.

use std::sync::Arc;

use engine::WeighBy;
use policies::{PolicyEntry, PolicyFactory};

use super::document::{Raw, Setting, Table, table_to_toml};
use super::error::{Complaint, nearest};
use super::format::{Choice, Count, Name, OrWord};
use super::layers::Layers;
use super::model::EvictionConfig;
use super::origin::Origin;
use super::section::{Report, Section, dotted};

const WEIGH_BY: Choice<WeighBy> = Choice(&[("items", WeighBy::Items), ("bytes", WeighBy::Bytes)]);

/// `registered` is never empty.
pub(super) fn read(
    file: Option<Setting>,
    layers: &mut Layers,
    registered: &[PolicyEntry],
    items_are_limited: bool,
    report: &mut Report,
) -> EvictionConfig {
    let file = report.expect_table("eviction", file);
    let names: Vec<&'static str> = registered.iter().map(|entry| entry.name).collect();
    let default = names.iter().find(|name| **name == "lru").unwrap_or(&names[0]);

    let mut section = Section::begin("eviction", "[eviction]", file, layers.take("eviction"), report);
    let policy = section.take("policy", &Name(names.clone()), (*default).to_owned()).value;
    let weigh_by = section.take("weigh_by", &OrWord("auto", WEIGH_BY), None);
    let seed = section.take("seed", &Count::at_least(0), 0).value;
    let tables = section.take_tables();
    section.end();

    if let (Some(WeighBy::Items), false, Some(setting)) =
        (weigh_by.value, items_are_limited, weigh_by.blamable())
    {
        let conflict = "which needs a limited store.max_items, but that is \"unlimited\"".to_owned();
        report.conflict("eviction.weigh_by", setting, conflict);
    }
    let entry = registered.iter().find(|entry| entry.name == policy).expect("a registered name was chosen");
    let factory = check_options(&tables, entry, registered, report).unwrap_or_else(entry.with_defaults);
    show_options(&policy, tables.get(&policy), factory.as_ref(), report);
    let automatic = if items_are_limited { WeighBy::Items } else { WeighBy::Bytes };
    EvictionConfig {
        policy,
        weigh_by: weigh_by.value.unwrap_or(automatic),
        seed,
        factory: Arc::from(factory),
    }
}

/// Checks every `[eviction.<policy>]`; the chosen policy with its options, where the file has them.
fn check_options(
    tables: &Table,
    chosen: &PolicyEntry,
    registered: &[PolicyEntry],
    report: &mut Report,
) -> Option<Box<dyn PolicyFactory>> {
    let mut factory = None;
    for (name, setting) in tables {
        let Raw::Table(options) = &setting.raw else { continue };
        let Some(entry) = registered.iter().find(|entry| entry.name == name) else {
            let suggestion = nearest(name, registered.iter().map(|entry| entry.name));
            let complaint = Complaint::Unknown { what: "policy", suggestion };
            report.problem(&setting.origin, dotted("eviction", name), complaint);
            continue;
        };
        let configured = configure_table(entry, setting, options, report);
        if entry.name == chosen.name {
            factory = configured;
        }
    }
    factory
}

fn configure_table(
    entry: &PolicyEntry,
    setting: &Setting,
    options: &Table,
    report: &mut Report,
) -> Option<Box<dyn PolicyFactory>> {
    let path = dotted("eviction", entry.name);
    let (known, unknown): (Table, Table) = options
        .clone()
        .into_iter()
        .partition(|(key, _)| entry.options.iter().any(|option| option.name == key));
    for (key, setting) in &unknown {
        let suggestion = nearest(key, entry.options.iter().map(|option| option.name));
        let complaint = Complaint::Unknown { what: "option", suggestion };
        report.problem(&setting.origin, dotted(&path, key), complaint);
    }
    let error = match configure(entry, table_to_toml(&known)) {
        Ok(factory) => return Some(factory),
        Err(error) => error,
    };
    // Which of them is it? One by one they say so; otherwise it is their combination.
    let problems_before = report.problems.len();
    for option in entry.options {
        let Some((key, setting)) = known.get_key_value(option.name) else { continue };
        let alone = std::iter::once((key.clone(), setting.raw.to_toml())).collect();
        if configure(entry, alone).is_err() {
            report.rejected(dotted(&path, key), setting, option.allowed.to_owned(), &[]);
        }
    }
    if report.problems.len() == problems_before {
        report.conflict(&path, setting, format!("whose options do not go together: {error}"));
    }
    None
}

fn configure(entry: &PolicyEntry, options: toml::Table) -> Result<Box<dyn PolicyFactory>, String> {
    (entry.configure)(&mut <dyn erased_serde::Deserializer<'_>>::erase(options))
        .map_err(|error| error.to_string().trim().replace('\n', ", "))
}

fn show_options(policy: &str, table: Option<&Setting>, factory: &dyn PolicyFactory, report: &mut Report) {
    let set = match table.map(|setting| &setting.raw) {
        Some(Raw::Table(options)) => options.clone(),
        _ => Table::new(),
    };
    // Options that cannot be written as TOML cannot have come from it either.
    let options = toml::Table::try_from(factory.options()).unwrap_or_default();
    report.effective.table(format!("[{}]", dotted("eviction", policy)));
    for (key, value) in options {
        let origin = set.get(&key).map_or(Origin::Default, |setting| setting.origin.clone());
        report.effective.value(dotted("", &key), value.to_string(), origin);
    }
}
