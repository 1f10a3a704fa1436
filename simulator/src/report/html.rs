//! The page: what was simulated, who wins, the plots, and tables with every figure.

use std::fmt::Write as _;

use super::axis::{full_capacity, grouped};
use super::panel::Panel;
use super::svg::Escaped;
use super::{BAR_PLOTS, Report, bars, curves, palette};
use crate::advice::Advice;
use crate::{Mode, SimulationResult};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Appends formatted markup.
macro_rules! put {
    ($page:expr, $($arguments:tt)+) => {
        writeln!($page, $($arguments)+).expect("a String takes whatever is written to it")
    };
}

pub(super) fn page(report: &Report<'_>) -> String {
    let mut page = String::new();
    let title = Escaped(report.title);
    put!(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
    put!(
        page,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
    );
    put!(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    put!(page, "<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">");
    put!(page, "<title>{title}</title>\n<style>\n{STYLE}");
    put!(
        page,
        "@media (prefers-color-scheme: dark){{\n{}}}\n</style>\n</head>\n<body>",
        palette::dark_style()
    );
    put!(page, "<header>\n<h1>{title}</h1>");
    for note in report.notes {
        put!(page, "<p class=\"note\">{}</p>", Escaped(note));
    }
    put!(page, "</header>\n<main>");
    for panel in Panel::all(report.results) {
        section(&mut page, &panel, report.advice);
    }
    everything(&mut page, report.results);
    put!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>");
    page
}

fn section(page: &mut String, panel: &Panel<'_>, advice: &[Advice]) {
    put!(page, "<section>\n<h2>{}</h2>", Escaped(&panel.heading()));
    if let Some(verdict) = verdict(panel) {
        put!(page, "<p class=\"verdict\">{verdict}</p>");
    }
    if panel.capacities.len() > 1 {
        put!(page, "<figure>\n<figcaption>Miss ratio over capacity{}</figcaption>", bound_caption(panel));
        let label = format!("Miss-ratio curves of {}", panel.trace);
        for (class, size) in [("plot wide", curves::WIDE), ("plot narrow", curves::NARROW)] {
            page.push_str(&curves::draw(panel, size).element(class, &label));
        }
        put!(page, "</figure>");
    }
    let capacities = panel.spread_capacities(BAR_PLOTS);
    let caption = if capacities.len() < panel.capacities.len() {
        format!(
            "Miss ratio by policy at {} of the {} capacities, best first",
            capacities.len(),
            panel.capacities.len()
        )
    } else {
        "Miss ratio by policy, best first".to_owned()
    };
    put!(page, "<figure>\n<figcaption>{caption}</figcaption>\n<div class=\"bars\">");
    let (_, longest) = panel.range();
    for capacity in capacities {
        let label = format!("Miss ratios at {}", full_capacity(capacity, panel.mode));
        page.push_str(&bars::draw(panel, capacity, longest).element("plot", &label));
    }
    put!(page, "</div>\n</figure>");
    memory_table(page, panel, advice);
    overview_table(page, panel);
    put!(page, "</section>");
}

/// The one sentence to take away.
fn verdict(panel: &Panel<'_>) -> Option<String> {
    let ranked = panel.ranked();
    let [best, rest @ ..] = ranked.as_slice() else { return None };
    if rest.is_empty() {
        return None;
    }
    let wins = panel
        .capacities
        .iter()
        .filter(|capacity| {
            panel.ranked_at(**capacity).first().is_some_and(|(first, _)| first.policy == best.policy)
        })
        .count();
    Some(format!(
        "Lowest on average: <strong>{}</strong>, and first at {wins} of {} {}; then {}.",
        Escaped(best.policy),
        panel.capacities.len(),
        if panel.capacities.len() == 1 { "capacity" } else { "capacities" },
        rest.iter()
            .take(2)
            .map(|series| Escaped(series.policy).to_string())
            .collect::<Vec<_>>()
            .join(" and "),
    ))
}

fn bound_caption(panel: &Panel<'_>) -> String {
    let bounds: Vec<_> = panel.bounds().map(|series| Escaped(series.policy).to_string()).collect();
    if bounds.is_empty() {
        return String::new();
    }
    format!("; the shaded region below {} is out of any policy's reach", bounds.join(", "))
}

/// What half, the same and double the memory would give.
fn memory_table(page: &mut String, panel: &Panel<'_>, advice: &[Advice]) {
    let mut rows: Vec<_> =
        advice.iter().filter(|advice| advice.trace == panel.trace && advice.mode == panel.mode).collect();
    let Some(first) = rows.first() else { return };
    let name = |capacity| full_capacity(capacity, panel.mode);
    put!(page, "<h3>What memory buys</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th>policy</th>");
    for (what, choice) in [("half", first.half), ("same", first.same), ("double", first.double)] {
        put!(page, "<th class=\"n\">{what}: {}</th>", name(choice.capacity));
    }
    put!(
        page,
        "<th class=\"n\">misses with half</th><th class=\"n\">misses with double</th></tr></thead>\n<tbody>"
    );
    rows.sort_by(|a, b| a.same.miss_ratio.total_cmp(&b.same.miss_ratio));
    for row in rows {
        put!(page, "<tr><th>{}</th>", Escaped(&row.policy));
        for choice in [row.half, row.same, row.double] {
            put!(page, "<td class=\"n\">{:.4}</td>", choice.miss_ratio);
        }
        for change in [row.change(row.half), row.change(row.double)] {
            put!(page, "<td class=\"n\">{change}</td>");
        }
        put!(page, "</tr>");
    }
    put!(page, "</tbody>\n</table></div>");
}

/// Policies by capacities, the best of each capacity marked.
fn overview_table(page: &mut String, panel: &Panel<'_>) {
    put!(
        page,
        "<h3>Miss ratio by policy and capacity</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th>policy</th>"
    );
    for capacity in &panel.capacities {
        put!(page, "<th class=\"n\">{}</th>", full_capacity(*capacity, panel.mode));
    }
    put!(page, "</tr></thead>\n<tbody>");
    for series in panel.ranked().into_iter().chain(panel.bounds()) {
        let class = if series.is_bound { " class=\"bound-row\"" } else { "" };
        put!(page, "<tr{class}><th>{}</th>", Escaped(series.policy));
        for capacity in &panel.capacities {
            let Some(result) = series.at(*capacity) else {
                put!(page, "<td class=\"n\">–</td>");
                continue;
            };
            let best = panel.ranked_at(*capacity).first().map_or(0.0, |(_, best)| best.miss_ratio);
            let is_best = !series.is_bound && result.miss_ratio <= best;
            put!(page, "<td class=\"n{}\">{:.4}</td>", if is_best { " best" } else { "" }, result.miss_ratio);
        }
        put!(page, "</tr>");
    }
    put!(page, "</tbody>\n</table></div>");
}

/// Every figure of every result, sortable.
fn everything(page: &mut String, results: &[SimulationResult]) {
    put!(page, "<section>\n<h2>All results</h2>\n<p class=\"note\">A click on a heading sorts.</p>");
    put!(page, "<div class=\"scroll tall\"><table class=\"sortable\">\n<thead><tr>");
    for (heading, is_number) in [
        ("trace", false),
        ("mode", false),
        ("capacity", true),
        ("policy", false),
        ("requests", true),
        ("misses", true),
        ("miss ratio", true),
        ("byte miss ratio", true),
        ("seconds", true),
    ] {
        let class = if is_number { " class=\"n\"" } else { "" };
        put!(page, "<th{class}><button type=\"button\">{heading}</button></th>");
    }
    put!(page, "</tr></thead>\n<tbody>");
    for result in results {
        let mode = if result.mode == Mode::Items { "items" } else { "bytes" };
        let SimulationResult { capacity, requests, misses, .. } = *result;
        put!(page, "<tr><td>{}</td><td>{mode}</td>", Escaped(&result.trace));
        put!(page, "<td class=\"n\" data-value=\"{capacity}\">{}</td>", full_capacity(capacity, result.mode));
        put!(page, "<th>{}</th>", Escaped(&result.policy));
        for count in [requests, misses] {
            put!(page, "<td class=\"n\" data-value=\"{count}\">{}</td>", grouped(count));
        }
        for ratio in [result.miss_ratio, result.byte_miss_ratio] {
            put!(page, "<td class=\"n\" data-value=\"{ratio}\">{ratio:.6}</td>");
        }
        put!(page, "<td class=\"n\" data-value=\"{0}\">{0:.3}</td></tr>", result.seconds);
    }
    put!(page, "</tbody>\n</table></div>\n</section>");
}
