//! The option `variant`, alike in every policy whose reference implementation decides otherwise.

use serde::{Deserialize, Serialize};

use crate::policy::OptionDoc;

/// Whose decisions a policy reproduces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The published algorithm, with the improvements that the policy's head comment lists.
    #[default]
    Published,
    /// The simulator libCacheSim (0.3.5), in every detail that changes a count.
    Libcachesim,
}

/// The option's documentation.
pub(crate) const VARIANT: OptionDoc = OptionDoc {
    name: "variant",
    allowed: "\"published\" or \"libcachesim\"",
    meaning: "the published algorithm, or libCacheSim's in every detail that changes a count",
};
