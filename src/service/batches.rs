//! What batches have in common: items that are refused beside those that the store is asked about, and slices after which others
//! have their turn.

use engine::{StoreError, Value};

use super::{ItemResult, ServiceError};
use crate::line;
use crate::pace::{self, Pace, SLICE_BYTES};

/// Separates the items that the store will be asked about from those that are refused here, which are told by their
/// place.
pub(super) async fn split<T>(
    items: impl Iterator<Item = Result<T, ServiceError>>,
) -> (Vec<T>, Vec<(usize, ServiceError)>) {
    let mut valid = Vec::with_capacity(items.size_hint().0);
    let mut refused = Vec::new();
    let mut pace = Pace::default();
    for (place, item) in items.enumerate() {
        match item {
            Ok(item) => valid.push(item),
            Err(error) => refused.push((place, error)),
        }
        pace.step().await;
    }
    (valid, refused)
}

/// How many keys of a batch are done before others have their turn, unless [`SLICE_BYTES`] are read or written before.
pub(crate) const SLICE_KEYS: usize = 256;

/// How many keys of a batch are read before it is known how large their values may be.
pub(super) const FIRST_KEYS: usize = 16;

/// Frees what was read for nothing: as much as may be in flight, in as many values.
pub(super) async fn give_up(answers: engine::Batch<Option<Value>>) {
    let mut pace = Pace::default();
    for answer in answers {
        let bytes = answer.as_ref().ok().and_then(Option::as_ref).map_or(0, |value| value.len());
        drop(answer);
        pace.step_of(bytes).await;
    }
}

/// The part of a batch that comes after those which have been answered. Between parts others have their turn.
pub(super) async fn next_slice<'a, K, T>(keys: &'a [K], answers: &[T]) -> Option<&'a [K]> {
    let rest = &keys[answers.len()..];
    if rest.is_empty() {
        return None;
    }
    if !answers.is_empty() {
        line::rest().await;
    }
    Some(&rest[..rest.len().min(SLICE_KEYS)])
}

/// As much of a slice as has [`SLICE_BYTES`], or a little more.
pub(super) fn bounded<T>(slice: &[T], bytes_of: impl Fn(&T) -> usize) -> &[T] {
    let mut bytes = 0;
    let is_within = |item: &T| {
        let is_within = bytes < SLICE_BYTES;
        bytes += bytes_of(item);
        is_within
    };
    let len = slice.iter().map(is_within).take_while(|&is_within| is_within).count();
    &slice[..len]
}

/// The store's answers to a slice, if there is one to each of it: who waits for more would wait for ever.
pub(super) fn all_of<K, T>(slice: &[K], answers: engine::Batch<T>) -> Result<engine::Batch<T>, StoreError> {
    if answers.len() == slice.len() { Ok(answers) } else { Err(miscounted(slice, &answers)) }
}

/// The store's answers to a slice, if they are to some of it at least.
pub(super) fn some_of<K, T>(slice: &[K], answers: engine::Batch<T>) -> Result<engine::Batch<T>, StoreError> {
    let can_be = (1..=slice.len()).contains(&answers.len());
    if can_be { Ok(answers) } else { Err(miscounted(slice, &answers)) }
}

#[cold]
fn miscounted<K, T>(slice: &[K], answers: &[T]) -> StoreError {
    StoreError::Failed(
        format!("it gave {} answers to {} items of a batch", answers.len(), slice.len()).into(),
    )
}

/// Puts the refusals between the store's answers, back into the order of the request.
pub(super) async fn merge<T>(
    refused: Vec<(usize, ServiceError)>,
    answers: engine::Batch<T>,
) -> Vec<ItemResult<T>> {
    let items = answers.len() + refused.len();
    let mut answers = answers.into_iter().map(|answer| answer.map_err(ServiceError::Store));
    if refused.is_empty() {
        return pace::collect(answers).await;
    }
    let mut refused = refused.into_iter().peekable();
    let results = (0..items).map(|at| match refused.next_if(|(place, _)| *place == at) {
        Some((_, error)) => Err(error),
        None => answers.next().expect("what was not refused was answered"),
    });
    pace::collect(results).await
}
