//! Structures that policies share: compact, indexed by slot, linked by `u32`.

mod ghost;
mod list;
mod segments;
mod share;
mod weights;

pub use ghost::GhostQueue;
pub use list::{SlotLinks, SlotList};
pub use segments::Segments;
pub use share::{as_float, share};
pub use weights::Weights;
