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

/// The number that is the first line of a text, in its usual decimal form, and the bytes of that line with its end. `None` for
/// any other line, and for one that is not whole or near the end of the text or of what 64 bits can hold: these are rare and may be
/// read with more care.
#[inline]
pub(super) fn number_line(text: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut start) = (0_u64, 0);
    loop {
        let (eight, digits) = leading_digits(*text.get(start..)?.first_chunk()?);
        number = number.wrapping_mul(POWERS_OF_TEN[digits]).wrapping_add(eight);
        if digits == 8 {
            // A constant step, so that the next word need not wait for this one's digits.
            start += 8;
            if start > MAX_DIGITS {
                return None;
            }
            continue;
        }
        let length = start + digits;
        let end = match text.get(length..)? {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return None,
        };
        let is_usual = (1..MAX_DIGITS).contains(&length) && (text[0] != b'0' || length == 1);
        return is_usual.then_some((number, length + end));
    }
}

const POWERS_OF_TEN: [u64; 9] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The number that the leading digits of eight bytes are, and how many there are: all bytes of a word at once.
#[inline]
fn leading_digits(text: [u8; 8]) -> (u64, usize) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let values = u64::from_le_bytes(text) ^ (EACH * 0x30);
    // The highest bit of each byte from the first that is no digit on; what is carried goes to later bytes only.
    let others = (values.wrapping_add(EACH * 0x76) | values) & (EACH * 0x80);
    let digits = others.trailing_zeros() / 8;
    // The digits move to the word's end, with zeros before them.
    let values = values.checked_shl(64 - 8 * digits).unwrap_or(0);
    let pairs = (values.wrapping_mul(10) + (values >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    let eight = (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF;
    (eight, digits as usize)
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

    #[test]
    fn a_line_that_is_read_as_a_number_is_the_number_and_others_are_left() {
        let numbers = (0..19).flat_map(|digits| {
            let power = 10_u64.pow(digits);
            [power - 1, power, power + 1, power / 9 * 8 + 7, 1_234_567_890_123_456_789 % (power * 10)]
        });
        let mut read = 0;
        for number in numbers {
            for end in ["\n", "\r\n"] {
                let line = format!("{number}{end}");
                let expected = Some((number, line.len()));
                let found = number_line(format!("{line}99999999\n").as_bytes());
                assert!(found == expected || found.is_none(), "{line:?}: {found:?}");
                read += u32::from(found == expected);
            }
        }
        assert!(read > 150, "only {read} lines were read at once");
        let rest = "00000000\n00000000";
        for line in [
            "",
            "007",
            "-1",
            "1 ",
            "1.0",
            "12a",
            "12345678901234567890",
            "18446744073709551616",
            "1\r2",
            "é",
            "1é",
            ":",
            "/",
        ] {
            assert_eq!(number_line(format!("{line}\n{rest}").as_bytes()), None, "{line:?}");
        }
        assert_eq!(number_line(b"12345678"), None, "the line may go on");
    }
}
