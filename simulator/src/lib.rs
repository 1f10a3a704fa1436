//! Trace-driven simulation: replays recorded requests on the very directory that the server uses.

pub mod curve;
pub mod report;
pub mod result;
