//! Lending: how a shard gets room for a write from the [pool](super::pool), and from other shards where that is empty, and what
//! becomes of room that it does not use.

use crate::directory::Budget;

use super::MemoryStore;
use super::pool::Credit;
use super::shard::{Removed, Shard, Shortage, Soon, Write};

impl MemoryStore {
    /// Adds to a shard's budget what a write needs, as far as the pool has it.
    #[inline]
    pub(super) fn top_up(&self, shard: &mut Shard, write: &Write<'_>) {
        let directory = shard.directory();
        let budget = directory.budget();
        let items = (directory.items() + 1).saturating_sub(budget.items);
        let bytes = (directory.bytes() + u64::from(write.charge) + shard.most_beside(write))
            .saturating_sub(budget.bytes);
        shard.add_to_budget(self.pool.lend(items, bytes));
    }

    /// Gives back what a shard has been lent far beyond its use.
    #[inline]
    pub(super) fn settle(&self, shard: &mut Shard) {
        // A single shard keeps everything.
        if self.shards.len() > 1 {
            let (directory, slack) = (shard.directory(), self.pool.slack());
            let budget = directory.budget();
            if budget.items.saturating_sub(directory.items()) > slack.items
                || budget.bytes.saturating_sub(directory.bytes()) > slack.bytes
            {
                self.give_back_spare(shard, slack);
            }
        }
    }

    #[cold]
    fn give_back_spare(&self, shard: &mut Shard, slack: Budget) {
        let budget = shard.directory().budget();
        let spare = |budget: u64, used: u64, slack: u64| {
            let unused = budget.saturating_sub(used);
            if unused > slack { unused - slack / 2 } else { 0 }
        };
        let back = Budget {
            items: spare(budget.items, shard.directory().items(), slack.items),
            bytes: spare(budget.bytes, shard.directory().bytes(), slack.bytes),
        };
        shard.set_budget(Budget { items: budget.items - back.items, bytes: budget.bytes - back.bytes });
        self.pool.give_back(back);
    }

    /// Takes from a shard what it has to spare for an entry of this charge; how many bytes.
    #[cold]
    pub(super) fn put_aside(shard: &mut Shard, charge: u32) -> u64 {
        let (budget, used) = (shard.directory().budget(), shard.directory().bytes());
        let spare = budget.bytes.saturating_sub(used).min(charge.into());
        shard.set_budget(Budget { bytes: budget.bytes - spare, ..budget });
        spare
    }

    /// Takes room from the other shards, evicting as it must, until the shortage is made up or
    /// nothing is left to take.
    pub(super) fn reclaim(&self, wanting: usize, shortage: Shortage) -> Credit<'_> {
        let mut credit = Credit::none(&self.pool);
        credit.budget = self.pool.lend(shortage.items, shortage.bytes);
        let shards = self.shards.len();
        for index in (wanting + 1..wanting + shards).map(|index| index % shards) {
            loop {
                let missing = Budget {
                    items: shortage.items.saturating_sub(credit.budget.items),
                    bytes: shortage.bytes.saturating_sub(credit.budget.bytes),
                };
                if missing.items == 0 && missing.bytes == 0 {
                    return credit;
                }
                let mut removed = Removed::default();
                let mut shard = self.lock(index);
                let directory = shard.directory();
                let budget = directory.budget();
                let taken = Budget {
                    items: missing.items.min(budget.items - directory.items()),
                    bytes: missing.bytes.min(budget.bytes.saturating_sub(directory.bytes())),
                };
                shard.set_budget(Budget {
                    items: budget.items - taken.items,
                    bytes: budget.bytes - taken.bytes,
                });
                credit.budget.items += taken.items;
                credit.budget.bytes += taken.bytes;
                let is_used = taken.items == 0 && taken.bytes == 0;
                if is_used && shard.evict_one(|| self.now_nanos(), &mut removed) == Soon::Nobody {
                    break;
                }
            }
        }
        credit
    }
}
