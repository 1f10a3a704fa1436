//! Requests as simulations take them: keys as dense numbers, in blocks of columns.
//!
//! A [`Recording`] holds a whole trace in 4 to 13 bytes a request; [`Stream`] holds one block at a
//! time. Simulations cannot tell them apart.

mod block;
mod recording;
#[cfg(test)]
pub(crate) mod tests;

use crate::interner::Interner;
use crate::trace::{Operation, Position, Run, Trace, TraceError};

use block::{Columns, Fingerprints};

pub use block::{Block, Request};
pub use recording::Recording;

/// Requests per block: enough that a simulation's own data stays cached while it works on one, and few
/// enough that an interruption is noticed at once.
pub const BLOCK_REQUESTS: usize = 1 << 16;

/// What is known of a trace, as far as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Requests: reads alone.
    pub requests: u64,
    /// Distinct objects: the footprint in items.
    pub distinct: u64,
    /// The sum of the distinct objects' sizes, as they were first seen: the footprint in bytes.
    pub footprint_bytes: u64,
    /// The largest size of a request, and where the first of that size is.
    pub largest: (u32, Position),
}

/// A trace whose keys become numbers as it is read. Reading ends after the first error.
pub struct Requests {
    trace: Trace,
    interner: Interner,
    survey: Survey,
    run: Run,
    failed: bool,
}

impl Requests {
    /// Requests of a trace from its beginning.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        let (interner, survey) = (Interner::default(), Survey::default());
        Self { trace, interner, survey, run: Run::default(), failed: false }
    }

    /// What is known so far.
    #[must_use]
    pub const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Appends the next requests, at most so many, and fewer only at the end or before an error.
    fn read(&mut self, columns: &mut Columns, most: usize) -> Result<(), TraceError> {
        let end = columns.ids.len() + most;
        while columns.ids.len() < end && !self.failed {
            let outcome = self.read_some(columns, end - columns.ids.len());
            self.failed = outcome.is_err();
            if !outcome? {
                break;
            }
        }
        Ok(())
    }

    /// Appends a run of requests or a single one; `false` at the end.
    fn read_some(&mut self, columns: &mut Columns, most: usize) -> Result<bool, TraceError> {
        let (first, known) = (columns.ids.len(), self.interner.len());
        self.trace.read_run(&mut self.run, most)?;
        let Run { keys, sizes_bytes, times_seconds } = &self.run;
        if keys.is_empty() {
            let Some(raw) = self.trace.read()? else { return Ok(false) };
            let size_bytes = [raw.size_bytes.unwrap_or(1)];
            let time_seconds = [raw.time_seconds.unwrap_or(0)];
            let operation = raw.operation;
            columns.ids.push(self.interner.intern(raw.key));
            columns.extend(&size_bytes, &time_seconds, operation, first);
            self.survey.requests += u64::from(operation == Operation::Read);
            self.survey_sizes(&columns.ids[first..], known, columns.sizes.get(first..));
        } else {
            self.interner.intern_numbers(keys, &mut columns.ids);
            columns.extend(sizes_bytes, times_seconds, Operation::Read, first);
            self.survey.requests += keys.len() as u64;
            self.survey_sizes(&columns.ids[first..], known, columns.sizes.get(first..));
        }
        Ok(true)
    }

    /// Takes note of the sizes of requests that were just read, when so many keys were known.
    fn survey_sizes(&mut self, ids: &[u32], known: usize, sizes: Option<&[u32]>) {
        let Self { survey, trace, .. } = self;
        survey.distinct = self.interner.len() as u64;
        let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) else {
            survey.footprint_bytes += (self.interner.len() - known) as u64;
            if survey.largest.0 == 0 {
                survey.largest = (1, trace.position_before(ids.len() as u64 - 1));
            }
            return;
        };
        let mut next = known;
        for ((&id, &size), before) in ids.iter().zip(sizes).zip((0..ids.len() as u64).rev()) {
            if id as usize == next {
                next += 1;
                survey.footprint_bytes += u64::from(size);
            }
            if size > survey.largest.0 {
                survey.largest = (size, trace.position_before(before));
            }
        }
    }
}

/// A buffer for one block of a trace that is read as it is simulated.
pub struct Stream {
    columns: Columns,
    fingerprints: Vec<u64>,
    distinct: usize,
}

impl Default for Stream {
    fn default() -> Self {
        let columns = Columns { keep_times: true, ..Columns::default() };
        Self { columns, fingerprints: Vec::new(), distinct: 0 }
    }
}

impl Stream {
    /// Replaces the content by the next block; an empty one at the end. Before an error comes what
    /// could be read.
    pub fn fill(&mut self, requests: &mut Requests) -> Result<(), TraceError> {
        self.columns.clear();
        let outcome = requests.read(&mut self.columns, BLOCK_REQUESTS);
        let all = requests.interner.fingerprints();
        self.fingerprints.clear();
        self.fingerprints.extend(self.columns.ids.iter().map(|id| all[*id as usize]));
        self.distinct = all.len();
        outcome
    }

    /// The block in the buffer.
    #[must_use]
    pub fn block(&self) -> Block<'_> {
        let fingerprints = Fingerprints::ByRequest(&self.fingerprints);
        self.columns.block(0..self.columns.ids.len(), fingerprints, self.distinct)
    }
}
