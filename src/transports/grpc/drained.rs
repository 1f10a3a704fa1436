//! The requests of a call that may have many, read as they come.
//!
//! Who answers them stops reading while the client does not take the answers. What the client sends then would lie in HTTP/2's own
//! library, up to the window of its connection, and nobody would know of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::RequestBody;
use crate::transports::in_flight::InFlight;
use crate::transports::refused::RequestRefusal;

/// What may have come of a call and not have been read, in bytes.
pub(super) const MOST_WAITING_BYTES: usize = 12 << 10;

/// What a frame takes beside its bytes.
const FRAME_BYTES: usize = 128;

type Read = Result<Frame<Bytes>, Status>;

/// A body that is read ahead so far; with more it ends.
pub(super) struct Drained {
    frames: UnboundedReceiver<Read>,
    waiting: Arc<AtomicUsize>,
    #[cfg_attr(not(test), expect(dead_code, reason = "ends with this"))]
    reads: AbortOnDropHandle<()>,
}

impl Drained {
    /// Begins to read. Too much is counted there. Needs a tokio runtime.
    pub(super) fn new(body: impl RequestBody, counts: Arc<InFlight>) -> Self {
        let (to, frames) = unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let reads = tokio::spawn(drain(body, to, Arc::clone(&waiting), counts));
        Self { frames, waiting, reads: AbortOnDropHandle::new(reads) }
    }
}

fn cost(frame: &Frame<Bytes>) -> usize {
    FRAME_BYTES + frame.data_ref().map_or(0, Bytes::len)
}

/// Reads until the body ends, or too much waits.
async fn drain<B: RequestBody>(
    mut body: B,
    to: UnboundedSender<Read>,
    waiting: Arc<AtomicUsize>,
    counts: Arc<InFlight>,
) {
    while let Some(read) = body.frame().await {
        let read = match read {
            Err(_) => Err(Status::cancelled("the requests have broken off")),
            Ok(frame) => {
                let bytes = cost(&frame);
                if waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_WAITING_BYTES {
                    counts.count_refused(RequestRefusal::TooManyBytes);
                    Err(Status::resource_exhausted("too many requests whose answers are not taken"))
                } else {
                    Ok(frame)
                }
            }
        };
        let ends = read.is_err();
        if to.send(read).is_err() || ends {
            return;
        }
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Read>> {
        let polled = self.frames.poll_recv(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.waiting.fetch_sub(cost(frame), Ordering::Relaxed);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;
    use crate::transports::refused::RefusedRequests;

    fn in_flight(refused: &Arc<RefusedRequests>) -> Arc<InFlight> {
        Arc::new(InFlight::new(1, 1 << 20, Arc::clone(refused)))
    }

    /// Whether all of a body can be read, after nobody did while it came.
    async fn waits(frames: usize, bytes: usize) -> bool {
        let frame = move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![1; bytes])));
        let refused = Arc::<RefusedRequests>::default();
        let mut drained =
            Drained::new(StreamBody::new(stream::iter((0..frames).map(frame))), in_flight(&refused));
        while !drained.reads.is_finished() {
            tokio::task::yield_now().await;
        }
        let mut read = 0;
        while let Some(frame) = drained.frame().await {
            match frame {
                Ok(_) => read += 1,
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                    assert_eq!(refused.total(RequestRefusal::TooManyBytes), 1);
                    return false;
                }
            }
        }
        assert_eq!(read, frames);
        true
    }

    #[tokio::test]
    async fn what_nobody_reads_has_an_end_and_what_is_read_has_none() {
        assert!(waits(3, 3000).await);
        assert!(!waits(5, 3000).await);
        assert!(waits(90, 0).await);
        assert!(!waits(100, 0).await, "frames of nothing are something");
        let (client, mut sent) = unbounded_channel();
        let body = StreamBody::new(stream::poll_fn(move |cx| sent.poll_recv(cx)));
        let mut drained = Drained::new(body, in_flight(&Arc::default()));
        for _ in 0..100 {
            let frame = Frame::data(Bytes::from(vec![1; 3000]));
            client.send(Ok::<_, Infallible>(frame)).expect("it is read");
            drained.frame().await.expect("there is one").expect("it was read in time");
        }
        drop(client);
    }
}
