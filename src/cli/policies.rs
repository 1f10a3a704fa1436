//! `tiny-cache policies`: the eviction policies to choose from.

use std::fmt::Write as _;

use ::policies::PolicyEntry;
use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::error::CliError;
use super::output::{self, OutputFormat};

/// List the eviction policies and their options
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  tiny-cache policies\n  \
                  tiny-cache policies --output json | jq -r '.[].name'\n  \
                  tiny-cache --policy sieve")]
pub(super) struct PoliciesArgs {
    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &PoliciesArgs, registry: &[PolicyEntry]) -> Result<Outcome, CliError> {
    match args.output {
        OutputFormat::Text => output::write(as_text(registry).as_bytes())?,
        OutputFormat::Json => output::json(&registry.iter().map(as_json).collect())?,
    }
    Ok(Outcome::Done)
}

fn as_text(registry: &[PolicyEntry]) -> String {
    let width = registry.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut row = |label: &str, content: &str| {
        writeln!(text, "{label:width$}  {content}").expect("a String takes whatever is written to it");
    };
    for entry in registry {
        row(entry.name, entry.summary);
        row("", &format!("paper: {}", entry.paper));
        row("", &memory(entry));
        for option in entry.options {
            row("", &format!("{} = {}: {}", option.name, option.allowed, option.meaning));
        }
    }
    text
}

fn memory(entry: &PolicyEntry) -> String {
    let (counted, weighed) = (entry.bytes_per_entry, entry.bytes_per_weighed_entry);
    if counted == weighed {
        return format!("memory: {counted} bytes an entry");
    }
    format!("memory: {counted} bytes an entry, {weighed} where weights are bytes")
}

fn as_json(entry: &PolicyEntry) -> Value {
    let options: Vec<Value> = entry
        .options
        .iter()
        .map(|option| json!({ "name": option.name, "allowed": option.allowed, "meaning": option.meaning }))
        .collect();
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "bytes_per_entry": entry.bytes_per_entry,
        "bytes_per_weighed_entry": entry.bytes_per_weighed_entry,
        "options": options,
    })
}
