//! What no policy can beat: the optimum, which knows the future.
//!
//! **Where a capacity counts objects** this is exact: MIN of Belady ("A study of replacement
//! algorithms for a virtual-storage computer", IBM Systems Journal 1966) evicts what is needed
//! furthest in the future. As in the paper, what was fetched is always stored, be it for the last time;
//! a policy that turns newcomers away could in theory do better by a few requests.
//!
//! **Where it counts bytes** the optimum is NP-hard to find, and evicting the furthest is neither optimal
//! nor a bound. The row named `belady` is then the lower bound PFOO-L (Berger, Beckmann and
//! Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes", SIGMETRICS
//! 2018). To turn a request into a hit its object must have stayed since the previous one, which
//! costs its size times the requests in between. All hits of a cache together cannot cost more than
//! the capacity times the length of the trace. PFOO-L takes the cheapest until that is spent. It is
//! only a bound, since it holds the capacity on average over time, not at each moment: no policy
//! misses less, and perhaps none can miss as little. Object misses count each hit as one; byte
//! misses are bounded in a second run that counts each hit by its size.
//!
//! Writes and deletes are no requests. A write makes its object resident for nothing, so nobody has to keep it until then; what it
//! stores need not be stored. After a delete the object is gone.
//!
//! With a ttl, a request that comes too late after the previous one is no hit in either. That an object
//! expires after its insertion, not its last use, is ignored, which leaves a bound.

use std::collections::BinaryHeap;
use std::time::Instant;

use crate::replay::{Cache, Mode, Tally};
use crate::requests::{Block, Recording};
use crate::trace::Operation;

/// The name of the optimum where policies are named.
pub const OPTIMUM: &str = "belady";

const NEVER: u32 = u32::MAX;

/// The optimum's counts for a cache, over a whole trace.
///
/// # Panics
///
/// Where the recording has 2^32 - 1 requests or more.
#[must_use]
pub fn optimum(recording: &Recording, cache: &Cache) -> Tally {
    let started = Instant::now();
    let block = recording.whole();
    let previous = previous_requests(&block, cache.ttl_seconds);
    let mut tally = match cache.mode {
        Mode::Items => furthest_next_use(&block, &previous, cache.capacity),
        Mode::Bytes => cheapest_intervals(&block, &previous, cache.capacity),
    };
    tally.requests = block.reads();
    tally.bytes = block.bytes();
    tally.elapsed = started.elapsed();
    tally
}

fn operation(block: &Block<'_>, now: usize) -> Operation {
    match block.operations() {
        Some(operations) => operations[now],
        None => Operation::Read,
    }
}

/// For each read the previous request for the same object that it could be a hit after, or [`NEVER`].
fn previous_requests(block: &Block<'_>, ttl_seconds: Option<u32>) -> Vec<u32> {
    assert!(block.len() < NEVER as usize, "the optimum is for traces of less than 2^32 - 1 requests");
    let mut last = vec![NEVER; block.distinct()];
    let expired = |earlier: u32, now: usize| match (ttl_seconds, block.times()) {
        (Some(ttl), Some(times)) => times[now].saturating_sub(times[earlier as usize]) >= ttl,
        _ => false,
    };
    (0..)
        .zip(block.ids())
        .map(|(now, &id)| {
            let operation = operation(block, now as usize);
            let is_there = if operation == Operation::Delete { NEVER } else { now };
            let previous = std::mem::replace(&mut last[id as usize], is_there);
            let is_late = previous != NEVER && expired(previous, now as usize);
            if is_late || operation != Operation::Read { NEVER } else { previous }
        })
        .collect()
}

/// Belady's MIN.
fn furthest_next_use(block: &Block<'_>, previous: &[u32], capacity: u64) -> Tally {
    let mut next = vec![NEVER; previous.len()];
    for (now, &previous) in (0..).zip(previous) {
        if previous != NEVER {
            next[previous as usize] = now;
        }
    }
    let mut resident = vec![false; block.distinct()];
    // Next uses of resident objects. Those in the past are left over from hits, and are below all others.
    let mut next_uses = BinaryHeap::new();
    let mut never_used_again: u64 = 0;
    let mut items: u64 = 0;
    let mut tally = Tally::default();
    for (now, &id) in block.ids().iter().enumerate() {
        let operation = operation(block, now);
        // What is to be deleted next is of no use from its last request on, and counts as gone since then.
        if operation == Operation::Delete {
            continue;
        }
        if !resident[id as usize] {
            let is_full = items >= capacity && never_used_again == 0;
            if operation == Operation::Write
                && (next[now] == NEVER || (is_full && next_uses.peek() < Some(&next[now])))
            {
                continue;
            }
            if operation == Operation::Read {
                tally.misses += 1;
                tally.missed_bytes += block.sizes().map_or(1, |sizes| u64::from(sizes[now]));
            }
            if items < capacity {
                items += 1;
            } else if never_used_again > 0 {
                never_used_again -= 1;
            } else {
                let furthest: u32 = next_uses.pop().expect("a full cache has an object to evict");
                resident[block.ids()[furthest as usize] as usize] = false;
            }
        }
        resident[id as usize] = next[now] != NEVER;
        if next[now] == NEVER {
            never_used_again += 1;
            continue;
        }
        if next_uses.len() as u64 > 2 * items + 1024 {
            next_uses.retain(|&next_use| next_use as usize > now);
        }
        next_uses.push(next[now]);
    }
    tally
}

/// One way to make a request a hit.
struct Interval {
    requests: u32,
    /// The smallest size that the object had until then, and so may be resident with.
    resident_bytes: u32,
    /// The size of the request that becomes a hit.
    hit_bytes: u32,
}

impl Interval {
    fn cost(&self) -> u64 {
        u64::from(self.requests) * u64::from(self.resident_bytes)
    }
}

/// PFOO-L.
fn cheapest_intervals(block: &Block<'_>, previous: &[u32], capacity: u64) -> Tally {
    let size_of = |now: usize| block.sizes().map_or(1, |sizes| sizes[now]);
    let mut smallest = vec![u32::MAX; block.distinct()];
    let mut intervals = Vec::new();
    for (now, (&previous, &id)) in previous.iter().zip(block.ids()).enumerate() {
        let resident_bytes = smallest[id as usize];
        smallest[id as usize] = resident_bytes.min(size_of(now));
        if previous != NEVER && u64::from(resident_bytes) <= capacity {
            let requests = u32::try_from(now).expect("fewer than 2^32 requests") - previous;
            intervals.push(Interval { requests, resident_bytes, hit_bytes: size_of(now) });
        }
    }
    let budget = u128::from(capacity) * block.len() as u128;
    intervals.sort_unstable_by_key(Interval::cost);
    let hits = within(budget, &intervals, |_| 1);
    // Bytes per cost decide for byte misses; where sizes do not change that is the length alone.
    let per_byte = |interval: &Interval| (u128::from(interval.cost()) << 32) / u128::from(interval.hit_bytes);
    intervals.sort_unstable_by_key(per_byte);
    let hit_bytes = within(budget, &intervals, |interval| interval.hit_bytes.into());
    Tally { misses: block.reads() - hits, missed_bytes: block.bytes() - hit_bytes, ..Tally::default() }
}

/// The worth of the intervals from the first on that the budget pays for; of the one that it pays
/// for in part, that part.
fn within(mut budget: u128, intervals: &[Interval], worth: impl Fn(&Interval) -> u64) -> u64 {
    let mut total = 0;
    for interval in intervals {
        let (cost, worth) = (u128::from(interval.cost()), worth(interval));
        let Some(rest) = budget.checked_sub(cost) else {
            let part = u128::from(worth) * budget / cost;
            return total + u64::try_from(part).expect("less than the whole");
        };
        budget = rest;
        total += worth;
    }
    total
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::requests::tests::{log, recording};

    /// The least misses and the least missed bytes by trying everything. Where it counts objects, what was
    /// requested is resident; where it counts bytes, it need not be.
    fn exhaustive(requests: &[(u32, u64)], mode: Mode, capacity: u64) -> (u64, u64) {
        let weight = |size: u64| if mode == Mode::Items { 1 } else { size };
        let mut best = BTreeMap::from([(Vec::new(), (0_u64, 0_u64))]);
        for &(key, size) in requests {
            let mut next: BTreeMap<Vec<(u32, u64)>, (u64, u64)> = BTreeMap::new();
            for (resident, (misses, bytes)) in best {
                let hit = resident.iter().any(|&(other, _)| other == key);
                let cost = if hit { (misses, bytes) } else { (misses + 1, bytes + size) };
                let mut all = resident.clone();
                if !hit {
                    all.push((key, size));
                }
                for chosen in 0..1_u32 << all.len() {
                    let kept = all.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
                    let mut kept: Vec<(u32, u64)> = kept.map(|(_, &object)| object).collect();
                    let is_stored = mode == Mode::Bytes || kept.iter().any(|&(kept, _)| kept == key);
                    if is_stored && kept.iter().map(|&(_, size)| weight(size)).sum::<u64>() <= capacity {
                        kept.sort_unstable();
                        let entry = next.entry(kept).or_insert(cost);
                        *entry = (entry.0.min(cost.0), entry.1.min(cost.1));
                    }
                }
            }
            best = next;
        }
        let least = |of: fn(&(u64, u64)) -> u64| best.values().map(of).min().unwrap();
        (least(|cost| cost.0), least(|cost| cost.1))
    }

    /// A small trace from a seed: (key, size) with a size for each key.
    fn small_trace(seed: u64) -> Vec<(u32, u64)> {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let sizes: Vec<u64> = (0..7).map(|_| 1 + draw(6)).collect();
        (0..25)
            .map(|_| draw(7))
            .map(|key| (u32::try_from(key).unwrap(), sizes[usize::try_from(key).unwrap()]))
            .collect()
    }

    #[test]
    fn the_optimum_is_exact_for_objects_and_never_beaten_for_bytes() {
        let mut tight = 0;
        for seed in 0..40 {
            let trace = small_trace(seed);
            let rows: Vec<String> = trace.iter().map(|(key, size)| format!("{key},{size}")).collect();
            let recording = recording(&rows.join("\n"));
            for (mode, capacity) in
                [(Mode::Items, 1), (Mode::Items, 3), (Mode::Bytes, 4), (Mode::Bytes, 9), (Mode::Bytes, 14)]
            {
                let cache = Cache { mode, capacity, ttl_seconds: None, seed: 0 };
                let found = optimum(&recording, &cache);
                let (misses, missed_bytes) = exhaustive(&trace, mode, capacity);
                let story = format!("seed {seed}, {mode:?}, capacity {capacity}");
                match mode {
                    Mode::Items => assert_eq!(found.misses, misses, "{story}"),
                    Mode::Bytes => {
                        assert!(found.misses <= misses, "{story}: {} > {misses}", found.misses);
                        assert!(found.missed_bytes <= missed_bytes, "{story}");
                        tight += u32::from(misses - found.misses <= 2);
                    }
                }
            }
        }
        assert!(tight >= 60, "the bound is close in {tight} of 120 cases");
    }

    #[test]
    fn what_is_written_or_deleted_before_it_is_read_again_is_not_worth_keeping() {
        for (lines, misses) in [
            ("set a 1, get a 1", 0),
            ("get a 1, delete a 1, get a 1", 2),
            // In one place: `a` comes back for nothing, so `b` can stay for that time.
            ("get a 1, get b 1, get b 1, set a 1, get a 1", 2),
            ("get a 1, get b 1, delete a 1, get b 1, get a 1", 3),
            // What is written need not be stored.
            ("get a 1, set b 1, get a 1, set c 1, get a 1, get c 1", 2),
        ] {
            for mode in [Mode::Items, Mode::Bytes] {
                let found = optimum(&log(lines), &Cache { mode, capacity: 1, ttl_seconds: None, seed: 0 });
                match mode {
                    Mode::Items => assert_eq!(found.misses, misses, "{lines}"),
                    Mode::Bytes => assert!(found.misses <= misses, "{lines}"),
                }
                assert_eq!(found.requests, lines.matches("get").count() as u64, "{lines}");
            }
        }
    }

    #[test]
    fn the_bound_for_bytes_spends_the_capacity_times_the_trace_on_the_cheapest_hits() {
        // Each of nine possible hits costs 3 requests of 10 bytes; capacity times requests pays for four.
        let loops = recording(&"a,10\nb,10\nc,10\n".repeat(4));
        let cache = Cache { mode: Mode::Bytes, capacity: 10, ttl_seconds: None, seed: 0 };
        let bound = optimum(&loops, &cache);
        assert_eq!((bound.misses, bound.missed_bytes), (8, 80));
        assert_eq!(optimum(&loops, &Cache { capacity: 9, ..cache }).misses, 12, "larger than the cache");
    }

    #[test]
    fn what_would_have_expired_is_no_hit() {
        let cache = Cache { mode: Mode::Items, capacity: 2, ttl_seconds: Some(3), seed: 0 };
        assert_eq!(optimum(&recording("a,1,0\na,1,2\na,1,5\n"), &cache).misses, 2);
    }
}
