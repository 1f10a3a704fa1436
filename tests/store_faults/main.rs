//! A store that is slow, fails, or never answers: its callers hear of it in time, probes answer, nothing is left behind,
//! and the server stops when it is told to.
//!
//! Which fault a call meets is said by its key, and what befalls statistics and sweeps by the value of the key "mood".

mod troubled;

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{net, thread};

use engine::Store;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tiny_cache::config::{Loader, Sources};
use tiny_cache::proto::cache_service_client::CacheServiceClient;
use tiny_cache::proto::{
    CacheItem, CacheKey, CacheLookup, CompareAndSetRequest, Empty, MultiCacheItemRequest,
    MultiCacheKeyRequest,
};
use tiny_cache::registry::StoreEntry;
use tiny_cache::server::Server;
use tiny_cache::transports::Drained;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tower::util::BoxCloneSyncService;

use troubled::{BUILT, Mood, SECRET, Troubled, troubled};

/// Longer than anything here takes, short enough to see a test hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// tonic's client over a plain connection: a channel of tonic's ends calls at their deadline by itself, and would hide
/// whether the server does.
type Connection = BoxCloneSyncService<http::Request<Body>, http::Response<Incoming>, hyper::Error>;
type Client = CacheServiceClient<Connection>;

async fn connect(address: &str) -> Client {
    let (connection, origin) = open(address).await;
    CacheServiceClient::with_origin(connection, origin)
}

async fn open(address: &str) -> (Connection, http::Uri) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (requests, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    // Its failure is that of the calls.
    tokio::spawn(connection);
    let service = tower::service_fn(move |request| requests.clone().send_request(request));
    let origin = format!("http://{address}").parse().expect("an address");
    (BoxCloneSyncService::new(service), origin)
}

/// Lets go what hangs, or the threads of a failed test would be waited for.
struct Cure(Arc<Troubled>);

impl Drop for Cure {
    fn drop(&mut self) {
        self.0.mood.send_replace(Mood::Well);
    }
}

/// A running server with such a store, and a client.
struct Running {
    store: Arc<Troubled>,
    _cure: Cure,
    grpc: String,
    http: String,
    client: Client,
    shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

impl Running {
    /// `number` is another one in each test.
    async fn start(number: u64) -> Self {
        Self::start_with(number, "").await
    }

    /// With these lines for the gRPC transport.
    async fn start_with(number: u64, grpc: &str) -> Self {
        let entry = StoreEntry { name: "troubled", summary: "things happen to it", build: troubled };
        let server = Server::builder().store(entry);
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = format!(
            "[server]\nshutdown_grace = \"500ms\"\n\
             [store]\nkind = \"troubled\"\nmax_items = {number}\nsweep_interval = \"1h\"\n\
             [[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n{grpc}\n\
             [[transport]]\nkind = \"http\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let configured = loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration");
        let bound = server.bind(&configured.config).expect("bound");
        let store = {
            let mut built = BUILT.lock().expect("no panic");
            let place = built.iter().position(|store| store.limits().max_items == Some(number));
            built.swap_remove(place.expect("it was built"))
        };
        let address = |kind| bound.addresses(kind)[0].to_string();
        let (grpc, http) = (address("grpc"), address("http"));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(bound.run(shutdown.clone()));
        let client = connect(&grpc).await;
        Self { _cure: Cure(Arc::clone(&store)), store, grpc, http, client, shutdown, server }
    }

    async fn feel(&self, mood: Mood) {
        let value = format!("{mood:?}").to_lowercase().into_bytes();
        let item = CacheItem { key: "mood".to_owned(), value: value.into(), ttl: 0 };
        within(self.client.clone().set(item)).await.expect("set");
    }

    /// Calls a method by its place, on `key`.
    async fn call(&self, method: usize, key: &str, timeout: Option<Duration>) -> Result<String, Status> {
        let key = key.to_owned();
        let item = CacheItem { key: key.clone(), value: b"v".to_vec().into(), ttl: 0 };
        let keys = MultiCacheKeyRequest { keys: vec![key.clone()] };
        let mut client = self.client.clone();
        macro_rules! call {
            ($method:ident($message:expr)) => {{
                let mut request = Request::new($message);
                if let Some(timeout) = timeout {
                    request.set_timeout(timeout);
                }
                let answer = within(client.$method(request)).await;
                answer.map(|answer| format!("{:?}", answer.into_inner()))
            }};
        }
        match method {
            0 => call!(get(CacheKey { key })),
            1 => call!(set(item)),
            2 => call!(set_if_absent(item)),
            3 => call!(compare_and_set(CompareAndSetRequest {
                key,
                value: b"w".to_vec().into(),
                ..Default::default()
            })),
            4 => call!(delete(CacheKey { key })),
            5 => call!(multi_get(keys)),
            6 => call!(multi_set(MultiCacheItemRequest { items: vec![item] })),
            7 => call!(multi_delete(keys)),
            _ => call!(stats(Empty {})),
        }
    }

    /// The status and body of an HTTP answer.
    async fn fetch(&self, path: &str) -> (u16, String) {
        let answer = async {
            let mut stream = TcpStream::connect(&self.http).await?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            io::Result::Ok(text)
        };
        let text = within(answer).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// The value of the one metric whose line begins with `name` and holds `label`.
    async fn metric(&self, name: &str, label: &str) -> u64 {
        let (status, body) = self.fetch("/metrics").await;
        assert_eq!(status, 200, "{body}");
        let line = body.lines().find(|line| line.starts_with(name) && line.contains(label)).expect(name);
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }

    async fn active_requests(&self) -> u64 {
        self.metric("tiny_cache_active_requests ", "").await
    }

    /// Nothing is left of what was asked.
    async fn settles(&self, tasks: usize) {
        let settled = async {
            while self.store.hanging.load(Ordering::SeqCst) > 0
                || self.active_requests().await > 0
                || Handle::current().metrics().num_alive_tasks() > tasks
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(settled).await;
    }

    async fn stop(self) -> Drained {
        drop(self.client);
        self.shutdown.cancel();
        within(self.server).await.expect("no panic")
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("should not take so long")
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn every_failure_of_a_store_has_its_code_and_its_cause_stays_inside() {
    let running = Running::start(101).await;
    for (key, code) in [
        ("unavailable-1", Code::Unavailable),
        ("failed-1", Code::Internal),
        ("unsupported-1", Code::Internal),
    ] {
        for method in 0..5 {
            let status = running.call(method, key, None).await.expect_err(key);
            assert_eq!(status.code(), code, "{key} by {method}: {status}");
            assert!(status.message().contains("request_id="), "{status}");
            assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
        }
        // Of a batch the other items are served.
        let keys = ["mine", key].map(str::to_owned).to_vec();
        let answer = running.client.clone().multi_get(MultiCacheKeyRequest { keys }).await.expect("a batch");
        let [CacheLookup { error, .. }, other] = answer.into_inner().items.try_into().expect("two");
        assert_eq!(error, "");
        assert!(other.error.contains("request_id=") && !other.error.contains(SECRET), "{}", other.error);
    }
    running.feel(Mood::Failing).await;
    let status = running.call(8, "", None).await.expect_err("no figures");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
    running.feel(Mood::Well).await;
    assert!(running.call(8, "", None).await.is_ok());
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn deadlines_hold_while_a_store_hangs_and_nothing_is_left_behind() {
    let running = Arc::new(Running::start(102).await);
    running.call(0, "k", None).await.expect("well");
    let tasks = alive_tasks();
    let mut calls = JoinSet::new();
    for number in 0..400_usize {
        let running = Arc::clone(&running);
        calls.spawn(async move {
            let timeout = Duration::from_millis(100 + number as u64 % 5 * 50);
            let began = Instant::now();
            let answer = running.call(number % 8, "hanging-1", Some(timeout)).await;
            (answer, timeout, began.elapsed())
        });
    }
    while let Some(call) = within(calls.join_next()).await {
        let (answer, timeout, took) = call.expect("no panic");
        let status = answer.expect_err("nothing answers");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(took >= timeout, "{took:?} of {timeout:?}");
    }
    assert!(running.store.most_hanging.load(Ordering::SeqCst) > 50, "they waited side by side");
    running.settles(tasks).await;
    let refused = running
        .metric("tiny_cache_requests_refused_total{", "\"deadline_exceeded\",transport=\"grpc\"")
        .await;
    assert_eq!(refused, 400);
    let running = Arc::into_inner(running).expect("all calls are over");
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_for_callers_without_a_deadline_too() {
    let running = Arc::new(Running::start_with(108, "request_timeout = \"200ms\"").await);
    running.call(0, "k", None).await.expect("well");
    let tasks = alive_tasks();
    running.feel(Mood::Hanging).await;
    let mut calls = JoinSet::new();
    for number in 0..90_usize {
        let running = Arc::clone(&running);
        calls.spawn(async move {
            // Some have more patience than the server.
            let timeout = (number % 2 == 0).then_some(PATIENCE);
            let began = Instant::now();
            (running.call(number % 9, "hanging-1", timeout).await, began.elapsed())
        });
    }
    while let Some(call) = within(calls.join_next()).await {
        let (answer, took) = call.expect("no panic");
        let status = answer.expect_err("nothing answers");
        assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "a request may take 200ms"));
        assert!(took >= Duration::from_millis(200), "{took:?}");
    }
    running.feel(Mood::Well).await;
    running.settles(tasks).await;
    let refused =
        running.metric("tiny_cache_requests_refused_total{", "\"timed_out\",transport=\"grpc\"").await;
    assert_eq!(refused, 90);
    let running = Arc::into_inner(running).expect("all calls are over");
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn no_more_calls_wait_for_a_store_that_hangs_than_there_are_places() {
    const PLACES: u64 = 20;
    const CLIENTS: u64 = 4;
    let running = Running::start_with(109, &format!("max_in_flight = {PLACES}")).await;
    let mut calls = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = connect(&running.grpc).await;
        for _ in 0..30 {
            let mut client = client.clone();
            calls.spawn(async move { client.get(CacheKey { key: "hanging-1".to_owned() }).await });
        }
    }
    // Those that are turned away hear of it while the others go on waiting.
    let hanging = || running.store.hanging.load(Ordering::SeqCst);
    let mut turned_away = 0;
    while calls.len() as u64 > hanging() || hanging() == 0 {
        let status = within(calls.join_next()).await.expect("one").expect("no panic").expect_err("no place");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().starts_with("too many requests in flight: at most 20"), "{status}");
        turned_away += 1;
    }
    assert!((PLACES / 2..=PLACES + CLIENTS).contains(&hanging()), "{} wait", hanging());
    assert_eq!(turned_away, CLIENTS * 30 - hanging());
    let refused = running
        .metric("tiny_cache_requests_refused_total{", "\"too_many_in_flight\",transport=\"grpc\"")
        .await;
    assert_eq!(refused, turned_away);
    // What works is served, and once the store does, those that waited are.
    assert!(running.call(0, "k", None).await.is_ok());
    running.feel(Mood::Well).await;
    while let Some(call) = within(calls.join_next()).await {
        call.expect("no panic").expect("an answer, late");
    }
    running.settles(usize::MAX).await;
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn a_client_that_gives_up_takes_its_calls_with_it() {
    let running = Arc::new(Running::start(103).await);
    running.call(0, "k", None).await.expect("well");
    let tasks = alive_tasks();
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let running = Arc::clone(&running);
        calls.spawn(async move { running.call(number % 8, "hanging-1", None).await });
    }
    within(async {
        while running.store.hanging.load(Ordering::SeqCst) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    calls.shutdown().await;
    running.settles(tasks).await;
    let running = Arc::into_inner(running).expect("all calls are over");
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn slow_answers_are_waited_for_side_by_side_and_hold_up_nobody() {
    let running = Arc::new(Running::start(104).await);
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let running = Arc::clone(&running);
        calls.spawn(async move { running.call(1, "slow-1", None).await });
    }
    assert!(running.call(0, "k", None).await.is_ok());
    while let Some(call) = within(calls.join_next()).await {
        call.expect("no panic").expect("an answer, late");
    }
    // One after another they would have taken ten seconds.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(running.call(0, "slow-1", None).await.expect("there").contains("found: true"));
}

#[tokio::test]
async fn probes_answer_while_a_store_hangs() {
    let running = Running::start(105).await;
    running.feel(Mood::Hanging).await;
    assert_eq!(running.fetch("/live").await.0, 200);
    for path in ["/ready", "/health", "/metrics", "/stats"] {
        let (status, body) = running.fetch(path).await;
        assert_eq!(status, 503, "{path}: {body}");
        assert!(body.contains("the store does not answer"), "{path}: {body}");
    }
    assert_eq!(running.fetch("/").await.0, 200);
    // The sampler has to see it first.
    within(async {
        while !running.fetch("/history").await.1.contains("the store does not answer") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // What works is served.
    running.call(1, "k", None).await.expect("set");
    assert!(running.call(0, "k", None).await.expect("get").contains("found: true"));
    running.feel(Mood::Well).await;
    for path in ["/ready", "/health", "/metrics", "/stats"] {
        assert_eq!(running.fetch(path).await.0, 200, "{path}");
    }
    running.settles(usize::MAX).await;
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[test]
fn probes_answer_while_every_thread_that_serves_is_kept() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
    let running = runtime.block_on(Running::start(113));
    let mut client = running.client.clone();
    let call = runtime.spawn(async move { client.get(CacheKey { key: "blocking-1".to_owned() }).await });
    let began = Instant::now();
    while running.store.hanging.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < PATIENCE, "the call should be there by now");
        thread::sleep(Duration::from_millis(1));
    }
    // Nothing here may wait for that thread.
    let ask = |path| {
        let mut stream = net::TcpStream::connect(&running.http)?;
        stream.set_read_timeout(Some(PATIENCE / 4))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        io::Result::Ok(head)
    };
    for path in ["/live", "/ready", "/health", "/metrics"] {
        assert_eq!(&ask(path).expect(path), b"HTTP/1.0 200", "{path}");
    }
    running.store.mood.send_replace(Mood::Well);
    runtime.block_on(call).expect("no panic").expect("an answer, late");
    assert_eq!(runtime.block_on(running.stop()).aborted_connections, 0);
}

#[tokio::test]
async fn a_sweep_that_hangs_is_the_only_one_whoever_gives_up_waiting() {
    let running = Running::start(106).await;
    running.feel(Mood::Hanging).await;
    for _ in 0..20 {
        let status = running.call(8, "", Some(Duration::from_millis(20))).await.expect_err("no figures");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    running.feel(Mood::Well).await;
    assert!(within(running.call(8, "", None)).await.is_ok());
    // Beside the sampler, which asks for figures once a second.
    let most = running.store.most_hanging.load(Ordering::SeqCst);
    assert!(most <= 2, "{most} threads were waiting");
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_a_store_that_hangs_no_longer_than_its_grace() {
    let running = Arc::new(Running::start(107).await);
    let call = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.call(0, "hanging-1", None).await }
    });
    within(async {
        while running.store.hanging.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    running.feel(Mood::Hanging).await;
    let began = Instant::now();
    running.shutdown.cancel();
    let status = within(call).await.expect("no panic").expect_err("cut off");
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
        "{status}"
    );
    let running = Arc::into_inner(running).expect("the call is over");
    let drained = within(running.server).await.expect("no panic");
    assert_eq!(drained.aborted_connections, 1);
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "{took:?}");
    // Whoever was cut off ends in a task of its own.
    within(async {
        while running.store.hanging.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_leaves_items_of_a_batch_unanswered_has_failed() {
    let running = Running::start(111).await;
    for method in 5..8 {
        let status = running.call(method, "unanswered", None).await.expect_err("nothing answers");
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
        assert!(status.message().starts_with("internal error, request_id="), "{method}: {status}");
    }
    assert_eq!(running.stop().await.aborted_connections, 0);
}

#[tokio::test]
async fn streams_that_last_take_no_places_of_requests_and_have_their_own_bound() {
    let running = Running::start_with(112, "max_in_flight = 8").await;
    let refused = async || {
        running
            .metric("tiny_cache_requests_refused_total{", "\"too_many_in_flight\",transport=\"grpc\"")
            .await
    };
    let (connection, origin) = open(&running.grpc).await;
    let watch = async || {
        let mut health = HealthClient::with_origin(connection.clone(), origin.clone());
        let mut stream = within(health.watch(HealthCheckRequest::default())).await?.into_inner();
        within(stream.message()).await?.expect("it goes on");
        Ok::<_, Status>(stream)
    };
    let mut watches = Vec::new();
    // A connection leaves as much as it holds.
    for _ in 0..4 {
        watches.push(watch().await.expect("there is a place"));
    }
    let status = watch().await.expect_err("that is all");
    assert_eq!((status.code(), refused().await), (Code::ResourceExhausted, 1), "{status}");
    assert_eq!(running.metric("tiny_cache_requests_in_flight{", "grpc").await, 0);
    let mut slow = JoinSet::new();
    for _ in 0..4 {
        let mut client = CacheServiceClient::with_origin(connection.clone(), origin.clone());
        slow.spawn(async move { client.get(CacheKey { key: "slow-1".to_owned() }).await });
    }
    while let Some(answer) = within(slow.join_next()).await {
        answer.expect("no panic").expect("there is a place");
    }

    // Reflection holds more, so it takes more places; but each connection may have one stream.
    let (connection, origin) = open(&running.grpc).await;
    let explore = async || {
        let mut reflection = ServerReflectionClient::with_origin(connection.clone(), origin.clone());
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { message_request, ..Default::default() };
        let (asking, no_more) = oneshot::channel::<()>();
        let requests = stream::iter([request]).chain(stream::pending()).take_until(no_more);
        let mut stream = within(reflection.server_reflection_info(requests)).await?.into_inner();
        within(stream.message()).await?.expect("it goes on");
        Ok::<_, Status>((asking, stream))
    };
    let first = explore().await.expect("the first one");
    let status = explore().await.expect_err("that is all");
    assert_eq!((status.code(), refused().await), (Code::ResourceExhausted, 2), "{status}");
    drop(first);
    let given_back = async {
        while explore().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(given_back).await;
    drop(watches);
    assert_eq!(running.stop().await.aborted_connections, 0);
}
