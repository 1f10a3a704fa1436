//! `tiny-cache get`: prints the value of a key.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use clap::Args;
use data_encoding::BASE64;
use serde_json::json;

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat};
use crate::proto::CacheKey;

/// Print the value of a key
///
/// Into a pipe or a file go the bytes as they are, with nothing added. A terminal gets text and a newline, or a
/// hex dump where the value is not printable text.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 found, 1 not found, 2 an error.\n\n\
                  Examples:\n  \
                  tiny-cache get greeting\n  \
                  tiny-cache get picture > picture.png\n  \
                  tiny-cache get greeting --namespace web --output json")]
pub(super) struct GetArgs {
    /// The key
    key: String,
    /// How to print; in JSON the value is in base64
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &GetArgs) -> Result<Outcome, CliError> {
    let answer = args.client.run(|connection| async move {
        let request = connection.request(CacheKey { key: args.key.clone() });
        connection.finish(connection.cache().get(request)).await
    })?;
    match args.output {
        OutputFormat::Json => {
            let value = answer.found.then(|| BASE64.encode(&answer.value));
            output::json(&json!({ "key": args.key, "found": answer.found, "value": value }))?;
        }
        OutputFormat::Text if !answer.found => output::complain("get: not found"),
        OutputFormat::Text if io::stdout().is_terminal() => output::line(&for_terminal(&answer.value))?,
        OutputFormat::Text => output::write(&answer.value)?,
    }
    Ok(if answer.found { Outcome::Done } else { Outcome::Negative })
}

/// Text as it is, anything that could upset a terminal as a hex dump.
fn for_terminal(value: &[u8]) -> String {
    match str::from_utf8(value) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.to_owned(),
        _ => hex_dump(value),
    }
}

fn hex_dump(value: &[u8]) -> String {
    let rows: Vec<String> = value
        .chunks(16)
        .enumerate()
        .map(|(row, bytes)| {
            let mut hex = String::new();
            for byte in bytes {
                write!(hex, "{byte:02x} ").expect("a String takes whatever is written to it");
            }
            let text: String = bytes
                .iter()
                .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
                .collect();
            format!("{:08x}  {hex:48} |{text}|", row * 16)
        })
        .collect();
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_or_a_hex_dump() {
        assert_eq!(for_terminal("grüße\n".as_bytes()), "grüße\n");
        assert_eq!(for_terminal(b""), "");
        let escape = for_terminal(b"\x1b[2Jabc");
        assert_eq!(escape, format!("00000000  {:48} |.[2Jabc|", "1b 5b 32 4a 61 62 63 "));
        assert_eq!(for_terminal(&[0xff; 17]).lines().count(), 2);
    }
}
