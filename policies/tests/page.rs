//! docs/policies.md has a section for every policy, in the registry's order, with its options, its cost and its gauges.

use std::path::Path;

use policies::REGISTRY;

#[test]
fn every_policy_has_its_section_with_its_options_its_cost_and_its_gauges() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let sections: Vec<(&str, &str)> = page
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').expect("a heading, then text"))
        .collect();
    for (entry, (heading, text)) in REGISTRY.iter().zip(&sections) {
        assert_eq!(entry.name, *heading, "sections are in the registry's order");
        for option in entry.options {
            let named = format!("`{}", option.name);
            assert!(text.contains(&named), "{}: the option {} is not named", entry.name, option.name);
        }
        let cost = format!("{} bytes per entry", entry.bytes_per_entry);
        assert!(text.contains(&cost), "{}: it costs {cost}", entry.name);
        if entry.bytes_per_weighed_entry != entry.bytes_per_entry {
            let cost = format!(", {} where weights are bytes", entry.bytes_per_weighed_entry);
            assert!(text.contains(&cost), "{}: it costs {cost}", entry.name);
        }
        let (_, documented) = text.split_once("**Gauges.** ").expect("a paragraph on gauges");
        let paragraph = documented.split("\n\n").next().expect("some text");
        let documented: Vec<&str> = paragraph.split('`').skip(1).step_by(2).collect();
        let mut told = vec![];
        (entry.with_defaults)().build(100, 1).gauges(&mut |gauge| told.push(gauge.name));
        assert_eq!(documented, told, "{}: its gauges, in their order", entry.name);
    }
    assert!(sections.len() > REGISTRY.len(), "the comparison comes last");
}
