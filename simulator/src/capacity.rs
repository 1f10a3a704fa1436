//! Capacities as people write them: objects, bytes, or a part of the footprint.

use std::fmt;
use std::str::FromStr;

use crate::replay::Mode;
use crate::requests::Survey;

/// A capacity before the trace is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// A bare number: objects or bytes, as the mode counts.
    Count(u64),
    /// A number with a unit of bytes.
    Bytes(u64),
    /// Percent of the footprint: of the distinct objects, or of the sum of their sizes.
    Percent(f64),
}

/// A capacity that makes no sense for a trace.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CapacityError {
    /// Less than one object or byte.
    #[error("a capacity of {capacity} is less than one of the footprint's {footprint} {unit}")]
    Zero {
        /// As asked for.
        capacity: Capacity,
        /// Of the trace.
        footprint: u64,
        /// "objects" or "bytes".
        unit: &'static str,
    },
    /// Everything fits in, so that every policy does the same.
    #[error("a capacity of {capacity} is larger than the footprint of {footprint} {unit}")]
    LargerThanFootprint {
        /// As asked for.
        capacity: Capacity,
        /// Of the trace.
        footprint: u64,
        /// "objects" or "bytes".
        unit: &'static str,
    },
    /// Bytes where objects are counted.
    #[error("a capacity of {0} is in bytes, but the mode is items")]
    BytesInItemsMode(Capacity),
}

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected objects such as 1000, a size such as 64MiB, or a percentage such as 0.1%";
        let not_zero = |capacity, is_zero: bool| {
            if is_zero { Err("a capacity is more than zero".to_owned()) } else { Ok(capacity) }
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            if !percent.is_finite() || percent < 0.0 {
                return Err(wrong().to_owned());
            }
            return not_zero(Self::Percent(percent), percent == 0.0);
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let capacity = match text[digits..].trim() {
            "" => Self::Count(number),
            unit => {
                let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
                Self::Bytes(number.checked_mul(*factor).ok_or_else(wrong)?)
            }
        };
        not_zero(capacity, number == 0)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Bytes(bytes) => {
                let fits = |(_, factor): &&(&str, u64)| bytes >= factor && bytes % factor == 0;
                let (unit, factor) = UNITS[..5].iter().rev().find(fits).unwrap_or(&UNITS[0]);
                write!(f, "{}{unit}", bytes / factor)
            }
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Capacity {
    /// The capacity for a trace. A part of an object or byte is cut off.
    pub fn resolve(self, mode: Mode, survey: &Survey) -> Result<u64, CapacityError> {
        let (footprint, unit) = match mode {
            Mode::Items => (survey.distinct, "objects"),
            Mode::Bytes => (survey.footprint_bytes, "bytes"),
        };
        let capacity = match self {
            Self::Bytes(_) if mode == Mode::Items => return Err(CapacityError::BytesInItemsMode(self)),
            Self::Count(capacity) | Self::Bytes(capacity) => capacity,
            Self::Percent(percent) => percent_of(footprint, percent),
        };
        match capacity {
            0 => Err(CapacityError::Zero { capacity: self, footprint, unit }),
            _ if capacity > footprint => {
                Err(CapacityError::LargerThanFootprint { capacity: self, footprint, unit })
            }
            _ => Ok(capacity),
        }
    }

    /// The mode that a capacity implies, where it is one of bytes.
    #[must_use]
    pub const fn implied_mode(self) -> Option<Mode> {
        match self {
            Self::Bytes(_) => Some(Mode::Bytes),
            Self::Count(_) | Self::Percent(_) => None,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a footprint has less than 53 bits, and a percentage of it is not negative"
)]
fn percent_of(footprint: u64, percent: f64) -> u64 {
    (footprint as f64 * percent / 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_read_exactly_or_not_at_all_and_shown_as_they_were_written() {
        for (text, capacity) in [
            ("1000", Capacity::Count(1000)),
            ("64MiB", Capacity::Bytes(64 << 20)),
            ("1536B", Capacity::Bytes(1536)),
            ("0.1%", Capacity::Percent(0.1)),
            ("100%", Capacity::Percent(100.0)),
        ] {
            assert_eq!(text.parse(), Ok(capacity), "{text}");
            assert_eq!(capacity.to_string(), text);
        }
        assert_eq!("2 GB".parse(), Ok(Capacity::Bytes(2_000_000_000)));
        for text in ["", "0", "0%", "0MiB", "-1", "-1%", "1.5", "1.5MiB", "x", "%", "NaN%", "inf%", "1XB"] {
            assert!(text.parse::<Capacity>().is_err(), "{text}");
        }
        assert!("99999999999TiB".parse::<Capacity>().is_err());
    }

    #[test]
    fn percentages_are_of_the_footprint_and_limits_hold() {
        let survey = Survey { distinct: 40_240, footprint_bytes: 304_213_576, ..Survey::default() };
        for (text, mode, expected) in [
            ("0.1%", Mode::Items, "40"),
            ("30%", Mode::Items, "12072"),
            ("1%", Mode::Bytes, "3042135"),
            ("1KiB", Mode::Bytes, "1024"),
            ("100%", Mode::Items, "40240"),
            ("40241", Mode::Items, "a capacity of 40241 is larger than the footprint of 40240 objects"),
            ("101%", Mode::Bytes, "a capacity of 101% is larger than the footprint of 304213576 bytes"),
            ("0.001%", Mode::Items, "a capacity of 0.001% is less than one of the footprint's 40240 objects"),
            ("1KiB", Mode::Items, "a capacity of 1KiB is in bytes, but the mode is items"),
        ] {
            let found = text.parse::<Capacity>().unwrap().resolve(mode, &survey);
            let found = found.map_or_else(|error| error.to_string(), |capacity| capacity.to_string());
            assert_eq!(found, expected, "{text}");
        }
    }
}
