//! The wire format of a message: protobuf, with the caller's mistakes told as the caller's.

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// [`ProstCodec`] whose decoding errors are `INVALID_ARGUMENT`: bytes that are no message, or a key
/// that is not UTF-8, are not an internal failure.
pub struct CacheCodec<T, U> {
    inner: ProstCodec<T, U>,
}

impl<T, U> Default for CacheCodec<T, U> {
    fn default() -> Self {
        Self { inner: ProstCodec::default() }
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
        self.inner.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CacheDecoder { inner: ProstDecoder::default() }
    }
}

/// See [`CacheCodec`].
pub struct CacheDecoder<U> {
    inner: ProstDecoder<U>,
}

impl<U: Message + Default> Decoder for CacheDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.inner
            .decode(buffer)
            .map_err(|status| Status::invalid_argument(format!("malformed request: {}", status.message())))
    }
}
