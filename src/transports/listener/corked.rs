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

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::refusals::Refusals;
use crate::transports::refused::RefusedRequests;

/// How much is gathered at most. What would be more is written through, together with what was gathered.
const CORK_BYTES: usize = 64 << 10;

/// How large a buffer may be that a connection keeps while it has nothing to write.
const KEPT_BYTES: usize = 4 << 10;

/// How much is read and written before the clock is looked at (again): more than requests at an ordinary pace come to, and little
/// enough not to take long, whatever it is.
const UNTIMED_BYTES: usize = 4 << 10;

/// How many pieces of one write are looked at; h2 has two.
const PIECES: usize = 4;

/// A stream whose writes are gathered. Clones share it: one is for the connection, one for who drives it.
pub(super) struct Corked<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    stream: S,
    frames: Frames,
    refusals: Refusals,
    gathered: BytesMut,
    /// The buffer is larger than is to be kept; it does not tell so itself once a part of it was written.
    is_large: bool,
    /// The stream may hold back what it took, as TLS does where the socket is full: it is to be flushed until it says
    /// that it is done.
    unflushed: bool,
    /// Why writing failed when the connection was not there to hear of it.
    failed: Option<io::Error>,
    turn: Turn,
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
}

impl Turn {
    const fn new(length: Duration) -> Self {
        Self { untimed_bytes: 0, began: None, length, is_over: false, wrote: false }
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
            refusals: Refusals::new(refused),
            frames: Frames::new(Instant::now()),
            gathered: BytesMut::new(),
            is_large: false,
            unflushed: false,
            failed: None,
            turn: Turn::new(turn),
        })))
    }

    /// Begins another turn, and tells whether this one was over before all was done: nobody will be woken for what is left.
    pub(super) fn end_turn(&self) -> bool {
        let turn = &mut self.lock().turn;
        let ended = std::mem::replace(turn, Turn::new(turn.length));
        ended.is_over
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
    /// Writes and flushes what was gathered, as far as the stream takes it, and arranges for a wake-up where that is not all. `true`:
    /// writing failed, which the connection will hear of as soon as it is polled.
    pub(super) fn poll_uncork(&self, cx: &mut Context<'_>) -> bool {
        let mut shared = self.lock();
        if shared.gathered.is_empty() && !shared.unflushed {
            return false;
        }
        let Poll::Ready(Err(error)) = shared.poll_drain(cx) else { return false };
        shared.failed = Some(error);
        shared.gathered = BytesMut::new();
        shared.unflushed = false;
        true
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.gathered.advance(written);
        }
        if std::mem::take(&mut self.is_large) {
            self.gathered = BytesMut::new();
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, pieces: &[IoSlice<'_>], bytes: usize) {
        // Large writes seldom come alone.
        if bytes > KEPT_BYTES && self.gathered.is_empty() {
            self.gathered.reserve(CORK_BYTES);
        }
        for piece in pieces {
            self.gathered.extend_from_slice(piece);
            self.refusals.pass(piece);
        }
        self.is_large |= self.gathered.capacity() > KEPT_BYTES;
    }

    /// So many bytes of these are written.
    fn taken(&mut self, pieces: &[IoSlice<'_>], mut bytes: usize) {
        for piece in pieces {
            let piece = &piece[..piece.len().min(bytes)];
            bytes -= piece.len();
            self.refusals.pass(piece);
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
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.turn.untimed_bytes += written;
            self.unflushed = true;
            if let Some(beyond) = written.checked_sub(self.gathered.len()) {
                self.gathered.clear();
                if beyond > 0 {
                    self.taken(pieces, beyond);
                    return Poll::Ready(Ok(beyond));
                }
            } else {
                self.gathered.advance(written);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Err(error));
        }
        if !shared.turn.goes_on() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut shared.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        shared.turn.untimed_bytes += read.len();
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::iter::repeat_with;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};

    use super::*;
    use crate::transports::refused::RequestRefusal;

    #[tokio::test]
    async fn small_writes_leave_together_once_uncorked() {
        let (near, mut far) = duplex(CORK_BYTES);
        let mut corked = Corked::new(near, Duration::MAX, Arc::default());
        for piece in ["some ", "small ", "writes"] {
            corked.write_all(piece.as_bytes()).await.expect("gathered");
            corked.flush().await.expect("left for later");
        }
        let mut received = [0; 99];
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut unread = ReadBuf::new(&mut received);
        assert!(Pin::new(&mut far).poll_read(cx, &mut unread).is_pending());
        assert!(!corked.poll_uncork(cx));
        let length = far.read(&mut received).await.expect("open");
        assert_eq!(&received[..length], b"some small writes");
    }

    #[tokio::test]
    async fn a_stream_that_holds_back_what_it_took_is_flushed_until_it_is_done() {
        // As TLS does: takes all at once, and gives the socket what that takes.
        for bytes in [1000, CORK_BYTES, 4 * CORK_BYTES] {
            let (near, mut far) = duplex(100);
            let mut corked =
                Corked::new(BufWriter::with_capacity(8 * CORK_BYTES, near), Duration::MAX, Arc::default());
            corked.write_all(&vec![7; bytes]).await.expect("taken");
            let uncorking = poll_fn(|cx| {
                assert!(!corked.poll_uncork(cx));
                Poll::<()>::Pending
            });
            let mut received = vec![0; bytes];
            let received = far.read_exact(&mut received);
            let received = async { tokio::time::timeout(Duration::from_secs(10), received).await };
            tokio::select! {
                () = uncorking => {}
                received = received => assert_eq!(received.expect("all arrives").expect("open"), bytes),
            }
            assert!(corked.lock().gathered.capacity() <= KEPT_BYTES, "{bytes} bytes are not kept room for");
        }
    }

    #[tokio::test]
    async fn every_byte_arrives_once_and_in_order_whatever_the_stream_takes_at_a_time() {
        for room in [1, 1000, CORK_BYTES, 4 * CORK_BYTES] {
            let seed = fastrand::u64(..);
            let mut random = fastrand::Rng::with_seed(seed);
            let writes = if room == 1 { 5 } else { 50 };
            let sizes = repeat_with(|| {
                let most = 1 << random.u32(..18);
                random.usize(..most)
            });
            let sizes: Vec<usize> = sizes.take(writes).collect();
            let sent: Vec<u8> = repeat_with(|| random.u8(..)).take(sizes.iter().sum()).collect();
            let (near, mut far) = duplex(room);
            let reader = tokio::spawn(async move {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.expect("open");
                received
            });
            let mut corked = Corked::new(near, Duration::MAX, Arc::default());
            let mut rest = &sent[..];
            for size in sizes {
                let piece;
                (piece, rest) = rest.split_at(size);
                let (left, right) = piece.split_at(random.usize(..=size));
                let mut pieces = Buf::chain(left, right);
                while pieces.has_remaining() {
                    corked.write_buf(&mut pieces).await.expect("open");
                }
                if random.bool() {
                    poll_fn(|cx| Poll::Ready(corked.poll_uncork(cx))).await;
                }
            }
            corked.shutdown().await.expect("open");
            drop(corked);
            assert!(reader.await.expect("no panic") == sent, "room for {room} bytes, seed {seed}");
        }
    }

    #[tokio::test]
    async fn streams_that_are_refused_are_counted_whether_that_is_gathered_or_written_through() {
        for size in [0, 10, CORK_BYTES, 4 * CORK_BYTES] {
            let length = u32::try_from(size).expect("short").to_be_bytes();
            let data = [&length[1..], &[0, 0, 0, 0, 0, 1], &vec![7; size]].concat();
            let refused = [0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 7];
            let (near, mut far) = duplex(1000);
            let reader = tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
            let counts = Arc::<RefusedRequests>::default();
            let mut corked = Corked::new(near, Duration::MAX, Arc::clone(&counts));
            for _ in 0..3 {
                let mut pieces = Buf::chain(&data[..], &refused[..]);
                while pieces.has_remaining() {
                    corked.write_buf(&mut pieces).await.expect("open");
                }
            }
            corked.shutdown().await.expect("open");
            drop(corked);
            assert_eq!(reader.await.expect("no panic").expect("open"), 3 * (data.len() + refused.len()));
            assert_eq!(counts.total(RequestRefusal::TooManyStreams), 3, "beside {size} bytes");
        }
    }

    #[tokio::test]
    async fn nothing_is_read_or_written_through_from_the_end_of_a_turn_to_the_next() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let large = vec![7; 1 + CORK_BYTES];
        for (length, ends) in [(Duration::ZERO, true), (Duration::MAX, false)] {
            let (mut near, far) = duplex(8 * CORK_BYTES);
            near.write_all(&vec![7; 3 * UNTIMED_BYTES]).await.expect("room");
            let mut corked = Corked::new(far, length, Arc::default());
            for _ in 0..2 {
                // So little is not timed.
                let mut received = [0; UNTIMED_BYTES];
                let mut received = ReadBuf::new(&mut received);
                assert!(Pin::new(&mut corked).poll_read(cx, &mut received).is_ready());
                for _ in 0..2 {
                    let polled = Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut [0]));
                    assert_eq!(polled.is_pending(), ends);
                }
                assert!(Pin::new(&mut corked).poll_write(cx, &[7]).is_ready(), "answers are gathered");
                assert!(!corked.is_spent_writing());
                assert_eq!(corked.end_turn(), ends);
            }
            for _ in 0..2 {
                // Begun in time, however long it takes.
                assert!(Pin::new(&mut corked).poll_write(cx, &large).is_ready());
                for next in [&large[..], &[7]] {
                    let written = Pin::new(&mut corked).poll_write(cx, next);
                    assert_eq!(written.is_pending(), ends, "{} bytes", next.len());
                }
                assert_eq!(corked.is_spent_writing(), ends);
                assert!(!corked.poll_uncork(cx));
                assert_eq!(corked.end_turn(), ends);
                assert!(!corked.is_spent_writing());
            }
        }
    }

    #[tokio::test]
    async fn a_failure_while_nobody_writes_is_told_to_the_next_who_reads() {
        let (near, far) = duplex(10);
        let mut corked = Corked::new(near, Duration::MAX, Arc::default());
        corked.write_all(b"nobody will read this").await.expect("gathered");
        drop(far);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(corked.poll_uncork(cx));
        assert!(!corked.poll_uncork(cx));
        assert_eq!(corked.read_u8().await.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
