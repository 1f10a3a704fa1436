//! What can be wrong with a trace, and where.

use std::fmt;
use std::io;

use super::oracle_general::RECORD_BYTES;
use super::text::MAX_LINE_BYTES;

/// A place in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The record, counted from 1.
    pub record: u64,
    /// Its line, counted from 1, where the format has lines.
    pub line: Option<u64>,
    /// The byte at which it starts, in the decompressed data.
    pub byte: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "record {} (line {line}, byte {})", self.record, self.byte),
            None => write!(f, "record {} (byte {})", self.record, self.byte),
        }
    }
}

/// A trace that cannot be read, or no further.
#[derive(Debug)]
pub struct TraceError {
    /// The trace as it was named.
    pub trace: String,
    /// Where the problem is.
    pub position: Position,
    /// What it is.
    pub problem: Problem,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, position, problem } = self;
        match problem {
            // No record is to blame for that.
            Problem::Unopened(_) => write!(f, "{trace}: {problem}"),
            _ => write!(f, "{trace}: {position}: {problem}"),
        }
    }
}

impl std::error::Error for TraceError {}

/// What is wrong with a record or a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be opened.
    #[error("{}", reason(.0))]
    Unopened(#[source] io::Error),
    /// The file cannot be read, or not decompressed.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
    /// There is no request in it.
    #[error("the trace holds no request")]
    Empty,
    /// The format, or the columns chosen, have not what is needed.
    #[error("the trace has no {0}")]
    Lacks(&'static str),
    /// The last record is cut off.
    #[error("the file ends after {0} of the record's {RECORD_BYTES} bytes")]
    Truncated(usize),
    /// The bytes are not what this format has there.
    #[error("this is no {format} record: {reason}")]
    Malformed {
        /// The format as which it was read.
        format: &'static str,
        /// What gives it away.
        reason: String,
    },
    /// Keys are text.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// Longer than any key can be.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// A column that the header does not have, or that no row can have.
    #[error("unknown column {column:?}: {known}")]
    UnknownColumn {
        /// As it was asked for.
        column: String,
        /// What there is.
        known: String,
    },
    /// A row with too few columns.
    #[error("the row has {found} columns, the {what} is in column {column}")]
    MissingColumn {
        /// "key", "size" or "time".
        what: &'static str,
        /// Counted from 1.
        column: usize,
        /// As many as there are.
        found: usize,
    },
    /// A record without a key.
    #[error("the key is empty")]
    EmptyKey,
    /// Something else where a number must be.
    #[error("the {what} is {found:?}, which is not {allowed}")]
    NotANumber {
        /// "key", "size" or "time".
        what: &'static str,
        /// The text as found.
        found: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

/// An I/O error as part of a sentence: "no such file or directory".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut rest = text.chars();
    match (rest.next(), text.chars().nth(1)) {
        // An abbreviation keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(rest).collect(),
        _ => text.to_owned(),
    }
}
