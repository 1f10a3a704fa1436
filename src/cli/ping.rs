//! `tiny-cache ping`: whether a server serves.

use std::time::Instant;

use clap::Args;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat};

/// Ask a server whether it serves
///
/// Calls grpc.health.v1.Health/Check and prints the round trip, which does not include connecting.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 serving, 2 not serving or not reachable.\n\n\
                  Examples:\n  \
                  tiny-cache ping\n  \
                  tiny-cache ping --target https://cache.internal:50051 --tls-ca ca.pem --timeout 500ms")]
pub(super) struct PingArgs {
    /// The service to ask about; "" is the server as a whole
    #[arg(long, value_name = "NAME", default_value = "cache.CacheService")]
    service: String,
    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &PingArgs) -> Result<Outcome, CliError> {
    let (status, round_trip, target) = args.client.run(|connection| async move {
        let request = connection.request(HealthCheckRequest { service: args.service.clone() });
        let mut health = HealthClient::new(connection.channel());
        let started = Instant::now();
        let answer = connection.finish(health.check(request)).await?;
        Ok((answer.status(), started.elapsed(), connection.target().to_string()))
    })?;
    if status != ServingStatus::Serving {
        return Err(CliError::Answer(format!("{target} answers {}", status.as_str_name())));
    }
    match args.output {
        OutputFormat::Text => {
            output::line(&format!("SERVING {target} {:.3} ms", round_trip.as_secs_f64() * 1e3))?;
        }
        OutputFormat::Json => output::json(&json!({
            "status": status.as_str_name(),
            "target": target,
            "round_trip_seconds": round_trip.as_secs_f64(),
        }))?,
    }
    Ok(Outcome::Done)
}
