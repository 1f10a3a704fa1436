//! Traces in small, and that whoever reads one gets the same requests.

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
        (Format::Text, [numbers.as_bytes(), b"a\r\n\n007\n5\r\n", numbers.as_bytes(), b"\xff\n"].concat()),
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
