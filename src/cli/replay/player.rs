//! Plays records: workers that take the next one from the traces and wait for its answers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use simulator::trace::{Operation, Trace, TraceOptions};
use tonic::transport::Channel;

use super::report::Tally;
use crate::cli::client::Connection;
use crate::cli::error::CliError;
use crate::proto::cache_service_client::CacheServiceClient;
use crate::proto::{CacheItem, CacheKey};

/// The first few errors are told in words, all are counted.
const ERRORS_TOLD: usize = 5;

/// How large the values are that a miss stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueSize {
    /// All the same.
    Bytes(usize),
    /// As the trace says.
    Trace,
}

/// What the workers share.
pub(super) struct Shared {
    pub(super) value_size: ValueSize,
    pub(super) ttl: i32,
    pub(super) max_errors: u64,
    /// Set to end the replay after the requests in flight.
    pub(super) stop: AtomicBool,
    pub(super) requests: AtomicU64,
    pub(super) hits: AtomicU64,
    errors: AtomicU64,
    told: Mutex<Vec<String>>,
    records: Mutex<Records>,
}

/// One request to play.
struct Record {
    key: String,
    size_bytes: Option<u32>,
    operation: Operation,
}

/// The traces one after the other, up to the limit.
pub(super) struct Records {
    files: std::vec::IntoIter<PathBuf>,
    options: TraceOptions,
    value_size: ValueSize,
    current: Option<Trace>,
    remaining: u64,
    consumed: Arc<AtomicU64>,
    failure: Option<CliError>,
}

impl Records {
    /// Opens the first file at once, so that a wrong path is told before anything is played.
    pub(super) fn open(
        files: Vec<PathBuf>,
        options: TraceOptions,
        value_size: ValueSize,
        limit: Option<u64>,
        consumed: Arc<AtomicU64>,
    ) -> Result<Self, CliError> {
        let remaining = limit.unwrap_or(u64::MAX);
        let files = files.into_iter();
        let mut records =
            Self { files, options, value_size, current: None, remaining, consumed, failure: None };
        records.open_next()?;
        Ok(records)
    }

    /// Moves to the next file; whether there was one.
    fn open_next(&mut self) -> Result<bool, CliError> {
        let Some(path) = self.files.next() else { return Ok(false) };
        let trace = Trace::open(&path, &self.options, Arc::clone(&self.consumed))?;
        if self.value_size == ValueSize::Trace && !trace.has_sizes() {
            let name = trace.name();
            return Err(CliError::Usage(format!("{name}: the trace has no sizes for --value-size trace")));
        }
        self.current = Some(trace);
        Ok(true)
    }

    fn next(&mut self) -> Option<Record> {
        if self.remaining == 0 || self.failure.is_some() {
            return None;
        }
        loop {
            let opened = match self.current.as_mut()?.read() {
                Ok(Some(request)) => {
                    self.remaining -= 1;
                    return Some(Record {
                        key: request.key.to_string(),
                        size_bytes: request.size_bytes,
                        operation: request.operation,
                    });
                }
                Ok(None) => self.open_next(),
                Err(error) => Err(error.into()),
            };
            match opened {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn new(records: Records, ttl: i32, max_errors: u64) -> Self {
        Self {
            value_size: records.value_size,
            ttl,
            max_errors,
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            told: Mutex::default(),
            records: Mutex::new(records),
        }
    }

    /// What ended the reading early, if something did.
    pub(super) fn take_failure(&self) -> Option<CliError> {
        lock(&self.records).failure.take()
    }

    /// The first few errors, in words.
    pub(super) fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.told))
    }

    fn fail(&self, tally: &mut Tally, key: &str, call: &str, error: &CliError) {
        tally.errors += 1;
        let mut told = lock(&self.told);
        if told.len() < ERRORS_TOLD {
            told.push(format!("{call} of key {key:?}: {error}"));
        }
        drop(told);
        let errors = self.errors.fetch_add(1, Ordering::Relaxed) + 1;
        if self.max_errors > 0 && errors >= self.max_errors {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no worker panics while it holds the lock")
}

/// One worker: one request in flight at a time, until the records end or a stop is asked for.
pub(super) async fn work(shared: Arc<Shared>, connection: Connection) -> Tally {
    let mut tally = Tally::new();
    let mut filler = Filler::default();
    let mut cache = connection.cache();
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(Record { key, size_bytes, operation }) = lock(&shared.records).next() else { break };
        if operation == Operation::Delete {
            let request = connection.request(CacheKey { key: key.clone() });
            if let Err(error) = connection.finish(cache.delete(request)).await {
                shared.fail(&mut tally, &key, "delete", &error);
            }
            continue;
        }
        if operation == Operation::Read
            && needs_no_value(&shared, &connection, &mut cache, &key, &mut tally).await
        {
            continue;
        }
        let size = match shared.value_size {
            ValueSize::Bytes(size) => size,
            ValueSize::Trace => size_bytes.map_or(0, |size| size as usize),
        };
        let item = CacheItem { key: key.clone(), value: filler.take(size), ttl: shared.ttl };
        let (answer, latency) = timed(connection.finish(cache.set(connection.request(item)))).await;
        match answer {
            Ok(_) => tally.sets.record(latency),
            Err(error) => shared.fail(&mut tally, &key, "set", &error),
        }
    }
    tally
}

/// Asks for a key. Whether no value is to be stored after that: there is one, or the call failed.
async fn needs_no_value(
    shared: &Shared,
    connection: &Connection,
    cache: &mut CacheServiceClient<Channel>,
    key: &str,
    tally: &mut Tally,
) -> bool {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let request = connection.request(CacheKey { key: key.to_owned() });
    let (answer, latency) = timed(connection.finish(cache.get(request))).await;
    match answer {
        Ok(answer) => {
            tally.gets.record(latency);
            if answer.found {
                tally.hits += 1;
                shared.hits.fetch_add(1, Ordering::Relaxed);
            } else {
                tally.misses += 1;
            }
            answer.found
        }
        Err(error) => {
            tally.failed_gets += 1;
            shared.fail(tally, key, "get", &error);
            true
        }
    }
}

async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let answer = call.await;
    (answer, started.elapsed())
}

/// Values of any size without a copy for each: slices of the largest so far.
#[derive(Default)]
struct Filler(Bytes);

impl Filler {
    fn take(&mut self, size: usize) -> Bytes {
        if self.0.len() < size {
            self.0 = vec![b'x'; size].into();
        }
        self.0.slice(..size)
    }
}
