//! Reads a recorded sequence of requests, one record at a time, however long the file is.
//!
//! Two formats: text with one key a line, and libCacheSim's oracleGeneral (packed little-endian
//! records of 24 bytes: u32 time, u64 object, u32 size, i64 next request). Either may be zstd.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use crate::cli::error::os_reason;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ORACLE_GENERAL_BYTES: usize = 24;
/// No server takes a key as long as this: a longer line is a binary file taken for text.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// How a trace file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// By the file's name, else by its first bytes
    #[default]
    Auto,
    /// One key a line
    Text,
    /// libCacheSim's binary records
    OracleGeneral,
}

/// One request of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The key: a line of text, or the object's number in decimal.
    pub(super) key: String,
    /// The object's size in bytes, where the format has one.
    pub(super) size_bytes: Option<u32>,
}

/// A trace that cannot be read, or no further.
#[derive(Debug, thiserror::Error)]
#[error("{}: record {record} (byte {byte}): {problem}", path.display())]
pub(in crate::cli) struct TraceError {
    path: PathBuf,
    /// The record at fault, counted from 1.
    record: u64,
    /// Where it starts, in the decompressed data.
    byte: u64,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{}", os_reason(.0))]
    Io(io::Error),
    #[error("the file ends after {0} of {ORACLE_GENERAL_BYTES} bytes")]
    Truncated(usize),
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
}

/// An open trace: an iterator over its records that ends after the first error.
pub(super) struct Trace {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    binary: bool,
    records: u64,
    bytes: u64,
    failed: bool,
}

/// Opens a trace. `consumed` counts the bytes read from the file, compressed or not.
pub(super) fn open(path: &Path, format: Format, consumed: Arc<AtomicU64>) -> Result<Trace, TraceError> {
    let failed =
        |error| TraceError { path: path.to_owned(), record: 1, byte: 0, problem: Problem::Io(error) };
    let mut reader = decompressed(path, consumed).map_err(failed)?;
    let binary = match format {
        Format::Text => false,
        Format::OracleGeneral => true,
        Format::Auto => match format_of_name(path) {
            Some(format) => format == Format::OracleGeneral,
            None => reader.fill_buf().map_err(failed)?.contains(&0),
        },
    };
    Ok(Trace { path: path.to_owned(), reader, binary, records: 0, bytes: 0, failed: false })
}

fn decompressed(path: &Path, consumed: Arc<AtomicU64>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(128 * 1024, Counting { file: File::open(path)?, consumed });
    let named_zst = path.extension().is_some_and(|extension| extension == "zst");
    if !named_zst && !file.fill_buf()?.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(file));
    }
    let mut decoder = zstd::Decoder::with_buffer(file)?;
    // Archives packed with --long need more than the default window.
    decoder.window_log_max(31)?;
    Ok(Box::new(BufReader::with_capacity(128 * 1024, decoder)))
}

fn format_of_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    if name.contains("oraclegeneral") {
        return Some(Format::OracleGeneral);
    }
    let uncompressed = Path::new(name.strip_suffix(".zst").unwrap_or(&name));
    (uncompressed.extension()? == "txt").then_some(Format::Text)
}

impl Trace {
    /// Whether the records have sizes.
    pub(super) fn has_sizes(&self) -> bool {
        self.binary
    }

    fn next_binary(&mut self) -> Result<Option<Record>, Problem> {
        let mut bytes = [0; ORACLE_GENERAL_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Problem::Truncated(filled)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Io(error)),
            }
        }
        self.bytes += ORACLE_GENERAL_BYTES as u64;
        let [_, _, _, _, o0, o1, o2, o3, o4, o5, o6, o7, s0, s1, s2, s3, ..] = bytes;
        let object = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok(Some(Record { key: object.to_string(), size_bytes: Some(size) }))
    }

    fn next_line(&mut self) -> Result<Option<Record>, Problem> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.reader)
                .take(MAX_LINE_BYTES as u64 + 1)
                .read_until(b'\n', &mut line)
                .map_err(Problem::Io)?;
            if read == 0 {
                return Ok(None);
            }
            if read > MAX_LINE_BYTES {
                return Err(Problem::LineTooLong);
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let line = String::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
            self.bytes += read as u64;
            // A blank line is no key.
            if !line.is_empty() {
                return Ok(Some(Record { key: line, size_bytes: None }));
            }
        }
    }
}

impl Iterator for Trace {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = if self.binary { self.next_binary() } else { self.next_line() };
        match record {
            Ok(record) => {
                self.records += 1;
                record.map(Ok)
            }
            Err(problem) => {
                self.failed = true;
                let path = self.path.clone();
                Some(Err(TraceError { path, record: self.records + 1, byte: self.bytes, problem }))
            }
        }
    }
}

struct Counting {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(name: &str, content: &[u8], format: Format) -> (Vec<Record>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let (mut good, mut bad) = (Vec::new(), None);
        for record in open(&path, format, Arc::default()).unwrap() {
            match record {
                Ok(record) => good.push(record),
                Err(error) => bad = Some(error.to_string()),
            }
        }
        (good, bad)
    }

    fn keys(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| record.key.as_str()).collect()
    }

    fn binary(objects: &[(u64, u32)]) -> Vec<u8> {
        objects
            .iter()
            .flat_map(|(object, size)| {
                let parts: [&[u8]; 4] =
                    [&[0; 4], &object.to_le_bytes(), &size.to_le_bytes(), &(-1_i64).to_le_bytes()];
                parts.concat()
            })
            .collect()
    }

    #[test]
    fn text_is_taken_verbatim_line_by_line() {
        let (good, bad) = records("t", b"a b\r\n\n007\nlast", Format::Auto);
        assert_eq!(keys(&good), ["a b", "007", "last"]);
        assert_eq!(bad, None);
    }

    #[test]
    fn both_formats_are_recognised_plain_and_compressed() {
        let packed = zstd::encode_all(&binary(&[(7, 1), (u64::MAX, 4096)])[..], 1).unwrap();
        for (name, content) in [("t.oracleGeneral", binary(&[(7, 1), (u64::MAX, 4096)])), ("t", packed)] {
            let (good, bad) = records(name, &content, Format::Auto);
            assert_eq!(keys(&good), ["7", "18446744073709551615"], "{name}");
            assert_eq!(good[1].size_bytes, Some(4096));
            assert_eq!(bad, None);
        }
        let (good, _) = records("t.txt.zst", &zstd::encode_all(&b"1\n2\n"[..], 1).unwrap(), Format::Auto);
        assert_eq!(keys(&good), ["1", "2"]);
    }

    #[test]
    fn a_damaged_file_says_where() {
        let mut cut = binary(&[(1, 1), (2, 1)]);
        cut.truncate(30);
        let (good, bad) = records("t.oracleGeneral", &cut, Format::Auto);
        assert_eq!(keys(&good), ["1"]);
        assert!(bad.unwrap().ends_with("record 2 (byte 24): the file ends after 6 of 24 bytes"));

        let (good, bad) = records("t", b"ok\n\xff\n", Format::Text);
        assert_eq!(keys(&good), ["ok"]);
        assert!(bad.unwrap().ends_with("record 2 (byte 3): the line is not UTF-8"));

        let (_, bad) = records("t", &vec![b'x'; MAX_LINE_BYTES + 2], Format::Text);
        assert!(bad.unwrap().ends_with("the line is longer than 65536 bytes"));

        let mut packed = zstd::encode_all(&b"1\n2\n"[..], 1).unwrap();
        packed.truncate(packed.len() - 3);
        assert!(records("t.zst", &packed, Format::Text).1.is_some());
        assert!(records("t.zst", b"1\n2\n", Format::Text).1.is_some());
    }
}
