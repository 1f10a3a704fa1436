//! Has the allocator give back what it keeps of peaks.
//!
//! What requests and answers take comes from the C library's allocator, which gives back little by itself. Without this, a
//! server that was asked for much at a time once holds as much for good, and with each peak a little more.

use std::sync::Arc;
use std::time::Duration;

use engine::give_back_heap;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::service::CacheService;
use crate::telemetry::metrics::resident_bytes;

/// What the process may hold beside the entries and what it held when it began.
const TOLERATED_BYTES: u64 = 16 << 20;
/// And a part of what the entries are charged, which is not all that they take.
const TOLERATED_PART: u64 = 16;
/// If less than this was given back, the rest is in use, and there is no hurry to try again.
const WORTHWHILE_BYTES: u64 = 4 << 20;
/// Between two looks.
const SOON: Duration = Duration::from_secs(5);
/// Between two looks, once they have turned out not to be worth it.
const LATER: Duration = Duration::from_secs(60);
/// A store that does not answer is none that memory could be given back for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a process that holds this much is to have the allocator give back what it can.
const fn holds_much(resident: u64, at_start: u64, entries: u64) -> bool {
    resident > at_start.saturating_add(entries).saturating_add(entries / TOLERATED_PART + TOLERATED_BYTES)
}

/// How long to wait after memory went from so many bytes to so many.
fn pause(before: u64, after: u64, last: Duration) -> Duration {
    if before.saturating_sub(after) >= WORTHWHILE_BYTES { SOON } else { (2 * last).min(LATER) }
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
        let after = spawn_blocking(|| {
            give_back_heap();
            resident_bytes()
        });
        let Ok(after) = after.await else { return };
        let after = after.unwrap_or(before);
        wait = pause(before, after, wait);
        tracing::debug!(before_bytes = before, after_bytes = after, "gave back memory that nothing lies in");
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
    fn what_is_in_use_is_not_asked_for_again_and_again() {
        let mut wait = SOON;
        let mut waits = Vec::new();
        for (before, after) in
            [(100, 90), (100, 99), (100, 101), (100, 100), (100, 100), (100, 100), (100, 95)]
        {
            wait = pause(before * MIB, after * MIB, wait);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 5]);
    }
}
