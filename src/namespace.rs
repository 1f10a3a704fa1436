//! How namespaces are written, for callers and for the configuration.

/// The longest namespace in characters.
pub(crate) const MAX_NAMESPACE_CHARS: usize = 64;

/// Whether a name is one: at most 64 characters, first a letter or digit, then letters, digits, `.`, `_` or `-`, all of
/// them ASCII. The empty one is the shared keyspace's.
#[must_use]
pub(crate) fn is_namespace(name: &str) -> bool {
    let (first, rest) = name.as_bytes().split_at(name.len().min(1));
    name.len() <= MAX_NAMESPACE_CHARS
        && first.iter().all(u8::is_ascii_alphanumeric)
        && rest.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
