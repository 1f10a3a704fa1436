//! What the use-cases tell [`Operations`](crate::telemetry::operations::Operations) of what they did.

use engine::{CompareAndSet, SetIfAbsent, StoreError, Value};

use super::{Item, ItemResult, Namespace, ServiceError};
use crate::telemetry::operations::{Operation, OperationKind, OperationResult};

/// What is told of the result of one item of a batch: its own, or the failure of all.
pub(super) fn result_at<T>(
    results: &Result<Vec<ItemResult<T>>, ServiceError>,
    place: usize,
) -> Result<&T, &ServiceError> {
    results.as_ref().and_then(|results| results[place].as_ref())
}

/// An answer of the store, as it is told to [`Operations`].
pub(super) trait Outcome {
    /// What came of the operation.
    fn result(&self) -> OperationResult;

    /// Size of the value that the answer holds.
    fn value_bytes(&self) -> Option<u64> {
        None
    }
}

impl Outcome for Option<Value> {
    fn result(&self) -> OperationResult {
        if self.is_some() { OperationResult::Hit } else { OperationResult::Miss }
    }

    fn value_bytes(&self) -> Option<u64> {
        self.as_ref().map(|value| value.len() as u64)
    }
}

impl Outcome for () {
    fn result(&self) -> OperationResult {
        OperationResult::Stored
    }
}

impl Outcome for SetIfAbsent {
    fn result(&self) -> OperationResult {
        match self {
            Self::Stored => OperationResult::Stored,
            Self::Exists => OperationResult::Exists,
        }
    }
}

impl Outcome for CompareAndSet {
    fn result(&self) -> OperationResult {
        match self {
            Self::Stored => OperationResult::Stored,
            Self::NotFound => OperationResult::NotFound,
            Self::Mismatch => OperationResult::Mismatch,
        }
    }
}

/// Of a deletion.
impl Outcome for bool {
    fn result(&self) -> OperationResult {
        if *self { OperationResult::Deleted } else { OperationResult::NotFound }
    }
}

const fn failure(error: &ServiceError) -> OperationResult {
    match error {
        ServiceError::InvalidArgument(_) => OperationResult::Invalid,
        ServiceError::AnswerTooLarge => OperationResult::Rejected,
        ServiceError::Store(StoreError::ValueTooLarge { .. } | StoreError::CapacityExhausted { .. }) => {
            OperationResult::Rejected
        }
        ServiceError::Store(_) => OperationResult::Error,
    }
}

pub(super) fn told<'a, T: Outcome>(
    kind: OperationKind,
    namespace: Namespace<'a>,
    key: &'a str,
    result: Result<&T, &ServiceError>,
) -> Operation<'a> {
    let value_bytes = result.ok().and_then(Outcome::value_bytes);
    let result = result.map_or_else(failure, Outcome::result);
    Operation {
        kind,
        namespace: namespace.0,
        key,
        result,
        value_bytes,
        ttl: None,
        latency: None,
        in_batch: false,
    }
}

pub(super) fn told_write<'a, T: Outcome>(
    kind: OperationKind,
    namespace: Namespace<'a>,
    item: Item<'a>,
    result: Result<&T, &ServiceError>,
) -> Operation<'a> {
    let value_bytes = Some(item.value.len() as u64);
    Operation { value_bytes, ttl: item.ttl, ..told(kind, namespace, item.key, result) }
}

pub(super) fn told_many<'a, T: Outcome>(
    kind: OperationKind,
    namespace: Namespace<'a>,
    keys: &'a [&'a str],
    results: &Result<Vec<ItemResult<T>>, ServiceError>,
) -> impl Iterator<Item = Operation<'a>> {
    let keys = keys.iter().enumerate();
    keys.map(move |(place, key)| told(kind, namespace, key, result_at(results, place)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use engine::SystemClock;

    use super::super::CacheService;
    use super::*;
    use crate::config::{Loader, Sources};
    use crate::registry::Registry;
    use crate::telemetry::operations::{Batch, Counting, OperationListener, Operations};

    /// Writes down what it hears.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl OperationListener for Recorder {
        fn on_operation(&self, operation: &Operation<'_>) {
            let Operation { kind, namespace, key, result, value_bytes, ttl, .. } = operation;
            let key: String = key.chars().take(5).collect();
            let text = format!("{namespace}/{key} {} {} {value_bytes:?} {ttl:?}", kind.name(), result.name());
            self.0.lock().expect("whole").push(text);
        }

        fn on_batch(&self, batch: &Batch<'_>) {
            self.0.lock().expect("whole").push(format!("{} keys, {} bytes", batch.keys, batch.value_bytes));
        }
    }

    fn service() -> (CacheService, Recorder) {
        let registry = Registry::default();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = "[store]\nmax_memory = \"1MiB\"\nmax_value = 100";
        let config = loader.load_text("test.toml", text, &Sources::nothing()).expect("a good file").config;
        let policy = registry.policy(&config.eviction.policy).expect("the default is registered");
        let build = registry.store(&config.store.kind).expect("the default is registered").build;
        let store = build(&config.store, &config.eviction, policy, Arc::new(SystemClock::default()));
        let recorder = Recorder::default();
        let operations =
            Operations::new(Counting::On { namespaces: Vec::new() }).listening(Box::new(recorder.clone()));
        (CacheService::observed(store, operations), recorder)
    }

    fn item<'a>(key: &'a str, value: &'a [u8]) -> Item<'a> {
        Item { key, value, ttl: Some(Duration::from_secs(9)) }
    }

    #[tokio::test]
    async fn each_call_tells_what_it_did_to_each_key() {
        let (service, recorder) = service();
        let none = Namespace::default();
        let named = Namespace::parse("n").expect("valid");
        let too_long = "x".repeat(257);
        // Of some calls the answer is a failure, which is told like any other.
        drop(service.get(none, "a").await);
        drop(service.set(named, item("a", b"four")).await);
        drop(service.get(named, "a").await);
        drop(service.set(none, item("big", &[0; 101])).await);
        drop(service.set(none, item(&too_long, b"")).await);
        drop(service.set_if_absent(none, item("b", b"12")).await);
        drop(service.set_if_absent(none, item("b", b"12")).await);
        drop(service.compare_and_set(none, b"12", item("b", b"3")).await);
        drop(service.compare_and_set(none, b"12", item("b", b"3")).await);
        drop(service.compare_and_set(none, b"12", item("c", b"3")).await);
        drop(service.delete(none, "b").await);
        drop(service.delete(none, "b").await);
        let items = [item("d", b"1"), item("", b"22"), item("e", &[0; 101])];
        drop(service.set_many(none, items.into_iter()).await);
        drop(service.get_many(none, &["d", "f"], |_| true).await);
        drop(service.delete_many(none, &["d", "f"]).await);
        let heard = recorder.0.lock().expect("whole").join("\n");
        let expected = "\
/a get miss None None
n/a set stored Some(4) Some(9s)
n/a get hit Some(4) None
/big set rejected Some(101) Some(9s)
/xxxxx set invalid Some(0) Some(9s)
/b set_if_absent stored Some(2) Some(9s)
/b set_if_absent exists Some(2) Some(9s)
/b compare_and_set stored Some(1) Some(9s)
/b compare_and_set mismatch Some(1) Some(9s)
/c compare_and_set not_found Some(1) Some(9s)
/b delete deleted None None
/b delete not_found None None
/d set stored Some(1) Some(9s)
/ set invalid Some(2) Some(9s)
/e set rejected Some(101) Some(9s)
3 keys, 104 bytes
/d get hit Some(1) None
/f get miss None None
2 keys, 1 bytes
/d delete deleted None None
/f delete not_found None None
2 keys, 0 bytes";
        assert_eq!(heard, expected);
        let counted: u64 = service.operations().counts().iter().map(|count| count.count).sum();
        assert_eq!(counted, 19);
    }
}
