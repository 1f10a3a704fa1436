//! Points of curves as tables, as JSON and as csv.

use std::fmt::Write as _;

use serde::Serialize;
use simulator::curve::Point;
use simulator::report::capacity_text;
use simulator::{Mode, SimulationResult};

use super::super::output::grouped;
use super::super::simulate::rows::{CSV_HEADER, csv_row};
use super::TraceCurves;

const TAKES_ALL: &str = "a String takes whatever is written to it";

/// Columns side by side; more follow below, so that a terminal does not break the lines.
const COLUMNS: usize = 9;

/// For each trace the curves, and what half, the same and double the memory would give.
pub(super) fn table(curves: &[TraceCurves]) -> String {
    let mut text = String::new();
    for trace in curves {
        let Some(first) = trace.points.first() else { continue };
        let separator = if text.is_empty() { "" } else { "\n" };
        let (requests, distinct) = (grouped(trace.survey.requests), grouped(trace.survey.distinct));
        let unit = if first.result.mode == Mode::Items { "objects" } else { "bytes" };
        writeln!(
            text,
            "{separator}{}: {requests} requests to {distinct} objects\n\nMiss ratio over capacity in {unit}",
            first.result.trace
        )
        .expect(TAKES_ALL);
        curve_table(&mut text, &trace.points);
        memory_table(&mut text, trace, first.result.mode);
    }
    text
}

fn curve_table(text: &mut String, points: &[Point]) {
    let mut capacities: Vec<(u64, f64)> =
        points.iter().map(|point| (point.result.capacity, point.rate)).collect();
    capacities.sort_by_key(|(capacity, _)| *capacity);
    capacities.dedup_by_key(|(capacity, _)| *capacity);
    let mut policies: Vec<&str> = points.iter().map(|point| point.result.policy.as_str()).collect();
    policies.dedup();
    let width = policies.iter().map(|policy| policy.len()).max().unwrap_or(0).max("sampled".len());
    for (block, columns) in capacities.chunks(COLUMNS).enumerate() {
        if block > 0 {
            text.push('\n');
        }
        let cells = columns.iter().map(|(capacity, _)| capacity_text(*capacity, points[0].result.mode));
        line(text, width, "", cells);
        for policy in &policies {
            let cell = |capacity: u64| {
                let at = |point: &&Point| point.result.capacity == capacity && point.result.policy == *policy;
                points
                    .iter()
                    .find(at)
                    .map_or("-".to_owned(), |point| format!("{:.4}", point.result.miss_ratio))
            };
            line(text, width, policy, columns.iter().map(|(capacity, _)| cell(*capacity)));
        }
        line(text, width, "sampled", columns.iter().map(|(_, rate)| percent(*rate)));
    }
}

fn memory_table(text: &mut String, trace: &TraceCurves, mode: Mode) {
    let Some(first) = trace.advice.first() else { return };
    let current = capacity_text(trace.current, mode);
    let unit = if mode == Mode::Items { " objects" } else { "" };
    writeln!(text, "\nWhat memory buys, from {current}{unit} now").expect(TAKES_ALL);
    let width = trace.advice.iter().map(|advice| advice.policy.len()).max().unwrap_or(0);
    let [half, same, double] =
        [first.half, first.same, first.double].map(|c| capacity_text(c.capacity, mode));
    let [half_width, same_width, double_width] = [half.len() + 6, same.len() + 6, double.len() + 8];
    writeln!(
        text,
        "{:width$}  half: {half}  same: {same}  double: {double}  misses with half  misses with double",
        ""
    )
    .expect(TAKES_ALL);
    for advice in &trace.advice {
        let [half, same, double] = [advice.half, advice.same, advice.double].map(|choice| choice.miss_ratio);
        let (half_misses, double_misses) = (advice.change(advice.half), advice.change(advice.double));
        writeln!(
            text,
            "{:width$}  {half:>half_width$.4}  {same:>same_width$.4}  {double:>double_width$.4}  \
             {half_misses:>16}  {double_misses:>18}",
            advice.policy,
        )
        .expect(TAKES_ALL);
    }
}

fn line(text: &mut String, width: usize, label: &str, cells: impl Iterator<Item = String>) {
    write!(text, "{label:width$}").expect(TAKES_ALL);
    for cell in cells {
        write!(text, "  {cell:>9}").expect(TAKES_ALL);
    }
    text.push('\n');
}

/// A share as "100%", "14.7%" or "0.12%".
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = match percent {
        100.0.. => 0,
        1.0.. => 1,
        _ => 2,
    };
    format!("{percent:.decimals$}%")
}

/// What the point's capacity is of the current one, where it is half, the same or double.
fn of_current(result: &SimulationResult, trace: &TraceCurves) -> Option<f64> {
    let footprint = match result.mode {
        Mode::Items => trace.survey.distinct,
        Mode::Bytes => trace.survey.footprint_bytes,
    };
    let around = simulator::around(trace.current, footprint);
    let place = around.iter().position(|capacity| *capacity == result.capacity)?;
    Some([0.5, 1.0, 2.0][place])
}

fn points(curves: &[TraceCurves]) -> impl Iterator<Item = (&Point, Option<f64>)> {
    curves.iter().flat_map(|trace| trace.points.iter().map(|point| (point, of_current(&point.result, trace))))
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    result: &'a SimulationResult,
    sampling_rate: f64,
    of_current: Option<f64>,
}

/// An array with an object a line: a row of `simulate` with the share of the objects that was simulated, and with what the
/// capacity is of the current one.
pub(super) fn json(curves: &[TraceCurves]) -> String {
    let row = |(point, of_current): (&Point, Option<f64>)| {
        let row = Row { result: &point.result, sampling_rate: point.rate, of_current };
        serde_json::to_string(&row).expect("a row is numbers and text, which JSON has")
    };
    format!("[{}]\n", points(curves).map(row).collect::<Vec<_>>().join(",\n"))
}

/// A header and a line per point.
pub(super) fn csv(curves: &[TraceCurves]) -> String {
    let mut text = format!("{CSV_HEADER},sampling_rate,of_current\n");
    for (point, of_current) in points(curves) {
        let of_current = of_current.map_or(String::new(), |share| share.to_string());
        writeln!(text, "{},{},{of_current}", csv_row(&point.result), point.rate).expect(TAKES_ALL);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_with_as_many_digits_as_help() {
        for (share, text) in [(1.0, "100%"), (0.1474, "14.7%"), (0.0012, "0.12%"), (0.01, "1.0%")] {
            assert_eq!(percent(share), text);
        }
    }
}
