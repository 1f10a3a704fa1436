//! The use-cases, once for all transports: what a key, a namespace and a batch may be, and what
//! each call comes to.

mod batches;
mod keys;
mod panics;
mod told;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use engine::{CompareAndSet, Entry, Insight, Key, Limits, SetIfAbsent, Store, StoreError, StoreStats, Value};

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use self::batches::{FIRST_KEYS, all_of, bounded, give_up, merge, next_slice, some_of, split};
use self::keys::RefusedKeys;
use self::told::{result_at, told, told_many, told_write};
use crate::line;
use crate::pace::{self, SLICE_BYTES};
use crate::striped::Striped;
use crate::telemetry::metrics::StoreMetrics;
use crate::telemetry::operations::{Counting, OperationKind, Operations};
use crate::telemetry::panics::caught;

pub(crate) use self::batches::SLICE_KEYS;
pub use self::keys::{KeyRefusal, MAX_KEY_CHARS, Namespace};

/// Why a call failed, in terms that each transport maps to its own codes.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The caller's mistake; the text says which.
    #[error("{0}")]
    InvalidArgument(String),
    /// The values asked for are more than there is room for.
    #[error("the answer is too large")]
    AnswerTooLarge,
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A ttl as it comes over the wire: seconds, and zero or less for "never expires".
#[must_use]
pub fn ttl_from_seconds(seconds: i32) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

/// One entry of a batch of writes.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The caller's key, not yet checked.
    pub key: &'a str,
    /// The bytes to store.
    pub value: &'a [u8],
    /// See [`ttl_from_seconds`].
    pub ttl: Option<Duration>,
}

/// The result for one item of a batch.
pub type ItemResult<T> = Result<T, ServiceError>;

/// The cache as its transports see it.
pub struct CacheService {
    store: Arc<dyn Store>,
    operations: Operations,
    started: Instant,
    /// Begun less ended: only their sum over all stripes means anything.
    active_requests: Striped<AtomicU64>,
    refused_messages: AtomicU64,
    refused_keys: RefusedKeys,
    draining: AtomicBool,
    /// Where sweeps and evictions are recorded, if anywhere.
    store_metrics: OnceLock<Arc<StoreMetrics>>,
    /// One sweep at a time, or callers of Stats could have as many threads as they like.
    sweeping: Arc<Mutex<()>>,
}

impl CacheService {
    /// A service over this store, up since now, that counts its operations.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::observed(store, Operations::new(Counting::On { namespaces: Vec::new() }))
    }

    /// A service over this store, up since now, that tells `operations` what it does.
    #[must_use]
    pub fn observed(store: Arc<dyn Store>, operations: Operations) -> Self {
        Self {
            store,
            operations,
            started: Instant::now(),
            active_requests: Striped::new(AtomicU64::default),
            refused_messages: AtomicU64::new(0),
            refused_keys: RefusedKeys::default(),
            draining: AtomicBool::new(false),
            store_metrics: OnceLock::new(),
            sweeping: Arc::default(),
        }
    }

    /// The live value of a key.
    pub async fn get(&self, namespace: Namespace<'_>, key: &str) -> Result<Option<Value>, ServiceError> {
        let began = self.operations.begin();
        let result = match self.key(namespace, key) {
            Ok(key) => self.store.get(key).await.map_err(ServiceError::Store),
            Err(error) => Err(error),
        };
        self.operations.tell(began, told(OperationKind::Get, namespace, key, result.as_ref()));
        result
    }

    /// Stores a value, replacing what was there.
    pub async fn set(&self, namespace: Namespace<'_>, item: Item<'_>) -> Result<(), ServiceError> {
        let began = self.operations.begin();
        let result = match self.entry(namespace, &item) {
            Ok(entry) => self.store.set(entry).await.map_err(ServiceError::Store),
            Err(error) => Err(error),
        };
        self.operations.tell(began, told_write(OperationKind::Set, namespace, item, result.as_ref()));
        result
    }

    /// Stores a value where no live one is.
    pub async fn set_if_absent(
        &self,
        namespace: Namespace<'_>,
        item: Item<'_>,
    ) -> Result<SetIfAbsent, ServiceError> {
        let began = self.operations.begin();
        let result = match self.entry(namespace, &item) {
            Ok(entry) => self.store.set_if_absent(entry).await.map_err(ServiceError::Store),
            Err(error) => Err(error),
        };
        self.operations.tell(began, told_write(OperationKind::SetIfAbsent, namespace, item, result.as_ref()));
        result
    }

    /// Replaces a live value that equals `expected`.
    pub async fn compare_and_set(
        &self,
        namespace: Namespace<'_>,
        expected: &[u8],
        item: Item<'_>,
    ) -> Result<CompareAndSet, ServiceError> {
        let began = self.operations.begin();
        let result = match self.entry(namespace, &item) {
            Ok(entry) => self.store.compare_and_set(expected, entry).await.map_err(ServiceError::Store),
            Err(error) => Err(error),
        };
        self.operations
            .tell(began, told_write(OperationKind::CompareAndSet, namespace, item, result.as_ref()));
        result
    }

    /// Removes a key; whether a live value was there.
    pub async fn delete(&self, namespace: Namespace<'_>, key: &str) -> Result<bool, ServiceError> {
        let began = self.operations.begin();
        let result = match self.key(namespace, key) {
            Ok(key) => self.store.delete(key).await.map_err(ServiceError::Store),
            Err(error) => Err(error),
        };
        self.operations.tell(began, told(OperationKind::Delete, namespace, key, result.as_ref()));
        result
    }

    /// The live values of many keys, one result per key in order; a bad key fails alone. As values come, `has_room` is
    /// asked whether there is room for so many more bytes; all of it fails where there is none.
    pub async fn get_many(
        &self,
        namespace: Namespace<'_>,
        keys: &[&str],
        has_room: impl FnMut(usize) -> bool,
    ) -> Result<Vec<ItemResult<Option<Value>>>, ServiceError> {
        let began = self.operations.begin();
        let (valid, refused) = split(keys.iter().map(|key| self.key(namespace, key))).await;
        let results = match self.get_valid(&valid, has_room).await {
            Ok(answers) => Ok(merge(refused, answers).await),
            Err(error) => Err(error),
        };
        pace::pause(keys.len()).await;
        let told = told_many(OperationKind::Get, namespace, keys, &results);
        self.operations.tell_batch(began, OperationKind::Get, namespace.0, told);
        results
    }

    /// Stores many values, one result per item in order; a bad item fails alone.
    pub async fn set_many<'a>(
        &self,
        namespace: Namespace<'a>,
        items: impl Iterator<Item = Item<'a>> + Clone,
    ) -> Result<Vec<ItemResult<()>>, ServiceError> {
        let began = self.operations.begin();
        let (valid, refused) = split(items.clone().map(|item| self.entry(namespace, &item))).await;
        let mut answers = Vec::with_capacity(valid.len());
        let results = loop {
            let Some(slice) = next_slice(&valid, &answers).await else {
                break Ok(merge(refused, answers).await);
            };
            let slice = bounded(slice, |entry| entry.value.len());
            match self.store.set_many(slice).await.and_then(|more| all_of(slice, more)) {
                Ok(more) => answers.extend(more),
                Err(error) => break Err(error.into()),
            }
        };
        pace::pause(valid.len()).await;
        let told = items
            .enumerate()
            .map(|(place, item)| told_write(OperationKind::Set, namespace, item, result_at(&results, place)));
        self.operations.tell_batch(began, OperationKind::Set, namespace.0, told);
        results
    }

    /// Removes many keys, one result per key in order; a bad key fails alone.
    pub async fn delete_many(
        &self,
        namespace: Namespace<'_>,
        keys: &[&str],
    ) -> Result<Vec<ItemResult<bool>>, ServiceError> {
        let began = self.operations.begin();
        let (valid, refused) = split(keys.iter().map(|key| self.key(namespace, key))).await;
        let mut answers = Vec::with_capacity(valid.len());
        let results = loop {
            let Some(slice) = next_slice(&valid, &answers).await else {
                break Ok(merge(refused, answers).await);
            };
            match self.store.delete_many(slice).await.and_then(|more| all_of(slice, more)) {
                Ok(more) => answers.extend(more),
                Err(error) => break Err(error.into()),
            }
        };
        pace::pause(keys.len()).await;
        let told = told_many(OperationKind::Delete, namespace, keys, &results);
        self.operations.tell_batch(began, OperationKind::Delete, namespace.0, told);
        results
    }

    /// The storage key of a caller's key.
    fn key<'a>(&self, namespace: Namespace<'a>, name: &'a str) -> Result<Key<'a>, ServiceError> {
        namespace.key(name).map_err(|refusal| self.refused_keys.count(refusal, namespace))
    }

    fn entry<'a>(&self, namespace: Namespace<'a>, item: &Item<'a>) -> Result<Entry<'a>, ServiceError> {
        Ok(Entry { key: self.key(namespace, item.key)?, value: item.value, ttl: item.ttl })
    }

    async fn get_valid(
        &self,
        keys: &[Key<'_>],
        mut has_room: impl FnMut(usize) -> bool,
    ) -> Result<engine::Batch<Option<Value>>, ServiceError> {
        let mut answers: engine::Batch<Option<Value>> = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        // Since others had their turn.
        let (mut slice_keys, mut slice_bytes) = (0, 0);
        while answers.len() < keys.len() {
            if slice_keys >= SLICE_KEYS || slice_bytes >= SLICE_BYTES {
                line::rest().await;
                (slice_keys, slice_bytes) = (0, 0);
            }
            let rest = &keys[answers.len()..];
            // How large values are shows only when they are there, and a store that reads all it is asked for may have to
            // hold them all.
            let mean = bytes / answers.len().max(1);
            let count = if answers.is_empty() { FIRST_KEYS } else { SLICE_BYTES / mean.max(1) };
            let count = count.clamp(1, SLICE_KEYS).min(rest.len());
            let slice = &rest[..count];
            let more = some_of(slice, self.store.get_many(slice, SLICE_BYTES).await?)?;
            let values = more.iter().filter_map(|answer| answer.as_ref().ok()?.as_ref());
            let more_bytes: usize = values.map(|value| value.len()).sum();
            (slice_keys, slice_bytes) = (slice_keys + more.len(), slice_bytes + more_bytes);
            answers.extend(more);
            bytes += more_bytes;
            if !has_room(more_bytes) {
                give_up(answers).await;
                return Err(ServiceError::AnswerTooLarge);
            }
        }
        Ok(answers)
    }

    /// What became of operations so far.
    #[must_use]
    pub const fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Removes what has expired, on a thread of its own: removing a million entries takes longer than the requests that
    /// share a worker with the caller should wait for their turn. Needs a tokio runtime.
    pub async fn sweep(&self) -> Result<u64, ServiceError> {
        let one_at_a_time = Arc::clone(&self.sweeping).lock_owned().await;
        let began = Instant::now();
        let (store, runtime) = (Arc::clone(&self.store), Handle::current());
        let sweeping = spawn_blocking(move || {
            // A caller who gives up leaves the thread behind: it is the sweep that must be the only one.
            let _one_at_a_time = one_at_a_time;
            caught(|| runtime.block_on(async { store.sweep().await }))
        });
        let removed = match sweeping.await {
            Ok(Ok(removed)) => removed?,
            // Whoever has asked for the sweep knows what to tell of it.
            Ok(Err(panic)) => panic.resume(),
            Err(ended) => return Err(StoreError::Failed(ended.into()).into()),
        };
        if let Some(metrics) = self.store_metrics.get() {
            metrics.swept(began.elapsed());
        }
        self.record_evictions();
        Ok(removed)
    }

    /// One step of what makes the store faster and no request waits for, on a thread of its own. Whether there may be more.
    pub(crate) async fn own_tidy(self: &Arc<Self>) -> bool {
        let service = Arc::clone(self);
        let tidied = spawn_blocking(move || service.unbroken_now("tidying up", || service.store.tidy()));
        tidied.await.unwrap_or(false)
    }

    /// Says where sweeps and evictions are recorded from now on. Only the first call counts.
    pub fn record_in(&self, metrics: Arc<StoreMetrics>) {
        self.store_metrics.get_or_init(|| metrics);
    }

    /// Records what was evicted since the last time.
    pub fn record_evictions(&self) {
        if let Some(metrics) = self.store_metrics.get() {
            metrics.evicted(&self.unbroken_now("a reading of evictions", || self.store.take_evictions()));
        }
    }

    /// What the store knows about its insides.
    #[must_use]
    pub fn insight(&self) -> Insight {
        self.unbroken_now("a reading of the store's insides", || self.store.insight())
    }

    /// Removes what has expired, then reads counters and gauges: only live entries count.
    pub async fn stats(&self) -> Result<StoreStats, ServiceError> {
        self.sweep().await?;
        self.counters().await
    }

    /// Counters and gauges as they are, without a sweep.
    pub async fn counters(&self) -> Result<StoreStats, ServiceError> {
        Ok(self.with_refused_messages(self.store.stats().await?))
    }

    /// The same for the server's own figures, whose reader has to go on whatever happens.
    pub(crate) async fn own_counters(&self) -> Result<StoreStats, ServiceError> {
        let stats = self.unbroken("a reading of counters", || self.store.stats()).await?;
        Ok(self.with_refused_messages(stats))
    }

    fn with_refused_messages(&self, mut stats: StoreStats) -> StoreStats {
        stats.counters.rejected_oversize += self.refused_messages.load(Ordering::Relaxed);
        stats
    }

    /// Counts a write whose message was too large to be read at all.
    pub fn count_refused_message(&self) {
        self.refused_messages.fetch_add(1, Ordering::Relaxed);
    }

    /// How many keys were no keys for this reason, each key of a batch by itself.
    pub fn refused_keys(&self, reason: KeyRefusal) -> u64 {
        self.refused_keys.total(reason)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.store.limits()
    }

    /// Changes the limits while the cache is in use; how many entries had to go. See [`Store::set_limits`], which may
    /// block for as long as that takes.
    pub async fn set_limits(&self, limits: Limits) -> Result<u64, ServiceError> {
        match self.unbroken("a change of the limits", || self.store.set_limits(limits)).await {
            // Its panic has cost entries at the most: what was asked for is done.
            Err(_) if self.has_limits(limits) => Ok(0),
            answer => Ok(answer?),
        }
    }

    /// Whether these limits are in force. The one for a value may have been lowered to what can be kept.
    fn has_limits(&self, wanted: Limits) -> bool {
        let Limits { max_items, max_memory_bytes, max_value_bytes } = self.limits();
        (max_items, max_memory_bytes) == (wanted.max_items, wanted.max_memory_bytes)
            && max_value_bytes <= wanted.max_value_bytes
    }

    /// Time since the service was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// gRPC requests in flight.
    #[must_use]
    pub fn active_requests(&self) -> u64 {
        let active = self.active_requests.iter().map(|active| active.load(Ordering::Relaxed));
        // A request may end on another thread than it began, and between two of these reads.
        let active = active.fold(0, u64::wrapping_add);
        if i64::try_from(active).is_ok() { active } else { 0 }
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says that a shutdown has begun. There is no way back.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// A request in flight for as long as this is there, with what it needs at hand.
pub struct ActiveRequest<T>(T)
where
    T: Deref<Target: AsRef<CacheService>>;

impl<T: Deref<Target: AsRef<CacheService>>> ActiveRequest<T> {
    /// A request has begun.
    pub fn begin(with: T) -> Self {
        with.as_ref().active_requests.mine().fetch_add(1, Ordering::Relaxed);
        Self(with)
    }
}

impl AsRef<Self> for CacheService {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T: Deref<Target: AsRef<CacheService>>> Deref for ActiveRequest<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Deref<Target: AsRef<CacheService>>> Drop for ActiveRequest<T> {
    fn drop(&mut self) {
        self.0.as_ref().active_requests.mine().fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use engine::SystemClock;
    use futures_util::FutureExt;

    use super::*;
    use crate::config::{Loader, Sources};
    use crate::registry::Registry;

    /// Over the default store.
    fn service() -> CacheService {
        let registry = Registry::default();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let config = loader.load(&Sources::nothing()).expect("the defaults are good").config;
        let policy = registry.policy(&config.eviction.policy).expect("the default is registered");
        let build = registry.store(&config.store.kind).expect("the default is registered").build;
        let store = build(&config.store, &config.eviction, policy, Arc::new(SystemClock::default()));
        CacheService::new(store)
    }

    #[test]
    fn refused_items_of_a_batch_keep_their_places() {
        for places in ["", "x", "1", "x12x3xx4x", "12x", "xx1", "123"] {
            let item = |place: char| match place.to_digit(10) {
                Some(number) => Ok(number),
                None => Err(ServiceError::InvalidArgument("x".to_owned())),
            };
            let (valid, refused) = split(places.chars().map(item)).now_or_never().expect("few");
            let merged = merge(refused, valid.into_iter().map(Ok).collect()).now_or_never();
            let texts = merged.expect("few").into_iter();
            let texts = texts.map(|result| result.map_or_else(|error| error.to_string(), |n| n.to_string()));
            assert_eq!(texts.collect::<String>(), places);
        }
    }

    #[test]
    fn others_have_their_turn_while_the_results_of_a_large_batch_are_put_together() {
        let to_refuse = |place| (place, ServiceError::InvalidArgument(String::new()));
        for (refused, answers) in [(0, 10_000), (10_000, 0), (1, 10_000)] {
            let answers = std::iter::repeat_with(|| Ok(())).take(answers).collect();
            let merging = merge((0..refused).map(to_refuse).collect(), answers);
            assert!(merging.now_or_never().is_none(), "{refused} are refused");
        }
    }

    #[tokio::test]
    async fn a_batch_of_reads_asks_for_room_after_each_slice_of_bytes_whatever_came_before() {
        const LARGE_BYTES: usize = 128 << 10;
        let service = service();
        let none = Namespace::default();
        for (key, value) in [("small", &b"s"[..]), ("large", &vec![0; LARGE_BYTES])] {
            service.set(none, Item { key, value, ttl: None }).await.expect("there is room");
        }
        let keys = [["small"; FIRST_KEYS].as_slice(), &["large"; SLICE_KEYS]].concat();
        let mut asked = Vec::new();
        let has_room = |bytes| {
            asked.push(bytes);
            true
        };
        let found = service.get_many(none, &keys, has_room).await.expect("there is room");
        let lengths = found.into_iter().map(|value| value.expect("read").expect("it is there").len());
        assert!(lengths.eq(keys.iter().map(|key| if *key == "small" { 1 } else { LARGE_BYTES })));
        let most = asked.into_iter().max().expect("it asked");
        assert!(most < SLICE_BYTES + LARGE_BYTES, "{most} bytes at once");
    }

    #[test]
    fn a_slice_ends_where_it_has_its_bytes() {
        const THIRD: usize = SLICE_BYTES / 3;
        for (bytes, len) in [
            (&[][..], 0),
            (&[1, 1, 1], 3),
            (&[SLICE_BYTES, 1], 1),
            (&[2 * SLICE_BYTES, 1], 1),
            (&[SLICE_BYTES - 1, 2 * SLICE_BYTES, 1], 2),
            (&[THIRD; 9], 4),
        ] {
            assert_eq!(bounded(bytes, |&bytes| bytes).len(), len, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn large_values_are_written_in_slices() {
        const VALUE_BYTES: usize = 64 << 10;
        let service = service();
        let value = vec![0; VALUE_BYTES];
        let keys: Vec<String> = (0..16).map(|number| number.to_string()).collect();
        let items = keys.iter().map(|key| Item { key, value: &value, ttl: None });
        let mut writing = pin!(service.set_many(Namespace::default(), items));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut turns_of_others = 0;
        let results = loop {
            match writing.as_mut().poll(cx) {
                Poll::Ready(results) => break results.expect("there is room"),
                Poll::Pending => turns_of_others += 1,
            }
        };
        assert!(results.len() == keys.len() && results.iter().all(Result::is_ok));
        assert_eq!(turns_of_others, keys.len() * VALUE_BYTES / SLICE_BYTES - 1);
    }

    #[tokio::test]
    async fn what_was_read_for_nothing_is_given_back_in_slices() {
        const VALUE_BYTES: usize = 64 << 10;
        let service = service();
        let none = Namespace::default();
        let stored = service.set(none, Item { key: "key", value: &vec![0; VALUE_BYTES], ttl: None }).await;
        stored.expect("there is room");
        let room = Cell::new(8 * SLICE_BYTES);
        let has_room = |bytes| {
            room.set(room.get().saturating_sub(bytes));
            room.get() > 0
        };
        let mut reading = pin!(service.get_many(none, &["key"; 1000], has_room));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut turns_of_others = 0;
        let error = loop {
            match reading.as_mut().poll(cx) {
                Poll::Ready(result) => break result.err(),
                Poll::Pending => turns_of_others += usize::from(room.get() == 0),
            }
        };
        assert!(matches!(error, Some(ServiceError::AnswerTooLarge)));
        assert_eq!(turns_of_others, 8);
    }

    #[test]
    fn zero_and_negative_ttls_never_expire() {
        assert_eq!(ttl_from_seconds(0), None);
        assert_eq!(ttl_from_seconds(-1), None);
        assert_eq!(ttl_from_seconds(i32::MIN), None);
        assert_eq!(ttl_from_seconds(1), Some(Duration::from_secs(1)));
        assert_eq!(ttl_from_seconds(i32::MAX), Some(Duration::from_secs(2_147_483_647)));
    }
}
