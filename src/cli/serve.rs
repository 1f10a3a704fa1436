//! `tiny-cache serve`: runs the server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output;

/// Run the server (the default command)
///
/// Settings come from the configuration file, then from the CACHE_* variables, then from these options; a later
/// one wins.
//
// The options are text here: the configuration reads them by the rules that it has for the file.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  \
                  tiny-cache serve\n  \
                  tiny-cache serve --config /etc/tiny-cache.toml\n  \
                  tiny-cache serve --listen unix:/run/tiny-cache.sock --policy sieve --max-memory 512MiB")]
pub struct ServeArgs {
    /// The configuration file; without one the defaults hold
    #[arg(long, value_name = "FILE", env = "TINY_CACHE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where to serve gRPC: host:port or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where to serve HTTP: host:port or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// The eviction policy; `tiny-cache policies` lists them
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// The most entries to hold: a number or "unlimited"
    #[arg(long, value_name = "COUNT")]
    pub max_items: Option<String>,
    /// The most memory to use for entries, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// How much to log: debug, info, warning, error or critical
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How to log: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Runs the server until it is told to stop.
#[must_use]
pub fn run(_args: &ServeArgs) -> ExitCode {
    output::complain("serve: not wired");
    ExitCode::from(2)
}
