//! `tiny-cache config`: looks at a configuration without serving.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output;
use super::serve::ServeArgs;
use crate::config::{EX_CONFIG, Loader, Sources};
use crate::server::Server;

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
    /// Check a file and report every problem in it
    Check(CheckArgs),
    /// Show the effective configuration as TOML, with where each value came from
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
pub fn run(server: &Server, args: &ConfigArgs) -> ExitCode {
    match &args.action {
        ConfigAction::Check(args) => check(server, args),
        ConfigAction::Show(args) => show(server, args),
    }
}

fn check(server: &Server, args: &CheckArgs) -> ExitCode {
    let registry = server.registry();
    let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
    match loader.load(&Sources::file(&args.file)) {
        Ok(_) => print(&format!("{}: good\n", args.file.display())),
        Err(errors) => {
            output::complain_all(&errors);
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn show(server: &Server, args: &ShowArgs) -> ExitCode {
    match args.serve.load(server) {
        Ok(loaded) => print(&loaded.effective.to_toml()),
        Err(code) => code,
    }
}

fn print(text: &str) -> ExitCode {
    match output::write(text.as_bytes()) {
        Err(error) if !error.is_closed_pipe() => {
            output::complain(&format!("config: {error}"));
            ExitCode::from(2)
        }
        _ => ExitCode::SUCCESS,
    }
}
