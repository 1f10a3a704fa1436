//! `tiny-cache delete`: removes a key.

use clap::Args;

use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat};
use super::{Outcome, set};
use crate::proto::CacheKey;

/// Remove a key
///
/// Prints OK whether the key was there or not.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 the key is gone, 2 an error.\n\n\
                  Examples:\n  \
                  tiny-cache delete greeting\n  \
                  tiny-cache delete session:42 --namespace web")]
pub(super) struct DeleteArgs {
    /// The key
    key: String,
    /// How to print the status
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &DeleteArgs) -> Result<Outcome, CliError> {
    let answer = args.client.run(|connection| async move {
        let request = connection.request(CacheKey { key: args.key.clone() });
        connection.finish(connection.cache().delete(request)).await
    })?;
    set::expect_ok(answer.status())?;
    output::status(args.output, &args.key, "OK")?;
    Ok(Outcome::Done)
}
