//! The wire format of a message: protobuf, with the caller's mistakes told as the caller's.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// What a buffer for a message begins with, in bytes. tonic's 8 KiB twice per call are many times what a usual message
/// takes, and beyond what the allocator has at hand; a larger message gets a larger buffer when its size is known.
const BUFFER_BYTES: usize = 512;

/// How much of a stream of messages goes out at once: tonic's default.
const YIELD_BYTES: usize = 32 << 10;

/// How a failure to read a message begins.
pub(super) const MALFORMED: &str = "malformed request";

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// [`ProstCodec`] whose decoding errors are `INVALID_ARGUMENT`: bytes that are no message, or a key
/// that is not UTF-8, are not an internal failure.
pub struct CacheCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for CacheCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for CacheCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = CacheDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        CacheDecoder { inner: ProstDecoder::new(buffers()) }
    }
}

/// See [`CacheCodec`].
pub struct CacheDecoder<U> {
    inner: ProstDecoder<U>,
}

impl<U: Message + Default> Decoder for CacheDecoder<U> {
    type Item = U;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        self.inner.buffer_settings()
    }

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.inner
            .decode(buffer)
            .map_err(|status| Status::invalid_argument(format!("{MALFORMED}: {}", status.message())))
    }
}
