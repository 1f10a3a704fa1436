//! The secret by which hash chains are chosen where what is hashed is known to everybody.
//!
//! Fingerprints are the same in every process, so that a simulation predicts a server; hence anybody can compute
//! keys whose fingerprints are alike in any bits. A structure that chooses chains by such bits can be made to put
//! everything into one of them, and each newcomer walks it under its shard's lock. So the choice, and nothing
//! else, depends on numbers that each process draws for itself: chains compare whole fingerprints, and no decision
//! may depend on where one lies.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

static OF_PROCESS: LazyLock<ChainSecret> = LazyLock::new(|| {
    let state = RandomState::new();
    ChainSecret { mask: state.hash_one(0_u8), factor: state.hash_one(1_u8) | 1 }
});

/// Chooses chains such that nobody outside the process can tell which values share one. Its default is the process's.
#[derive(Clone, Copy)]
pub struct ChainSecret {
    mask: u64,
    /// Odd.
    factor: u64,
}

impl Default for ChainSecret {
    fn default() -> Self {
        *OF_PROCESS
    }
}

impl ChainSecret {
    /// The chain of a value, out of any number of them but none. All bits of the value count. Where there is one chain more, it takes
    /// from one other alone, from that whose number lacks its highest bit: Litwin, "Linear Hashing: A New Tool for File and
    /// Table Addressing", VLDB 1980.
    #[must_use]
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits are wanted")]
    pub const fn chain(self, value: u64, chains: usize) -> usize {
        let highest = 1 << chains.ilog2();
        // The highest bits of a product are its best, and the order of the bits does not matter.
        let low = self.mixed(value).swap_bytes() as usize & (2 * highest - 1);
        if low < chains { low } else { low - highest }
    }

    /// Both halves of a product, so that values at equal distances are not at equal distances any more: some factors
    /// would put many of those side by side.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
    const fn mixed(self, value: u64) -> u64 {
        let product = (value ^ self.mask) as u128 * self.factor as u128;
        (product as u64 ^ (product >> u64::BITS) as u64).wrapping_mul(self.factor)
    }
}

impl std::fmt::Debug for ChainSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainSecret(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_spread_over_the_chains_whatever_bits_they_share() {
        const CHAINS: usize = 1 << 12;
        let secret = ChainSecret::default();
        assert_eq!(
            secret.chain(7, CHAINS),
            ChainSecret::default().chain(7, CHAINS),
            "one secret for the process"
        );
        for spread in [
            |value: u64| value,
            |value: u64| value << 40,
            |value: u64| value.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            // What is left of the odd number above is the value itself: all in the first chain, once.
            |value: u64| value.wrapping_mul(0xF1DE_83E1_9937_733D),
        ] {
            let mut chains = vec![0; CHAINS];
            for value in 0..CHAINS as u64 {
                chains[secret.chain(spread(value), CHAINS)] += 1;
            }
            let longest = chains.iter().max();
            assert!(
                longest < Some(&32),
                "{longest:?} in one chain under {:x?}",
                (secret.mask, secret.factor)
            );
        }
    }

    #[test]
    fn a_further_chain_takes_from_one_other_alone() {
        let secret = ChainSecret::default();
        for chains in 1..300_usize {
            let split = chains - (1 << chains.ilog2());
            for value in 0..2000 {
                let (before, after) = (secret.chain(value, chains), secret.chain(value, chains + 1));
                assert!(
                    before < chains && (after == before || before == split && after == chains),
                    "{value} of {chains}"
                );
            }
        }
    }

    #[test]
    fn one_chain_is_the_only_choice_where_there_is_one() {
        assert_eq!(ChainSecret::default().chain(u64::MAX, 1), 0);
    }
}
