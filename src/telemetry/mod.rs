//! What an operator sees: metrics, their recent history, traces and logs.

pub mod access_log;
#[cfg(test)]
pub(crate) mod capture;
pub mod history;
mod json_lines;
mod log_queue;
pub mod logs;
pub mod metrics;
pub mod operations;
pub mod otlp;
pub mod panics;
pub mod request_scope;
pub mod throttle;
pub mod traces;
