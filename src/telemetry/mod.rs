//! What an operator sees: metrics, traces and logs.

#[cfg(test)]
pub(crate) mod capture;
mod json_lines;
pub mod logs;
pub mod metrics;
pub mod operations;
pub mod otlp;
pub mod traces;
