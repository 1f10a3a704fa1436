//! Lines of the access log about whatever callers sent: each is one line of JSON that tells just that, and the simulator, which reads them as a trace, understands
//! the same keys, sizes and times, and leaves out what a simulation does by itself.
#![no_main]

#[path = "../../src/telemetry/access_log/record.rs"]
mod record;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use opentelemetry::TraceId;
use record::{LoggedKey, Record};
use serde_json::{Map, Value, json};
use simulator::trace::{Format, Operation, Trace, TraceOptions};
use tiny_cache::telemetry;
use tiny_cache::telemetry::operations::{OperationKind, OperationResult};

const NAMESPACES: [&str; 4] = ["", "", "web", "a.b_c-9"];

fn text(input: &mut Unstructured<'_>, most: u8) -> Result<String> {
    let length = usize::from(input.arbitrary::<u8>()? % most) + 1;
    let text = String::from_utf8_lossy(input.bytes(length.min(input.len()))?).into_owned();
    Ok(if text.is_empty() { "k".to_owned() } else { text })
}

fn maybe<T>(is_there: bool, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    is_there.then(make).transpose()
}

fn record(input: &mut Unstructured<'_>) -> Result<Record> {
    let [what, which, told, namespace]: [u8; 4] = input.arbitrary()?;
    let key = if which & 1 == 0 {
        LoggedKey::Text(text(input, if which < 192 { 2 } else { 100 })?.into())
    } else {
        LoggedKey::Hash(if which < 192 { which.into() } else { input.arbitrary()? })
    };
    Ok(Record {
        at: UNIX_EPOCH
            + Duration::new(input.arbitrary::<u32>()?.into(), input.int_in_range(0..=999_999_999)?),
        kind: OperationKind::ALL[usize::from(what) % OperationKind::ALL.len()],
        result: OperationResult::ALL[usize::from(what / 8) % OperationResult::ALL.len()],
        namespace: NAMESPACES[usize::from(namespace) % NAMESPACES.len()].into(),
        key,
        key_bytes: usize::from(which) + 1,
        value_bytes: maybe(told & 1 != 0, || Ok(input.arbitrary::<u64>()? >> (8 + (told & 32))))?,
        ttl: maybe(told & 2 != 0, || Ok(Duration::from_millis(input.arbitrary()?)))?,
        latency: maybe(told & 4 != 0, || Ok(Duration::from_nanos(input.arbitrary()?)))?,
        request_id: maybe(told & 8 != 0, || Ok(text(input, 128)?.into()))?,
        trace_id: maybe(told & 16 != 0, || Ok(TraceId::from(input.arbitrary::<u128>()?)))?,
    })
}

fn key(record: &Record) -> String {
    match &record.key {
        LoggedKey::Hash(hash) => format!("{hash:016x}"),
        LoggedKey::Text(text) => text.to_string(),
    }
}

fn size(record: &Record) -> Option<u64> {
    record.value_bytes.map(|value_bytes| value_bytes + record.key_bytes as u64)
}

/// Takes a number out and holds it against what it is about.
fn check_number(line: &mut Map<String, Value>, name: &str, about: f64, unit: f64) {
    let told = line.remove(name).and_then(|number| number.as_f64()).expect("a number");
    assert!((told - about).abs() <= unit + about * 1e-14, "{name}: {told}, and it is {about}");
}

fn check_line(record: &Record, line: &str) {
    let mut line: Map<String, Value> = serde_json::from_str(line).expect("one line is one object");
    let at = record.at.duration_since(UNIX_EPOCH).expect("after it");
    check_number(&mut line, "ts", at.as_secs_f64(), 1e-6);
    if let Some(latency) = record.latency {
        check_number(&mut line, "latency_us", latency.as_secs_f64() * 1e6, 1e-3);
    }
    let key_name = if matches!(record.key, LoggedKey::Hash(_)) { "key_hash" } else { "key" };
    let expected = [
        ("op", Some(json!(record.kind.name()))),
        ("namespace", (!record.namespace.is_empty()).then(|| json!(record.namespace))),
        (key_name, Some(json!(key(record)))),
        ("size", size(record).map(|bytes| json!(bytes))),
        ("value_bytes", record.value_bytes.map(|bytes| json!(bytes))),
        ("ttl_seconds", record.ttl.map(|ttl| json!(ttl.as_secs()))),
        ("result", Some(json!(record.result.name()))),
        ("request_id", record.request_id.as_ref().map(|id| json!(id))),
        ("trace_id", record.trace_id.map(|id| json!(format!("{:032x}", u128::from_be_bytes(id.to_bytes()))))),
    ];
    let expected = expected.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    assert_eq!(line, expected.collect());
}

#[derive(Debug, PartialEq)]
struct Request {
    key: String,
    operation: Operation,
    time: Option<u32>,
}

/// What a simulation is to do, and sizes as far as they are told there and then.
fn naive_requests(records: &[Record]) -> Vec<(Request, Option<u32>)> {
    let mut requests = Vec::new();
    // Of each key that has been asked for or stored, whether a read of it missed and nobody has stored it since.
    let mut missed: HashMap<String, bool> = HashMap::new();
    for record in records {
        let operation = match record.kind {
            OperationKind::Get => Operation::Read,
            OperationKind::Delete => Operation::Delete,
            _ => Operation::Write,
        };
        let is_nothing = match record.result {
            OperationResult::Invalid
            | OperationResult::Error
            | OperationResult::Rejected
            | OperationResult::Exists
            | OperationResult::Mismatch => true,
            OperationResult::NotFound => operation == Operation::Write,
            _ => false,
        };
        let key = match &*record.namespace {
            "" => key(record),
            namespace => format!("{namespace}\u{1f}{}", key(record)),
        };
        if is_nothing || operation == Operation::Delete && !missed.contains_key(&key) {
            continue;
        }
        let size = size(record).map(|bytes| bytes.try_into().unwrap_or(u32::MAX));
        let has_missed =
            operation == Operation::Read && record.result == OperationResult::Miss && size.is_none();
        let had_missed = missed.insert(key.clone(), has_missed) == Some(true);
        if operation == Operation::Write && had_missed {
            continue;
        }
        let time = record.at.duration_since(UNIX_EPOCH).ok().and_then(|at| u32::try_from(at.as_secs()).ok());
        let size = size.filter(|_| operation != Operation::Delete);
        requests.push((Request { key, operation, time }, size));
    }
    requests
}

fn check_trace(records: &[Record], lines: Vec<u8>) {
    let options = TraceOptions { format: Format::AccessLog, ..TraceOptions::default() };
    let mut trace = Trace::of(Path::new("log"), std::io::Cursor::new(lines), &options).expect("it is one");
    let naive = naive_requests(records);
    if naive.is_empty() {
        return drop(trace.read().expect_err("a trace has requests"));
    }
    for (expected, size) in naive {
        let request = trace.read().expect("it is understood").expect("there are as many");
        let (key, operation, time) = (request.key.to_string(), request.operation, request.time_seconds);
        assert_eq!(Request { key, operation, time }, expected);
        assert!(
            size.is_none() || request.size_bytes == size,
            "{:?} where {size:?} was told",
            request.size_bytes
        );
    }
    assert!(trace.read().expect("it is understood").is_none(), "there are no more");
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let mut records = Vec::new();
    let mut lines = Vec::new();
    while !input.is_empty()
        && let Ok(record) = record(&mut input)
    {
        let start = lines.len();
        record.append_to(&mut lines);
        let line = str::from_utf8(&lines[start..]).expect("text");
        let line = line.strip_suffix('\n').expect("it ends");
        assert!(line.bytes().all(|byte| byte >= b' '), "one line: {line:?}");
        check_line(&record, line);
        records.push(record);
    }
    if !records.is_empty() {
        check_trace(&records, lines);
    }
});
