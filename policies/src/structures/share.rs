//! Between whole numbers and ratios of them.

/// The part of a capacity that a ratio from 0.0 to 1.0 stands for, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a share of more than 2^53 may be off by a few"
)]
#[must_use]
pub fn share(capacity: u64, ratio: f64) -> u64 {
    (as_float(capacity) * ratio) as u64
}

/// A count or a weight as a float: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "this is what it says")]
#[must_use]
pub const fn as_float(number: u64) -> f64 {
    number as f64
}
