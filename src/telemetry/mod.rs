//! What an operator sees: metrics, their recent history, and logs.

#[cfg(test)]
pub(crate) mod capture;
pub mod history;
mod json_lines;
pub mod logs;
pub mod metrics;
pub mod operations;
