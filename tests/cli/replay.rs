//! Replaying a trace: hits and misses are the policy's to the last request, in every format.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Server, run};

const CAPACITY: usize = 50;
const REQUESTS: usize = 1500;
const SEED: u64 = 0x5eed_cafe;

/// Keys of which small ones are asked for far more often: splitmix64, and the least of three draws.
fn trace() -> Vec<u64> {
    let mut state = SEED;
    let mut draw = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 400
    };
    (0..REQUESTS).map(|_| draw().min(draw()).min(draw())).collect()
}

/// The oldest first, each with whether it was used since; slow and plain on purpose.
#[derive(Default)]
struct Model {
    queue: Vec<(u64, bool)>,
    hand: usize,
}

impl Model {
    fn hits(policy: &str, trace: &[u64]) -> u64 {
        let mut model = Self::default();
        trace.iter().map(|key| u64::from(model.request(policy, *key))).sum()
    }

    fn request(&mut self, policy: &str, key: u64) -> bool {
        if let Some(at) = self.queue.iter().position(|(resident, _)| *resident == key) {
            self.queue[at].1 = true;
            if policy == "lru" {
                let entry = self.queue.remove(at);
                self.queue.push(entry);
            }
            return true;
        }
        if self.queue.len() == CAPACITY {
            if policy == "sieve" {
                self.sweep();
            } else {
                self.queue.remove(0);
            }
        }
        self.queue.push((key, false));
        false
    }

    /// The hand goes from old to new, spares what was used once, and takes the first that was not.
    fn sweep(&mut self) {
        while std::mem::take(&mut self.queue[self.hand].1) {
            self.hand = (self.hand + 1) % self.queue.len();
        }
        self.queue.remove(self.hand);
        // Past the newest it begins anew, and does not wait for what comes next.
        if self.hand == self.queue.len() {
            self.hand = 0;
        }
    }
}

fn write_trace(folder: &Path, name: &str, trace: &[u64]) -> PathBuf {
    let bytes: Vec<u8> = if name.contains("oracleGeneral") {
        let record = |(time, key): (usize, &u64)| {
            let time = u32::try_from(time).expect("few").to_le_bytes();
            [&time[..], &key.to_le_bytes(), &64_u32.to_le_bytes(), &(-1_i64).to_le_bytes()].concat()
        };
        trace.iter().enumerate().flat_map(record).collect()
    } else {
        trace.iter().flat_map(|key| format!("{key}\n").into_bytes()).collect()
    };
    let path = folder.join(name);
    let bytes = if path.extension().is_some_and(|end| end == "zst") {
        zstd::encode_all(&bytes[..], 1).expect("compressed")
    } else {
        bytes
    };
    fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn hits_and_misses_are_the_policys_to_the_last_request_in_every_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = trace();
    let mut seen = Vec::new();
    for (policy, name) in [
        ("lru", "a.txt"),
        ("fifo", "b.txt.zst"),
        ("sieve", "c.oracleGeneral"),
        ("lru", "d.oracleGeneral.zst"),
        ("sieve", "no-extension"),
    ] {
        let file = write_trace(folder.path(), name, &trace);
        let server = Server::start(&["--policy", policy, "--max-items", &CAPACITY.to_string()]);
        let file = file.to_str().expect("text");
        let report = server.run(&["replay", "--trace", file, "--output", "json"]).expect(0).json();
        let hits = Model::hits(policy, &trace);
        let context = format!("{policy} {name} seed {SEED:#x}: {report}");
        assert_eq!(report["requests"], REQUESTS, "{context}");
        assert_eq!(report["hits"], hits, "{context}");
        assert_eq!(report["misses"], REQUESTS as u64 - hits, "{context}");
        assert_eq!(report["errors"], 0, "{context}");
        assert_eq!(report["latency_microseconds"]["get"]["count"], REQUESTS, "{context}");
        seen.push(hits);
    }
    assert!(
        seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2],
        "the trace tells them apart: {seen:?}"
    );
}

#[test]
fn many_connections_play_every_record_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write_trace(folder.path(), "a.txt", &trace());
    let file = file.to_str().expect("text");
    let server = Server::start(&["--max-items", "unlimited"]);
    let ended = server
        .run(&[
            "replay",
            "--trace",
            file,
            "--connections",
            "3",
            "--concurrency",
            "7",
            "--ttl",
            "1h",
            "--value-size",
            "1KiB",
        ])
        .expect(0);
    for row in ["requests      1,500\n", "errors        0\n"] {
        assert!(ended.text().contains(row), "{}", ended.text());
    }
    let stats = server.run(&["stats", "--output", "json"]).expect(0).json();
    assert_eq!(stats["hits"].as_u64().expect("a count") + stats["misses"].as_u64().expect("a count"), 1500);
}

#[test]
fn the_traces_own_sizes_and_a_limit_are_kept_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write_trace(folder.path(), "a.oracleGeneral", &[1, 2, 3]);
    let file = file.to_str().expect("text");
    let server = Server::start(&[]);
    server.run(&["replay", "--trace", file, "--value-size", "trace", "--limit", "2"]).expect(0);
    assert_eq!(server.run(&["get", "2"]).expect(0).stdout.len(), 64);
    server.run(&["get", "3"]).expect(1);
}

#[test]
fn a_trace_that_is_cut_off_is_played_as_far_as_it_goes_and_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write_trace(folder.path(), "a.oracleGeneral", &[1, 2, 3]);
    let bytes = fs::read(&path).expect("a file");
    fs::write(&path, &bytes[..60]).expect("a file");
    let server = Server::start(&[]);
    let ended =
        server.run(&["replay", "--trace", path.to_str().expect("text"), "--output", "json"]).expect(2);
    assert_eq!(ended.json()["requests"], 2);
    assert!(ended.complaint().contains("record 3 (byte 48): the file ends after 12 of"), "{}", ended.stderr);
}

#[test]
fn requests_that_fail_are_counted_and_the_replay_gives_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write_trace(folder.path(), "a.txt", &trace());
    let long = "k".repeat(300);
    fs::write(&path, format!("1\n{long}\n{long}\n2\n")).expect("a file");
    let path = path.to_str().expect("text");
    let server = Server::start(&[]);
    let ended = server.run(&["replay", "--trace", path, "--output", "json"]).expect(2);
    assert_eq!((&ended.json()["requests"], &ended.json()["errors"]), (&4.into(), &2.into()));
    let ended = server.run(&["replay", "--trace", path, "--max-errors", "1", "--output", "json"]).expect(2);
    assert_eq!(ended.json()["requests"], 2);
    run(&["replay", "--trace", path, "--value-size", "trace"]).expect(2);
}
