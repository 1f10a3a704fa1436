//! JSON lines as the server's access log has them.
//!
//! A request is a read: a line whose `op` is `get` or `multi_get`, or a line without `op`. Hits and misses are those of
//! reads alone. What else changes what is resident is replayed, but not counted:
//!
//! - A write (`set`, `set_if_absent`, `compare_and_set`, `multi_set`) stores the object. But one that is the first of its key after
//!   a read that missed is dropped: it is what filled the cache after that miss, which a simulation does by itself, at any
//!   capacity. It tells the size that the read could not know, so reads that missed wait for it, up to [`LOOK_AHEAD`]
//!   lines; after that they take the last size known of their key, or 1.
//! - A delete (`delete`, `multi_delete`) removes the object.
//!
//! What came to nothing (results such as `exists`, `mismatch`, `rejected`, `invalid`, `error`) and any other operation is skipped.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::Lines;
use super::{Decode, Input, Operation, Position, Problem, RawRequest, TraceKey};

/// Lines that a read that missed waits for the write that follows it.
const LOOK_AHEAD: usize = 4096;
/// A line has a key and a few small fields.
const MAX_LOG_LINE_BYTES: usize = 1 << 20;
/// Separates a namespace from a key; neither has it.
const SEPARATOR: char = '\u{1f}';

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, alias = "method")]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "key_hash")]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    size: Option<u64>,
    value_bytes: Option<u64>,
    #[serde(borrow, alias = "time", alias = "timestamp")]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<Cow<'a, str>>,
}

struct Pending {
    operation: Operation,
    key: String,
    size: Option<u32>,
    time_seconds: Option<u32>,
    position: Position,
}

/// What is known of a key.
#[derive(Default)]
struct Known {
    last_size: Option<u32>,
    /// The read that missed and was not yet followed by a write: its number.
    missed: Option<u64>,
}

pub(super) struct AccessLog {
    lines: Lines,
    lines_read: u64,
    known: HashMap<String, Known>,
    queue: VecDeque<Pending>,
    /// Requests that have left the queue.
    emitted: u64,
    current: Pending,
    /// Where reading failed, or the last request was.
    at: Position,
    failure: Option<Problem>,
    ended: bool,
}

impl AccessLog {
    pub(super) fn new(input: Input) -> Self {
        let at = Position { record: 1, line: Some(1), byte: 0 };
        let operation = Operation::Read;
        let current = Pending { operation, key: String::new(), size: None, time_seconds: None, position: at };
        Self {
            lines: Lines::new(input, MAX_LOG_LINE_BYTES),
            lines_read: 0,
            known: HashMap::new(),
            queue: VecDeque::new(),
            emitted: 0,
            current,
            at,
            failure: None,
            ended: false,
        }
    }

    /// Takes in one line; `false` at the end.
    fn read_line(&mut self) -> Result<bool, Problem> {
        self.lines_read += 1;
        if !self.lines.advance()? {
            return Ok(false);
        }
        let malformed = |reason: String| Problem::Malformed { format: "access-log", reason };
        let text = str::from_utf8(self.lines.current()).map_err(|_| Problem::NotUtf8)?;
        let line: Line<'_> = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let operation = match line.op.as_deref() {
            None | Some("get" | "multi_get" | "Get" | "MultiGet") => Operation::Read,
            Some(
                "set" | "set_if_absent" | "compare_and_set" | "multi_set" | "Set" | "SetIfAbsent"
                | "CompareAndSet" | "MultiSet",
            ) => Operation::Write,
            Some("delete" | "multi_delete" | "Delete" | "MultiDelete") => Operation::Delete,
            Some(_) => return Ok(true),
        };
        let came_to_nothing = match line.result.as_deref() {
            Some("invalid" | "error" | "rejected" | "exists" | "mismatch") => true,
            // What there was nothing to delete of may be resident in a larger cache.
            Some("not_found") => operation == Operation::Write,
            _ => false,
        };
        if came_to_nothing {
            return Ok(true);
        }
        let key = line.key.ok_or_else(|| malformed("it has neither \"key\" nor \"key_hash\"".to_owned()))?;
        let key = key_text(key.get())
            .ok_or_else(|| malformed("the key is neither text nor a number".to_owned()))?;
        if key.is_empty() {
            return Err(Problem::EmptyKey);
        }
        let key = match line.namespace.as_deref() {
            None | Some("") => key,
            Some(namespace) => format!("{namespace}{SEPARATOR}{key}"),
        };
        let size = line.size.or(line.value_bytes).map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let time_seconds = line.ts.and_then(|ts| seconds(ts.get()));
        let missed = line.result.as_deref() == Some("miss");
        let position = self.lines.position(self.lines_read);
        self.take(Pending { operation, key, size, time_seconds, position }, missed);
        Ok(true)
    }

    fn take(&mut self, mut request: Pending, missed: bool) {
        let number = self.emitted + self.queue.len() as u64;
        if !self.known.contains_key(&request.key) {
            if request.operation == Operation::Delete {
                return;
            }
            self.known.insert(request.key.clone(), Known::default());
        }
        let known = self.known.get_mut(&request.key).expect("inserted above");
        match request.operation {
            Operation::Delete => {
                known.missed = None;
                request.size = Some(known.last_size.unwrap_or(1));
            }
            Operation::Write => {
                known.last_size = request.size.or(known.last_size);
                if let Some(read) = known.missed.take() {
                    let waiting =
                        read.checked_sub(self.emitted).and_then(|place| usize::try_from(place).ok());
                    if let Some(waiting) = waiting.and_then(|place| self.queue.get_mut(place)) {
                        waiting.size = request.size;
                    }
                    return;
                }
                request.size = Some(known.last_size.unwrap_or(1));
            }
            Operation::Read => {
                // A read that missed says 0 or nothing about a value that is not there.
                request.size = request.size.filter(|size| !(missed && *size == 0));
                known.missed = (missed && request.size.is_none()).then_some(number);
                known.last_size = request.size.or(known.last_size);
                if known.missed.is_none() {
                    request.size = request.size.or(known.last_size);
                }
            }
        }
        self.queue.push_back(request);
    }

    /// Whether the request at the front waits for a write that may still come.
    fn must_wait(&self) -> bool {
        !self.ended
            && self.failure.is_none()
            && match self.queue.front() {
                Some(front) => {
                    front.size.is_none() && self.is_unfilled(front) && self.queue.len() < LOOK_AHEAD
                }
                None => true,
            }
    }

    fn is_unfilled(&self, request: &Pending) -> bool {
        self.known.get(&request.key).is_some_and(|known| known.missed.is_some())
    }
}

impl Decode for AccessLog {
    fn advance(&mut self) -> Result<bool, Problem> {
        while self.must_wait() {
            match self.read_line() {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(problem) => self.failure = Some(problem),
            }
        }
        let Some(request) = self.queue.pop_front() else {
            self.at = self.lines.position(self.lines_read.max(1));
            return self.failure.take().map_or(Ok(false), Err);
        };
        self.emitted += 1;
        self.at = request.position;
        self.current = request;
        if self.current.size.is_none() {
            self.current.size = self.known.get(&self.current.key).and_then(|known| known.last_size);
        }
        Ok(true)
    }

    fn current(&self) -> RawRequest<'_> {
        let Pending { operation, key, size, time_seconds, .. } = &self.current;
        RawRequest {
            key: TraceKey::of_text(key),
            size_bytes: *size,
            time_seconds: *time_seconds,
            operation: *operation,
        }
    }

    fn position(&self) -> Position {
        self.at
    }

    fn has_sizes(&self) -> bool {
        true
    }

    fn has_times(&self) -> bool {
        true
    }
}

/// A key that is a string or a number.
fn key_text(json: &str) -> Option<String> {
    if json.starts_with('"') {
        serde_json::from_str(json).ok()
    } else {
        serde_json::from_str::<u64>(json).ok().map(|number| number.to_string())
    }
}

/// Seconds as a number, cut to a whole one. Other notations of time are not understood.
fn seconds(json: &str) -> Option<u32> {
    json.split('.').next().and_then(|whole| whole.parse().ok())
}
