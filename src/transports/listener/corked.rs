//! What a connection writes, gathered until it has nothing more to write for now.
//!
//! h2 hands every frame of 256 bytes and more to the socket by itself and asks for it to be flushed: a system call per
//! answer, and often a wake-up of the client for each. Whoever drives the connection knows better when all there is to say
//! has been said, and flushes then ([`Corked::poll_uncork`]).
//!
//! It also knows when a connection is to let others have their turn: h2 reads for as long as there is something to read, and
//! writes for as long as the system takes it, so a client that sends faster than it is understood, or asks for much, would keep its
//! thread. Once a turn is over nothing more is there to be read, and nothing is taken beyond what is gathered, until the next
//! ([`Corked::end_turn`]).
//!
//! And h2 reads on, and has answers made, when nobody takes those that are there. Here nothing is read while the system does not take
//! what is to be written: whatever a client says, it could not be answered. And no more requests are read at a time than there is room
//! for ([`Corked::begin`]).

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cost::Cost;
use super::frames::Frames;
use super::written::Written;
use crate::transports::refused::RefusedRequests;

/// How much is gathered at most. What would be more is written through, together with what was gathered.
const CORK_BYTES: usize = 64 << 10;

/// How large a buffer may be that a connection keeps while it has nothing to write.
const KEPT_BYTES: usize = 4 << 10;

/// How much is read and written before the clock is looked at (again): more than requests at an ordinary pace come to, and little
/// enough not to take long, whatever it is.
const UNTIMED_BYTES: usize = 4 << 10;

/// The shortest head of a request: its own, and a byte for each of four fields.
const LEAST_HEAD_BYTES: usize = 13;

/// How much is read at a time where there is room for few requests: enough for windows, pings and resets.
const LEAST_READ_BYTES: usize = 64;

/// How many pieces of one write are looked at; h2 has two.
const PIECES: usize = 4;

/// A stream whose writes are gathered. Clones share it: one is for the connection, one for who drives it.
pub(super) struct Corked<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    stream: S,
    frames: Frames,
    gathered: BytesMut,
    /// The buffer is larger than is to be kept; it does not tell so itself once a part of it was written.
    is_large: bool,
    /// The stream may hold back what it took, as TLS does where the socket is full: it is to be flushed until it says
    /// that it is done.
    unflushed: bool,
    way: Way,
    written: Written,
    /// Why writing failed when the connection was not there to hear of it.
    failed: Option<io::Error>,
    turn: Turn,
    cost: Cost,
}

/// Whether the stream takes what it is given.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Free,
    /// It did not take the last. `is_missed`: somebody wanted to read meanwhile.
    Blocked {
        is_missed: bool,
    },
    /// It does again, and somebody wanted to read meanwhile.
    LetGo,
}

impl Way {
    fn block(&mut self) {
        match self {
            Self::Free => *self = Self::Blocked { is_missed: false },
            Self::LetGo => *self = Self::Blocked { is_missed: true },
            Self::Blocked { .. } => {}
        }
    }

    fn free(&mut self) {
        if let Self::Blocked { is_missed } = *self {
            *self = if is_missed { Self::LetGo } else { Self::Free };
        }
    }

    const fn is_blocked(self) -> bool {
        matches!(self, Self::Blocked { .. })
    }
}

/// How long reading and writing have gone on.
struct Turn {
    /// What was read and written since the clock was looked at.
    untimed_bytes: usize,
    /// `None`: that was not enough yet to look at it at all.
    began: Option<Instant>,
    length: Duration,
    is_over: bool,
    /// Some of it went into writing through.
    wrote: bool,
    /// How many requests there may have been on the connection before it reads no further.
    may_come: u64,
    /// The newest stream before those whose head has come as a whole.
    newest: u32,
    /// How many streams were at their end when it began.
    ended: u64,
    /// The stream took something.
    moved: bool,
}

/// How things stand at the end of a turn.
pub(super) struct Standing {
    /// The turn was over before all was done: nobody will be woken for what is left.
    pub(super) is_over: bool,
    /// Streams that are not at their end.
    pub(super) open: usize,
    /// Those of them that have come since room was last given, whose requests are not answered and maybe not read as a whole.
    pub(super) fresh: usize,
    /// What is kept of that for which the stream has no room.
    pub(super) blocked_bytes: usize,
    /// The client took something: an answer came to its end, or the stream took some of what is too much for it or for a turn. Of
    /// anything else that is written it may be the client's window that holds up the rest.
    pub(super) took: bool,
}

impl Turn {
    const fn new(length: Duration) -> Self {
        Self {
            untimed_bytes: 0,
            began: None,
            length,
            is_over: false,
            wrote: false,
            may_come: u64::MAX,
            newest: 0,
            ended: 0,
            moved: false,
        }
    }

    /// Is told of each write of what is too much to be gathered, before it: that may take all of the turn, as where the system
    /// has to find memory for what it keeps until the client takes it.
    fn write(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        self.wrote = true;
    }

    /// Whether writing took the rest of it, so that there is enough to be written as it is.
    const fn is_spent_writing(&self) -> bool {
        self.is_over && self.wrote
    }

    /// Is told of bytes that take long, which have come just `now`.
    fn read_dear(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.untimed_bytes = UNTIMED_BYTES;
    }

    /// Whether there may be more of it.
    fn goes_on(&mut self) -> bool {
        if self.untimed_bytes >= UNTIMED_BYTES && !self.is_over {
            self.untimed_bytes = 0;
            let now = Instant::now();
            self.is_over = now - *self.began.get_or_insert(now) >= self.length;
        }
        !self.is_over
    }
}

impl<S> Clone for Corked<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Corked<S> {
    /// Lets `stream` be read and written for about as long as `turn` at a time. What HTTP/2 refuses by itself is counted in `refused`.
    pub(super) fn new(stream: S, turn: Duration, refused: Arc<RefusedRequests>) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            stream,
            frames: Frames::new(Instant::now()),
            gathered: BytesMut::new(),
            is_large: false,
            unflushed: false,
            way: Way::Free,
            written: Written::new(refused),
            failed: None,
            turn: Turn::new(turn),
            cost: Cost::default(),
        })))
    }

    /// Begins another turn, and tells how things stood at the end of this one.
    pub(super) fn end_turn(&self) -> Standing {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let streams = shared.frames.streams();
        let next = Turn { ended: streams.ended(), ..Turn::new(shared.turn.length) };
        let turn = std::mem::replace(&mut shared.turn, next);
        let is_blocked = shared.way.is_blocked();
        let held_back_by_tls = if shared.unflushed { CORK_BYTES } else { 0 };
        Standing {
            is_over: turn.is_over || streams.come() >= turn.may_come,
            open: streams.open(),
            fresh: streams.open_after(turn.newest),
            blocked_bytes: if is_blocked { shared.gathered.capacity() + held_back_by_tls } else { 0 },
            took: streams.ended() > turn.ended || turn.moved && (is_blocked || turn.is_spent_writing()),
        }
    }

    /// Whether there is something to be read again, as the stream has taken what it had no room for.
    pub(super) fn is_let_go(&self) -> bool {
        let mut shared = self.lock();
        let is_let_go = shared.way == Way::LetGo;
        if is_let_go {
            shared.way = Way::Free;
        }
        is_let_go
    }

    /// Whether the turn went into writing, and is over: what is gathered or answered now could only leave in the next.
    pub(super) fn is_spent_writing(&self) -> bool {
        self.lock().turn.is_spent_writing()
    }

    /// Never contended: whoever drives the connection is who polls it.
    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Lets some more requests be read, once the stream has taken what it had no room for.
    pub(super) fn begin(&self, requests: usize, cx: &mut Context<'_>) {
        let mut shared = self.lock();
        if shared.way.is_blocked() {
            shared.uncork(cx);
        }
        shared.cost.is_interrupted();
        let shared = &mut *shared;
        let newest = shared.frames.newest_whole();
        let streams = shared.frames.streams();
        shared.turn.may_come = streams.come().saturating_add(requests as u64);
        shared.turn.newest = newest;
    }

    /// Writes and flushes what was gathered, as far as the stream takes it, and arranges for a wake-up where that is not all. `true`:
    /// writing failed, which the connection will hear of as soon as it is polled.
    pub(super) fn poll_uncork(&self, cx: &mut Context<'_>) -> bool {
        self.lock().uncork(cx)
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn uncork(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gathered.is_empty() && !self.unflushed {
            return false;
        }
        let Poll::Ready(Err(error)) = self.poll_drain(cx) else { return false };
        self.failed = Some(error);
        self.gathered = BytesMut::new();
        self.unflushed = false;
        self.way.free();
        true
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &self.gathered);
            let written = ready!(self.taken(polled, cx))?;
            self.gathered.advance(written);
        }
        if std::mem::take(&mut self.is_large) {
            self.gathered = BytesMut::new();
        }
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_pending() {
            self.way.block();
        }
        ready!(polled)?;
        self.way.free();
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Takes note of what came of a write.
    fn taken(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = polled else {
            // Most streams hold back nothing, and say so.
            if self.unflushed {
                ready!(self.poll_flush(cx))?;
            }
            self.way.block();
            return Poll::Pending;
        };
        let written = written?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.way.free();
        self.unflushed = true;
        self.turn.moved = true;
        Poll::Ready(Ok(written))
    }

    fn gather(&mut self, pieces: &[IoSlice<'_>], bytes: usize) {
        // Large writes seldom come alone.
        if bytes > KEPT_BYTES && self.gathered.is_empty() {
            self.gathered.reserve(CORK_BYTES);
        }
        for piece in pieces {
            self.gathered.extend_from_slice(piece);
            self.note(piece);
        }
        self.is_large |= self.gathered.capacity() > KEPT_BYTES;
    }

    /// Looks at the frames in what is written.
    fn note(&mut self, bytes: &[u8]) {
        self.written.pass(bytes, self.frames.streams());
    }

    /// So many bytes of these are written through.
    fn pass(&mut self, pieces: &[IoSlice<'_>], mut bytes: usize) {
        for piece in pieces {
            let piece = &piece[..piece.len().min(bytes)];
            bytes -= piece.len();
            self.note(piece);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let pieces = &pieces[..pieces.len().min(PIECES)];
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            if self.gathered.len() + bytes <= CORK_BYTES && (!self.turn.wrote || self.turn.goes_on()) {
                // After a write it is the beginning of the next one, which takes its time as well.
                self.turn.untimed_bytes += if self.turn.wrote { bytes } else { 0 };
                self.gather(pieces, bytes);
                return Poll::Ready(Ok(bytes));
            }
            if !self.turn.goes_on() {
                return Poll::Pending;
            }
            self.turn.write();
            let mut all = [IoSlice::new(&[]); 1 + PIECES];
            all[0] = IoSlice::new(&self.gathered);
            all[1..=pieces.len()].copy_from_slice(pieces);
            let all = &all[..=pieces.len()];
            let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, all);
            let written = ready!(self.taken(polled, cx))?;
            self.turn.untimed_bytes += written;
            if let Some(beyond) = written.checked_sub(self.gathered.len()) {
                self.gathered.clear();
                if beyond > 0 {
                    self.pass(pieces, beyond);
                    return Poll::Ready(Ok(beyond));
                }
            } else {
                self.gathered.advance(written);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Shared<S> {
    /// Reads no more bytes than so many requests may come to, and than can be seen to in a moment.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        requests: usize,
    ) -> Poll<io::Result<()>> {
        let most = requests.saturating_mul(LEAST_HEAD_BYTES);
        let most = self.cost.bound().map_or(most, |bound| most.min(bound)).max(LEAST_READ_BYTES);
        if most >= buf.remaining() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Err(error));
        }
        if shared.way.is_blocked() {
            shared.way = Way::Blocked { is_missed: true };
            return Poll::Pending;
        }
        shared.cost.is_done(Instant::now);
        if !shared.turn.goes_on() {
            return Poll::Pending;
        }
        let more = shared.turn.may_come.saturating_sub(shared.frames.streams().come());
        if more == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(shared.poll_read(cx, buf, usize::try_from(more).unwrap_or(usize::MAX)))?;
        let read = &buf.filled()[before..];
        shared.turn.untimed_bytes += read.len();
        if let Some(now) = shared.cost.has_read(read.len(), Instant::now)
            && shared.cost.bound().is_some()
        {
            shared.turn.read_dear(now);
        }
        Poll::Ready(shared.frames.pass(read, Instant::now).map_err(Into::into))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    /// Left to [`Corked::poll_uncork`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        ready!(shared.poll_drain(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(cx)
    }
}
