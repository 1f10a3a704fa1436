//! The core of tiny-cache: what a store and an eviction policy are, and the in-memory store.
//!
//! - [`Store`] — where entries live. [`MemoryStore`] is the one in this crate.
//! - [`EvictionPolicy`] — which entry goes. None in this crate: they live in `policies`.
//! - [`Directory`] — slots, charges, budget and policy without the entries: what the
//!   memory store's shards and the simulator have in common.
//!
//! **Architecture invariant.** This crate knows no tokio, no serde, no telemetry and no policy.

mod chunk;
mod clock;
mod cpu;
mod directory;
mod expiry;
mod frames;
mod heap;
mod index;
mod key;
mod lock;
mod memory;
mod policy;
mod secret;
mod slots;
mod store;
mod sync;
mod table;
mod tagged;
mod value;
mod zone;

pub use clock::{Clock, ManualClock, SystemClock};
pub use cpu::prefetch_one;
pub use directory::{Bounds, Budget, Directory, Entries, Insertion, Interrupted, Newcomer, Update, WeighBy};
pub use expiry::{Expired, ExpiryWheel};
pub use heap::give_back_heap;
pub use key::{HashSeed, Key, MAX_NAME_BYTES, MAX_NAMESPACE_BYTES};
pub use memory::{BuildPolicy, MemoryStore, MemoryStoreOptions, RunBlocking};
pub use policy::{EvictionPolicy, Gauge, Item, OverShards, Slot, Verdict};
pub use secret::ChainSecret;
pub use store::{
    Batch, CompareAndSet, Counters, Entry, EvictionSample, Evictions, Insight, Limits, Recovery, SetIfAbsent,
    Store, StoreError, StoreFuture, StoreStats,
};
pub use table::Table;
pub use tagged::TaggedDirectory;
pub use value::Value;
