//! Which streams of a connection are open, by the frames that it reads and writes.
//!
//! HTTP/2's own library remembers a stream until the last frame of its answer has been written or either side has reset it, and tells nobody
//! how many there are. So heads that come are noted, and struck out when their stream's end is written or a reset goes either way. A
//! client numbers its streams upwards, and they end in about that order: the list is sorted, and ends are near its beginning.

use std::collections::VecDeque;

use super::frames::HEAD_BYTES;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// Length of a stream's number, which a GOAWAY begins with.
const NUMBER_BYTES: usize = 4;

/// A stream's number, whose first bit means nothing.
pub(super) const fn number(bytes: [u8; NUMBER_BYTES]) -> u32 {
    u32::from_be_bytes(bytes) & (u32::MAX >> 1)
}

/// The open streams of one connection.
pub(super) struct Streams {
    open: VecDeque<u32>,
    newest: u32,
    /// No later one is taken on.
    last: u32,
    /// How many have come.
    come: u64,
}

impl Streams {
    pub(super) const fn new() -> Self {
        Self { open: VecDeque::new(), newest: 0, last: u32::MAX, come: 0 }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) const fn come(&self) -> u64 {
        self.come
    }

    /// A head has come: of a new stream, or what follows a message.
    pub(super) fn begins(&mut self, stream: u32) {
        if stream > self.newest && stream <= self.last {
            self.newest = stream;
            self.come += 1;
            self.open.push_back(stream);
        }
    }

    pub(super) fn ends(&mut self, stream: u32) {
        if let Ok(place) = self.open.binary_search(&stream) {
            self.open.remove(place);
        }
    }

    /// The library passes over all later ones from now on.
    fn ends_after(&mut self, last: u32) {
        self.last = last;
        self.open.truncate(self.open.partition_point(|stream| *stream <= last));
    }
}

/// The frames that a connection writes, as their bytes go.
pub(super) struct Written {
    /// What is left of a frame's content.
    passing_bytes: usize,
    /// The beginning of a frame whose rest has not come: its head, and of a GOAWAY the number as well.
    begun: [u8; HEAD_BYTES + NUMBER_BYTES],
    begun_bytes: usize,
}

impl Written {
    pub(super) const fn new() -> Self {
        Self { passing_bytes: 0, begun: [0; HEAD_BYTES + NUMBER_BYTES], begun_bytes: 0 }
    }

    /// Looks at bytes that are written, for ends of `streams`.
    pub(super) fn pass(&mut self, mut bytes: &[u8], streams: &mut Streams) {
        while !bytes.is_empty() {
            let passing = self.passing_bytes.min(bytes.len());
            self.passing_bytes -= passing;
            bytes = &bytes[passing..];
            let is_goaway = self.begun_bytes >= HEAD_BYTES;
            let wanted = if is_goaway { HEAD_BYTES + NUMBER_BYTES } else { HEAD_BYTES };
            let missing = &mut self.begun[self.begun_bytes..wanted];
            let more = missing.len().min(bytes.len());
            missing[..more].copy_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            self.begun_bytes += more;
            if self.begun_bytes == wanted {
                self.frame(streams, is_goaway);
            }
        }
    }

    fn frame(&mut self, streams: &mut Streams, is_whole: bool) {
        let [high, middle, low, kind, flags, stream @ .., a, b, c, d] = self.begun;
        let (stream, number) = (number(stream), number([a, b, c, d]));
        self.passing_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.begun_bytes = 0;
        match kind {
            DATA | HEADERS if flags & END_STREAM != 0 => streams.ends(stream),
            RST_STREAM => streams.ends(stream),
            GOAWAY if is_whole => {
                self.passing_bytes = self.passing_bytes.saturating_sub(NUMBER_BYTES);
                streams.ends_after(number);
            }
            GOAWAY => (self.begun_bytes, self.passing_bytes) = (HEAD_BYTES, 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    /// Which of these streams are open once this was written, whatever the pieces.
    #[track_caller]
    fn check(begun: &[u32], written: &[Vec<u8>], expected: &[u32]) {
        for piece in [1, 2, 5, 9, 10, 13, 14, 1000] {
            let mut streams = Streams::new();
            for stream in begun {
                streams.begins(*stream);
            }
            let mut frames = Written::new();
            for bytes in written.concat().chunks(piece) {
                frames.pass(bytes, &mut streams);
            }
            assert_eq!(streams.open, expected, "in pieces of {piece}");
            assert_eq!((frames.begun_bytes, frames.passing_bytes), (0, 0), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_stream_is_open_until_its_end_or_a_reset_is_written() {
        let end_of_9 = frame(HEADERS, END_STREAM, 9, &[]);
        check(
            &[1, 3, 5, 7, 9],
            &[
                frame(4, 1, 0, &[]),
                frame(HEADERS, 4, 1, &[7; 30]),
                frame(DATA, 0, 1, &end_of_9.repeat(100)),
                frame(HEADERS, 4 | END_STREAM, 3, &[7; 30]),
                frame(DATA, END_STREAM, 7 | 1 << 31, b""),
                frame(RST_STREAM, 0, 5, &[0; 4]),
                frame(DATA, END_STREAM, 7, b"again"),
            ],
            &[1, 9],
        );
    }

    #[test]
    fn streams_that_come_after_the_last_to_be_taken_on_are_none() {
        let goaway = |last: u32| frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 9]].concat());
        check(&[1, 3, 5], &[goaway(u32::MAX >> 1)], &[1, 3, 5]);
        check(&[1, 3, 5], &[goaway(u32::MAX), goaway(3), frame(RST_STREAM, 0, 1, &[0; 4])], &[3]);
        let mut streams = Streams::new();
        streams.ends_after(3);
        for stream in [1, 3, 5] {
            streams.begins(stream);
        }
        assert_eq!((streams.open(), streams.come()), (2, 2));
    }

    #[test]
    fn what_follows_a_message_begins_no_stream() {
        let mut streams = Streams::new();
        for stream in [1, 3, 1, 3] {
            streams.begins(stream);
        }
        streams.ends(1);
        streams.begins(1);
        streams.ends(99);
        assert_eq!((streams.open(), streams.come()), (1, 2));
    }
}
