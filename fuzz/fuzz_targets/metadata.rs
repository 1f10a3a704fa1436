//! Headers that callers write, over gRPC and over HTTP: ids, deadlines, namespaces, traces, what is accepted; and methods, paths and queries of HTTP. Whatever
//! they hold, there is an answer, its id is sound, and what stands there as the standards have it is understood: a page for who would rather have it than JSON, and of the
//! history what was asked for.
//!
//! The input: what is asked for; a line that is the query or the path; then lines, each a header's place among the names and its value.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body as HttpBody;
use engine::{Store, StoreStats};
use fuzz::grpc::{Answer, Frames, Served, check_request_id, tracing};
use fuzz::ready;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tiny_cache::config::Part;
use tiny_cache::telemetry::history::{History, Sample};
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

/// How long the endpoints wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// `/metrics` is not asked for: its answer is made on another thread. What is empty stands in the input.
const PATHS: [&str; 8] = ["/", "/history", "/health", "/ready", "/live", "/stats", "", "/history"];

/// A step in seconds, and the number of the point that comes next.
const SECONDS: (u64, u64) = (1, 39);
const HALF_MINUTES: (u64, u64) = (30, 1);

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
        let history = History::default();
        let store = ready(served.store.stats()).expect("it answers");
        for second in 0..=SECONDS.1 {
            history.record(&Sample {
                time: SystemTime::now(),
                uptime: Duration::from_secs(second),
                store: store.clone(),
                active_requests: second,
                latency: None,
                eviction_age: None,
            });
        }
        let access = Access::new(&[Part::Probes, Part::Metrics, Part::Status], None, Arc::default());
        let http = router(service, metrics, Arc::new(history), Some(50051), "http", Some(tracing()), &access);
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

/// What somebody thinks of a media type, in thousandths, by the ranges of the header.
fn naive_quality(asked: &HeaderMap, kind: &str, subtype: &str) -> u16 {
    let lines: Vec<String> =
        asked.get_all(ACCEPT).iter().filter_map(|line| Some(line.to_str().ok()?.to_lowercase())).collect();
    // The most that was said of the type itself, of its kind, and of all there is.
    let mut said = [None; 3];
    for range in lines.iter().flat_map(|line| line.split(',')) {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let weight = parameters
            .split(';')
            .map(|parameter| parameter.splitn(2, '=').map(str::trim).collect::<Vec<_>>())
            .find(|parameter| parameter.len() == 2 && parameter[0] == "q")
            .map_or("1", |parameter| parameter[1]);
        let digits = weight.get(2..).unwrap_or_default();
        let quality = match weight.as_bytes() {
            [b'0' | b'1'] | [b'0', b'.', ..]
                if digits.len() < 4 && digits.chars().all(|c| c.is_ascii_digit()) =>
            {
                u16::from(weight.starts_with('1')) * 1000
                    + format!("{digits}000")[..3].parse::<u16>().expect("digits")
            }
            [b'1', b'.', zeroes @ ..] if zeroes.len() < 4 && zeroes.iter().all(|&zero| zero == b'0') => 1000,
            _ => continue,
        };
        let names = [format!("{kind}/{subtype}"), format!("{kind}/*"), "*/*".to_owned()];
        if let Some(place) = names.iter().position(|own| own == name.trim()) {
            said[place] = said[place].max(Some(quality));
        }
    }
    said.into_iter().flatten().next().unwrap_or(0)
}

/// A page for who would rather have it.
fn check_accept(asked: &HeaderMap, answered: &HeaderMap) {
    let is_html = answered[CONTENT_TYPE].as_bytes().starts_with(b"text/html");
    let prefers_html = naive_quality(asked, "text", "html") > naive_quality(asked, "application", "json");
    assert_eq!(is_html, prefers_html, "{:?}", asked.get_all(ACCEPT));
}

/// A whole number as it is written, however large: what is larger than all that there is, is so still.
fn naive_number(text: &str) -> Option<u128> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_one = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    is_one.then(|| digits.chars().fold(0, |sum, c| (sum * 10 + u128::from(c) - 48).min(1 << 100)))
}

/// The step that is asked for and the first point; `None`: it is refused.
fn naive_query(query: &str) -> Option<((u64, u64), u128)> {
    let (mut step, mut since) = (SECONDS, 0);
    for pair in query.split('&') {
        if let Some(value) = pair.strip_prefix("step=") {
            step = match naive_number(value) {
                Some(1) => SECONDS,
                Some(30) => HALF_MINUTES,
                _ => return None,
            };
        }
        if let Some(value) = pair.strip_prefix("since=") {
            since = naive_number(value).filter(|&number| number < 1 << 64)?;
        }
    }
    Some((step, since))
}

fn check_history(query: &str, body: &[u8]) {
    let ((step_seconds, next), since) = naive_query(query).expect("it is to be refused");
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["step_seconds"], step_seconds, "{query}");
    assert_eq!(body["next"], next);
    // Who knows of points that are not there knows them of another server.
    let points = u128::from(next).checked_sub(since).unwrap_or(next.into());
    for column in ["time", "hits", "memory_usage_bytes"] {
        let told = body["columns"][column].as_array().map(Vec::len);
        assert_eq!(told.map(|told| told as u128), Some(points), "{column}: {query}");
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
        let known = ["/cache.CacheService/Get", "/cache.CacheService/Set"][usize::from(what) % 2];
        let path = if what < 64 { known.as_bytes() } else { query };
        let body = Frames::of(b"\0\0\0\0\x03\x0a\x01a", usize::MAX);
        let Ok(mut request) = Request::post(path).body(body) else { return };
        // That answer has no end.
        if request.uri().path() != "/grpc.health.v1.Health/Watch" {
            *request.headers_mut() = headers.clone();
            check_grpc(&headers, &both.served.call(request));
        }
        return;
    }
    let path = PATHS[usize::from(what) % PATHS.len()];
    let uri = if path.is_empty() { query.to_vec() } else { [path.as_bytes(), b"?", query].concat() };
    let method = match what / 8 % 4 {
        1 if path.is_empty() => Method::POST,
        2 if path.is_empty() => Method::HEAD,
        3 if path.is_empty() => Method::OPTIONS,
        _ => Method::GET,
    };
    let Ok(mut request) = Request::builder().method(&method).uri(&uri[..]).body(HttpBody::empty()) else {
        return;
    };
    *request.headers_mut() = headers.clone();
    let uri = request.uri().clone();
    if uri.path() == "/metrics" {
        return;
    }
    let began = Instant::now();
    let (head, body) = both.runtime.block_on(async {
        let response = both.http.clone().oneshot(request).await.expect("it cannot fail");
        let (head, body) = response.into_parts();
        (head, body.collect().await.expect("it cannot fail").to_bytes())
    });
    check_request_id(headers.get("x-request-id"), &head.headers);
    let query = uri.query().unwrap_or_default();
    let expected = match uri.path() {
        path if !PATHS.contains(&path) || path.is_empty() => StatusCode::NOT_FOUND,
        _ if method == Method::POST || method == Method::OPTIONS => StatusCode::METHOD_NOT_ALLOWED,
        "/history" if naive_query(query).is_none() => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    // A machine that stands still for as long as the store is waited for is nobody's fault.
    let in_vain = head.status == StatusCode::SERVICE_UNAVAILABLE && began.elapsed() >= STORE_TIMEOUT;
    assert!(in_vain || head.status == expected, "{method} {uri}: {}, not {expected}", head.status);
    if head.status != StatusCode::OK || method == Method::HEAD {
        return;
    }
    match uri.path() {
        "/" => check_accept(&headers, &head.headers),
        "/history" => check_history(query, &body),
        _ => {}
    }
}

thread_local! {
    static BOTH: RefCell<Both> = RefCell::new(Both::new());
}

fuzz_target!(|data: &[u8]| {
    BOTH.with_borrow_mut(|both| run(both, data));
});
