//! Structures that policies share: compact, indexed by slot, linked by `u32`.

mod list;

pub use list::{SlotLinks, SlotList};
