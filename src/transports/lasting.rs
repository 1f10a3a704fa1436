//! How a transport tells the listener in front of it that an answer lasts: it knows what was asked for, and the listener how
//! long a client may take.

use std::cell::Cell;

thread_local! {
    static LASTS: Cell<bool> = const { Cell::new(false) };
}

/// Says, while a request is being polled, that its answer goes on for as long as client and service like: nobody is to
/// be hurried to take it.
pub(super) fn answer_lasts() {
    LASTS.set(true);
}

/// Runs `poll` on a request, and tells whether it was said that its answer lasts.
pub(super) fn noting_that_it_lasts<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    LASTS.set(false);
    (poll(), LASTS.get())
}
