//! One operation on its way from the request to the file, and the line that it becomes.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::TraceId;

use crate::telemetry::operations::{OperationKind, OperationResult};

/// A key as it will be told.
pub(super) enum LoggedKey {
    Hash(u64),
    Text(Box<str>),
}

/// What a line tells.
pub(super) struct Record {
    pub(super) at: SystemTime,
    pub(super) kind: OperationKind,
    pub(super) result: OperationResult,
    /// Empty for the shared keyspace, and then without an allocation.
    pub(super) namespace: Box<str>,
    pub(super) key: LoggedKey,
    /// Namespace and name.
    pub(super) key_bytes: usize,
    pub(super) value_bytes: Option<u64>,
    pub(super) ttl: Option<Duration>,
    pub(super) latency: Option<Duration>,
    /// A copy: the header itself is part of the buffer that it was read into, which would wait in the queue with it.
    pub(super) request_id: Option<Box<str>>,
    pub(super) trace_id: Option<TraceId>,
}

impl Record {
    /// Appends the line, its end included.
    pub(super) fn append_to(&self, lines: &mut Vec<u8>) {
        self.write(lines).expect("a vector takes all");
    }

    fn write(&self, lines: &mut Vec<u8>) -> std::io::Result<()> {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (kind, result) = (self.kind.name(), self.result.name());
        write!(lines, "{{\"ts\":{}.{:06},\"op\":\"{kind}\"", at.as_secs(), at.subsec_micros())?;
        if !self.namespace.is_empty() {
            // Letters, digits and a few signs that JSON takes as they are.
            write!(lines, ",\"namespace\":\"{}\"", self.namespace)?;
        }
        match &self.key {
            LoggedKey::Hash(hash) => write!(lines, ",\"key_hash\":\"{hash:016x}\"")?,
            LoggedKey::Text(text) => {
                lines.extend_from_slice(b",\"key\":");
                serde_json::to_writer(&mut *lines, text)?;
            }
        }
        if let Some(value_bytes) = self.value_bytes {
            let size = self.key_bytes as u64 + value_bytes;
            write!(lines, ",\"size\":{size},\"value_bytes\":{value_bytes}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(lines, ",\"ttl_seconds\":{}", ttl.as_secs())?;
        }
        write!(lines, ",\"result\":\"{result}\"")?;
        if let Some(latency) = self.latency {
            write!(lines, ",\"latency_us\":{}.{:03}", latency.as_micros(), latency.subsec_nanos() % 1000)?;
        }
        if let Some(id) = &self.request_id {
            lines.extend_from_slice(b",\"request_id\":");
            serde_json::to_writer(&mut *lines, id)?;
        }
        if let Some(id) = self.trace_id {
            write!(lines, ",\"trace_id\":\"{id}\"")?;
        }
        lines.extend_from_slice(b"}\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            at: UNIX_EPOCH + Duration::new(1_700_000_000, 1_234_567),
            kind: OperationKind::Get,
            result: OperationResult::Miss,
            namespace: "".into(),
            key: LoggedKey::Hash(0xABC),
            key_bytes: 3,
            value_bytes: None,
            ttl: None,
            latency: None,
            request_id: None,
            trace_id: None,
        }
    }

    #[test]
    fn a_line_is_json_with_what_there_is_to_tell() {
        let text = LoggedKey::Text("a\"\\\n\u{1}é".into());
        let full = Record {
            kind: OperationKind::SetIfAbsent,
            result: OperationResult::Stored,
            namespace: "web".into(),
            key: text,
            value_bytes: Some(50),
            ttl: Some(Duration::from_secs(60)),
            latency: Some(Duration::from_nanos(1_002_003)),
            request_id: Some("i\"d".into()),
            trace_id: Some(TraceId::from(0xABC)),
            ..record()
        };
        for (record, expected) in [
            (
                record(),
                r#"{"ts":1700000000.001234,"op":"get","key_hash":"0000000000000abc","result":"miss"}"#,
            ),
            (
                full,
                "{\"ts\":1700000000.001234,\"op\":\"set_if_absent\",\"namespace\":\"web\",\
                 \"key\":\"a\\\"\\\\\\n\\u0001é\",\"size\":53,\"value_bytes\":50,\"ttl_seconds\":60,\
                 \"result\":\"stored\",\"latency_us\":1002.003,\"request_id\":\"i\\\"d\",\
                 \"trace_id\":\"00000000000000000000000000000abc\"}",
            ),
        ] {
            let mut line = Vec::new();
            record.append_to(&mut line);
            assert_eq!(String::from_utf8(line.clone()).expect("text"), format!("{expected}\n"));
            serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
        }
    }
}
