//! Records and values: how an entry's bytes are kept, and the handle that readers get.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::Key;

/// An entry's bytes: namespace, name and value in one allocation, shared with the readers of the
/// value. Replacing or evicting the entry never waits for a reader.
#[derive(Clone)]
pub(crate) struct Record {
    bytes: Arc<[u8]>,
    namespace_len: u8,
    name_len: u16,
}

/// Strong and weak count in front of the bytes of an `Arc<[u8]>`.
const ARC_HEADER_BYTES: usize = 2 * size_of::<usize>();

impl Record {
    pub(crate) fn new(key: Key<'_>, value: &[u8]) -> Self {
        let (namespace, name) = (key.namespace(), key.name());
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, key.len() + value.len()).collect();
        let target = Arc::get_mut(&mut bytes).expect("nobody else has seen it yet");
        let (namespace_part, rest) = target.split_at_mut(namespace.len());
        let (name_part, value_part) = rest.split_at_mut(name.len());
        namespace_part.copy_from_slice(namespace);
        name_part.copy_from_slice(name);
        value_part.copy_from_slice(value);
        Self {
            bytes,
            namespace_len: u8::try_from(namespace.len()).expect("Key bounds it"),
            name_len: u16::try_from(name.len()).expect("Key bounds it"),
        }
    }

    pub(crate) fn holds(&self, key: &Key<'_>) -> bool {
        usize::from(self.namespace_len) == key.namespace().len()
            && usize::from(self.name_len) == key.name().len()
            && self.bytes[..usize::from(self.namespace_len)] == *key.namespace()
            && self.bytes[usize::from(self.namespace_len)..self.value_start()] == *key.name()
    }

    pub(crate) fn value_bytes(&self) -> &[u8] {
        &self.bytes[self.value_start()..]
    }

    pub(crate) fn value(&self) -> Value {
        Value { start: self.value_start(), bytes: Arc::clone(&self.bytes) }
    }

    /// Bytes of memory that a record of this size takes, the allocator's rounding included: blocks
    /// come in steps of 16 bytes with a header of 8.
    pub(crate) const fn footprint_bytes(key_and_value: usize) -> usize {
        (ARC_HEADER_BYTES + key_and_value + 8).next_multiple_of(16)
    }

    fn value_start(&self) -> usize {
        usize::from(self.namespace_len) + usize::from(self.name_len)
    }
}

/// A cheap handle on a stored value's bytes: cloning counts a reference, and the bytes stay as they
/// were read whatever happens to the entry.
#[derive(Clone)]
pub struct Value {
    bytes: Arc<[u8]>,
    start: usize,
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Value> for Bytes {
    /// No bytes are copied.
    fn from(value: Value) -> Self {
        Self::from_owner(value)
    }
}

impl From<&[u8]> for Value {
    /// Copies: for stores that have no record to share.
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), start: 0 }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    /// The size only: a value is the user's, and logs are not the place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}
