//! tiny-cache: a cache server. See docs/architecture.md for the map.

pub mod config;
pub mod proto;
pub mod tls;
pub mod transports;
