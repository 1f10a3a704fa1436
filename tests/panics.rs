//! A panic in a plug-in costs the caller who met it an `INTERNAL`, and nobody else anything.

use std::sync::Arc;

use engine::{
    Clock, CompareAndSet, Entry, Key, Limits, MemoryStore, MemoryStoreOptions, SetIfAbsent, Store,
    StoreFuture, StoreStats, Value,
};
use policies::PolicyEntry;
use tiny_cache::config::{EvictionConfig, Loader, Sources, StoreConfig};
use tiny_cache::proto::cache_service_client::CacheServiceClient;
use tiny_cache::proto::{CacheItem, CacheKey};
use tiny_cache::registry::StoreEntry;
use tiny_cache::server::Server;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

/// A memory store that loses its mind over one key.
struct Frail(MemoryStore);

impl Store for Frail {
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>> {
        assert!(key.name() != b"panic", "the store lost its mind");
        self.0.get(key)
    }
    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()> {
        self.0.set(entry)
    }
    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
        self.0.set_if_absent(entry)
    }
    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
        self.0.compare_and_set(expected, entry)
    }
    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool> {
        self.0.delete(key)
    }
    fn clear(&self) -> StoreFuture<'_, u64> {
        self.0.clear()
    }
    fn sweep(&self) -> StoreFuture<'_, u64> {
        self.0.sweep()
    }
    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.0.stats()
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

fn frail(
    _: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    _: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    let limits = Limits { max_items: Some(100), max_memory_bytes: 1 << 20, max_value_bytes: 1 << 10 };
    let factory = Arc::clone(&eviction.factory);
    let bytes = factory.bytes_per_entry();
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    Arc::new(Frail(MemoryStore::new(MemoryStoreOptions::new(limits, policy.name, bytes, build))))
}

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
    drop(client);
    stop.cancel();
    running.await.expect("the server drains");
}
