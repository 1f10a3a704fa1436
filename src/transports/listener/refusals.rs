//! A look at the frames that a connection writes, for what HTTP/2's own library refuses and tells nobody of: a stream over
//! `max_concurrent_streams`, which it resets with `REFUSED_STREAM`, and a head far over `max_metadata`, which it answers with
//! a status of 431 and nothing else.
//!
//! Of most frames only the nine bytes are looked at that they begin with. The library compresses heads (HPACK, RFC 7541): the
//! first 431 of a connection is spelt out, and later ones may be one byte, the place that it has in a table since. Places move by one
//! with each field that is added. So once there was a 431, and only then, what the connection's other heads add is counted.

use std::sync::Arc;

use super::scan::{END_HEADERS, END_STREAM, HEADERS, Head, RST_STREAM};
use crate::transports::refused::{RefusedRequests, RequestRefusal};

/// What a stream is reset with that nothing was done for (RFC 9113, section 7).
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// `:status: 431` spelt out: the name's place in the static table (behind two bits or four that tell whether the field is added to the
/// other one), then the value in Huffman's code.
const ADDED_431: &[u8] = &[0x48, 0x83, 0x69, 0x90, 0xFF];
const NOT_ADDED_431: &[u8] = &[0x08, 0x83, 0x69, 0x90, 0xFF];

/// The place of the field that was added last: behind the static table.
const NEWEST: usize = 62;

/// How long a head may be that is looked at as long as there was no 431: its field, and two changes of the table's size.
const SHORT_BYTES: usize = 16;

/// What is refused in the frames that one connection writes.
pub(super) struct Refusals {
    counts: Arc<RefusedRequests>,
    /// Where the table of fields has the 431, if it was added; it may be there no more, and then nothing is said to be there.
    place: Option<usize>,
}

impl Refusals {
    pub(super) const fn new(counts: Arc<RefusedRequests>) -> Self {
        Self { counts, place: None }
    }

    /// How much of a frame that is written has to be seen.
    pub(super) fn wants(&self, head: &Head) -> usize {
        match head.kind {
            RST_STREAM => REFUSED_STREAM.len(),
            HEADERS if self.looks_into(head) => head.bytes,
            _ => 0,
        }
    }

    /// Whether it may be an answer of 431, or changes where the next one is found.
    fn looks_into(&self, head: &Head) -> bool {
        self.place.is_some() || (head.has(END_STREAM) && head.bytes <= SHORT_BYTES)
    }

    /// A frame has been written, with what is wanted of its content.
    pub(super) fn frame(&mut self, head: &Head, content: &[u8]) {
        match head.kind {
            RST_STREAM if head.bytes == content.len() && content == REFUSED_STREAM => {
                self.counts.count(RequestRefusal::TooManyStreams);
            }
            HEADERS if !self.looks_into(head) => {}
            HEADERS if head.has(END_HEADERS) => self.fields(head.has(END_STREAM), content),
            // No answer has a head of more than one frame. If one had, nobody would know what it adds.
            HEADERS => self.place = None,
            _ => {}
        }
    }

    /// Looks at a head, which is all of an answer or not.
    fn fields(&mut self, is_all: bool, block: &[u8]) {
        let Some(block) = Fields(block).without_sizes() else { return self.place = None };
        if is_all && (block.0 == ADDED_431 || block.0 == NOT_ADDED_431) {
            self.place = (block.0 == ADDED_431).then_some(NEWEST);
            return self.counts.count(RequestRefusal::HeadTooLarge);
        }
        let Some(place) = self.place else { return };
        if is_all && block.is_only(place) {
            return self.counts.count(RequestRefusal::HeadTooLarge);
        }
        self.place = block.added().map(|added| place + added);
    }
}

/// The fields of a head that are still to be looked at (RFC 7541, section 6).
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// Leaves out the changes of the table's size, which stand at the beginning.
    fn without_sizes(mut self) -> Option<Self> {
        while self.0.first().is_some_and(|first| first >> 5 == 0b001) {
            self.integer(5)?;
        }
        Some(self)
    }

    /// Whether there is one field, which is the one at this place.
    fn is_only(&self, place: usize) -> bool {
        let mut fields = Self(self.0);
        fields.0.first().is_some_and(|first| first >> 7 == 1)
            && fields.integer(7) == Some(place)
            && fields.0.is_empty()
    }

    /// How many fields are added to the table; `None` where that cannot be told.
    fn added(mut self) -> Option<usize> {
        let mut added = 0;
        while let Some(&first) = self.0.first() {
            let name = match first {
                0x80.. => {
                    self.integer(7)?;
                    continue;
                }
                0x40.. => {
                    added += 1;
                    self.integer(6)?
                }
                0x20.. => return None,
                _ => self.integer(4)?,
            };
            if name == 0 {
                self.skip_text()?;
            }
            self.skip_text()?;
        }
        Some(added)
    }

    /// A number that begins with the low `bits` of a byte (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let mut next = || {
            let (&first, rest) = self.0.split_first()?;
            self.0 = rest;
            Some(usize::from(first))
        };
        let most = (1 << bits) - 1;
        let mut number = next()? & most;
        if number < most {
            return Some(number);
        }
        // More would be no place and no length.
        for shift in [0, 7, 14] {
            let byte = next()?;
            number += (byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn skip_text(&mut self) -> Option<()> {
        let bytes = self.integer(7)?;
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::tests::{self, PIECES};
    use super::super::streams::Streams;
    use super::super::written::Written;
    use super::*;

    const ENDS: u8 = END_STREAM | END_HEADERS;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        tests::frame(kind, flags, 1, content)
    }

    fn reset(reason: u8) -> Vec<u8> {
        frame(RST_STREAM, 0, &[0, 0, 0, reason])
    }

    fn trailers(block: &[u8]) -> Vec<u8> {
        frame(HEADERS, ENDS, block)
    }

    /// A head that adds so many fields.
    fn adding(fields: usize) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, &[&[0x88][..], &b"\x40\x01n\x01v".repeat(fields)].concat())
    }

    /// How many streams and heads were refused by these frames, whatever pieces they are written in.
    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: [u64; 2]) {
        let written = frames.concat();
        for piece in PIECES {
            let counts = Arc::<RefusedRequests>::default();
            let (mut frames, mut streams) = (Written::new(Arc::clone(&counts)), Streams::new());
            written.chunks(piece).for_each(|bytes| frames.pass(bytes, &mut streams));
            let found = [RequestRefusal::TooManyStreams, RequestRefusal::HeadTooLarge];
            assert_eq!(found.map(|reason| counts.total(reason)), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn streams_that_are_refused_are_told_from_those_that_are_reset_otherwise() {
        let data = frame(0, 1, &reset(7).repeat(1000));
        check(
            &[
                frame(4, 0, &[0; 36]),
                reset(7),
                data,
                reset(7),
                reset(1),
                reset(8),
                reset(7),
                frame(4, 1, &[]),
            ],
            [3, 0],
        );
    }

    #[test]
    fn a_431_is_found_where_it_is_spelt_out_and_by_its_place_afterwards() {
        let [first, newest, fourth] = [trailers(ADDED_431), trailers(&[0xBE]), trailers(&[0xC1])];
        // Trailers that are one field look the same but for the place.
        check(&[newest.clone(), fourth.clone()], [0, 0]);
        check(&[first.clone(), newest.clone(), newest.clone()], [0, 3]);
        check(&[first.clone(), adding(3), newest.clone(), fourth.clone(), adding(1), fourth.clone()], [0, 2]);
        // Trailers may add a field, too, and one that was removed is spelt out again.
        check(&[first.clone(), trailers(b"\x40\x01n\x01v"), newest.clone(), trailers(&[0xBF])], [0, 2]);
        check(&[first.clone(), adding(200), first.clone(), newest.clone()], [0, 3]);
        // Places of more than a byte.
        check(
            &[first.clone(), adding(65), trailers(&[0xFF, 0]), adding(200), trailers(&[0xFF, 0xC8, 1])],
            [0, 3],
        );
        // Fields that add nothing: with a name of the table or of their own, not to be kept or never.
        let kept = [&[0xBE, 0x0F, 0x2F, 1, b'v'][..], b"\x00\x01n\x01v", b"\x10\x01n\x01v"].concat();
        check(&[first.clone(), frame(HEADERS, END_HEADERS, &kept), newest.clone()], [0, 2]);
        // What is more than a status was answered by the service.
        check(&[frame(HEADERS, END_HEADERS, ADDED_431), frame(0, 1, b"why")], [0, 0]);
        check(&[trailers(&[ADDED_431, b"\x40\x01n\x01v"].concat())], [0, 0]);
    }

    #[test]
    fn a_client_may_change_the_size_of_the_table() {
        let [small, large] = [&[0x20][..], &[0x3F, 0xE1, 0x1F]];
        let [first, spelt] = [trailers(ADDED_431), trailers(NOT_ADDED_431)];
        check(&[trailers(&[small, NOT_ADDED_431].concat()), spelt.clone(), trailers(&[0xBE])], [0, 2]);
        check(
            &[first, trailers(&[small, large, ADDED_431].concat()), trailers(&[large, &[0xBE]].concat())],
            [0, 3],
        );
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        for block in
            [&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0x40, 0x7F, 0xFF], &[0x40], &[0x48, 0x83, 0x69], &[0x3F]]
        {
            check(&[trailers(ADDED_431), trailers(block), trailers(&[0xBE]), reset(7)], [1, 1]);
        }
        let unfinished = frame(HEADERS, 0, b"\x40\x01n\x01v");
        check(&[trailers(ADDED_431), unfinished, frame(9, END_HEADERS, &[0x88]), trailers(&[0xBF])], [0, 1]);
    }
}
