//! The pool: how several shards share one limit without a lock of their own.
//!
//! What the limits allow is either in the pool or lent to a shard, whose budget is what it was lent;
//! so the sum of what is resident never exceeds the limit, and a shard works on its own until its
//! budget is spent. Loans are small against a shard's fair share, so that the shards fill evenly.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::directory::Budget;

/// What of the limits is not lent to a shard.
pub(super) struct Pool {
    items: AtomicU64,
    bytes: AtomicU64,
    loan: Budget,
}

/// Loans that make up a shard's fair share of the limits.
const LOANS_PER_SHARE: u64 = 64;

impl Pool {
    pub(super) fn new(limits: Budget, shards: u64) -> Self {
        let loan = |limit: u64| (limit / shards / LOANS_PER_SHARE).max(1);
        Self {
            items: AtomicU64::new(limits.items),
            bytes: AtomicU64::new(limits.bytes),
            loan: Budget { items: loan(limits.items), bytes: loan(limits.bytes) },
        }
    }

    /// The whole of it: for a single shard, which then never has to ask.
    pub(super) fn take_all(&self) -> Budget {
        Budget { items: self.items.swap(0, Ordering::Relaxed), bytes: self.bytes.swap(0, Ordering::Relaxed) }
    }

    /// Lends at least this much if it is there, and less if it is not.
    pub(super) fn lend(&self, items: u64, bytes: u64) -> Budget {
        let lend = |pool: &AtomicU64, wanted: u64, loan: u64| {
            if wanted == 0 {
                return 0;
            }
            // What is empty, as the pool of a full store is, need not be written to.
            if pool.load(Ordering::Relaxed) == 0 {
                return 0;
            }
            let wanted = wanted.max(loan);
            let left = |available: u64| Some(available.saturating_sub(wanted));
            let before = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            before.unwrap_or_else(|available| available).min(wanted)
        };
        Budget {
            items: lend(&self.items, items, self.loan.items),
            bytes: lend(&self.bytes, bytes, self.loan.bytes),
        }
    }

    pub(super) fn give_back(&self, loan: Budget) {
        self.items.fetch_add(loan.items, Ordering::Relaxed);
        self.bytes.fetch_add(loan.bytes, Ordering::Relaxed);
    }

    /// What a shard may keep unused before it gives the rest back.
    pub(super) const fn slack(&self) -> Budget {
        Budget { items: self.loan.items.saturating_mul(8), bytes: self.loan.bytes.saturating_mul(8) }
    }
}
