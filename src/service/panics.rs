//! Panics of the store and its policy, which are plug-ins: told once with what they have cost, and survived by whoever
//! has to go on.
//!
//! A transport catches what a request has run into, and answers it. What the server does on its own behalf (sweeps,
//! samples, new limits) has nobody to answer: there a panic is a failure of the store like any other.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::{StoreError, StoreFuture};
use futures_util::FutureExt;
use tracing::{error, field};

use super::CacheService;

impl CacheService {
    /// Tells the log that `what` has panicked, and which entries the store has lost for it, after mending what is left.
    pub fn tell_panic(&self, what: &str, request_id: Option<&dyn Display>, panic: &(dyn Any + Send)) {
        let panic = text(panic);
        let request_id = request_id.map(field::display);
        let recovery = match catch_unwind(AssertUnwindSafe(|| self.store.recover())) {
            Ok(recovery) => recovery,
            // A policy may as well panic while it is made anew.
            Err(again) => {
                let again = text(&*again);
                error!(
                    request_id,
                    panic,
                    again,
                    "{what} panicked, and mending the store did so too: whoever uses it next tries again"
                );
                return;
            }
        };
        match recovery.emptied_shards {
            0 => error!(request_id, panic, "{what} panicked"),
            shards => error!(
                request_id,
                panic,
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
        let answer = AssertUnwindSafe(async { ask().await }).catch_unwind().await;
        answer.unwrap_or_else(|panic| {
            self.tell_panic(what, None, &*panic);
            Err(StoreError::Failed("it panicked".into()))
        })
    }

    /// The same of what is answered at once. Nothing, where it panics.
    pub(super) fn unbroken_now<T: Default>(&self, what: &str, ask: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| {
            self.tell_panic(what, None, &*panic);
            T::default()
        })
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
