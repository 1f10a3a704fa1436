//! The end of a call whose answer is a stream, and which is over when that is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Shared;
use super::span::CallSpan;
use crate::telemetry::metrics::RpcMethod;

/// Passes a body through, and records the call and ends its span once the body has ended, or nobody wants the rest of it.
pub(super) struct Streamed {
    body: Body,
    /// As told by the trailers; until they come, what it means if they never do.
    code: Code,
    shared: Arc<Shared>,
    method: RpcMethod,
    began: Option<Instant>,
    span: Option<CallSpan>,
}

impl Streamed {
    pub(super) fn new(
        body: Body,
        shared: Arc<Shared>,
        method: RpcMethod,
        began: Option<Instant>,
        span: Option<CallSpan>,
    ) -> Self {
        Self { body, code: Code::Cancelled, shared, method, began, span }
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(status_of) {
                    self.code = status;
                }
            }
            Poll::Ready(Some(Err(status))) => self.code = status.code(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn status_of(trailers: &HeaderMap) -> Option<Code> {
    trailers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.shared.record(self.method, self.code, self.began.take(), self.span.take());
    }
}
