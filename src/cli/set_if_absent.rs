//! `tiny-cache set-if-absent`: stores a value where there is none.

use clap::Args;

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat};
use super::set::ItemArgs;
use crate::proto::ConditionalCacheStatus;

/// Store a value where the key is missing or expired
///
/// Prints STORED or EXISTS.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 stored, 1 the key exists, 2 an error.\n\n\
                  Examples:\n  \
                  tiny-cache set-if-absent lock:report \"$HOSTNAME\" --ttl 30 && make-report\n  \
                  tiny-cache set-if-absent config --value-file config.json")]
pub(super) struct SetIfAbsentArgs {
    #[command(flatten)]
    item: ItemArgs,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &SetIfAbsentArgs) -> Result<Outcome, CliError> {
    let item = args.item.read()?;
    let answer = args.client.run(|connection| async move {
        connection.finish(connection.cache().set_if_absent(connection.request(item))).await
    })?;
    report(args.item.output, &args.item.key, answer.status())
}

/// Prints what became of a conditional write.
pub(super) fn report(
    format: OutputFormat,
    key: &str,
    status: ConditionalCacheStatus,
) -> Result<Outcome, CliError> {
    let outcome = match status {
        ConditionalCacheStatus::Stored => Outcome::Done,
        ConditionalCacheStatus::Exists
        | ConditionalCacheStatus::NotFound
        | ConditionalCacheStatus::Mismatch => Outcome::Negative,
        ConditionalCacheStatus::Unspecified => {
            return Err(CliError::Answer("the server answered with no status that is known here".to_owned()));
        }
    };
    output::status(format, key, status.as_str_name())?;
    Ok(outcome)
}
