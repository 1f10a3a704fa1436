//! A moment, counted in requests: 64 bits, so that it never overflows, at the alignment of 32.

/// The number of a request. In a record of 32-bit fields it costs 8 bytes, where a `u64` costs 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn([u32; 2]);

impl Turn {
    /// This turn.
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    #[must_use]
    pub const fn new(turn: u64) -> Self {
        Self([turn as u32, (turn >> 32) as u32])
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        (self.0[1] as u64) << 32 | self.0[0] as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_is_kept_in_records_of_small_alignment() {
        for turn in [0, 1, 0x1234_5678_9ABC_DEF0, u64::MAX] {
            assert_eq!(Turn::new(turn).get(), turn);
        }
        assert_eq!(size_of::<(Turn, u32)>(), 12);
    }
}
