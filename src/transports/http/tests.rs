//! The endpoints from outside: paths, codes, headers, the bodies' fields and their order.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use engine::{
    CompareAndSet, Counters, Entry, Key, Limits, SetIfAbsent, Store, StoreError, StoreFuture, StoreStats,
    Value,
};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tracing::instrument::WithSubscriber;

use crate::auth::Tokens;
use crate::config::{AuthConfig, LogFormat, LogLevel};
use crate::service::ActiveRequest;
use crate::telemetry::capture::Captured;
use crate::telemetry::history::Sample;
use crate::telemetry::metrics::tests::metrics;
use crate::transports::refused::{RefusedRequests, RequestRefusal};

use super::*;

const PATHS: [&str; 7] = ["/", "/history", "/health", "/ready", "/live", "/metrics", "/stats"];
/// Those that ask the store.
const STORE_PATHS: [&str; 4] = ["/health", "/ready", "/metrics", "/stats"];

/// How a [`TestStore`] takes the question for its statistics.
#[derive(Clone, Copy)]
enum Mood {
    Answers,
    Fails,
    Hangs,
    Panics,
}

/// Knows only its statistics; each sweep removes one of its ten entries.
struct TestStore {
    mood: Mood,
    swept: AtomicU64,
}

const LIMITS: Limits = Limits { max_items: Some(100), max_memory_bytes: 104_857_600, max_value_bytes: 2048 };

impl Store for TestStore {
    fn get<'a>(&'a self, _: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        unreachable!("no endpoint reads an entry")
    }

    fn set<'a>(&'a self, _: Entry<'a>) -> StoreFuture<'a, ()> {
        unreachable!("no endpoint writes an entry")
    }

    fn set_if_absent<'a>(&'a self, _: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        unreachable!("no endpoint writes an entry")
    }

    fn compare_and_set<'a>(&'a self, _: &'a [u8], _: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        unreachable!("no endpoint writes an entry")
    }

    fn delete<'a>(&'a self, _: Key<'a>) -> StoreFuture<'a, bool> {
        unreachable!("no endpoint removes an entry")
    }

    fn clear(&self) -> StoreFuture<'_, u64> {
        unreachable!("no endpoint clears the store")
    }

    fn sweep(&self) -> StoreFuture<'_, u64> {
        self.swept.fetch_add(1, Ordering::Relaxed);
        StoreFuture::ready(Ok(1))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        match self.mood {
            Mood::Answers => {}
            Mood::Fails => return StoreFuture::ready(Err(StoreError::Unavailable("secret cause".into()))),
            Mood::Hangs => return StoreFuture::pending(std::future::pending()),
            Mood::Panics => panic!("the store lost its mind"),
        }
        let expired = self.swept.load(Ordering::Relaxed);
        let counters = Counters {
            entries: 10 - expired,
            memory_bytes: 1_234_567,
            hits: 3_000_000_000,
            misses: 1_000_000_000,
            evictions: 5,
            expired,
            rejected_oversize: 6,
            rejected_capacity: 7,
            rejected_admission: 8,
            ..Counters::default()
        };
        StoreFuture::ready(Ok(StoreStats {
            counters,
            limits: LIMITS,
            policy: "lru",
            store: "memory",
            shards: 1,
        }))
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

fn service(mood: Mood) -> Arc<CacheService> {
    Arc::new(CacheService::new(Arc::new(TestStore { mood, swept: AtomicU64::new(0) })))
}

fn router_over(service: &Arc<CacheService>) -> Router {
    router_with(service, Arc::default(), Some(50051))
}

fn router_with(service: &Arc<CacheService>, history: Arc<History>, grpc_port: Option<u16>) -> Router {
    router(Arc::clone(service), metrics(), history, grpc_port, "http", None, &access())
}

/// Everybody may ask for everything.
fn access() -> Access {
    Access::new(&[Part::Probes, Part::Metrics, Part::Status], None, Arc::default())
}

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Json {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// The names of a flat body's fields in the order in which they were sent.
    fn fields(&self) -> Vec<&str> {
        self.body
            .split(['{', ','])
            .filter_map(|part| part.strip_prefix('"')?.split_once("\":"))
            .map(|(name, _)| name)
            .collect()
    }

    #[track_caller]
    fn assert_not_there(&self, endpoints: &[&str]) {
        assert_eq!(self.code, StatusCode::NOT_FOUND, "{}", self.body);
        let listed = serde_json::json!({"status": "error", "message": "not found", "endpoints": endpoints});
        assert_eq!(self.json(), listed);
    }

    fn assert_failure(&self, code: StatusCode, message: &str) {
        assert_eq!(self.code, code, "{}", self.body);
        assert_eq!(self.body, format!(r#"{{"status":"error","message":"{message}"}}"#));
        self.json();
    }
}

async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("in memory").to_bytes();
    let body = String::from_utf8(body.into()).expect("text");
    let id = head.headers.get_all("x-request-id").iter().collect::<Vec<_>>();
    assert!(matches!(id[..], [id] if !id.is_empty()), "{id:?}");
    Answer { code: head.status, headers: head.headers, body }
}

async fn call(service: &Arc<CacheService>, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
    send(router_over(service), request).await
}

async fn get_path(service: &Arc<CacheService>, path: &str) -> Answer {
    call(service, Method::GET, path).await
}

const TOKEN: &str = "0123456789abcdef";

/// A router with these parts, behind [`TOKEN`] if `guarded`; and where it counts.
fn restricted(serve: &[Part], guarded: bool) -> (Router, Arc<RefusedRequests>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, TOKEN).expect("written");
    let config = AuthConfig { tokens_file: file.path().to_owned(), reload_interval: Duration::from_secs(1) };
    let tokens = guarded.then(|| Tokens::load(&config).expect("a good file"));
    let refused = Arc::<RefusedRequests>::default();
    let access = Access::new(serve, tokens, Arc::clone(&refused));
    let service = service(Mood::Answers);
    (router(service, metrics(), Arc::default(), Some(50051), "http", None, &access), refused)
}

fn asking_with(path: &str, authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Body::empty()).expect("valid")
}

#[tokio::test]
async fn a_part_that_is_not_served_is_not_there() {
    for (serve, expected) in [
        (&[Part::Probes][..], &["/health", "/ready", "/live"][..]),
        (&[Part::Metrics], &["/metrics"]),
        (&[Part::Status], &["/", "/history", "/stats"]),
        (&[Part::Status, Part::Metrics], &["/", "/history", "/metrics", "/stats"]),
    ] {
        for guarded in [false, true] {
            let (router, _) = restricted(serve, guarded);
            let authorization = format!("Bearer {TOKEN}");
            for path in PATHS {
                let answer = send(router.clone(), asking_with(path, Some(&authorization))).await;
                if expected.contains(&path) {
                    assert_eq!(answer.code, StatusCode::OK, "{path}");
                } else {
                    let order = ["/health", "/ready", "/live", "/metrics", "/stats", "/history"];
                    let listed = order.into_iter().filter(|path| expected.contains(path));
                    answer.assert_not_there(&listed.collect::<Vec<_>>());
                }
            }
        }
    }
    let (router, _) = restricted(&[Part::Status, Part::Probes], false);
    let index = send(router, asking_with("/", None)).await.json();
    assert_eq!(index["endpoints"], serde_json::json!(["/health", "/ready", "/live", "/stats", "/history"]));
}

#[tokio::test]
async fn all_but_probes_need_a_token_where_there_are_tokens() {
    let (router, refused) = restricted(&[Part::Probes, Part::Metrics, Part::Status], true);
    let good = format!("Bearer {TOKEN}");
    for path in PATHS {
        let is_probe = ["/health", "/ready", "/live"].contains(&path);
        for (authorization, challenge, message) in [
            (None, "Bearer realm=\"tiny-cache\"", "a bearer token is needed"),
            (
                Some("Bearer 0123456789abcdeF"),
                "Bearer realm=\"tiny-cache\", error=\"invalid_token\"",
                "the bearer token is not known",
            ),
        ] {
            let answer = send(router.clone(), asking_with(path, authorization)).await;
            if is_probe {
                assert_eq!(answer.code, StatusCode::OK, "{path}");
            } else {
                answer.assert_failure(StatusCode::UNAUTHORIZED, message);
                assert_eq!(answer.headers[header::WWW_AUTHENTICATE], challenge, "{path}");
            }
        }
        let answer = send(router.clone(), asking_with(path, Some(&good))).await;
        assert_eq!(answer.code, StatusCode::OK, "{path}");
    }
    let answer = send(router, asking_with("/nothing", None)).await;
    assert_eq!(answer.code, StatusCode::NOT_FOUND);
    assert_eq!(
        [RequestRefusal::NoToken, RequestRefusal::WrongToken].map(|reason| refused.total(reason)),
        [4, 4]
    );
}

#[tokio::test]
async fn the_index_tells_where_to_look() {
    let answer = get_path(&service(Mood::Answers), "/").await;
    assert_eq!(answer.code, StatusCode::OK);
    let body = answer.json();
    assert_eq!(body["service"], "tiny-cache");
    assert_eq!(body["grpc_port"], 50051);
    assert_eq!(body.as_object().expect("object").len(), 3);
    for path in body["endpoints"].as_array().expect("a list") {
        assert_eq!(
            get_path(&service(Mood::Answers), path.as_str().expect("a path")).await.code,
            StatusCode::OK
        );
    }
    let no_port = router_with(&service(Mood::Answers), Arc::default(), None);
    let answer = send(no_port, Request::new(Body::empty())).await;
    assert!(answer.json()["grpc_port"].is_null());
}

fn asking(path: &str, accept: &str) -> Request<Body> {
    Request::builder().uri(path).header(header::ACCEPT, accept).body(Body::empty()).expect("valid")
}

#[tokio::test]
async fn a_browser_gets_the_page_and_everyone_else_the_index() {
    let service = service(Mood::Hangs);
    let page = send(router_over(&service), asking("/", "text/html,*/*;q=0.8")).await;
    assert_eq!(page.code, StatusCode::OK);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.body.starts_with("<!DOCTYPE html>") && page.body.contains("</html>"));
    for (name, value) in [
        (header::VARY, "accept"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        assert_eq!(page.headers[&name], value, "{name}");
    }
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    for part in ["default-src 'none'; ", "; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "] {
        assert!(policy.contains(part), "{policy}");
    }
    for accept in ["*/*", "application/json", "text/html;q=0.1, application/json"] {
        let index = send(router_over(&service), asking("/", accept)).await;
        assert_eq!(index.headers[header::VARY], "accept");
        let expected = r#"{"service":"tiny-cache","endpoints":["/health","/ready","/live","/metrics","/stats","/history"],"grpc_port":50051}"#;
        assert_eq!(index.body, expected);
    }
}

#[tokio::test]
async fn the_history_is_told_in_columns_and_costs_the_store_nothing() {
    let history = Arc::new(History::default());
    // A store that would hang if it were asked.
    let service = service(Mood::Hangs);
    let ask = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).expect("valid");
        send(router_with(&service, Arc::clone(&history), None), request).await
    };
    let before = ask("/history").await.json();
    assert_eq!((&before["status"], &before["next"]), (&"ready".into(), &0.into()));
    assert!(before.get("policy").is_none(), "nothing is known yet: {before}");
    for second in 0..=2 {
        let store = self::service(Mood::Answers).counters().await.expect("answers");
        history.record(&Sample {
            time: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + second),
            uptime: Duration::from_secs(second),
            store,
            active_requests: second,
            latency: None,
            eviction_age: None,
        });
    }
    let answer = ask("/history?step=1&since=0").await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let mut body = answer.json();
    assert_current(&body);
    for name in ["uptime_seconds", "timestamp"] {
        body[name].take();
    }
    let expected = serde_json::json!({
        "service": "tiny-cache", "version": env!("CARGO_PKG_VERSION"), "status": "ready", "timestamp": null,
        "uptime_seconds": null, "active_requests": 0, "policy": "lru", "store": "memory", "shards": 1,
        "max_entries": 100, "max_memory_bytes": 104_857_600, "max_value_bytes": 2048, "entries": 10,
        "memory_usage_bytes": 1_234_567, "hits_total": 3_000_000_000_u64, "misses_total": 1_000_000_000,
        "evictions_total": 5, "expired_removals_total": 0, "rejected_oversize_total": 6,
        "rejected_capacity_total": 7, "rejected_admission_total": 8, "step_seconds": 1, "next": 2,
        "columns": {
            "time": [1001.0, 1002.0], "seconds": [1.0, 1.0], "hits": [0, 0], "misses": [0, 0],
            "evictions": [0, 0], "expired_removals": [0, 0], "rejected_writes": [0, 0],
            "requests": [null, null], "latency_p50_seconds": [null, null],
            "latency_p99_seconds": [null, null], "eviction_age_p50_seconds": [null, null],
            "active_requests": [1, 2], "entries": [10, 10], "memory_usage_bytes": [1_234_567, 1_234_567],
        },
    });
    assert_eq!(body, expected);
    assert_eq!(ask("/history?since=1").await.json()["columns"]["time"], serde_json::json!([1002.0]));
    let coarse = ask("/history?step=30").await.json();
    assert_eq!((&coarse["step_seconds"], &coarse["next"]), (&30.into(), &0.into()));
    ask("/history?step=5").await.assert_failure(StatusCode::BAD_REQUEST, "step must be 1 or 30");
    history.miss();
    assert_eq!(ask("/history").await.json()["status"], "the store does not answer");
    service.begin_drain();
    assert_eq!(ask("/history").await.json()["status"], "draining");
}

#[tokio::test]
async fn health_and_readiness_tell_how_it_is() {
    let service = service(Mood::Answers);
    let _active = ActiveRequest::begin(Arc::clone(&service));
    for path in ["/health", "/ready"] {
        let answer = get_path(&service, path).await;
        assert_eq!(answer.code, StatusCode::OK);
        let fields = [
            "status",
            "uptime_seconds",
            "cache_size",
            "cache_hits",
            "cache_misses",
            "active_requests",
            "timestamp",
        ];
        assert_eq!(answer.fields(), fields);
        let body = answer.json();
        assert_eq!(body["status"], "healthy");
        // No sweep: a probe costs nothing.
        assert_eq!(body["cache_size"], 10);
        assert_eq!(body["cache_hits"], 3_000_000_000_u64);
        assert_eq!(body["cache_misses"], 1_000_000_000_u64);
        assert_eq!(body["active_requests"], 1);
        assert_current(&body);
    }
}

#[track_caller]
fn assert_current(body: &Json) {
    assert!(body["uptime_seconds"].is_f64() && body["timestamp"].is_f64(), "{body}");
    assert!((0.0..60.0).contains(&body["uptime_seconds"].as_f64().expect("a number")), "{body}");
    let age = answers::unix_seconds() - body["timestamp"].as_f64().expect("a number");
    assert!((0.0..60.0).contains(&age), "{body}");
}

#[tokio::test]
async fn the_statistics_have_every_field_of_the_api_and_a_few_more() {
    let answer = get_path(&service(Mood::Answers), "/stats").await;
    let proto = include_str!("../../../proto/cache.proto");
    let (_, message) = proto.split_once("message CacheStats {").expect("is there");
    let (message, _) = message.split_once("\n}").expect("ends");
    let mut expected: Vec<&str> = message
        .lines()
        .filter(|line| line.ends_with(';'))
        .map(|line| line.split_whitespace().nth(1).expect("a name"))
        .collect();
    assert_eq!(expected.len(), 25);
    expected.extend(["memory_usage_mb", "max_memory_mb", "uptime_seconds", "active_requests", "timestamp"]);
    assert_eq!(answer.fields(), expected);

    let mut body = answer.json();
    assert_current(&body);
    for name in ["uptime_seconds", "timestamp"] {
        body[name].take();
    }
    let expected = serde_json::json!({
        "size": 9, "hits": i32::MAX, "misses": 1_000_000_000, "evictions": 5, "hit_rate": 0.75,
        "memory_usage_bytes": 1_234_567, "max_memory_bytes": 104_857_600, "max_items": 100, "max_value_bytes": 2048,
        "lru_evictions": 5, "expired_removals": 1, "rejected_oversize": 6, "rejected_capacity": 7,
        "entries": 9, "hits_total": 3_000_000_000_u64, "misses_total": 1_000_000_000, "evictions_total": 5,
        "expired_removals_total": 1, "rejected_oversize_total": 6, "rejected_capacity_total": 7,
        "rejected_admission_total": 8, "max_entries": 100, "policy": "lru", "store": "memory", "shards": 1,
        "memory_usage_mb": 1.18, "max_memory_mb": 100.0, "uptime_seconds": null, "active_requests": 0, "timestamp": null,
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn prometheus_gets_its_text_format() {
    let answer = get_path(&service(Mood::Answers), "/metrics").await;
    assert_eq!(answer.code, StatusCode::OK);
    let kind = answer.headers[header::CONTENT_TYPE].to_str().expect("text");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(answer.body.contains("\ntiny_cache_hits_total 3000000000\n"), "{}", answer.body);
    assert!(answer.body.contains("\ntiny_cache_entries 10\n"), "a scrape does not sweep: {}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_hangs_is_503_and_tells_no_cause() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let service = service(mood);
        for path in STORE_PATHS {
            let answer = get_path(&service, path).await;
            answer.assert_failure(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer");
        }
        let answer = get_path(&service, "/live").await;
        assert_eq!(answer.code, StatusCode::OK);
        assert_eq!(answer.fields(), ["status", "uptime_seconds", "timestamp"]);
        assert_eq!(answer.json()["status"], "alive");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_is_given_one_second() {
    let start = tokio::time::Instant::now();
    get_path(&service(Mood::Hangs), "/health").await;
    assert_eq!(start.elapsed().as_millis() / 10, 100);
}

#[tokio::test]
async fn a_shutdown_takes_readiness_away_and_nothing_else() {
    let service = service(Mood::Answers);
    service.begin_drain();
    for path in PATHS.into_iter().filter(|&path| path != "/ready") {
        assert_eq!(get_path(&service, path).await.code, StatusCode::OK, "{path}");
    }
    get_path(&service, "/ready").await.assert_failure(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_are_told_in_json() {
    let service = service(Mood::Answers);
    for path in ["/nothing", "/stats/", "/health/x", "//", "/%ff"] {
        let endpoints = ["/health", "/ready", "/live", "/metrics", "/stats", "/history"];
        get_path(&service, path).await.assert_not_there(&endpoints);
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for path in PATHS {
            let answer = call(&service, method.clone(), path).await;
            answer.assert_failure(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
            assert_eq!(answer.headers[header::ALLOW], "GET,HEAD");
        }
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    for path in PATHS {
        let answer = call(&service(Mood::Answers), Method::HEAD, path).await;
        assert_eq!((answer.code, answer.body.as_str()), (StatusCode::OK, ""), "{path}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_request_and_is_logged_with_its_id() {
    let log = Captured::default();
    let (subscriber, _) = log.subscriber(LogLevel::Error, LogFormat::Json);
    let request = Request::builder().uri("/health").header("x-request-id", "who-1").body(Body::empty());
    let answer =
        send(router_over(&service(Mood::Panics)), request.expect("valid")).with_subscriber(subscriber).await;
    answer.assert_failure(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
    assert_eq!(answer.headers["x-request-id"], "who-1");
    let lines = log.json_lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["request_id"], "who-1");
    assert_eq!(lines[0]["panic"], "the store lost its mind");
}

#[tokio::test]
async fn a_failing_store_is_logged_with_its_cause_and_the_requests_id() {
    let log = Captured::default();
    let (subscriber, _) = log.subscriber(LogLevel::Info, LogFormat::Json);
    let answer = get_path(&service(Mood::Fails), "/ready").with_subscriber(subscriber).await;
    let lines = log.json_lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["error"], "store unavailable: secret cause");
    assert_eq!(lines[0]["request_id"], answer.headers["x-request-id"].to_str().expect("text"));
    assert_eq!(lines[0]["path"], "/ready");
}

/// Sends bytes over a real connection and reads the answer to its end.
async fn exchange(request: &str) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let (connection, _) = listener.accept().await?;
    let handler = TowerToHyperService::new(router_over(&service(Mood::Answers)));
    tokio::spawn(
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), handler),
    );
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn id_in(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("has an id")
}

#[tokio::test]
async fn request_ids_over_the_wire_are_echoed_or_replaced() -> Result<(), Box<dyn Error>> {
    let with_id = |id: &str| {
        format!("GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: {id}\r\n\r\n")
    };
    let answer = exchange(&with_id("abc-123")).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(id_in(&answer), "abc-123");
    let too_long = "x".repeat(129);
    for id in ["", "a b", "na\u{ef}ve", &too_long] {
        let answer = exchange(&with_id(id)).await?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(id_in(&answer).len(), 32, "{answer}");
    }
    // A line break ends the header: what follows is another one, and not reflected.
    let answer = exchange(&with_id("abc\r\nx-injected: 1")).await?;
    assert_eq!(id_in(&answer), "abc");
    assert!(!answer.contains("x-injected"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn head_over_the_wire_tells_the_length_and_sends_nothing() -> Result<(), Box<dyn Error>> {
    let answer = exchange("HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("content-length: "), "{answer}");
    Ok(())
}
