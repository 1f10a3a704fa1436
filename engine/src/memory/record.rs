//! A record: how the bytes of an entry lie in its cell.
//!
//! A header of eight bytes, the deadline where there is one, the namespace where there is one, the name and the value.
//!
//! ```text
//! slot: u32 | lengths and flags: u32 | deadline: u64? | length, namespace? | name | value, or its number
//! ```

use crate::cpu::equal_bytes;
use crate::key::Key;
use crate::policy::Slot;

use super::cells::MAX_CELL_BYTES;

const HEADER_BYTES: usize = 8;
const DEADLINE_BYTES: usize = 8;
/// Of the number of a value that lies outside.
pub(super) const OUTSIDE_BYTES: usize = size_of::<u32>();

/// Bits of the header's second half: the value's length, the name's length, two flags.
const VALUE_BITS: u32 = 13;
const NAME_BITS: u32 = 12;
const NAME_MASK: u32 = ((1 << NAME_BITS) - 1) << VALUE_BITS;
pub(super) const HAS_DEADLINE: u32 = 1 << 30;
const HAS_NAMESPACE: u32 = 1 << 31;
/// In place of a value's length: the value lies outside.
pub(super) const OUTSIDE: u32 = (1 << VALUE_BITS) - 1;

const _: () = assert!(MAX_CELL_BYTES < OUTSIDE as usize && crate::key::MAX_NAME_BYTES < 1 << NAME_BITS);
const _: () = assert!(
    HEADER_BYTES
        + DEADLINE_BYTES
        + 1
        + crate::key::MAX_NAMESPACE_BYTES
        + crate::key::MAX_NAME_BYTES
        + OUTSIDE_BYTES
        <= MAX_CELL_BYTES
);

/// What a key says of its record's lengths.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a key bounds its name")]
pub(super) const fn lengths_of(key: &Key<'_>) -> u32 {
    let name = (key.name().len() as u32) << VALUE_BITS;
    if key.namespace().is_empty() { name } else { name | HAS_NAMESPACE }
}

const fn name_len(lengths: u32) -> usize {
    ((lengths & NAME_MASK) >> VALUE_BITS) as usize
}

/// Bytes of a record under this key up to its value.
pub(super) const fn before_value(key: &Key<'_>, deadline: bool) -> usize {
    let namespace = if key.namespace().is_empty() { 0 } else { 1 + key.namespace().len() };
    HEADER_BYTES + if deadline { DEADLINE_BYTES } else { 0 } + namespace + key.name().len()
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The slot and the lengths of the record that begins with these bytes.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "one half each")]
fn header_at(bytes: &[u8]) -> (u32, u32) {
    let header = u64_at(bytes, 0);
    (header as u32, (header >> 32) as u32)
}

/// The key of a record with these lengths, and where its value begins.
#[inline]
pub(super) fn key_at(bytes: &[u8], lengths: u32) -> (Key<'_>, usize) {
    let mut at = if lengths & HAS_DEADLINE == 0 { HEADER_BYTES } else { HEADER_BYTES + DEADLINE_BYTES };
    let mut namespace: &[u8] = &[];
    if lengths & HAS_NAMESPACE != 0 {
        let len = usize::from(bytes[at]);
        namespace = &bytes[at + 1..][..len];
        at += 1 + len;
    }
    let value = at + name_len(lengths);
    (Key::new(namespace, &bytes[at..value]).expect("a stored key was one"), value)
}

/// A record as it lies in its cell.
pub(super) struct Record<'a> {
    pub(super) deadline_nanos: Option<u64>,
    pub(super) key: Key<'a>,
    pub(super) value: Stored<'a>,
    pub(super) len: usize,
}

/// Where a value lies.
pub(super) enum Stored<'a> {
    Inside(&'a [u8]),
    /// Under this number among those [outside](super::outside).
    Outside(u32),
}

impl<'a> Record<'a> {
    #[inline]
    pub(super) fn read(cell: &'a [u8]) -> Self {
        let lengths = u32_at(cell, 4);
        let (key, at) = key_at(cell, lengths);
        let (value, value_len) = match lengths & OUTSIDE {
            OUTSIDE => (Stored::Outside(u32_at(cell, at)), OUTSIDE_BYTES),
            len => (Stored::Inside(&cell[at..at + len as usize]), len as usize),
        };
        let deadline_nanos = (lengths & HAS_DEADLINE != 0).then(|| u64_at(cell, HEADER_BYTES));
        Self { deadline_nanos, key, value, len: at + value_len }
    }
}

/// A record that was found under its key: all that is left to read of it.
pub(super) struct Found<'a> {
    /// From its cell on.
    bytes: &'a [u8],
    slot: u32,
    lengths: u32,
    /// Where the value begins.
    value: usize,
}

impl<'a> Found<'a> {
    /// The record that begins with these bytes, if this is its key, which says so much of its lengths. Where it is another one, the
    /// lengths tell in most cases.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the middle of every operation: a tenth of a get's instructions"
    )]
    pub(super) fn under(key: &Key<'_>, of_key: u32, bytes: &'a [u8]) -> Option<Self> {
        let (slot, lengths) = header_at(bytes);
        if (lengths ^ of_key) & (HAS_NAMESPACE | NAME_MASK) != 0 {
            return None;
        }
        let mut at = if lengths & HAS_DEADLINE == 0 { HEADER_BYTES } else { HEADER_BYTES + DEADLINE_BYTES };
        let (namespace, name) = (key.namespace(), key.name());
        if !namespace.is_empty() {
            if usize::from(bytes[at]) != namespace.len() {
                return None;
            }
            at += 1;
            if !same(&bytes[at..at + namespace.len()], namespace) {
                return None;
            }
            at += namespace.len();
        }
        let value = at + name.len();
        same(&bytes[at..value], name).then_some(Self { bytes, slot, lengths, value })
    }

    #[inline]
    pub(super) fn slot(&self) -> Slot {
        Slot::new(self.slot)
    }

    #[inline]
    pub(super) fn deadline_nanos(&self) -> Option<u64> {
        (self.lengths & HAS_DEADLINE != 0).then(|| u64_at(self.bytes, HEADER_BYTES))
    }

    /// The value's length or [`OUTSIDE`], and all that lies from its beginning, or that of its number, to the end of the page.
    #[inline]
    pub(super) fn value(&self) -> (u32, &'a [u8]) {
        (self.lengths & OUTSIDE, &self.bytes[self.value..])
    }
}

/// The deadline of the record in a cell.
#[inline]
pub(super) fn deadline_in(cell: &[u8]) -> Option<u64> {
    (u32_at(cell, 4) & HAS_DEADLINE != 0).then(|| u64_at(cell, HEADER_BYTES))
}

/// Writes a record into a cell that it fits.
#[inline]
pub(super) fn write(
    cell: &mut [u8],
    slot: Slot,
    key: &Key<'_>,
    deadline_nanos: Option<u64>,
    value: &Stored<'_>,
) {
    let value_len = match value {
        Stored::Inside(value) => u32::try_from(value.len()).expect("it fits a cell"),
        Stored::Outside(_) => OUTSIDE,
    };
    let mut lengths = value_len | lengths_of(key);
    if deadline_nanos.is_some() {
        lengths |= HAS_DEADLINE;
    }
    cell[..4].copy_from_slice(&slot.get().to_le_bytes());
    cell[4..HEADER_BYTES].copy_from_slice(&lengths.to_le_bytes());
    let mut rest = &mut cell[HEADER_BYTES..];
    if let Some(deadline) = deadline_nanos {
        rest = put(rest, &deadline.to_le_bytes());
    }
    if !key.namespace().is_empty() {
        rest = put(rest, &[u8::try_from(key.namespace().len()).expect("a key bounds its namespace")]);
        rest = put(rest, key.namespace());
    }
    rest = put(rest, key.name());
    match value {
        Stored::Inside(value) => put(rest, value),
        Stored::Outside(number) => put(rest, &number.to_le_bytes()),
    };
}

/// Writes bytes, and gives what follows them.
#[inline]
fn put<'a>(to: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (part, rest) = to.split_at_mut(bytes.len());
    part.copy_from_slice(bytes);
    rest
}

/// The key of the record in a cell.
#[inline]
pub(super) fn key_in(cell: &[u8]) -> Key<'_> {
    key_at(cell, u32_at(cell, 4)).0
}

/// Whether two slices hold the same bytes. Most names are short: to call the C library takes longer than to
/// compare their first and their last bytes, of which some may be the same ones.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    const BLOCK: usize = 16;
    const ALL: u32 = (1 << BLOCK) - 1;
    let len = left.len();
    if len != right.len() || !(BLOCK..=2 * BLOCK).contains(&len) {
        return left == right;
    }
    let block =
        |bytes: &[u8], at: usize| -> [u8; BLOCK] { bytes[at..at + BLOCK].try_into().expect("a block") };
    let last = len - BLOCK;
    equal_bytes(block(left, 0), block(right, 0)) & equal_bytes(block(left, last), block(right, last)) == ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_where_each_byte_is() {
        for len in 0..70 {
            let name = vec![b'n'; len];
            assert!(same(&name, &name.clone()), "{len} bytes");
            assert!(!same(&name, &[&name[..], b"n"].concat()), "{len} bytes and one more");
            for at in 0..len {
                let mut other = name.clone();
                other[at] = b'N';
                assert!(!same(&name, &other), "{len} bytes, another one at {at}");
            }
        }
    }
}
