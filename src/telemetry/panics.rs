//! One event for each panic, with all that is known of it.
//!
//! The hook knows where a panic comes from, and whoever catches it knows whose request it was and what it has cost. So who
//! will tell runs what may panic within [`caught`]: the hook then leaves the place for them and says nothing. What is
//! caught by nobody, or by somebody who says nothing of it, is told by the hook, or at the end of the [`caught`] it was in.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::pin::pin;

use tracing::error;

use super::logs::FATAL;

/// Whether somebody on this thread will tell of a panic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Teller {
    Nobody,
    Waits,
    /// There was one, which is in [`NOTED`].
    HasSome,
}

thread_local! {
    static TELLER: Cell<Teller> = const { Cell::new(Teller::Nobody) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

/// What the hook has seen of a panic.
struct Noted {
    text: String,
    location: String,
}

impl Noted {
    fn of(panic: &PanicHookInfo<'_>) -> Self {
        Self {
            text: panic.payload_as_str().unwrap_or(NO_TEXT).to_owned(),
            location: panic.location().map(ToString::to_string).unwrap_or_default(),
        }
    }

    fn tell(self) {
        let Self { text, location } = self;
        error!(target: FATAL, location, "panic: {text}");
    }
}

/// What stands for the text of a panic that has none.
const NO_TEXT: &str = "no text";

/// A panic that was caught, and is still to be told.
#[must_use = "nobody else tells of it"]
pub struct Panic {
    payload: Box<dyn Any + Send>,
    location: Option<String>,
}

impl Panic {
    /// What it says.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = self.payload.downcast_ref::<&str>().copied();
        text.or_else(|| self.payload.downcast_ref::<String>().map(String::as_str)).unwrap_or(NO_TEXT)
    }

    /// Where it comes from, if the hook is [installed](install_hook).
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Goes on with it, for somebody else to tell: on this thread, if it was caught on another one.
    pub fn resume(self) -> ! {
        if let Some(location) = self.location.clone() {
            note(Noted { text: self.text().to_owned(), location });
        }
        resume_unwind(self.payload)
    }
}

/// Has every panic of this process told in the log, by whoever catches it within [`caught`], or else as it happens.
pub fn install_hook() {
    panic::set_hook(Box::new(|panic| note(Noted::of(panic))));
}

fn note(panic: Noted) {
    if TELLER.get() == Teller::Nobody {
        return panic.tell();
    }
    // The one before was caught by somebody in between, or this one comes while things are dropped for it and ends the
    // process, so that there is no time but now.
    let before = NOTED.replace(Some(panic));
    TELLER.set(Teller::HasSome);
    if let Some(before) = before {
        before.tell();
    }
}

fn tell_noted() {
    if let Some(noted) = NOTED.take() {
        noted.tell();
    }
}

/// Runs what may panic, which has to leave nothing half done that is seen afterwards. Whoever gets a [`Panic`] tells of it.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    let mut outer = TELLER.replace(Teller::Waits);
    if outer == Teller::HasSome {
        tell_noted();
        outer = Teller::Waits;
    }
    let result = catch_unwind(AssertUnwindSafe(run));
    let teller = TELLER.replace(outer);
    match result {
        Ok(value) => {
            if teller == Teller::HasSome {
                tell_noted();
            }
            Ok(value)
        }
        Err(payload) => {
            let mut panic = Panic { payload, location: None };
            match NOTED.take() {
                Some(noted) if noted.text == panic.text() => panic.location = Some(noted.location),
                Some(other) => other.tell(),
                None => {}
            }
            Err(panic)
        }
    }
}

/// The same of a future, which is gone where it panics.
pub async fn caught_in<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match caught(|| future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}
