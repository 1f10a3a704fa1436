//! Answers as they go out: each message in one buffer of exactly its size, and a large value not in it at all.
//!
//! A value is written into the message's buffer only while that costs less than a frame of its own. A larger one goes
//! out from where the store has it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use engine::Value;
use futures_util::task::AtomicWaker;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Frame;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;

use super::message::PREFIX_BYTES;
use super::room::Room;
use crate::pace::Pace;
use crate::transports::in_flight::Charge;

/// From this size on a value is not copied into its message: as much as one HTTP/2 frame holds by default.
const SHARED_BYTES: usize = 16 << 10;

/// Wire types of protobuf.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// Size of a field with this many bytes of content, which is left out where there is none. Our numbers are below 16,
/// so that a field begins with one byte.
fn field_bytes(content: usize) -> usize {
    if content == 0 { 0 } else { 1 + encoded_len_varint(content as u64) + content }
}

/// Size of a field that holds a small number, which is left out where it is zero.
fn number_bytes(number: u8) -> usize {
    if number == 0 { 0 } else { 2 }
}

/// What a key came to, and why: one answer of a batch.
pub(super) struct ItemOutcome<'a> {
    pub(super) key: &'a str,
    /// Whether it was found, or the status of a write. Below 128.
    pub(super) number: u8,
    /// `None`: the message has none, or it is empty.
    pub(super) value: Option<Value>,
    /// Empty where nothing is wrong.
    pub(super) error: String,
}

/// The messages that a batch is answered with: where they have what.
#[derive(Clone, Copy)]
pub(super) enum Batch {
    /// `MultiCacheValueResponse` of `CacheLookup`.
    Lookups,
    /// `MultiCacheResponse` of `CacheOperationResult`.
    Operations,
}

impl Batch {
    const VALUE: u8 = 3;

    const fn error(self) -> u8 {
        match self {
            Self::Lookups => 4,
            Self::Operations => 3,
        }
    }
}

impl ItemOutcome<'_> {
    fn message_bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| value.len());
        field_bytes(self.key.len())
            + number_bytes(self.number)
            + field_bytes(value)
            + field_bytes(self.error.len())
    }
}

/// A message on its way out, in pieces.
pub(super) struct Reply {
    pieces: VecDeque<Bytes>,
    last: BytesMut,
    /// `None`: it is too small to be charged.
    charge: Option<Charge>,
}

impl Reply {
    /// Begins a message of this size, of which `shared_bytes` will not be copied, if there is room for it.
    fn begin(message_bytes: usize, shared_bytes: usize, room: Room<'_>) -> Result<Self, Status> {
        let length = u32::try_from(message_bytes).map_err(|_| {
            Status::resource_exhausted(format!(
                "answer too large: {message_bytes} bytes, at most {} can be sent",
                u32::MAX
            ))
        })?;
        let bytes = PREFIX_BYTES + message_bytes;
        let charge = room.charge(bytes)?;
        let mut last = BytesMut::with_capacity(bytes - shared_bytes);
        last.put_u8(0);
        last.put_u32(length);
        Ok(Self { pieces: VecDeque::new(), last, charge })
    }

    /// A message without keys and values.
    pub(super) fn message(message: &impl Message, room: Room<'_>) -> Result<Self, Status> {
        let mut reply = Self::begin(message.encoded_len(), 0, room)?;
        message.encode_raw(&mut reply.last);
        Ok(reply)
    }

    /// `CacheValue`.
    pub(super) fn value(value: Option<Value>, room: Room<'_>) -> Result<Self, Status> {
        let Some(value) = value else { return Self::begin(0, 0, room) };
        let message_bytes = number_bytes(1) + field_bytes(value.len());
        let mut reply = Self::begin(message_bytes, shared_bytes(&value), room)?;
        reply.put_number(1, 1);
        reply.put_value(2, value);
        Ok(reply)
    }

    /// One message per key of a batch. `room` has taken in the values.
    pub(super) async fn batch(
        batch: Batch,
        items: Vec<ItemOutcome<'_>>,
        room: Room<'_>,
    ) -> Result<Self, Status> {
        let mut pace = Pace::default();
        let (mut message_bytes, mut shared) = (0, 0);
        for item in &items {
            // An item without content is there nevertheless.
            let item_bytes = item.message_bytes();
            message_bytes += 1 + encoded_len_varint(item_bytes as u64) + item_bytes;
            shared += item.value.as_ref().map_or(0, shared_bytes);
            pace.step().await;
        }
        let mut reply = Self::begin(message_bytes, shared, room)?;
        for item in items {
            let copied_bytes = item.value.as_ref().map_or(0, |value| value.len() - shared_bytes(value));
            reply.put_key(1, LENGTH_DELIMITED);
            encode_varint(item.message_bytes() as u64, &mut reply.last);
            reply.put_bytes(1, item.key.as_bytes());
            reply.put_number(2, item.number);
            if let Some(value) = item.value {
                reply.put_value(Batch::VALUE, value);
            }
            reply.put_bytes(batch.error(), item.error.as_bytes());
            pace.step_of(copied_bytes).await;
        }
        Ok(reply)
    }

    fn put_key(&mut self, number: u8, wire_type: u8) {
        self.last.put_u8(number << 3 | wire_type);
    }

    fn put_number(&mut self, field: u8, number: u8) {
        if number != 0 {
            self.put_key(field, VARINT);
            self.last.put_u8(number);
        }
    }

    fn put_bytes(&mut self, field: u8, content: &[u8]) {
        if !content.is_empty() {
            self.put_key(field, LENGTH_DELIMITED);
            encode_varint(content.len() as u64, &mut self.last);
            self.last.put_slice(content);
        }
    }

    fn put_value(&mut self, field: u8, value: Value) {
        if shared_bytes(&value) == 0 {
            return self.put_bytes(field, &value);
        }
        self.put_key(field, LENGTH_DELIMITED);
        encode_varint(value.len() as u64, &mut self.last);
        self.pieces.push_back(self.last.split().freeze());
        self.pieces.push_back(value.into());
    }

    /// The response to a call that succeeded.
    pub(super) fn into_response(mut self) -> Response<Body> {
        if !self.last.is_empty() {
            self.pieces.push_back(self.last.freeze());
        }
        let owed = self.charge.map(|charge| {
            let pieces = AtomicUsize::new(self.pieces.len());
            let all = Arc::new(Owed { charge, pieces, body: AtomicWaker::new() });
            for piece in &mut self.pieces {
                let owed = Piece { bytes: std::mem::take(piece), of: Arc::clone(&all) };
                *piece = Bytes::from_owner(owed);
            }
            all
        });
        let body = ReplyBody { pieces: self.pieces, owed, is_over: false };
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        response
    }
}

/// An answer of which not all has left.
struct Owed {
    charge: Charge,
    /// Those that have not left.
    pieces: AtomicUsize,
    body: AtomicWaker,
}

/// A piece of an answer, wherever on its way to the client it may be.
struct Piece {
    bytes: Bytes,
    of: Arc<Owed>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of.pieces.fetch_sub(1, Ordering::Release);
        self.of.body.wake();
    }
}

/// How much of a value's message is not copied.
fn shared_bytes(value: &Value) -> usize {
    if value.len() < SHARED_BYTES { 0 } else { value.len() }
}

/// The pieces of a message, then the trailers that say it went well.
struct ReplyBody {
    pieces: VecDeque<Bytes>,
    /// `None`: it is too small to be charged.
    owed: Option<Arc<Owed>>,
    is_over: bool,
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        // With its trailers the answer is out of everyone's sight. While room is scarce it stays in sight, and within the
        // time that it may take, until the client has taken it.
        if let Some(owed) = &self.owed
            && owed.charge.is_tight()
        {
            owed.body.register(cx.waker());
            if owed.pieces.load(Ordering::Acquire) > 0 {
                return Poll::Pending;
            }
        }
        self.is_over = true;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::pace::SLICE_BYTES;
    use crate::proto;
    use crate::transports::in_flight::InFlight;

    fn sent(reply: Reply) -> Vec<u8> {
        let mut bytes = reply.pieces.into_iter().collect::<Vec<_>>().concat();
        bytes.extend(reply.last);
        bytes
    }

    /// That exactly this message is sent, in a buffer that did not grow.
    fn check(reply: Result<Reply, Status>, message: &impl Message) {
        let bytes = sent(reply.expect("not too large"));
        let mut expected = vec![0];
        expected.put_u32(u32::try_from(message.encoded_len()).expect("small"));
        expected.extend(message.encode_to_vec());
        assert!(bytes == expected, "{} bytes where {} are expected", bytes.len(), expected.len());
    }

    fn sizes() -> impl Strategy<Value = usize> {
        prop_oneof![0..300_usize, SHARED_BYTES - 2..SHARED_BYTES + 2, Just(70_000)]
    }

    fn in_flight() -> Arc<InFlight> {
        Arc::new(InFlight::new(1, 1 << 30, Arc::default()))
    }

    fn content(size: usize) -> Vec<u8> {
        (0_u8..=255).cycle().take(size).collect()
    }

    proptest! {
        #[test]
        fn a_value_is_sent_as_the_generated_type_is(size in sizes()) {
            let value = content(size);
            let message = proto::CacheValue { found: true, value: value.clone().into() };
            let in_flight = in_flight();
            check(Reply::value(Some(Value::from(&value[..])), Room::new(&in_flight)), &message);
            check(Reply::value(None, Room::new(&in_flight)), &proto::CacheValue::default());
        }

        #[test]
        fn a_batch_is_sent_as_the_generated_types_are(
            items in vec((".{0,200}", 0..3_u8, sizes(), ".{0,5}"), 0..6),
        ) {
            let outcome = |&(ref key, number, size, ref error): &(String, u8, usize, String), with_value| {
                let value = if with_value { Some(Value::from(&content(size)[..])) } else { None };
                let error = error.clone();
                (key.clone(), number, value, error)
            };
            let lookups: Vec<_> = items.iter().map(|item| outcome(item, item.1 > 0)).collect();
            let message = proto::MultiCacheValueResponse {
                items: lookups.iter().cloned().map(|(key, number, value, error)| {
                    let value = value.map(Into::into).unwrap_or_default();
                    proto::CacheLookup { key, found: number > 0, value, error }
                }).collect(),
            };
            let lookups = lookups.iter().map(|(key, number, value, error)| ItemOutcome {
                key, number: (*number).min(1), value: value.clone(), error: error.clone(),
            });
            let in_flight = in_flight();
            let reply = Reply::batch(Batch::Lookups, lookups.collect(), Room::new(&in_flight));
            check(reply.now_or_never().expect("few"), &message);

            let message = proto::MultiCacheResponse {
                items: items.iter().cloned().map(|(key, number, _, error)| {
                    proto::CacheOperationResult { key, status: number.into(), error }
                }).collect(),
            };
            let operations = items.iter().map(|(key, number, _, error)| ItemOutcome {
                key, number: *number, value: None, error: error.clone(),
            });
            let reply = Reply::batch(Batch::Operations, operations.collect(), Room::due(&in_flight));
            check(reply.now_or_never().expect("few"), &message);
        }
    }

    #[test]
    fn others_have_their_turn_while_much_is_copied() {
        let in_flight = in_flight();
        for (bytes, waits) in [(SHARED_BYTES - 1, true), (SHARED_BYTES, false)] {
            let value = Value::from(&content(bytes)[..]);
            let item =
                |_| ItemOutcome { key: "k", number: 1, value: Some(value.clone()), error: String::new() };
            let items = (0..=SLICE_BYTES / SHARED_BYTES).map(item).collect();
            let reply = Reply::batch(Batch::Lookups, items, Room::new(&in_flight));
            assert_eq!(reply.now_or_never().is_none(), waits, "{bytes} bytes each");
        }
    }

    #[test]
    fn a_large_value_is_sent_from_where_it_lies() {
        let value = Value::from(&content(SHARED_BYTES)[..]);
        let (address, size) = (value.as_ptr(), value.len());
        let reply = Reply::value(Some(value), Room::new(&in_flight())).expect("not too large");
        let piece = &reply.pieces[1];
        assert_eq!((piece.as_ptr(), piece.len()), (address, size));
        assert!(reply.last.is_empty());
    }
}
