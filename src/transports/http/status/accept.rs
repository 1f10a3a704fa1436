//! Whether a caller would rather have a page or JSON, by its `Accept` header (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// Whether HTML is preferred to JSON. Who likes both the same, takes anything or says nothing gets JSON: that is
/// what every client that is not a browser has always got.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let lines: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
    let ranges: Vec<Range<'_>> =
        lines.iter().flat_map(|line| line.split(',')).filter_map(Range::parse).collect();
    let html = quality(&ranges, "text", "html");
    html > quality(&ranges, "application", "json")
}

/// What a caller thinks of a media type, in thousandths: the most specific range that has it counts.
fn quality(ranges: &[Range<'_>], kind: &str, subtype: &str) -> u16 {
    let matching = ranges.iter().filter_map(|range| Some((range.precision(kind, subtype)?, range.quality)));
    matching.max().map_or(0, |(_, quality)| quality)
}

/// One of the media ranges of an `Accept` header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no media range: it says nothing then. Parameters but `q` do not count, as neither
    /// representation has one to choose by.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("q").then_some(value.trim_start())
        });
        Some(Self { kind, subtype, quality: weight.map_or(Some(1000), thousandths)? })
    }

    /// How closely this range describes a media type; `None`: not at all.
    fn precision(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (own, "*") if own.eq_ignore_ascii_case(kind) => Some(1),
            (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

/// A weight as the standard has it: from 0 to 1 with at most three digits after the point.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(accept: &[&str], html: bool) {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(header::ACCEPT, HeaderValue::from_str(line).expect("a header"));
        }
        assert_eq!(prefers_html(&headers), html, "{accept:?}");
    }

    #[test]
    fn browsers_get_the_page() {
        for accept in [
            // Chromium, Firefox, Safari.
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
             application/signed-exchange;v=b3;q=0.7",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            // Lynx.
            "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
        ] {
            check(&[accept], true);
        }
    }

    #[test]
    fn everyone_else_gets_json() {
        check(&[], false);
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/*",
            "image/png",
            "text/plain",
            "text/plain;version=0.0.4",
            "text/html2",
            "application/json, text/html",
            "text/html, image/*, application/*",
            "application/json, */*;q=0.5",
            "application/json;q=0.9, text/html;q=0.8",
            "text/html;q=0",
            "text/html;q=0.0, */*",
            "*/*, text/html;q=0.9",
            "text",
            "html",
            "text/html;q=2",
            "text/html;q=1.001",
            "text/html;q=0.1234",
            "text/html;q=-1",
            "text/html;q=nan",
            "text/html;q=",
            ";,;,/,q=1",
        ] {
            check(&[accept], false);
        }
    }

    #[test]
    fn weights_and_precision_decide() {
        for accept in [
            "text/html",
            "TEXT/HTML",
            "text/*",
            "text/html;q=0.001",
            "text/html;q=1.000, application/json;q=0.999",
            "text/html;q=1., application/json;q=0.9",
            "text/html ; Q = 0.5 , application/json ; q = 0.4",
            "application/json;q=0, */*",
            "*/*;q=0.1, text/html;q=0.2",
            "text/*;q=0.9, application/json;q=0.8",
            "text/html;charset=utf-8;q=0.9, */*;q=0.8",
            "application/json;q=0.3, text/*;q=0.1, text/html;q=0.4",
            "nonsense, text/html",
        ] {
            check(&[accept], true);
        }
        check(&["text/*;q=0.9, text/html;q=0.1, application/json;q=0.5"], false);
    }

    #[test]
    fn several_lines_are_one_list() {
        check(&["application/json;q=0.5", "text/html"], true);
        check(&["text/html;q=0.5", "application/json"], false);
    }
}
