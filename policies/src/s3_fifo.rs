//! S3-FIFO: three FIFO queues. Newcomers pass a small one, where those that are not used leave soon; the others
//! move to the main queue, a clock. A ghost queue lets those that left too early come back there.
//!
//! Yang, Zhang, Qiu, Yue and Rashmi, "FIFO Queues are All You Need for Cache Eviction", SOSP 2023. The structure
//! is [`SmallMain`]. Deviations:
//! - Ghosts are counted, not weighed: as many as [`S3FifoOptions::ghost_ratio`] times the entries resident, which is
//!   the same where items are counted and bounds memory where bytes are.
//! - The small queue has room for at least one entry, so that any capacity works.
//!
//! `variant = "libcachesim"` fills the main queue as well as the small one before anything was evicted, weighs
//! its ghosts, and refuses what is as large as the small queue. There it differs in one thing: it
//! refuses before it makes room, not after.

use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant, require};
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Rules, Shape, SmallMain};

/// Evicts what was not used again soon after it came, and of the rest what was used least of late.
pub type S3Fifo = SmallMain<S3FifoRules>;

/// Two bits of hits, all of which count.
pub enum S3FifoRules {}

impl Rules for S3FifoRules {
    const MOST_HITS: u32 = 3;
    const WINDOWED: bool = false;
}

/// See [`Policy::OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3FifoOptions {
    /// The small queue's share of the capacity.
    pub small_ratio: f64,
    /// Ghosts, as a share of the capacity.
    pub ghost_ratio: f64,
    /// Hits that earn a place in the main queue.
    pub promotion_hits: u32,
    /// Whose version.
    pub variant: Variant,
}

impl Default for S3FifoOptions {
    fn default() -> Self {
        Self { small_ratio: 0.1, ghost_ratio: 0.9, promotion_hits: 2, variant: Variant::Published }
    }
}

impl Policy for S3Fifo {
    const NAME: &'static str = "s3-fifo";
    const SUMMARY: &'static str =
        "three FIFO queues: what is not used again soon leaves early, the rest goes round a clock";
    const PAPER: &'static str = "Yang et al., FIFO Queues are All You Need for Cache Eviction, SOSP 2023";
    const OPTIONS: &'static [OptionDoc] = &[
        OptionDoc {
            name: "small_ratio",
            allowed: "0.001 to 0.999",
            meaning: "the small queue's share of the capacity",
        },
        OptionDoc {
            name: "ghost_ratio",
            allowed: "0.0 to 4.0",
            meaning: "ghosts remembered, as a share of the capacity",
        },
        OptionDoc {
            name: "promotion_hits",
            allowed: "1 to 3",
            meaning: "hits in the small queue that earn a place in the main one",
        },
        VARIANT,
    ];
    const BYTES_PER_ENTRY: usize = 16;
    const BYTES_PER_WEIGHED_ENTRY: usize = 32;
    type Options = S3FifoOptions;

    fn validate(options: &S3FifoOptions) -> Result<(), OptionError> {
        let S3FifoOptions { small_ratio, ghost_ratio, promotion_hits, .. } = *options;
        require((0.001..=0.999).contains(&small_ratio), "small_ratio", small_ratio, "0.001 to 0.999")?;
        require((0.0..=4.0).contains(&ghost_ratio), "ghost_ratio", ghost_ratio, "0.0 to 4.0")?;
        require((1..=3).contains(&promotion_hits), "promotion_hits", promotion_hits, "1 to 3")
    }

    fn new(capacity: u64, _seed: u64, options: &S3FifoOptions) -> Self {
        let shape = Shape {
            small_ratio: options.small_ratio,
            ghost_ratio: options.ghost_ratio,
            promotion_hits: options.promotion_hits,
            window_ratio: 0.0,
            libcachesim: options.variant == Variant::Libcachesim,
        };
        Self::with_shape(capacity, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::victims;

    #[test]
    fn newcomers_leave_soon_unless_they_are_used_or_return() {
        // Of 4 entries, 1 may be in the small queue. While the cache fills, the others go to the main one.
        let options = S3FifoOptions { small_ratio: 0.25, ..S3FifoOptions::default() };
        for (script, expected) in [
            ("a b c d e f g", "aef"),
            // Two hits in the small queue earn `a` a place in the main one, where `b` pays for it.
            ("a b c d a a e f g", "bef"),
            // One hit does not.
            ("a b c d a e f", "ae"),
            // The ghost of `a` brings it back to the main queue, which is then one over: `b` goes.
            ("a b c d e a f g", "aebf"),
            // A hit in the main queue is worth a round.
            ("a b c d b e a f g", "aecf"),
            ("a b c d b b b e a f a g a h i j", "aecfghi"),
            // A removed entry leaves no ghost.
            ("a b c d -a e f a g", "efa"),
            ("a b c d =a =a e f", "be"),
            ("a b c d ! ! ! !", "abcd"),
        ] {
            assert_eq!(victims::<S3Fifo>(&options, 4, script), expected, "{script}");
        }
    }
}
