//! The way of log lines to standard error: a bounded queue, and a thread that writes what is in it.
//!
//! Whoever logs is serving, and whoever reads standard error may be slow, or stuck: a collector, a terminal that is held, a disk. So to
//! log is to put a line into memory, and never to wait for a reader. A line for which there is no room is lost, counted, and told of once others
//! can be written. The access log has a queue of its own: its records are as many as operations, so they take no lock and wake nobody;
//! lines of this log are few, and somebody waits for them.
//!
//! At the end of the process the queue is emptied first ([`FlushAtEnd`]), as long as somebody reads. A process that is killed takes with it what
//! it logged in its last moments.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::metrics::ExportCounters;
use super::throttle::Throttle;

/// How much may wait to be written; as much again may be at the writer.
const QUEUE_BYTES: usize = 1 << 20;

/// How large a buffer may be that is kept while there is nothing to write.
const KEPT_BYTES: usize = 1 << 16;

/// How much is written at a time, but for longer lines: what a pipe takes whole, so that lines never mix with those of others who write to it.
const PIECE_BYTES: usize = 4096;

/// How long the end of the process waits for what is queued.
const FLUSH_AT_END: Duration = Duration::from_secs(1);

/// How long a panic waits, as it may be the end of the process.
const FLUSH_AT_PANIC: Duration = Duration::from_millis(100);

/// How long the writer sleeps where standard error is full and does not wait itself.
const PAUSE: Duration = Duration::from_millis(10);

/// How often losses are told at most.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Where log lines go. Clones share it.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Shared>);

struct Shared {
    queued: Mutex<Queued>,
    /// There is something to write, or no more to come.
    filled: Condvar,
    /// Something was written.
    written: Condvar,
    /// Where lines are counted that will never be written.
    exports: Arc<ExportCounters>,
}

#[derive(Default)]
struct Queued {
    lines: Vec<u8>,
    /// How many bytes ever came, and how many of them the writer is done with.
    came: u64,
    done: u64,
    is_over: bool,
    /// Somebody has waited in vain, and nothing was written since.
    is_stuck: bool,
}

impl LogQueue {
    /// A queue whose lines a thread of its own writes to standard error. Those that are lost are counted in `exports`.
    pub(super) fn to_standard_error(exports: Arc<ExportCounters>) -> io::Result<(Self, FlushAtEnd)> {
        // Not the library's own, whose lock everybody else would wait for who has something to say there.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?), exports)
    }

    fn to(
        output: impl Write + Send + 'static,
        exports: Arc<ExportCounters>,
    ) -> io::Result<(Self, FlushAtEnd)> {
        let queue = Self(Arc::new(Shared {
            queued: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            exports,
        }));
        let writer = Writer::new(queue.clone(), output);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok((queue.clone(), FlushAtEnd(queue)))
    }

    /// Waits until what was logged by now is written, but no longer than this.
    fn flush(&self, within: Duration) {
        let mut queued = self.lock();
        let came = queued.came;
        let outcome = self.0.written.wait_timeout_while(queued, within, |queued| queued.done < came);
        queued = outcome.unwrap_or_else(PoisonError::into_inner).0;
        queued.is_stuck = queued.done < came;
    }

    /// The same after a panic. Where nobody reads, only the first one waits.
    pub(super) fn flush_after_panic(&self) {
        let is_stuck = self.lock().is_stuck;
        if !is_stuck {
            self.flush(FLUSH_AT_PANIC);
        }
    }

    fn push(&self, line: &[u8]) {
        let mut queued = self.lock();
        if queued.lines.len() + line.len() > QUEUE_BYTES {
            drop(queued);
            return self.0.exports.lose_log_lines(1);
        }
        let is_first = queued.lines.is_empty();
        queued.lines.extend_from_slice(line);
        queued.came += line.len() as u64;
        drop(queued);
        if is_first {
            self.0.filled.notify_one();
        }
    }

    /// Held for as long as it takes to copy a line.
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.0.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

/// Takes whole lines.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has what is queued written when it is dropped, for a second at most, and ends the thread.
#[must_use = "lines that are queued at the end are lost without it"]
pub struct FlushAtEnd(LogQueue);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush(FLUSH_AT_END);
        self.0.lock().is_over = true;
        self.0.0.filled.notify_one();
    }
}

/// What the thread has.
struct Writer<W> {
    queue: LogQueue,
    output: W,
    /// The last line that was written is not whole.
    is_torn: bool,
    /// The last time all was written.
    can_write: bool,
    /// Lines lost until they were last told of.
    told: u64,
    tell: Throttle,
}

impl<W: Write> Writer<W> {
    fn new(queue: LogQueue, output: W) -> Self {
        // Those of a log that was before in this process.
        let told = queue.0.exports.lost_log_lines();
        Self { queue, output, is_torn: false, can_write: false, told, tell: Throttle::new(TELL_INTERVAL) }
    }

    fn run(mut self) {
        let mut lines = Vec::new();
        while self.take(&mut lines) {
            // There is room now.
            self.tell_losses();
            let unwritten = self.write(&lines);
            let lost = unwritten.split(|&byte| byte == b'\n').count() - 1;
            self.queue.0.exports.lose_log_lines(lost as u64);
            let mut queued = self.queue.lock();
            queued.done += lines.len() as u64;
            queued.is_stuck = false;
            let is_idle = queued.lines.is_empty();
            drop(queued);
            self.queue.0.written.notify_all();
            self.can_write = lost == 0;
            if is_idle {
                self.tell_losses();
            }
            lines.clear();
            if lines.capacity() > KEPT_BYTES {
                lines = Vec::new();
            }
        }
    }

    /// Takes what is queued, as soon as there is something; `false` where there is nothing, and nothing to come.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let none = |queued: &mut Queued| queued.lines.is_empty() && !queued.is_over;
        let queued = self.queue.0.filled.wait_while(self.queue.lock(), none);
        std::mem::swap(&mut queued.unwrap_or_else(PoisonError::into_inner).lines, lines);
        !lines.is_empty()
    }

    /// Writes lines; what of them could not be written.
    fn write<'a>(&mut self, mut lines: &'a [u8]) -> &'a [u8] {
        if self.is_torn && !self.write_all(b"\n").is_empty() {
            return lines;
        }
        self.is_torn = false;
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(piece_bytes(lines));
            let unwritten = self.write_all(piece).len();
            if unwritten > 0 {
                let written = &piece[..piece.len() - unwritten];
                self.is_torn = written.last().is_some_and(|&last| last != b'\n');
                return &lines[written.len()..];
            }
            lines = rest;
        }
        lines
    }

    fn write_all<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match self.output.write(bytes) {
                Ok(written) if written > 0 => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                // The log has nowhere else to say so; they are counted.
                Ok(_) | Err(_) => break,
            }
        }
        bytes
    }

    fn tell_losses(&mut self) {
        let lost = self.queue.0.exports.lost_log_lines();
        if self.can_write && lost > self.told && self.tell.pass().is_some() {
            self.told = lost;
            tracing::warn!(lost_lines = lost, "log: lines were lost, as standard error did not take them");
        }
    }
}

/// How much of these lines is written at a time.
fn piece_bytes(lines: &[u8]) -> usize {
    let Some(short) = lines.get(..PIECE_BYTES) else { return lines.len() };
    let is_end = |&byte: &u8| byte == b'\n';
    let end = short.iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
    end.map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, pipe};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    struct Log {
        queue: LogQueue,
        end: FlushAtEnd,
        exports: Arc<ExportCounters>,
    }

    impl Log {
        fn to(output: impl Write + Send + 'static) -> Self {
            let exports = Arc::<ExportCounters>::default();
            let (queue, end) = LogQueue::to(output, Arc::clone(&exports)).expect("a thread");
            Self { queue, end, exports }
        }

        fn to_pipe() -> (PipeReader, Self) {
            let (reader, writer) = pipe().expect("a pipe");
            (reader, Self::to(writer))
        }

        fn say(&self, text: &str) {
            self.queue.make_writer().write_all(format!("{text}\n").as_bytes()).expect("it never fails");
        }
    }

    fn lines(reader: PipeReader) -> Vec<String> {
        BufReader::new(reader).lines().map(|line| line.expect("text")).collect()
    }

    #[test]
    fn lines_of_all_threads_arrive_whole_and_in_order_and_none_is_lost_at_the_end() {
        const LINES: usize = 500;
        let (reader, log) = Log::to_pipe();
        let reading = thread::spawn(|| lines(reader));
        thread::scope(|scope| {
            for worker in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..LINES {
                        // Some are longer than what is written at a time.
                        let tail = "x".repeat(if number % 100 == 0 { 3 * PIECE_BYTES } else { number % 300 });
                        log.say(&format!("{worker} {number} {tail}."));
                    }
                });
            }
        });
        let Log { queue, end, exports } = log;
        drop(end);
        assert_eq!((exports.lost_log_lines(), queue.lock().lines.len()), (0, 0));
        let found = reading.join().expect("no panic");
        assert_eq!(found.len(), 4 * LINES);
        let mut next = [0; 4];
        for line in found {
            let mut words = line.split(' ').map(|word| word.parse::<usize>().ok());
            let (Some(Some(worker)), Some(number)) = (words.next(), words.next()) else { panic!("{line}") };
            assert_eq!(number, Some(next[worker]), "{line}");
            assert!(line.ends_with('.'), "{line}");
            next[worker] += 1;
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_stuck_and_what_finds_no_room_is_counted() {
        const LINES: usize = 30_000;
        let (reader, log) = Log::to_pipe();
        let tail = "x".repeat(100);
        for number in 0..LINES {
            log.say(&format!("{number} {tail}"));
        }
        let lost = log.exports.lost_log_lines();
        assert!(lost > 0 && log.queue.lock().lines.len() <= QUEUE_BYTES);
        log.queue.flush_after_panic();
        assert!(log.queue.lock().is_stuck, "the next one does not wait");
        let began = Instant::now();
        let Log { queue, end, exports } = log;
        drop(end);
        assert!(began.elapsed() >= FLUSH_AT_END, "it is waited for");
        // Whenever the reader comes back, it gets all the others.
        let found = lines(reader);
        assert_eq!(found.len() as u64 + lost, LINES as u64);
        assert!(found.iter().all(|line| line.ends_with(&tail)));
        assert_eq!(exports.lost_log_lines(), lost);
        assert!(!queue.lock().is_stuck);
    }

    /// Takes so many bytes, then nothing until it is given more room.
    struct Disk {
        room: Arc<AtomicUsize>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.load(Ordering::SeqCst);
            if room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(room);
            self.room.fetch_sub(taken, Ordering::SeqCst);
            self.written.lock().expect("no panic").extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_are_whole() {
        let (room, written) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let log = Log::to(Disk { room: Arc::clone(&room), written: Arc::clone(&written) });
        let say = |text: &str, place: usize| {
            room.store(place, Ordering::SeqCst);
            log.say(text);
            log.queue.flush(Duration::from_secs(10));
        };
        say("nothing of it", 0);
        say("all of it", 10);
        say("half of it", 4);
        say("again", 0);
        say("whole", 100);
        say("end", 100);
        assert_eq!(
            String::from_utf8_lossy(&written.lock().expect("no panic")),
            "all of it\nhalf\nwhole\nend\n"
        );
        assert_eq!(log.exports.lost_log_lines(), 3);
        drop(log.end);
    }

    /// Is full again and again, as a pipe that somebody else has made not to wait.
    struct Unwilling {
        pipe: io::PipeWriter,
        is_full: bool,
    }

    impl Write for Unwilling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full = !self.is_full;
            if self.is_full { Err(ErrorKind::WouldBlock.into()) } else { self.pipe.write(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_is_full_and_does_not_wait_gets_the_lines_all_the_same() {
        let (reader, pipe) = pipe().expect("a pipe");
        let log = Log::to(Unwilling { pipe, is_full: false });
        (0..10).for_each(|number| log.say(&number.to_string()));
        drop(log.end);
        assert_eq!(lines(reader), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(log.exports.lost_log_lines(), 0);
    }

    #[test]
    fn what_is_written_at_a_time_ends_with_a_line() {
        let long = "x".repeat(PIECE_BYTES);
        for (lines, expected) in [
            ("one\ntwo\n".to_owned(), 8),
            (format!("one\n{long}\n"), 4),
            (format!("{long}\none\n"), PIECE_BYTES + 1),
            ("1234567\n".repeat(PIECE_BYTES), PIECE_BYTES),
        ] {
            assert_eq!(piece_bytes(lines.as_bytes()), expected);
        }
    }
}
