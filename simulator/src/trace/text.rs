//! Text: one key a line, taken verbatim; blank lines are no keys.

use std::io::{self, BufRead, Read};

use engine::MAX_NAME_BYTES;

use super::key::{number, number_line};
use super::{Decode, Input, Operation, Position, Problem, RawRequest, Run, TraceKey};

/// No server takes a key longer than this: a longer line is a binary file taken for text.
pub(super) const MAX_LINE_BYTES: usize = MAX_NAME_BYTES;

const SHORT_LINE_BYTES: usize = 64;

/// Reads lines and knows where it is.
pub(super) struct Lines {
    input: Input,
    line: Vec<u8>,
    max_bytes: usize,
    number: u64,
    start_byte: u64,
    end_byte: u64,
}

impl Lines {
    pub(super) fn new(input: Input, max_bytes: usize) -> Self {
        Self { input, line: Vec::new(), max_bytes, number: 0, start_byte: 0, end_byte: 0 }
    }

    /// Reads the next line that is not blank; `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool, Problem> {
        loop {
            self.line.clear();
            self.start_byte = self.end_byte;
            self.number += 1;
            let read = self.read_line()?;
            if read == 0 {
                return Ok(false);
            }
            self.end_byte += read as u64;
            for end in [b'\n', b'\r'] {
                if self.line.last() == Some(&end) {
                    self.line.pop();
                }
            }
            if self.line.len() > self.max_bytes {
                return Err(Problem::LineTooLong);
            }
            if !self.line.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Fills an empty list with the numbers that the next lines in the buffer are, up to `most` and as far as they are numbers. What ends them is left to
    /// [`Self::advance`].
    fn advance_by_numbers(&mut self, numbers: &mut Vec<u64>, most: usize) -> io::Result<()> {
        let buffer = match self.input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                self.number += 1;
                self.start_byte = self.end_byte;
                return Err(error);
            }
        };
        let (mut rest, mut last_bytes) = (buffer, 0);
        let lines = std::iter::from_fn(|| {
            let (number, bytes) = number_line(rest)?;
            (rest, last_bytes) = (&rest[bytes..], bytes);
            Some(number)
        });
        numbers.extend(lines.take(most));
        let read = buffer.len() - rest.len();
        if read > 0 {
            self.number += numbers.len() as u64;
            self.end_byte += read as u64;
            self.start_byte = self.end_byte - last_bytes as u64;
            self.input.consume(read);
        }
        Ok(())
    }

    /// Appends the next line to `line`, or as much of it as is enough to refuse it; the number of bytes read.
    fn read_line(&mut self) -> io::Result<usize> {
        // Keys are short, and mostly in the buffer already: millions of them should cost no more than a copy.
        match self.input.fill_buf() {
            Ok(buffer) => {
                let near = &buffer[..buffer.len().min(SHORT_LINE_BYTES).min(self.max_bytes)];
                if let Some(end) = near.iter().position(|byte| *byte == b'\n') {
                    self.line.extend_from_slice(&near[..=end]);
                    self.input.consume(end + 1);
                    return Ok(end + 1);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let limit = self.max_bytes as u64 + 2;
        (&mut self.input).take(limit).read_until(b'\n', &mut self.line)
    }

    /// The line read last, without its end.
    pub(super) fn current(&self) -> &[u8] {
        &self.line
    }

    /// Where the last line read starts; `record` is the caller's count.
    pub(super) fn position(&self, record: u64) -> Position {
        Position { record, line: Some(self.number.max(1)), byte: self.start_byte }
    }
}

pub(super) struct Text {
    lines: Lines,
    records: u64,
    /// The last key, where it is a number.
    number: Option<u64>,
}

impl Text {
    pub(super) fn new(input: Input) -> Self {
        Self { lines: Lines::new(input, MAX_LINE_BYTES), records: 0, number: None }
    }
}

impl Decode for Text {
    fn advance(&mut self) -> Result<bool, Problem> {
        self.records += 1;
        if !self.lines.advance()? {
            return Ok(false);
        }
        self.number = number(self.lines.current());
        if self.number.is_none() && str::from_utf8(self.lines.current()).is_err() {
            return Err(Problem::NotUtf8);
        }
        Ok(true)
    }

    fn advance_by_run(&mut self, run: &mut Run, most: usize) -> Result<(), Problem> {
        let outcome = self.lines.advance_by_numbers(&mut run.keys, most);
        self.records += run.keys.len() as u64 + u64::from(outcome.is_err());
        Ok(outcome?)
    }

    fn current(&self) -> RawRequest<'_> {
        let text = || str::from_utf8(self.lines.current()).unwrap_or_default();
        let key = self.number.map_or_else(|| TraceKey::Text(text()), TraceKey::Number);
        RawRequest { key, size_bytes: None, time_seconds: None, operation: Operation::Read }
    }

    fn position(&self) -> Position {
        self.lines.position(self.records.max(1))
    }

    fn has_sizes(&self) -> bool {
        false
    }

    fn has_times(&self) -> bool {
        false
    }
}
