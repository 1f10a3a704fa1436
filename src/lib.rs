//! tiny-cache: a cache server for the sidecar or for a few services.
//!
//! The library is the server: [`server`] composes stores, policies and transports into a running one,
//! and is where other stores and policies are plugged in. docs/architecture.md is the map.

pub mod auth;
pub mod cli;
pub mod config;
pub mod lifecycle;
mod line;
mod namespace;
mod pace;
mod pem;
pub mod proto;
pub mod registry;
pub mod rotated;
pub mod server;
pub mod service;
mod striped;
pub mod telemetry;
pub mod tls;
pub mod transports;
