//! The snapshot that all instruments read.

use std::sync::{Mutex, PoisonError};

use super::Snapshot;

/// The last snapshot; none before anybody has read.
#[derive(Default)]
pub(super) struct Published(Mutex<Option<Snapshot>>);

impl Published {
    pub(super) fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }

    pub(super) fn read(&self, reader: impl FnOnce(&Snapshot)) {
        if let Some(snapshot) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            reader(snapshot);
        }
    }
}
