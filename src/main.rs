//! The binary: parses the command line and runs the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tiny_cache::cli::main(&tiny_cache::server::Server::builder())
}
