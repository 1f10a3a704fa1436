//! Trace-driven simulation of eviction policies, on the very code that the server runs.
//!
//! - [`trace`] reads recorded requests in several formats.
//! - [`Requests`] numbers their keys; [`Recording`] and [`Stream`] hand them out in blocks.
//! - [`Simulator`] makes a [`Simulation`] of a policy by its name; [`Replay`] is the loop.
//! - [`Runner`] runs many on one trace.
//! - [`optimum`] is what no policy can beat.
//! - [`curve`] estimates miss-ratio curves from samples.
//! - [`report`] shows results to people.
//!
//! **Architecture invariant.** This crate knows `engine` and `policies`: no network, no clock but to
//! measure itself, no command line.

mod advice;
mod capacity;
pub mod curve;
mod interner;
mod optimum;
mod replay;
pub mod report;
mod requests;
mod result;
mod run;
mod simulator;
pub mod trace;

pub use advice::{Advice, Choice, around};
pub use capacity::{Capacity, CapacityError};
pub use interner::Interner;
pub use optimum::{OPTIMUM, optimum};
pub use replay::{Cache, Mode, Replay, Simulation, Tally};
pub use requests::{BLOCK_REQUESTS, Block, Recording, Request, Requests, Stream, Survey};
pub use result::SimulationResult;
pub use run::{Job, Progress, Runner};
pub use simulator::{ChoiceError, PolicyChoice, Simulator};
