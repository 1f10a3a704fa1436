//! What each module of a crate names, read from its tokens: comments do not count, groups in a `use` are
//! spelt out, and what is only compiled for tests is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One module of a crate.
pub(crate) struct Module {
    /// From the crate's root: `crate::transports::grpc`.
    pub(crate) name: String,
    /// Every path of two words and more that it names, those into its own crate from the root.
    pub(crate) paths: BTreeSet<String>,
    /// Every single word.
    pub(crate) words: BTreeSet<String>,
}

/// Every module that a crate's root declares, directly or not, but for those of tests.
pub(crate) fn modules(root: &Path) -> Vec<Module> {
    let mut found = Vec::new();
    let mut waiting = vec![("crate".to_owned(), root.to_owned())];
    while let Some((name, file)) = waiting.pop() {
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (module, children) = read(&name, &text);
        waiting
            .extend(children.into_iter().map(|child| (format!("{name}::{child}"), file_of(&file, &child))));
        found.push(module);
    }
    found
}

/// The module's names, and the modules below it that live in files of their own.
fn read(name: &str, text: &str) -> (Module, Vec<String>) {
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let tokens = without_tests(tokens);
    let children: Vec<String> = tokens
        .windows(3)
        .filter_map(|window| match window {
            [TokenTree::Ident(word), TokenTree::Ident(child), TokenTree::Punct(end)]
                if word == "mod" && end.as_char() == ';' =>
            {
                Some(child.to_string())
            }
            _ => None,
        })
        .collect();
    let mut words = BTreeSet::new();
    let mut paths = BTreeSet::new();
    gather(&tokens, &[], &mut |path: &[String]| {
        words.extend(path.iter().cloned());
        // A single word is a variable, or the name of a module where it is declared.
        if path.len() > 1 {
            paths.insert(absolute(name, &children, path));
        }
    });
    (Module { name: name.to_owned(), paths, words }, children)
}

fn file_of(parent: &Path, child: &str) -> PathBuf {
    let folder = match parent.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "main" | "mod") | None => parent.with_file_name(""),
        Some(_) => parent.with_extension(""),
    };
    let file = folder.join(format!("{child}.rs"));
    if file.exists() { file } else { folder.join(child).join("mod.rs") }
}

/// The tokens without the items that stand under `#[cfg(test)]`.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept: Vec<TokenTree> = Vec::new();
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        let after_hash = matches!(kept.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#');
        match &token {
            TokenTree::Group(group)
                if after_hash && group.stream().to_string().replace(' ', "") == "cfg(test)" =>
            {
                kept.pop();
                tokens.by_ref().find(|token| match token {
                    TokenTree::Punct(punct) => punct.as_char() == ';',
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    _ => false,
                });
            }
            _ => kept.push(token),
        }
    }
    kept
}

/// Calls `visit` with each path; `before` is what stands in front of a group in a `use`.
fn gather(tokens: &[TokenTree], before: &[String], visit: &mut impl FnMut(&[String])) {
    let mut path = before.to_vec();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(word) => {
                if colons != 2 && path.len() > before.len() {
                    visit(&path);
                    path = before.to_vec();
                }
                path.push(word.to_string());
                colons = 0;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = without_tests(group.stream());
                if colons == 2 {
                    gather(&inner, &path, visit);
                    path = before.to_vec();
                } else {
                    if path.len() > before.len() {
                        visit(&path);
                    }
                    path = before.to_vec();
                    gather(&inner, &[], visit);
                }
                colons = 0;
            }
            _ => {
                if path.len() > before.len() {
                    visit(&path);
                }
                path = before.to_vec();
                colons = 0;
            }
        }
    }
    if path.len() > before.len() {
        visit(&path);
    }
}

/// A path as seen from the crate's root.
fn absolute(module: &str, children: &[String], path: &[String]) -> String {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|word| word == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        Some(first) if children.iter().any(|child| child == first) => {}
        _ => base.clear(),
    }
    base.into_iter().chain(rest.iter().map(String::as_str)).collect::<Vec<_>>().join("::")
}

#[test]
fn names_are_found_however_they_are_written() {
    let text = "
        //! std::fs in a comment, and crate::tests too
        use std::{sync::{Arc, atomic}, time::Instant as Clock};
        use super::sibling::{self, Thing};
        pub mod child;
        #[cfg(test)] mod tests;
        #[cfg(test)] mod inline { use std::net::TcpStream; }
        fn run() -> ::policies::Lru { child::go(\"std::env\"); vec![super::super::far::away()]; match x { A::B => {} } }
    ";
    let (module, children) = read("crate::one::two", text);
    assert_eq!(children, ["child"]);
    for path in [
        "std::sync::Arc",
        "std::sync::atomic",
        "std::time::Instant",
        "crate::one::sibling::self",
        "crate::one::sibling::Thing",
        "crate::one::two::child::go",
        "policies::Lru",
        "crate::far::away",
    ] {
        assert!(module.paths.contains(path), "{path} is not in {:?}", module.paths);
    }
    for word in ["fs", "net", "env", "tests"] {
        assert!(!module.words.contains(word), "{word} is in {:?}", module.words);
    }
}
