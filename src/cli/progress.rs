//! How far a simulation is, and how it ends: bars, which are shown only where standard error is a terminal, Ctrl-C, and
//! what is told last.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use simulator::Progress;
use simulator::trace::is_standard_input;
use tokio::runtime::Builder;

use super::error::CliError;
use super::{Outcome, output};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The first Ctrl-C asks the run to end, the second ends it.
pub(super) fn stop_on_interrupt(progress: Arc<Progress>) {
    thread::spawn(move || {
        // Without the handler the signal ends the process as it always did.
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                progress.stop();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(2);
            }
        });
    });
}

/// How a command ends after it has printed what it could compute: with the last of what went wrong, after the others.
pub(super) fn conclude(
    command: &str,
    progress: &Progress,
    mut problems: Vec<String>,
) -> Result<Outcome, CliError> {
    if progress.is_stopped() {
        problems.push("interrupted: only what was finished is printed".to_owned());
    }
    let Some(last) = problems.pop() else { return Ok(Outcome::Done) };
    for problem in problems {
        output::complain(&format!("{command}: {problem}"));
    }
    Err(CliError::Incomplete(last))
}

/// A bar over the bytes of a file; nothing where standard error is no terminal.
pub(super) fn reading_bar(path: &Path) -> ProgressBar {
    let bytes = if is_standard_input(path) { None } else { path.metadata().ok().map(|file| file.len()) };
    match bytes {
        Some(bytes) => bar(bytes, "reading"),
        None => ProgressBar::new_spinner().with_message("reading standard input"),
    }
}

pub(super) fn simulating_bar(requests: u64) -> ProgressBar {
    bar(requests, "simulating")
}

fn bar(length: u64, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed} (eta {eta})")
        .expect("the template is well-formed");
    ProgressBar::new(length).with_style(style).with_message(message)
}

pub(super) fn watched<T>(bar: &ProgressBar, position: &AtomicU64, work: impl FnOnce() -> T) -> T {
    watched_by(bar, || position.load(Ordering::Relaxed), work)
}

/// Does the work while the bar shows how far it is.
pub(super) fn watched_by<T>(
    bar: &ProgressBar,
    position: impl Fn() -> u64 + Sync,
    work: impl FnOnce() -> T,
) -> T {
    if bar.is_hidden() {
        return work();
    }
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bar.set_position(position());
                thread::park_timeout(PROGRESS_INTERVAL);
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        result
    });
    bar.finish_and_clear();
    result
}
