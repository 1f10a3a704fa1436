//! Storing and reading: where values come from, what is printed, and the exit codes.

use serde_json::json;

use super::{Server, run};

/// A key, the arguments after it, standard input, and the bytes that are stored then.
type Case<'a> = (&'a str, &'a [&'a str], &'a [u8], &'a [u8]);

#[test]
fn a_value_comes_from_any_source_and_comes_back_byte_for_byte() {
    let server = Server::start(&[]);
    let every_byte: Vec<u8> = (0..=255).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("value");
    std::fs::write(&file, &every_byte).expect("a file");
    let file = file.to_str().expect("text");
    let cases: [Case<'_>; 9] = [
        ("text", &["hello"], b"", b"hello"),
        ("negative", &["-1"], b"", b"-1"),
        ("dashes", &["--", "--a"], b"", b"--a"),
        ("empty", &[""], b"", b""),
        ("file", &["--value-file", file], b"", &every_byte),
        ("base64", &["--value-base64", "AP8="], b"", b"\x00\xff"),
        ("hex", &["--value-hex", "00fF"], b"", b"\x00\xff"),
        ("stdin", &[], &every_byte, &every_byte),
        ("dash", &["-"], b"line\n", b"line\n"),
    ];
    for (key, source, input, expected) in cases {
        let stored = server.run_with(&[&["set", key], source].concat(), input).expect(0);
        assert_eq!(stored.text(), "OK\n", "{key}");
        let got = server.run(&["get", key]).expect(0);
        assert_eq!(got.stdout, expected, "{key}");
        assert_eq!(got.stderr, "", "{key}");
    }
}

#[test]
fn what_is_not_there_is_exit_code_1_and_nothing_on_standard_output() {
    let server = Server::start(&[]);
    let got = server.run(&["get", "missing"]).expect(1);
    assert_eq!((got.text(), got.complaint()), ("", "get: not found"));
    let got = server.run(&["get", "missing", "--output", "json"]).expect(1);
    assert_eq!(got.json(), json!({ "key": "missing", "found": false, "value": null }));
    server.run(&["set", "k", "hi"]).expect(0);
    let got = server.run(&["get", "k", "--output", "json"]).expect(0);
    assert_eq!(got.json(), json!({ "key": "k", "found": true, "value": "aGk=" }));
}

#[test]
fn a_condition_that_does_not_hold_is_exit_code_1() {
    let server = Server::start(&[]);
    let steps: [(&[&str], i32, &str); 9] = [
        (&["compare-and-set", "k", "a", "b"], 1, "NOT_FOUND\n"),
        (&["set-if-absent", "k", "a"], 0, "STORED\n"),
        (&["set-if-absent", "k", "b"], 1, "EXISTS\n"),
        (&["compare-and-set", "k", "x", "b"], 1, "MISMATCH\n"),
        (&["compare-and-set", "k", "a", "b"], 0, "STORED\n"),
        (&["compare-and-set", "k", "--expected-hex", "62", "--value-base64", "Yw=="], 0, "STORED\n"),
        (
            &["compare-and-set", "k", "--expected-base64", "Yw==", "d", "--output", "json"],
            0,
            "{\"key\":\"k\",\"status\":\"STORED\"}\n",
        ),
        (&["delete", "k"], 0, "OK\n"),
        (&["delete", "k"], 0, "OK\n"),
    ];
    for (arguments, code, printed) in steps {
        assert_eq!(server.run(arguments).expect(code).text(), printed, "{arguments:?}");
    }
}

#[test]
fn a_time_to_live_is_seconds_or_a_duration() {
    let server = Server::start(&[]);
    for ttl in ["60", "10m", "1h30m", "0", "-1"] {
        server.run(&["set", "k", "v", "--ttl", ttl]).expect(0);
        server.run(&["get", "k"]).expect(0);
    }
    for ttl in ["soon", "1.5s", "99999999999", "100ms"] {
        let ended = server.run(&["set", "k", "v", "--ttl", ttl]).expect(2);
        assert!(ended.stderr.contains("--ttl"), "{ttl}: {}", ended.stderr);
    }
}

#[test]
fn what_the_server_refuses_is_one_line_and_exit_code_2() {
    let server = Server::start(&["--max-memory", "1MiB"]);
    let large = vec![b'x'; 2 << 20];
    let long_key = "k".repeat(257);
    let cases: [(&[&str], &[u8], &str); 3] = [
        (&["set", "k"], &large, "set: RESOURCE_EXHAUSTED: "),
        (&["get", ""], b"", "get: INVALID_ARGUMENT: "),
        (&["get", &long_key], b"", "get: INVALID_ARGUMENT: "),
    ];
    for (arguments, input, begin) in cases {
        let ended = server.run_with(arguments, input).expect(2);
        let complaint = ended.complaint();
        assert!(complaint.starts_with(begin) && complaint.contains("request_id="), "{complaint}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_before_anything_is_sent() {
    let cases: [(&[&str], &str); 9] = [
        (&["set"], "<KEY>"),
        (&["set", "k", "--value-hex", "zz"], "the value is not hexadecimal"),
        (&["set", "k", "--value-base64", "!"], "the value is not base64"),
        (&["set", "k", "v", "--value-hex", "00"], "cannot be used with"),
        (&["set", "k", "--value-file", "/nonexistent/file"], "cannot read /nonexistent/file: no such file"),
        (&["get", "k", "--target", "ftp://x"], "unknown scheme"),
        (&["get", "k", "--timeout", "soon"], "--timeout"),
        (&["frobnicate"], "frobnicate"),
        (&["replay", "--trace", "/nonexistent/trace"], "/nonexistent/trace"),
    ];
    for (arguments, told) in cases {
        let ended = run(arguments).expect(2);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{arguments:?}");
    }
}
