//! Miss-ratio curves.
use crate::Mode;

/// A capacity and what it gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// In objects or bytes, as the mode says.
    pub capacity: u64,
    /// Expected miss ratio.
    pub miss_ratio: f64,
}

/// What half, the same and double the memory would give with one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// The trace's name.
    pub trace: String,
    /// What capacities count.
    pub mode: Mode,
    /// The policy.
    pub policy: String,
    /// Half the current capacity.
    pub half: Choice,
    /// The current capacity.
    pub same: Choice,
    /// Double the current capacity.
    pub double: Choice,
}

impl Advice {
    /// How many more or fewer misses another choice gives: "-12.3 % misses".
    #[must_use]
    pub fn change(&self, choice: Choice) -> String {
        if self.same.miss_ratio <= 0.0 {
            return "–".to_owned();
        }
        let percent = (choice.miss_ratio / self.same.miss_ratio - 1.0) * 100.0;
        format!("{percent:+.1} % misses")
    }
}
