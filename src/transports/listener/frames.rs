//! A look at what kind of HTTP/2 frames a client sends, since some are answered and cost it nothing.
//!
//! h2 ends a connection for continuations and tiny data without end, but answers every ping and every change of
//! settings, and of resets it looks at those alone that come before it has got round to their streams. So each of these takes credit,
//! and so does what there is no use for; each frame of a request brings one
//! back, and so does time. Clients that measure the network with pings send no more of them than they get answers; who runs
//! out of credit does nothing but to keep the server busy.

use std::io;
use std::time::Instant;

use super::scan::{
    CONTINUATION, DATA, END_STREAM, HEADERS, Head, RST_STREAM, SETTINGS, Scanner, WINDOW_UPDATE, Watcher,
};
use super::streams::Streams;

/// Length of the bytes that open every HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// How many frames without use a client may send at once.
const CREDIT: u32 = 10_000;

/// How many it may send for each second that passes.
const CREDIT_PER_SECOND: u128 = 1000;

/// What a reset costs: more than the frames of the request bring that it ends. Whoever lets most requests end has as many as he likes.
const CREDITS_PER_RESET: usize = 3;

/// As many open streams cost a change of settings as much as a frame without use.
const STREAMS_PER_CREDIT: usize = 4;

/// Why a connection is ended whose client has run out of credit.
#[derive(Debug, thiserror::Error)]
#[error("too many frames that ask for nothing")]
pub(super) struct Flooded;

impl Flooded {
    /// All that h2 leaves of what it fails with; no socket has it.
    pub(super) const KIND: io::ErrorKind = io::ErrorKind::QuotaExceeded;
}

impl From<Flooded> for io::Error {
    fn from(flooded: Flooded) -> Self {
        Self::new(Flooded::KIND, flooded)
    }
}

/// The frames of one connection, as its bytes come.
pub(super) struct Frames {
    scanner: Scanner,
    /// How many frames without use may come before the clock is looked at.
    pub(super) credit: u32,
    credited: Instant,
    streams: Streams,
}

impl Frames {
    /// Of a connection that begins `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            scanner: Scanner::before(PREFACE_BYTES),
            credit: CREDIT,
            credited: now,
            streams: Streams::new(),
        }
    }

    /// The streams that are open by these frames, and by those that go the other way.
    pub(super) const fn streams(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// The newest stream whose head has come as a whole.
    pub(super) const fn newest_whole(&self) -> u32 {
        let newest = self.streams.newest();
        if self.scanner.is_within_frame() { newest.saturating_sub(1) } else { newest }
    }

    /// Looks at bytes that have come. The clock is read where there is no credit left.
    pub(super) fn pass(&mut self, bytes: &[u8], clock: impl Fn() -> Instant) -> Result<(), Flooded> {
        let Self { scanner, credit, credited, streams } = self;
        scanner.pass(bytes, &mut Watch { credit, credited, streams, clock })
    }
}

/// The rest of [`Frames`] while they are looked at.
struct Watch<'a, C> {
    credit: &'a mut u32,
    credited: &'a mut Instant,
    streams: &'a mut Streams,
    clock: C,
}

impl<C: Fn() -> Instant> Watcher for Watch<'_, C> {
    type End = Flooded;

    fn frame(&mut self, head: &Head, _: &[u8]) -> Result<(), Flooded> {
        match head.kind {
            HEADERS => {
                self.bring_credit();
                self.streams.begins(head.stream);
            }
            DATA if head.bytes > 0 || head.has(END_STREAM) => self.bring_credit(),
            RST_STREAM => {
                self.streams.ends(head.stream);
                self.take_credit(CREDITS_PER_RESET)?;
            }
            // h2 bounds these, or they cost nothing.
            DATA | WINDOW_UPDATE | CONTINUATION => {}
            // A change of the window's size is one of each open stream's.
            SETTINGS => self.take_credit(1 + self.streams.open() / STREAMS_PER_CREDIT)?,
            _ => self.take_credit(1)?,
        }
        Ok(())
    }
}

impl<C: Fn() -> Instant> Watch<'_, C> {
    fn bring_credit(&mut self) {
        *self.credit = (*self.credit + 1).min(CREDIT);
    }

    fn take_credit(&mut self, credits: usize) -> Result<(), Flooded> {
        let credits = u32::try_from(credits).unwrap_or(u32::MAX);
        if *self.credit < credits {
            let now = (self.clock)();
            let earned = (now - *self.credited).as_millis() * CREDIT_PER_SECOND / 1000;
            let all = earned + u128::from(*self.credit);
            *self.credit = u32::try_from(all).map_or(CREDIT, |all| all.min(CREDIT));
            *self.credited = now;
        }
        *self.credit = self.credit.checked_sub(credits).ok_or(Flooded)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::scan;
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        scan::tests::frame(kind, flags, 1, content)
    }

    /// How many of `count` frames that are sent in pieces of `piece` bytes pass.
    fn passed(frame: &[u8], count: u32, piece: usize) -> u32 {
        // In a moment that is over no credit is earned.
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.pass(&[0; PREFACE_BYTES], || now).expect("no frame yet");
        let mut passed = 0;
        while passed < count && frame.chunks(piece).all(|bytes| frames.pass(bytes, || now).is_ok()) {
            passed += 1;
        }
        passed
    }

    #[test]
    fn frames_that_ask_for_nothing_have_an_end() {
        let [many, few] = [CREDIT * 3, CREDIT];
        for (name, frame, expected) in [
            ("pings", frame(PING, 0, &[0; 8]), few),
            ("acknowledged pings", frame(PING, 1, &[0; 8]), few),
            ("settings", frame(4, 0, &[]), few),
            ("priorities", frame(2, 0, &[0; 5]), few),
            ("frames that nobody knows", frame(77, 0, &[1; 300]), few),
            ("requests", [frame(HEADERS, 4, &[1; 30]), frame(DATA, 1, &[2; 20])].concat(), many),
            ("requests without content", frame(HEADERS, 5, &[1; 30]), many),
            // Each costs two beside what its frames bring, or one, and the first brings nothing.
            (
                "requests that are reset",
                [frame(HEADERS, 4, &[1; 30]), frame(RST_STREAM, 0, &[0; 4])].concat(),
                few / 2 - 1,
            ),
            (
                "requests with content that are reset",
                [frame(HEADERS, 4, &[1; 30]), frame(DATA, 1, &[2; 20]), frame(RST_STREAM, 0, &[0; 4])]
                    .concat(),
                few - 2,
            ),
            (
                "requests of which half are reset",
                [frame(HEADERS, 4, &[1; 30]), frame(DATA, 1, &[2; 20])]
                    .concat()
                    .repeat(2)
                    .into_iter()
                    .chain(frame(RST_STREAM, 0, &[0; 4]))
                    .collect(),
                many,
            ),
            ("windows", frame(WINDOW_UPDATE, 0, &[0; 4]), many),
            ("a ping for each answer", [frame(PING, 0, &[6; 8]), frame(HEADERS, 5, &[6; 40])].concat(), many),
            ("pings in a large frame", frame(DATA, 0, &frame(PING, 0, &[0; 8]).repeat(50)), many),
        ] {
            for piece in [1, 7, 1000] {
                assert_eq!(passed(&frame, many, piece), expected, "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_change_of_settings_costs_the_more_the_more_streams_are_open() {
        for (streams, expected) in [(0, CREDIT), (3, CREDIT), (4, CREDIT / 2), (1000, CREDIT / 251)] {
            let now = Instant::now();
            let mut frames = Frames { scanner: Scanner::before(0), ..Frames::new(now) };
            for stream in 0..streams {
                let head = scan::tests::frame(HEADERS, 4, 2 * stream + 1, &[1; 30]);
                frames.pass(&head, || now).expect("a request");
            }
            let settings = frame(SETTINGS, 0, &[0, 4, 0, 0, 0, 1]);
            let passed = (0..2 * CREDIT).take_while(|_| frames.pass(&settings, || now).is_ok()).count();
            assert_eq!(passed, expected as usize, "{streams} streams");
        }
    }

    #[test]
    fn who_sends_few_at_a_time_may_do_so_for_ever() {
        let mut now = Instant::now();
        let mut frames = Frames { credit: 0, scanner: Scanner::before(0), ..Frames::new(now) };
        let ping = frame(PING, 0, &[0; 8]);
        for _ in 0..100 {
            now += Duration::from_millis(20);
            for _ in 0..20 {
                frames.pass(&ping, || now).expect("they were earned");
            }
        }
        frames.pass(&ping, || now).expect_err("it was not earned");
    }
}
