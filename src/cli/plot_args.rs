//! Reports and plots as files, for every command that simulates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use simulator::report::Report;

use super::error::CliError;

/// Files to write the results to, as pictures.
#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(super) struct PlotArgs {
    /// Write a report as one self-contained HTML file: curves, bars and tables
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the plots as an SVG file
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Write the plots as a PNG file
    #[arg(long, value_name = "FILE.png")]
    png: Option<PathBuf>,
}

impl PlotArgs {
    /// Whether the files can be written, as far as that can be told without writing them: a long simulation should not
    /// end with a misspelt folder.
    pub(super) fn check(&self) -> Result<(), CliError> {
        for path in [&self.report, &self.svg, &self.png].into_iter().flatten() {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::metadata(folder).map_err(CliError::write(path))?;
            if path.is_dir() {
                return Err(CliError::write(path)(io::ErrorKind::IsADirectory.into()));
            }
        }
        Ok(())
    }

    /// Writes the files that were asked for. Without any result, the files of an earlier run are left as they are.
    pub(super) fn write(&self, report: &Report<'_>) -> Result<(), CliError> {
        if report.results.is_empty() {
            return Ok(());
        }
        let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(CliError::write(path));
        if let Some(path) = &self.report {
            write(path, report.html().as_bytes())?;
        }
        if let Some(path) = &self.svg {
            write(path, report.svg().as_bytes())?;
        }
        if let Some(path) = &self.png {
            let png = report.png().map_err(|error| CliError::Incomplete(error.to_string()))?;
            write(path, &png)?;
        }
        Ok(())
    }
}
