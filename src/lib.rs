//! tiny-cache: a cache server. See docs/architecture.md for the map.

pub mod config;
pub mod proto;
pub mod registry;
pub mod service;
pub mod transports;
