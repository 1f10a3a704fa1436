use resvg::tiny_skia::Pixmap;
use resvg::usvg::roxmltree::{Document, ParsingOptions};

use super::*;
use crate::optimum::OPTIMUM;
use crate::replay::{Mode, Tally};

/// Results of policies at capacities; the miss ratio falls with the capacity and rises with the policy's place.
fn results(trace: &str, mode: Mode, policies: &[&str], capacities: &[u64]) -> Vec<SimulationResult> {
    let mut results = Vec::new();
    for (place, policy) in (0_u64..).zip(policies) {
        for capacity in capacities {
            let misses = 10_000 * (place + 10) / (capacity % 977 + 20);
            let tally =
                Tally { requests: 123_456, misses, bytes: 123_456, missed_bytes: misses, ..Tally::default() };
            results.push(SimulationResult::new(trace, mode, *capacity, policy, &tally));
        }
    }
    results
}

fn report<'a>(results: &'a [SimulationResult], notes: &'a [String]) -> Report<'a> {
    Report { title: "A <title> & \"more\"", notes, results, advice: &[] }
}

fn every_case() -> Vec<Vec<SimulationResult>> {
    let many: Vec<String> = (0..18).map(|n| format!("policy-{n}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push(OPTIMUM);
    let two_traces = [
        results("a.txt", Mode::Items, &["lru", OPTIMUM], &[10, 20, 30]),
        results("b<&>.txt", Mode::Bytes, &["lru", "fifo", OPTIMUM], &[1 << 10, 1 << 20, 1 << 30]),
    ];
    vec![
        results("one.txt", Mode::Items, &["lru"], &[100]),
        results("bound.txt", Mode::Items, &[OPTIMUM], &[100, 200]),
        results("many.txt", Mode::Items, &many, &(1..=30).map(|n| n * n * 10).collect::<Vec<_>>()),
        two_traces.concat(),
        Vec::new(),
    ]
}

#[test]
fn svg_files_are_well_formed_and_name_every_policy() {
    for results in every_case() {
        let svg = report(&results, &[]).svg();
        let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
        let texts: Vec<_> =
            document.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
        for result in &results {
            assert!(texts.contains(&result.policy.as_str()), "{} is not in {texts:?}", result.policy);
        }
        for attribute in document.descendants().flat_map(|node| node.attributes()) {
            assert!(!attribute.value().contains("NaN"), "{attribute:?}");
            assert!(!matches!(attribute.name(), "href" | "src"), "{attribute:?}");
        }
    }
}

#[test]
fn png_files_show_text_and_lines() {
    for results in every_case() {
        let report = report(&results, &[]);
        let picture = Pixmap::decode_png(&report.png().unwrap()).unwrap();
        let drawing = report.plots();
        assert!((f64::from(picture.width()) - drawing.width * 2.0).abs() < 1.0);
        if results.is_empty() {
            continue;
        }
        // The heading's letters are drawn in ink, the policies' marks in their colours.
        let has = |rows: std::ops::Range<u32>, colour: [u8; 3]| {
            rows.flat_map(|y| (0..picture.width()).map(move |x| (x, y))).any(|(x, y)| {
                let pixel = picture.pixel(x, y).unwrap();
                [pixel.red(), pixel.green(), pixel.blue()] == colour
            })
        };
        assert!(has(48..100, [0x1d, 0x23, 0x29]), "no heading for {:?}", results[0].trace);
        if results.iter().any(|result| result.policy != OPTIMUM) {
            assert!(has(100..picture.height(), [0x00, 0x72, 0xb2]), "no marks for {:?}", results[0].trace);
        }
    }
}

#[test]
fn a_page_is_self_contained_and_holds_every_result() {
    let notes = ["Sampled <b>".to_owned()];
    for results in every_case() {
        let page = report(&results, &notes).html();
        assert!(page.contains("<h1>A &lt;title&gt; &amp; &quot;more&quot;</h1>"));
        assert!(page.contains("Sampled &lt;b&gt;"));
        for result in &results {
            let SimulationResult { capacity, misses, miss_ratio, .. } = result;
            let row = format!(
                "<td class=\"n\" data-value=\"{capacity}\">{}</td>\n<th>{}</th>\n<td class=\"n\" data-value=\"123456\">123,456</td>\n\
                 <td class=\"n\" data-value=\"{misses}\">{}</td>\n<td class=\"n\" data-value=\"{miss_ratio}\">",
                axis::full_capacity(*capacity, result.mode),
                svg::Escaped(&result.policy),
                axis::grouped(*misses),
            );
            assert!(page.contains(&row), "no row {row}");
        }
        // An SVG element needs its namespace, which is a name and is never fetched.
        let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for forbidden in ["http:", "https:", "src=", "url(", "@import", "fetch(", "XMLHttpRequest"] {
            assert!(!rest.contains(forbidden), "{forbidden}");
        }
        assert_eq!(rest.matches("href=").count(), rest.matches("href=\"data:,\"").count());
    }
}

#[test]
fn a_page_is_well_formed_but_for_what_html_leaves_open() {
    for results in every_case() {
        let page = report(&results, &[]).html();
        let closed = page
            .replace("<!DOCTYPE html>\n", "")
            .replace("<meta charset=\"utf-8\">", "")
            .lines()
            .filter(|line| !line.starts_with("<meta ") && !line.starts_with("<link "))
            .collect::<Vec<_>>()
            .join("\n");
        let script = closed.find("<script>").unwrap()..closed.find("</script>").unwrap();
        let (head, tail) = (&closed[..script.start], &closed[script.end + "</script>".len()..]);
        let options = ParsingOptions { nodes_limit: u32::MAX, ..ParsingOptions::default() };
        let markup = format!("{head}{tail}");
        Document::parse_with_options(&markup, options).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn what_more_memory_would_give_stands_in_the_page() {
    let results = results("t", Mode::Items, &["lru", "fifo"], &[50, 100, 200]);
    let advice = Advice::of(&results, 100, 1000);
    let page = Report { title: "t", notes: &[], results: &results, advice: &advice }.html();
    assert!(page.contains("half: 50") && page.contains("double: 200"), "{page}");
    assert!(page.contains(&advice[1].change(advice[1].half)));
}
