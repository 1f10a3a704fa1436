//! What an operator sees: metrics and logs.

#[cfg(test)]
pub(crate) mod capture;
mod json_lines;
pub mod logs;
pub mod metrics;
pub mod operations;
