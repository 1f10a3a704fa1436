//! `tiny-cache simulate` as its users run it: the real binary on traces made from a seed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::traces::{SplitMix, skewed};
use tempfile::TempDir;

struct Ran {
    stdout: String,
    stderr: String,
    code: i32,
}

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tiny-cache"))
}

fn simulate_with_input(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = binary()
        .arg("simulate")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read on.
    _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Ran {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

fn simulate(arguments: &[&str]) -> Ran {
    simulate_with_input(arguments, b"")
}

fn rows(ran: &Ran) -> Vec<Value> {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr))
}

/// The column of all rows.
fn column<'r>(rows: &'r [Value], name: &str) -> Vec<&'r Value> {
    rows.iter().map(|row| &row[name]).collect()
}

/// Requests in every format: (key, size, time).
fn requests() -> Vec<(u64, u64, usize)> {
    let mut sizes = SplitMix(9);
    let size_of: Vec<u64> = (0..4096).map(|_| 1 + sizes.below(1000)).collect();
    let size = |key: u64| size_of[usize::try_from(key % 4096).unwrap()];
    skewed(1, 2000, 20_000).into_iter().enumerate().map(|(turn, key)| (key, size(key), turn / 10)).collect()
}

fn encoded(format: &str) -> Vec<u8> {
    let requests = requests();
    if format == "oracle-general" {
        let record = |&(key, size, time): &(u64, u64, usize)| {
            let (time, size) = (u32::try_from(time).unwrap(), u32::try_from(size).unwrap());
            [&time.to_le_bytes()[..], &key.to_le_bytes(), &size.to_le_bytes(), &(-1_i64).to_le_bytes()]
                .concat()
        };
        return requests.iter().flat_map(record).collect();
    }
    let header = if format == "csv" { "time,key,size\n" } else { "" };
    let lines = requests.iter().map(|(key, size, time)| match format {
        "text" => format!("{key}\n"),
        "csv" => format!("{time},{key},{size}\n"),
        _ => format!(
            "{{\"ts\":{time}.5,\"op\":\"get\",\"key\":\"{key}\",\"size\":{size},\"result\":\"hit\"}}\n"
        ),
    });
    std::iter::once(header.to_owned()).chain(lines).collect::<String>().into_bytes()
}

fn file(dir: &TempDir, name: &str, content: &[u8]) -> String {
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

const FORMATS: [&str; 4] = ["oracle-general", "text", "csv", "access-log"];

#[test]
fn every_format_gives_the_same_counts_from_a_file_and_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--policy", "lru,sieve", "--capacity", "5%,100", "--output", "json"];
    let mut expected: Option<Vec<Value>> = None;
    for format in FORMATS {
        let content = encoded(format);
        let path = file(&dir, &format!("t-{format}.zst"), &zstd::encode_all(&content[..], 1).unwrap());
        let named = [&["--trace", &path, "--format", format], &arguments[..]].concat();
        let piped = [&["--trace", "-", "--format", format], &arguments[..]].concat();
        let streamed = [&named[..], &["--no-optimum"]].concat();
        for ran in [
            simulate(&named),
            simulate_with_input(&piped, &content),
            simulate(&streamed),
            simulate_with_input(&[&piped[..], &["--no-optimum"]].concat(), &content),
        ] {
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{format}");
            let rows = rows(&ran);
            let policies: Vec<Value> = rows.iter().filter(|row| row["policy"] != "belady").cloned().collect();
            let misses: Vec<Value> = column(&policies, "misses").into_iter().cloned().collect();
            assert_eq!(policies.len(), 4, "{format}");
            assert_eq!(&misses, expected.get_or_insert_with(|| misses.clone()), "{format}");
        }
    }
}

#[test]
fn a_row_has_every_field_and_the_optimum_misses_least() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "t.csv", &encoded("csv"));
    for (mode, capacity) in [("items", "10%,200"), ("bytes", "64KiB,10%")] {
        let ran = simulate(&["--trace", &path, "--mode", mode, "--capacity", capacity, "--output", "json"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{mode}");
        let rows = rows(&ran);
        for of_capacity in rows.chunk_by(|a, b| a["capacity"] == b["capacity"]) {
            let (optimum, policies) = of_capacity.split_last().unwrap();
            assert_eq!(optimum["policy"], "belady");
            assert_eq!(policies.len(), policies::REGISTRY.len());
            for row in policies {
                for ratio in ["miss_ratio", "byte_miss_ratio"] {
                    let (least, found) = (optimum[ratio].as_f64().unwrap(), row[ratio].as_f64().unwrap());
                    assert!(0.0 < least && least <= found && found < 1.0, "{row}");
                }
                let names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
                let fields = "byte_miss_ratio capacity miss_ratio misses mode policy requests seconds trace";
                assert_eq!(names.join(" "), fields);
                assert_eq!((&row["mode"], &row["requests"]), (&mode.into(), &20_000.into()));
                assert_eq!(row["trace"], path);
            }
        }
    }
}

#[test]
fn table_and_csv_tell_what_json_tells() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "t.txt", &encoded("text"));
    let arguments = ["--trace", &path, "--policy", "lru", "--capacity", "100"];
    let misses = rows(&simulate(&[&arguments[..], &["--output", "json"]].concat()))[0]["misses"].clone();
    let csv = simulate(&[&arguments[..], &["--output", "csv"]].concat());
    let lines: Vec<&str> = csv.stdout.lines().collect();
    assert_eq!(lines[0], "trace,mode,capacity,policy,requests,misses,miss_ratio,byte_miss_ratio,seconds");
    assert!(lines[1].starts_with(&format!("{path},items,100,lru,20000,{misses},0.")), "{}", lines[1]);
    let table = simulate(&arguments);
    assert!(table.stdout.starts_with(&format!("{path}: 20,000 requests, a capacity of 100 objects\n")));
    let grouped = misses.to_string();
    let (thousands, rest) = grouped.split_at(grouped.len() - 3);
    assert!(table.stdout.contains(&format!("{thousands},{rest}")), "{}", table.stdout);
}

#[test]
fn what_is_wrong_is_told_in_one_line_and_does_not_lose_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let text = file(&dir, "t.txt", &encoded("text"));
    let sized = file(&dir, "sized.csv", &encoded("csv"));
    let binary = encoded("oracle-general");
    let cut = file(&dir, "cut.oracleGeneral", &binary[..24 * 500 + 7]);
    let empty = file(&dir, "empty.txt", b"");
    let damaged = file(&dir, "damaged.csv", b"key,size\na,1\nb,big\n");
    let words = file(&dir, "words.txt", b"1\n2\nthree\n");
    // (arguments, what is complained about, rows of lru that come out)
    let cases: [(&[&str], &str, usize); 17] = [
        (&["--trace", &cut], "cut.oracleGeneral: record 501 (byte 12000): the file ends after 7 of", 2),
        (&["--trace", &cut, "--no-optimum"], "record 501 (byte 12000): the file ends after 7 of", 2),
        (&["--trace", &cut, "--trace", &text], "record 501 (byte 12000): the file ends after 7 of", 4),
        (
            &["--trace", &text, "--format", "oracle-general"],
            "record 1 (byte 0): this is no oracle-general record",
            0,
        ),
        (
            &["--trace", &empty, "--trace", &text],
            "empty.txt: record 1 (line 1, byte 0): the trace holds no request",
            2,
        ),
        (&["--trace", "no/such"], "no/such: no such file or directory", 0),
        (
            &["--trace", &sized, "--key-column", "kye"],
            "unknown column \"kye\": the header has time, key, size",
            0,
        ),
        (
            &["--trace", &damaged],
            "damaged.csv: record 2 (line 3, byte 13): the size is \"big\", which is not",
            0,
        ),
        (
            &["--trace", &words, "--numeric-keys", "--capacity", "1"],
            "record 3 (line 3, byte 4): the key is \"three\"",
            1,
        ),
        (&["--trace", &text, "--capacity", "0"], "a capacity is more than zero", 0),
        (
            &["--trace", &text, "--capacity", "100,1000000"],
            "a capacity of 1000000 is larger than the footprint of",
            1,
        ),
        (
            &["--trace", &text, "--capacity", "100,1000000", "--no-optimum"],
            "1000000 is larger than the footprint of",
            1,
        ),
        (&["--trace", &sized, "--capacity", "500B"], "bytes is larger than the cache of 500 bytes", 1),
        (&["--trace", &text, "--policy", "lur"], "unknown policy \"lur\", did you mean \"lru\"?", 0),
        (&["--trace", &text, "--set", "lru.size=3"], "--set: lru has no option \"size\"", 0),
        (&["--trace", &text, "--ttl", "5"], "t.txt: record 1 (line 1, byte 0): the trace has no times", 0),
        (
            &["--trace", &text, "--capacity", "64KiB"],
            "the trace has no sizes, which a capacity in bytes needs",
            0,
        ),
    ];
    for (arguments, complaint, rows) in cases {
        let policy: &[&str] = if arguments.contains(&"--policy") { &[] } else { &["--policy", "lru"] };
        let ran = simulate(&[arguments, policy, &["--output", "csv"]].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(complaint), "{arguments:?}: {}", ran.stderr);
        let lines = ran.stderr.lines().filter(|line| line.contains(complaint)).count();
        assert_eq!(lines, 1, "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout.matches(",lru,").count(), rows, "{arguments:?}: {}", ran.stdout);
    }
    let allowed = simulate(&["--trace", &sized, "--capacity", "500B", "--allow-oversized"]);
    assert_eq!((allowed.code, allowed.stderr.as_str()), (0, ""));
}

#[test]
fn an_interruption_prints_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "t.txt", &encoded("text"));
    let mut child = binary()
        .args(["simulate", "--trace", &path, "--trace", "-", "--policy", "lru", "--output", "csv"])
        .args(["--format", "text", "--capacity", "100", "--no-optimum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The second trace has begun once it takes more than a pipe holds; it has no end.
    let mut input = child.stdin.take().unwrap();
    for _ in 0..40_000 {
        input.write_all(b"some key or other\n").unwrap();
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    while input.write_all(b"key\n").is_ok() {}
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("interrupted: only what was finished is printed"), "{stderr}");
    assert_eq!(stdout.matches(",lru,").count(), 1, "{stdout}");
    assert!(stdout.contains(&format!("{path},items,100,lru,20000,")), "{stdout}");
}

/// A server on free ports, ended with the test.
struct Server {
    process: Child,
    grpc: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = binary()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut logged = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let serving =
            logged.find(|line| line["message"].as_str().is_some_and(|text| text.contains("serving")));
        let grpc = serving.expect("the server serves")["grpc"].as_str().unwrap().to_owned();
        // Whatever it logs from now on has somewhere to go.
        std::thread::spawn(move || logged.for_each(drop));
        Self { process, grpc }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
fn a_server_has_the_simulators_hit_count_under_every_policy() {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = skewed(3, 1500, 2500).iter().map(|key| format!("key-{key}")).collect();
    let path = file(&dir, "t.txt", lines.join("\n").as_bytes());
    let simulated = simulate(&["--trace", &path, "--capacity", "150", "--seed", "0", "--output", "json"]);
    assert_eq!(simulated.code, 0, "{}", simulated.stderr);
    let simulated = rows(&simulated);
    let compare = |entry: &policies::PolicyEntry| {
        let expected = simulated.iter().find(|row| row["policy"] == entry.name).unwrap();
        let server = Server::start(&["--policy", entry.name, "--max-items", "150", "--max-memory", "64MiB"]);
        let output = binary()
            .args(["replay", "--trace", &path, "--target", &server.grpc, "--output", "json"])
            .output()
            .unwrap();
        let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(replayed["misses"], expected["misses"], "{}", entry.name);
        assert_eq!(replayed["requests"], 2500);
        assert_eq!(replayed["hits"].as_u64().unwrap() + expected["misses"].as_u64().unwrap(), 2500);
    };
    // A replay waits for the server half of its time.
    let (some, others) = policies::REGISTRY.split_at(policies::REGISTRY.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| some.iter().for_each(compare));
        others.iter().for_each(compare);
    });
}

#[test]
fn policy_options_change_counts_and_wrong_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "t.txt", &encoded("text"));
    let numeric =
        |entry: &policies::PolicyEntry| entry.options.iter().any(|option| option.allowed.contains("0."));
    for entry in policies::REGISTRY.iter().filter(|entry| numeric(entry)) {
        let option = entry.options.iter().find(|option| option.allowed.contains("0.")).unwrap();
        let set = format!("{}.{}=-1", entry.name, option.name);
        let ran = simulate(&["--trace", &path, "--policy", entry.name, "--set", &set]);
        assert_eq!(ran.code, 2, "{set}: {}", ran.stdout);
        assert!(ran.stderr.contains(entry.name) && ran.stderr.contains(option.name), "{}", ran.stderr);
    }
    let ran = simulate(&["--trace", &path, "--policy", "fifo", "--set", "lru.size=3"]);
    assert!(ran.stderr.contains("lru has no option \"size\""), "{}", ran.stderr);
    assert!(Path::new(&path).exists());
}
