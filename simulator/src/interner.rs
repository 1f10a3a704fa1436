//! Gives every distinct key a dense number, so that simulations need no hash table of their own.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::trace::TraceKey;

struct Text {
    fingerprint: u64,
    id: u32,
    /// Where the key's bytes are in the arena.
    start: usize,
    len: usize,
}

/// Distinct keys, numbered from 0 in the order in which they were first seen.
#[derive(Default)]
pub struct Interner {
    numbers: HashTable<(u64, u32)>,
    texts: HashTable<Text>,
    arena: Vec<u8>,
    fingerprints: Vec<u64>,
}

impl Interner {
    /// The key's number, which is [`Self::len`] before the call where the key is new.
    ///
    /// # Panics
    ///
    /// Beyond 2^32 - 1 distinct keys.
    pub fn intern(&mut self, key: TraceKey<'_>) -> u32 {
        let next = self.next();
        match key {
            TraceKey::Number(number) => return self.number(number),
            TraceKey::Text(text) => {
                let (text, fingerprint) = (text.as_bytes(), key.fingerprint());
                let arena = &self.arena;
                let same = |other: &Text| arena[other.start..][..other.len] == *text;
                match self.texts.entry(fingerprint, same, |other| other.fingerprint) {
                    Entry::Occupied(known) => return known.get().id,
                    Entry::Vacant(place) => {
                        place.insert(Text { fingerprint, id: next, start: arena.len(), len: text.len() });
                    }
                }
                self.arena.extend_from_slice(text);
                self.fingerprints.push(fingerprint);
            }
        }
        next
    }

    /// Appends the numbers of keys that are numbers.
    ///
    /// # Panics
    ///
    /// Beyond 2^32 - 1 distinct keys.
    pub fn intern_numbers(&mut self, keys: &[u64], ids: &mut Vec<u32>) {
        ids.extend(keys.iter().map(|key| self.number(*key)));
    }

    #[inline]
    fn number(&mut self, number: u64) -> u32 {
        let hash = mix(number);
        match self.numbers.find(hash, |&(other, _)| other == number) {
            Some(&(_, id)) => id,
            None => self.new_number(number, hash),
        }
    }

    #[cold]
    fn new_number(&mut self, number: u64, hash: u64) -> u32 {
        let id = self.next();
        self.numbers.insert_unique(hash, (number, id), |&(other, _)| mix(other));
        self.fingerprints.push(TraceKey::Number(number).fingerprint());
        id
    }

    fn next(&self) -> u32 {
        u32::try_from(self.fingerprints.len()).expect("fewer than 2^32 distinct keys")
    }

    /// Number of distinct keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether no key was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    pub(crate) fn into_fingerprints(self) -> Vec<u64> {
        self.fingerprints
    }

    /// What a server's policies would see of each key, by its number.
    #[must_use]
    pub fn fingerprints(&self) -> &[u64] {
        &self.fingerprints
    }
}

/// Spreads a number over all 64 bits: one multiplication, folded.
pub(crate) fn mix(number: u64) -> u64 {
    let product = u128::from(number ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93;
    let [low, high] = [product, product >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
    low.unwrap_or_default() ^ high.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_in_the_order_of_their_first_appearance() {
        let mut interner = Interner::default();
        let ids = ["7", "a", "07", "a", "7", "b", "8"].map(|key| interner.intern(TraceKey::of_text(key)));
        assert_eq!(ids, [0, 1, 2, 1, 0, 3, 4]);
        assert_eq!(interner.len(), 5);
        let mut numbers = vec![9];
        interner.intern_numbers(&[8, 9, 7, 9], &mut numbers);
        assert_eq!(numbers, [9, 4, 5, 0, 5]);
        assert_eq!(interner.fingerprints()[2], TraceKey::Text("07").fingerprint());
    }
}
