//! Dashboards and rules name metrics and labels that there are: those of docs/metrics.md, which the end-to-end
//! tests hold against a running server, both ways.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Labels that Prometheus adds.
const ADDED: [&str; 3] = ["job", "instance", "le"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The labels of each metric, by its name; a histogram's are under all three names that it has in queries.
fn metrics() -> HashMap<String, HashSet<String>> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).expect("the metrics have a page");
    let mut metrics = HashMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let labels: HashSet<String> =
            cells[4].split(',').map(|label| label.trim_matches([' ', '`']).to_owned()).collect();
        let endings: &[&str] = if cells[2] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for ending in endings {
            metrics.insert(format!("{name}{ending}"), labels.clone());
        }
    }
    assert!(metrics.len() > 50, "only {} metrics have a row", metrics.len());
    metrics
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// What is wrong with a text that holds queries.
fn problems(text: &str, metrics: &HashMap<String, HashSet<String>>) -> (usize, Vec<String>) {
    let mut found = Vec::new();
    let mut checked = 0;
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..][..rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start)];
        rest = &rest[start + word.len()..];
        // A word with a colon is a recorded one.
        let is_metric =
            ["tiny_cache_", "rpc_server_", "http_server_", "process_"].iter().any(|of| word.starts_with(of));
        if is_metric && !word.contains(':') {
            checked += 1;
            match metrics.get(word) {
                None => found.push(format!("there is no metric {word}")),
                Some(labels) => {
                    let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                    let named = matchers.map_or("", |(matchers, _)| matchers);
                    for label in labels_matched(named) {
                        if !labels.contains(label) && !ADDED.contains(&label) {
                            found.push(format!("{word} has no label {label}"));
                        }
                    }
                }
            }
        } else if ["by", "on", "without", "ignoring"].contains(&word)
            && let Some(list) = rest.strip_prefix(" (").or_else(|| rest.strip_prefix('('))
            && let Some((list, _)) = list.split_once(')')
        {
            for label in list.split(',').map(str::trim) {
                if !ADDED.contains(&label) && !metrics.values().any(|labels| labels.contains(label)) {
                    found.push(format!("no metric has a label {label}"));
                }
            }
        }
    }
    (checked, found)
}

/// `a="x", b=~"y"`: a and b.
fn labels_matched(matchers: &str) -> impl Iterator<Item = &str> {
    let outside_quotes = matchers.split('"').step_by(2);
    outside_quotes
        .filter_map(|text| text.trim_matches([',', ' ', '\n']).split(['=', '!']).next())
        .filter(|name| !name.is_empty())
}

/// Every text in a dashboard.
fn texts(value: &serde_json::Value, visit: &mut dyn FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => visit(text),
        serde_json::Value::Array(values) => values.iter().for_each(|value| texts(value, visit)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| texts(value, visit)),
        _ => {}
    }
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = root().join("deploy/observability").join(folder);
    let entries =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path());
    let files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn dashboards_ask_for_metrics_that_there_are() {
    let metrics = metrics();
    for path in files("grafana/dashboards", "json") {
        let dashboard = fs::read_to_string(&path).expect("the dashboard is there");
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("a dashboard is JSON");
        let (mut checked, mut found) = (0, Vec::new());
        texts(&dashboard, &mut |text| {
            let (names, wrong) = problems(text, &metrics);
            checked += names;
            found.extend(wrong);
        });
        assert!(checked > 20, "{}: only {checked} metrics were found", path.display());
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn rules_ask_for_metrics_that_there_are() {
    let metrics = metrics();
    for path in files("prometheus/rules", "yaml") {
        let text = fs::read_to_string(&path).expect("the rules are there");
        let (checked, found) = problems(&text, &metrics);
        assert!(checked > 10, "{}: only {checked} metrics were found", path.display());
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn every_alert_has_a_test() {
    let tests = fs::read_to_string(root().join("deploy/observability/prometheus/tests/alerts.yaml"));
    let tests = tests.expect("the alerts have tests");
    let rules = fs::read_to_string(root().join("deploy/observability/prometheus/rules/alerts.yaml"));
    let rules = rules.expect("there are alerts");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8);
    for alert in alerts {
        assert!(tests.contains(&format!("- name: {alert}\n")), "{alert} has no test");
    }
}

#[test]
fn what_is_broken_is_seen() {
    let metrics = HashMap::from([("tiny_cache_a_total".to_owned(), HashSet::from(["reason".to_owned()]))]);
    for (query, problem) in [
        ("sum by (reason) (rate(tiny_cache_a_total{reason=~\"x|y\", job=\"b\"}[5m]))", None),
        ("instance:tiny_cache_b:rate5m > 1", None),
        ("rate(tiny_cache_b_total[5m])", Some("there is no metric tiny_cache_b_total")),
        ("tiny_cache_a_total{result!=\"x\"}", Some("tiny_cache_a_total has no label result")),
        ("sum by (result) (up)", Some("no metric has a label result")),
    ] {
        let found = problems(query, &metrics).1;
        assert_eq!(found.first().map(String::as_str), problem, "{query}");
    }
}
