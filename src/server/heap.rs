//! Has the allocator give back what it keeps of peaks.
//!
//! What requests and answers take comes from the C library's allocator, which gives back little by itself. Without this, a
//! server that was asked for much at a time once holds as much for good, and with each peak a little more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::give_back_heap;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::service::CacheService;
use crate::telemetry::metrics::resident_bytes;

/// What the process may hold beside the entries and what it held when it began.
const TOLERATED_BYTES: u64 = 16 << 20;
/// And a part of what the entries are charged, which is not all that they take.
const TOLERATED_PART: u64 = 16;
/// Between two looks, at least and at the most.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(60);
/// As many times as long as it took to give back nobody is kept waiting for it again.
const REST: u32 = 2000;
/// A store that does not answer is none that memory could be given back for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a process that holds this much is to have the allocator give back what it can.
const fn holds_much(resident: u64, at_start: u64, entries: u64) -> bool {
    resident > at_start.saturating_add(entries).saturating_add(entries / TOLERATED_PART + TOLERATED_BYTES)
}

/// How long to wait after it took so long.
fn pause(took: Duration) -> Duration {
    (REST * took).clamp(SOON, LATER)
}

/// Looks now and then, for as long as it is polled.
pub(super) async fn keep_small(service: Arc<CacheService>) {
    // Where the system does not tell, it is not one whose allocator could be asked.
    let Some(at_start) = resident_bytes() else { return };
    let mut wait = SOON;
    loop {
        sleep(wait).await;
        let Ok(Ok(store)) = timeout(PATIENCE, service.own_counters()).await else { continue };
        // Without a file descriptor to spare, say.
        let Some(before) = resident_bytes() else { continue };
        if !holds_much(before, at_start, store.counters.memory_bytes) {
            wait = SOON;
            continue;
        }
        // A thread that may be kept waiting, as this one may not. It does not panic.
        let given = spawn_blocking(|| {
            let began = Instant::now();
            give_back_heap().then(|| began.elapsed())
        });
        let Ok(given) = given.await else { return };
        // Where nothing can be given back, later is soon enough to look again.
        wait = given.map_or(LATER, pause);
        if let Some(took) = given {
            let after = resident_bytes();
            tracing::debug!(
                resident_before_bytes = before,
                resident_bytes = after,
                ?took,
                "gave back free memory"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_entries_take_is_no_reason() {
        for (resident, entries, much) in [
            (10, 0, false),
            (26, 0, false),
            (27, 0, true),
            // 10 MiB of the program, 16 that are tolerated, and 62 that entries of 1000 take and are not charged.
            (1084, 1000, false),
            (1089, 1000, true),
        ] {
            assert_eq!(
                holds_much(resident * MIB, 10 * MIB, entries * MIB),
                much,
                "{resident} MiB, {entries} of entries"
            );
        }
    }

    #[test]
    fn nobody_is_kept_waiting_for_more_than_a_small_part_of_the_time() {
        for (took, then) in [(0, 5), (2, 5), (3, 6), (20, 40), (31, 60), (1000, 60)] {
            assert_eq!(pause(Duration::from_millis(took)), Duration::from_secs(then), "{took} ms");
        }
    }
}
