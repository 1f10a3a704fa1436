//! Which policies, with which options, for every command that simulates them.

use clap::{Args, ValueEnum};
use policies::PolicyEntry;
use serde_json::Value;
use simulator::{OPTIMUM, PolicyChoice, Simulator};

use super::error::CliError;
use crate::config::nearest;

const ALL: &str = "all";
const VARIANT: &str = "variant";

/// Whose behaviour a policy shall have in details that its paper leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Variant {
    /// As the engine libCacheSim behaves, to the last miss
    Libcachesim,
}

/// Policies and their options.
#[derive(Args, Debug)]
#[command(next_help_heading = "Policies")]
pub(super) struct PolicyArgs {
    /// Policies to simulate, by name and in this order; "all" for every one (see "tiny-cache policies")
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = ALL)]
    policy: Vec<String>,
    /// An option of a policy, as under [eviction.<policy>]; may be given more than once
    #[arg(long, value_name = "POLICY.OPTION=VALUE", value_parser = setting)]
    set: Vec<Setting>,
    /// Set variant = "libcachesim" for every policy that has it
    #[arg(long, value_enum)]
    variant: Option<Variant>,
}

/// One `--set`.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    policy: String,
    option: String,
    value: Value,
}

fn setting(text: &str) -> Result<Setting, String> {
    let parts = text.split_once('=').and_then(|(path, value)| Some((path.split_once('.')?, value)));
    let ((policy, option), value) =
        parts.ok_or("expected POLICY.OPTION=VALUE, such as s3-fifo.small_ratio=0.2")?;
    // What is neither a number nor true or false is text, quoted or not.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok(Setting { policy: policy.to_owned(), option: option.to_owned(), value })
}

impl PolicyArgs {
    /// The policies with their options, checked. The optimum is no policy and not among them.
    pub(super) fn choices(&self, simulator: &Simulator) -> Result<Vec<PolicyChoice>, CliError> {
        let mut choices: Vec<PolicyChoice> = Vec::new();
        let mut choose = |entry: &PolicyEntry| {
            if choices.iter().all(|chosen| chosen.name != entry.name) {
                choices.push(PolicyChoice::named(entry.name));
            }
        };
        for name in &self.policy {
            match name.as_str() {
                ALL => simulator.policies().iter().for_each(&mut choose),
                OPTIMUM => {}
                name => choose(find(simulator, name)?),
            }
        }
        for choice in &mut choices {
            let entry = find(simulator, &choice.name)?;
            if self.variant.is_some() && entry.options.iter().any(|option| option.name == VARIANT) {
                choice.options.insert(VARIANT.to_owned(), "libcachesim".into());
            }
        }
        for Setting { policy, option, value } in &self.set {
            let entry = find(simulator, policy)?;
            let names = || entry.options.iter().map(|option| option.name);
            if !names().any(|name| name == option) {
                let hint = hint(option, &names().collect::<Vec<_>>());
                return Err(CliError::Usage(format!("--set: {policy} has no option {option:?}{hint}")));
            }
            let Some(choice) = choices.iter_mut().find(|choice| choice.name == *policy) else {
                return Err(CliError::Usage(format!(
                    "--set {policy}.{option}: --policy does not name {policy}"
                )));
            };
            choice.options.insert(option.clone(), value.clone());
        }
        for choice in &choices {
            simulator.check(choice).map_err(|error| CliError::Usage(error.to_string()))?;
        }
        Ok(choices)
    }
}

fn find<'s>(simulator: &'s Simulator, name: &str) -> Result<&'s PolicyEntry, CliError> {
    simulator.find(name).ok_or_else(|| {
        let mut names: Vec<&str> = simulator.policies().iter().map(|entry| entry.name).collect();
        names.push(ALL);
        CliError::Usage(format!("unknown policy {name:?}{}", hint(name, &names)))
    })
}

fn hint(word: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    match nearest(word, names.iter().copied()) {
        Some(name) => format!(", did you mean {name:?}?"),
        None => format!(": there is {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_number_a_truth_or_text() {
        for (text, value) in [
            ("p.o=0.2", Value::from(0.2)),
            ("p.o=3", Value::from(3)),
            ("p.o=true", Value::from(true)),
            ("p.o=libcachesim", Value::from("libcachesim")),
            ("p.o=\"2\"", Value::from("2")),
        ] {
            assert_eq!(setting(text).unwrap().value, value, "{text}");
        }
        for text in ["", "p", "p.o", "p=1"] {
            assert!(setting(text).is_err(), "{text}");
        }
    }
}
