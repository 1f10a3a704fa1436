//! Headers that callers write, over gRPC and over HTTP: ids, deadlines, namespaces, traces, what is accepted. Whatever they hold, there is an answer, its
//! id is sound, and what stands there as the standards have it is understood.
//!
//! The input: what is asked for; then lines, each a header's place among the names and its value.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body as HttpBody;
use engine::StoreStats;
use fuzz::grpc::{Answer, Frames, Served, check_request_id, tracing};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use tiny_cache::config::Part;
use tiny_cache::telemetry::metrics::{Metrics, Snapshot, Sources};
use tiny_cache::transports::access::Access;
use tiny_cache::transports::http::router;
use tonic::Code;
use tower::ServiceExt;

const NAMES: [&str; 12] = [
    "x-request-id",
    "grpc-timeout",
    "x-cache-namespace",
    "traceparent",
    "tracestate",
    "accept",
    "grpc-encoding",
    "grpc-accept-encoding",
    "content-type",
    "te",
    "baggage",
    "authorization",
];

/// `/metrics` is not asked for: its answer is made on another thread.
/// How long the endpoints wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
const PATHS: [&str; 8] = ["/", "/history", "/health", "/ready", "/live", "/stats", "/none", "/"];

struct Nothing;

impl Sources for Nothing {
    fn store(&self) -> Option<StoreStats> {
        None
    }

    fn snapshot(&self, _: StoreStats) -> Snapshot {
        unreachable!("nobody scrapes")
    }
}

struct Both {
    served: Served,
    http: Router,
    /// The store is asked under a time limit, which needs a timer, and swept on another thread.
    runtime: tokio::runtime::Runtime,
}

impl Both {
    fn new() -> Self {
        let served = Served::new();
        let metrics = Arc::new(Metrics::new(Arc::new(Nothing), true).expect("builds"));
        let service = Arc::clone(&served.service);
        let access = Access::new(&[Part::Probes, Part::Metrics, Part::Status], None, Arc::default());
        let http = router(service, metrics, Arc::default(), Some(50051), "http", Some(tracing()), &access);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("builds");
        Self { served, http, runtime }
    }
}

/// A deadline of nothing at all, as the protocol writes it.
fn is_over_at_once(timeout: &[u8]) -> bool {
    let Some((unit, digits)) = timeout.split_last() else { return false };
    b"HMSmun".contains(unit) && (1..=8).contains(&digits.len()) && digits.iter().all(|&digit| digit == b'0')
}

/// The trace of a caller who wants a span, as the standard writes it.
fn sampled_trace(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_sound = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    let is_some = |id: &str| id.bytes().any(|digit| digit != b'0');
    (is_sound && is_some(trace) && is_some(span) && flags == "01").then_some(trace)
}

fn check_trace(asked: &HeaderMap, answered: &HeaderMap) {
    let told = answered.get("traceresponse").map(|value| value.to_str().expect("text"));
    if let Some(told) = told {
        assert_eq!(told.len(), 55, "{told}");
    }
    if let Some(trace) = sampled_trace(asked) {
        assert_eq!(told.and_then(|told| told.get(3..35)), Some(trace), "it is the caller's trace");
    }
}

fn check_grpc(asked: &HeaderMap, answer: &Answer) {
    check_request_id(asked.get("x-request-id"), &answer.headers);
    check_trace(asked, &answer.headers);
    let status = answer.status();
    let is_over = asked.get("grpc-timeout").is_some_and(|timeout| is_over_at_once(timeout.as_bytes()));
    assert_eq!(status.code() == Code::DeadlineExceeded, is_over, "{status:?}");
    assert!(!status.message().starts_with("internal error"), "{status:?}");
}

/// A page only for whom it could be meant.
fn check_accept(asked: &HeaderMap, response: &http::Response<HttpBody>) {
    let is_html = response.headers()[CONTENT_TYPE].as_bytes().starts_with(b"text/html");
    let mut lines = asked.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let could_be = lines.any(|line| {
        let line = line.to_lowercase();
        line.contains("text/html") || line.contains("text/*") || line.contains("*/*")
    });
    assert!(could_be || !is_html, "nobody asked for a page");
    if asked.get_all(ACCEPT).iter().all(|line| line == "text/html") && asked.contains_key(ACCEPT) {
        assert!(is_html, "a page was asked for");
    }
}

fn run(both: &mut Both, data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|&byte| byte == b'\n');
    let query = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((&name, value)) = line.split_first() else { continue };
        let name = HeaderName::from_static(NAMES[usize::from(name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    if what < 128 {
        let path = ["/cache.CacheService/Get", "/cache.CacheService/Set"][usize::from(what) % 2];
        let mut request =
            Request::post(path).body(Frames::of(b"\0\0\0\0\x03\x0a\x01a", usize::MAX)).expect("valid");
        *request.headers_mut() = headers.clone();
        check_grpc(&headers, &both.served.call(request));
        return;
    }
    let path = PATHS[usize::from(what) % PATHS.len()];
    let uri = [path.as_bytes(), b"?", query].concat();
    let Ok(mut request) = Request::get(&uri[..]).body(HttpBody::empty()) else { return };
    *request.headers_mut() = headers.clone();
    let began = Instant::now();
    let response = both.runtime.block_on(both.http.clone().oneshot(request)).expect("it cannot fail");
    check_request_id(headers.get("x-request-id"), response.headers());
    let allowed: &[StatusCode] = match path {
        "/history" => &[StatusCode::OK, StatusCode::BAD_REQUEST],
        "/none" => &[StatusCode::NOT_FOUND],
        _ => &[StatusCode::OK],
    };
    // A machine that stands still for as long as the store is waited for is nobody's fault.
    let in_vain = response.status() == StatusCode::SERVICE_UNAVAILABLE && began.elapsed() >= STORE_TIMEOUT;
    assert!(in_vain || allowed.contains(&response.status()), "{path}: {}", response.status());
    if path == "/" {
        check_accept(&headers, &response);
    }
}

thread_local! {
    static BOTH: RefCell<Both> = RefCell::new(Both::new());
}

fuzz_target!(|data: &[u8]| {
    BOTH.with_borrow_mut(|both| run(both, data));
});
