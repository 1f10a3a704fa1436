//! What became of exports: counted always, told in the log only when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;

use crate::config::Signal;

/// The figures of one signal.
#[derive(Debug, Default)]
pub struct SignalFigures {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    is_failing: AtomicBool,
}

/// The figures of all signals; those of one that is off stay zero.
#[derive(Clone, Debug, Default)]
pub struct ExportFigures(Arc<[SignalFigures; 3]>);

impl ExportFigures {
    /// The figures of one signal.
    #[must_use]
    pub fn of(&self, signal: Signal) -> &SignalFigures {
        &self.0[signal as usize]
    }
}

impl SignalFigures {
    /// Exports that a collector took.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Exports that failed or took too long.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Spans or log records that nobody will see: the queue was full, or their export failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn drop_items(&self, items: usize) {
        self.dropped.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Runs an export of `items` that can be lost, for at most `limit`, and takes note of how it ends.
    pub(super) async fn watch(
        &self,
        signal: Signal,
        limit: Duration,
        items: usize,
        export: impl Future<Output = OTelSdkResult>,
    ) {
        let error = match tokio::time::timeout(limit, export).await {
            Ok(Ok(())) => {
                self.exported.fetch_add(1, Ordering::Relaxed);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    let (failed, dropped) = (self.failed(), self.dropped());
                    tracing::info!(signal = signal.name(), failed, dropped, "exporting again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.drop_items(items);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                signal = signal.name(),
                error,
                "cannot export; what follows is counted and told once it works again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use opentelemetry_sdk::error::OTelSdkError;
    use tracing::instrument::WithSubscriber;

    use crate::config::{LogFormat, LogLevel};
    use crate::telemetry::capture::Captured;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_fails_is_told_once_and_counted_each_time() {
        let figures = ExportFigures::default();
        let traces = figures.of(Signal::Traces);
        let log = Captured::default();
        let limit = Duration::from_secs(1);
        async {
            let fails = || ready(Err(OTelSdkError::InternalFailure("refused".to_owned())));
            traces.watch(Signal::Traces, limit, 5, fails()).await;
            traces.watch(Signal::Traces, limit, 6, fails()).await;
            traces.watch(Signal::Traces, limit, 7, std::future::pending()).await;
            traces.watch(Signal::Traces, limit, 8, ready(Ok(()))).await;
            traces.watch(Signal::Traces, limit, 9, fails()).await;
        }
        .with_subscriber(log.subscriber(LogLevel::Info, LogFormat::Json).0)
        .await;
        assert_eq!((traces.exported(), traces.failed(), traces.dropped()), (1, 4, 5 + 6 + 7 + 9));
        assert_eq!(figures.of(Signal::Logs).failed(), 0);
        let levels: Vec<_> = log.json_lines().iter().map(|line| line["level"].to_string()).collect();
        assert_eq!(levels, ["\"WARN\"", "\"INFO\"", "\"WARN\""], "{}", log.text());
    }
}
