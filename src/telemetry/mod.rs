//! What an operator sees: metrics and logs.

pub mod access_log;
#[cfg(test)]
pub(crate) mod capture;
mod json_lines;
pub mod logs;
pub mod metrics;
pub mod operations;
pub mod request_scope;
