//! What a policy says about itself, and how one is built from its options.

use std::fmt;

use engine::{EvictionPolicy, WeighBy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One option of a policy, for `tiny-cache policies` and the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// The key under `[eviction.<policy>]`.
    pub name: &'static str,
    /// What may stand there, such as "0.0 to 1.0".
    pub allowed: &'static str,
    /// One line on what it does.
    pub meaning: &'static str,
}

/// An option with a value that its policy cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} = {found}: allowed is {allowed}")]
pub struct OptionError {
    /// The option's name.
    pub option: &'static str,
    /// The value as found.
    pub found: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// A policy together with its name, its story and its options.
pub trait Policy: EvictionPolicy + Sized + 'static {
    /// The name in configuration files: lower case, words joined by hyphens.
    const NAME: &'static str;
    /// One line: what leaves first.
    const SUMMARY: &'static str;
    /// Where it was published: authors, title, venue, year; "folklore" where nobody knows.
    const PAPER: &'static str;
    /// Every option, in the order of [`Self::Options`]'s fields.
    const OPTIONS: &'static [OptionDoc];

    /// Bytes of metadata per resident entry at the default options, the ghosts' share included, where every weight is 1.
    const BYTES_PER_ENTRY: usize;

    /// The same where weights are bytes. More for who keeps the weights, or has more ghosts then.
    const BYTES_PER_WEIGHED_ENTRY: usize = Self::BYTES_PER_ENTRY;

    /// Whether a small cache on a sample of the objects behaves as the whole one does on all. Not so where newcomers to a
    /// full cache push each other out of a single place, however large it is: until the next one comes, they stay longer
    /// in a sample. Miniature simulations then take more of the objects.
    const SCALES_DOWN: bool = true;

    /// Typed options; the default is what the authors recommend or what measures better.
    type Options: Default + Clone + fmt::Debug + DeserializeOwned + Serialize + Send + Sync + 'static;

    /// Checks the options' values, as far as their types do not.
    fn validate(options: &Self::Options) -> Result<(), OptionError> {
        let _ = options;
        Ok(())
    }

    /// An empty policy for a capacity in units of [`Item::weight`](engine::Item::weight). All
    /// randomness follows from the seed.
    fn new(capacity: u64, seed: u64, options: &Self::Options) -> Self;
}

/// A chosen policy with checked options: builds one structure per shard.
pub trait PolicyFactory: Send + Sync + fmt::Debug {
    /// An empty policy; see [`Policy::new`].
    fn build(&self, capacity: u64, seed: u64) -> Box<dyn EvictionPolicy>;

    /// Bytes of metadata per resident entry, for a policy that counts in this unit: [`Policy::BYTES_PER_ENTRY`] or
    /// [`Policy::BYTES_PER_WEIGHED_ENTRY`].
    fn bytes_per_entry(&self, weigh_by: WeighBy) -> usize;

    /// The options, defaults included, to be shown as part of the effective configuration.
    fn options(&self) -> &dyn erased_serde::Serialize;
}

/// The options of a policy that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}
