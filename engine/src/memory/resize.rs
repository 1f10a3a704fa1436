//! Other limits while the store is in use.
//!
//! What becomes free is in the pool at once. What is to go is a debt of the pool: from then on nobody is lent room, and
//! what shards hold unused is taken from them, so that a write finds the new limits in force however much is resident.
//! Then one shard after the other evicts its part, a few entries under each hold of its lock and with a pause in
//! between, as a mutex goes to whoever comes first and that would always be the thread that has just let go of it.
//!
//! Those that stay have slots all over the range, and what is kept for the others is charged, so evicting alone would
//! leave hardly anybody. Once the entries themselves fit, they are given the unused slots, in such steps too, until
//! all fits.
//!
//! A policy's capacity follows what is resident. If it were lowered at once, a policy that moves entries between
//! segments or forgets ghosts would do so for all of them in one call, under the lock.
//!
//! A policy that panics on the way loses its shard's entries, and the limits are in force all the same: the panic goes on
//! once all is done. Otherwise the pool would stay in debt, and nobody would be lent room.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use crate::directory::{Budget, WeighBy};
use crate::store::{Limits, StoreError};

use super::MemoryStore;
use super::limits::{self, policy_capacity};
use super::shard::{Removed, Shard, Shrink};

/// Entries that are evicted or given other slots under one hold of a shard's lock: well below a millisecond with most
/// policies. With a million entries in a shard, `clock` and `sieve` have needed 1 to 2 ms where all were read, `arc` and
/// `lru-k` some tens once, where their table of ghosts doubled. So for a write that many entries have to give way to.
pub(super) const STEPS_PER_HOLD: u64 = 256;
/// Long enough for whoever waits for the lock to wake up and take it.
pub(super) const PAUSE: Duration = Duration::from_micros(100);

/// How much of what is lent may stay lent.
struct Part {
    stays: Budget,
    lent: Budget,
}

impl Part {
    /// What a shard may keep of its budget. All shards together keep what may stay at the most.
    fn of(&self, budget: Budget) -> Budget {
        let part = |budget: u64, stays: u64, lent: u64| {
            let part = u128::from(budget) * u128::from(stays) / u128::from(lent.max(1));
            u64::try_from(part).map_or(budget, |part| part.min(budget))
        };
        Budget {
            items: part(budget.items, self.stays.items, self.lent.items),
            bytes: part(budget.bytes, self.stays.bytes, self.lent.bytes),
        }
    }
}

const fn is_nothing(budget: Budget) -> bool {
    budget.items == 0 && budget.bytes == 0
}

/// What a shard uses of its budget.
const fn used(shard: &Shard) -> Budget {
    Budget { items: shard.directory().items(), bytes: shard.directory().bytes() }
}

impl MemoryStore {
    /// See [`Store::set_limits`](crate::Store::set_limits).
    pub(super) fn resize(&self, limits: Limits) -> Result<u64, StoreError> {
        let weigh_by = self.options.weigh_by;
        if weigh_by == WeighBy::Items && limits.max_items.is_none() {
            return Err(StoreError::Unsupported(
                "its policy counts entries, so their number must be limited",
            ));
        }
        let _one_at_a_time = self.turn(&self.resizing);
        let (old, new) = (self.limits.get(), limits::possible(limits));
        self.limits.set(&new);
        self.pool.resize(limits::budget(&old), limits::budget(&new));

        let shards = self.shards.len();
        let mut evicted = 0;
        let mut panicked = None;
        let [from, to] = [&old, &new].map(|limits| policy_capacity(limits, weigh_by, shards));
        let mut capacities = vec![from; shards];
        if !is_nothing(self.pool.debt()) {
            (0..shards).for_each(|index| self.take_unused(index));
        }
        // Who took room from other shards meanwhile may have to give some up in another round.
        loop {
            let debt = self.pool.debt();
            if is_nothing(debt) {
                break;
            }
            let stays = limits::budget(&new);
            let lent = Budget {
                items: stays.items.saturating_add(debt.items),
                bytes: stays.bytes.saturating_add(debt.bytes),
            };
            let part = Part { stays, lent };
            for (index, capacity) in capacities.iter_mut().enumerate() {
                let evicting = AssertUnwindSafe(|| self.evict_down(index, &part, capacity, to));
                match panic::catch_unwind(evicting) {
                    Ok(went) => evicted += went?,
                    // The shard is emptied at the next look at it, which is in the next round.
                    Err(panic) => panicked = Some(panic),
                }
            }
        }
        for (index, capacity) in capacities.into_iter().enumerate() {
            let mut shard = self.lock(index);
            if shards == 1 {
                let (budget, more) = (shard.directory().budget(), self.pool.take_all());
                shard.set_budget(Budget {
                    items: budget.items.saturating_add(more.items),
                    bytes: budget.bytes.saturating_add(more.bytes),
                });
            }
            if capacity != to {
                // With the lock in hand, so that it is poisoned; the policy that follows is made for the new limits.
                let resizing = AssertUnwindSafe(move || shard.set_policy_capacity(to));
                if let Err(panic) = panic::catch_unwind(resizing) {
                    panicked = Some(panic);
                }
            }
        }
        match panicked {
            Some(panic) => panic::resume_unwind(panic),
            None => Ok(evicted),
        }
    }

    /// Pays the debt with what a shard holds and does not use.
    fn take_unused(&self, index: usize) {
        let mut shard = self.lock(index);
        let used = used(&shard);
        self.pay(&mut shard, used);
    }

    /// Pays the debt with what a shard's budget has beyond this.
    fn pay(&self, shard: &mut Shard, stays: Budget) {
        let (budget, debt) = (shard.directory().budget(), self.pool.debt());
        let back = |budget: u64, stays: u64, debt: u64| budget.saturating_sub(stays).min(debt);
        let back = Budget {
            items: back(budget.items, stays.items, debt.items),
            bytes: back(budget.bytes, stays.bytes, debt.bytes),
        };
        shard.set_budget(Budget { items: budget.items - back.items, bytes: budget.bytes - back.bytes });
        self.pool.give_back(back);
    }

    /// Evicts from a shard until it fits its part of the new limits or the debt is paid; how many entries went. The
    /// policy's capacity, which is `capacity`, follows down to `least`.
    fn evict_down(
        &self,
        index: usize,
        part: &Part,
        capacity: &mut u64,
        least: u64,
    ) -> Result<u64, StoreError> {
        let mut evicted = 0;
        let mut goal = None;
        loop {
            let mut removed = Removed::default();
            let mut shard = self.lock(index);
            let budget = shard.directory().budget();
            let goal = *goal.get_or_insert_with(|| part.of(budget));
            let debt = self.pool.debt();
            let enough = Budget {
                items: goal.items.max(budget.items.saturating_sub(debt.items)),
                bytes: goal.bytes.max(budget.bytes.saturating_sub(debt.bytes)),
            };
            let mut is_done = false;
            for _ in 0..STEPS_PER_HOLD {
                match shard.shrink(enough, || self.now_nanos(), &mut removed) {
                    Shrink::Evicted => evicted += 1,
                    Shrink::Moved | Shrink::Sought => {}
                    Shrink::Fits => {
                        is_done = true;
                        break;
                    }
                    Shrink::Stuck => {
                        return Err(StoreError::Failed("the eviction policy gives no entry up".into()));
                    }
                }
            }
            let used = used(&shard);
            self.pay(
                &mut shard,
                Budget { items: used.items.max(goal.items), bytes: used.bytes.max(goal.bytes) },
            );
            let reached = (*capacity).min(self.options.weigh_by.capacity(&used)).max(least);
            if reached < *capacity {
                *capacity = reached;
                shard.set_policy_capacity(reached);
            }
            drop(shard);
            drop(removed);
            // Also after the last of a shard: a round that finds nothing to take waits for who holds it.
            self.pause(PAUSE);
            if is_done {
                return Ok(evicted);
            }
        }
    }
}
