//! Values: the handle that readers get.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// A cheap handle on exactly a value's bytes: cloning counts a reference, and the bytes stay as they
/// were read whatever happens to the entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Bytes);

impl Value {
    /// Bytes that are shared with the store. They must be an allocation of their own.
    pub(crate) const fn shared(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
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
        value.0
    }
}

impl From<&[u8]> for Value {
    /// Copies.
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for Value {
    /// The size only: a value is the user's, and logs are not the place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}
