//! Results as a table, as JSON and as csv.

use std::fmt::Write as _;

use clap::ValueEnum;
use simulator::{Mode, SimulationResult};

use super::super::output::grouped;

/// How to print the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum RowsFormat {
    /// For people
    #[default]
    Table,
    /// An array of objects, one a line
    Json,
    /// With a header
    Csv,
}

const TAKES_ALL: &str = "a String takes whatever is written to it";

/// A table per trace and capacity.
pub(super) fn table(results: &[SimulationResult]) -> String {
    let width = results.iter().map(|row| row.policy.len()).max().unwrap_or(0).max("policy".len());
    let mut text = String::new();
    let same = |a: &SimulationResult, b: &SimulationResult| a.trace == b.trace && a.capacity == b.capacity;
    for rows in results.chunk_by(same) {
        let first = &rows[0];
        let unit = if first.mode == Mode::Items { "objects" } else { "bytes" };
        let separator = if text.is_empty() { "" } else { "\n" };
        writeln!(
            text,
            "{separator}{}: {} {}, a capacity of {} {unit}",
            first.trace,
            grouped(first.requests),
            if first.requests == 1 { "request" } else { "requests" },
            grouped(first.capacity)
        )
        .expect(TAKES_ALL);
        writeln!(text, "{:width$}  miss ratio  byte miss ratio        misses   seconds", "policy")
            .expect(TAKES_ALL);
        for row in rows {
            let misses = grouped(row.misses);
            let SimulationResult { policy, miss_ratio, byte_miss_ratio, seconds, .. } = row;
            writeln!(
                text,
                "{policy:width$}  {miss_ratio:>10.6}  {byte_miss_ratio:>15.6}  {misses:>12}  {seconds:>8.3}"
            )
            .expect(TAKES_ALL);
        }
    }
    text
}

/// An array with an object a line.
pub(super) fn json(results: &[SimulationResult]) -> String {
    let rows: Vec<String> = results
        .iter()
        .map(|row| serde_json::to_string(row).expect("a row is numbers and text, which JSON has"))
        .collect();
    format!("[{}]\n", rows.join(",\n"))
}

/// A header and a line per row.
pub(super) fn csv(results: &[SimulationResult]) -> String {
    let mut text = format!("{CSV_HEADER}\n");
    for row in results {
        writeln!(text, "{}", csv_row(row)).expect(TAKES_ALL);
    }
    text
}

pub(in super::super) const CSV_HEADER: &str =
    "trace,mode,capacity,policy,requests,misses,miss_ratio,byte_miss_ratio,seconds";

/// A line of csv without its end.
pub(in super::super) fn csv_row(row: &SimulationResult) -> String {
    let mode = if row.mode == Mode::Items { "items" } else { "bytes" };
    let SimulationResult { capacity, requests, misses, miss_ratio, byte_miss_ratio, seconds, .. } = row;
    let (trace, policy) = (field(&row.trace), field(&row.policy));
    format!("{trace},{mode},{capacity},{policy},{requests},{misses},{miss_ratio},{byte_miss_ratio},{seconds}")
}

/// A field of csv, quoted where it must be.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_commas_and_quotes_is_one_csv_field() {
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("plain.csv"), "plain.csv");
    }
}
