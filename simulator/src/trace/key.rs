//! Keys of a trace, as the server would see them.

use std::fmt;

use engine::{Key, MAX_NAME_BYTES};

/// The longest decimal that fits into 64 bits.
const MAX_DIGITS: usize = 20;

/// A key: text, or a number that stands for its decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKey<'a> {
    /// A number, which a server knows by its decimal digits.
    Number(u64),
    /// Anything else, "007" included.
    Text(&'a str),
}

impl<'a> TraceKey<'a> {
    /// The key that this text is. Numbers in their usual form are recognised, so that a trace means
    /// the same in each format.
    #[must_use]
    pub fn of_text(text: &'a str) -> Self {
        number(text.as_bytes()).map_or(Self::Text(text), Self::Number)
    }

    /// What the policies of a server would see of this key.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        match self {
            Self::Number(number) => {
                let mut digits = [0; MAX_DIGITS];
                fingerprint(decimal(number, &mut digits))
            }
            Self::Text(text) => fingerprint(text.as_bytes()),
        }
    }
}

impl fmt::Display for TraceKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn fingerprint(name: &[u8]) -> u64 {
    // No server takes a longer one; readers refuse it before.
    let name = &name[..name.len().min(MAX_NAME_BYTES)];
    Key::shared(name).expect("a name of permitted length").fingerprint()
}

/// The number whose usual decimal form this is: digits alone, no leading zero.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_DIGITS || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The digits of a number, at the end of a buffer for the longest.
fn decimal(mut number: u64, digits: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut start = MAX_DIGITS;
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_digits_are_one_key_and_other_text_is_another() {
        for text in ["0", "7", "42", "18446744073709551615"] {
            let key = TraceKey::of_text(text);
            assert_eq!(key, TraceKey::Number(text.parse().unwrap()));
            assert_eq!(key.to_string(), text);
            assert_eq!(key.fingerprint(), Key::shared(text.as_bytes()).unwrap().fingerprint());
        }
        for text in ["007", "-1", "+1", "18446744073709551616", "1.0", " 1", "1e3", "a"] {
            assert_eq!(TraceKey::of_text(text), TraceKey::Text(text));
        }
    }
}
