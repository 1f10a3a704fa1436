//! The snapshot that all instruments read, and when a newer one is taken.
//!
//! A scrape publishes its own snapshot before it gathers. Other readers come by themselves (a push exporter has a thread
//! of its own), find the last one too old, and have a new one taken by the first instrument that they ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Snapshot, Sources};

/// How old a snapshot may be for another reader than the one it was taken for: longer than a collection takes, so that
/// each sees one snapshot only, and shorter than anyone collects.
const MAX_AGE: Duration = Duration::from_millis(500);

pub(super) struct Published {
    sources: Arc<dyn Sources>,
    last: Mutex<Option<(Instant, Snapshot)>>,
}

impl Published {
    pub(super) fn new(sources: Arc<dyn Sources>) -> Self {
        Self { sources, last: Mutex::default() }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), snapshot));
    }

    /// Has the next one who reads take a new snapshot.
    pub(super) fn expire(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Reads the last snapshot, or a new one where that is too old. Nothing where the store does not answer.
    pub(super) fn read(&self, reader: impl FnOnce(&Snapshot)) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(taken, _)| taken.elapsed() > MAX_AGE) {
            // Nobody else can want it meanwhile but a scrape, which would have to wait for the store as well.
            *last = self.sources.store().map(|store| (Instant::now(), self.sources.snapshot(store)));
        }
        if let Some((_, snapshot)) = &*last {
            reader(snapshot);
        }
    }
}
