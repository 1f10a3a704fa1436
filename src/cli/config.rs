//! `tiny-cache config`: looks at a configuration without serving.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output;
use super::serve::ServeArgs;

/// Check a configuration file, or show the effective configuration
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to do with a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    Check(CheckArgs),
    Show(ShowArgs),
}

/// Check a file and report every problem in it
#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 the file is good, 78 it is not.\n\n\
                  Example:\n  \
                  tiny-cache config check /etc/tiny-cache.toml")]
pub struct CheckArgs {
    /// The file
    pub file: PathBuf,
}

/// Show the effective configuration as TOML, with where each value came from
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  \
                  CACHE_MAX_ITEMS=5000 tiny-cache config show --config /etc/tiny-cache.toml --policy sieve")]
pub struct ShowArgs {
    /// The options that `serve` would get.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Checks or shows.
#[must_use]
pub fn run(args: &ConfigArgs) -> ExitCode {
    let action = match args.action {
        ConfigAction::Check(_) => "check",
        ConfigAction::Show(_) => "show",
    };
    output::complain(&format!("config {action}: not wired"));
    ExitCode::from(2)
}
