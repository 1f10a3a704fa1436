//! `tiny-cache man`: manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::error::CliError;
use super::{Cli, Outcome, output};

/// Print a manual page, or write all of them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  tiny-cache man | man -l -\n  \
                  tiny-cache man set | man -l -\n  \
                  tiny-cache man --dir /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// The command to print the page of, such as "set" or "config check"
    command: Vec<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<Outcome, CliError> {
    // The pages are about the commands that clap would otherwise add while it parses, too.
    let mut root = Cli::command();
    root.build();
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(root, dir)
            .map_err(|source| CliError::Write { path: dir.clone(), source })?;
        return Ok(Outcome::Done);
    }
    let mut chosen = &root;
    for name in &args.command {
        chosen = chosen
            .find_subcommand(name)
            .ok_or_else(|| CliError::Usage(format!("there is no command {}", args.command.join(" "))))?;
    }
    // clap's own name of a nested command has spaces, a page's has dashes.
    let name = chosen.get_bin_name().unwrap_or(chosen.get_name()).replace(' ', "-");
    let mut page = Vec::new();
    Man::new(chosen.clone().name(name)).render(&mut page).map_err(CliError::StandardOutput)?;
    output::write(&page)?;
    Ok(Outcome::Done)
}
