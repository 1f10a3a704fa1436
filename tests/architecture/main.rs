//! The walls of docs/architecture.md, held against the manifests and the sources.
//!
//! Who may depend on what is read from `cargo metadata` and Cargo.lock; who may name what, from the
//! tokens of every module that is compiled outside tests. Tests may look behind any wall.

mod crates;
mod sources;

use std::collections::BTreeSet;
use std::path::Path;

use crates::Workspace;
use sources::{Module, modules};

type Names = &'static [&'static str];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(wall: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{wall}:\n{}", breaches.join("\n"));
}

#[test]
fn a_crate_depends_on_what_it_may_and_on_nothing_else() {
    // The crate; what of this workspace it may know; what must not be reachable from it.
    const RUNTIMES: Names = &["tokio", "async-std", "smol", "mio", "hyper", "tonic", "axum"];
    const TELEMETRY: Names = &["tracing", "log", "opentelemetry", "prometheus", "metrics"];
    const RANDOMNESS: Names = &["rand", "fastrand", "getrandom"];
    const SERDE: Names = &["serde", "serde_core", "erased-serde"];
    let walls: [(&str, Names, &[Names]); 3] = [
        ("tiny-cache-engine", &[], &[RUNTIMES, TELEMETRY, RANDOMNESS, SERDE]),
        ("tiny-cache-policies", &["tiny-cache-engine"], &[RUNTIMES, TELEMETRY, RANDOMNESS]),
        ("tiny-cache-simulator", &["tiny-cache-engine", "tiny-cache-policies"], &[RUNTIMES]),
    ];
    let workspace = Workspace::read(root());
    let mut breaches = Vec::new();
    for (name, may_know, forbidden) in walls {
        let reachable = workspace.reachable(name);
        for member in workspace.members() {
            if member != name && reachable.contains(member) && !may_know.contains(&member) {
                breaches.push(format!("{name} knows {member}"));
            }
        }
        for dependency in forbidden.iter().copied().flatten() {
            if reachable.contains(*dependency) {
                breaches.push(format!("{name} reaches {dependency}"));
            }
        }
    }
    let direct = workspace.direct("tiny-cache-policies");
    let allowed = ["erased-serde", "serde", "thiserror", "tiny-cache-engine"];
    for dependency in direct.iter().filter(|dependency| !allowed.contains(&dependency.as_str())) {
        breaches
            .push(format!("tiny-cache-policies depends on {dependency}; allowed: {}", allowed.join(", ")));
    }
    assert_none("crates know more than they may", &breaches);
}

#[test]
fn a_policy_has_no_clock_lock_io_thread_or_global_randomness() {
    const FORBIDDEN: Names = &[
        "std::time",
        "std::sync",
        "core::sync",
        "std::thread",
        "std::fs",
        "std::io",
        "std::net",
        "std::os",
        "std::env",
        "std::process",
        // These seed themselves from the operating system.
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::collections::hash_map",
        "std::collections::hash_set",
        "std::hash::RandomState",
    ];
    let breaches: Vec<String> = modules(&root().join("policies/src/lib.rs"))
        .iter()
        .flat_map(|module| breaches_of(module, FORBIDDEN, &[]))
        .collect();
    assert_none("policies are plain single-threaded structures whose decisions repeat", &breaches);
}

#[test]
fn only_the_composition_root_and_the_registry_know_everything() {
    // What is named; who may name it, themselves and what is below them.
    const WALLS: &[(Names, Names)] = &[
        (
            &[
                "engine::MemoryStore",
                "engine::MemoryStoreOptions",
                "engine::Directory",
                "engine::EvictionPolicy",
                "engine::Slot",
                "engine::BuildPolicy",
            ],
            &["crate::registry"],
        ),
        (&["policies"], &["crate::registry", "crate::server", "crate::config", "crate::cli"]),
        (&["crate::registry"], &["crate::server"]),
        (&["crate::server"], &["crate::cli", "crate::lifecycle"]),
        (&["crate::cli"], &[]),
        (&["crate::lifecycle"], &["crate::cli"]),
        (&["crate::transports::grpc"], &["crate::server"]),
        (&["crate::transports::http"], &["crate::server"]),
        (&["crate::service"], &["crate::transports", "crate::server"]),
        (&["crate::transports::listener", "crate::tls"], &["crate::transports", "crate::server"]),
        (&["crate::auth"], &["crate::transports", "crate::server"]),
    ];
    let server = modules(&root().join("src/lib.rs"));
    let mut breaches = Vec::new();
    for (forbidden, allowed) in WALLS {
        breaches.extend(server.iter().flat_map(|module| breaches_of(module, forbidden, allowed)));
    }
    assert_none("modules know more than they may", &breaches);
}

#[test]
fn a_transport_knows_the_service_and_its_wire_and_no_shard_policy_or_sibling() {
    const TRANSPORTS: [&str; 2] = ["grpc", "http"];
    const FORBIDDEN: Names =
        &["policies", "crate::registry", "crate::server", "crate::cli", "crate::tls", "crate::auth"];
    // Of the engine: what a store answers with.
    const ENGINE: Names = &[
        "engine::CompareAndSet",
        "engine::SetIfAbsent",
        "engine::StoreError",
        "engine::StoreStats",
        "engine::Value",
    ];
    let server = modules(&root().join("src/lib.rs"));
    let mut breaches = Vec::new();
    for transport in TRANSPORTS {
        let siblings: Vec<String> = TRANSPORTS
            .iter()
            .chain(&["listener"])
            .filter(|name| **name != transport)
            .map(|name| format!("crate::transports::{name}"))
            .collect();
        let forbidden: Vec<&str> =
            FORBIDDEN.iter().copied().chain(siblings.iter().map(String::as_str)).collect();
        let own = format!("crate::transports::{transport}");
        let mut found = false;
        for module in server.iter().filter(|module| is_below(&module.name, &own)) {
            found = true;
            breaches.extend(breaches_of(module, &forbidden, &[]));
            for path in module.paths.iter().filter(|path| is_below(path, "engine")) {
                if !ENGINE.iter().any(|allowed| is_below(path, allowed)) {
                    breaches.push(format!("{} names {path}", module.name));
                }
            }
        }
        assert!(found, "no module {own}");
    }
    assert_none("transports know more than the service and their wire", &breaches);
}

#[test]
fn no_module_but_a_few_has_unsafe_code() {
    let workspace = Workspace::read(root());
    let lints = workspace.lint("unsafe_code");
    assert_eq!(lints.as_deref(), Some("deny"), "workspace.lints.rust.unsafe_code");
    let mut breaches = Vec::new();
    for (name, manifest) in workspace.manifests() {
        if !crates::inherits_lints(manifest) {
            breaches.push(format!("{name}: its manifest lacks [lints] workspace = true"));
        }
        let roots = ["lib.rs", "main.rs"].map(|file| manifest.with_file_name("src").join(file));
        for module in roots.iter().filter(|root| root.exists()).flat_map(|root| modules(root)) {
            let may = name == "tiny-cache-engine"
                && [
                    "crate::chunk",
                    "crate::cpu",
                    "crate::frames",
                    "crate::heap",
                    "crate::lock",
                    "crate::table",
                    "crate::table::memory",
                    "crate::zone",
                ]
                .contains(&module.name.as_str());
            if module.words.contains("unsafe") && !may {
                breaches.push(format!("{name}: {} says unsafe", module.name));
            }
        }
    }
    assert_none("unsafe code is forbidden", &breaches);
}

fn is_below(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The forbidden paths that a module names, but for modules that may, and for what is its own.
fn breaches_of(module: &Module, forbidden: &[&str], allowed: &[&str]) -> BTreeSet<String> {
    if allowed.iter().any(|allowed| is_below(&module.name, allowed)) {
        return BTreeSet::new();
    }
    let named = |path: &String| {
        forbidden.iter().any(|forbidden| is_below(path, forbidden) && !is_below(&module.name, forbidden))
    };
    module
        .paths
        .iter()
        .filter(|path| named(path))
        .map(|path| format!("{} names {path}", module.name))
        .collect()
}
