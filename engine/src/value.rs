//! Values: the handle that readers get.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// What a handle holds itself, so that reading a small value allocates nothing under a shard's lock. With its length and the
/// tag that makes two cache lines.
const INLINE_BYTES: usize = BLOCKS * BLOCK_BYTES;
const BLOCKS: usize = 7;
/// Bytes are copied in blocks that lie as they are moved later on: a processor that has to read what it wrote in other
/// pieces a moment ago waits.
const BLOCK_BYTES: usize = 16;

/// A handle on exactly a value's bytes, which stay as they were read whatever happens to the entry. A small
/// value lies in the handle; of a larger one, cloning counts a reference.
#[derive(Clone)]
pub struct Value(Held);

#[derive(Clone)]
enum Held {
    Inline { len: u8, bytes: Blocks },
    Shared(Bytes),
}

#[derive(Clone, Copy)]
#[repr(align(16))]
struct Blocks([u8; INLINE_BYTES]);

const _: () = assert!(size_of::<Value>() == INLINE_BYTES + BLOCK_BYTES && INLINE_BYTES <= u8::MAX as usize);

impl Blocks {
    /// These bytes, of which there must not be too many, and then nothing in particular.
    #[inline]
    fn of(value: &[u8]) -> Self {
        let mut blocks = [0; INLINE_BYTES];
        let (whole, rest) = value.as_chunks::<BLOCK_BYTES>();
        let (to, _) = blocks.as_chunks_mut::<BLOCK_BYTES>();
        for (to, block) in to.iter_mut().zip(whole) {
            *to = *block;
        }
        match value.last_chunk::<BLOCK_BYTES>() {
            Some(last) => blocks[value.len() - BLOCK_BYTES..value.len()].copy_from_slice(last),
            None => blocks[..rest.len()].copy_from_slice(rest),
        }
        Self(blocks)
    }
}

impl Value {
    /// Bytes that are shared with the store. They must be an allocation of their own.
    pub(crate) const fn shared(bytes: Bytes) -> Self {
        Self(Held::Shared(bytes))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Inline { len, bytes } => &bytes.0[..usize::from(*len)],
            Held::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl From<Value> for Bytes {
    /// Copies what lies in the handle and nothing else.
    fn from(value: Value) -> Self {
        match value.0 {
            Held::Inline { len, bytes } => Self::copy_from_slice(&bytes.0[..usize::from(len)]),
            Held::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Value {
    /// Copies.
    #[inline]
    fn from(value: &[u8]) -> Self {
        match u8::try_from(value.len()) {
            Ok(len) if value.len() <= INLINE_BYTES => Self(Held::Inline { len, bytes: Blocks::of(value) }),
            _ => Self(Held::Shared(Bytes::copy_from_slice(value))),
        }
    }
}

impl fmt::Debug for Value {
    /// The size only: a value is the user's, and logs are not the place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_its_bytes_wherever_they_lie() {
        for len in [0, 1, 15, 16, 17, 31, 100, INLINE_BYTES, INLINE_BYTES + 1, 255, 256, 5000] {
            let bytes: Vec<u8> = (0..len).map(|index| u8::try_from(index % 251).expect("a byte")).collect();
            let (copied, shared) = (Value::from(&bytes[..]), Value::shared(Bytes::from(bytes.clone())));
            assert_eq!(&*copied, &bytes[..], "{len} bytes");
            assert_eq!(copied, shared, "{len} bytes");
            assert_eq!(Bytes::from(copied.clone()), Bytes::from(shared), "{len} bytes");
            assert_ne!(copied, Value::from(&b"another one"[..]));
        }
    }
}
