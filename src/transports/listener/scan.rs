//! Frames of HTTP/2 in bytes that come in pieces, wherever those are cut.

/// Length of what a frame begins with (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A stream's number, whose first bit means nothing.
pub(super) const fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & (u32::MAX >> 1)
}

/// What a frame begins with.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Length of the content.
    pub(super) bytes: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    const fn of(&[high, middle, low, kind, flags, a, b, c, d]: &[u8; HEAD_BYTES]) -> Self {
        let bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
        Self { bytes, kind, flags, stream: number([a, b, c, d]) }
    }

    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Who is shown frames.
pub(super) trait Watcher {
    /// Why none are to be shown any more.
    type End;

    /// How much of a frame's content is to be shown, from its beginning on. The same each time until a frame is shown.
    fn wants(&self, head: &Head) -> usize {
        let _ = head;
        0
    }

    /// A frame, and of its content what there is of what is [wanted](Self::wants).
    fn frame(&mut self, head: &Head, content: &[u8]) -> Result<(), Self::End>;
}

/// Where one is in the bytes of one direction of a connection.
pub(super) struct Scanner {
    /// What is left of what nobody wants.
    passing_bytes: usize,
    /// The beginning of a frame whose rest, as far as that is wanted, has not come.
    begun: Vec<u8>,
}

impl Scanner {
    /// Before the first frame, or so many bytes before that.
    pub(super) const fn before(bytes: usize) -> Self {
        Self { passing_bytes: bytes, begun: Vec::new() }
    }

    /// Whether the rest of a frame that was shown is to come.
    pub(super) const fn is_within_frame(&self) -> bool {
        self.passing_bytes > 0
    }

    /// Whether all bytes until now were whole frames.
    #[cfg(test)]
    pub(super) fn is_between_frames(&self) -> bool {
        self.passing_bytes == 0 && self.begun.is_empty()
    }

    /// Shows the frames that end with these bytes, as far as they are wanted.
    pub(super) fn pass<W: Watcher>(&mut self, mut bytes: &[u8], watcher: &mut W) -> Result<(), W::End> {
        loop {
            let passing = self.passing_bytes.min(bytes.len());
            self.passing_bytes -= passing;
            bytes = &bytes[passing..];
            if bytes.is_empty() {
                return Ok(());
            }
            bytes = if self.begun.is_empty() {
                self.look(bytes, watcher)?
            } else {
                self.complete(bytes, watcher)?
            };
        }
    }

    /// Looks at a frame from its beginning; what comes after what is wanted of it.
    fn look<'a, W: Watcher>(&mut self, bytes: &'a [u8], watcher: &mut W) -> Result<&'a [u8], W::End> {
        let Some((head, rest)) = bytes.split_first_chunk() else { return Ok(self.keep(bytes)) };
        let head = Head::of(head);
        let wanted = watcher.wants(&head).min(head.bytes);
        let Some((content, rest)) = rest.split_at_checked(wanted) else { return Ok(self.keep(bytes)) };
        self.passing_bytes = head.bytes - wanted;
        watcher.frame(&head, content)?;
        Ok(rest)
    }

    fn keep<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.begun.extend_from_slice(bytes);
        &[]
    }

    /// Adds to a frame that has begun what it lacks, its head first.
    fn complete<'a, W: Watcher>(&mut self, bytes: &'a [u8], watcher: &mut W) -> Result<&'a [u8], W::End> {
        let wanted = self.begun.first_chunk().map_or(0, |head| {
            let head = Head::of(head);
            watcher.wants(&head).min(head.bytes)
        });
        let missing = HEAD_BYTES + wanted - self.begun.len();
        let (more, rest) = bytes.split_at(missing.min(bytes.len()));
        self.begun.extend_from_slice(more);
        if more.len() == missing {
            let begun = std::mem::take(&mut self.begun);
            self.look(&begun, watcher)?;
        }
        Ok(rest)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Pieces in which frames are shown by tests.
    pub(in super::super) const PIECES: [usize; 8] = [1, 2, 5, 9, 10, 13, 14, 1000];

    /// A frame of a stream.
    pub(in super::super) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    /// Wants as many bytes of a frame's content as its flags say.
    #[derive(Default)]
    struct Shown(Vec<(u8, u32, Vec<u8>)>);

    impl Watcher for Shown {
        type End = Infallible;

        fn wants(&self, head: &Head) -> usize {
            head.flags.into()
        }

        fn frame(&mut self, head: &Head, content: &[u8]) -> Result<(), Infallible> {
            self.0.push((head.kind, head.stream, content.to_vec()));
            Ok(())
        }
    }

    #[test]
    fn frames_are_shown_as_far_as_they_are_wanted_whatever_the_pieces() {
        let frames = [
            (4, 0, 0, vec![]),
            (HEADERS, 3, 1, vec![7; 300]),
            (DATA, 0, 1, frame(DATA, 9, 5, &[1; 9]).repeat(20)),
            (RST_STREAM, 4, 9 | 1 << 31, vec![0, 0, 0, 7]),
            (GOAWAY, 4, 0, vec![1, 2, 3, 4, 5, 6, 7, 8]),
            (WINDOW_UPDATE, 200, 3, vec![1; 4]),
            (CONTINUATION, 255, 3, vec![2; 4000]),
        ];
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, content)| frame(*kind, *flags, *stream, content))
            .collect();
        let wanted = frames.map(|(kind, flags, stream, mut content)| {
            content.truncate(flags.into());
            (kind, stream % (1 << 31), content)
        });
        for piece in PIECES {
            let (mut scanner, mut shown) = (Scanner::before(3), Shown::default());
            for bytes in [b"not", &bytes[..]].concat().chunks(piece) {
                let Ok(()) = scanner.pass(bytes, &mut shown);
            }
            assert_eq!(shown.0, wanted, "in pieces of {piece}");
            assert!(scanner.is_between_frames(), "in pieces of {piece}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_wants() {
        let (mut scanner, mut shown) = (Scanner::before(0), Shown::default());
        let bytes = frame(DATA, 0, 1, &[0; 10_000]);
        for bytes in bytes.chunks(100) {
            let Ok(()) = scanner.pass(bytes, &mut shown);
            assert_eq!(scanner.begun.capacity(), 0);
        }
    }
}
