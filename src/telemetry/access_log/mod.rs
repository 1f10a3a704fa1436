//! The access log: a JSON line for each operation on a key, or for those on a sample of the keys. `tiny-cache simulate`
//! reads it as a trace.
//!
//! A request only puts a record into a bounded queue: it takes no lock, makes no system call and wakes nobody. Where the
//! queue is full the line is lost and counted. One thread of the log's own takes records out, makes lines of them and
//! writes; whatever a disk does, requests do not notice.
//!
//! **Sampling is by key**, not by request: of a sampled key all operations are there, of another none. That keeps what a
//! simulation lives on, the distance between two requests to the same key.

mod destination;
mod record;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_queue::ArrayQueue;
use engine::Key;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, TraceId};

use crate::config::{AccessLogConfig, LoggedKeys, Origin};
use crate::telemetry::metrics::ExportCounters;
use crate::telemetry::operations::{Operation, OperationListener, OperationResult};
use crate::telemetry::request_scope;

use destination::Destination;
use record::{LoggedKey, Record};
use writer::Writer;

/// Why the access log could not be opened. One line that begins with the place of its path in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened.
    #[error("{place}: telemetry.access_log.path: cannot open {path:?}: {cause}")]
    Open {
        /// Where the path is configured.
        place: Origin,
        /// The path.
        path: String,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// There is no thread to write it.
    #[error("cannot start the access log's thread: {0}")]
    Thread(#[source] io::Error),
}

/// What the requests and the writer share.
struct Shared {
    queue: ArrayQueue<Record>,
    /// Where lines are counted that will never be written.
    exports: Arc<ExportCounters>,
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn lost_lines(&self) -> u64 {
        self.exports.lost_lines()
    }
}

/// The access log as the server sees it. Once it is dropped, the thread writes what is queued and ends.
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Keys whose draw is below this are logged; `None`: all are.
    sampled_below: Option<u64>,
    keys: LoggedKeys,
    writer: JoinHandle<()>,
}

impl AccessLog {
    /// Opens the destination and starts the thread. Lines that are lost are counted in `exports`.
    pub fn open(config: &AccessLogConfig, exports: Arc<ExportCounters>) -> Result<Self, AccessLogError> {
        let destination = Destination::open(&config.destination).map_err(|cause| AccessLogError::Open {
            place: config.place.clone(),
            path: config.destination.to_string(),
            cause,
        })?;
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(config.queue_lines),
            exports,
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let writer = Writer::new(Arc::clone(&shared), destination, config.flush_interval);
        let writer = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())
            .map_err(AccessLogError::Thread)?;
        Ok(Self { shared, sampled_below: threshold(config.sample), keys: config.keys, writer })
    }

    /// Opens the file anew, soon: after it was moved away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.writer.thread().unpark();
    }

    /// Writes what is queued, but takes no longer than this. What cannot be written is lost, counted and told.
    pub async fn close(&self, within: Duration) {
        self.stop();
        let pause = Duration::from_millis(1);
        let ended = async {
            while !self.writer.is_finished() {
                tokio::time::sleep(pause).await;
            }
        };
        if tokio::time::timeout(within, ended).await.is_err() {
            tracing::warn!(
                queued = self.shared.queue.len(),
                "access log: not all lines could be written in time"
            );
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.writer.thread().unpark();
    }

    fn log(&self, operation: &Operation<'_>) {
        let Some(key) = Key::new(operation.namespace.as_bytes(), operation.key.as_bytes()) else { return };
        let hash = (self.keys == LoggedKeys::Hash || self.sampled_below.is_some()).then(|| key.fingerprint());
        if let (Some(limit), Some(hash)) = (self.sampled_below, hash)
            && draw(hash) >= limit
        {
            return;
        }
        let record = Record {
            at: SystemTime::now(),
            kind: operation.kind,
            result: operation.result,
            namespace: operation.namespace.into(),
            key: match (self.keys, hash) {
                (LoggedKeys::Hash, Some(hash)) => LoggedKey::Hash(hash),
                _ => LoggedKey::Text(operation.key.into()),
            },
            key_bytes: key.len(),
            value_bytes: operation.value_bytes,
            ttl: operation.ttl,
            latency: operation.latency,
            // Ids that are no text are not taken over from callers.
            request_id: request_scope::request_id().and_then(|id| id.to_str().ok().map(Box::from)),
            trace_id: trace_id(),
        };
        if self.shared.queue.push(record).is_err() {
            self.shared.exports.lose_lines(1);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl OperationListener for Arc<AccessLog> {
    fn wants_request_id(&self) -> bool {
        true
    }

    fn on_operation(&self, operation: &Operation<'_>) {
        // What is no key has no place in a trace of keys.
        if operation.result != OperationResult::Invalid {
            self.log(operation);
        }
    }
}

/// The trace that this thread is working for, where there is one.
fn trace_id() -> Option<TraceId> {
    Context::map_current(|context| {
        context.has_active_span().then(|| context.span().span_context().trace_id())
    })
}

/// The bits of a draw that count.
const DRAW_BITS: u32 = 53;

/// What a key draws. Policies and the simulator's own samples look at a fingerprint in other ways, so that a sample is, to
/// them, like any other set of keys.
const fn draw(fingerprint: u64) -> u64 {
    let mixed = (fingerprint ^ (fingerprint >> 32)).wrapping_mul(0xE703_7ED1_A0B4_28DB);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x8EBC_6AF0_9C88_C6E3);
    (mixed ^ (mixed >> 32)) >> (u64::BITS - DRAW_BITS)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
fn threshold(share: f64) -> Option<u64> {
    const ALL: f64 = 9_007_199_254_740_992.0; // 2 to the power of DRAW_BITS.
    (share < 1.0).then_some((share * ALL) as u64)
}

#[cfg(test)]
mod tests;
