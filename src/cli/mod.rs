//! The command line: one file per subcommand.
//!
//! Exit codes of every command: 0 done, 1 not found or not stored, 2 an error, told in one line on
//! standard error. `serve` and `config` add their own for a bad configuration.
//!
//! **Architecture invariant.** Client commands speak to a server over gRPC only, the way any other
//! client does; none of them reaches into the server's own modules.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::CliError;
use crate::server::Server;

mod cache_args;
mod client;
mod compare_and_set;
mod completions;
mod curve;
mod delete;
mod error;
mod get;
mod man;
mod output;
mod parse;
mod ping;
mod plot_args;
mod policies;
mod policy_args;
mod progress;
mod replay;
mod set;
mod set_if_absent;
mod simulate;
mod stats;
mod target;
mod trace_args;
mod value;

pub mod config;
pub mod serve;

/// A fast cache server for the sidecar or for a few services, and its client.
#[derive(Debug, Parser)]
#[command(
    name = "tiny-cache",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command, tiny-cache serves.\n\n\
                  Examples:\n  \
                  tiny-cache                                   serve on 127.0.0.1:50051 with the defaults\n  \
                  tiny-cache --config /etc/tiny-cache.toml     serve as the file says\n  \
                  tiny-cache set greeting hello --ttl 10m      store a value for ten minutes\n  \
                  tiny-cache get greeting                      print it\n\n\
                  Exit codes: 0 done, 1 not found or not stored, 2 an error, 78 a bad configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    SetIfAbsent(set_if_absent::SetIfAbsentArgs),
    CompareAndSet(compare_and_set::CompareAndSetArgs),
    Delete(delete::DeleteArgs),
    Stats(stats::StatsArgs),
    Ping(ping::PingArgs),
    Policies(policies::PoliciesArgs),
    Config(config::ConfigArgs),
    Replay(replay::ReplayArgs),
    Simulate(simulate::SimulateArgs),
    Curve(curve::CurveArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It did what was asked: exit code 0.
    Done,
    /// The key was not there, or the condition for storing did not hold: exit code 1.
    Negative,
}

/// Parses the process's arguments and runs the command, with the plug-ins that the server has.
#[must_use]
pub fn main(server: &Server) -> ExitCode {
    let cli = Cli::parse();
    let Some(command) = cli.command else { return serve::run(server, &cli.serve) };
    match command {
        Command::Serve(args) => serve::run(server, &args),
        Command::Config(args) => config::run(server, &args),
        Command::Get(args) => finish("get", get::run(&args)),
        Command::Set(args) => finish("set", set::run(&args)),
        Command::SetIfAbsent(args) => finish("set-if-absent", set_if_absent::run(&args)),
        Command::CompareAndSet(args) => finish("compare-and-set", compare_and_set::run(&args)),
        Command::Delete(args) => finish("delete", delete::run(&args)),
        Command::Stats(args) => finish("stats", stats::run(&args)),
        Command::Ping(args) => finish("ping", ping::run(&args)),
        Command::Policies(args) => finish("policies", policies::run(&args, &server.registry().policies)),
        Command::Replay(args) => finish("replay", replay::run(&args)),
        Command::Curve(args) => finish("curve", curve::run(&args, &server.registry().policies)),
        Command::Simulate(args) => finish("simulate", simulate::run(&args, &server.registry().policies)),
        Command::Completions(args) => finish("completions", completions::run(&args)),
        Command::Man(args) => finish("man", man::run(&args)),
    }
}

fn finish(command: &str, result: Result<Outcome, CliError>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::from(1),
        // Whoever read our output has had enough: `tiny-cache stats | head -1` did not fail.
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{command}: {error}"));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
