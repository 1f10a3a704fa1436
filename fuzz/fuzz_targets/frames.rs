//! What kind of HTTP/2 frames a connection sends, read off its bytes as they come: however they are cut, and whenever they come, the credit is what a reader of
//! all bytes at once would leave, and the connection is ended where that reader would end it.
//!
//! The input: how often the content comes, how near the credit is to its end or to its most, how many pieces there are, and for each its length and for how long
//! nothing comes before it; then the content, which is bytes, or three bytes for each frame. Pieces begin anew once they are through.
#![no_main]

#[path = "../../src/transports/listener/frames.rs"]
mod frames;
#[path = "../../src/transports/listener/streams.rs"]
mod streams;

use std::time::{Duration, Instant};

use frames::Frames;
use libfuzzer_sys::fuzz_target;

/// What comes at the most.
const MOST_BYTES: usize = 20_000;

/// The most of it.
const CREDIT: u32 = 10_000;

/// What becomes of the credit by a frame.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    Brings,
    Takes,
    Nothing,
}

/// Of all heads of frames, where they end and what they do.
fn naive_heads(stream: &[u8]) -> Vec<(usize, Effect)> {
    let mut heads = Vec::new();
    let mut start = 24;
    while let Some(head) = stream.get(start..start + 9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (is_data, is_headers) = (head[3] == 0, head[3] == 1);
        let is_empty = length == 0 && head[4] % 2 == 0;
        let effect = if is_headers || is_data && !is_empty {
            Effect::Brings
        } else if is_data || [3, 8, 9].contains(&head[3]) {
            Effect::Nothing
        } else {
            Effect::Takes
        };
        heads.push((start + 9, effect));
        start += 9 + length;
    }
    heads
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
            Effect::Takes => {
                if self.left == 0 {
                    let earned = now_ms - self.earned_until_ms;
                    self.left = CREDIT.min(earned.try_into().expect("not that long"));
                    if self.left == 0 {
                        return false;
                    }
                    self.earned_until_ms = now_ms;
                }
                self.left -= 1;
            }
        }
        true
    }
}

/// Frames by three bytes each: kind and flags, and how long it is. What they hold looks like heads.
fn described(content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for &[kind, flags, length] in content.as_chunks().0 {
        let length = if length < 128 { usize::from(length % 32) } else { usize::from(length) * 5 };
        stream.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes()[1..]);
        stream.extend_from_slice(&[kind % 12, flags, 0, 0, 0, 1]);
        stream.extend([0, 0, 0, 6, 0, 0, 0, 0, 0].iter().cycle().take(length));
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

    let heads = naive_heads(&stream);
    let mut heads = heads.iter().peekable();
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
        while let Some((_, effect)) = heads.next_if(|(head_end, _)| *head_end <= end) {
            goes_on = goes_on && naive.change(*effect, now_ms);
        }
        let passed = frames.pass(&stream[start..end], || began + Duration::from_millis(now_ms));
        assert_eq!(passed.is_ok(), goes_on, "up to byte {end}, after {now_ms} ms");
        if !goes_on {
            return;
        }
        assert_eq!(frames.credit, naive.left, "up to byte {end}, after {now_ms} ms");
        if end == stream.len() {
            return;
        }
        start = end;
    }
});
