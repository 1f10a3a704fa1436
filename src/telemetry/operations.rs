//! What the service tells about each operation on a key once it has ended, at one place.
//!
//! [`Operations`] counts them, which costs a few nanoseconds and no allocation, and hands them to its listeners, where
//! there are any: an access log, the span of the request. When nobody listens, nothing is computed for them: no clock is
//! read and no key is hashed.
//!
//! A call on many keys tells one operation per key, and then a [`Batch`] with the totals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::striped::Striped;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Reads a value.
    Get,
    /// Stores a value.
    Set,
    /// Stores a value where there is none.
    SetIfAbsent,
    /// Replaces a value that is the expected one.
    CompareAndSet,
    /// Removes a key.
    Delete,
}

impl OperationKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] = [Self::Get, Self::Set, Self::SetIfAbsent, Self::CompareAndSet, Self::Delete];

    /// As metrics, spans and the access log write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::SetIfAbsent => "set_if_absent",
            Self::CompareAndSet => "compare_and_set",
            Self::Delete => "delete",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationResult {
    /// A live value was read.
    Hit,
    /// There was no live value to read.
    Miss,
    /// The value was stored.
    Stored,
    /// A live value was there, so nothing was stored.
    Exists,
    /// Another value than the expected one was there, so nothing was stored.
    Mismatch,
    /// A live value was removed.
    Deleted,
    /// There was no live value to remove or to compare with.
    NotFound,
    /// The store refused the value: too large, or no room to be made for it.
    Rejected,
    /// The key is none, so the store was not asked.
    Invalid,
    /// The store failed or did not answer.
    Error,
}

impl OperationResult {
    /// Every result there is.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Miss,
        Self::Stored,
        Self::Exists,
        Self::Mismatch,
        Self::Deleted,
        Self::NotFound,
        Self::Rejected,
        Self::Invalid,
        Self::Error,
    ];

    /// As metrics, spans and the access log write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stored => "stored",
            Self::Exists => "exists",
            Self::Mismatch => "mismatch",
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Invalid => "invalid",
            Self::Error => "error",
        }
    }
}

/// One operation on one key, ended.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What was asked for.
    pub kind: OperationKind,
    /// The checked namespace; empty for the shared keyspace.
    pub namespace: &'a str,
    /// The key as the caller sent it. Not a valid one where the result is [`OperationResult::Invalid`].
    pub key: &'a str,
    /// What came of it.
    pub result: OperationResult,
    /// Size of the value that was read, or that was to be stored.
    pub value_bytes: Option<u64>,
    /// The ttl of the value that was to be stored; `None` for one that never expires.
    pub ttl: Option<Duration>,
    /// How long the use-case took, all keys of a batch together. Only where a listener wants it.
    pub latency: Option<Duration>,
    /// Whether it is one of several of a call, which a [`Batch`] will sum up.
    pub in_batch: bool,
}

/// A call on many keys, summed up.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// What was asked for.
    pub kind: OperationKind,
    /// The checked namespace; empty for the shared keyspace.
    pub namespace: &'a str,
    /// Keys in all.
    pub keys: u64,
    /// How many came to which result, as in [`OperationResult::ALL`].
    pub results: [u64; OperationResult::ALL.len()],
    /// Sum of the sizes of all values.
    pub value_bytes: u64,
    /// How long the use-case took. Only where a listener wants it.
    pub latency: Option<Duration>,
}

impl Batch<'_> {
    /// How many keys came to this result.
    #[must_use]
    pub const fn count(&self, result: OperationResult) -> u64 {
        self.results[result as usize]
    }
}

/// Who wants to hear of operations. Called on the request's path: it must neither block nor panic.
pub trait OperationListener: Send + Sync {
    /// Whether it wants to hear of what begins now; asked when a call begins, so that the clock is read for those only
    /// that want it. Operations are told in any case.
    fn wants_latency(&self) -> bool {
        true
    }

    /// Whether it asks for the request's id: see [`request_scope`](super::request_scope).
    fn wants_request_id(&self) -> bool {
        false
    }

    /// An operation has ended.
    fn on_operation(&self, operation: &Operation<'_>);

    /// A call on many keys has ended, whose operations have been told.
    fn on_batch(&self, _batch: &Batch<'_>) {}
}

/// Which operations are counted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counting {
    /// None.
    Off,
    /// All of them by kind and result; and by namespace where any are listed: these by their names, the shared keyspace
    /// and all others each as one.
    On {
        /// The namespaces to tell apart.
        namespaces: Vec<String>,
    },
}

/// When a call began; `None` where nobody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Began(Option<Instant>);

impl Began {
    fn latency(self) -> Option<Duration> {
        self.0.map(|began| began.elapsed())
    }
}

/// Counts operations and hands them on.
pub struct Operations {
    counters: Option<Counters>,
    listeners: Vec<Box<dyn OperationListener>>,
    wants_request_id: bool,
}

impl Operations {
    /// Counts, with nobody else to hear of it yet.
    #[must_use]
    pub fn new(counting: Counting) -> Self {
        let counters = match counting {
            Counting::Off => None,
            Counting::On { namespaces } => Some(Counters::new(namespaces)),
        };
        Self { counters, listeners: Vec::new(), wants_request_id: false }
    }

    /// With one more listener.
    #[must_use]
    pub fn listening(mut self, listener: Box<dyn OperationListener>) -> Self {
        self.wants_request_id |= listener.wants_request_id();
        self.listeners.push(listener);
        self
    }

    /// Whether a transport is to say which request a thread is working on.
    #[must_use]
    pub const fn wants_request_id(&self) -> bool {
        self.wants_request_id
    }

    /// To be called before the store is asked.
    #[must_use]
    pub fn begin(&self) -> Began {
        let wanted = self.listeners.iter().any(|listener| listener.wants_latency());
        Began(wanted.then(Instant::now))
    }

    /// One operation that is not part of a batch. Sets its latency.
    pub fn tell(&self, began: Began, operation: Operation<'_>) {
        if let Some(counters) = &self.counters {
            counters.count(operation.namespace, operation.kind, operation.result);
        }
        if !self.listeners.is_empty() {
            let operation = Operation { latency: began.latency(), ..operation };
            self.listeners.iter().for_each(|listener| listener.on_operation(&operation));
        }
    }

    /// The operations of one call of this kind. Sets their latency, and that they are in a batch.
    pub fn tell_batch<'a>(
        &self,
        began: Began,
        kind: OperationKind,
        namespace: &'a str,
        operations: impl Iterator<Item = Operation<'a>>,
    ) {
        if self.counters.is_none() && self.listeners.is_empty() {
            return;
        }
        let latency = began.latency();
        let results = [0; OperationResult::ALL.len()];
        let mut batch = Batch { kind, namespace, keys: 0, results, value_bytes: 0, latency };
        for operation in operations {
            batch.keys += 1;
            batch.results[operation.result as usize] += 1;
            batch.value_bytes += operation.value_bytes.unwrap_or_default();
            if !self.listeners.is_empty() {
                let operation = Operation { latency, in_batch: true, ..operation };
                self.listeners.iter().for_each(|listener| listener.on_operation(&operation));
            }
        }
        if let Some(counters) = &self.counters {
            counters.count_batch(&batch);
        }
        self.listeners.iter().for_each(|listener| listener.on_batch(&batch));
    }

    /// Every operation counted so far. Nothing where counting is off.
    #[must_use]
    pub fn counts(&self) -> Vec<OperationCount> {
        self.counters.as_ref().map_or_else(Vec::new, Counters::read)
    }
}

/// How many operations of one kind came to one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationCount {
    /// What was asked for.
    pub kind: OperationKind,
    /// What came of it.
    pub result: OperationResult,
    /// Where; `None` where namespaces are not told apart.
    pub namespace: Option<String>,
    /// How many.
    pub count: u64,
}

/// The name that the shared keyspace is counted under.
pub const SHARED_NAMESPACE: &str = "default";

/// The name that namespaces which are not listed are counted under.
pub const OTHER_NAMESPACES: &str = "other";

const KINDS: usize = OperationKind::ALL.len();
const RESULTS: usize = OperationResult::ALL.len();

/// One counter per kind and result.
type Table = [[AtomicU64; RESULTS]; KINDS];

struct Counters {
    /// Sorted.
    listed: Box<[String]>,
    /// Per stripe: one table per listed namespace, then, where any is listed, that of the shared keyspace; the last one
    /// is for all others.
    tables: Striped<Box<[Table]>>,
}

impl Counters {
    fn new(mut namespaces: Vec<String>) -> Self {
        namespaces.sort_unstable();
        namespaces.dedup();
        let tables = if namespaces.is_empty() { 1 } else { namespaces.len() + 2 };
        Self {
            listed: namespaces.into_boxed_slice(),
            tables: Striped::new(|| std::iter::repeat_with(Table::default).take(tables).collect()),
        }
    }

    fn index(&self, namespace: &str) -> usize {
        match self.listed.len() {
            0 => 0,
            shared if namespace.is_empty() => shared,
            shared => {
                self.listed.binary_search_by(|listed| listed.as_str().cmp(namespace)).unwrap_or(shared + 1)
            }
        }
    }

    fn count(&self, namespace: &str, kind: OperationKind, result: OperationResult) {
        let table = &self.tables.mine()[self.index(namespace)];
        table[kind as usize][result as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_batch(&self, batch: &Batch<'_>) {
        let row = &self.tables.mine()[self.index(batch.namespace)][batch.kind as usize];
        for (counter, &count) in row.iter().zip(&batch.results) {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> Vec<OperationCount> {
        let mut names: Vec<Option<&str>> = self.listed.iter().map(|name| Some(name.as_str())).collect();
        if names.is_empty() {
            names.push(None);
        } else {
            names.extend([Some(SHARED_NAMESPACE), Some(OTHER_NAMESPACES)]);
        }
        let mut counts = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            for kind in OperationKind::ALL {
                for result in OperationResult::ALL {
                    let cells =
                        self.tables.iter().map(|tables| &tables[index][kind as usize][result as usize]);
                    let count = cells.map(|cell| cell.load(Ordering::Relaxed)).sum();
                    if count > 0 {
                        let namespace = name.map(str::to_owned);
                        counts.push(OperationCount { kind, result, namespace, count });
                    }
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn operation(namespace: &str, kind: OperationKind, result: OperationResult) -> Operation<'_> {
        Operation {
            kind,
            namespace,
            key: "k",
            result,
            value_bytes: Some(10),
            ttl: None,
            latency: None,
            in_batch: false,
        }
    }

    fn counted(operations: &Operations) -> Vec<(Option<String>, &'static str, &'static str, u64)> {
        let counts = operations.counts().into_iter();
        counts.map(|c| (c.namespace, c.kind.name(), c.result.name(), c.count)).collect()
    }

    #[test]
    fn names_and_places_agree() {
        for (place, kind) in OperationKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.name());
        }
        for (place, result) in OperationResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, place, "{}", result.name());
        }
    }

    #[test]
    fn operations_are_counted_by_kind_and_result() {
        let operations = Operations::new(Counting::On { namespaces: vec![] });
        for _ in 0..3 {
            let hit = operation("a", OperationKind::Get, OperationResult::Hit);
            operations.tell(operations.begin(), hit);
        }
        let batch = [OperationResult::Stored, OperationResult::Rejected, OperationResult::Stored];
        let batch = batch.map(|result| operation("", OperationKind::Set, result));
        operations.tell_batch(operations.begin(), OperationKind::Set, "", batch.into_iter());
        let expected = [(None, "get", "hit", 3), (None, "set", "stored", 2), (None, "set", "rejected", 1)];
        assert_eq!(counted(&operations), expected);
    }

    #[test]
    fn only_listed_namespaces_are_told_by_name() {
        let namespaces = ["b", "a", "b"].map(str::to_owned).to_vec();
        let operations = Operations::new(Counting::On { namespaces });
        for (namespace, times) in [("a", 1), ("b", 2), ("", 3), ("c", 4), ("default", 5)] {
            for _ in 0..times {
                let delete = operation(namespace, OperationKind::Delete, OperationResult::Deleted);
                operations.tell(operations.begin(), delete);
            }
        }
        let expected = [("a", 1), ("b", 2), (SHARED_NAMESPACE, 3), (OTHER_NAMESPACES, 9)]
            .map(|(name, count)| (Some(name.to_owned()), "delete", "deleted", count));
        assert_eq!(counted(&operations), expected);
    }

    #[test]
    fn nothing_is_counted_where_counting_is_off() {
        let operations = Operations::new(Counting::Off);
        operations.tell(operations.begin(), operation("", OperationKind::Get, OperationResult::Hit));
        assert_eq!(operations.counts(), []);
    }

    #[derive(Clone)]
    struct Recorder {
        wants_latency: bool,
        heard: Arc<Mutex<Vec<String>>>,
    }

    impl OperationListener for Recorder {
        fn wants_latency(&self) -> bool {
            self.wants_latency
        }

        fn on_operation(&self, operation: &Operation<'_>) {
            let Operation { kind, result, in_batch, .. } = operation;
            let timed = operation.latency.is_some();
            let text = format!("{} {} batch={in_batch} timed={timed}", kind.name(), result.name());
            self.heard.lock().expect("whole").push(text);
        }

        fn on_batch(&self, batch: &Batch<'_>) {
            let hits = batch.count(OperationResult::Hit);
            let text = format!("{} of {} hits, {} bytes", hits, batch.keys, batch.value_bytes);
            self.heard.lock().expect("whole").push(text);
        }
    }

    #[test]
    fn listeners_hear_each_key_and_then_the_batch() {
        for wants_latency in [false, true] {
            let recorder = Recorder { wants_latency, heard: Arc::default() };
            let operations = Operations::new(Counting::Off).listening(Box::new(recorder.clone()));
            operations.tell(operations.begin(), operation("", OperationKind::Get, OperationResult::Miss));
            let batch = [OperationResult::Hit, OperationResult::Miss]
                .map(|result| operation("", OperationKind::Get, result));
            operations.tell_batch(operations.begin(), OperationKind::Get, "", batch.into_iter());
            let expected = [
                format!("get miss batch=false timed={wants_latency}"),
                format!("get hit batch=true timed={wants_latency}"),
                format!("get miss batch=true timed={wants_latency}"),
                "1 of 2 hits, 20 bytes".to_owned(),
            ];
            assert_eq!(*recorder.heard.lock().expect("whole"), expected);
        }
    }
}
