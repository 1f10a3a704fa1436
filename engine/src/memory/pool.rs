//! The pool: how several shards share one limit without a lock of their own.
//!
//! What the limits allow is either in the pool or lent to a shard, whose budget is what it was lent;
//! so the sum of what is resident never exceeds the limit, and a shard works on its own until its
//! budget is spent. Loans are small against a shard's fair share, so that the shards fill evenly.
//!
//! Where the limits have shrunk below what is lent, the pool is in debt. Whatever comes back pays the debt before it
//! is lent again, so that nobody gets room that no longer exists.

use crate::directory::Budget;
use crate::sync::{AtomicU64, Ordering};

/// What of the limits is not lent to a shard.
pub(super) struct Pool {
    items: Account,
    bytes: Account,
    shards: u64,
}

/// One of the two limits.
struct Account {
    available: AtomicU64,
    /// What is lent beyond the limit. Not 0 only while `available` is, but for the blink of an eye.
    debt: AtomicU64,
    loan: AtomicU64,
}

/// Loans that make up a shard's fair share of the limits.
const LOANS_PER_SHARE: u64 = 64;

impl Account {
    fn new(limit: u64, shards: u64) -> Self {
        let loan = AtomicU64::new(loan(limit, shards));
        Self { available: AtomicU64::new(limit), debt: AtomicU64::new(0), loan }
    }

    fn lend(&self, wanted: u64) -> u64 {
        // What is empty, as the pool of a full store is, need not be written to.
        if wanted == 0 || self.available.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let wanted = wanted.max(self.loan.load(Ordering::Relaxed));
        take(&self.available, wanted)
    }

    fn give_back(&self, amount: u64) {
        if amount > 0 {
            let paid = take(&self.debt, amount);
            self.available.fetch_add(amount - paid, Ordering::Relaxed);
        }
    }

    fn resize(&self, old: u64, new: u64, shards: u64) {
        self.loan.store(loan(new, shards), Ordering::Relaxed);
        if new > old {
            self.give_back(new - old);
        } else {
            self.debt.fetch_add(old - new, Ordering::Relaxed);
            self.pay();
        }
    }

    /// Pays off debt with what is in the pool. What others give back while the debt was being made may be there.
    fn pay(&self) {
        let payable = take(&self.available, self.debt.load(Ordering::Relaxed));
        self.give_back(payable);
    }
}

/// Takes as much as is there, and this much at the most.
fn take(from: &AtomicU64, wanted: u64) -> u64 {
    let left = |available: u64| Some(available.saturating_sub(wanted));
    let before = from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    before.unwrap_or_else(|available| available).min(wanted)
}

fn loan(limit: u64, shards: u64) -> u64 {
    (limit / shards / LOANS_PER_SHARE).max(1)
}

impl Pool {
    pub(super) fn new(limits: Budget, shards: u64) -> Self {
        Self { items: Account::new(limits.items, shards), bytes: Account::new(limits.bytes, shards), shards }
    }

    /// The whole of it: for a single shard, which then never has to ask.
    pub(super) fn take_all(&self) -> Budget {
        Budget { items: take(&self.items.available, u64::MAX), bytes: take(&self.bytes.available, u64::MAX) }
    }

    /// Lends at least this much if it is there, and less if it is not.
    pub(super) fn lend(&self, items: u64, bytes: u64) -> Budget {
        Budget { items: self.items.lend(items), bytes: self.bytes.lend(bytes) }
    }

    pub(super) fn give_back(&self, loan: Budget) {
        self.items.give_back(loan.items);
        self.bytes.give_back(loan.bytes);
    }

    /// Other limits. What is lent beyond them is a debt from now on.
    pub(super) fn resize(&self, old: Budget, new: Budget) {
        self.items.resize(old.items, new.items, self.shards);
        self.bytes.resize(old.bytes, new.bytes, self.shards);
    }

    /// What is lent beyond the limits, once what is in the pool has been set against it.
    pub(super) fn debt(&self) -> Budget {
        self.items.pay();
        self.bytes.pay();
        Budget {
            items: self.items.debt.load(Ordering::Relaxed),
            bytes: self.bytes.debt.load(Ordering::Relaxed),
        }
    }

    /// What a shard may keep unused before it gives the rest back.
    pub(super) fn slack(&self) -> Budget {
        let slack = |account: &Account| account.loan.load(Ordering::Relaxed).saturating_mul(8);
        Budget { items: slack(&self.items), bytes: slack(&self.bytes) }
    }
}

/// Room that belongs to no shard for the moment. What is not spent goes back to the pool, also where a panic comes between.
pub(super) struct Credit<'p> {
    pub(super) budget: Budget,
    pool: &'p Pool,
}

impl<'p> Credit<'p> {
    pub(super) const fn none(pool: &'p Pool) -> Self {
        Self { budget: Budget { items: 0, bytes: 0 }, pool }
    }

    /// Takes all of it.
    pub(super) const fn spend(&mut self) -> Budget {
        std::mem::replace(&mut self.budget, Budget { items: 0, bytes: 0 })
    }
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        self.pool.give_back(self.budget);
    }
}
