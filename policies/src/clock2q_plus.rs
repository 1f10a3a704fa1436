//! Clock2Q+: S3-FIFO with a correlation window. Hits shortly after an entry came say that one access came in several
//! parts, not that the entry will be wanted again; so hits in the young part of the small queue do not count.
//!
//! Zhai, Marthen, Balivada et al., "Clock2Q+: A Simple and Efficient Replacement Algorithm for Metadata Cache in
//! VMware vSAN", 2025 (arXiv:2511.21958). The structure is [`SmallMain`]. Deviations:
//! - Ghosts are counted, not weighed, as in [`s3_fifo`](crate::s3_fifo), and so is the window: in byte mode, it is
//!   the share of the small queue's entries.
//! - The small queue has room for at least one entry, so that any capacity works.
//!
//! `variant = "libcachesim"` differs as it does in `s3_fifo`, and in byte mode counts insertions against a window in
//! bytes, so that hits in the small queue never count.

use serde::{Deserialize, Serialize};

use crate::options::{VARIANT, Variant, require};
use crate::policy::{OptionDoc, OptionError, Policy};
use crate::structures::{Rules, Shape, SmallMain};

/// Evicts what was not used again later than soon, and of the rest what a one-bit clock points at.
pub type Clock2QPlus = SmallMain<Clock2QPlusRules>;

/// One bit of hits, which those in the window do not set.
pub enum Clock2QPlusRules {}

impl Rules for Clock2QPlusRules {
    const MOST_HITS: u32 = 1;
    const WINDOWED: bool = true;
}

/// See [`Policy::OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock2QPlusOptions {
    /// The small queue's share of the capacity.
    pub small_ratio: f64,
    /// Ghosts, as a share of the capacity.
    pub ghost_ratio: f64,
    /// The window's share of the small queue.
    pub window_ratio: f64,
    /// Whose version.
    pub variant: Variant,
}

impl Default for Clock2QPlusOptions {
    fn default() -> Self {
        Self { small_ratio: 0.1, ghost_ratio: 0.9, window_ratio: 0.5, variant: Variant::Published }
    }
}

impl Policy for Clock2QPlus {
    const NAME: &'static str = "clock2q-plus";
    const SUMMARY: &'static str = "S3-FIFO in which hits right after the insertion do not count";
    const PAPER: &'static str = "Zhai et al., Clock2Q+: A Simple and Efficient Replacement Algorithm for Metadata Cache in VMware vSAN, 2025";
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
            name: "window_ratio",
            allowed: "0.0 to 1.0",
            meaning: "the correlation window's share of the small queue",
        },
        VARIANT,
    ];
    const BYTES_PER_ENTRY: usize = 20;
    const BYTES_PER_WEIGHED_ENTRY: usize = 36;
    type Options = Clock2QPlusOptions;

    fn validate(options: &Clock2QPlusOptions) -> Result<(), OptionError> {
        let Clock2QPlusOptions { small_ratio, ghost_ratio, window_ratio, .. } = *options;
        require((0.001..=0.999).contains(&small_ratio), "small_ratio", small_ratio, "0.001 to 0.999")?;
        require((0.0..=4.0).contains(&ghost_ratio), "ghost_ratio", ghost_ratio, "0.0 to 4.0")?;
        require((0.0..=1.0).contains(&window_ratio), "window_ratio", window_ratio, "0.0 to 1.0")
    }

    fn new(capacity: u64, _seed: u64, options: &Clock2QPlusOptions) -> Self {
        let shape = Shape {
            small_ratio: options.small_ratio,
            ghost_ratio: options.ghost_ratio,
            promotion_hits: 1,
            window_ratio: options.window_ratio,
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
    fn hits_count_only_once_the_window_has_passed() {
        // Of 8 entries, 4 may be in the small queue, and the window takes 2 further insertions.
        let options = Clock2QPlusOptions { small_ratio: 0.5, ..Clock2QPlusOptions::default() };
        for (script, expected) in [
            ("a b c d e f g h i j", "ab"),
            // Right after the insertion, hits say nothing.
            ("a a b a a c d e f g h i j", "ab"),
            // Two insertions later, one is enough: `a` moves on to the main queue, and `e`, its oldest, pays.
            ("a b c a d e f g h i j", "be"),
            // A ghost returns to the main queue; a hit there is worth one round, however many there were.
            ("a b c d e f g h i a e e e b j k", "abfgc"),
        ] {
            assert_eq!(victims::<Clock2QPlus>(&options, 8, script), expected, "{script}");
        }
    }
}
