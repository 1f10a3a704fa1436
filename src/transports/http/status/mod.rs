//! The status page: `GET /` for a browser, and the figures that it draws.
//!
//! The page is one document without a single reference to anything else, put together once from the files beside
//! this one. Its content security policy allows just its own script and style, by their hashes, and questions to
//! the server that it came from.

mod accept;
mod history;

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use ring::digest::{SHA256, digest};

use super::answers::{Failure, Index};
use super::endpoints::Shared;

use accept::prefers_html;
use history::{History, Query};

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("plot.js"), include_str!("page.js"));

struct Page {
    text: String,
    security_policy: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    text: DOCUMENT.replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1).replacen(
        "<script></script>",
        &format!("<script>{SCRIPT}</script>"),
        1,
    ),
    security_policy: format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
        hash(SCRIPT),
        hash(STYLE),
    ),
});

/// As a content security policy names a text.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

/// What this is and where to look: the page for a browser, JSON for everyone else.
pub(super) async fn index(State(shared): Shared, headers: HeaderMap) -> Response {
    if !prefers_html(&headers) {
        return ([(VARY, "accept")], Json(Index::new(&shared.listed, shared.grpc_port))).into_response();
    }
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (VARY, "accept"),
        // The next version's page speaks to the next version's figures.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, PAGE.security_policy.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE.text.as_str()).into_response()
}

/// The figures of the last minutes or hours.
pub(super) async fn history(State(shared): Shared, uri: Uri) -> Result<Response, Failure> {
    let query = Query::parse(uri.query().unwrap_or_default())
        .map_err(|message| Failure::new(StatusCode::BAD_REQUEST, message))?;
    let service = &shared.service;
    let view = shared.history.read(query.step, query.since);
    let body =
        History::new(view, query.step, service.uptime(), service.active_requests(), service.is_draining());
    Ok(([(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_refers_to_nothing() {
        let text = &PAGE.text;
        assert!(text.len() < 40_000, "{} bytes", text.len());
        for part in [STYLE, SCRIPT] {
            assert!(text.contains(part));
        }
        for reference in ["http:", "https:", "url(", "@import", " src=", " style=", "innerHTML", " onclick="]
        {
            let found = text.replace("http://www.w3.org/2000/svg", "").contains(reference);
            assert!(!found, "{reference}");
        }
    }

    #[test]
    fn hashes_are_as_browsers_make_them() {
        // The well-known digest of nothing.
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
