//! Where a value comes from: the command line, a file, or standard input.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};

use super::error::CliError;

/// A value, from exactly one source; with none given, from standard input.
#[derive(Args, Clone, Debug)]
pub(super) struct ValueArgs {
    /// The value as text; "-" or nothing reads standard input
    #[arg(allow_negative_numbers = true, conflicts_with = "EncodedValueArgs")]
    value: Option<OsString>,
    #[command(flatten)]
    encoded: EncodedValueArgs,
}

/// The ways to give a value other than as text.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
#[expect(clippy::struct_field_names, reason = "the fields are the names of the options")]
pub(super) struct EncodedValueArgs {
    /// Read the value from this file
    #[arg(long, value_name = "PATH")]
    value_file: Option<PathBuf>,
    /// The value in base64
    #[arg(long, value_name = "TEXT")]
    value_base64: Option<String>,
    /// The value in hexadecimal
    #[arg(long, value_name = "DIGITS")]
    value_hex: Option<String>,
}

impl ValueArgs {
    /// The value's bytes.
    pub(super) fn read(self) -> Result<Bytes, CliError> {
        let source = match self.value {
            Some(text) => Some(Source::text(text)),
            None => self.encoded.source(),
        };
        source.unwrap_or(Source::StandardInput).read("value")
    }
}

impl EncodedValueArgs {
    /// The source that was given, if one was.
    pub(super) fn source(self) -> Option<Source> {
        Source::of_options(self.value_file, self.value_base64, self.value_hex)
    }
}

/// One place to take bytes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Text(OsString),
    File(PathBuf),
    Base64(String),
    Hex(String),
    StandardInput,
}

impl Source {
    /// What a positional argument means.
    pub(super) fn text(text: OsString) -> Self {
        if text == "-" { Self::StandardInput } else { Self::Text(text) }
    }

    /// The one option that is set; clap has seen to it that there is no second.
    pub(super) fn of_options(
        file: Option<PathBuf>,
        base64: Option<String>,
        hex: Option<String>,
    ) -> Option<Self> {
        file.map(Self::File).or_else(|| base64.map(Self::Base64)).or_else(|| hex.map(Self::Hex))
    }

    /// Takes the bytes. `what` names them in errors: "value", "expected value".
    pub(super) fn read(self, what: &str) -> Result<Bytes, CliError> {
        let malformed = |encoding: &str, error: data_encoding::DecodeError| {
            CliError::Usage(format!("the {what} is not {encoding}: {error}"))
        };
        match self {
            Self::Text(text) => Ok(text.into_vec().into()),
            Self::File(path) => read_file(&path),
            Self::Base64(text) => {
                let text = text.trim().as_bytes();
                let encoding = if text.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
                encoding.decode(text).map(Bytes::from).map_err(|error| malformed("base64", error))
            }
            Self::Hex(text) => HEXLOWER_PERMISSIVE
                .decode(text.trim().as_bytes())
                .map(Bytes::from)
                .map_err(|error| malformed("hexadecimal", error)),
            Self::StandardInput => read_standard_input(what),
        }
    }
}

fn read_file(path: &Path) -> Result<Bytes, CliError> {
    std::fs::read(path).map(Bytes::from).map_err(CliError::read(path))
}

fn read_standard_input(what: &str) -> Result<Bytes, CliError> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        super::output::complain(&format!("reading the {what} from the terminal; Ctrl-D ends it"));
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(CliError::StandardInput)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_values_are_decoded_or_refused() {
        for text in ["aGk=", "aGk", " aGk=\n"] {
            assert_eq!(Source::Base64(text.to_owned()).read("value").unwrap(), "hi", "{text}");
        }
        assert_eq!(Source::Hex("6869".to_owned()).read("value").unwrap(), "hi");
        assert_eq!(Source::Hex("fF".to_owned()).read("value").unwrap(), &b"\xff"[..]);
        for source in
            [Source::Base64("!".to_owned()), Source::Hex("6".to_owned()), Source::Hex("zz".to_owned())]
        {
            let error = source.read("value").unwrap_err().to_string();
            assert!(error.starts_with("the value is not "), "{error}");
        }
    }

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!(Source::text("-".into()), Source::StandardInput);
        assert_eq!(Source::text("--".into()), Source::Text("--".into()));
    }
}
