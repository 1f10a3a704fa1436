//! libCacheSim's oracleGeneral: packed little-endian records of 24 bytes, each a u32 time in seconds,
//! a u64 object, a u32 size in bytes and an i64 ordinal of the object's next request, or -1.

use std::io::{BufRead, ErrorKind};

use super::{Decode, Input, Operation, Position, Problem, RawRequest, Run, TraceKey};

pub(super) const RECORD_BYTES: usize = 24;

/// Ordinals of next requests are below this in any trace that fits on a disk. Text or another
/// binary format taken for this one has something else in these eight bytes.
const MAX_ORDINAL: i64 = 1 << 48;

pub(super) struct OracleGeneral {
    input: Input,
    records: u64,
    last: Record,
}

#[derive(Default)]
struct Record {
    time_seconds: u32,
    object: u64,
    size_bytes: u32,
    next: i64,
}

impl Record {
    fn of(bytes: &[u8; RECORD_BYTES]) -> Self {
        let [t0, t1, t2, t3, o0, o1, o2, o3, o4, o5, o6, o7, s0, s1, s2, s3, next @ ..] = *bytes;
        Self {
            time_seconds: u32::from_le_bytes([t0, t1, t2, t3]),
            object: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            size_bytes: u32::from_le_bytes([s0, s1, s2, s3]),
            next: i64::from_le_bytes(next),
        }
    }

    fn is_plausible(&self) -> bool {
        (-1..MAX_ORDINAL).contains(&self.next) || self.next == i64::MAX
    }
}

impl OracleGeneral {
    pub(super) fn new(input: Input) -> Self {
        Self { input, records: 0, last: Record::default() }
    }

    /// The next record's bytes where it straddles two buffers; `None` at the end.
    fn straddling(&mut self) -> Result<Option<[u8; RECORD_BYTES]>, Problem> {
        let mut bytes = [0; RECORD_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Problem::Truncated(filled)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(bytes))
    }
}

impl Decode for OracleGeneral {
    fn advance(&mut self) -> Result<bool, Problem> {
        self.records += 1;
        let whole = self.input.fill_buf()?.first_chunk::<RECORD_BYTES>().copied();
        let bytes = if let Some(bytes) = whole {
            self.input.consume(RECORD_BYTES);
            bytes
        } else {
            let Some(bytes) = self.straddling()? else { return Ok(false) };
            bytes
        };
        let record = Record::of(&bytes);
        if !record.is_plausible() {
            let reason = format!("its next request would be number {}", record.next);
            return Err(Problem::Malformed { format: "oracle-general", reason });
        }
        self.last = record;
        Ok(true)
    }

    fn advance_by_run(&mut self, run: &mut Run, most: usize) -> Result<(), Problem> {
        let buffer = match self.input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                self.records += 1;
                return Err(error.into());
            }
        };
        let (records, _) = buffer.as_chunks();
        let records = records.iter().take(most).map(Record::of).take_while(Record::is_plausible);
        for record in records {
            run.keys.push(record.object);
            run.sizes_bytes.push(record.size_bytes);
            run.times_seconds.push(record.time_seconds);
        }
        let read = run.keys.len();
        self.input.consume(read * RECORD_BYTES);
        self.records += read as u64;
        Ok(())
    }

    fn current(&self) -> RawRequest<'_> {
        RawRequest {
            key: TraceKey::Number(self.last.object),
            size_bytes: Some(self.last.size_bytes),
            time_seconds: Some(self.last.time_seconds),
            operation: Operation::Read,
        }
    }

    fn position(&self) -> Position {
        self.position_before(0)
    }

    fn position_before(&self, requests: u64) -> Position {
        let record = self.records.saturating_sub(requests).max(1);
        Position { record, line: None, byte: (record - 1) * RECORD_BYTES as u64 }
    }

    fn has_sizes(&self) -> bool {
        true
    }

    fn has_times(&self) -> bool {
        true
    }
}
