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
/// open and reads nothing would hold answers forever, whatever else it says. Where answers come one after the other, each has to be
/// taken as a whole in that time, from when the client first took no more of it. So does reading or writing where the system gave up on
/// the client, since nothing that was sent has been acknowledged for long.
pub(super) struct Counted<S> {
    stream: S,
    counters: Arc<ConnectionCounters>,
    patience: Duration,
    /// Whether what has been written is flushed before there is another answer.
    one_by_one: bool,
    /// Since the client took nothing: until it takes something, or an answer to its end.
    stalled: Option<Pin<Box<Sleep>>>,
    /// That it takes nothing was counted: both ways of finding out may come to it.
    is_given_up: bool,
}

impl<S> Counted<S> {
    pub(super) const fn new(
        stream: S,
        counters: Arc<ConnectionCounters>,
        patience: Duration,
        one_by_one: bool,
    ) -> Self {
        Self { stream, counters, patience, one_by_one, stalled: None, is_given_up: false }
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
        if !self.one_by_one {
            self.stalled = None;
        }
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
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        // Nobody flushes before all has been written.
        if polled.is_ready() {
            self.stalled = None;
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::tests::config;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Whether two answers, the first of 200 bytes, are written to a client that takes ten bytes each time after so long.
    async fn is_taken(one_by_one: bool, pause: Duration) -> bool {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut counted =
            Counted::new(ours, Arc::new(ConnectionCounters::new(&config())), PATIENCE, one_by_one);
        let answers = async {
            for bytes in [200, 50] {
                counted.write_all(&vec![1; bytes]).await?;
                counted.flush().await?;
            }
            io::Result::Ok(())
        };
        let client = async {
            loop {
                tokio::time::sleep(pause).await;
                theirs.read_exact(&mut [0; 10]).await.expect("it is open");
            }
        };
        let taken = tokio::select! {
            written = answers => written,
            () = client => unreachable!("it goes on for ever"),
        };
        assert!(
            taken.as_ref().is_ok_and(|()| true)
                || taken.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionAborted)
        );
        let given_up = counted.counters.refused_requests().total(RequestRefusal::NotTaken);
        assert!(given_up <= 1);
        given_up == 0
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_answer_little_by_little_has_no_longer_than_who_takes_nothing() {
        // The first answer takes fourteen of its pauses.
        for (one_by_one, pause, expected) in [
            (true, PATIENCE / 20, true),
            (true, PATIENCE / 10, false),
            (false, PATIENCE / 10, true),
            (false, PATIENCE * 9 / 10, true),
            (false, PATIENCE * 11 / 10, false),
        ] {
            assert_eq!(is_taken(one_by_one, pause).await, expected, "{one_by_one}, each {pause:?}");
        }
    }
}
