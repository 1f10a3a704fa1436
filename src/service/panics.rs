//! Panics of the store and its policy, which are plug-ins: told once with what they have cost, and survived by whoever
//! has to go on.
//!
//! A transport catches what a request has run into, and answers it. What the server does on its own behalf (sweeps,
//! samples, new limits) has nobody to answer: there a panic is a failure of the store like any other.

use std::fmt::Display;

use engine::{StoreError, StoreFuture};
use tracing::{error, field};

use super::{CacheService, ServiceError};
use crate::telemetry::logs::FATAL;
use crate::telemetry::panics::{Panic, caught, caught_in};

impl CacheService {
    /// Tells the log that `what` has panicked, and which entries the store has lost for it, after mending what is left.
    pub fn tell_panic(&self, what: &str, request_id: Option<&dyn Display>, panic: &Panic) {
        let (panic, location) = (panic.text(), panic.location());
        let request_id = request_id.map(field::display);
        let recovery = match caught(|| self.store.recover()) {
            Ok(recovery) => recovery,
            // A policy may as well panic while it is made anew.
            Err(again) => {
                error!(
                    target: FATAL,
                    request_id,
                    panic,
                    location,
                    again = again.text(),
                    again_at = again.location(),
                    "{what} panicked, and mending the store did so too: whoever uses it next tries again"
                );
                return;
            }
        };
        match recovery.emptied_shards {
            0 => error!(target: FATAL, request_id, panic, location, "{what} panicked"),
            shards => error!(
                target: FATAL,
                request_id,
                panic,
                location,
                policy = recovery.policy,
                shards,
                "{what} panicked in the eviction policy, whose shard was emptied",
            ),
        }
    }

    /// Asks the store for what no request waits for.
    pub(super) async fn unbroken<'s, T>(
        &self,
        what: &str,
        ask: impl FnOnce() -> StoreFuture<'s, T>,
    ) -> Result<T, StoreError>
    where
        T: Unpin + 's,
    {
        // Most stores do what they are asked for at once, and their answer is ready.
        let answer = caught_in(async { ask().await }).await;
        answer.unwrap_or_else(|panic| {
            self.tell_panic(what, None, &panic);
            Err(StoreError::Failed("it panicked".into()))
        })
    }

    /// The same of what is answered at once. Nothing, where it panics.
    pub(super) fn unbroken_now<T: Default>(&self, what: &str, ask: impl FnOnce() -> T) -> T {
        caught(ask).unwrap_or_else(|panic| {
            self.tell_panic(what, None, &panic);
            T::default()
        })
    }

    /// A sweep that no request asks for. `None`: it panicked.
    pub(crate) async fn own_sweep(&self) -> Result<Option<u64>, ServiceError> {
        match caught_in(self.sweep()).await {
            Ok(swept) => swept.map(Some),
            Err(panic) => {
                self.tell_panic("a sweep", None, &panic);
                Ok(None)
            }
        }
    }
}
