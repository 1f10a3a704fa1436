//! `tiny-cache compare-and-set`: replaces a value that is still the expected one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::OutputFormat;
use super::value::{EncodedValueArgs, Source};
use super::{parse, set_if_absent};
use crate::proto::CompareAndSetRequest;

/// Replace a value that is still the expected one
#[derive(Args, Debug)]
#[command(
    override_usage = "tiny-cache compare-and-set [OPTIONS] <KEY> [EXPECTED] [VALUE]",
    long_about = "Replace a value that is still the expected one\n\n\
                  Prints STORED, NOT_FOUND or MISMATCH. With one of the --expected options, the one text after the \
                  key is the new value. A new value that is not given is read from standard input.",
    after_help = "Exit codes: 0 stored, 1 not found or another value, 2 an error.\n\n\
                  Examples:\n  \
                  tiny-cache compare-and-set counter 41 42\n  \
                  tiny-cache compare-and-set config --expected-file old.json --value-file new.json"
)]
pub(super) struct CompareAndSetArgs {
    /// The key
    key: String,
    /// The expected and the new value as text; "-" reads standard input
    #[arg(num_args = 0..=2, value_names = ["EXPECTED", "VALUE"], allow_negative_numbers = true)]
    texts: Vec<OsString>,
    #[command(flatten)]
    expected: ExpectedArgs,
    #[command(flatten)]
    value: EncodedValueArgs,
    /// Time to live of the new value, in seconds or as a duration (60, 10m); 0: never expires
    #[arg(long, default_value = "0", value_parser = parse::ttl_seconds, allow_negative_numbers = true)]
    ttl: i32,
    /// How to print the status
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
#[expect(clippy::struct_field_names, reason = "the fields are the names of the options")]
struct ExpectedArgs {
    /// Read the expected value from this file
    #[arg(long, value_name = "PATH")]
    expected_file: Option<PathBuf>,
    /// The expected value in base64
    #[arg(long, value_name = "TEXT")]
    expected_base64: Option<String>,
    /// The expected value in hexadecimal
    #[arg(long, value_name = "DIGITS")]
    expected_hex: Option<String>,
}

pub(super) fn run(args: &CompareAndSetArgs) -> Result<Outcome, CliError> {
    let (expected, value) = sources(args)?;
    let request = CompareAndSetRequest {
        key: args.key.clone(),
        expected_value: expected.read("expected value")?,
        value: value.read("value")?,
        ttl: args.ttl,
    };
    let answer = args.client.run(|connection| async move {
        connection.finish(connection.cache().compare_and_set(connection.request(request))).await
    })?;
    set_if_absent::report(args.output, &args.key, answer.status())
}

/// Which source is the expected value's and which the new one's.
fn sources(args: &CompareAndSetArgs) -> Result<(Source, Source), CliError> {
    let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
    let ExpectedArgs { expected_file, expected_base64, expected_hex } = args.expected.clone();
    let mut texts = args.texts.iter().cloned().map(Source::text);
    let Some(expected) =
        Source::of_options(expected_file, expected_base64, expected_hex).or_else(|| texts.next())
    else {
        return usage("no expected value: give it after the key, or by --expected-file, -base64 or -hex");
    };
    let value = match (texts.next(), args.value.clone().source()) {
        (Some(_), Some(_)) => return usage("two new values: give a text or a --value option, not both"),
        (text, option) => text.or(option).unwrap_or(Source::StandardInput),
    };
    if texts.next().is_some() {
        return usage("two expected values: give a text or an --expected option, not both");
    }
    if expected == Source::StandardInput && value == Source::StandardInput {
        return usage("only one of the expected and the new value can come from standard input");
    }
    Ok((expected, value))
}
