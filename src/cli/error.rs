//! What can go wrong in a command, each as the one line that its user reads.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use simulator::trace::TraceError;
use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments fit together for clap but not for us.
    #[error("{0}")]
    Usage(String),
    /// No connection, for the reason given.
    #[error("cannot connect to {target}: {reason}")]
    Connect { target: String, reason: String },
    /// The connection was there, the answer did not come.
    #[error("no answer from {target} within {timeout:?}")]
    Timeout { target: String, timeout: Duration },
    /// The server refused, or the connection broke.
    #[error("{}", describe(.0))]
    Call(Box<Status>),
    /// The server answered what this client does not know.
    #[error("{0}")]
    Answer(String),
    #[error("cannot read {}: {}", path.display(), os_reason(source))]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {}", path.display(), os_reason(source))]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: a token file has one token and nothing else", .0.display())]
    TokenFile(PathBuf),
    #[error("cannot read standard input: {}", os_reason(.0))]
    StandardInput(io::Error),
    #[error("cannot write to standard output: {}", os_reason(.0))]
    StandardOutput(io::Error),
    #[error("cannot start: {}", os_reason(.0))]
    Runtime(io::Error),
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A replay or simulation that did not go well or not to its end; the results are printed already.
    #[error("{0}")]
    Incomplete(String),
}

impl CliError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }

    /// Whether the reader of our standard output went away.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::StandardOutput(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A status as `RESOURCE_EXHAUSTED: value too large (request_id=…)`.
pub(super) fn describe(status: &Status) -> String {
    let mut text = format!("{}: ", code_name(status.code()));
    text.push_str(if status.message().is_empty() { "no details" } else { status.message() });
    if let Some(source) = status.source() {
        let reason = root_reason(source);
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
    }
    if let Some(id) = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok())
        && !text.contains("request_id=")
    {
        text.push_str(" (request_id=");
        text.push_str(id);
        text.push(')');
    }
    // One line, whatever the server put into its message.
    text.replace(|c: char| c.is_control(), " ")
}

/// The innermost cause, where the operating system or TLS says what really happened.
pub(super) fn root_reason(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    plain(&innermost.to_string())
}

/// An I/O error without its number: "connection refused", not "Connection refused (os error 111)".
pub(super) fn os_reason(error: &io::Error) -> String {
    plain(&error.to_string())
}

fn plain(text: &str) -> String {
    let text = text.split(" (os error ").next().unwrap_or(text);
    let mut rest = text.chars();
    match (rest.next(), text.chars().nth(1)) {
        // An abbreviation such as "DNS" keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(rest).collect(),
        _ => text.to_owned(),
    }
}

/// The code's name in the gRPC specification.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_with_its_request_id_once() {
        let mut status = Status::resource_exhausted("value too\nlarge");
        status.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
        assert_eq!(describe(&status), "RESOURCE_EXHAUSTED: value too large (request_id=abc)");

        let mut status = Status::internal("failed, request_id=abc");
        status.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
        assert_eq!(describe(&status), "INTERNAL: failed, request_id=abc");
    }

    #[test]
    fn a_reason_reads_as_part_of_a_sentence() {
        assert_eq!(os_reason(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(plain("DNS failed"), "DNS failed");
    }
}
