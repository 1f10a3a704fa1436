//! Standard output and standard error: the only place that writes to them.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::error::CliError;
use crate::config::ConfigErrors;

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object on one line
    Json,
}

/// Writes bytes as they are.
pub(super) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::StandardOutput)
}

/// Writes a line.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a JSON value as one line.
pub(super) fn json(value: &Value) -> Result<(), CliError> {
    line(&value.to_string())
}

/// Prints a status: the word alone, or with its key as JSON.
pub(super) fn status(format: OutputFormat, key: &str, status: &str) -> Result<(), CliError> {
    match format {
        OutputFormat::Text => line(status),
        OutputFormat::Json => json(&serde_json::json!({ "key": key, "status": status })),
    }
}

/// Tells the user what went wrong, in one line on standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to be told where standard error itself is gone.
    let _ = writeln!(io::stderr().lock(), "tiny-cache: {text}");
}

/// A count with thousands separators: 1,234,567.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines of a label and a value, the values below one another.
pub(super) fn table(rows: &[(&str, String)]) -> String {
    use std::fmt::Write as _;

    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (label, value)| {
        writeln!(text, "{label:width$}  {value}").expect("a String takes whatever is written to it");
        text
    })
}

/// Tells the user everything that is wrong with a configuration, a problem a line.
pub(super) fn complain_all(errors: &ConfigErrors) {
    for problem in errors.problems() {
        complain(&problem.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
