//! What the binary says about itself: help, policies, completions, manual pages.

use super::run;

const COMMANDS: [&[&str]; 17] = [
    &[],
    &["serve"],
    &["get"],
    &["set"],
    &["set-if-absent"],
    &["compare-and-set"],
    &["delete"],
    &["stats"],
    &["ping"],
    &["policies"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["replay"],
    &["simulate"],
    &["curve"],
    &["man"],
];

#[test]
fn help_is_plain_text_without_marks() {
    for command in COMMANDS.iter().copied().chain([&["completions"][..]]) {
        for flag in ["--help", "-h"] {
            let help = run(&[command, &[flag]].concat()).expect(0);
            let text = help.text();
            assert!(
                text.contains(&["Usage: tiny-cache", &command.join(" ")].join(if command.is_empty() {
                    ""
                } else {
                    " "
                })),
                "{text}"
            );
            for mark in ["`", "<unix"] {
                assert!(!text.contains(mark), "{command:?}: {mark:?} in {text}");
            }
            let first = text.lines().next().expect("a summary");
            assert!(!first.ends_with('.') && first.len() > 10, "{first}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    run(&["man", "--dir", folder.path().to_str().expect("text")]).expect(0);
    for command in COMMANDS {
        let page = run(&[&["man"], command].concat()).expect(0);
        let name = [&["tiny-cache"], command].concat().join("-");
        assert!(page.text().contains(&format!(".TH {name} 1")), "{}", page.text());
        assert!(folder.path().join(format!("{name}.1")).exists(), "{name}.1");
    }
    let ended = run(&["man", "frobnicate"]).expect(2);
    assert_eq!(ended.complaint(), "man: there is no command frobnicate");
}

#[test]
fn completions_know_every_command_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]).expect(0);
        for word in ["compare-and-set", "replay", "namespace"] {
            assert!(script.text().contains(word), "{shell} lacks {word}");
        }
    }
}

#[test]
fn the_list_of_policies_is_the_registry() {
    let names: Vec<String> = policies::REGISTRY.iter().map(|entry| entry.name.to_owned()).collect();
    let listed = run(&["policies", "--output", "json"]).expect(0).json();
    let listed = listed.as_array().expect("a list");
    let listed_names: Vec<&str> = listed.iter().filter_map(|entry| entry["name"].as_str()).collect();
    assert_eq!(listed_names, names);
    let text = run(&["policies"]).expect(0);
    for entry in policies::REGISTRY {
        assert!(text.text().contains(entry.summary) && text.text().contains(entry.paper), "{}", entry.name);
        for option in entry.options {
            assert!(text.text().contains(option.name), "{}: {}", entry.name, option.name);
        }
    }
}
