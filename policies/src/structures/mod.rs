//! Structures that policies share: compact, indexed by slot, linked by `u32`.

use engine::Slot;

mod bits;
mod dense_ghosts;
mod frequency;
mod ghost;
mod heap;
mod list;
mod random;
mod sampler;
mod segments;
mod share;
mod sketch;
mod small_main;
mod turn;
mod weights;

pub use bits::SlotBits;
pub use dense_ghosts::{DENSE_BITS, DenseGhosts, dense_fingerprint};
pub use frequency::FrequencyLists;
pub use ghost::{GHOSTS_PER_RESIDENT, GhostQueue};
pub use heap::SlotHeap;
pub use list::{SlotLinks, SlotList};
pub use random::Random;
pub use sampler::Sampler;
pub use segments::Segments;
pub use share::{as_float, share};
pub use sketch::Sketch;
pub use small_main::{Rules, Shape, SmallMain};
pub use turn::Turn;
pub use weights::Weights;

/// Keeps for one slot what was kept for another.
pub fn relocate_slot<T: Copy>(kept: &mut [T], from: Slot, to: Slot) {
    kept[to.index()] = kept[from.index()];
}
