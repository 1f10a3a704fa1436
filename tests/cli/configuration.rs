//! What is wrong with a configuration, told before anything is served; and a start that fails.

use super::{Server, end_of, run, tiny_cache};

const BAD: &str =
    "[store]\nmax_item = 5\nmax_memory = \"512 MB\"\n[eviction]\npolicy = \"siev\"\n[serve]\nx = 1\n";

#[test]
fn every_problem_is_told_at_once_with_its_place_and_the_nearest_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, BAD).expect("a file");
    let file = file.to_str().expect("text");
    let expected = [
        ":2: store.max_item: unknown key; did you mean \"max_items\"?",
        ":3: store.max_memory: found \"512 MB\", allowed: a size such as \"512MiB\", at least 1MiB",
        ":5: eviction.policy: found \"siev\", allowed: ",
        ":6: serve: unknown table; did you mean \"server\"?",
    ];
    for arguments in [&["config", "check", file][..], &["--config", file], &["serve", "--config", file]] {
        let ended = run(arguments).expect(78);
        assert!(ended.stdout.is_empty(), "{arguments:?}");
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{}", ended.stderr);
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(&format!("tiny-cache: {file}{expected}")), "{line}");
        }
        assert!(lines[2].ends_with("did you mean \"sieve\"?"), "{}", lines[2]);
    }
}

#[test]
fn a_good_file_is_good_and_is_shown_with_its_origins() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("good.toml");
    std::fs::write(&file, "[store]\nmax_memory = \"512MiB\"\nmax_items = 7\n").expect("a file");
    let file = file.to_str().expect("text");
    assert_eq!(run(&["config", "check", file]).expect(0).text(), format!("{file}: good\n"));
    let mut show = tiny_cache();
    show.args(["config", "show", "--config", file, "--policy", "fifo"]).env("CACHE_MAX_ITEMS", "9");
    let shown = end_of(show, b"").expect(0);
    for line in [
        "max_items = 9           # from CACHE_MAX_ITEMS".to_owned(),
        format!("max_memory = \"512MiB\"   # from {file}:2"),
        "policy = \"fifo\"    # from --policy".to_owned(),
        "shards = \"auto\"         # default".to_owned(),
    ] {
        assert!(shown.text().contains(&line), "{line} is not in {}", shown.text());
    }
    let again = folder.path().join("again.toml");
    std::fs::write(&again, shown.text()).expect("a file");
    run(&["config", "check", again.to_str().expect("text")]).expect(0);
}

#[test]
fn a_bad_variable_or_a_missing_file_is_a_bad_configuration() {
    let mut serve = tiny_cache();
    serve.env("CACHE_MAX_ITEMS", "none");
    let ended = end_of(serve, b"").expect(78);
    assert!(ended.complaint().starts_with("CACHE_MAX_ITEMS: found \"none\", allowed: "), "{}", ended.stderr);
    let mut serve = tiny_cache();
    serve.env("TINY_CACHE_CONFIG", "/nonexistent/file.toml");
    let ended = end_of(serve, b"").expect(78);
    assert!(ended.complaint().starts_with("/nonexistent/file.toml: cannot read"), "{}", ended.stderr);
}

#[test]
fn a_port_in_use_is_one_clear_line_and_an_error() {
    let server = Server::start(&[]);
    let ended = run(&["serve", "--listen", &server.grpc, "--http-listen", "127.0.0.1:0"]).expect(2);
    let taken = format!("cannot listen on {}: the address is already in use", server.grpc);
    let hint = "choose another with --listen, CACHE_PORT or listen in its [[transport]]";
    assert_eq!(ended.complaint(), format!("{taken}; {hint}"));
    let ended = run(&["serve", "--listen", "127.0.0.1:0", "--http-listen", &server.grpc]).expect(2);
    let hint = "choose another with --http-listen, CACHE_HEALTH_PORT or listen in its [[transport]]";
    assert_eq!(ended.complaint(), format!("{taken}; {hint}"));
}

#[test]
fn a_certificate_that_is_not_there_is_one_clear_line_and_an_error() {
    let mut serve = tiny_cache();
    serve.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    serve.env("CACHE_TLS_ENABLED", "yes");
    serve.env("CACHE_TLS_CERT_PATH", "/nonexistent/cert").env("CACHE_TLS_KEY_PATH", "/nonexistent/key");
    let ended = end_of(serve, b"").expect(2);
    assert!(ended.complaint().starts_with("cannot read /nonexistent/cert: "), "{}", ended.stderr);
}
