//! Values: the handle that readers get.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::cpu::LenBlock;

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
    Inline(Inline),
    Shared(Bytes),
}

/// A small value. Every byte of the handle belongs to a field of this, and what tells it from other variants lies behind its
/// bytes: so it is made, copied and moved in whole blocks.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Inline {
    blocks: [[u8; BLOCK_BYTES]; BLOCKS],
    len: LenBlock,
}

const _: () =
    assert!(size_of::<Option<Value>>() == INLINE_BYTES + BLOCK_BYTES && INLINE_BYTES <= u8::MAX as usize);

impl Inline {
    /// The first blocks of these, of which `len` bytes count.
    #[inline]
    fn of_blocks<const N: usize>(len: u8, from: &[[u8; BLOCK_BYTES]]) -> Self {
        let mut blocks = [[0; BLOCK_BYTES]; BLOCKS];
        blocks[..N].copy_from_slice(&from[..N]);
        Self::of(blocks, len)
    }

    /// The first `len` of these bytes and no others.
    #[cold]
    #[inline(never)]
    fn exactly(len: u8, from: &[u8]) -> Self {
        let mut blocks = [[0; BLOCK_BYTES]; BLOCKS];
        let len_bytes = usize::from(len);
        blocks.as_flattened_mut()[..len_bytes].copy_from_slice(&from[..len_bytes]);
        Self::of(blocks, len)
    }

    #[inline]
    fn of(blocks: [[u8; BLOCK_BYTES]; BLOCKS], len: u8) -> Self {
        Self { blocks, len: LenBlock::new(len) }
    }

    fn bytes(&self) -> &[u8] {
        &self.blocks.as_flattened()[..usize::from(self.len.get())]
    }
}

impl Value {
    /// Bytes that are shared with the store. They must be an allocation of their own.
    pub(crate) const fn shared(bytes: Bytes) -> Self {
        Self(Held::Shared(bytes))
    }

    /// Copies the first `len` of these bytes to where the handle is to be: moving it takes longer than making it. Of what
    /// follows them, some may be copied as well; it is never shown.
    #[inline]
    pub(crate) fn read(len: usize, from: &[u8], into: &mut Option<Self>) {
        if len > INLINE_BYTES {
            *into = Some(Self::copied(&from[..len]));
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as many bytes as fit a handle are counted by one"
        )]
        let len = len as u8;
        match from.first_chunk::<INLINE_BYTES>() {
            Some(blocks) => Self::read_blocks(len, blocks.as_chunks().0, into),
            None => *into = Some(Self(Held::Inline(Inline::exactly(len, from)))),
        }
    }

    #[inline]
    fn read_blocks(len: u8, from: &[[u8; BLOCK_BYTES]], into: &mut Option<Self>) {
        // Few lengths, so that no loop and no call is needed; and each writes the handle, which would otherwise be made
        // before it is known where it goes.
        match len {
            0..=32 => *into = Some(Self(Held::Inline(Inline::of_blocks::<2>(len, from)))),
            33..=64 => *into = Some(Self(Held::Inline(Inline::of_blocks::<4>(len, from)))),
            _ => *into = Some(Self(Held::Inline(Inline::of_blocks::<BLOCKS>(len, from)))),
        }
    }

    #[inline(never)]
    fn copied(bytes: &[u8]) -> Self {
        Self::shared(Bytes::copy_from_slice(bytes))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Inline(inline) => inline.bytes(),
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
            Held::Inline(inline) => Self::copy_from_slice(inline.bytes()),
            Held::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Value {
    /// Copies.
    #[inline]
    fn from(value: &[u8]) -> Self {
        let mut read = None;
        Self::read(value.len(), value, &mut read);
        read.expect("just read")
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

    #[test]
    fn what_follows_a_value_is_no_part_of_it() {
        for len in 0..=INLINE_BYTES + 2 {
            // As many bytes as it has, some more, and more than a handle holds.
            for follow in [0, 1, BLOCK_BYTES, 2 * INLINE_BYTES] {
                let mut bytes = vec![b'v'; len];
                bytes.resize(len + follow, b'x');
                let mut read = None;
                Value::read(len, &bytes, &mut read);
                let read = read.expect("a value");
                assert_eq!(&*read, &bytes[..len], "{len} bytes with {follow} behind");
                assert_eq!(read, Value::from(&bytes[..len]), "{len} bytes with {follow} behind");
            }
        }
    }
}
