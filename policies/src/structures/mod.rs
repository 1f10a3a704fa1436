//! Structures that policies share: compact, indexed by slot, linked by `u32`.

mod dense_ghosts;
mod ghost;
mod list;
mod sketch;
mod small_main;
mod weights;

pub use dense_ghosts::{DENSE_BITS, DenseGhosts, dense_fingerprint};
pub use ghost::GhostQueue;
pub use list::{SlotLinks, SlotList};
pub use sketch::Sketch;
pub use small_main::{Rules, Shape, SmallMain};
pub use weights::Weights;
