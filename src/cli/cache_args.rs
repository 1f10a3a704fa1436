//! The caches to simulate and how, for every command that simulates.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use simulator::{Capacity, Mode, Progress, Runner};

use super::error::CliError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Every object takes one place
    Items,
    /// An object takes its size
    Bytes,
}

/// Everything about the simulated caches but their policies and capacities.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cache")]
pub(super) struct CacheArgs {
    /// What the capacity counts [default: bytes where a capacity has a unit, else items]
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
    /// Seconds of the trace's time after its insertion at which an object expires
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) ttl: Option<u32>,
    /// The seed of randomised policies; a server's is 0 unless configured
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Threads [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Do not complain about objects that are larger than the cache
    #[arg(long)]
    pub(super) allow_oversized: bool,
}

impl CacheArgs {
    /// What the capacities count: as it is said, or as their units imply.
    pub(super) fn mode(&self, capacities: &[Capacity]) -> Result<Mode, CliError> {
        let in_bytes = capacities.iter().find(|capacity| capacity.implied_mode() == Some(Mode::Bytes));
        let bare = capacities.iter().find(|capacity| matches!(capacity, Capacity::Count(_)));
        match (self.mode, in_bytes, bare) {
            (Some(ModeName::Items), Some(bytes), _) => {
                Err(CliError::Usage(format!("--capacity {bytes} is in bytes, but --mode is items")))
            }
            (None, Some(bytes), Some(bare)) => Err(CliError::Usage(format!(
                "--capacity {bare} may be objects, but {bytes} is in bytes: give it a unit, or say --mode bytes"
            ))),
            (Some(ModeName::Bytes), ..) | (None, Some(_), None) => Ok(Mode::Bytes),
            (Some(ModeName::Items) | None, None, _) => Ok(Mode::Items),
        }
    }

    /// The threads that simulate.
    pub(super) fn runner(&self, progress: &Arc<Progress>) -> Result<Runner, CliError> {
        Runner::new(self.jobs.unwrap_or(0).into(), Arc::clone(progress))
            .map_err(|error| CliError::Usage(format!("--jobs: {error}")))
    }
}
