//! `tiny-cache completions`: a script that teaches a shell our arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::error::CliError;
use super::{Cli, Outcome, output};

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  tiny-cache completions bash > /etc/bash_completion.d/tiny-cache\n  \
                  tiny-cache completions zsh > ~/.zfunc/_tiny-cache\n  \
                  tiny-cache completions fish > ~/.config/fish/completions/tiny-cache.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tiny-cache", &mut script);
    output::write(&script)?;
    Ok(Outcome::Done)
}
