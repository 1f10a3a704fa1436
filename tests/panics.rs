//! A panic in a plug-in costs the caller who met it an `INTERNAL`, and nobody else anything.

mod support;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use engine::{
    Clock, Entry, EvictionPolicy, Gauge, Item, Key, Limits, MemoryStore, MemoryStoreOptions, Slot, Store,
    Verdict,
};
use http_body_util::{BodyExt, Empty as NoBody};
use hyper_util::rt::TokioIo;
use policies::{OptionDoc, Policy, PolicyEntry};
use serde::{Deserialize, Serialize};
use support::one_by_one::OneByOne;
use tiny_cache::config::{EvictionConfig, Loader, Sources, StoreConfig};
use tiny_cache::proto::cache_service_client::CacheServiceClient;
use tiny_cache::proto::{CacheItem, CacheKey, Empty, MultiCacheItemRequest, MultiCacheKeyRequest};
use tiny_cache::registry::{StoreEntry, memory_store};
use tiny_cache::server::Server;
use tiny_cache::service::CacheService;
use tiny_cache::telemetry::panics::install_hook;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

fn frail(
    _: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    _: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let limits = Limits { max_items: Some(100), max_memory_bytes: 1 << 20, max_value_bytes: 1 << 10 };
    let factory = Arc::clone(&eviction.factory);
    let bytes = factory.bytes_per_entry(engine::WeighBy::Items);
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let store = MemoryStore::new(MemoryStoreOptions::new(limits, policy.name, bytes, build));
    let before_get = |key: &Key<'_>| assert!(key.name() != b"panic", "the store lost its mind");
    let tidy = || {
        let before = TIDIED.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "the store would rather not");
        before < 3
    };
    Arc::new(OneByOne { store: Arc::new(store), before_get, tidy })
}

/// How often the frail store was asked to tidy up.
static TIDIED: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_panic_is_internal_to_its_caller_and_the_server_goes_on() {
    let server = Server::builder().store(StoreEntry { name: "frail", summary: "panics", build: frail });
    let registry = server.registry();
    let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
    let text =
        "[store]\nkind = \"frail\"\n[[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let configured = loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration");
    let bound = server.bind(&configured.config).expect("bound");
    let address = bound.addresses("grpc")[0].to_string();
    let stop = CancellationToken::new();
    let running = tokio::spawn(bound.run(stop.clone()));

    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = CacheServiceClient::new(endpoint.connect().await.expect("connected"));
    for round in 0..3 {
        let key = format!("k{round}");
        client.set(CacheItem { key: key.clone(), value: b"v".to_vec().into(), ttl: 0 }).await.expect("set");

        let mut request = Request::new(CacheKey { key: "panic".to_owned() });
        request.metadata_mut().insert("x-request-id", "mine-7".parse().expect("text"));
        let status = client.get(request).await.expect_err("the store panics");
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("request_id=mine-7"), "{}", status.message());
        assert!(!status.message().contains("mind"), "no inner text reaches a caller: {}", status.message());

        // The same connection, and the same store.
        assert!(client.get(CacheKey { key }).await.expect("get").into_inner().found);
    }

    // It is asked again after a panic, and after that for as long as there is something to do.
    let tidied = async {
        while TIDIED.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), tidied).await.expect("the store was asked to tidy up");
    drop(client);
    stop.cancel();
    running.await.expect("the server drains");
}

/// Keys of which not all slots are kept once they are deleted, in four shards as well.
const MANY: u64 = 24_000;

/// The calls of a policy that can panic.
const CALLS: [&str; 15] = [
    "new",
    "insert",
    "hit",
    "hit_all",
    "update",
    "remove",
    "evict",
    "admit",
    "shed",
    "relocate",
    "trim",
    "gauges",
    "next_victim",
    "drop",
    "resize",
];

/// Those that are for tests and simulations. The server makes none of them, so it meets no panic of theirs.
const NEVER_CALLED: [&str; 3] = ["len", "footprint_bytes", "check_invariants"];

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct TrapOptions {
    /// The call that panics.
    call: String,
    /// Each so many times.
    every: u64,
    /// How many policies have been made with these.
    #[serde(skip)]
    made: Arc<AtomicU64>,
}

/// First in, first out, until it panics.
struct Trap {
    queue: Vec<Slot>,
    options: TrapOptions,
    calls: Mutex<u64>,
}

impl Trap {
    fn step(&self, call: &str) {
        let TrapOptions { call: trapped, every, .. } = &self.options;
        if call == trapped {
            let mut calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *calls += 1;
            if calls.is_multiple_of(*every) {
                let number = SPRUNG.fetch_add(1, Ordering::Relaxed);
                panic!("the trap is in {call}, number {number}");
            }
        }
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        // Only where it does not end the process, and not at the end of each test.
        if !std::thread::panicking() && self.options.call == "drop" && !self.queue.is_empty() {
            self.step("drop");
        }
    }
}

impl Policy for Trap {
    const NAME: &'static str = "trap";
    const SUMMARY: &'static str = "panics";
    const PAPER: &'static str = "none";
    const OPTIONS: &'static [OptionDoc] = &[
        OptionDoc { name: "call", allowed: "a call", meaning: "where it panics" },
        OptionDoc { name: "every", allowed: "a number", meaning: "how often" },
    ];
    const BYTES_PER_ENTRY: usize = 4;
    type Options = TrapOptions;

    fn new(_capacity: u64, _seed: u64, options: &TrapOptions) -> Self {
        // The first ones begin with the store; later ones take the place of one that panicked, or find themselves in
        // that one's trap.
        let made = options.made.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(options.call != "new" || made <= 4 || made.is_multiple_of(2), "the trap is in new");
        Self { queue: Vec::new(), options: options.clone(), calls: Mutex::default() }
    }
}

impl EvictionPolicy for Trap {
    fn admit(&mut self, _incoming: &Item) -> bool {
        self.step("admit");
        true
    }
    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.step(if self.options.call == "new" { "new" } else { "insert" });
        self.queue.push(slot);
        // Half done is what it may be, too.
        self.step("drop");
    }
    fn hit(&mut self, _slot: Slot) {
        self.step("hit");
    }
    fn hit_all(&mut self, slots: &[Slot]) {
        self.step("hit_all");
        for &slot in slots {
            self.hit(slot);
        }
    }
    fn update(&mut self, _slot: Slot, _item: &Item) {
        self.step("update");
    }
    fn remove(&mut self, slot: Slot) {
        let is_first = self.queue.first() == Some(&slot);
        let place = if is_first { Some(0) } else { self.queue.iter().rposition(|&queued| queued == slot) };
        self.queue.remove(place.expect("resident"));
        self.step("remove");
    }
    fn evict(&mut self, _incoming: &Item) -> Verdict {
        self.step("evict");
        Verdict::Evict(self.queue.remove(0))
    }
    fn next_victim(&self) -> Option<Slot> {
        self.step("next_victim");
        self.queue.first().copied()
    }
    fn relocate(&mut self, from: Slot, to: Slot) {
        let place = self.queue.iter().position(|&queued| queued == from).expect("resident");
        self.queue[place] = to;
        self.step("relocate");
    }
    fn trim(&mut self, _slots: usize) {
        self.step("trim");
    }
    fn resize(&mut self, _capacity: u64) {
        self.step("resize");
    }
    fn sheds_on_hit(&self) -> bool {
        self.options.call == "shed"
    }
    fn shed(&mut self) -> Option<Slot> {
        self.step("shed");
        None
    }
    fn gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        self.step("gauges");
        visit(Gauge::count("queued_entries", self.queue.len() as u64));
    }
    fn len(&self) -> usize {
        self.step("len");
        self.queue.len()
    }
    fn footprint_bytes(&self) -> usize {
        self.step("footprint_bytes");
        self.queue.capacity() * 4
    }
    fn check_invariants(&self) {
        self.step("check_invariants");
    }
}

/// How often traps have panicked.
static SPRUNG: AtomicU64 = AtomicU64::new(0);

/// Every log line of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        install_hook();
        log
    })
}

/// The stores that were made, to look into.
static STORES: Mutex<Vec<Arc<MemoryStore>>> = Mutex::new(Vec::new());

fn watched(
    store: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let store = Arc::new(memory_store(store, eviction, policy, clock));
    STORES.lock().expect("whole").push(Arc::clone(&store));
    store
}

async fn http(address: &str, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "test").body(NoBody::<bytes::Bytes>::new());
    let response = sender.send_request(request.expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn figure(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// The number of the panic that a line tells.
fn number(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(", number ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()
}

/// Uses a cache in every way; how many calls failed, which they may with INTERNAL only.
async fn use_it(client: &mut CacheServiceClient<Channel>, call: &str) -> usize {
    let mut failed = 0;
    let mut count = |answer: Result<(), Status>| {
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::Internal, "{}", status.message());
            assert!(
                !status.message().contains("trap"),
                "no inner text reaches a caller: {}",
                status.message()
            );
            failed += 1;
        }
    };
    if ["relocate", "trim"].contains(&call) {
        let mut keys: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
        let items = keys.iter().map(|key| CacheItem { key: key.clone(), ..CacheItem::default() }).collect();
        count(client.multi_set(MultiCacheItemRequest { items }).await.map(drop));
        // Where those go first that came last, nobody has to move.
        if call == "trim" {
            keys.reverse();
        }
        count(client.multi_delete(MultiCacheKeyRequest { keys }).await.map(drop));
    }
    for round in 0..70 {
        let key = format!("k{}", round % 50);
        let item = CacheItem { key: key.clone(), value: vec![b'v'; 10 + round].into(), ttl: 0 };
        count(client.set(item.clone()).await.map(drop));
        count(client.get(CacheKey { key: key.clone() }).await.map(drop));
        if round % 5 == 0 {
            count(client.delete(CacheKey { key: key.clone() }).await.map(drop));
            count(client.stats(Empty {}).await.map(drop));
            count(client.multi_set(MultiCacheItemRequest { items: vec![item; 2] }).await.map(drop));
            count(client.multi_get(MultiCacheKeyRequest { keys: vec![key; 2] }).await.map(drop));
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_panics_costs_its_shard_and_nothing_else() {
    let log = log();
    for (call, shards) in CALLS.iter().chain(&NEVER_CALLED).flat_map(|call| [(*call, 1), (*call, 4)]) {
        let (max_items, every) = match call {
            "relocate" | "trim" => (MANY, 1),
            "resize" | "len" | "footprint_bytes" | "check_invariants" => (40, 1),
            // Each shard has a policy that counts for itself.
            _ => (40, if shards == 1 { 7 } else { 2 }),
        };
        let server = Server::builder().policy(PolicyEntry::of::<Trap>()).store(StoreEntry {
            name: "watched",
            summary: "a memory store",
            build: watched,
        });
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = format!(
            "[store]\nkind = \"watched\"\nmax_items = {max_items}\nmax_memory = \"16MiB\"\nshards = {shards}\n\
             [eviction]\npolicy = \"trap\"\n[eviction.trap]\ncall = \"{call}\"\nevery = {every}\n\
             [[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n\
             [[transport]]\nkind = \"http\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let configured = loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration");
        let bound = server.bind(&configured.config).expect("bound");
        let grpc = bound.addresses("grpc")[0].to_string();
        let web = bound.addresses("http")[0].to_string();
        let stop = CancellationToken::new();
        let running = tokio::spawn(bound.run(stop.clone()));
        let store = STORES.lock().expect("whole").pop().expect("it was made");
        log.0.lock().expect("whole").clear();

        let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
        let mut client = CacheServiceClient::new(endpoint.connect().await.expect("connected"));
        let failed = use_it(&mut client, call).await;
        // Limits that change have the policy evict and resize. Whatever it does, they are in force.
        let service = CacheService::new(Arc::clone(&store) as Arc<dyn Store>);
        for max_items in [Some(10), Some(30), Some(8), Some(40)] {
            let limits = Limits { max_items, ..store.limits() };
            service.set_limits(limits).await.unwrap_or_else(|error| panic!("{call}: {error}"));
            assert_eq!(store.limits(), limits);
            let entries = service.counters().await.expect("counters").counters.entries;
            assert!(entries <= max_items.expect("limited"), "{call}, {shards} shards: {entries}");
        }
        if call == "resize" {
            for number in 0..400 {
                let key = format!("more{number}");
                client.set(CacheItem { key, ..CacheItem::default() }).await.expect("only changes panic");
            }
            assert_eq!(service.counters().await.expect("counters").counters.entries, 40, "{shards} shards");
        }
        let mut statuses = Vec::new();
        let mut metrics = String::new();
        for _ in 0..8 {
            let (status, body) = http(&web, "/metrics").await;
            statuses.push(status);
            metrics = body;
        }
        assert_eq!(statuses, [200; 8], "{call}, {shards} shards");
        assert_eq!(http(&web, "/ready").await.0, 200, "{call}, {shards} shards");

        // Nothing has drifted: what is charged is what is there, and all room can be had again.
        for _ in 0..3 {
            let recovering = AssertUnwindSafe(|| store.recover());
            assert!(catch_unwind(recovering).is_ok() || call == "drop", "{call}, {shards} shards");
        }
        let checking = AssertUnwindSafe(|| store.check_invariants());
        assert!(catch_unwind(checking).is_ok() || NEVER_CALLED.contains(&call), "{call}, {shards} shards");
        let recoveries = figure(&metrics, "tiny_cache_shard_recoveries_total");
        let lines = log.0.lock().expect("whole").clone();
        let lines = String::from_utf8(lines).expect("text");
        let told = lines
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains(&format!("the trap is in {call}")));
        // By whoever meets it first, and by nobody else: each has a number of its own.
        let mut numbers: Vec<&str> = told.clone().filter_map(|line| number(line)).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{call}: told twice: {lines}");
        assert!(told.clone().all(|line| line.contains("location=\"tests/panics.rs:")), "{lines}");
        let named = told.clone().filter(|line| line.contains("policy=\"trap\"")).count();
        match call {
            // Nobody was told more than that the entries are gone, since nothing was changed.
            "gauges" => {
                assert_eq!((failed, recoveries), (0, 0.0), "{call}, {shards} shards");
                assert!(told.count() > 0, "{lines}");
            }
            call if NEVER_CALLED.contains(&call) => {
                assert_eq!((failed, recoveries), (0, 0.0), "{call}, {shards} shards");
            }
            // The recovery panics, and the next one does not.
            "new" => {
                assert!(failed > 0 && recoveries > 0.0, "{call}, {shards} shards: {failed}, {recoveries}");
                let told_again = told.filter(|line| line.contains("again=\"the trap is in new\"")).count();
                assert!(told_again > 0, "{call}: {lines}");
            }
            // No request has it called.
            "resize" => {
                assert!(failed == 0 && recoveries > 0.0 && named > 0, "{call}: {recoveries}, {lines}");
            }
            _ => {
                assert!(failed > 0 && recoveries > 0.0, "{call}, {shards} shards: {failed}, {recoveries}");
                assert!(named > 0, "{call}: {lines}");
            }
        }
        stop.cancel();
        drop(client);
        running.await.expect("the server drains");
        // Its policies end in a panic or not; this test need not.
        std::mem::forget(store);
    }
}

/// What threads do to a store with a policy that panics, of which some calls panic.
fn use_store(store: &MemoryStore, seed: u64, values: &[usize]) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut panics = 0;
    for _ in 0..4000 {
        let name = [random.u8(..)];
        let key = Key::shared(&name).expect("short");
        let value = vec![0; random.choice(values).copied().expect("some")];
        let entry = Entry { key, value: &value, ttl: random.bool().then_some(Duration::from_millis(1)) };
        let called = AssertUnwindSafe(|| match random.u8(..10) {
            0..4 => drop(store.set(entry)),
            4..7 => drop(store.get(key)),
            7 => drop(store.delete(key)),
            8 => drop(store.sweep()),
            _ => drop(store.set_many(&[entry, entry])),
        });
        panics += u64::from(catch_unwind(called).is_err());
    }
    panics
}

#[test]
fn however_often_a_policy_panics_no_room_is_lost() {
    for call in CALLS.into_iter().filter(|call| !["gauges", "resize", "relocate", "trim"].contains(call)) {
        let limits = Limits { max_items: Some(100), max_memory_bytes: 1 << 20, max_value_bytes: 1 << 20 };
        let made = Arc::<AtomicU64>::default();
        let build = Arc::new(move |_, _| {
            let options = TrapOptions { call: call.to_owned(), every: 5, made: Arc::clone(&made) };
            Box::new(Trap::new(0, 0, &options)) as Box<dyn EvictionPolicy>
        });
        let options =
            MemoryStoreOptions { shards: Some(4), ..MemoryStoreOptions::new(limits, "trap", 4, build) };
        let store = MemoryStore::new(options);
        // Some are larger than what a shard has, so that others must give way.
        let values = [10, 1000, 30_000, 400_000, 900_000];
        let mut panics = 0;
        // How often calls are made that few lead to, depends on how threads take turns.
        for seed in (1..).step_by(2).take(20) {
            panics += std::thread::scope(|scope| {
                let using = [seed, seed + 1].map(|seed| {
                    scope.spawn({
                        let store = &store;
                        move || use_store(store, seed, &values)
                    })
                });
                using.into_iter().map(|thread| thread.join().expect("caught")).sum::<u64>()
            });
            if panics >= 5 && store.recoveries() >= 5 {
                break;
            }
        }
        while catch_unwind(AssertUnwindSafe(|| store.recover())).is_err() {}
        store.check_invariants();
        assert!(panics >= 5 && store.recoveries() >= 5, "{call}: {panics}, {}", store.recoveries());
        std::mem::forget(store);
    }
}
