//! A trace in any format, packed or not: the same requests and the same mistake however the bytes arrive, and the same once more as a recording.
//! Lines of text are held against a naive reading of them.
//!
//! The input: format, packing, size of a read, columns; then the content.
#![no_main]

use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use simulator::Recording;
use simulator::trace::{Column, CsvOptions, Format, Operation, Trace, TraceKey, TraceOptions};

/// Of a trace that is packed by others: a few bytes can be as many requests as one likes.
const MAX_REQUESTS: usize = 20_000;

/// Hands bytes out a few at a time.
struct Trickle {
    content: Vec<u8>,
    start: usize,
    step: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.content[self.start..];
        let read = rest.len().min(self.step).min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.start += read;
        Ok(read)
    }
}

#[derive(Debug, PartialEq)]
struct Request {
    key: String,
    fingerprint: u64,
    size: Option<u32>,
    time: Option<u32>,
    operation: Operation,
}

type Outcome = (Vec<Request>, Option<String>);

fn open(content: &[u8], step: usize, options: &TraceOptions) -> Result<Trace, String> {
    let content = Trickle { content: content.to_vec(), start: 0, step };
    Trace::of(Path::new("trace"), content, options).map_err(|error| error.to_string())
}

fn read(content: &[u8], step: usize, options: &TraceOptions) -> Outcome {
    let mut trace = match open(content, step, options) {
        Ok(trace) => trace,
        Err(error) => return (vec![], Some(error)),
    };
    let mut requests = Vec::new();
    while requests.len() < MAX_REQUESTS {
        match trace.read() {
            Ok(Some(raw)) => {
                if let TraceKey::Text(text) = raw.key {
                    assert_eq!(TraceKey::of_text(text), raw.key, "a number is read as one");
                }
                requests.push(Request {
                    key: raw.key.to_string(),
                    fingerprint: raw.key.fingerprint(),
                    size: raw.size_bytes,
                    time: raw.time_seconds,
                    operation: raw.operation,
                });
            }
            Ok(None) => return (requests, None),
            Err(error) => return (requests, Some(error.to_string())),
        }
    }
    (requests, None)
}

fn packed(content: &[u8], packing: u8) -> Vec<u8> {
    match packing % 3 {
        1 => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).expect("into memory");
            encoder.finish().expect("into memory")
        }
        2 => zstd::encode_all(content, 1).expect("into memory"),
        _ => content.to_vec(),
    }
}

fn is_packed(content: &[u8]) -> bool {
    content.starts_with(&[0x1f, 0x8b]) || content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

fn check_recording(content: &[u8], step: usize, options: &TraceOptions, expected: &Outcome) {
    let Ok(trace) = open(content, step, options) else { return };
    let (recording, outcome) = Recording::of(trace, true, || true);
    assert_eq!(outcome.err().map(|error| error.to_string()), expected.1, "the same end");
    let mut requests = expected.0.iter();
    for block in recording.blocks() {
        for request in block.iter() {
            let expected = requests.next().expect("no more than were read");
            assert_eq!(request.fingerprint, expected.fingerprint, "{expected:?}");
            assert_eq!(request.size_bytes, expected.size.unwrap_or(1).max(1), "{expected:?}");
            assert_eq!(request.time_seconds, expected.time.unwrap_or(0), "{expected:?}");
            assert_eq!(request.operation, expected.operation, "{expected:?}");
        }
    }
    assert_eq!(requests.next(), None, "and no fewer");
    let distinct: std::collections::HashSet<&str> =
        expected.0.iter().map(|request| request.key.as_str()).collect();
    assert_eq!(recording.survey().distinct, distinct.len() as u64);
}

/// Keys of lines of text, as far as they can be read.
fn check_text(content: &[u8], (requests, _): &Outcome) {
    let lines = content.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty());
    for (line, request) in lines.zip(requests) {
        assert_eq!(request.key.as_bytes(), line);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[format, packing, step, columns], content)) = data.split_first_chunk() else { return };
    let format = [Format::Auto, Format::OracleGeneral, Format::Text, Format::Csv, Format::AccessLog]
        [usize::from(format) % 5];
    let column = |shift: u8| match columns >> shift & 3 {
        0 => None,
        3 => Some(Column::Name("key".to_owned())),
        index => Some(Column::Index(usize::from(index))),
    };
    let options = TraceOptions {
        format,
        csv: CsvOptions { key: column(0), size: column(2), time: column(4), ..CsvOptions::default() },
        numeric_keys: columns >= 192,
    };
    let step = usize::from(step).max(1);
    let whole = read(content, usize::MAX, &options);
    assert_eq!(read(content, step, &options), whole, "however it arrives");
    // What is packed already can unpack to more than one wants to read twice.
    if whole.0.len() == MAX_REQUESTS || is_packed(content) {
        return;
    }
    if !content.is_empty() {
        assert_eq!(read(&packed(content, packing), step, &options), whole, "packed");
    }
    check_recording(content, step, &options, &whole);
    if format == Format::Text {
        check_text(content, &whole);
    }
});
