//! Namespaces and keys as callers write them, through the use-cases and beside a map: which are accepted, and that no two of them are ever taken for
//! one another.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use engine::{CompareAndSet, Limits, MemoryStore, MemoryStoreOptions, SetIfAbsent, Store, WeighBy};
use fuzz::{now, ready};
use libfuzzer_sys::fuzz_target;
use tiny_cache::service::{CacheService, Item, Namespace, ServiceError, ttl_from_seconds};

type Written = HashMap<(String, String), Vec<u8>>;

fn is_alphanumeric(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9')
}

/// The namespace that a text is, as the contract has it.
fn namespace_of(raw: &str) -> Option<&str> {
    let name = raw.trim();
    let mut chars = name.chars();
    let sound =
        chars.next().is_none_or(is_alphanumeric) && chars.all(|c| is_alphanumeric(c) || ".-_".contains(c));
    (sound && name.chars().count() <= 64).then_some(name)
}

/// Whether the original would take this key: with what it puts in front of it.
fn is_key(namespace: &str, key: &str) -> bool {
    let stored =
        if namespace.is_empty() { key.to_owned() } else { format!("{}:{namespace}:{key}", namespace.len()) };
    !key.is_empty() && stored.chars().count() <= 256
}

fn is_refused<T>(outcome: &std::result::Result<T, ServiceError>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(ServiceError::InvalidArgument(text)) => {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

/// A short text: words that are often seen, or any characters, repeated where it says so.
fn text(input: &mut Unstructured<'_>) -> Result<String> {
    const WORDS: [&str; 16] = [
        "",
        "a",
        "ab",
        "b",
        "1:a:",
        "1:a:b",
        "10:aaaaaaaaaa:",
        "\u{1F600}",
        "é",
        " a ",
        "\t",
        ".",
        "a.b-c_d",
        "A",
        "0",
        "aaaaaaaaaa",
    ];
    let kind: u8 = input.arbitrary()?;
    let times = if kind & 3 == 3 { usize::from(input.arbitrary::<u8>()?) } else { 1 };
    let word = match kind >> 2 {
        word @ 0..48 => WORDS[usize::from(word) % WORDS.len()].to_owned(),
        length => {
            let bytes = input.bytes(usize::from(length - 48).min(input.len()))?;
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    Ok(word.repeat(times))
}

fn step(service: &CacheService, written: &mut Written, input: &mut Unstructured<'_>) -> Result<()> {
    let operation: u8 = input.arbitrary()?;
    let raw = text(input)?;
    let namespace = Namespace::parse(&raw);
    assert_eq!(is_refused(&namespace), namespace_of(&raw).is_none(), "{raw:?}");
    let (Ok(namespace), Some(name)) = (namespace, namespace_of(&raw)) else { return Ok(()) };
    let keys: Vec<String> = (0..=operation >> 6).map(|_| text(input)).collect::<Result<_>>()?;
    let key = keys[0].as_str();
    let at = |key: &str| (name.to_owned(), key.to_owned());
    let value = vec![operation; usize::from(operation) % 7];
    let ttl = ttl_from_seconds(i32::from(operation) - 128);
    assert_eq!(ttl.is_some(), operation > 128);
    let item = Item { key, value: &value, ttl: None };
    match operation % 8 {
        0 | 1 => {
            let outcome = now(service.set(namespace, item));
            assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
            if outcome.is_ok() {
                written.insert(at(key), value);
            }
        }
        2 => {
            let outcome = now(service.get(namespace, key));
            assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
            if let Ok(found) = outcome {
                assert_eq!(found.as_deref(), written.get(&at(key)).map(Vec::as_slice), "{name:?} {key:?}");
            }
        }
        3 => {
            let outcome = now(service.delete(namespace, key));
            assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
            if let Ok(existed) = outcome {
                assert_eq!(existed, written.remove(&at(key)).is_some(), "{name:?} {key:?}");
            }
        }
        4 => {
            let outcome = now(service.set_if_absent(namespace, item));
            assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
            if let Ok(outcome) = outcome {
                assert_eq!(outcome == SetIfAbsent::Exists, written.contains_key(&at(key)));
                written.entry(at(key)).or_insert(value);
            }
        }
        5 => {
            let outcome = now(service.compare_and_set(namespace, &value, item));
            assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
            if let Ok(outcome) = outcome {
                let expected = match written.get(&at(key)) {
                    None => CompareAndSet::NotFound,
                    Some(known) if *known == value => CompareAndSet::Stored,
                    Some(_) => CompareAndSet::Mismatch,
                };
                assert_eq!(outcome, expected);
            }
        }
        _ => {
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            let items = names.iter().map(|key| Item { key, value: &value, ttl: None });
            if operation & 8 != 0 {
                let outcomes = now(service.set_many(namespace, items)).expect("the store answers");
                assert_eq!(outcomes.len(), names.len());
                for (key, outcome) in names.iter().zip(&outcomes) {
                    assert_eq!(is_refused(outcome), !is_key(name, key), "{name:?} {key:?}");
                    if outcome.is_ok() {
                        written.insert(at(key), value.clone());
                    }
                }
            }
            let found = now(service.get_many(namespace, &names, |_| true)).expect("the store answers");
            assert_eq!(found.len(), names.len());
            for (key, outcome) in names.iter().zip(found) {
                assert_eq!(is_refused(&outcome), !is_key(name, key), "{name:?} {key:?}");
                if let Ok(found) = outcome {
                    assert_eq!(
                        found.as_deref(),
                        written.get(&at(key)).map(Vec::as_slice),
                        "{name:?} {key:?}"
                    );
                }
            }
            if operation & 16 != 0 {
                let existed = now(service.delete_many(namespace, &names)).expect("the store answers");
                for (key, outcome) in names.iter().zip(existed) {
                    if let Ok(existed) = outcome {
                        assert_eq!(existed, written.remove(&at(key)).is_some(), "{name:?} {key:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

struct Served {
    store: Arc<MemoryStore>,
    service: CacheService,
}

impl Served {
    fn new() -> Self {
        let lru = (policies::find("lru").expect("registered").with_defaults)();
        let bytes = lru.bytes_per_entry(WeighBy::Bytes);
        let limits = Limits { max_items: None, max_memory_bytes: 64 << 20, max_value_bytes: 1 << 20 };
        let build = Arc::new(move |capacity, seed| lru.build(capacity, seed));
        let store = Arc::new(MemoryStore::new(MemoryStoreOptions::new(limits, "lru", bytes, build)));
        let service = CacheService::new(Arc::clone(&store) as Arc<dyn Store>);
        Self { store, service }
    }
}

thread_local! {
    static SERVED: RefCell<Served> = RefCell::new(Served::new());
}

fuzz_target!(|data: &[u8]| {
    SERVED.with_borrow(|served| {
        ready(served.store.clear()).expect("cleared");
        let mut input = Unstructured::new(data);
        let mut written = Written::new();
        while !input.is_empty() {
            // The input's end is the history's.
            if step(&served.service, &mut written, &mut input).is_err() {
                break;
            }
        }
        let counters = ready(served.store.stats()).expect("stats").counters;
        assert_eq!(counters.entries, written.len() as u64);
        assert!(served.service.uptime() > Duration::ZERO);
    });
});
