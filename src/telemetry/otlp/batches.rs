//! A bounded queue between requests and an exporter.
//!
//! Whoever puts something in never waits: where the queue is full, it is dropped and counted. The SDK's own batch
//! processors would do but for two things: they do not tell how much they dropped, and each of them exports on a
//! thread without the runtime that the exporters need.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::exports::Exports;
use crate::config::{BatchConfig, Signal};

/// The queue of one signal.
pub(super) struct Batches<T> {
    signal: Signal,
    config: BatchConfig,
    waiting: Mutex<Vec<T>>,
    full: Notify,
    exports: Exports,
    stop: CancellationToken,
}

impl<T: Send> Batches<T> {
    pub(super) fn new(
        signal: Signal,
        config: BatchConfig,
        exports: Exports,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { signal, config, waiting: Mutex::default(), full: Notify::new(), exports, stop })
    }

    /// Leaves an item to the exporter, or drops it.
    fn put(&self, item: T) {
        let waiting = {
            let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= self.config.max_queue {
                drop(queue);
                self.exports.drop_items(self.signal, 1);
                return;
            }
            queue.push(item);
            queue.len()
        };
        // Waking the exporter costs more than all of the above, so it is done once a batch.
        if waiting.is_multiple_of(self.config.max_batch) {
            self.full.notify_one();
        }
    }

    fn take(&self) -> Vec<T> {
        let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = queue.len().min(self.config.max_batch);
        queue.drain(..batch).collect()
    }

    /// Exports what is put in until it is told to stop, and then what is left.
    pub(super) async fn run(self: Arc<Self>, export: impl AsyncFn(Vec<T>) -> OTelSdkResult) {
        loop {
            // Asked before the work: who is told to stop during a round has one more to do.
            let is_last = tokio::select! {
                biased;
                () = self.stop.cancelled() => true,
                () = tokio::time::sleep(self.config.delay) => false,
                () = self.full.notified() => false,
            };
            loop {
                let batch = self.take();
                let items = batch.len();
                if items == 0 {
                    break;
                }
                self.exports.watch(self.signal, self.config.export_timeout, items, export(batch)).await;
                // A few that came meanwhile had better wait for others, but for the last time.
                if items < self.config.max_batch && !is_last {
                    break;
                }
            }
            if is_last {
                return;
            }
        }
    }
}

impl<T> fmt::Debug for Batches<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// Spans that have ended go into the queue.
#[derive(Debug)]
pub(super) struct Spans(pub(super) Arc<Batches<SpanData>>);

impl SpanProcessor for Spans {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.put(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A log record with where it comes from.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Log records go into the queue.
#[derive(Debug)]
pub(super) struct Records(pub(super) Arc<Batches<Record>>);

impl LogProcessor for Records {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.0.put((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const CONFIG: BatchConfig = BatchConfig {
        max_queue: 10,
        max_batch: 4,
        delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
    };

    /// Puts `0..items` into a queue that is told to stop after `life`, and returns the sizes of the batches with the
    /// times at which they left, and what was dropped.
    async fn batches(items: u64, life: Duration) -> (Vec<(Duration, Vec<u64>)>, u64) {
        let exports = Exports::default();
        let stop = CancellationToken::new();
        let queue = Batches::new(Signal::Traces, CONFIG, exports.clone(), stop.clone());
        (0..items).for_each(|item| queue.put(item));
        let exported = Mutex::new(Vec::new());
        let start = tokio::time::Instant::now();
        let export = async |batch| {
            exported.lock().expect("no panic").push((start.elapsed(), batch));
            ready(Ok(())).await
        };
        let told = async {
            tokio::time::sleep(life).await;
            stop.cancel();
        };
        tokio::join!(queue.run(export), told);
        (exported.into_inner().expect("no panic"), exports.counters.figures().of(Signal::Traces)[2])
    }

    #[tokio::test(start_paused = true)]
    async fn full_batches_leave_at_once_and_others_after_the_delay() {
        let minute = Duration::from_secs(60);
        assert_eq!(batches(0, minute).await, (vec![], 0));
        assert_eq!(batches(3, minute).await, (vec![(CONFIG.delay, vec![0, 1, 2])], 0));
        let (sent, dropped) = batches(4, minute).await;
        assert_eq!((sent, dropped), (vec![(Duration::ZERO, vec![0, 1, 2, 3])], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_queue_cannot_hold_is_dropped_and_counted() {
        let (sent, dropped) = batches(13, Duration::from_secs(60)).await;
        let items: Vec<u64> = sent.into_iter().flat_map(|(_, batch)| batch).collect();
        assert_eq!((items, dropped), ((0..10).collect(), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_exported_when_told_to_stop() {
        let second = Duration::from_secs(1);
        assert_eq!(batches(2, second).await, (vec![(second, vec![0, 1])], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_during_the_export_that_was_told_to_stop_is_exported_too() {
        let stop = CancellationToken::new();
        let queue = Batches::new(Signal::Traces, CONFIG, Exports::default(), stop.clone());
        queue.put(1);
        let exported = Mutex::new(Vec::new());
        let export = async |batch: Vec<u64>| {
            if batch == [1] {
                stop.cancel();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            exported.lock().expect("no panic").push(batch);
            Ok(())
        };
        let late = async {
            stop.cancelled().await;
            queue.put(2);
            // The exporter is still busy with the first.
            assert_eq!(queue.waiting.lock().expect("no panic").len(), 1);
        };
        tokio::join!(Arc::clone(&queue).run(export), late);
        assert_eq!(exported.into_inner().expect("no panic"), [[1], [2]]);
    }
}
