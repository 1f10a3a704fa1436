//! How exports end: counted always, told in the log only when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;

use crate::config::Signal;
use crate::telemetry::metrics::ExportCounters;

/// The exports of all signals.
#[derive(Clone, Debug, Default)]
pub(super) struct Exports {
    pub(super) counters: Arc<ExportCounters>,
    /// How many of a signal have failed since the last one that did not.
    failing: Arc<[AtomicU64; Signal::ALL.len()]>,
}

impl Exports {
    pub(super) fn drop_items(&self, signal: Signal, items: usize) {
        self.counters.dropped(signal, items as u64);
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
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {limit:?}")),
        };
        let name = signal.name();
        let failing = &self.failing[signal as usize];
        self.counters.exported(signal, error.is_none());
        if let Some(error) = error {
            self.drop_items(signal, items);
            if failing.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(signal = name, error, "cannot export; further failures are only counted");
            }
        } else {
            let failed = failing.swap(0, Ordering::Relaxed);
            if failed > 0 {
                tracing::info!(signal = name, failed, "exporting again");
            }
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
        let exports = Exports::default();
        let log = Captured::default();
        let limit = Duration::from_secs(1);
        async {
            let fails = || ready(Err(OTelSdkError::InternalFailure("refused".to_owned())));
            exports.watch(Signal::Traces, limit, 5, fails()).await;
            exports.watch(Signal::Traces, limit, 6, fails()).await;
            exports.watch(Signal::Traces, limit, 7, std::future::pending()).await;
            exports.watch(Signal::Traces, limit, 8, ready(Ok(()))).await;
            exports.watch(Signal::Traces, limit, 9, fails()).await;
        }
        .with_subscriber(log.subscriber(LogLevel::Info, LogFormat::Json).0)
        .await;
        let figures = exports.counters.figures();
        assert_eq!(figures.of(Signal::Traces), [1, 4, 5 + 6 + 7 + 9]);
        assert_eq!(figures.of(Signal::Logs), [0; 3]);
        let told: Vec<_> =
            log.json_lines().iter().map(|line| (line["level"].clone(), line["failed"].clone())).collect();
        let null = serde_json::Value::Null;
        let expected = [("WARN".into(), null.clone()), ("INFO".into(), 3.into()), ("WARN".into(), null)];
        assert_eq!(told, expected, "{}", log.text());
    }
}
