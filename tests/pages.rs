//! Pages tell the truth where a program can see it: every relative link leads to a file that is there, and to a
//! heading that is in it; every path on the map of the code exists; every metric is one.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the repository, by its path from the root.
fn pages() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are text");
    names.lines().map(PathBuf::from).collect()
}

/// A page without its blocks of code, where brackets are something else.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

fn links(text: &str) -> Vec<String> {
    prose(text)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

/// As a forge makes them out of headings.
fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// `a/b/../c` as `a/c`; `None` where it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Prefix(_) | Component::RootDir => return None,
        }
    }
    Some(parts.into_iter().collect())
}

fn broken(page: &Path, text: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let place = if file.is_empty() {
        page.to_owned()
    } else {
        let place = page.parent().unwrap_or(Path::new("")).join(file);
        let Some(place) = normal(&place) else { return Some("leads out of the repository".to_owned()) };
        place
    };
    let full = root().join(&place);
    if !full.exists() {
        return Some("is not there".to_owned());
    }
    let anchor = anchor?;
    let text = if file.is_empty() { text.to_owned() } else { fs::read_to_string(full).ok()? };
    (!anchors(&text).iter().any(|heading| heading == anchor)).then(|| format!("has no heading #{anchor}"))
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut problems = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).expect("a page can be read");
        for target in links(&text) {
            checked += 1;
            if let Some(problem) = broken(&page, &text, &target) {
                problems.push(format!("{}: {target} {problem}", page.display()));
            }
        }
    }
    assert!(checked > 40, "only {checked} links were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_path_on_the_map_is_there() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("the map is there");
    let mut checked = 0;
    for row in map.lines().filter(|line| line.starts_with("| `")) {
        let path = row.split('`').nth(1).expect("a path in the first column");
        checked += 1;
        assert!(root().join(path).exists(), "docs/architecture.md names {path}, which is not there");
    }
    assert!(checked > 15, "only {checked} rows were found");
}

#[test]
fn every_metric_on_a_page_is_one() {
    // The page about metrics is held against a running server by the end-to-end tests.
    let metrics = fs::read_to_string(root().join("docs/metrics.md")).expect("the metrics have a page");
    let names: Vec<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).expect("a page can be read");
        for metric in text.split(word).filter(|word| word.starts_with("tiny_cache_")) {
            checked += 1;
            let of = |end| metric.strip_suffix(end).is_some_and(|name| names.contains(&name));
            let is_one = ["", "_bucket", "_sum", "_count"].into_iter().any(of);
            assert!(is_one, "{}: there is no metric {metric}", page.display());
        }
    }
    assert!(checked > 60, "only {checked} metrics were found");
}

#[test]
fn what_is_broken_is_seen() {
    let page = Path::new("docs/configuration.md");
    let text = "# A heading, with `code`\n[x](../README.md) ```\n[no](link)\n``` [y](#a-heading-with-code)";
    assert_eq!(links(text), ["../README.md", "#a-heading-with-code"]);
    let cases = [
        ("../README.md", None),
        ("#a-heading-with-code", None),
        ("../README.md#start", None),
        ("../README.md#no-such-heading", Some("has no heading #no-such-heading")),
        ("#nowhere", Some("has no heading #nowhere")),
        ("no-such-page.md", Some("is not there")),
        ("../../outside.md", Some("leads out of the repository")),
    ];
    for (target, problem) in cases {
        assert_eq!(broken(page, text, target).as_deref(), problem, "{target}");
    }
}
