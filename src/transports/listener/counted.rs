//! A stream that counts the bytes that go through it, as they are on the wire, and gives up on a client that takes none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::counters::ConnectionCounters;
use crate::transports::refused::RequestRefusal;

/// Passes everything through. Sits below TLS, so that what is counted is what the network carries.
///
/// Writing fails with `ConnectionAborted` once nothing at all could be written for as long as `patience`: who keeps a connection
/// open and reads nothing would hold answers forever, whatever else it says. So does reading or writing where the system gave up on
/// the client, since nothing that was sent has been acknowledged for long.
pub(super) struct Counted<S> {
    stream: S,
    counters: Arc<ConnectionCounters>,
    patience: Duration,
    /// While the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// That it takes nothing was counted: both ways of finding out may come to it.
    is_given_up: bool,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, counters: Arc<ConnectionCounters>, patience: Duration) -> Self {
        Self { stream, counters, patience, stalled: None, is_given_up: false }
    }

    fn sent(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(bytes)) => self.counters.sent(bytes),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failed(error))),
            Poll::Pending => {
                let patience = self.patience;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                if stalled.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                return Poll::Ready(Err(self.not_taken()));
            }
        }
        self.stalled = None;
        polled
    }

    /// What comes back as a failure to take must not look like a failure to send in time.
    fn not_taken(&mut self) -> io::Error {
        if !std::mem::replace(&mut self.is_given_up, true) {
            self.counters.refused_requests().count(RequestRefusal::NotTaken);
        }
        io::ErrorKind::ConnectionAborted.into()
    }

    fn failed(&mut self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::TimedOut { self.not_taken() } else { error }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf)).map_err(|error| self.failed(error))?;
        self.counters.received(buf.filled().len() - before);
        Poll::Ready(Ok(()))
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
