//! The one message of a request, taken from its body.
//!
//! Nearly every request comes as one frame that holds its message and ends the stream. Such a message is handed on
//! where it lies. Whatever else there may be (many frames, compression, trailers, and all that can be wrong) is left
//! to tonic, as it comes in, and charged for what it holds.

use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::codec::{BufferSettings, CompressionEncoding, DecodeBuf, Decoder};
use tonic::{Code, Status, Streaming};

use crate::transports::in_flight::{Charge, InFlight};

use super::RequestBody;

/// What a gRPC message begins with: whether it is compressed, and its length in four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

/// What a buffer for a message begins with, in bytes. It grows once the size of the message is known.
const BUFFER_BYTES: usize = 512;

/// tonic's default. Nothing here is sent from such a buffer.
const YIELD_BYTES: usize = 32 << 10;

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// How much of a compressed message is unpacked on the spot. A larger one may take so long that others wait.
const UNPACKED_BYTES: usize = 64 << 10;

/// How many messages are unpacked off the threads that serve, at a time.
static UNPACKING: Semaphore = Semaphore::const_new(2);

/// A message, and what it is charged while it is there.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    _charge: Option<Arc<Charge>>,
}

/// Reads the message of a request, which may have `limit` bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: impl RequestBody,
    limit: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Message, Status> {
    let encoding = encoding(headers)?;
    let first = body.frame().await;
    if let Some(Ok(frame)) = &first
        && let Some(data) = frame.data_ref()
        && body.is_end_stream()
        && is_whole(data, limit)
    {
        return Ok(Message { bytes: data.slice(PREFIX_BYTES..), _charge: None });
    }
    // Boxed, as it would make every call's future larger.
    let charge = Arc::new(in_flight.charge_anyway(0));
    let body = Begun { first, rest: body, charge: Arc::clone(&charge) };
    let bytes = match encoding {
        None => Box::pin(unpack(None, body, limit)).await,
        Some(encoding) => Box::pin(unpack_apart(encoding, body, limit)).await,
    };
    Ok(Message { bytes: bytes?, _charge: Some(charge) })
}

/// Whether this is exactly one message, not compressed and not too long.
fn is_whole(mut data: &[u8], limit: usize) -> bool {
    if data.len() < PREFIX_BYTES {
        return false;
    }
    let is_plain = data.get_u8() == 0;
    is_plain && data.get_u32() as usize == data.remaining() && data.len() <= limit
}

/// Unpacks a message that may be compressed: on the spot only if it turns out to be small, since a few bytes can become
/// very many.
async fn unpack_apart(
    encoding: CompressionEncoding,
    mut body: Begun<impl RequestBody>,
    limit: usize,
) -> Result<Bytes, Status> {
    let charge = Arc::clone(&body.charge);
    let mut packed = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Status::from_error)?.into_data() {
            packed.extend_from_slice(&data);
        }
        // Of one that is too long the rest need not come.
        if packed.len() > limit.saturating_add(PREFIX_BYTES) || announced(&packed) > limit {
            break;
        }
    }
    let packed = packed.freeze();
    let is_plain = packed.first() == Some(&0);
    let at_once = if is_plain { limit } else { limit.min(UNPACKED_BYTES) };
    if announced(&packed) <= at_once {
        match unpack(Some(encoding), Full::new(packed.clone()), at_once).await {
            Err(status) if status.code() == Code::OutOfRange && at_once < limit => {}
            message => return message,
        }
    }
    let permit = UNPACKING.acquire().await.expect("never closed");
    let unpacking = spawn_blocking(move || {
        let _permit = permit;
        unpack(Some(encoding), Full::new(packed), limit).now_or_never()
    });
    let message = unpacking.await.ok().flatten();
    let message = message.unwrap_or_else(|| Err(Status::internal("Unpacking ended early.")))?;
    if charge.grow(message.len()) { Ok(message) } else { Err(no_room()) }
}

/// The length that a message has by its own account, if that has come already.
fn announced(data: &[u8]) -> usize {
    data.get(1..PREFIX_BYTES).map_or(0, |mut length| length.get_u32() as usize)
}

/// What is said where `max_in_flight_bytes` are in flight.
pub(super) fn no_room() -> Status {
    Status::resource_exhausted("too many bytes of requests and answers in flight")
}

async fn unpack<B>(encoding: Option<CompressionEncoding>, body: B, limit: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut messages = pin!(Streaming::new_request(Unparsed, body, encoding, Some(limit)));
    let message = messages.message().await.map_err(|status| told_as_too_long(status, limit))?;
    let message = message.ok_or_else(|| Status::internal("Missing request message."))?;
    // What follows must be sound, but says nothing.
    messages.trailers().await?;
    Ok(message)
}

/// tonic tells apart what is too long as it comes and what is once unpacked.
fn told_as_too_long(status: Status, limit: usize) -> Status {
    if status.code() == Code::ResourceExhausted && status.message().starts_with("Error decompressing") {
        return Status::out_of_range(format!("Error, unpacked it has more than {limit} bytes"));
    }
    status
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

/// A body whose first frame has been looked at, and which is charged for what comes.
struct Begun<B: Body> {
    first: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
    charge: Arc<Charge>,
}

impl<B: RequestBody> Body for Begun<B> {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(Pin::new(&mut self.rest).poll_frame(cx)),
        };
        let frame = frame.transpose().map_err(Into::into)?;
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref)
            && !self.charge.grow(data.len())
        {
            return Poll::Ready(Some(Err(no_room().into())));
        }
        Poll::Ready(frame.map(Ok))
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
