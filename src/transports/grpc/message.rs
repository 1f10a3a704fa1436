//! The one message of a request, taken from its body.
//!
//! Nearly every request comes as one frame that holds its message and ends the stream. Such a message is handed on
//! where it lies. Whatever else there may be (many frames, trailers, and all that can be wrong) is left to tonic as it
//! comes in, but for what is [compressed](super::packed); and charged for what it holds.

use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::{Status, Streaming};

use crate::transports::in_flight::{Charge, InFlight};
use crate::transports::refused::RequestRefusal;

use super::RequestBody;
use super::call::head_bytes;
use super::packed::{Encoding, Failure};

/// What a gRPC message begins with: whether it is compressed, and its length in four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

/// What a buffer for a message begins with, in bytes. It grows once the size of the message is known.
const BUFFER_BYTES: usize = 512;

/// tonic's default. Nothing here is sent from such a buffer.
const YIELD_BYTES: usize = 32 << 10;

pub(super) const ENCODING: &str = "grpc-encoding";
pub(super) const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// How much of a compressed message is unpacked on the spot. A larger one may take so long that others wait.
const UNPACKED_BYTES: usize = 64 << 10;

/// What a request takes that waits for its message, beside its metadata.
const WAITING_BYTES: usize = 4 << 10;

/// How many messages are unpacked off the threads that serve, at a time.
const AT_WORK: usize = 2;

/// How many messages may wait for that. What small ones take is over sooner than anybody notices, and of large ones so many
/// would have the last wait for seconds.
const MOST_WAITING: usize = 128;

static UNPACKING: Unpacking =
    Unpacking { at_work: Semaphore::const_new(AT_WORK), waiting: Semaphore::const_new(MOST_WAITING) };

/// What is unpacked off the threads that serve, in the order in which it came: one message of each connection, so that who
/// sends many keeps but its own waiting.
struct Unpacking {
    at_work: Semaphore,
    waiting: Semaphore,
}

impl Unpacking {
    /// Waits for a place, unless too many do already.
    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.at_work.try_acquire() {
            return Some(place);
        }
        let _waits = self.waiting.try_acquire().ok()?;
        Some(self.at_work.acquire().await.expect("never closed"))
    }
}

/// A message, and what it is charged while it is there.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    charge: Option<Arc<Charge>>,
}

impl Message {
    /// Finds room for what is made of it while it is there.
    pub(super) fn charge(&mut self, bytes: usize, in_flight: &Arc<InFlight>) -> Result<(), Status> {
        if let Some(charge) = &self.charge {
            return if charge.grow(bytes) { Ok(()) } else { Err(no_room()) };
        }
        self.charge = Some(Arc::new(in_flight.charge(bytes).ok_or_else(no_room)?));
        Ok(())
    }
}

/// Reads the message of a request, which may have `limit` bytes.
pub(super) async fn read(
    (uri, headers): (&Uri, &HeaderMap),
    mut body: impl RequestBody,
    limit: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Message, Status> {
    let encoding = encoding(headers)?;
    // What is not on the usual way is boxed, as it would make every call's future larger.
    let Some(first) = body.frame().now_or_never() else {
        let charge = in_flight.charge_first(head_bytes(uri, headers) + WAITING_BYTES).ok_or_else(no_room)?;
        return Box::pin(async move {
            let first = body.frame().await;
            read_on(encoding, first, body, limit, charge).await
        })
        .await;
    };
    if let Some(bytes) = whole(first.as_ref(), &body, limit) {
        return Ok(Message { bytes, charge: None });
    }
    Box::pin(read_on(encoding, first, body, limit, in_flight.charge_anyway(0))).await
}

/// Reads a message whose first frame has come.
async fn read_on<B: RequestBody>(
    encoding: Option<Encoding>,
    first: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
    limit: usize,
    charge: Charge,
) -> Result<Message, Status> {
    if let Some(bytes) = whole(first.as_ref(), &rest, limit) {
        return Ok(Message { bytes, charge: None });
    }
    let charge = Arc::new(charge);
    let body = Begun { first, rest, charge: Arc::clone(&charge) };
    let bytes = match encoding {
        None => gather(body, limit).await,
        Some(encoding) => gather_packed(encoding, body, limit).await,
    };
    Ok(Message { bytes: bytes?, charge: Some(charge) })
}

/// The message, if this frame is exactly one that is not compressed and not too long, and all that comes.
fn whole<E>(frame: Option<&Result<Frame<Bytes>, E>>, rest: &impl Body, limit: usize) -> Option<Bytes> {
    let data = frame?.as_ref().ok()?.data_ref()?;
    (rest.is_end_stream() && is_whole(data, limit)).then(|| data.slice(PREFIX_BYTES..))
}

/// Whether this is exactly one message, not compressed and not too long.
fn is_whole(mut data: &[u8], limit: usize) -> bool {
    if data.len() < PREFIX_BYTES {
        return false;
    }
    let is_plain = data.get_u8() == 0;
    is_plain && data.get_u32() as usize == data.remaining() && data.len() <= limit
}

/// Takes a message that may be compressed, and unpacks it: on the spot only if it turns out to be small, since a few
/// bytes can become very many. It is charged as it came, too, for as long as it is there.
async fn gather_packed(
    encoding: Encoding,
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
    let (is_packed, packed) = only_message(packed.freeze(), limit)?;
    if !is_packed {
        return Ok(packed);
    }
    match encoding.unpack(&packed, limit.min(UNPACKED_BYTES), |_| true) {
        Ok(message) => {
            return if charge.grow(message.len()) { Ok(message.into()) } else { Err(no_room()) };
        }
        Err(Failure::TooLong) if limit > UNPACKED_BYTES => {}
        Err(failure) => return Err(told(failure, limit)),
    }
    let turn = charge.turn().await;
    let Some(place) = UNPACKING.enter().await else {
        charge.count_refused(RequestRefusal::TooManyCompressed);
        return Err(Status::resource_exhausted("too many compressed messages wait to be unpacked"));
    };
    let unpacking = spawn_blocking(move || {
        // A caller who gives up leaves the thread behind.
        let _held = (turn, place);
        encoding.unpack(&packed, limit, |bytes| charge.grow(bytes))
    });
    let message = unpacking.await.map_err(|_| Status::internal("Unpacking ended early."))?;
    message.map(Bytes::from).map_err(|failure| told(failure, limit))
}

/// The length that a message has by its own account, if that has come already.
fn announced(data: &[u8]) -> usize {
    data.get(1..PREFIX_BYTES).map_or(0, |mut length| length.get_u32() as usize)
}

/// The message that these bytes are, and whether it is compressed.
fn only_message(mut data: Bytes, limit: usize) -> Result<(bool, Bytes), Status> {
    if data.is_empty() {
        return Err(Status::internal("Missing request message."));
    }
    let length = announced(&data);
    if length > limit {
        return Err(Status::out_of_range(format!("found {length} bytes, the limit is: {limit} bytes")));
    }
    if data.len() < PREFIX_BYTES + length {
        return Err(Status::internal("Unexpected EOF decoding stream."));
    }
    if data.len() > PREFIX_BYTES + length {
        return Err(more_than_one());
    }
    match data[0] {
        flag @ (0 | 1) => {
            data.advance(PREFIX_BYTES);
            Ok((flag == 1, data))
        }
        flag => Err(Status::internal(format!("invalid compression flag: {flag} (valid flags are 0 and 1)"))),
    }
}

/// What is said of a call that has more than one message, where it may have one.
fn more_than_one() -> Status {
    Status::internal("more than one message")
}

/// What is said of a message that was not unpacked.
fn told(failure: Failure, limit: usize) -> Status {
    match failure {
        Failure::TooLong => Status::out_of_range(format!("unpacked it has more than {limit} bytes")),
        Failure::NoRoom => no_room(),
        Failure::Unsound(error) => Status::internal(format!("Error decompressing: {error}")),
    }
}

/// What is said where `max_in_flight_bytes` are in flight.
pub(super) fn no_room() -> Status {
    Status::resource_exhausted("too many bytes of requests and answers in flight")
}

/// Takes a message that is not compressed.
async fn gather(body: Begun<impl RequestBody>, limit: usize) -> Result<Bytes, Status> {
    let mut messages = pin!(Streaming::new_request(Unparsed, body, None, Some(limit)));
    let message = messages.message().await?;
    let message = message.ok_or_else(|| Status::internal("Missing request message."))?;
    if messages.message().await?.is_some() {
        return Err(more_than_one());
    }
    // What follows must be sound, but says nothing.
    messages.trailers().await?;
    Ok(message)
}

/// How a request says that it is compressed.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Status> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Encoding::Gzip)),
        Some(b"zstd") => Ok(Some(Encoding::Zstd)),
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
    use std::io::Write;

    use flate2::write::GzEncoder;
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;
    use http_body_util::Full;
    use tokio::sync::Mutex;
    use tokio::task::unconstrained;

    use super::*;
    use crate::transports::in_flight::Share;
    use crate::transports::refused::RefusedRequests;

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

    fn gzip(message: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(message).expect("into memory");
        encoder.finish().expect("into memory").into()
    }

    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    #[tokio::test]
    async fn a_second_message_is_too_many_compressed_or_not() {
        let in_flight = Arc::new(InFlight::new(10, 1 << 20, Arc::default()));
        let plain = HeaderMap::new();
        let packed =
            HeaderMap::from_iter([(http::HeaderName::from_static(ENCODING), "gzip".parse().expect("ASCII"))]);
        for (headers, message) in
            [(&plain, frame(0, b"a")), (&packed, frame(1, &gzip(b"a"))), (&packed, frame(0, b"a"))]
        {
            for (times, expected) in
                [(1, Ok("a")), (2, Err("more than one message")), (3, Err("more than one message"))]
            {
                let body = Full::new(Bytes::from(message.repeat(times)));
                let answer = read((&Uri::default(), headers), body, 100, &in_flight).await;
                let told = answer.map(|message| message.bytes).map_err(|status| {
                    assert_eq!(status.code(), tonic::Code::Internal);
                    status.message().to_owned()
                });
                assert_eq!(
                    told.as_deref().map_err(String::as_str),
                    expected.map(str::as_bytes),
                    "{headers:?}"
                );
            }
        }
    }

    /// What these tests hold up is all of the process's.
    static ALONE: Mutex<()> = Mutex::const_new(());

    const LARGE_BYTES: usize = 2 * UNPACKED_BYTES;

    /// Reads a message that is unpacked off the threads that serve, on a connection.
    fn read_large(share: Arc<Share>, in_flight: Arc<InFlight>) -> impl Future<Output = Result<(), Status>> {
        let packed =
            HeaderMap::from_iter([(http::HeaderName::from_static(ENCODING), "gzip".parse().expect("ASCII"))]);
        let body = Full::new(Bytes::from(frame(1, &gzip(&vec![0; LARGE_BYTES]))));
        let mut call = Box::pin(async move {
            read((&Uri::default(), &packed), body, LARGE_BYTES, &in_flight).await.map(drop)
        });
        std::future::poll_fn(move |cx| share.during(true, || call.as_mut().poll(cx)))
    }

    #[tokio::test]
    async fn a_connection_that_sends_many_large_packed_messages_keeps_but_its_own_waiting() {
        let _alone = ALONE.lock().await;
        let in_flight = Arc::new(InFlight::new(100, 1 << 30, Arc::default()));
        let (many, one) = (Arc::<Share>::default(), Arc::<Share>::default());
        let call = |share: &Arc<Share>, name: &'static str| {
            read_large(Arc::clone(share), Arc::clone(&in_flight)).map(move |ended| ended.map(|()| name))
        };
        // Nothing is unpacked before all of them wait.
        let all_places = UNPACKING.at_work.acquire_many(2).await.expect("never closed");
        let calls: FuturesUnordered<_> = (0..20).map(|_| call(&many, "many")).collect();
        calls.push(call(&one, "one"));
        let mut calls = calls;
        assert!(calls.next().now_or_never().is_none());
        drop(all_places);
        let ended: Vec<_> = calls.map(|name| name.expect("it unpacks")).collect().await;
        let place = ended.iter().position(|name| *name == "one").expect("it ends");
        assert!(place < 10, "it waited for {place} of 20 others");
    }

    #[tokio::test]
    async fn of_large_packed_messages_so_many_wait_and_one_more_is_refused_at_once() {
        let _alone = ALONE.lock().await;
        let refused = Arc::<RefusedRequests>::default();
        let in_flight = Arc::new(InFlight::new(1000, 1 << 40, Arc::clone(&refused)));
        // All of them are polled in one turn.
        let call = || unconstrained(read_large(Arc::default(), Arc::clone(&in_flight)));
        let all_places = UNPACKING.at_work.acquire_many(2).await.expect("never closed");
        let mut calls: FuturesUnordered<_> = (0..MOST_WAITING).map(|_| call()).collect();
        assert!(calls.next().now_or_never().is_none(), "they wait");
        for times in 1..3 {
            let status = call().now_or_never().expect("at once").expect_err("too many wait");
            assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
            assert_eq!(refused.total(RequestRefusal::TooManyCompressed), times);
        }
        drop(all_places);
        assert!(calls.all(|ended| async move { ended.is_ok() }).await, "those who waited are read");
        assert_eq!((in_flight.bytes(), UNPACKING.waiting.available_permits()), (0, MOST_WAITING));
    }
}
