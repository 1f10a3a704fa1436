//! Requests as simulations take them: keys as dense numbers, in blocks of columns.
//!
//! A [`Recording`] holds a whole trace in 4 to 13 bytes a request; [`Stream`] holds one block at a
//! time. Simulations cannot tell them apart.

use std::ops::Range;

use crate::interner::{Interner, mix};
use crate::trace::{Operation, Position, Run, Trace, TraceError};

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
    /// What it does.
    pub operation: Operation,
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
    /// Empty where all are reads.
    operations: &'a [Operation],
    /// Empty where the block is not of a sample.
    places: &'a [u32],
    fingerprints: Fingerprints<'a>,
    distinct: usize,
}

impl<'a> Block<'a> {
    /// Number of requests, those that are not counted included.
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

    /// What requests do; `None` where all are reads.
    #[must_use]
    pub fn operations(&self) -> Option<&'a [Operation]> {
        (!self.operations.is_empty()).then_some(self.operations)
    }

    /// Number of reads: what requests are counted by.
    #[must_use]
    pub fn reads(&self) -> u64 {
        let reads =
            |operations: &[Operation]| operations.iter().filter(|&&kind| kind == Operation::Read).count();
        self.operations().map_or(self.len(), reads) as u64
    }

    /// In a sample: how many requests of the whole trace come before each, modulo 2^32.
    #[must_use]
    pub fn places(&self) -> Option<&'a [u32]> {
        (!self.places.is_empty()).then_some(self.places)
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

    /// The sum of all sizes of reads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.operations().is_some() {
            let reads = self.iter().filter(|request| request.operation == Operation::Read);
            return reads.map(|request| u64::from(request.size_bytes)).sum();
        }
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
            operation: block.operations.get(index).copied().unwrap_or_default(),
        })
    }
}

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

/// Requests in columns, as blocks show them.
#[derive(Default)]
struct Columns {
    ids: Vec<u32>,
    /// Empty as long as every size is 1.
    sizes: Vec<u32>,
    /// Empty where nobody needs times.
    times: Vec<u32>,
    /// Empty as long as all are reads.
    operations: Vec<Operation>,
    keep_times: bool,
    /// Empty where this is not a sample.
    places: Vec<u32>,
}

impl Columns {
    fn clear(&mut self) {
        self.ids.clear();
        self.sizes.clear();
        self.times.clear();
        self.operations.clear();
    }

    /// Appends what belongs to the ids that were appended before it: the trace's sizes and times, where it tells them. All of
    /// them do the same.
    fn extend(&mut self, sizes_bytes: &[u32], times_seconds: &[u32], operation: Operation, known: usize) {
        if operation != Operation::Read || !self.operations.is_empty() {
            self.operations.resize(known, Operation::Read);
            self.operations.resize(self.ids.len(), operation);
        }
        if !self.sizes.is_empty() || sizes_bytes.iter().any(|size| *size > 1) {
            self.sizes.resize(self.ids.len() - sizes_bytes.len(), 1);
            // An object costs something even where the trace says 0.
            self.sizes.extend(sizes_bytes.iter().map(|size| (*size).max(1)));
        }
        if self.keep_times {
            self.times.resize(self.ids.len() - times_seconds.len(), 0);
            self.times.extend_from_slice(times_seconds);
        }
    }

    fn block<'a>(
        &'a self,
        requests: Range<usize>,
        fingerprints: Fingerprints<'a>,
        distinct: usize,
    ) -> Block<'a> {
        Block {
            ids: &self.ids[requests.clone()],
            sizes: self.sizes.get(requests.clone()).unwrap_or_default(),
            times: self.times.get(requests.clone()).unwrap_or_default(),
            operations: self.operations.get(requests.clone()).unwrap_or_default(),
            places: self.places.get(requests).unwrap_or_default(),
            fingerprints,
            distinct,
        }
    }
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

const NOT_SAMPLED: u32 = u32::MAX;

/// What decides which of a few alike objects a sample holds. Policies use the fingerprint's bits as they are, so this
/// takes others: or a sketch of the sample's keys would see a part of its counters only.
fn lot(fingerprint: u64) -> u64 {
    mix(mix(fingerprint))
}

/// Objects with counts of the same bucket are requested about as often.
fn bucket(count: u32) -> u32 {
    let log = count.max(1).ilog2();
    let half = (count >> log.saturating_sub(1)) & 1;
    2 * log + half
}

/// A whole trace in memory.
#[derive(Default)]
pub struct Recording {
    columns: Columns,
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
        let mut columns = Columns { keep_times, ..Columns::default() };
        let mut outcome;
        loop {
            let before = columns.ids.len();
            outcome = requests.read(&mut columns, BLOCK_REQUESTS);
            if columns.ids.len() == before || outcome.is_err() || !go_on() {
                break;
            }
        }
        let Requests { interner, survey, .. } = requests;
        (Self { columns, fingerprints: interner.into_fingerprints(), survey }, outcome)
    }

    /// The requests to so many of the objects: one out of each run of alike ones, the one with the lowest hash. Alike
    /// are objects that are requested about as often, and neighbours those whose first requests are; so the
    /// sample's popularity and its arrivals over time are the whole's, which leaves little to luck.
    #[must_use]
    pub fn sample(&self, objects: u64) -> Self {
        let objects = usize::try_from(objects).unwrap_or(usize::MAX).min(self.fingerprints.len());
        let counts = self.counts();
        let mut alike: Vec<(u32, u32)> =
            (0u32..).zip(&counts).map(|(id, &count)| (bucket(count), id)).collect();
        alike.sort_unstable();
        let mut numbers = vec![NOT_SAMPLED; counts.len()];
        let ends = (1..=objects).map(|run| run * alike.len() / objects);
        let mut start = 0;
        for end in ends {
            let run = alike[start..end].iter();
            if let Some(&(_, chosen)) = run.min_by_key(|(_, id)| lot(self.fingerprints[*id as usize])) {
                numbers[chosen as usize] = 0;
            }
            start = end;
        }
        let mut sample = Self::default();
        let chosen = numbers.iter_mut().zip(&self.fingerprints).filter(|(number, _)| **number == 0);
        for (next, (number, &fingerprint)) in (0..).zip(chosen) {
            *number = next;
            sample.fingerprints.push(fingerprint);
        }
        let Columns { ids, sizes, times, operations, places, .. } = &self.columns;
        let columns = &mut sample.columns;
        for (index, (&id, number_in_trace)) in ids.iter().zip((0..=u32::MAX).cycle()).enumerate() {
            let number = numbers[id as usize];
            if number == NOT_SAMPLED {
                continue;
            }
            columns.ids.push(number);
            columns.sizes.extend(sizes.get(index));
            columns.times.extend(times.get(index));
            columns.operations.extend(operations.get(index));
            columns.places.push(places.get(index).copied().unwrap_or(number_in_trace));
        }
        sample.survey.requests = sample.whole().reads();
        sample.survey.distinct = sample.fingerprints.len() as u64;
        sample
    }

    /// How often each object is requested.
    fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; self.fingerprints.len()];
        for &id in &self.columns.ids {
            counts[id as usize] += 1;
        }
        counts
    }

    /// What is known of the trace.
    #[must_use]
    pub const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// All requests as one block.
    #[must_use]
    pub fn whole(&self) -> Block<'_> {
        let (fingerprints, distinct) = (Fingerprints::ById(&self.fingerprints), self.fingerprints.len());
        self.columns.block(0..self.columns.ids.len(), fingerprints, distinct)
    }

    /// The requests in blocks of [`BLOCK_REQUESTS`].
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let (fingerprints, distinct) = (Fingerprints::ById(&self.fingerprints), self.fingerprints.len());
        let requests = self.columns.ids.len();
        (0..requests).step_by(BLOCK_REQUESTS).map(move |start| {
            self.columns.block(start..requests.min(start + BLOCK_REQUESTS), fingerprints, distinct)
        })
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

    /// Lines such as "get a 10", of a log: get, set or delete, key, size and perhaps time.
    pub(crate) fn log(lines: &str) -> Recording {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in lines.split(", ") {
            let words: Vec<&str> = line.split(' ').collect();
            let time = words.get(3).copied().unwrap_or("0");
            let [op, key, size] = [words[0], words[1], words[2]];
            writeln!(file, "{{\"op\":\"{op}\",\"key\":\"{key}\",\"size\":{size},\"ts\":{time}}}").unwrap();
        }
        let options = TraceOptions { format: Format::AccessLog, ..TraceOptions::default() };
        let trace = Trace::open(file.path(), &options, Arc::default()).unwrap();
        let (recording, outcome) = Recording::of(trace, true, || true);
        outcome.unwrap();
        recording
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
    fn only_reads_count_and_a_sample_keeps_what_each_request_does() {
        assert!(recording("a,1\n").whole().operations().is_none());
        let recording = log("get a 1, set b 5, delete a 1, get b 5, get a 2");
        let survey = *recording.survey();
        assert_eq!((survey.requests, survey.distinct, survey.footprint_bytes), (3, 2, 6));
        assert_eq!((recording.whole().reads(), recording.whole().bytes()), (3, 8));
        let all: Vec<Request> = recording.whole().iter().collect();
        let sample = recording.sample(2);
        assert!(all == sample.whole().iter().collect::<Vec<_>>());
        assert_eq!(*sample.survey(), Survey { requests: 3, distinct: 2, ..Survey::default() });
        assert_eq!(all.iter().filter(|request| request.operation == Operation::Write).count(), 1);
    }

    #[test]
    fn a_sample_holds_every_request_to_as_many_popular_and_early_objects_as_the_whole() {
        // Objects 0 to 99 are requested 8 times and come first, 100 to 899 once.
        let mut rows = String::new();
        for turn in 0..8 {
            rows.extend((0..100).map(|object| format!("{object},{}\n", 1 + turn)));
        }
        rows.extend((100..900).map(|object| format!("{object},1\n")));
        let whole = recording(&rows);
        for sample in [whole.sample(90), whole.sample(450).sample(90)] {
            assert_eq!(sample.survey().distinct, 90);
            let mut counts: Vec<u32> = sample.counts();
            counts.sort_unstable();
            assert_eq!(counts, [vec![1; 80], vec![8; 10]].concat());
            let whole: Vec<Request> = whole.whole().iter().collect();
            let block = sample.whole();
            let places = block.places().unwrap();
            for (request, place) in block.iter().zip(places) {
                let there = whole[*place as usize];
                assert_eq!((there.fingerprint, there.size_bytes), (request.fingerprint, request.size_bytes));
            }
            // Of every 50 objects that come once after each other, 5 are there.
            let late: Vec<u32> = places.iter().copied().filter(|place| *place >= 800).collect();
            assert!(
                late.chunks(5)
                    .zip((800..).step_by(50))
                    .all(|(five, start)| five.iter().all(|place| (start..start + 50).contains(place)))
            );
        }
        assert_eq!(whole.sample(0).survey().requests, 0);
        assert_eq!(whole.sample(10_000).survey().requests, whole.survey().requests);
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

    #[test]
    fn runs_of_numbers_are_the_requests_and_end_in_the_error_that_single_reads_do() {
        let lines = (0..40_000_u64).map(|turn| (turn.pow(3) % 99_999_999_977).to_string());
        let numbers = lines.collect::<Vec<_>>().join("\n") + "\n";
        let mut records = Vec::new();
        for object in 0..9_000_u64 {
            let size = u32::try_from(object % 700).unwrap();
            records.extend([&[0; 4][..], &object.to_le_bytes(), &size.to_le_bytes(), &[255; 8]].concat());
        }
        records.extend([7; 30]);
        for (format, content) in [
            (Format::Text, numbers.clone().into_bytes()),
            (
                Format::Text,
                [numbers.as_bytes(), b"a\r\n\n007\n5\r\n", numbers.as_bytes(), b"\xff\n"].concat(),
            ),
            (Format::OracleGeneral, records),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&content).unwrap();
            let options = TraceOptions { format, ..TraceOptions::default() };
            let open = || Trace::open(file.path(), &options, Arc::default()).unwrap();
            let (mut one_by_one, mut expected, mut largest) = (open(), Vec::new(), (0, Position::default()));
            let mut footprint = std::collections::HashMap::new();
            let error = loop {
                let size_bytes = match one_by_one.read() {
                    Ok(Some(raw)) => {
                        let size_bytes = raw.size_bytes.unwrap_or(1).max(1);
                        expected.push((raw.key.fingerprint(), size_bytes));
                        footprint.entry(raw.key.fingerprint()).or_insert(u64::from(size_bytes));
                        size_bytes
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                };
                if size_bytes > largest.0 {
                    largest = (size_bytes, one_by_one.position());
                }
            };
            let (recording, outcome) = Recording::of(open(), false, || true);
            let found: Vec<_> =
                recording.whole().iter().map(|request| (request.fingerprint, request.size_bytes)).collect();
            assert!(found == expected, "{format:?}");
            assert_eq!(outcome.err().map(|error| error.to_string()), error);
            assert_eq!(recording.survey().largest, largest);
            assert_eq!(recording.survey().footprint_bytes, footprint.values().sum::<u64>());
        }
    }
}
