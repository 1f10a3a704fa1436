//! The thread that writes: takes records from the queue, makes lines of them, and copes with what becomes of the file.
//!
//! While the file cannot be written, it keeps the lines that it has made, takes no more, and tries again. The queue fills up
//! meanwhile, and what finds it full is lost: so memory is bounded by what the queue holds and one buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::destination::Destination;

/// Lines are written once there are so many bytes of them, however short the time.
const BUFFER_BYTES: usize = 1 << 16;

/// How long an idle writer sleeps. Nobody wakes it for a record, since waking costs the request a system call.
const LONGEST_NAP: Duration = Duration::from_millis(20);

pub(super) struct Writer {
    shared: Arc<Shared>,
    destination: Destination,
    flush_interval: Duration,
    lines: Vec<u8>,
    flushed: Instant,
    /// Whether the last attempt to write failed.
    is_failing: bool,
    /// Whether the last attempt to open the file again failed.
    is_stuck: bool,
    /// Lines lost until the last look.
    lost: u64,
    /// Whether lines were lost between the last two looks.
    is_losing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, destination: Destination, flush_interval: Duration) -> Self {
        Self {
            shared,
            destination,
            flush_interval,
            lines: Vec::with_capacity(BUFFER_BYTES),
            flushed: Instant::now(),
            is_failing: false,
            is_stuck: false,
            lost: 0,
            is_losing: false,
        }
    }

    /// Writes until it is told to stop, then what is queued.
    pub(super) fn run(mut self) {
        loop {
            // Before the queue is looked at: what was pushed before the stop is then found.
            let is_stopping = self.shared.stop.load(Ordering::Acquire);
            if self.shared.reopen.swap(false, Ordering::Acquire) {
                self.write();
                self.reopen();
            }
            if !self.is_failing {
                self.take();
            }
            let is_full = self.lines.len() >= BUFFER_BYTES;
            if self.flushed.elapsed() >= self.flush_interval || is_stopping || (is_full && !self.is_failing) {
                self.flush();
            }
            if is_stopping && (self.is_failing || self.shared.queue.is_empty()) {
                return self.end();
            }
            if !is_full || self.is_failing {
                thread::park_timeout(LONGEST_NAP.min(self.flush_interval));
            }
        }
    }

    /// Makes lines of records, until there are enough or no more.
    fn take(&mut self) {
        while self.lines.len() < BUFFER_BYTES
            && let Some(record) = self.shared.queue.pop()
        {
            record.append_to(&mut self.lines);
        }
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        self.write();
        if self.is_stuck || self.destination.was_moved() {
            self.reopen();
        }
        self.tell_losses();
    }

    fn write(&mut self) {
        match self.destination.write(&mut self.lines) {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!("access log: written again");
            }
            Ok(()) => {}
            Err(_) if self.is_failing => {}
            Err(error) => {
                self.is_failing = true;
                tracing::warn!(%error, "access log: cannot be written; it is tried again");
            }
        }
    }

    fn reopen(&mut self) {
        match self.destination.reopen() {
            Ok(()) => {
                self.is_stuck = false;
                tracing::info!("access log: file opened anew");
            }
            Err(_) if self.is_stuck => {}
            Err(error) => {
                self.is_stuck = true;
                tracing::warn!(%error, "access log: cannot be opened anew, the file before stays in use; it is tried again");
            }
        }
    }

    /// Says when losses begin and when they have ended.
    fn tell_losses(&mut self) {
        let lost = self.shared.lost_lines();
        let was_losing = std::mem::replace(&mut self.is_losing, lost > self.lost);
        self.lost = lost;
        if self.is_losing && !was_losing {
            tracing::warn!(lost_lines = lost, "access log: the queue is full, lines are lost");
        } else if was_losing && !self.is_losing {
            tracing::info!(lost_lines = lost, "access log: no more lines are lost");
        }
    }

    /// Counts what is left as lost, and says so.
    fn end(&mut self) {
        let unwritten = self.lines.split(|&byte| byte == b'\n').count() - 1 + self.shared.queue.len();
        if unwritten > 0 {
            self.shared.exports.lose_lines(unwritten as u64);
            tracing::warn!(unwritten, "access log: ended with lines that could not be written");
        }
    }
}
