//! Structures that policies share: compact, indexed by slot, linked by `u32`.

mod ghost;
mod list;
mod weights;

pub use ghost::GhostQueue;
pub use list::{SlotLinks, SlotList};
pub use weights::Weights;
