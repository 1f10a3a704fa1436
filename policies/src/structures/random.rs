//! Seeded random numbers for policies that sample.
//!
//! `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
//! eight bytes of state, period 2^64, and an output that is fixed by its definition, so that a
//! seed gives the same decisions in every release and on every machine.

/// A generator whose sequence follows from its seed alone.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator for this seed; neighbouring seeds give unrelated sequences.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, `bound`, which is not 0. Its bias is below
    /// `bound / 2^64`.
    #[expect(clippy::cast_possible_truncation, reason = "the product's high half is below the bound")]
    pub const fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0, "there is no number below 0");
        ((self.bits() as u128 * bound as u128) >> 64) as usize
    }

    /// Two numbers as [`Self::below`] draws them, for bounds below 2^32, out of one draw. Their bias is
    /// below `bound / 2^32`.
    pub const fn two_below(&mut self, bound: usize) -> [usize; 2] {
        debug_assert!(bound > 0 && bound <= u32::MAX as usize, "a bound of 32 bits");
        let bits = self.bits();
        [
            (((bits >> 32) * bound as u64) >> 32) as usize,
            (((bits & 0xFFFF_FFFF) * bound as u64) >> 32) as usize,
        ]
    }

    /// A number from 0.0 up to, but not including, 1.0.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    pub const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|()| random.bits()), published);
    }

    #[test]
    fn every_number_below_the_bound_comes_equally_often() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 500), "{counts:?}");
    }
}
