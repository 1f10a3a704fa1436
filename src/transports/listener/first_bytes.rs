//! A stream that insists on hearing from its client, and tells when it did.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Passes everything through. Until the first `missing` bytes have been read it also watches the clock: hyper has a
/// deadline for the head of an HTTP/1 request, but none for the preface of an HTTP/2 connection.
pub(super) struct FirstBytes<S> {
    stream: S,
    waiting: Option<Waiting>,
    unanswered: Option<Arc<AtomicBool>>,
}

struct Waiting {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    begun: oneshot::Sender<()>,
}

impl<S> FirstBytes<S> {
    /// Reading fails with `TimedOut` unless `missing` bytes (at least 1) came within `timeout`. The receiver hears
    /// when they did.
    pub(super) fn new(stream: S, missing: usize, timeout: Duration) -> (Self, oneshot::Receiver<()>) {
        let (begun, has_begun) = oneshot::channel();
        let waiting = Waiting { missing, deadline: Box::pin(tokio::time::sleep(timeout)), begun };
        (Self { stream, waiting: Some(waiting), unanswered: None }, has_begun)
    }

    /// Keeps in `unanswered` whether the client has said anything since it was last told something.
    pub(super) fn noting(self, unanswered: Arc<AtomicBool>) -> Self {
        Self { unanswered: Some(unanswered), ..self }
    }

    fn note(&self, unanswered: bool) {
        if let Some(noted) = &self.unanswered {
            noted.store(unanswered, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.note(true);
        }
        let Some(waiting) = &mut this.waiting else { return polled };
        if polled.is_pending() {
            ready!(waiting.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        waiting.missing = waiting.missing.saturating_sub(buf.filled().len() - before);
        if waiting.missing == 0
            && let Some(waiting) = this.waiting.take()
        {
            // Nobody listens any more where the connection is being closed.
            waiting.begun.send(()).ok();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
