//! The configuration files and the pages about them, held against the loader: every file loads, and
//! config/default.toml and docs/configuration.md name every key there is, with its default, and no other.
//!
//! What they and the README say of policies, and how mistakes are told, is written here from the code. The test
//! that finds it out of date mends it and fails: look at the change, and commit it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use policies::PolicyEntry;
use tiny_cache::config::{Effective, LIVE_KEYS, Loaded, Loader, Origin, Sources};
use tiny_cache::server::Server;

const DEFAULT_TOML: &str = "config/default.toml";
const PAGE: &str = "docs/configuration.md";
const README: &str = "README.md";
const BAD_RUN: &str = "$ CACHE_PORT=70000 tiny-cache --config tiny-cache.toml\n";

/// Table and key: what stands there.
type Keys = BTreeMap<(String, String), String>;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

fn registered() -> Vec<PolicyEntry> {
    Server::builder().registry().policies.clone()
}

fn load(name: &str, text: &str) -> Result<Loaded, String> {
    let server = Server::builder();
    let registry = server.registry();
    let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
    loader.load_text(name, text, &Sources::nothing()).map_err(|errors| errors.to_string())
}

fn load_good(name: &str, text: &str) -> Loaded {
    load(name, text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The transports apart from one another, which share a header.
fn keys(effective: &Effective) -> Keys {
    let mut transport = String::new();
    let mut keys = Keys::new();
    for (header, key, value, _) in effective.values() {
        if header == "[[transport]]" && key == "kind" {
            value.trim_matches('"').clone_into(&mut transport);
        }
        let table = if header.starts_with("[[transport]]") || header.starts_with("[transport") {
            format!("{header} {transport}")
        } else {
            header.to_owned()
        };
        keys.insert((table, key.to_owned()), value.to_owned());
    }
    keys
}

/// Lines such as `# key = value` and `# [table]` as if they were none; comments within them stay.
fn uncommented(text: &str) -> String {
    let bare = |line: &str| -> Option<String> {
        let rest = line.strip_prefix("# ")?;
        let word =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let is_key = rest.split_once(" = ").is_some_and(|(key, _)| word(key));
        let is_table = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(word);
        (is_key || is_table).then(|| rest.to_owned())
    };
    text.lines().map(|line| bare(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn every_example_loads() {
    let mut names: Vec<String> = fs::read_dir(path("config"))
        .expect("config/ is there")
        .map(|entry| format!("config/{}", entry.expect("can be read").file_name().to_string_lossy()))
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    let deployed = ["container.toml", "compose.toml", "systemd/tiny-cache.toml", "observability/cache.toml"];
    names.extend(deployed.map(|name| format!("deploy/{name}")));
    for name in names {
        load_good(&name, &read(&name));
    }
    for name in ["deploy/kubernetes/service.yaml", "deploy/kubernetes/sidecar.yaml"] {
        let text = read(name);
        let (_, block) = text.split_once("tiny-cache.toml: |\n").expect("a ConfigMap with the file");
        let block: Vec<&str> =
            block.lines().take_while(|line| line.is_empty() || line.starts_with("    ")).collect();
        load_good(name, &block.join("\n"));
    }
}

#[test]
fn every_toml_on_a_page_loads() {
    for (name, blocks) in [(README, 1), (PAGE, 0)] {
        let text = read(name);
        let found: Vec<&str> =
            text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(found.len() >= blocks, "{name} has its examples");
        for block in found {
            load_good(name, block);
        }
    }
}

#[test]
fn default_toml_sets_every_key_to_its_default() {
    let built_in = load_good("", "");
    let file = load_good(DEFAULT_TOML, &read(DEFAULT_TOML));
    assert_eq!(keys(&file.effective), keys(&built_in.effective));
    for (header, key, _, origin) in file.effective.values() {
        assert!(matches!(origin, Origin::File { .. }), "{DEFAULT_TOML} lacks {header} {key}");
    }
    assert_eq!(format!("{:?}", file.config), format!("{:?}", built_in.config));
}

#[test]
fn what_default_toml_has_as_a_comment_is_true_as_well() {
    let text = uncommented(&read(DEFAULT_TOML));
    let file = load_good(DEFAULT_TOML, &text);
    for (table, expected, least) in [
        (
            "[transport.tls]",
            &["cert", "key", "client_ca", "clients", "reload_interval"][..],
            "[[transport]]\nkind = \"grpc\"\n[transport.tls]\ncert = \"c\"\nkey = \"k\"",
        ),
        (
            "[transport.auth]",
            &["tokens_file", "reload_interval"],
            "[[transport]]\nkind = \"grpc\"\n[transport.auth]\ntokens_file = \"t\"",
        ),
        (
            "[telemetry.access_log]",
            &["path", "sample", "keys", "queue", "flush_interval"],
            "[telemetry.access_log]\npath = \"p\"",
        ),
    ] {
        let values = file.effective.values().filter(|(header, ..)| *header == table);
        let found: Vec<&str> = values
            .map(|(_, key, _, origin)| {
                assert!(matches!(origin, Origin::File { .. }), "{DEFAULT_TOML} lacks {table} {key}");
                key
            })
            .collect();
        assert_eq!(found, expected);
        let defaults = load_good("", least).effective;
        let defaults = defaults
            .values()
            .filter(|(header, _, _, origin)| *header == table && **origin == Origin::Default);
        let text = keys(&file.effective);
        for (_, key, value, _) in defaults {
            let place = text.keys().find(|(header, name)| header.starts_with(table) && name == key);
            assert_eq!(text[place.expect("listed")], value, "{table} {key}");
        }
    }
}

#[test]
fn the_page_has_every_key_with_its_default_and_no_other() {
    let mut expected = Keys::new();
    let file = load_good(DEFAULT_TOML, &uncommented(&read(DEFAULT_TOML)));
    let no_default = ["kind", "cert", "key", "client_ca", "tokens_file", "path"];
    for ((table, key), value) in keys(&file.effective) {
        if table.ends_with(" http") || table.starts_with("[eviction.") {
            continue;
        }
        let table = table.trim_end_matches(" grpc").to_owned();
        let value = match (table.as_str(), key.as_str()) {
            (_, key) if no_default.contains(&key) && !table.starts_with("[store") => "none".to_owned(),
            (_, "listen") => format!("`{value}`, for HTTP `\"127.0.0.1:8080\"`"),
            _ => format!("`{value}`"),
        };
        expected.insert((table, key), value);
    }

    let page = read(PAGE);
    let mut found = Keys::new();
    let mut table = "";
    for line in page.lines() {
        if line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim();
            table = heading.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or("");
        } else if let (false, Some(row)) = (table.is_empty(), line.strip_prefix("| `")) {
            let mut cells = row.split(" | ");
            let key =
                cells.next().and_then(|cell| cell.strip_suffix('`')).expect("a key in the first column");
            let default = cells.next().expect("a default in the second column");
            found.insert((table.to_owned(), key.to_owned()), default.to_owned());
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn the_page_has_every_variable_and_flag() {
    let page = read(PAGE);
    let source = read("src/config/layers.rs") + &read("src/config/loader.rs");
    let variables: Vec<&str> = source
        .split('"')
        .filter(|text| text.starts_with("CACHE_") || text.starts_with("TINY_CACHE_"))
        .collect();
    assert!(variables.len() > 15, "{variables:?}");
    for variable in variables {
        assert!(page.contains(&format!("`{variable}`")), "{PAGE} lacks {variable}");
    }
    let flags: Vec<&str> = source.split('"').filter(|text| text.starts_with("--")).collect();
    assert!(flags.len() > 5, "{flags:?}");
    for flag in flags {
        assert!(page.contains(&format!("| `{flag} ")), "{PAGE} lacks {flag}");
    }
}

#[test]
fn what_pages_tell_of_policies_and_mistakes_is_what_the_code_says() {
    let (toml, page) = options();
    let mended = [
        replace_between(DEFAULT_TOML, "# policy options: begin\n", "# policy options: end\n", &toml),
        replace_between(PAGE, "<!-- policy options: begin -->\n", "<!-- policy options: end -->\n", &page),
        replace_between(PAGE, BAD_RUN, "$ echo $?\n", &mistakes()),
        replace_between(README, "<!-- policies: begin -->\n", "<!-- policies: end -->\n", &policies()),
    ];
    assert_eq!(mended, [false; 4], "was out of date and is mended: look at the change and commit it");
}

/// The options of every policy, as a part of a file and as a part of a page.
fn options() -> (String, String) {
    let mut toml = String::new();
    let mut page = String::new();
    for entry in registered().iter().filter(|entry| !entry.options.is_empty()) {
        let defaults = defaults_of(entry);
        if !toml.is_empty() {
            toml.push('\n');
        }
        let _ = writeln!(toml, "# [eviction.{}]", entry.name);
        let _ = write!(page, "\n#### [eviction.{}]\n\n", entry.name);
        page.push_str("| option | default | allowed | meaning |\n|---|---|---|---|\n");
        for option in entry.options {
            let default = defaults.get(option.name).map_or("unset".to_owned(), ToString::to_string);
            let (name, allowed, meaning) = (option.name, option.allowed, option.meaning);
            let _ = write!(toml, "# # {meaning}: {allowed}\n# {name} = {default}\n");
            let _ = writeln!(page, "| `{name}` | `{default}` | {allowed} | {meaning} |");
        }
    }
    if !page.is_empty() {
        page.push('\n');
    }
    (toml, page)
}

/// What the program says about the page's bad file and a bad variable.
fn mistakes() -> String {
    let page = read(PAGE);
    let bad = page.split("```toml,bad\n").nth(1).and_then(|rest| rest.split("```").next());
    let server = Server::builder();
    let registry = server.registry();
    let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
    let environment = |name: &str| (name == "CACHE_PORT").then(|| "70000".into());
    let sources = Sources { environment: &environment, ..Sources::nothing() };
    let errors =
        loader.load_text("tiny-cache.toml", bad.expect("a bad file"), &sources).expect_err("it is bad");
    errors.problems().iter().fold(String::new(), |mut told, problem| {
        let _ = writeln!(told, "tiny-cache: {problem}");
        told
    })
}

fn policies() -> String {
    let mut rows = "| name | in one line | from |\n|---|---|---|\n".to_owned();
    for PolicyEntry { name, summary, paper, .. } in registered() {
        let default = if name == "lru" { " (default)" } else { "" };
        let _ = writeln!(rows, "| `{name}`{default} | {summary} | {paper} |");
    }
    rows
}

fn defaults_of(entry: &PolicyEntry) -> toml::Table {
    toml::Table::try_from((entry.with_defaults)().options()).expect("options can be written as TOML")
}

/// Puts `text` between the marks of a file; whether it was another one.
fn replace_between(file: &str, begin: &str, end: &str, text: &str) -> bool {
    let old = read(file);
    let (head, rest) = old.split_once(begin).unwrap_or_else(|| panic!("{file} lacks {begin}"));
    let (_, tail) = rest.split_once(end).unwrap_or_else(|| panic!("{file} lacks {end}"));
    let new = format!("{head}{begin}{text}{end}{tail}");
    let differs = new != old;
    if differs {
        fs::write(path(file), new).expect("the file can be written");
    }
    differs
}

#[test]
fn the_page_marks_the_keys_that_a_running_server_takes_over() {
    let page = read(PAGE);
    let mut marked = Vec::new();
    let mut table = "";
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### `[") {
            table = heading.trim_end_matches(['`', ']']);
        } else if let (Some(row), true) = (line.strip_prefix("| `"), line.contains("*(live)*")) {
            marked.push(format!("{table}.{}", row.split('`').next().expect("a key")));
        }
    }
    assert_eq!(marked, LIVE_KEYS);
}
