//! The one message of a request, taken from its body.
//!
//! Nearly every request comes as one frame that holds its message and ends the stream. Such a message is handed on
//! where it lies. Whatever else there may be (many frames, compression, trailers, and all that can be wrong) is left
//! to tonic.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::codec::{BufferSettings, CompressionEncoding, DecodeBuf, Decoder};
use tonic::{Status, Streaming};

use super::RequestBody;

/// What a gRPC message begins with: whether it is compressed, and its length in four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

/// What a buffer for a message begins with, in bytes. It grows once the size of the message is known.
const BUFFER_BYTES: usize = 512;

/// tonic's default. Nothing here is sent from such a buffer.
const YIELD_BYTES: usize = 32 << 10;

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Reads the message of a request, which may have `limit` bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: impl RequestBody,
    limit: usize,
) -> Result<Bytes, Status> {
    let encoding = encoding(headers)?;
    let first = body.frame().await;
    if let Some(Ok(frame)) = &first
        && let Some(data) = frame.data_ref()
        && body.is_end_stream()
        && is_whole(data, limit)
    {
        return Ok(data.slice(PREFIX_BYTES..));
    }
    // Boxed, as it would make every call's future larger.
    Box::pin(unpack(encoding, Begun { first, rest: body }, limit)).await
}

/// Whether this is exactly one message, not compressed and not too long.
fn is_whole(mut data: &[u8], limit: usize) -> bool {
    if data.len() < PREFIX_BYTES {
        return false;
    }
    let is_plain = data.get_u8() == 0;
    is_plain && data.get_u32() as usize == data.remaining() && data.len() <= limit
}

async fn unpack(
    encoding: Option<CompressionEncoding>,
    body: Begun<impl RequestBody>,
    limit: usize,
) -> Result<Bytes, Status> {
    let mut messages = pin!(Streaming::new_request(Unparsed, body, encoding, Some(limit)));
    let message = messages.message().await?;
    let message = message.ok_or_else(|| Status::internal("Missing request message."))?;
    // What follows must be sound, but says nothing.
    messages.trailers().await?;
    Ok(message)
}

/// How a request says that it is compressed.
fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(b"zstd") => Ok(Some(CompressionEncoding::Zstd)),
        Some(other) => {
            let other = other.escape_ascii();
            let mut status = Status::unimplemented(format!("compression by {other} is not supported"));
            let accepted = "identity,gzip,zstd".parse().expect("plain ASCII");
            status.metadata_mut().insert(ACCEPT_ENCODING, accepted);
            Err(status)
        }
    }
}

/// Takes the bytes of a message as they are.
struct Unparsed;

impl Decoder for Unparsed {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// A body whose first frame has been looked at.
struct Begun<B: Body> {
    first: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

impl<B: RequestBody> Body for Begun<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_message_that_is_all_there_is_whole() {
        for (data, expected) in [
            (&b"\0\0\0\0\x02ab"[..], true),
            (b"\0\0\0\0\0", true),
            (b"\0\0\0\0\x03abc", true),
            (b"\0\0\0\0\x02a", false),
            (b"\0\0\0\0\x02ab\0\0\0\0\0", false),
            (b"\x01\0\0\0\x02ab", false),
            (b"\x07\0\0\0\x02ab", false),
            (b"\0\0\0\0", false),
            (b"", false),
        ] {
            assert_eq!(is_whole(data, 100), expected, "{data:?}");
        }
        assert!(is_whole(b"\0\0\0\0\x02ab", 2));
        assert!(!is_whole(b"\0\0\0\0\x02ab", 1));
    }
}
