//! Options that several policies have.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::policy::OptionError;

/// Whose version of an algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// As its authors published it, or better.
    #[default]
    Published,
    /// As libCacheSim 0.3.5 does it, in every detail that changes a count: to compare results.
    Libcachesim,
}

/// An error unless the condition holds.
pub(crate) fn require(
    condition: bool,
    option: &'static str,
    found: impl Display,
    allowed: &'static str,
) -> Result<(), OptionError> {
    if condition { Ok(()) } else { Err(OptionError { option, found: found.to_string(), allowed }) }
}
