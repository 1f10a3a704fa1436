//! What `scripts/instructions` counts the instructions of: operations of the memory store through its public interface.
//!
//! Each is done some thousand times inside [`measured`], which callgrind is told to look at; before that, its name and how
//! often it is done are printed. Nothing depends on chance, time or addresses, so a count repeats to the instruction, but
//! for what the compiler makes of it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Clock, Entry, HashSeed, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions, Store, StoreError,
    StoreFuture,
};
use policies::PolicyEntry;

const CAPACITY: usize = 8192;
const VALUE: [u8; 100] = [7; 100];
/// Distinct keys, more than fit; an operation is done once for each of so many of them.
const OPERATIONS: usize = 4096;
const BATCH: usize = 64;

/// By this name `scripts/instructions` finds what counts.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

/// All count, or the one that an argument names, such as "lru get, hit": for a profile of it by `callgrind_annotate`.
fn is_asked_for(policy: &str, operation: &str) -> bool {
    std::env::args().nth(1).is_none_or(|only| only == format!("{policy} {operation}"))
}

fn ready<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => unreachable!("the memory store answers at once"),
    }
}

fn key(name: &[u8; 16]) -> Key<'_> {
    Key::shared(name).expect("short")
}

fn set(store: &MemoryStore, name: &[u8; 16], ttl: Option<Duration>) {
    ready(store.set(Entry { key: key(name), value: &VALUE, ttl })).expect("room is made");
}

fn store(policy: &PolicyEntry) -> MemoryStore {
    let factory = (policy.with_defaults)();
    let build = Arc::new(move |capacity, seed| factory.build(capacity, seed));
    let limits =
        Limits { max_items: Some(CAPACITY as u64), max_memory_bytes: 64 << 20, max_value_bytes: 1 << 20 };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    MemoryStore::new(MemoryStoreOptions {
        shards: Some(4),
        hash_seed: HashSeed::fixed(7),
        clock,
        ..MemoryStoreOptions::new(limits, policy.name, policy.bytes_per_entry, build)
    })
}

#[expect(clippy::print_stdout, reason = "scripts/instructions reads what is counted, in order")]
fn operations(policy: &PolicyEntry) {
    let names: Vec<[u8; 16]> = (0..CAPACITY + 3 * OPERATIONS)
        .map(|number| format!("key-{number:012}").into_bytes().try_into().expect("sixteen bytes"))
        .collect();
    let (first, others) = names.split_at(CAPACITY);
    let some = &first[..OPERATIONS];
    let count = |operation: &str, times: usize, work: &mut dyn FnMut()| {
        println!("{}\t{operation}\t{times}", policy.name);
        if is_asked_for(policy.name, operation) {
            measured(work);
        } else {
            work();
        }
    };

    let empty = store(policy);
    count("set, new", OPERATIONS, &mut || some.iter().for_each(|name| set(&empty, name, None)));
    count("set, replacing", OPERATIONS, &mut || some.iter().for_each(|name| set(&empty, name, None)));
    let hit = |name| assert!(black_box(ready(empty.get(key(name))).expect("get")).is_some(), "a hit");
    count("get, hit", OPERATIONS, &mut || some.iter().for_each(hit));
    let miss = |name| assert!(black_box(ready(empty.get(key(name))).expect("get")).is_none(), "a miss");
    count("get, miss", OPERATIONS, &mut || others[..OPERATIONS].iter().for_each(miss));
    let keys: Vec<Key<'_>> = some.iter().map(key).collect();
    count("get_many, a key, all hit", OPERATIONS, &mut || {
        for batch in keys.chunks(BATCH) {
            drop(black_box(ready(empty.get_many(batch, usize::MAX)).expect("a batch")));
        }
    });
    let delete = |name| assert!(ready(empty.delete(key(name))).expect("delete"), "it was there");
    count("delete", OPERATIONS, &mut || some.iter().for_each(delete));
    let hour = Some(Duration::from_secs(3600));
    count("set, new, with ttl", OPERATIONS, &mut || some.iter().for_each(|name| set(&empty, name, hour)));

    let full = store(policy);
    // More than fits: what a policy keeps of the past is there as well.
    names[..CAPACITY + OPERATIONS].iter().for_each(|name| set(&full, name, None));
    let fresh = &others[OPERATIONS..2 * OPERATIONS];
    count("set, evicting", OPERATIONS, &mut || fresh.iter().for_each(|name| set(&full, name, None)));
}

fn main() {
    for name in ["lru", "s3-fifo"] {
        operations(policies::find(name).expect("a registered policy"));
    }
}
