//! Who depends on whom. What a crate asks for comes from `cargo metadata --no-deps`, what that brings
//! along from Cargo.lock: neither needs a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub(crate) struct Workspace {
    root: PathBuf,
    /// By name: the manifest and the direct dependencies, those of tests left out.
    members: BTreeMap<String, (PathBuf, BTreeSet<String>)>,
    /// By name, whatever the version: a second version is a dependency all the same.
    locked: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    pub(crate) fn read(root: &Path) -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--no-deps", "--locked", "--offline"])
            .current_dir(root)
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let members = metadata["packages"].as_array().expect("a list").iter().map(member).collect();

        let lock = std::fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock is there");
        let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
        let mut locked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in lock["package"].as_array().expect("a list") {
            let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
            // "name", or "name version" where there are several.
            let names = dependencies.into_iter().flatten().filter_map(toml::Value::as_str);
            let names = names.filter_map(|text| text.split(' ').next()).map(str::to_owned);
            let name = package["name"].as_str().expect("a name").to_owned();
            locked.entry(name).or_default().extend(names);
        }
        Self { root: root.to_owned(), members, locked }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.members.iter().map(|(name, (manifest, _))| (name.as_str(), manifest.as_path()))
    }

    pub(crate) fn direct(&self, name: &str) -> &BTreeSet<String> {
        let (_, dependencies) = self.members.get(name).unwrap_or_else(|| panic!("no crate {name}"));
        dependencies
    }

    /// Everything that is compiled into a crate.
    pub(crate) fn reachable(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut waiting: Vec<&str> = self.direct(name).iter().map(String::as_str).collect();
        while let Some(name) = waiting.pop() {
            if reached.insert(name) {
                // Cargo.lock does not tell a member's tests from the rest of it.
                let dependencies =
                    self.members.get(name).map(|(_, direct)| direct).or_else(|| self.locked.get(name));
                waiting.extend(dependencies.into_iter().flatten().map(String::as_str));
            }
        }
        reached
    }

    /// The level of a rustc lint in the workspace's table.
    pub(crate) fn lint(&self, name: &str) -> Option<String> {
        let manifest = manifest(&self.root.join("Cargo.toml"));
        let level = manifest.get("workspace")?.get("lints")?.get("rust")?.get(name)?;
        level.as_str().map(str::to_owned)
    }
}

fn member(package: &Value) -> (String, (PathBuf, BTreeSet<String>)) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let dependencies = package["dependencies"].as_array().expect("a list");
    let direct = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
    let direct = direct.map(|dependency| text(&dependency["name"])).collect();
    (text(&package["name"]), (text(&package["manifest_path"]).into(), direct))
}

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).expect("the manifest is there").parse().expect("the manifest is TOML")
}

/// Whether a crate keeps to the workspace's table of lints.
pub(crate) fn inherits_lints(path: &Path) -> bool {
    manifest(path)
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool)
        .unwrap_or(false)
}
