//! Reads recorded sequences of requests, one at a time, however long they are.
//!
//! | format | what it is |
//! |---|---|
//! | `oracle-general` | libCacheSim's packed binary records of 24 bytes: time, object, size, next request |
//! | `text` | one key a line |
//! | `csv` | rows with a column for the key and perhaps for size and time |
//! | `access-log` | JSON lines with key and size, as the server's access log has them |
//!
//! Each may be plain or compressed by gzip or zstd.

mod access_log;
mod csv;
mod detect;
mod error;
mod key;
mod oracle_general;
mod source;
mod text;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use csv::{Column, CsvOptions};
pub use error::{Position, Problem, TraceError};
pub use key::TraceKey;
use source::Input;
pub use source::is_standard_input;

/// How a trace is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the file's name, else by its first bytes.
    #[default]
    Auto,
    /// libCacheSim's binary records.
    OracleGeneral,
    /// One key a line.
    Text,
    /// Rows with columns.
    Csv,
    /// JSON lines.
    AccessLog,
}

/// How to read a trace.
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    /// How it is written.
    pub format: Format,
    /// What its columns are, where it has columns.
    pub csv: CsvOptions,
    /// Whether a key that is not a number is an error.
    pub numeric_keys: bool,
}

/// What a line of a trace does to a cache. Only reads count: hits and misses are theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Asks for the object, and fetches it where it is not resident.
    #[default]
    Read,
    /// Stores the object, resident or not, without having asked for it.
    Write,
    /// Removes the object.
    Delete,
}

/// One request of a trace. Borrows from the reader until the next one is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRequest<'a> {
    /// The object asked for.
    pub key: TraceKey<'a>,
    /// Its size, where the trace tells it.
    pub size_bytes: Option<u32>,
    /// When, where the trace tells it, in seconds from any origin.
    pub time_seconds: Option<u32>,
    /// What it does. Most traces have reads only.
    pub operation: Operation,
}

/// Consecutive reads in columns, whose keys are all numbers.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) keys: Vec<u64>,
    /// Empty where the trace tells none.
    pub(crate) sizes_bytes: Vec<u32>,
    /// Empty where the trace tells none.
    pub(crate) times_seconds: Vec<u32>,
}

impl Run {
    fn clear(&mut self) {
        self.keys.clear();
        self.sizes_bytes.clear();
        self.times_seconds.clear();
    }
}

/// One format's reader.
trait Decode: Send {
    /// Reads the next request; `false` at the end.
    fn advance(&mut self) -> Result<bool, Problem>;
    /// Reads what is at hand of the next requests, up to `most` and as far as their keys are numbers, into an empty run. Whatever
    /// ends the run, be it another key, a mistake or the trace's end, is left to `advance`. A format that never does this is read
    /// one by one.
    fn advance_by_run(&mut self, _run: &mut Run, _most: usize) -> Result<(), Problem> {
        Ok(())
    }
    /// The request read last. There is one after `advance` said `true`.
    fn current(&self) -> RawRequest<'_>;
    /// Where the request read last starts, or the one that could not be read.
    fn position(&self) -> Position;
    /// Where the request starts that was read this many before the last. For formats whose runs have sizes.
    fn position_before(&self, _requests: u64) -> Position {
        self.position()
    }
    /// Whether requests have sizes.
    fn has_sizes(&self) -> bool;
    /// Whether requests have times.
    fn has_times(&self) -> bool;
}

/// An open trace. Reading ends after the first error.
pub struct Trace {
    name: String,
    decoder: Box<dyn Decode>,
    numeric_keys: bool,
    requests: u64,
}

impl Trace {
    /// Opens a file, or standard input for `-`. `consumed` counts the bytes read from it,
    /// compressed or not.
    pub fn open(path: &Path, options: &TraceOptions, consumed: Arc<AtomicU64>) -> Result<Self, TraceError> {
        let name =
            if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() };
        Self::begin(name, source::open(path, consumed).map_err(Problem::Unopened), path, options)
    }

    /// Reads what `content` yields as if it were a file of this name.
    pub fn of(
        path: &Path,
        content: impl io::Read + Send + 'static,
        options: &TraceOptions,
    ) -> Result<Self, TraceError> {
        let input = source::unpacked(path, Box::new(content), Arc::default());
        Self::begin(path.display().to_string(), input.map_err(Problem::from), path, options)
    }

    fn begin(
        name: String,
        input: Result<Input, Problem>,
        path: &Path,
        options: &TraceOptions,
    ) -> Result<Self, TraceError> {
        match input.and_then(|input| decoder(path, options, input)) {
            Ok(decoder) => Ok(Self { name, decoder, numeric_keys: options.numeric_keys, requests: 0 }),
            Err(problem) => Err(TraceError {
                trace: name,
                position: Position { record: 1, ..Position::default() },
                problem,
            }),
        }
    }

    /// The trace as it was named.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next request; `None` at the end. A trace without any request is an error.
    pub fn read(&mut self) -> Result<Option<RawRequest<'_>>, TraceError> {
        match self.decoder.advance() {
            Ok(true) => {
                self.requests += 1;
                let request = self.decoder.current();
                if self.numeric_keys
                    && let TraceKey::Text(text) = request.key
                {
                    let (found, allowed) = (text.to_owned(), "a whole number below 2^64");
                    return Err(self.error(Problem::NotANumber { what: "key", found, allowed }));
                }
                Ok(Some(request))
            }
            Ok(false) if self.requests > 0 => Ok(None),
            Ok(false) => Err(self.error(Problem::Empty)),
            Err(problem) => Err(self.error(problem)),
        }
    }

    /// Replaces the run by the next requests, up to `most`, where many can be read at once; else it is empty, and [`Self::read`]
    /// knows what comes next.
    pub(crate) fn read_run(&mut self, run: &mut Run, most: usize) -> Result<(), TraceError> {
        run.clear();
        // The first comes alone: where sizes are all the same it is the largest, and its position is known.
        let most = if self.requests == 0 { 0 } else { most };
        self.decoder.advance_by_run(run, most).map_err(|problem| self.error(problem))?;
        self.requests += run.keys.len() as u64;
        Ok(())
    }

    /// An error where requests lack what a simulation needs.
    pub fn require(&self, times: bool, sizes: bool) -> Result<(), TraceError> {
        match (times && !self.has_times(), sizes && !self.has_sizes()) {
            (true, _) => Err(self.error(Problem::Lacks("times, which a ttl needs"))),
            (_, true) => Err(self.error(Problem::Lacks("sizes, which a capacity in bytes needs"))),
            _ => Ok(()),
        }
    }

    fn error(&self, problem: Problem) -> TraceError {
        TraceError { trace: self.name.clone(), position: self.position(), problem }
    }

    /// Where the request read last starts.
    #[must_use]
    pub fn position(&self) -> Position {
        self.decoder.position()
    }

    /// Where the request starts that was read this many before the last, in a run.
    pub(crate) fn position_before(&self, requests: u64) -> Position {
        self.decoder.position_before(requests)
    }

    /// Whether requests have sizes.
    #[must_use]
    pub fn has_sizes(&self) -> bool {
        self.decoder.has_sizes()
    }

    /// Whether requests have times.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.decoder.has_times()
    }
}

fn decoder(path: &Path, options: &TraceOptions, mut input: Input) -> Result<Box<dyn Decode>, Problem> {
    let format = match options.format {
        Format::Auto => match detect::by_name(path) {
            Some(format) => format,
            None => detect::by_content(input.fill_buf()?),
        },
        format => format,
    };
    Ok(match format {
        Format::OracleGeneral => Box::new(oracle_general::OracleGeneral::new(input)),
        Format::Csv => Box::new(csv::Csv::new(input, &options.csv)?),
        Format::AccessLog => Box::new(access_log::AccessLog::new(input)),
        Format::Text | Format::Auto => Box::new(text::Text::new(input)),
    })
}

#[cfg(test)]
mod tests;
