//! What an operator sees: metrics and logs.

mod json_lines;
pub mod logs;
pub mod metrics;
