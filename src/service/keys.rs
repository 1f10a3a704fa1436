//! What a key may be, and the namespace that it is in: checked once, before the store or a policy sees any of it.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::Key;

use super::ServiceError;
use crate::namespace::{MAX_NAMESPACE_CHARS, is_namespace};

/// The longest key in Unicode code points, the namespace's prefix included.
pub const MAX_KEY_CHARS: usize = 256;

/// A checked namespace; the empty one is the shared keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace<'a>(pub(super) &'a str);

impl<'a> Namespace<'a> {
    /// Checks a namespace as a caller sent it: blanks around it do not count, nothing at all is the
    /// shared keyspace; otherwise at most 64 characters, first a letter or digit, then letters,
    /// digits, `.`, `_` or `-`, all of them ASCII.
    pub fn parse(raw: &'a str) -> Result<Self, ServiceError> {
        let name = raw.trim();
        if is_namespace(name) {
            Ok(Self(name))
        } else {
            Err(ServiceError::InvalidArgument(format!(
                "invalid namespace: at most {MAX_NAMESPACE_CHARS} characters, first a letter or digit, \
                 then letters, digits, '.', '_' or '-'"
            )))
        }
    }

    /// Characters of a key that the namespace takes: the original stores `n:namespace:` in front of
    /// it, and its limit is ours.
    const fn prefix_chars(self) -> usize {
        match self.0.len() {
            0 => 0,
            length @ 1..=9 => 1 + 1 + length + 1,
            length => 2 + 1 + length + 1,
        }
    }

    /// The storage key of a caller's key.
    pub(super) fn key(self, name: &'a str) -> Result<Key<'a>, KeyRefusal> {
        if name.is_empty() {
            return Err(KeyRefusal::Empty);
        }
        let limit = self.max_key_chars();
        // A code point is at least a byte, so most keys need not be counted.
        if name.len() > limit && name.chars().count() > limit {
            return Err(KeyRefusal::TooLong);
        }
        Ok(Key::new(self.0.as_bytes(), name.as_bytes()).expect("256 characters fit the store's limits"))
    }

    /// The longest key of a caller here.
    const fn max_key_chars(self) -> usize {
        MAX_KEY_CHARS - self.prefix_chars()
    }
}

/// Why a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// There is nothing in it.
    Empty,
    /// With its namespace it is longer than [`MAX_KEY_CHARS`].
    TooLong,
}

impl KeyRefusal {
    /// Every reason there is.
    pub const ALL: [Self; 2] = [Self::Empty, Self::TooLong];

    /// As metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
        }
    }
}

/// A counter for each reason.
#[derive(Default)]
pub(super) struct RefusedKeys([AtomicU64; KeyRefusal::ALL.len()]);

impl RefusedKeys {
    /// Counts a key that is none, and says so to its caller.
    #[cold]
    pub(super) fn count(&self, reason: KeyRefusal, namespace: Namespace<'_>) -> ServiceError {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
        ServiceError::InvalidArgument(match reason {
            KeyRefusal::Empty => "key must not be empty".to_owned(),
            KeyRefusal::TooLong => {
                let limit = namespace.max_key_chars();
                let within = if namespace.0.is_empty() { "" } else { " within this namespace" };
                format!("key too long: at most {limit} characters are allowed{within}")
            }
        })
    }

    /// How many there were for this reason.
    pub(super) fn total(&self, reason: KeyRefusal) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_what_the_contract_says() {
        let longest = "n".repeat(64);
        for (raw, parsed) in [
            ("", ""),
            ("  \t ", ""),
            (" a ", "a"),
            ("9.b_c-d", "9.b_c-d"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(Namespace::parse(raw).expect(raw), Namespace(parsed));
        }
        let too_long = "n".repeat(65);
        for raw in [".a", "_a", "-", "a b", "a:b", "a/b", "é", "aé", too_long.as_str(), "a\u{0}"] {
            assert!(Namespace::parse(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn keys_are_measured_in_code_points_with_the_namespaces_prefix() {
        let fits =
            |namespace: &str, key: &str| Namespace::parse(namespace).expect(namespace).key(key).is_ok();
        assert!(!fits("", ""));
        assert!(fits("", &"k".repeat(256)));
        assert!(!fits("", &"k".repeat(257)));
        assert!(fits("", &"\u{1F600}".repeat(256)));
        assert!(!fits("", &"\u{1F600}".repeat(257)));
        // "1:a:" takes four characters, "10:aaaaaaaaaa:" fourteen.
        assert!(fits("a", &"k".repeat(252)));
        assert!(!fits("a", &"k".repeat(253)));
        assert!(fits("aaaaaaaaaa", &"é".repeat(242)));
        assert!(!fits("aaaaaaaaaa", &"é".repeat(243)));
    }
}
