//! `tiny-cache curve` and the reports of `curve` and `simulate`, through the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_tiny-cache");

/// A seeded trace: popularity follows Zipf's law over 10,000 objects.
fn zipf(path: &Path, requests: usize) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=10_000)
        .map(|rank| {
            sum += f64::from(rank).powf(-0.9);
            sum
        })
        .collect();
    let mut text = String::new();
    for _ in 0..requests {
        let drawn = random.f64() * sum;
        writeln!(text, "{}", cumulative.partition_point(|bound| *bound < drawn)).unwrap();
    }
    fs::write(path, text).unwrap();
}

fn run(folder: &Path, words: &str) -> Output {
    Command::new(BINARY).args(words.split_whitespace()).current_dir(folder).output().unwrap()
}

fn succeed(folder: &Path, words: &str) -> String {
    let output = run(folder, words);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn folder(requests: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    zipf(&folder.path().join("zipf.txt"), requests);
    folder
}

#[test]
fn sampled_curves_are_close_to_exact_ones_and_cover_the_same_points() {
    let folder = folder(60_000);
    let rows = |more: &str| -> Vec<Value> {
        let words = format!("curve --trace zipf.txt --policy lru,sieve --points 5 --output json {more}");
        serde_json::from_str(&succeed(folder.path(), &words)).unwrap()
    };
    let (exact, sampled) = (rows("--exact"), rows("--min-size 300"));
    // Five points, of which one is the current 10 %, half and double of that, and three policies with the optimum.
    assert_eq!((exact.len(), sampled.len()), (21, 21));
    let mut errors = 0.0;
    for (exact, sampled) in exact.iter().zip(&sampled) {
        for key in ["trace", "mode", "capacity", "policy", "requests", "of_current"] {
            assert_eq!(exact[key], sampled[key], "{key}");
        }
        assert_eq!(exact["sampling_rate"], 1.0);
        errors += (exact["miss_ratio"].as_f64().unwrap() - sampled["miss_ratio"].as_f64().unwrap()).abs();
    }
    assert!(errors / 21.0 < 0.01, "a mean absolute error of {}", errors / 21.0);
    let rates =
        |sampled: &[Value]| sampled.iter().filter(|row| row["sampling_rate"].as_f64() < Some(1.0)).count();
    assert!(rates(&sampled) >= 15, "most points are sampled: {sampled:?}");
    // Small caches are simulated whole: at the default minimum that is all up to 4,096 entries.
    let whole = rows("");
    for (exact, whole) in exact.iter().zip(&whole).filter(|(row, _)| row["capacity"].as_u64() <= Some(4096)) {
        assert_eq!(exact["misses"], whole["misses"]);
    }
}

#[test]
fn exact_curves_are_what_simulate_says() {
    let folder = folder(5_000);
    let misses = |words: &str| -> Vec<(Value, Value, Value)> {
        let rows: Vec<Value> = serde_json::from_str(&succeed(folder.path(), words)).unwrap();
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|row| (row["policy"].clone(), row["capacity"].clone(), row["misses"].clone()))
            .collect();
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    };
    let capacities = "--capacity 100,200,400 --output json --policy lru,fifo";
    assert_eq!(
        misses(&format!("curve --trace zipf.txt --exact --current 200 {capacities}")),
        misses(&format!("simulate --trace zipf.txt {capacities}")),
    );
}

#[test]
fn all_forms_of_output_hold_the_same_points() {
    let folder = folder(5_000);
    let words = "curve --trace zipf.txt --policy lru --points 4 --current 500 --output";
    let json: Vec<Value> = serde_json::from_str(&succeed(folder.path(), &format!("{words} json"))).unwrap();
    let csv = succeed(folder.path(), &format!("{words} csv"));
    let table = succeed(folder.path(), &format!("{words} table"));
    assert_eq!(
        csv.lines().next(),
        Some(
            "trace,mode,capacity,policy,requests,misses,miss_ratio,byte_miss_ratio,seconds,sampling_rate,of_current"
        )
    );
    assert_eq!(csv.lines().count(), json.len() + 1);
    for (row, line) in json.iter().zip(csv.lines().skip(1)) {
        let start = format!(
            "zipf.txt,items,{},{},5000,{},",
            row["capacity"],
            row["policy"].as_str().unwrap(),
            row["misses"]
        );
        assert!(line.starts_with(&start), "{line}: {start}");
        assert!(table.contains(&format!("{:.4}", row["miss_ratio"].as_f64().unwrap())), "{row} in {table}");
    }
    for text in ["What memory buys, from 500 objects now", "half: 250", "same: 500", "double: 1,000"] {
        assert!(table.contains(text), "{text} in {table}");
    }
}

#[test]
fn reports_and_plots_are_complete_files() {
    let folder = folder(5_000);
    for command in ["curve --trace zipf.txt --points 4", "simulate --trace zipf.txt --capacity 50,500"] {
        let words =
            format!("{command} --policy lru,fifo --output json --report r.html --svg p.svg --png p.png");
        let rows: Vec<Value> = serde_json::from_str(&succeed(folder.path(), &words)).unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        let page = String::from_utf8(read("r.html")).unwrap();
        assert!(page.ends_with("</html>\n"), "{command}");
        for row in &rows {
            let cell = format!("data-value=\"{}\"", row["misses"]);
            assert!(page.contains(&cell), "{command}: {cell}");
        }
        assert!(page.contains("What memory buys") == command.starts_with("curve"), "{command}");
        let svg = String::from_utf8(read("p.svg")).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{command}");
        assert!(read("p.png").starts_with(b"\x89PNG\r\n"), "{command}");
    }
}

#[test]
fn mistakes_are_told_in_one_line_with_exit_code_2() {
    let folder = folder(1_000);
    fs::write(folder.path().join("empty.txt"), "").unwrap();
    fs::write(folder.path().join("cut.oracleGeneral"), [0_u8; 30]).unwrap();
    for (words, said) in [
        ("--trace nope.txt", "nope.txt"),
        ("--trace empty.txt", "empty.txt"),
        ("--trace cut.oracleGeneral", "cut.oracleGeneral: record 2"),
        ("--trace zipf.txt --policy lruu", "did you mean \"lru\"?"),
        ("--trace zipf.txt --capacity 99999", "larger than the footprint"),
        ("--trace zipf.txt --current 99999", "--current"),
        ("--trace zipf.txt --capacity 0", "more than zero"),
        ("--trace zipf.txt --points 1", "--points"),
        ("--trace zipf.txt --effort 2", "above 0 and up to 1"),
        ("--trace zipf.txt --exact --min-size 10", "--min-size"),
        ("--trace zipf.txt --report nowhere/r.html", "cannot write nowhere/r.html"),
        ("--trace zipf.txt --mode items --current 1MiB", "is in bytes"),
    ] {
        let output = run(
            folder.path(),
            &format!("curve --policy lru {words}")
                .replace("--policy lru --trace zipf.txt --policy", "--trace zipf.txt --policy"),
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {error}");
        assert!(error.contains(said), "{words}: {error}");
    }
    // What could be computed before is printed.
    let output =
        run(folder.path(), "curve --policy lru --points 2 --output json --trace zipf.txt --trace nope.txt");
    assert_eq!(output.status.code(), Some(2));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), 10);
}
