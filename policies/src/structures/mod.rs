//! Structures that policies share: compact, indexed by slot, linked by `u32`.

mod frequency;
mod ghost;
mod heap;
mod list;
mod random;
mod sampler;
mod segments;
mod share;
mod turn;
mod weights;

pub use frequency::FrequencyLists;
pub use ghost::GhostQueue;
pub use heap::SlotHeap;
pub use list::{SlotLinks, SlotList};
pub use random::Random;
pub use sampler::Sampler;
pub use segments::Segments;
pub use share::{as_float, share};
pub use turn::Turn;
pub use weights::Weights;
