//! Requests made from a seed.

/// `SplitMix64`: the same numbers for the same seed, everywhere.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Keys below `distinct`, the small ones more often, roughly as Zipf's law has it.
pub(crate) fn skewed(seed: u64, distinct: u64, requests: usize) -> Vec<u64> {
    let mut random = SplitMix(seed);
    let octaves = u64::from(distinct.ilog2()) + 1;
    (0..requests).map(|_| random.below(distinct) >> random.below(octaves)).collect()
}
