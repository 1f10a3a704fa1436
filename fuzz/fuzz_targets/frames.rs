//! The frames of an HTTP/2 connection, looked at as their bytes come and go, are what a reader of all bytes at once finds, however they are cut. Of those that come:
//! the same credit is left and the same streams are open after each piece, whenever it comes, and the connection is ended where that reader would end it. Of
//! the same bytes as if they were written: the same streams end, and as many streams and heads are refused.
//!
//! The input: how often the content comes, how near the credit is to its end or to its most, how many pieces there are, and for each its length and for how long
//! nothing comes before it; then the content, which is bytes, or three bytes for each frame. Pieces begin anew once they are through.
#![no_main]

#[expect(dead_code, reason = "what a connection asks beside")]
#[path = "../../src/transports/listener/frames.rs"]
mod frames;
#[path = "../../src/transports/listener/refusals.rs"]
mod refusals;
#[path = "../../src/transports/listener/scan.rs"]
mod scan;
#[expect(dead_code, reason = "what a connection asks beside")]
#[path = "../../src/transports/listener/streams.rs"]
mod streams;
#[path = "../../src/transports/listener/written.rs"]
mod written;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frames::Frames;
use libfuzzer_sys::fuzz_target;
use streams::Streams;
use tiny_cache::transports;
use tiny_cache::transports::refused::{RefusedRequests, RequestRefusal};
use written::Written;

/// What comes at the most.
const MOST_BYTES: usize = 20_000;

/// The most of it.
const CREDIT: u32 = 10_000;

/// The last stream that frames of three bytes are of.
const MOST_STREAMS: u32 = 22;

/// What a frame begins with.
struct Head {
    end: usize,
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// All heads of frames, the first of which begins here.
fn naive_heads(stream: &[u8], mut start: usize) -> Vec<Head> {
    let mut heads = Vec::new();
    while let Some(head) = stream.get(start..start + 9) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let (end, length) = (start + 9, number(&head[..3]) as usize);
        let stream = number(&head[5..]) % (1 << 31);
        heads.push(Head { end, length, kind: head[3], flags: head[4], stream });
        start = end + length;
    }
    heads
}

/// What becomes of the credit by a frame.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    Brings,
    Takes(u32),
    Nothing,
}

impl Head {
    fn effect(&self, open: usize) -> Effect {
        match self.kind {
            1 => Effect::Brings,
            0 if self.length > 0 || self.ends_stream() => Effect::Brings,
            3 => Effect::Takes(3),
            0 | 8 | 9 => Effect::Nothing,
            4 => Effect::Takes(1 + u32::try_from(open / 4).expect("few")),
            _ => Effect::Takes(1),
        }
    }

    fn ends_stream(&self) -> bool {
        self.flags % 2 == 1
    }
}

/// The streams that are open, and what begins one.
#[derive(Default)]
struct NaiveStreams {
    open: BTreeSet<u32>,
    newest: u32,
    come: u64,
}

impl NaiveStreams {
    fn take(&mut self, head: &Head) {
        if head.kind == 3 {
            self.open.remove(&head.stream);
        }
        if head.kind == 1 && head.stream > self.newest {
            self.newest = head.stream;
            self.open.insert(head.stream);
            self.come += 1;
        }
    }
}

/// Whoever has none left has earned some since the last time.
struct NaiveCredit {
    left: u32,
    earned_until_ms: u64,
}

impl NaiveCredit {
    /// `false`: it is the end.
    fn change(&mut self, effect: Effect, now_ms: u64) -> bool {
        match effect {
            Effect::Nothing => {}
            Effect::Brings => self.left = CREDIT.min(self.left + 1),
            Effect::Takes(credits) => {
                if self.left < credits {
                    let earned = u32::try_from(now_ms - self.earned_until_ms).expect("not that long");
                    self.left = CREDIT.min(self.left + earned);
                    self.earned_until_ms = now_ms;
                }
                if self.left < credits {
                    return false;
                }
                self.left -= credits;
            }
        }
        true
    }
}

/// How many streams and heads are refused by what is written in these pieces.
fn refused<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> [u64; 2] {
    let counts = Arc::<RefusedRequests>::default();
    let (mut written, mut streams) = (Written::new(Arc::clone(&counts)), Streams::new());
    pieces.for_each(|bytes| written.pass(bytes, &mut streams));
    [RequestRefusal::TooManyStreams, RequestRefusal::HeadTooLarge].map(|reason| counts.total(reason))
}

/// How many streams of those up to this one are open once this has been written in these pieces.
fn left_open<'a>(last: u32, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut streams = Streams::new();
    (1..=last).for_each(|stream| streams.begins(stream));
    let mut written = Written::new(Arc::default());
    pieces.for_each(|bytes| written.pass(bytes, &mut streams));
    streams.open()
}

fn naive_left_open(last: u32, written: &[u8], heads: &[Head]) -> usize {
    let mut open: BTreeSet<u32> = (1..=last).collect();
    for head in heads {
        if head.kind == 3 || head.kind < 2 && head.ends_stream() {
            open.remove(&head.stream);
        }
        if let (7, Some(&[a, b, c, d])) = (head.kind, written[head.end..].first_chunk()) {
            let last = u32::from_be_bytes([a % 128, b, c, d]);
            open.retain(|stream| *stream <= last);
        }
    }
    open.len()
}

fn check_written(written: &[u8], pieces: &[u8]) {
    let cut = || {
        let mut rest = written;
        let mut lengths = pieces.iter().step_by(2).cycle();
        std::iter::from_fn(move || {
            let length = usize::from(*lengths.next()?) + 1;
            let (piece, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    };
    let heads = naive_heads(written, 0);
    let is_refusal =
        |head: &&Head| head.kind == 3 && written.get(head.end..head.end + head.length) == Some(&[0, 0, 0, 7]);
    let whole = refused(std::iter::once(written));
    assert_eq!(whole[0], heads.iter().filter(is_refusal).count() as u64, "streams that are refused");
    assert_eq!(refused(cut()), whole, "streams and heads that are refused");
    // A library writes no GOAWAY that is shorter than what it is to hold.
    if heads.iter().all(|head| head.kind != 7 || head.length >= 8) {
        // Of the last frame not all may be there: it counts when as much is as somebody looks at.
        let whole = heads.iter().take_while(|head| head.end + head.length <= written.len()).count();
        let expected =
            [&heads[..], &heads[..whole]].map(|heads| naive_left_open(MOST_STREAMS, written, heads));
        let open = left_open(MOST_STREAMS, cut());
        assert!(expected.contains(&open), "streams that are open: {open}, expected {expected:?}");
    }
}

/// What a head may hold: a status of 431 spelt out and by its place, another field that is added, something else.
const BLOCKS: [&[u8]; 6] =
    [&[0x48, 0x83, 0x69, 0x90, 0xFF], &[0xBE], &[0xBF], b"\x40\x01n\x01v", &[0x20, 0xBE], &[0x88, 0xFF, 0]];

/// Frames by three bytes each: kind and flags, and how long it is. What they hold looks like heads of frames, or is what the kind has.
fn described(content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for &[kind, flags, length] in content.as_chunks().0 {
        let content: &[u8] = match kind % 12 {
            1 if length % 2 == 0 => BLOCKS[usize::from(length / 2) % BLOCKS.len()],
            3 if length % 2 == 0 => &[0, 0, 0, 7],
            7 => &[0, 0, 0, length % 32, 0, 0, 0, 0],
            _ => &[],
        };
        let length = match content.len() {
            0 if length < 128 => usize::from(length % 32),
            0 => usize::from(length) * 5,
            bytes => bytes,
        };
        stream.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes()[1..]);
        stream.extend_from_slice(&[kind % 12, flags, 0, 0, 0, kind / 12 + 1]);
        stream.extend(content.iter().chain([0, 0, 0, 6, 0, 0, 0, 0, 0].iter().cycle()).take(length));
    }
    stream
}

fuzz_target!(|data: &[u8]| {
    let Some((&[times, credit, pieces], rest)) = data.split_first_chunk() else { return };
    let Some((pieces, content)) = rest.split_at_checked(2 * usize::from(pieces % 16)) else { return };
    let pieces = if pieces.is_empty() { &[0, 0] } else { pieces };
    let (content, is_described) = match content.split_first() {
        Some((kind, content)) if kind % 2 == 0 => (described(content), true),
        Some((_, content)) => (content.to_vec(), false),
        None => return,
    };
    let mut stream = if is_described { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec() } else { vec![] };
    for _ in 0..(usize::from(times) * usize::from(times)).max(1) {
        if content.is_empty() || stream.len() + content.len() > MOST_BYTES {
            break;
        }
        stream.extend_from_slice(&content);
    }

    check_written(if is_described { &stream[24..] } else { &stream }, pieces);
    let heads = naive_heads(&stream, 24);
    let mut heads = heads.iter().peekable();
    let mut streams = NaiveStreams::default();
    let credit = if credit < 128 { u32::from(credit) * 8 } else { CREDIT - 255 + u32::from(credit) };
    let mut naive = NaiveCredit { left: credit, earned_until_ms: 0 };
    let began = Instant::now();
    let mut frames = Frames::new(began);
    assert_eq!(frames.credit, CREDIT, "at the beginning");
    frames.credit = credit;
    let (mut start, mut now_ms) = (0, 0);
    for &[length, pause] in pieces.as_chunks().0.iter().cycle() {
        let length = if length < 128 { usize::from(length) + 1 } else { (usize::from(length) - 127) * 100 };
        now_ms += u64::from(if pause < 200 { pause / 50 } else { pause });
        let end = stream.len().min(start + length);
        let mut goes_on = true;
        while let Some(head) = heads.next_if(|head| head.end <= end) {
            goes_on = goes_on && naive.change(head.effect(streams.open.len()), now_ms);
            streams.take(head);
        }
        let passed = frames.pass(&stream[start..end], || began + Duration::from_millis(now_ms));
        assert_eq!(passed.is_ok(), goes_on, "up to byte {end}, after {now_ms} ms");
        if !goes_on {
            return;
        }
        assert_eq!(frames.credit, naive.left, "up to byte {end}, after {now_ms} ms");
        let [open, come] = [frames.streams().open() as u64, frames.streams().come()];
        assert_eq!([open, come], [streams.open.len() as u64, streams.come], "up to byte {end}");
        if end == stream.len() {
            return;
        }
        start = end;
    }
});
