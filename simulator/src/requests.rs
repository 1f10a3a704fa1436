//! Requests as simulations take them: keys as dense numbers, in blocks of columns.
//!
//! A [`Recording`] holds a whole trace in 4 to 12 bytes a request; [`Stream`] holds one block at a
//! time. Simulations cannot tell them apart.

use crate::interner::{Interner, mix};
use crate::trace::{Position, Trace, TraceError};

/// Requests per block: enough that a simulation's own data stays cached while it works on one, and few
/// enough that an interruption is noticed at once.
pub const BLOCK_REQUESTS: usize = 1 << 16;

/// One request, with its key as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The key's number: dense, from 0 in the order of first appearance.
    pub id: u32,
    /// The object's size; 1 where the trace has none.
    pub size_bytes: u32,
    /// When, in seconds; 0 where the trace has no times or nobody needs them.
    pub time_seconds: u32,
    /// What a server's policies would see of the key.
    pub fingerprint: u64,
}

/// Fingerprints of a block's requests.
#[derive(Clone, Copy)]
enum Fingerprints<'a> {
    ById(&'a [u64]),
    ByRequest(&'a [u64]),
}

/// A run of consecutive requests.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    ids: &'a [u32],
    /// Empty where every size is 1.
    sizes: &'a [u32],
    /// Empty where nobody needs times.
    times: &'a [u32],
    fingerprints: Fingerprints<'a>,
    distinct: usize,
}

impl<'a> Block<'a> {
    /// Number of requests.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The keys' numbers.
    #[must_use]
    pub const fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Sizes in bytes; `None` where all are 1.
    #[must_use]
    pub fn sizes(&self) -> Option<&'a [u32]> {
        (!self.sizes.is_empty()).then_some(self.sizes)
    }

    /// Times in seconds; `None` where they were not kept.
    #[must_use]
    pub fn times(&self) -> Option<&'a [u32]> {
        (!self.times.is_empty()).then_some(self.times)
    }

    /// All numbers so far are below this.
    #[must_use]
    pub const fn distinct(&self) -> usize {
        self.distinct
    }

    /// What a server's policies would see of the key of the request at this index.
    #[must_use]
    pub fn fingerprint(&self, index: usize) -> u64 {
        match self.fingerprints {
            Fingerprints::ById(all) => all[self.ids[index] as usize],
            Fingerprints::ByRequest(all) => all[index],
        }
    }

    /// The sum of all sizes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sizes().map_or(self.len() as u64, |sizes| sizes.iter().copied().map(u64::from).sum())
    }

    /// The requests one by one.
    pub fn iter(&self) -> impl Iterator<Item = Request> + use<'a> {
        let block = *self;
        (0..self.len()).map(move |index| Request {
            id: block.ids[index],
            size_bytes: block.sizes.get(index).copied().unwrap_or(1),
            time_seconds: block.times.get(index).copied().unwrap_or(0),
            fingerprint: block.fingerprint(index),
        })
    }
}

/// What is known of a trace, as far as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Requests.
    pub requests: u64,
    /// Distinct objects: the footprint in items.
    pub distinct: u64,
    /// The sum of the distinct objects' sizes, as they were first seen: the footprint in bytes.
    pub footprint_bytes: u64,
    /// The largest size of a request, and where the first of that size is.
    pub largest: (u32, Position),
}

impl Survey {
    fn take(&mut self, size_bytes: u32, is_new: bool, trace: &Trace) {
        self.requests += 1;
        if is_new {
            self.distinct += 1;
            self.footprint_bytes += u64::from(size_bytes);
        }
        if size_bytes > self.largest.0 {
            self.largest = (size_bytes, trace.position());
        }
    }
}

/// A trace whose keys become numbers as it is read: an iterator over its requests that ends after
/// the first error.
pub struct Requests {
    trace: Trace,
    interner: Interner,
    survey: Survey,
    failed: bool,
}

impl Requests {
    /// Requests of a trace from its beginning.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        Self { trace, interner: Interner::default(), survey: Survey::default(), failed: false }
    }

    /// What is known so far.
    #[must_use]
    pub const fn survey(&self) -> &Survey {
        &self.survey
    }
}

impl Iterator for Requests {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let (id, size_bytes, time_seconds, is_new) = match self.trace.read() {
            Ok(Some(raw)) => {
                let distinct = self.interner.len();
                let id = self.interner.intern(raw.key);
                // An object costs something even where the trace says 0.
                let size_bytes = raw.size_bytes.unwrap_or(1).max(1);
                (id, size_bytes, raw.time_seconds.unwrap_or(0), id as usize == distinct)
            }
            Ok(None) => return None,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        self.survey.take(size_bytes, is_new, &self.trace);
        let fingerprint = self.interner.fingerprints()[id as usize];
        Some(Ok(Request { id, size_bytes, time_seconds, fingerprint }))
    }
}

const NOT_SAMPLED: u32 = u32::MAX;

/// Whether a sample of this rate holds the key. Policies use the fingerprint's bits as they are, so the sample is chosen
/// by others: or a sketch of its keys would see a part of its counters only.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is between 0 and 1")]
fn is_sampled(fingerprint: u64, rate: f64) -> bool {
    const TWO_TO_53: f64 = 9_007_199_254_740_992.0;
    mix(mix(fingerprint)) >> 11 < (rate * TWO_TO_53) as u64
}

/// A whole trace in memory.
#[derive(Default)]
pub struct Recording {
    ids: Vec<u32>,
    /// Empty as long as every size is 1.
    sizes: Vec<u32>,
    times: Vec<u32>,
    fingerprints: Vec<u64>,
    survey: Survey,
}

impl Recording {
    /// Reads a trace to its end, or to its first error, which comes with what there is until then.
    /// Times are kept only where they are needed. `go_on` is asked now and then.
    pub fn of(
        trace: Trace,
        keep_times: bool,
        mut go_on: impl FnMut() -> bool,
    ) -> (Self, Result<(), TraceError>) {
        let mut requests = Requests::new(trace);
        let mut recording = Self::default();
        let mut outcome = Ok(());
        for request in &mut requests {
            match request {
                Ok(request) => recording.push(request, keep_times),
                Err(error) => outcome = Err(error),
            }
            if recording.ids.len().is_multiple_of(BLOCK_REQUESTS) && !go_on() {
                break;
            }
        }
        recording.fingerprints = requests.interner.into_fingerprints();
        recording.survey = requests.survey;
        (recording, outcome)
    }

    fn push(&mut self, request: Request, keep_times: bool) {
        if request.size_bytes != 1 && self.sizes.is_empty() {
            self.sizes = vec![1; self.ids.len()];
        }
        self.ids.push(request.id);
        if request.size_bytes != 1 || !self.sizes.is_empty() {
            self.sizes.push(request.size_bytes);
        }
        if keep_times {
            self.times.push(request.time_seconds);
        }
    }

    /// The requests to a share of the objects, chosen by a hash of their keys. A sample of a sample, at a lower
    /// rate, is the sample of the whole at that rate.
    #[must_use]
    pub fn sample(&self, rate: f64) -> Self {
        let mut sample = Self::default();
        let mut numbers = vec![NOT_SAMPLED; self.fingerprints.len()];
        let mut next = 0;
        for (number, &fingerprint) in numbers.iter_mut().zip(&self.fingerprints) {
            if is_sampled(fingerprint, rate) {
                *number = next;
                next += 1;
                sample.fingerprints.push(fingerprint);
            }
        }
        for (index, &id) in self.ids.iter().enumerate() {
            let number = numbers[id as usize];
            if number == NOT_SAMPLED {
                continue;
            }
            sample.ids.push(number);
            sample.sizes.extend(self.sizes.get(index));
            sample.times.extend(self.times.get(index));
        }
        sample.survey.requests = sample.ids.len() as u64;
        sample.survey.distinct = sample.fingerprints.len() as u64;
        sample
    }

    /// What is known of the trace.
    #[must_use]
    pub const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// All requests as one block.
    #[must_use]
    pub fn whole(&self) -> Block<'_> {
        Block {
            ids: &self.ids,
            sizes: &self.sizes,
            times: &self.times,
            fingerprints: Fingerprints::ById(&self.fingerprints),
            distinct: self.fingerprints.len(),
        }
    }

    /// The requests in blocks of [`BLOCK_REQUESTS`].
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        (0..self.ids.len()).step_by(BLOCK_REQUESTS).map(|start| {
            let end = self.ids.len().min(start + BLOCK_REQUESTS);
            Block {
                ids: &self.ids[start..end],
                sizes: self.sizes.get(start..end).unwrap_or_default(),
                times: self.times.get(start..end).unwrap_or_default(),
                ..self.whole()
            }
        })
    }
}

/// A buffer for one block of a trace that is read as it is simulated.
#[derive(Default)]
pub struct Stream {
    ids: Vec<u32>,
    sizes: Vec<u32>,
    times: Vec<u32>,
    fingerprints: Vec<u64>,
    distinct: usize,
}

impl Stream {
    /// Replaces the content by the next block; an empty one at the end. Before an error comes what
    /// could be read.
    pub fn fill(&mut self, requests: &mut Requests) -> Result<(), TraceError> {
        self.ids.clear();
        self.sizes.clear();
        self.times.clear();
        self.fingerprints.clear();
        let mut outcome = Ok(());
        for request in requests.by_ref().take(BLOCK_REQUESTS) {
            match request {
                Ok(request) => {
                    self.ids.push(request.id);
                    self.sizes.push(request.size_bytes);
                    self.times.push(request.time_seconds);
                    self.fingerprints.push(request.fingerprint);
                }
                Err(error) => outcome = Err(error),
            }
        }
        self.distinct = requests.interner.len();
        outcome
    }

    /// The block in the buffer.
    #[must_use]
    pub fn block(&self) -> Block<'_> {
        Block {
            ids: &self.ids,
            sizes: &self.sizes,
            times: &self.times,
            fingerprints: Fingerprints::ByRequest(&self.fingerprints),
            distinct: self.distinct,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::trace::{Column, CsvOptions, Format, TraceOptions};

    pub(crate) fn trace(rows: &str) -> Trace {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(rows.as_bytes()).unwrap();
        let [key, size, time] = [1, 2, 3].map(|index| Some(Column::Index(index)));
        let time = time.filter(|_| rows.lines().all(|row| row.split(',').count() == 3));
        let csv = CsvOptions { key, size, time, header: Some(false), delimiter: Some(b',') };
        let options = TraceOptions { format: Format::Csv, csv, numeric_keys: false };
        Trace::open(file.path(), &options, Arc::default()).unwrap()
    }

    /// Rows of key, size and perhaps time.
    pub(crate) fn recording(rows: &str) -> Recording {
        let (recording, outcome) = Recording::of(trace(rows), true, || true);
        outcome.unwrap();
        recording
    }

    #[test]
    fn a_recording_and_a_stream_hand_out_the_same_requests() {
        use std::fmt::Write as _;

        let mut rows = String::new();
        for turn in 0..BLOCK_REQUESTS + 10 {
            writeln!(rows, "{},{},{turn}", turn * turn % 977, 1 + turn % 5).unwrap();
        }
        let recording = recording(&rows);
        let recorded: Vec<Request> = recording.blocks().flat_map(|block| block.iter()).collect();
        let mut requests = Requests::new(trace(&rows));
        let mut stream = Stream::default();
        let mut streamed = Vec::new();
        loop {
            stream.fill(&mut requests).unwrap();
            if stream.block().is_empty() {
                break;
            }
            streamed.extend(stream.block().iter());
        }
        assert_eq!(recorded.len(), BLOCK_REQUESTS + 10);
        assert!(recorded == streamed);
        assert_eq!(recording.survey(), requests.survey());
        assert_eq!(recording.survey().distinct, 489);
    }

    #[test]
    fn a_survey_knows_the_footprint_and_where_the_largest_object_is() {
        let survey = *recording("a,10\nb,1\na,12\nc,30\nd,30\n").survey();
        assert_eq!((survey.requests, survey.distinct, survey.footprint_bytes), (5, 4, 71));
        assert_eq!(survey.largest, (30, Position { record: 4, line: Some(4), byte: 14 }));
    }

    #[test]
    fn what_comes_before_an_error_is_not_lost() {
        let (recording, outcome) = Recording::of(trace("a,1\nb,x\nc,1\n"), false, || true);
        assert_eq!(recording.survey().requests, 1);
        assert!(outcome.unwrap_err().to_string().contains("record 2 (line 2, byte 4): the size is \"x\""));
    }
}
