//! What a connection writes, gathered until it has nothing more to write for now.
//!
//! h2 hands every frame of 256 bytes and more to the socket by itself and asks for it to be flushed: a system call per
//! answer, and often a wake-up of the client for each. Whoever drives the connection knows better when all there is to say
//! has been said, and flushes then ([`Corked::poll_uncork`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// How much is gathered at most. What would be more is written through, together with what was gathered.
const CORK_BYTES: usize = 64 << 10;

/// How large a buffer may be that a connection keeps while it has nothing to write.
const KEPT_BYTES: usize = 4 << 10;

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
    /// Why writing failed when the connection was not there to hear of it.
    failed: Option<io::Error>,
}

impl<S> Clone for Corked<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Corked<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            stream,
            frames: Frames::new(),
            gathered: BytesMut::new(),
            is_large: false,
            unflushed: false,
            failed: None,
        })))
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
        }
        self.is_large |= self.gathered.capacity() > KEPT_BYTES;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let pieces = &pieces[..pieces.len().min(PIECES)];
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            if self.gathered.len() + bytes <= CORK_BYTES {
                self.gather(pieces, bytes);
                return Poll::Ready(Ok(bytes));
            }
            let mut all = [IoSlice::new(&[]); 1 + PIECES];
            all[0] = IoSlice::new(&self.gathered);
            all[1..=pieces.len()].copy_from_slice(pieces);
            let all = &all[..=pieces.len()];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if let Some(beyond) = written.checked_sub(self.gathered.len()) {
                self.gathered.clear();
                if beyond > 0 {
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
        let before = buf.filled().len();
        ready!(Pin::new(&mut shared.stream).poll_read(cx, buf))?;
        Poll::Ready(shared.frames.pass(&buf.filled()[before..]).map_err(Into::into))
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

    #[tokio::test]
    async fn small_writes_leave_together_once_uncorked() {
        let (near, mut far) = duplex(CORK_BYTES);
        let mut corked = Corked::new(near);
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
            let mut corked = Corked::new(BufWriter::with_capacity(8 * CORK_BYTES, near));
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
            let mut corked = Corked::new(near);
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
    async fn a_failure_while_nobody_writes_is_told_to_the_next_who_reads() {
        let (near, far) = duplex(10);
        let mut corked = Corked::new(near);
        corked.write_all(b"nobody will read this").await.expect("gathered");
        drop(far);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(corked.poll_uncork(cx));
        assert!(!corked.poll_uncork(cx));
        assert_eq!(corked.read_u8().await.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
