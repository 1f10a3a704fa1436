//! Where a value came from.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The layer that a value was set in. Later layers override earlier ones, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the configuration file.
    File {
        /// The file's name as it was given.
        name: Arc<str>,
        /// Counted from 1; 0 stands for the file as a whole.
        line: usize,
    },
    /// One or more environment variables, by name.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
}

impl Origin {
    pub(super) fn line(name: &Arc<str>, line: usize) -> Self {
        Self::File { name: Arc::clone(name), line }
    }
}

/// A path on one line, whatever it contains: messages and comments stay lines.
pub(super) fn one_line(path: &Path) -> Arc<str> {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>().into()
}

/// As a place: `FILE:LINE`, a variable's name, a flag.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line: 0 } => f.write_str(name),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}
