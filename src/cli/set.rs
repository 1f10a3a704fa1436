//! `tiny-cache set`: stores a value.

use clap::Args;

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat};
use super::parse;
use super::value::ValueArgs;
use crate::proto::{CacheItem, CacheStatus};

/// Store a value, replacing what was there
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 stored, 2 an error.\n\n\
                  Examples:\n  \
                  tiny-cache set greeting hello --ttl 10m\n  \
                  tiny-cache set picture --value-file picture.png\n  \
                  date | tiny-cache set now --target unix:/run/tiny-cache.sock\n  \
                  tiny-cache set dash -- --a-value-that-starts-with-dashes")]
pub(super) struct SetArgs {
    #[command(flatten)]
    item: ItemArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What `set` and `set-if-absent` store, and how they report it.
#[derive(Args, Clone, Debug)]
pub(super) struct ItemArgs {
    /// The key
    pub(super) key: String,
    #[command(flatten)]
    pub(super) value: ValueArgs,
    /// Time to live, in seconds or as a duration (60, 10m, 1h30m); 0: never expires
    #[arg(long, default_value = "0", value_parser = parse::ttl_seconds, allow_negative_numbers = true)]
    pub(super) ttl: i32,
    /// How to print the status
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: OutputFormat,
}

impl ItemArgs {
    /// The item, its value read from wherever it comes from.
    pub(super) fn read(&self) -> Result<CacheItem, CliError> {
        Ok(CacheItem { key: self.key.clone(), value: self.value.clone().read()?, ttl: self.ttl })
    }
}

pub(super) fn run(args: &SetArgs) -> Result<Outcome, CliError> {
    let item = args.item.read()?;
    let answer = args.client.run(|connection| async move {
        connection.finish(connection.cache().set(connection.request(item))).await
    })?;
    expect_ok(answer.status())?;
    output::status(args.item.output, &args.item.key, "OK")?;
    Ok(Outcome::Done)
}

/// The status of an unconditional write, which is OK where the call succeeded.
pub(super) fn expect_ok(status: CacheStatus) -> Result<(), CliError> {
    match status {
        CacheStatus::Ok => Ok(()),
        other => Err(CliError::Answer(format!("the server answered {}", other.as_str_name()))),
    }
}
