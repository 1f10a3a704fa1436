//! Eviction policies: one file per policy, the structures they share, and the registry table.
//!
//! A policy is a plain single-threaded structure that implements [`engine::EvictionPolicy`] and is
//! described by [`Policy`]. Adding one takes one file here and one line in the registry; a policy
//! that lives outside this crate is registered through the server's or the simulator's builder.
//!
//! **Architecture invariant.** Policies know `engine` and serde (their options): no clock, no lock,
//! no I/O, no global randomness, no key and no value.

pub mod structures;

pub mod clock;
pub mod fifo;
pub mod lru;
pub mod sieve;
pub mod slru;
pub mod variant;

mod policy;
mod registry;
#[cfg(test)]
mod script;

pub use policy::{NoOptions, OptionDoc, OptionError, Policy, PolicyFactory};
pub use registry::{Configure, PolicyEntry, PolicyVisitor, REGISTRY, find, visit};
