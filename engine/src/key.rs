//! Keys as the store sees them: a namespace and a name, borrowed from the request.

use rapidhash::v3::{DEFAULT_RAPID_SECRETS, RapidSecrets, rapidhash_v3_seeded};

/// A key: borrowed, so that looking one up copies nothing.
///
/// Two keys are the same only where both parts are: no name can reach into another namespace,
/// whatever bytes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    namespace: &'a [u8],
    name: &'a [u8],
}

/// The longest namespace in bytes.
pub const MAX_NAMESPACE_BYTES: usize = u8::MAX as usize;

/// The longest name in bytes.
pub const MAX_NAME_BYTES: usize = 2048;

impl<'a> Key<'a> {
    /// A key in the shared keyspace. `None` where the name is longer than [`MAX_NAME_BYTES`].
    #[must_use]
    pub fn shared(name: &'a [u8]) -> Option<Self> {
        Self::new(&[], name)
    }

    /// A key in a namespace; the empty namespace is the shared keyspace. `None` where a part is
    /// longer than [`MAX_NAMESPACE_BYTES`] or [`MAX_NAME_BYTES`].
    #[must_use]
    pub fn new(namespace: &'a [u8], name: &'a [u8]) -> Option<Self> {
        (namespace.len() <= MAX_NAMESPACE_BYTES && name.len() <= MAX_NAME_BYTES)
            .then_some(Self { namespace, name })
    }

    /// The namespace; empty for the shared keyspace.
    #[must_use]
    pub const fn namespace(&self) -> &'a [u8] {
        self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Bytes in both parts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.namespace.len() + self.name.len()
    }

    /// Whether both parts are empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash that policies see: the same in every process and release, so that a simulation
    /// predicts a server. Not for tables that outsiders can fill: see [`HashSeed`].
    #[must_use]
    #[inline]
    pub fn fingerprint(&self) -> u64 {
        self.hash_with(&DEFAULT_RAPID_SECRETS)
    }

    #[inline]
    fn hash_with(&self, secrets: &RapidSecrets) -> u64 {
        if self.namespace.is_empty() {
            return rapidhash_v3_seeded(self.name, secrets);
        }
        let namespace = rapidhash_v3_seeded(self.namespace, secrets);
        let within = RapidSecrets { seed: secrets.seed ^ namespace, ..*secrets };
        rapidhash_v3_seeded(self.name, &within)
    }
}

/// The secret of one store's index: keys that collide under one seed do not under another, so that
/// nobody outside the process can choose keys that all fall into one chain.
#[derive(Clone)]
pub struct HashSeed(RapidSecrets);

impl HashSeed {
    /// A seed for production: unpredictable, and another one in each process.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::fixed(RandomState::new().hash_one(0_u8))
    }

    /// A known seed, for tests that must repeat.
    #[must_use]
    pub const fn fixed(seed: u64) -> Self {
        Self(RapidSecrets::seed(seed))
    }

    /// The key's hash under this seed: 64 well-mixed bits.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &Key<'_>) -> u64 {
        key.hash_with(&self.0)
    }
}

impl std::fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSeed(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &'static str, name: &'static str) -> Key<'static> {
        Key::new(namespace.as_bytes(), name.as_bytes()).expect("short parts")
    }

    #[test]
    fn moving_a_byte_between_namespace_and_name_makes_another_key() {
        let seed = HashSeed::fixed(1);
        for (left, right) in [(key("a", "bc"), key("ab", "c")), (key("", "abc"), key("abc", ""))] {
            assert_ne!(left, right);
            assert_ne!(seed.hash(&left), seed.hash(&right));
            assert_ne!(left.fingerprint(), right.fingerprint());
        }
    }

    #[test]
    fn fingerprints_are_the_same_in_every_process_and_release() {
        assert_eq!(key("", "42").fingerprint(), FINGERPRINT_OF_42);
        assert_eq!(key("web", "42").fingerprint(), FINGERPRINT_OF_42_IN_WEB);
    }

    const FINGERPRINT_OF_42: u64 = 13_432_465_937_079_881_665;
    const FINGERPRINT_OF_42_IN_WEB: u64 = 5_963_686_558_352_131_836;

    #[test]
    fn seeds_give_unrelated_hashes() {
        let key = key("", "a");
        assert_ne!(HashSeed::fixed(1).hash(&key), HashSeed::fixed(2).hash(&key));
        assert_ne!(HashSeed::random().hash(&key), HashSeed::random().hash(&key));
    }

    #[test]
    fn parts_that_do_not_fit_their_length_field_are_refused() {
        assert!(Key::new(&[b'n'; MAX_NAMESPACE_BYTES + 1], b"k").is_none());
        assert!(Key::shared(&vec![b'k'; MAX_NAME_BYTES + 1]).is_none());
        assert!(Key::new(&[b'n'; MAX_NAMESPACE_BYTES], &vec![b'k'; MAX_NAME_BYTES]).is_some());
    }
}
