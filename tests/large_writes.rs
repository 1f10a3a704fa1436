//! A write that tens of thousands of entries have to leave for keeps nobody else waiting, though one thread serves all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use engine::{EvictionPolicy, Item, Slot, Verdict};
use policies::structures::{SlotLinks, SlotList};
use policies::{NoOptions, OptionDoc, Policy, PolicyEntry};
use tiny_cache::config::{Loader, Sources};
use tiny_cache::proto::cache_service_client::CacheServiceClient;
use tiny_cache::proto::{CacheItem, CacheKey, MultiCacheItemRequest};
use tiny_cache::server::Server;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Small entries, of which most have to leave for a value that takes seven eighths of the memory.
const ENTRIES: u64 = 40_000;
const ENTRY_BYTES: usize = 140;
const LARGE_BYTES: usize = 7 << 20;

/// The write stops in the middle of them, until somebody else has been answered.
const HALF: u64 = ENTRIES / 2;
const PATIENCE: Duration = Duration::from_secs(10);

/// How many entries have been evicted since the start of a round.
static EVICTED: AtomicU64 = AtomicU64::new(0);
static IS_ANSWERED: Mutex<bool> = Mutex::new(false);
static ANSWERED: Condvar = Condvar::new();

/// First in, first out.
#[derive(Default)]
struct Stopping {
    links: SlotLinks,
    list: SlotList,
}

impl Policy for Stopping {
    const NAME: &'static str = "stopping";
    const SUMMARY: &'static str = "first in, first out, and stops in between";
    const PAPER: &'static str = "folklore";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 8;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Stopping {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.list.relocate(&mut self.links, from, to);
    }
    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
    }
    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.list.push_front(&mut self.links, slot);
    }
    fn hit(&mut self, _slot: Slot) {}
    fn remove(&mut self, slot: Slot) {
        self.list.remove(&mut self.links, slot);
    }
    fn evict(&mut self, _incoming: &Item) -> Verdict {
        if EVICTED.fetch_add(1, Ordering::SeqCst) + 1 == HALF {
            let is_answered = IS_ANSWERED.lock().expect("no panic");
            let waited = ANSWERED.wait_timeout_while(is_answered, PATIENCE, |is_answered| !*is_answered);
            *waited.expect("no panic").0 = false;
        }
        Verdict::Evict(self.list.pop_back(&mut self.links).expect("evict needs a resident entry"))
    }
    fn resize(&mut self, _capacity: u64) {}
    fn len(&self) -> usize {
        self.list.len()
    }
    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
    }
    fn check_invariants(&self) {
        self.list.check_invariants(&self.links);
    }
}

async fn connect(address: &str) -> CacheServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    CacheServiceClient::new(endpoint.connect().await.expect("connected"))
}

/// Whether a call was answered while a large value was being made room for.
async fn is_answered_meanwhile(address: &str) -> bool {
    let mut client = connect(address).await;
    let keys: Vec<u64> = (0..ENTRIES).collect();
    for keys in keys.chunks(1000) {
        let value = vec![0; ENTRY_BYTES];
        let item = |key: &u64| CacheItem { key: format!("k{key:05}"), value: value.clone().into(), ttl: 0 };
        let items = keys.iter().map(item).collect();
        client.multi_set(MultiCacheItemRequest { items }).await.expect("there is room");
    }
    assert_eq!(EVICTED.swap(0, Ordering::SeqCst), 0, "all of them are there");

    let mut writer = connect(address).await;
    let item = CacheItem { key: "large".to_owned(), value: vec![0; LARGE_BYTES].into(), ttl: 0 };
    let writing = tokio::spawn(async move { writer.set(item).await });
    while EVICTED.load(Ordering::SeqCst) < HALF {
        assert!(!writing.is_finished(), "it is over before so many have left");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Refused before the store is asked, of which the write holds a lock just now.
    let refused = client.get(CacheKey::default()).await.expect_err("it is no key");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let is_meanwhile = EVICTED.load(Ordering::SeqCst) == HALF;
    *IS_ANSWERED.lock().expect("no panic") = is_meanwhile;
    ANSWERED.notify_one();
    writing.await.expect("no panic").expect("there is room");
    let evicted = EVICTED.swap(0, Ordering::SeqCst);
    assert!(evicted > HALF, "{evicted} had to leave");
    is_meanwhile
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}

#[test]
fn others_are_answered_while_a_write_evicts_tens_of_thousands() {
    // One evicts in steps; of four the others give up room at once.
    for shards in [1, 4] {
        let server = Server::builder().policy(PolicyEntry::of::<Stopping>());
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = format!(
            "[store]\nmax_items = \"unlimited\"\nmax_memory = \"8MiB\"\nshards = {shards}\n\
             [eviction]\npolicy = \"stopping\"\n\
             [[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let configured = loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration");
        let (serving, asking) = (runtime(), runtime());
        let bound = serving.block_on(async { server.bind(&configured.config) }).expect("bound");
        let address = bound.addresses("grpc")[0].to_string();
        let stop = CancellationToken::new();
        let running = serving.spawn(bound.run(stop.clone()));
        let is_answered = asking.block_on(is_answered_meanwhile(&address));
        assert!(is_answered, "{shards} shards: the write kept the thread");
        stop.cancel();
        serving.block_on(running).expect("the server drains");
    }
}
