//! Which streams of a connection are open, by the frames that it reads and writes.
//!
//! HTTP/2's own library remembers a stream until the last frame of its answer has been written or either side has reset it, and tells nobody
//! how many there are. So heads that come are noted, and struck out when their stream's end is written or a reset goes either way. A
//! client numbers its streams upwards, and they end in about that order: the list is sorted, and ends are near its beginning.

use std::collections::VecDeque;

use super::scan::{DATA, END_STREAM, GOAWAY, HEADERS, Head, RST_STREAM, number};

/// Length of a stream's number, which a GOAWAY begins with.
const NUMBER_BYTES: usize = 4;

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

    /// How many have come to their end.
    pub(super) fn ended(&self) -> u64 {
        self.come - self.open.len() as u64
    }

    /// The last one that has come.
    pub(super) const fn newest(&self) -> u32 {
        self.newest
    }

    /// How many are open that have come after this one.
    pub(super) fn open_after(&self, stream: u32) -> usize {
        self.open.len() - self.open.partition_point(|open| *open <= stream)
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

    /// How much of a frame that is written has to be seen.
    pub(super) const fn wants(head: &Head) -> usize {
        if head.kind == GOAWAY { NUMBER_BYTES } else { 0 }
    }

    /// A frame has been written, with what is wanted of its content and maybe more.
    pub(super) fn written(&mut self, head: &Head, content: &[u8]) {
        match head.kind {
            DATA | HEADERS if head.has(END_STREAM) => self.ends(head.stream),
            RST_STREAM => self.ends(head.stream),
            GOAWAY => {
                if let Some(last) = content.first_chunk() {
                    self.ends_after(number(*last));
                }
            }
            _ => {}
        }
    }

    /// The library passes over all later ones from now on.
    fn ends_after(&mut self, last: u32) {
        self.last = last;
        self.open.truncate(self.open.partition_point(|stream| *stream <= last));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::scan::tests::{PIECES, frame};
    use super::super::written::Written;
    use super::*;

    /// Which of these streams are open once this was written, whatever the pieces.
    #[track_caller]
    fn check(begun: &[u32], written: &[Vec<u8>], expected: &[u32]) {
        for piece in PIECES {
            let mut streams = Streams::new();
            for stream in begun {
                streams.begins(*stream);
            }
            let mut frames = Written::new(Arc::default());
            for bytes in written.concat().chunks(piece) {
                frames.pass(bytes, &mut streams);
            }
            assert_eq!(streams.open, expected, "in pieces of {piece}");
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
