//! What is wrong with a configuration: every problem, each with its place, what was found there
//! and what is allowed.

use std::fmt;

use super::origin::Origin;

/// The process's exit code when its configuration is wrong: `EX_CONFIG` of sysexits.h.
pub const EX_CONFIG: u8 = 78;

/// Everything that is wrong with a configuration, in the order of its layers and lines.
#[derive(Debug)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self(problems)
    }

    /// The problems; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

/// One line per problem.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong. Displays as one line that begins with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where to look.
    pub place: Origin,
    /// The key's full name, such as `store.max_items`; empty where the problem is not about one.
    pub key: String,
    /// What is the matter.
    pub complaint: Complaint,
}

/// What is the matter with a key, a variable, a flag or a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The file cannot be read.
    #[error("cannot read the configuration: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// There is no such key, table or policy.
    #[error("unknown {what}{}", did_you_mean(suggestion.as_deref()))]
    Unknown {
        /// "key", "table", "policy" or "option".
        what: &'static str,
        /// The nearest valid name, where there is one near.
        suggestion: Option<String>,
    },
    /// The value is of the wrong type or out of range.
    #[error("found {found}, allowed: {allowed}{}", did_you_mean(suggestion.as_deref()))]
    Value {
        /// As it was written.
        found: String,
        /// In words.
        allowed: String,
        /// The nearest valid name, where there is one near.
        suggestion: Option<String>,
    },
    /// A value that something else asks for is absent.
    #[error("missing; {0}")]
    Missing(String),
    /// The value does not go together with another one.
    #[error("found {found}, {conflict}")]
    Conflict {
        /// As it was written.
        found: String,
        /// With what, and why.
        conflict: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Origin::Default => write!(f, "{}: {}", self.key, self.complaint),
            Origin::File { .. } if !self.key.is_empty() => {
                write!(f, "{}: {}: {}", self.place, self.key, self.complaint)
            }
            place => write!(f, "{place}: {}", self.complaint),
        }
    }
}

/// The valid name that was most likely meant, if one is near enough.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    // Names are short; a word that is not is compared with nothing, which bounds the work.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name.to_owned())
}
