//! A configuration out of a file's text, variables and flags: read or refused, each problem in one line with its place; and what `config show`
//! prints is the same configuration.
//!
//! The input: the file, then `NAME=value` and `--flag=value`, with zero bytes between.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use policies::REGISTRY;
use tiny_cache::config::{Change, ConfigErrors, Loaded, Loader, Override, Sources};

const LOADER: Loader<'static> = Loader { policies: REGISTRY, stores: &["memory"] };

fn flag(text: &str) -> Option<Override> {
    let (name, value) = text.split_once('=')?;
    let value = value.to_owned();
    Some(match name {
        "--listen" => Override::Listen(value),
        "--http-listen" => Override::HttpListen(value),
        "--policy" => Override::Policy(value),
        "--max-items" => Override::MaxItems(value),
        "--max-memory" => Override::MaxMemory(value),
        "--log-level" => Override::LogLevel(value),
        "--log-format" => Override::LogFormat(value),
        _ => return None,
    })
}

fn check_problems(errors: &ConfigErrors) {
    assert!(!errors.problems().is_empty(), "what is refused is refused for a reason");
    for problem in errors.problems() {
        let text = problem.to_string();
        assert!(!text.chars().any(char::is_control), "one line that shows as it is written: {text:?}");
    }
}

fn check_shown(mut loaded: Loaded, environment: &dyn Fn(&str) -> Option<OsString>) {
    // What is passed over is no part of what is shown.
    for line in std::mem::take(&mut loaded.config.telemetry.otlp.ignored) {
        assert!(!line.chars().any(char::is_control), "one line that shows as it is written: {line:?}");
    }
    let shown = loaded.effective.to_toml();
    // Credentials are not shown, and what stands in their place is refused.
    if shown.contains("(hidden)") {
        return;
    }
    // Most of what these variables say has no key in a file.
    let otel = |name: &str| environment(name).filter(|_| name.starts_with("OTEL_"));
    let mut again = LOADER
        .load_text("shown", shown.as_str(), &Sources { environment: &otel, ..Sources::nothing() })
        .unwrap_or_else(|errors| panic!("what is shown can be read: {errors}\n{shown}"));
    again.config.telemetry.otlp.ignored.clear();
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", again.config), "it is the same:\n{shown}");
    assert_eq!(Change::between(&loaded.effective, &again.effective), [], "and nothing has changed:\n{shown}");
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0);
    let file = parts.next().unwrap_or_default();
    let mut variables: Vec<(&str, OsString)> = Vec::new();
    let mut overrides = Vec::new();
    for part in parts {
        if part.starts_with(b"--") {
            overrides.extend(str::from_utf8(part).ok().and_then(flag));
        } else if let Some(end) = part.iter().position(|&byte| byte == b'=')
            && let Ok(name) = str::from_utf8(&part[..end])
        {
            variables.push((name, OsString::from_vec(part[end + 1..].to_vec())));
        }
    }
    let environment = |name: &str| {
        // It would name another file.
        let is_set = |&&(set, _): &&(&str, OsString)| set == name && name != "TINY_CACHE_CONFIG";
        variables.iter().find(is_set).map(|(_, value)| value.clone())
    };
    let sources = Sources { file: None, environment: &environment, overrides: &overrides };
    let Ok(text) = str::from_utf8(file) else { return };
    match LOADER.load_text("fuzzed.toml", text, &sources) {
        Ok(loaded) => check_shown(loaded, &environment),
        Err(errors) => check_problems(&errors),
    }
});
