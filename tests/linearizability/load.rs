//! A real server, and clients that use the same few keys all at once and write down what they see.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tiny_cache::config::{Loader, Sources};
use tiny_cache::proto::cache_service_client::CacheServiceClient;
use tiny_cache::proto::{
    CacheItem, CacheKey, CacheStats, CacheStatus, CompareAndSetRequest, ConditionalCacheStatus, Empty,
    MultiCacheItemRequest, MultiCacheKeyRequest,
};
use tiny_cache::registry::StoreEntry;
use tiny_cache::server::Server;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::history::{Event, NEVER, NOTHING, Operation, Value};

/// What is done to a server.
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// Operations of all clients, each key of a batch counted.
    pub(crate) operations: u64,
    /// Go on for so long at least.
    pub(crate) at_least: Duration,
    pub(crate) store: StoreEntry,
    pub(crate) policy: &'static str,
}

/// What came of it.
pub(crate) struct Recorded {
    /// By key.
    pub(crate) histories: HashMap<usize, Vec<Event>>,
    pub(crate) operations: u64,
    pub(crate) took: Duration,
    pub(crate) stats: CacheStats,
}

const CONNECTIONS: usize = 4;
const CLIENTS: usize = 24;
/// Half of all operations are on these.
const HOT_KEYS: usize = 16;
const KEYS: usize = 528;

/// Every other key is in a namespace, under the same name as its neighbour.
pub(crate) fn key_name(key: usize) -> (&'static str, String) {
    (["", "other"][key % 2], format!("key-{}", key / 2))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Runs the server and the clients to their end.
pub(crate) fn record(load: &Load) -> Recorded {
    let server = Server::builder().store(load.store);
    let registry = server.registry();
    let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
    let text = format!(
        "[store]\nkind = \"{}\"\nmax_items = 400\nmax_memory = \"8MiB\"\nshards = 4\nsweep_interval = \"1s\"\n\
         [eviction]\npolicy = \"{}\"\n[[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n",
        load.store.name, load.policy
    );
    let configured = loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration");
    let stop = CancellationToken::new();
    let runtime_of_server = runtime();
    let bound = {
        let _within = runtime_of_server.enter();
        server.bind(&configured.config).expect("bound")
    };
    let address = format!("http://{}", bound.addresses("grpc")[0]);
    let running = runtime_of_server.spawn(bound.run(stop.clone()));
    let recorded = runtime().block_on(clients(load, &address));
    stop.cancel();
    runtime_of_server.block_on(running).expect("the server drains");
    recorded
}

async fn clients(load: &Load, address: &str) -> Recorded {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address");
        channels.push(endpoint.connect().await.expect("connected"));
    }
    let began = Instant::now();
    let shared = Arc::new(Shared {
        began,
        last_value: AtomicU64::new(0),
        left: AtomicU64::new(load.operations),
        ends: began + load.at_least,
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let client = Client {
                id,
                random: fastrand::Rng::with_seed(load.seed << 8 | id as u64),
                stub: CacheServiceClient::new(channels[id % CONNECTIONS].clone())
                    .max_decoding_message_size(usize::MAX),
                shared: Arc::clone(&shared),
                seen: HashMap::new(),
                events: Vec::new(),
            };
            tokio::spawn(client.run())
        })
        .collect();
    let mut histories: HashMap<usize, Vec<Event>> = HashMap::new();
    let mut operations = 0;
    for client in clients {
        for (key, event) in client.await.expect("no client panics") {
            histories.entry(key).or_default().push(event);
            operations += 1;
        }
    }
    for history in histories.values_mut() {
        history.sort_by_key(|event| event.invoked);
    }
    let took = began.elapsed();
    let mut stub = CacheServiceClient::new(channels.swap_remove(0));
    let stats = stub.stats(Empty {}).await.expect("stats").into_inner();
    Recorded { histories, operations, took, stats }
}

struct Shared {
    began: Instant,
    last_value: AtomicU64,
    left: AtomicU64,
    ends: Instant,
}

struct Client {
    id: usize,
    random: fastrand::Rng,
    stub: CacheServiceClient<Channel>,
    shared: Arc<Shared>,
    /// The last value that it saw or wrote, by key: what it expects.
    seen: HashMap<usize, Value>,
    events: Vec<(usize, Event)>,
}

/// An operation in the making.
struct Begun {
    invoked: u64,
    ttl: Option<u64>,
}

impl Client {
    async fn run(mut self) -> Vec<(usize, Event)> {
        loop {
            let before = self.events.len();
            self.step().await;
            let done = (self.events.len() - before) as u64;
            let left = self
                .shared
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(done)));
            if left.is_ok_and(|left| left <= done) && Instant::now() >= self.shared.ends {
                return self.events;
            }
        }
    }

    /// One call.
    async fn step(&mut self) {
        let key = self.any_key();
        match self.random.u8(0..100) {
            0..28 => self.get(key).await,
            28..43 => self.set(key).await,
            43..52 => self.set_if_absent(key).await,
            52..70 => self.compare_and_set(key).await,
            70..76 => self.delete(key).await,
            76..88 => self.get_many().await,
            88..96 => self.set_many().await,
            96..99 => self.delete_many().await,
            // Sweeps as well.
            _ => drop(self.stub.stats(Empty {}).await.expect("stats")),
        }
    }

    fn any_key(&mut self) -> usize {
        if self.random.bool() { self.random.usize(..HOT_KEYS) } else { self.random.usize(HOT_KEYS..KEYS) }
    }

    /// Different ones, in one namespace: what a batch does to a key twice is in its order, which a history cannot say.
    fn any_keys(&mut self) -> Vec<usize> {
        let namespace = self.random.usize(..2);
        let mut keys: Vec<usize> = Vec::new();
        for _ in 0..self.random.usize(2..10) {
            let key = self.any_key() / 2 * 2 + namespace;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn new_value(&self) -> Value {
        self.shared.last_value.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn any_ttl(&mut self) -> i32 {
        *self.random.choice([0, 0, -1, 1, 1, 2]).as_ref().expect("there are some")
    }

    fn now(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_nanos()).expect("some centuries")
    }

    fn begin(&self, ttl: i32) -> Begun {
        let ttl = u64::try_from(ttl).ok().filter(|&ttl| ttl > 0).map(|seconds| seconds * 1_000_000_000);
        Begun { invoked: self.now(), ttl }
    }

    fn end(&mut self, begun: &Begun, key: usize, operation: Operation) {
        let responded = self.now();
        self.note(begun, responded, key, operation);
    }

    fn note(&mut self, &Begun { invoked, ttl }: &Begun, responded: u64, key: usize, operation: Operation) {
        let client = self.id;
        let ttl = ttl.filter(|_| operation.writes().is_some());
        if let Some(value) = operation.writes().or(operation.sees()).filter(|_| responded != NEVER) {
            self.seen.insert(key, value);
        }
        self.events.push((key, Event { invoked, responded, ttl, client, operation }));
    }

    /// What a failed write may have done.
    fn failed(&mut self, begun: &Begun, key: usize, operation: Operation, status: &Status) {
        if may_have_been_done(status) {
            self.note(begun, NEVER, key, operation);
        }
    }

    /// A request on one key. Now and then its caller has little patience.
    fn request<T>(&mut self, key: usize, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let (namespace, _) = key_name(key);
        if !namespace.is_empty() {
            request.metadata_mut().insert("x-cache-namespace", namespace.parse().expect("text"));
        }
        if self.random.u16(..400) == 0 {
            request.set_timeout(Duration::from_micros(self.random.u64(50..2000)));
        }
        request
    }

    async fn get(&mut self, key: usize) {
        let request = self.request(key, CacheKey { key: key_name(key).1 });
        let begun = self.begin(0);
        match self.stub.get(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let seen = if answer.found { decoded(&answer.value) } else { NOTHING };
                self.end(&begun, key, Operation::Get(seen));
            }
            // Whatever became of it, a read that tells nothing is none.
            Err(status) => _ = may_have_been_done(&status),
        }
    }

    async fn set(&mut self, key: usize) {
        let (value, ttl) = (self.new_value(), self.any_ttl());
        let item = CacheItem { key: key_name(key).1, value: encoded(value), ttl };
        let request = self.request(key, item);
        let begun = self.begin(ttl);
        match self.stub.set(request).await {
            Ok(_) => self.end(&begun, key, Operation::Set(value)),
            Err(status) => self.failed(&begun, key, Operation::Set(value), &status),
        }
    }

    async fn set_if_absent(&mut self, key: usize) {
        let (value, ttl) = (self.new_value(), self.any_ttl());
        let item = CacheItem { key: key_name(key).1, value: encoded(value), ttl };
        let request = self.request(key, item);
        let begun = self.begin(ttl);
        match self.stub.set_if_absent(request).await {
            Ok(answer) => {
                let operation = match answer.into_inner().status() {
                    ConditionalCacheStatus::Stored => Operation::SetIfAbsent(value),
                    ConditionalCacheStatus::Exists => Operation::Exists,
                    other => panic!("{other:?}"),
                };
                self.end(&begun, key, operation);
            }
            Err(status) => self.failed(&begun, key, Operation::SetIfAbsent(value), &status),
        }
    }

    async fn compare_and_set(&mut self, key: usize) {
        let Some(&expected) = self.seen.get(&key) else { return self.get(key).await };
        let (value, ttl) = (self.new_value(), self.any_ttl());
        let request = CompareAndSetRequest {
            key: key_name(key).1,
            expected_value: encoded(expected),
            value: encoded(value),
            ttl,
        };
        let request = self.request(key, request);
        let begun = self.begin(ttl);
        match self.stub.compare_and_set(request).await {
            Ok(answer) => {
                let operation = match answer.into_inner().status() {
                    ConditionalCacheStatus::Stored => Operation::CompareAndSet { expected, value },
                    ConditionalCacheStatus::Mismatch => Operation::Mismatch { expected },
                    ConditionalCacheStatus::NotFound => Operation::NotFound,
                    other => panic!("{other:?}"),
                };
                self.end(&begun, key, operation);
            }
            Err(status) => self.failed(&begun, key, Operation::CompareAndSet { expected, value }, &status),
        }
    }

    async fn delete(&mut self, key: usize) {
        let request = self.request(key, CacheKey { key: key_name(key).1 });
        let begun = self.begin(0);
        match self.stub.delete(request).await {
            Ok(_) => self.end(&begun, key, Operation::Delete),
            Err(status) => self.failed(&begun, key, Operation::Delete, &status),
        }
    }

    async fn get_many(&mut self) {
        let keys = self.any_keys();
        let names = keys.iter().map(|&key| key_name(key).1).collect();
        let request = self.request(keys[0], MultiCacheKeyRequest { keys: names });
        let begun = self.begin(0);
        match self.stub.multi_get(request).await {
            Ok(answer) => {
                let responded = self.now();
                for (key, item) in keys.into_iter().zip(answer.into_inner().items) {
                    assert!(item.error.is_empty(), "{}", item.error);
                    let seen = if item.found { decoded(&item.value) } else { NOTHING };
                    self.note(&begun, responded, key, Operation::Get(seen));
                }
            }
            Err(status) => _ = may_have_been_done(&status),
        }
    }

    async fn set_many(&mut self) {
        let keys = self.any_keys();
        let ttl = self.any_ttl();
        let values: Vec<Value> = keys.iter().map(|_| self.new_value()).collect();
        let item =
            |(&key, &value): (&usize, &Value)| CacheItem { key: key_name(key).1, value: encoded(value), ttl };
        let items = keys.iter().zip(&values).map(item).collect();
        let request = self.request(keys[0], MultiCacheItemRequest { items });
        let begun = self.begin(ttl);
        let answer = self.stub.multi_set(request).await;
        let responded = self.now();
        for (place, (key, value)) in keys.into_iter().zip(values).enumerate() {
            match &answer {
                Ok(answer) if answer.get_ref().items[place].status() == CacheStatus::Ok => {
                    self.note(&begun, responded, key, Operation::Set(value));
                }
                // It was refused.
                Ok(_) => {}
                Err(status) => self.failed(&begun, key, Operation::Set(value), status),
            }
        }
    }

    async fn delete_many(&mut self) {
        let keys = self.any_keys();
        let names = keys.iter().map(|&key| key_name(key).1).collect();
        let request = self.request(keys[0], MultiCacheKeyRequest { keys: names });
        let begun = self.begin(0);
        let answer = self.stub.multi_delete(request).await;
        let responded = self.now();
        for key in keys {
            match &answer {
                Ok(_) => self.note(&begun, responded, key, Operation::Delete),
                Err(status) => self.failed(&begun, key, Operation::Delete, status),
            }
        }
    }
}

/// Whether what failed may have been done all the same. No call may fail in any other way than by being refused, or by
/// its caller's patience.
fn may_have_been_done(status: &Status) -> bool {
    match status.code() {
        Code::ResourceExhausted => false,
        Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable => true,
        code => panic!("{code:?}: {}", status.message()),
    }
}

/// The bytes of a value: from a few, which lie in a cell, to what has a mapping of its own. The same ones each time.
fn encoded(value: Value) -> Bytes {
    let len = match value % 1000 {
        0 => 150_000,
        1..20 => 20_000,
        20..100 => 2_000,
        small => 8 + usize::try_from(small % 120).expect("small"),
    };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(len, bytes[0]);
    bytes.into()
}

/// The value that has these bytes, all of them; [`NEVER`] where none has.
fn decoded(bytes: &Bytes) -> Value {
    let value = bytes.first_chunk().map_or(NEVER, |first| Value::from_le_bytes(*first));
    if value != NEVER && encoded(value) == bytes { value } else { NEVER }
}

/// Does all of it at the same time: the more there is to do, the more often are threads interrupted.
pub(crate) fn in_parallel<T: Sync, R: Send>(all: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let each = &each;
    thread::scope(|scope| {
        let running: Vec<_> = all.iter().map(|one| scope.spawn(move || each(one))).collect();
        running.into_iter().map(|one| one.join().expect("it has told why")).collect()
    })
}
