//! Sizes: "512MiB", "64KiB", "10MB", "1000B", or a plain integer of bytes.

use super::document::Raw;
use super::format::Format;

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Bytes, `min` to `max`.
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Size {
    /// From `min` up to what the protocol's signed 64-bit counters can tell.
    pub(super) const fn at_least(min: u64) -> Self {
        Self { min, max: i64::MAX as u64 }
    }
}

impl Format for Size {
    type Value = u64;

    fn parse(&self, raw: &Raw) -> Option<u64> {
        let bytes = match raw {
            Raw::Integer(bytes) => u64::try_from(*bytes).ok()?,
            Raw::Text(text) => parse(text)?,
            _ => return None,
        };
        (self.min..=self.max).contains(&bytes).then_some(bytes)
    }

    fn allowed(&self) -> String {
        let (min, max) = (show(self.min), show(self.max));
        if self.max == i64::MAX as u64 {
            format!("a size such as \"512MiB\", at least {min}")
        } else {
            format!("a size such as \"512MiB\", from {min} to {max}")
        }
    }

    fn render(&self, bytes: &u64) -> String {
        format!("{:?}", show(*bytes))
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest binary unit that loses nothing.
pub(super) fn show(bytes: u64) -> String {
    let (name, factor) = UNITS[..4]
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&UNITS[8]);
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_or_not_at_all() {
        let cases = [
            ("512MiB", Some(512 << 20)),
            ("64KiB", Some(64 << 10)),
            ("1GiB", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("10MB", Some(10_000_000)),
            ("1KB", Some(1000)),
            ("1000B", Some(1000)),
            ("007B", Some(7)),
            ("18446744073709551615B", Some(u64::MAX)),
            ("18446744073709551616B", None),
            ("16777216TiB", None),
            ("12 parsecs", None),
            ("12 MiB", None),
            ("12mib", None),
            ("1.5GiB", None),
            ("-1B", None),
            ("+1B", None),
            ("MiB", None),
            ("12", None),
            ("", None),
            ("١MiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_shown_size_reads_back_as_itself() {
        for bytes in [0, 1, 1000, 1023, 1024, 1025, 100 << 20, (3 << 30) + 1, 5 << 40, u64::MAX] {
            assert_eq!(parse(&show(bytes)), Some(bytes), "{bytes}");
        }
        assert_eq!(show(100 << 20), "100MiB");
        assert_eq!(show(1000), "1000B");
    }
}
