//! tiny-cache: a cache server. See docs/architecture.md for the map.

pub mod cli;
pub mod config;
pub mod proto;
