//! What can be chosen by name: stores and policies. An explicit table, extended through
//! [`Server::builder`](crate::server::Server::builder).

use std::sync::Arc;

use engine::{Clock, Limits, MemoryStore, MemoryStoreOptions, Store};
use policies::PolicyEntry;

use crate::config::{EvictionConfig, StoreConfig};
use crate::pace;

/// Makes a store for a checked configuration. The policy's entry is the configured one's.
pub type BuildStore = fn(&StoreConfig, &EvictionConfig, &PolicyEntry, Arc<dyn Clock>) -> Arc<dyn Store>;

/// A store's place in the table.
#[derive(Clone, Copy, Debug)]
pub struct StoreEntry {
    /// The name under `store.kind`.
    pub name: &'static str,
    /// One line on where entries live.
    pub summary: &'static str,
    /// Makes it.
    pub build: BuildStore,
}

/// The stores that come with tiny-cache.
pub const STORES: &[StoreEntry] = &[StoreEntry {
    name: "memory",
    summary: "entries in this process's memory, sharded",
    build: build_memory_store,
}];

/// Every store and policy that a configuration may name.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Stores, the built-in ones first.
    pub stores: Vec<StoreEntry>,
    /// Policies, the built-in ones first.
    pub policies: Vec<PolicyEntry>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { stores: STORES.to_vec(), policies: policies::REGISTRY.to_vec() }
    }
}

impl Registry {
    /// The store of this name.
    #[must_use]
    pub fn store(&self, name: &str) -> Option<&StoreEntry> {
        self.stores.iter().find(|entry| entry.name == name)
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&PolicyEntry> {
        self.policies.iter().find(|entry| entry.name == name)
    }

    /// The names of all stores.
    #[must_use]
    pub fn store_names(&self) -> Vec<&'static str> {
        self.stores.iter().map(|entry| entry.name).collect()
    }
}

fn build_memory_store(
    store: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Store> {
    Arc::new(memory_store(store, eviction, policy, clock))
}

/// The store in memory as it is configured, also for stores of one's own that put something around it.
#[must_use]
pub fn memory_store(
    store: &StoreConfig,
    eviction: &EvictionConfig,
    policy: &PolicyEntry,
    clock: Arc<dyn Clock>,
) -> MemoryStore {
    let limits = Limits {
        max_items: store.max_items,
        max_memory_bytes: store.max_memory_bytes,
        max_value_bytes: store.max_value_bytes,
    };
    let factory = Arc::clone(&eviction.factory);
    let bytes_per_entry = factory.bytes_per_entry(eviction.weigh_by);
    let build_policy = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    MemoryStore::new(MemoryStoreOptions {
        weigh_by: eviction.weigh_by,
        shards: store.shards,
        seed: eviction.seed,
        clock,
        run_blocking: pace::run_blocking,
        ..MemoryStoreOptions::new(limits, policy.name, bytes_per_entry, build_policy)
    })
}
