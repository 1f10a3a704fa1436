//! Fills the history that the status page shows.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::service::CacheService;
use crate::telemetry::history::{History, Sample, Step};
use crate::telemetry::metrics::Metrics;

/// What samples are taken from, and where they go.
pub(super) struct Sampler {
    pub(super) service: Arc<CacheService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
}

impl Sampler {
    /// Takes a sample. It reads no more than a scrape does.
    pub(super) async fn take(&self) {
        let Self { service, metrics, history } = self;
        match timeout(Step::Second.duration(), service.own_counters()).await {
            Ok(Ok(store)) => {
                service.record_evictions();
                history.record(&Sample {
                    time: SystemTime::now(),
                    uptime: service.uptime(),
                    store,
                    active_requests: service.active_requests(),
                    latency: metrics.rpc().map(|rpc| rpc.unary().read()),
                    eviction_age: metrics.store().map(|store| store.ages().read()),
                });
            }
            // Why, the log tells whoever asks for the readiness: not once a second for nobody.
            Ok(Err(_)) | Err(_) => history.miss(),
        }
    }

    /// Takes a sample every second, as long as it is polled, the first one in a second. Between two of them it sleeps.
    pub(super) async fn run(self) {
        let second = Step::Second.duration();
        let mut ticks = tokio::time::interval_at(Instant::now() + second, second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.take().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use engine::{
        CompareAndSet, Entry, Key, Limits, SetIfAbsent, Store, StoreError, StoreFuture, StoreStats, Value,
    };

    use super::*;
    use crate::telemetry::metrics::tests::metrics;

    const LIMITS: Limits = Limits { max_items: None, max_memory_bytes: 1, max_value_bytes: 1 };

    /// Answers two of three questions for its statistics: then it fails, then it hangs for good.
    #[derive(Default)]
    struct Moody {
        asked: AtomicU64,
    }

    impl Store for Moody {
        fn get<'a>(&'a self, _: Key<'a>) -> StoreFuture<'a, Option<Value>> {
            unreachable!("a sample reads no entry")
        }

        fn set<'a>(&'a self, _: Entry<'a>) -> StoreFuture<'a, ()> {
            unreachable!("a sample writes no entry")
        }

        fn set_if_absent<'a>(&'a self, _: Entry<'a>) -> StoreFuture<'a, SetIfAbsent> {
            unreachable!("a sample writes no entry")
        }

        fn compare_and_set<'a>(&'a self, _: &'a [u8], _: Entry<'a>) -> StoreFuture<'a, CompareAndSet> {
            unreachable!("a sample writes no entry")
        }

        fn delete<'a>(&'a self, _: Key<'a>) -> StoreFuture<'a, bool> {
            unreachable!("a sample removes no entry")
        }

        fn clear(&self) -> StoreFuture<'_, u64> {
            unreachable!("a sample clears nothing")
        }

        fn sweep(&self) -> StoreFuture<'_, u64> {
            unreachable!("a sample costs no sweep")
        }

        fn stats(&self) -> StoreFuture<'_, StoreStats> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            match asked {
                0..=3 => {}
                4 => return StoreFuture::ready(Err(StoreError::Unavailable("gone".into()))),
                _ => return StoreFuture::pending(std::future::pending()),
            }
            let counters = engine::Counters { hits: asked * 10, ..engine::Counters::default() };
            let stats = StoreStats { counters, limits: LIMITS, policy: "", store: "moody", shards: 1 };
            StoreFuture::ready(Ok(stats))
        }

        fn limits(&self) -> Limits {
            LIMITS
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_second_is_sampled_and_silence_is_noticed() {
        let store = Arc::new(Moody::default());
        let history = Arc::new(History::default());
        let service = Arc::new(CacheService::new(Arc::clone(&store) as _));
        let sampler = Sampler { service, metrics: metrics(), history: Arc::clone(&history) };
        sampler.take().await;
        let sampling = tokio::spawn(sampler.run());
        for (milliseconds, asked, answers) in [(3500, 4, true), (1000, 5, false), (1000, 6, false)] {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            assert_eq!(store.asked.load(Ordering::Relaxed), asked);
            assert_eq!(history.read(Step::Second, 0).store_answers, answers);
        }
        // A store that hangs is asked again all the same.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(store.asked.load(Ordering::Relaxed) > 9);
        assert!(!history.read(Step::Second, 0).store_answers);
        let last = history.read(Step::Second, 0).store.expect("answered once");
        assert_eq!(last.counters.hits, 30);
        sampling.abort();
    }
}
