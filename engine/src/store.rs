//! The store contract: where entries live.
//!
//! The memory store answers at once; a store across a network answers later, or not at all. Both
//! speak this trait, so that everything above is written once and handles a slow or failing store
//! from the start.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::key::Key;
use crate::policy::Gauge;
use crate::value::Value;

/// An entry to write. Borrowed: the store copies what it keeps, so that no stored value holds a
/// network buffer alive.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Under which key.
    pub key: Key<'a>,
    /// The bytes to keep.
    pub value: &'a [u8],
    /// How long it lives from now; `None`: for good. Expired once its age reaches this.
    pub ttl: Option<Duration>,
}

/// What [`Store::set_if_absent`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIfAbsent {
    /// The key was missing or expired; the value is stored.
    Stored,
    /// A live value was there and still is.
    Exists,
}

/// What [`Store::compare_and_set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareAndSet {
    /// The live value equalled the expected one and was replaced.
    Stored,
    /// No live value under this key.
    NotFound,
    /// The live value differs; nothing has changed.
    Mismatch,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The value is over the per-value limit. What was stored before still is.
    #[error("value too large: {size} bytes, at most {limit} are allowed")]
    ValueTooLarge {
        /// The value's size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// No eviction can make room. What was stored before still is.
    #[error("capacity exhausted: no eviction makes room for {needed} bytes within {limit}")]
    CapacityExhausted {
        /// What the entry would cost in bytes.
        needed: u64,
        /// The memory limit in bytes.
        limit: u64,
    },
    /// The store does not answer now; trying again later may help.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The store cannot do this at all.
    #[error("not supported by this store: {0}")]
    Unsupported(&'static str),
    /// The store failed in a way that trying again does not mend.
    #[error("store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// What a store answers, now or later.
///
/// The ready form costs no allocation, which is what makes one object-safe trait affordable for
/// memory and network alike.
#[must_use = "futures do nothing unless polled"]
pub enum StoreFuture<'a, T> {
    /// The answer is here. `None` once it was taken.
    Ready(Option<Result<T, StoreError>>),
    /// The answer comes later.
    Pending(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>),
}

impl<'a, T> StoreFuture<'a, T> {
    /// An answer that is already here.
    pub const fn ready(result: Result<T, StoreError>) -> Self {
        Self::Ready(Some(result))
    }

    /// An answer that comes later.
    pub fn pending(future: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Self {
        Self::Pending(Box::pin(future))
    }
}

impl<T: Unpin> Future for StoreFuture<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(result) => Poll::Ready(result.take().expect("polled after it was ready")),
            Self::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

/// Limits of a store, for operators and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries; `None`: no limit of its own.
    pub max_items: Option<u64>,
    /// Bytes charged to all entries together.
    pub max_memory_bytes: u64,
    /// Bytes of one value.
    pub max_value_bytes: u64,
}

/// Counters since the start, and what is resident now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Resident entries, expired ones that no sweep has met yet included.
    pub entries: u64,
    /// Bytes charged to resident entries: keys, values and bookkeeping.
    pub memory_bytes: u64,
    /// Reads that found a live entry.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Entries removed for room.
    pub evictions: u64,
    /// Entries removed for age.
    pub expired: u64,
    /// Writes refused because the value is over the per-value limit.
    pub rejected_oversize: u64,
    /// Writes refused because no eviction could make room.
    pub rejected_capacity: u64,
    /// Newcomers that the policy turned away. The write succeeded; the entry left at once.
    pub rejected_admission: u64,
    /// Entries whose value was replaced by another write.
    pub replaced: u64,
    /// Live entries that were deleted.
    pub deleted: u64,
    /// Entries that left with everything else: by [`Store::clear`], or since their shard failed.
    pub cleared: u64,
    /// Those of `expired` that a sweep removed, and no access to their key.
    pub swept: u64,
    /// Those of `memory_bytes` that are keys, namespaces included.
    pub key_bytes: u64,
    /// Those of `memory_bytes` that are values. What is left is overhead.
    pub value_bytes: u64,
    /// The largest part of `memory_bytes` in one shard.
    pub largest_shard_bytes: u64,
    /// How often a shard was emptied since its policy had panicked.
    pub recoveries: u64,
}

/// A snapshot of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Counters and gauges.
    pub counters: Counters,
    /// The limits in force.
    pub limits: Limits,
    /// Name of the eviction policy; empty where the store has none of ours.
    pub policy: &'static str,
    /// Name of the store.
    pub store: &'static str,
    /// Number of shards.
    pub shards: usize,
}

/// What a store knows about its insides, beside [`StoreStats`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Insight {
    /// Entries that have expired and that neither an access nor a sweep has removed yet. The memory
    /// store counts at most 1024 in each shard.
    pub sweep_backlog: u64,
    /// What the policy tells about itself, over all shards.
    pub policy: Vec<Gauge>,
}

/// What a panic has cost a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Parts of the store that lost their entries since the last time that somebody asked.
    pub emptied_shards: u64,
    /// The policy that has panicked, if any has.
    pub policy: &'static str,
}

/// An entry that was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionSample {
    /// Time since its value was stored.
    pub age: Duration,
    /// Time since it was last read, or stored if it never was.
    pub idle: Duration,
}

/// Evictions since the last time that somebody took them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// A fair sample of them.
    pub samples: Vec<EvictionSample>,
    /// Sampled ones that are not in `samples`, since there were too many to keep.
    pub left_out: u64,
}

/// One result per key or entry of a batch, in the order of the request.
pub type Batch<T> = Vec<Result<T, StoreError>>;

/// Where entries live.
///
/// Every operation on one key is atomic: concurrent operations on it behave as if they had run one
/// after another. A batch is not atomic as a whole; operations on the same key within it happen in
/// its order. A store never answers with another key's value.
///
/// The batch methods exist because a remote store answers a hundred keys in one round trip. Their defaults are loops.
pub trait Store: Send + Sync {
    /// The live value of a key, counted as a hit or a miss.
    fn get<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, Option<Value>>;

    /// Stores a value, replacing what was there.
    fn set<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, ()>;

    /// Stores a value where no live one is.
    fn set_if_absent<'a>(&'a self, entry: Entry<'a>) -> StoreFuture<'a, SetIfAbsent>;

    /// Replaces a live value that equals `expected` byte for byte; the new ttl applies.
    fn compare_and_set<'a>(&'a self, expected: &'a [u8], entry: Entry<'a>) -> StoreFuture<'a, CompareAndSet>;

    /// Removes a key; whether a live value was there.
    fn delete<'a>(&'a self, key: Key<'a>) -> StoreFuture<'a, bool>;

    /// [`get`](Self::get) for many keys: the first at least, and the others for as long as the values that were found before
    /// have fewer than `max_bytes` together. What is left out was not read. A store that cannot stop earlier answers all.
    fn get_many<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        max_bytes: usize,
    ) -> StoreFuture<'a, Batch<Option<Value>>> {
        StoreFuture::pending(async move {
            let mut results = Vec::with_capacity(keys.len());
            let mut bytes = 0;
            for &key in keys {
                let result = self.get(key).await;
                if let Ok(Some(value)) = &result {
                    bytes += value.len();
                }
                results.push(result);
                if bytes >= max_bytes {
                    break;
                }
            }
            Ok(results)
        })
    }

    /// [`set`](Self::set) for many entries.
    fn set_many<'a>(&'a self, entries: &'a [Entry<'a>]) -> StoreFuture<'a, Batch<()>> {
        StoreFuture::pending(async move {
            let mut results = Vec::with_capacity(entries.len());
            for &entry in entries {
                results.push(self.set(entry).await);
            }
            Ok(results)
        })
    }

    /// [`delete`](Self::delete) for many keys.
    fn delete_many<'a>(&'a self, keys: &'a [Key<'a>]) -> StoreFuture<'a, Batch<bool>> {
        StoreFuture::pending(async move {
            let mut results = Vec::with_capacity(keys.len());
            for &key in keys {
                results.push(self.delete(key).await);
            }
            Ok(results)
        })
    }

    /// Removes everything; how many entries went.
    fn clear(&self) -> StoreFuture<'_, u64>;

    /// Removes what has expired; how many entries went.
    fn sweep(&self) -> StoreFuture<'_, u64>;

    /// Does one step of what makes the store faster and can wait: some milliseconds that the calling thread is blocked for, and no
    /// request is. Whether it was worth it, and so whether there may be more.
    fn tidy(&self) -> bool {
        false
    }

    /// Counters, limits and names. Does not sweep.
    fn stats(&self) -> StoreFuture<'_, StoreStats>;

    /// What the store knows about its insides. Nothing where it does not tell. Never waits for another process.
    fn insight(&self) -> Insight {
        Insight::default()
    }

    /// Takes the sample of what was evicted since the last call. Each eviction is told once, at the most. Never waits
    /// for another process.
    fn take_evictions(&self) -> Evictions {
        Evictions::default()
    }

    /// Mends at once what a panic in a call may have left behind. For who has caught it, and would tell what it has cost.
    fn recover(&self) -> Recovery {
        Recovery::default()
    }

    /// The limits in force, known without asking.
    fn limits(&self) -> Limits;

    /// Changes the limits while the store is in use; how many entries had to go.
    ///
    /// New limits hold for every write that begins after this was called, and [`limits`](Self::limits) tells them at
    /// once. Where less is allowed than is resident, entries are evicted until it fits, a few at a time so that requests
    /// are not kept waiting; when that is done, so is this. It may block the calling thread until then. An error that
    /// is [`StoreError::Unsupported`] has changed nothing.
    fn set_limits(&self, limits: Limits) -> StoreFuture<'_, u64> {
        let _ = limits;
        StoreFuture::ready(Err(StoreError::Unsupported("its limits cannot be changed while it runs")))
    }
}
