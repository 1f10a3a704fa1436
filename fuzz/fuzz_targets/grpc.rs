//! Calls of every method with any bytes as their message, through the real service and beside a map that reads them with the generated types: the same
//! is understood, the same is refused and in the same words, and each answer is byte for byte what the generated types would have sent.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::{BufMut, Bytes};
use engine::Store;
use flate2::Compression;
use flate2::write::GzEncoder;
use fuzz::grpc::{Answer, Frames, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES, Served};
use fuzz::ready;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tiny_cache::proto::{
    CacheItem, CacheKey, CacheLookup, CacheOperationResult, CacheResponse, CacheStatus, CacheValue,
    CompareAndSetRequest, ConditionalCacheResponse, ConditionalCacheStatus, Empty, MultiCacheItemRequest,
    MultiCacheKeyRequest, MultiCacheResponse, MultiCacheValueResponse,
};
use tonic::{Code, Status};

const METHODS: [&str; 9] =
    ["Get", "MultiGet", "Set", "SetIfAbsent", "CompareAndSet", "MultiSet", "Delete", "MultiDelete", "Stats"];
const OTHERS: [&str; 4] = [
    "/cache.CacheService/None",
    "/cache.CacheService/",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// The clock counts 584 years, which is not to end within a history or the life of what it writes.
const MOST_SECONDS: u64 = 1 << 32;

#[derive(Clone)]
struct Written {
    value: Bytes,
    deadline: Option<u64>,
}

/// What was written by namespace and key, read with the generated types.
#[derive(Default)]
struct Model {
    now_seconds: u64,
    entries: HashMap<(String, String), Written>,
}

/// What a call comes to: the message, or the code and perhaps the words of the refusal.
type Expected = std::result::Result<Vec<u8>, (Code, Option<String>)>;

fn malformed(error: &prost::DecodeError) -> (Code, Option<String>) {
    (Code::InvalidArgument, Some(format!("malformed request: {error}")))
}

fn decode<M: Message + Default>(message: &[u8]) -> std::result::Result<M, (Code, Option<String>)> {
    M::decode(message).map_err(|error| malformed(&error))
}

fn namespace(headers: &HeaderMap) -> std::result::Result<String, (Code, Option<String>)> {
    let Some(raw) = headers.get("x-cache-namespace") else { return Ok(String::new()) };
    let name = raw.to_str().unwrap_or("?").trim();
    let sound = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let is_one = name.len() <= 64
        && name.chars().all(sound)
        && name.chars().next().is_none_or(|c| c.is_ascii_alphanumeric());
    if is_one { Ok(name.to_owned()) } else { Err((Code::InvalidArgument, None)) }
}

fn check_key(namespace: &str, key: &str) -> std::result::Result<(), Code> {
    let before = if namespace.is_empty() { 0 } else { format!("{}:{namespace}:", namespace.len()).len() };
    let fits = !key.is_empty() && before + key.chars().count() <= 256;
    if fits { Ok(()) } else { Err(Code::InvalidArgument) }
}

impl Model {
    fn find(&mut self, namespace: &str, key: &str) -> Option<Bytes> {
        let at = (namespace.to_owned(), key.to_owned());
        let now = self.now_seconds;
        if self.entries.get(&at).is_some_and(|entry| entry.deadline.is_some_and(|deadline| deadline <= now)) {
            self.entries.remove(&at);
        }
        self.entries.get(&at).map(|entry| entry.value.clone())
    }

    fn write(
        &mut self,
        namespace: &str,
        key: &str,
        value: &Bytes,
        ttl: i32,
    ) -> std::result::Result<(), Code> {
        let deadline = u64::try_from(ttl).ok().filter(|&ttl| ttl > 0).map(|ttl| self.now_seconds + ttl);
        let entry = Written { value: value.clone(), deadline };
        self.entries.insert((namespace.to_owned(), key.to_owned()), entry);
        Ok(())
    }

    fn check_write(namespace: &str, key: &str, value: &[u8]) -> std::result::Result<(), Code> {
        check_key(namespace, key)?;
        if value.len() as u64 > MAX_VALUE_BYTES { Err(Code::ResourceExhausted) } else { Ok(()) }
    }

    fn expect(&mut self, method: &str, message: &[u8], headers: &HeaderMap, answer: &Answer) -> Expected {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err((Code::ResourceExhausted, None));
        }
        let code = |code: Code| (code, None);
        let ok = || CacheResponse { status: CacheStatus::Ok.into() }.encode_to_vec();
        let conditional = |status: ConditionalCacheStatus| {
            ConditionalCacheResponse { status: status.into() }.encode_to_vec()
        };
        Ok(match method {
            "Get" => {
                let CacheKey { key } = decode(message)?;
                let namespace = namespace(headers)?;
                check_key(&namespace, &key).map_err(code)?;
                let value = self.find(&namespace, &key);
                CacheValue { found: value.is_some(), value: value.unwrap_or_default() }.encode_to_vec()
            }
            "MultiGet" => {
                let MultiCacheKeyRequest { keys } = decode(message)?;
                let namespace = namespace(headers)?;
                let told = answer.message().ok().map(|message| MultiCacheValueResponse::decode(message));
                let told = told.expect("it went well").expect("it can be read");
                let items = keys.into_iter().zip(told.items).map(|(key, told)| {
                    let is_sound = check_key(&namespace, &key).is_ok();
                    assert_eq!(told.error.is_empty(), is_sound, "a key that is none is told so");
                    let value = if is_sound { self.find(&namespace, &key) } else { None };
                    CacheLookup {
                        key,
                        found: value.is_some(),
                        value: value.unwrap_or_default(),
                        error: told.error,
                    }
                });
                MultiCacheValueResponse { items: items.collect() }.encode_to_vec()
            }
            "Set" => {
                let CacheItem { key, value, ttl } = decode(message)?;
                let namespace = namespace(headers)?;
                Self::check_write(&namespace, &key, &value).map_err(code)?;
                self.write(&namespace, &key, &value, ttl).map_err(code)?;
                ok()
            }
            "SetIfAbsent" => {
                let CacheItem { key, value, ttl } = decode(message)?;
                let namespace = namespace(headers)?;
                Self::check_write(&namespace, &key, &value).map_err(code)?;
                if self.find(&namespace, &key).is_some() {
                    conditional(ConditionalCacheStatus::Exists)
                } else {
                    self.write(&namespace, &key, &value, ttl).map_err(code)?;
                    conditional(ConditionalCacheStatus::Stored)
                }
            }
            "CompareAndSet" => {
                let CompareAndSetRequest { key, expected_value, value, ttl } = decode(message)?;
                let namespace = namespace(headers)?;
                Self::check_write(&namespace, &key, &value).map_err(code)?;
                conditional(match self.find(&namespace, &key) {
                    None => ConditionalCacheStatus::NotFound,
                    Some(known) if known == expected_value => {
                        self.write(&namespace, &key, &value, ttl).map_err(code)?;
                        ConditionalCacheStatus::Stored
                    }
                    Some(_) => ConditionalCacheStatus::Mismatch,
                })
            }
            "MultiSet" => {
                let MultiCacheItemRequest { items } = decode(message)?;
                let namespace = namespace(headers)?;
                let outcomes: Vec<_> = items
                    .into_iter()
                    .map(|CacheItem { key, value, ttl }| {
                        let outcome = Self::check_write(&namespace, &key, &value);
                        let outcome = outcome.and_then(|()| self.write(&namespace, &key, &value, ttl));
                        (key, outcome.is_ok())
                    })
                    .collect();
                operations(outcomes, answer)
            }
            "Delete" => {
                let CacheKey { key } = decode(message)?;
                let namespace = namespace(headers)?;
                check_key(&namespace, &key).map_err(code)?;
                self.entries.remove(&(namespace, key));
                ok()
            }
            "MultiDelete" => {
                let MultiCacheKeyRequest { keys } = decode(message)?;
                let namespace = namespace(headers)?;
                let outcomes: Vec<_> = keys
                    .into_iter()
                    .map(|key| {
                        let is_sound = check_key(&namespace, &key).is_ok();
                        self.entries.remove(&(namespace.clone(), key.clone()));
                        (key, is_sound)
                    })
                    .collect();
                operations(outcomes, answer)
            }
            _ => {
                let Empty {} = decode(message)?;
                let message = answer.message().map_err(|status| (status.code(), None))?;
                let stats = tiny_cache::proto::CacheStats::decode(message).expect("it can be read");
                self.entries
                    .retain(|_, entry| entry.deadline.is_none_or(|deadline| self.now_seconds < deadline));
                assert_eq!(stats.entries, self.entries.len() as u64, "live entries alone are counted");
                stats.encode_to_vec()
            }
        })
    }
}

/// The answer to a batch of writes, with the words of refusals as they were told.
fn operations(outcomes: Vec<(String, bool)>, answer: &Answer) -> Vec<u8> {
    let told = answer.message().ok().map(MultiCacheResponse::decode);
    let told = told.expect("it went well").expect("it can be read");
    let items = outcomes.into_iter().zip(told.items).map(|((key, is_sound), told)| {
        assert_eq!(told.error.is_empty(), is_sound, "what is refused is told so");
        let status = if is_sound { CacheStatus::Ok } else { CacheStatus::Error };
        CacheOperationResult { key, status: status.into(), error: told.error }
    });
    MultiCacheResponse { items: items.collect() }.encode_to_vec()
}

fn check(expected: &Expected, answer: &Answer) {
    let code = |status: &Status| status.code();
    match (answer.message(), expected) {
        (Ok(message), Ok(expected)) => assert_eq!(message, &expected[..], "as the generated types would"),
        (Err(status), Err((expected, words))) => {
            assert_eq!(code(&status), *expected, "{status:?}");
            if let Some(words) = words {
                assert_eq!(status.message(), words);
            }
        }
        (outcome, expected) => panic!("{outcome:?} where {expected:?} is right"),
    }
}

/// A text that may be a key, seen before or not.
fn key(input: &mut Unstructured<'_>) -> Result<String> {
    let kind: u8 = input.arbitrary()?;
    Ok(match kind {
        0..200 => (kind % 8).to_string(),
        200..220 => "é".repeat(usize::from(kind) - 200 + 240),
        220..240 => "k".repeat(usize::from(kind) - 220 + 240),
        _ => {
            let bytes = input.bytes(usize::from(kind - 240).min(input.len()))?;
            String::from_utf8_lossy(bytes).into_owned()
        }
    })
}

fn value(input: &mut Unstructured<'_>) -> Result<Bytes> {
    let (kind, length): (u8, u16) = (input.arbitrary()?, input.arbitrary()?);
    let length = match kind {
        0..200 => length % 64,
        200..250 => length % 2048,
        // Above what an answer copies, and above what is allowed.
        _ => length,
    };
    Ok(vec![kind; usize::from(length)].into())
}

fn item(input: &mut Unstructured<'_>) -> Result<CacheItem> {
    let (key, value, ttl): (_, _, i8) = (key(input)?, value(input)?, input.arbitrary()?);
    let ttl = match ttl {
        100.. => i32::MAX - i32::from(ttl),
        ..-100 => i32::MIN - i32::from(ttl + 100),
        ttl => i32::from(ttl),
    };
    Ok(CacheItem { key, value, ttl })
}

/// The message of a call: any bytes, or one that the method has, perhaps with more behind it.
fn message(method: &str, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kind: u8 = input.arbitrary()?;
    if kind & 3 == 0 {
        let length = usize::from(input.arbitrary::<u8>()?);
        return Ok(input.bytes(length.min(input.len()))?.to_vec());
    }
    let count = kind >> 6;
    let mut message = match method {
        "Get" | "Delete" => CacheKey { key: key(input)? }.encode_to_vec(),
        "MultiGet" | "MultiDelete" => {
            let keys = (0..count * 2).map(|_| key(input)).collect::<Result<_>>()?;
            MultiCacheKeyRequest { keys }.encode_to_vec()
        }
        "Set" | "SetIfAbsent" => item(input)?.encode_to_vec(),
        "CompareAndSet" => {
            let CacheItem { key, value, ttl } = item(input)?;
            CompareAndSetRequest { key, expected_value: self::value(input)?, value, ttl }.encode_to_vec()
        }
        "MultiSet" => {
            let items = (0..count * 2).map(|_| item(input)).collect::<Result<_>>()?;
            MultiCacheItemRequest { items }.encode_to_vec()
        }
        _ => Vec::new(),
    };
    match kind >> 2 & 7 {
        0 => {
            let length = usize::from(input.arbitrary::<u8>()? % 32);
            message.extend_from_slice(input.bytes(length.min(input.len()))?);
        }
        1 => {
            let place: u16 = input.arbitrary()?;
            let flipped: u8 = input.arbitrary()?;
            let length = message.len().max(1);
            if let Some(byte) = message.get_mut(usize::from(place) % length) {
                *byte ^= flipped;
            }
        }
        2 => message.truncate(usize::from(input.arbitrary::<u8>()?)),
        _ => {}
    }
    Ok(message)
}

fn framed(message: &[u8], flag: u8) -> Vec<u8> {
    let mut data = vec![flag];
    data.put_u32(u32::try_from(message.len()).expect("short"));
    data.extend_from_slice(message);
    data
}

/// A request with this message. Whether it is sound, so that it is known what comes of it.
fn request(path: &str, message: &[u8], input: &mut Unstructured<'_>) -> Result<(Request<Frames>, bool)> {
    let (kind, piece): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
    let mut request = Request::post(path).header("content-type", "application/grpc");
    let piece = if piece < 128 { usize::MAX } else { usize::from(piece - 127) };
    let (frames, is_sound) = match kind % 16 {
        0 => {
            request = request.header("grpc-encoding", "gzip");
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(message).expect("into memory");
            (Frames::of(&framed(&encoder.finish().expect("into memory"), 1), piece), true)
        }
        1 => {
            request = request.header("grpc-encoding", "zstd");
            let packed = zstd::encode_all(message, 1).expect("into memory");
            (Frames::of(&framed(&packed, 1), piece), true)
        }
        // What is said to be packed may be anything.
        2 => {
            request = request.header("grpc-encoding", if kind & 16 == 0 { "gzip" } else { "zstd" });
            (Frames::of(&framed(message, 1), piece), false)
        }
        3 => (Frames::of(message, piece), false),
        4 => {
            let data = framed(message, 0);
            (Frames::of(&data[..data.len() - usize::from(kind / 16).min(data.len())], piece), false)
        }
        5 => {
            let mut frames = Frames::of(&framed(message, 0), piece);
            frames.0.push_back(Frame::trailers(HeaderMap::new()));
            (frames, true)
        }
        6 => (Frames::of(&[framed(message, 0), framed(message, kind / 128)].concat(), piece), false),
        _ => (Frames::of(&framed(message, 0), piece), true),
    };
    let mut request = request.body(frames).expect("a request");
    match kind {
        128..160 => {
            let name: &[u8] = [&b"a"[..], b" a ", b"team", b"", b"a:b", b"-", b"10"][usize::from(kind) % 7];
            request.headers_mut().insert("x-cache-namespace", HeaderValue::from_bytes(name).expect("valid"));
        }
        160..176 => {
            let length = usize::from(kind - 160).min(input.len());
            if let Ok(name) = HeaderValue::from_bytes(input.bytes(length)?) {
                request.headers_mut().insert("x-cache-namespace", name);
            }
        }
        _ => {}
    }
    Ok((request, is_sound))
}

fn step(served: &mut Served, model: &mut Model, input: &mut Unstructured<'_>) -> Result<()> {
    let operation: u8 = input.arbitrary()?;
    if operation >= 240 {
        let is_far = operation == 255 && model.now_seconds < MOST_SECONDS;
        let seconds = if is_far { 1 << 31 } else { u64::from(operation - 239) };
        served.clock.advance(Duration::from_secs(seconds));
        model.now_seconds += seconds;
        return Ok(());
    }
    if operation >= 228 {
        let path = OTHERS[usize::from(operation) % OTHERS.len()];
        let message = message(path, input)?;
        let (request, _) = request(path, &message, input)?;
        served.call(request);
        return Ok(());
    }
    let method = METHODS[usize::from(operation) % METHODS.len()];
    let message = message(method, input)?;
    let (request, is_sound) = request(&format!("/cache.CacheService/{method}"), &message, input)?;
    let headers = request.headers().clone();
    let answer = served.call(request);
    if is_sound {
        let expected = model.expect(method, &message, &headers, &answer);
        check(&expected, &answer);
        return Ok(());
    }
    let status = answer.status();
    assert!(!status.message().starts_with("internal error"), "{status:?}");
    // It may have been understood nevertheless, and done what it said.
    ready(served.store.clear()).expect("cleared");
    model.entries.clear();
    Ok(())
}

thread_local! {
    static SERVED: RefCell<Served> = RefCell::new(Served::new());
}

fuzz_target!(|data: &[u8]| {
    SERVED.with_borrow_mut(|served| {
        if engine::Clock::now(&*served.clock) > Duration::from_secs(MOST_SECONDS) {
            *served = Served::new();
        }
        ready(served.store.clear()).expect("cleared");
        let mut model = Model::default();
        let mut input = Unstructured::new(data);
        // The input's end is the history's.
        while !input.is_empty() && step(served, &mut model, &mut input).is_ok() {}
    });
});
