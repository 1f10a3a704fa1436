//! The result of one simulation, as tables and programs read it.

use serde::Serialize;

use crate::replay::{Mode, Tally};

/// One row of results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulationResult {
    /// The trace, as it was named.
    pub trace: String,
    /// What the capacity counts.
    pub mode: Mode,
    /// Objects or bytes.
    pub capacity: u64,
    /// The policy's name; "belady" for the optimum.
    pub policy: String,
    /// Requests simulated.
    pub requests: u64,
    /// Requests whose object was not resident.
    pub misses: u64,
    /// Missed requests of all.
    pub miss_ratio: f64,
    /// Missed bytes of all bytes requested.
    pub byte_miss_ratio: f64,
    /// Time spent in the simulation's loop, without reading the trace.
    pub seconds: f64,
}

impl SimulationResult {
    /// The row of a tally.
    #[must_use]
    pub fn new(trace: &str, mode: Mode, capacity: u64, policy: &str, tally: &Tally) -> Self {
        Self {
            trace: trace.to_owned(),
            mode,
            capacity,
            policy: policy.to_owned(),
            requests: tally.requests,
            misses: tally.misses,
            miss_ratio: ratio(tally.misses, tally.requests),
            byte_miss_ratio: ratio(tally.missed_bytes, tally.bytes),
            seconds: tally.elapsed.as_secs_f64(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio has 53 good bits at the most")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
