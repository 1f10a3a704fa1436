//! A stream that counts the bytes that go through it, as they are on the wire, and gives up on a client that takes none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::counters::ConnectionCounters;
use crate::transports::refused::RequestRefusal;

/// Passes everything through. Sits below TLS, so that what is counted is what the network carries.
///
/// Writing fails with `ConnectionAborted` once nothing at all could be written for as long as `patience`: who keeps a connection
/// open and reads nothing would hold answers forever, whatever else it says.
pub(super) struct Counted<S> {
    stream: S,
    counters: Arc<ConnectionCounters>,
    patience: Duration,
    /// While the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, counters: Arc<ConnectionCounters>, patience: Duration) -> Self {
        Self { stream, counters, patience, stalled: None }
    }

    fn sent(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(bytes)) => self.counters.sent(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let patience = self.patience;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                if stalled.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.counters.refused_requests().count(RequestRefusal::NotTaken);
                // What comes back as a failure to write must not look like a failure to read in time.
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        self.stalled = None;
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.counters.received(buf.filled().len() - before);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(polled, cx)
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
