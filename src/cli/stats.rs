//! `tiny-cache stats`: what a server counts.

use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::client::ClientArgs;
use super::error::CliError;
use super::output::{self, OutputFormat, grouped};
use crate::proto::{CacheStats, Empty};

/// Show a server's counters, limits and memory use
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  tiny-cache stats\n  \
                  tiny-cache stats --output json | jq .hit_rate")]
pub(super) struct StatsArgs {
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help = "How to print; JSON has every field of CacheStats by its name"
    )]
    output: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &StatsArgs) -> Result<Outcome, CliError> {
    let stats = args.client.run(|connection| async move {
        connection.finish(connection.cache().stats(connection.request(Empty {}))).await
    })?;
    match args.output {
        OutputFormat::Text => output::write(as_text(&stats).as_bytes())?,
        OutputFormat::Json => output::json(&as_json(&stats))?,
    }
    Ok(Outcome::Done)
}

fn as_text(stats: &CacheStats) -> String {
    // The Python server has the 32-bit counters only, and no names.
    let extended = !stats.policy.is_empty();
    let count =
        |wide: u64, narrow: i32| grouped(if extended { wide } else { u64::try_from(narrow).unwrap_or(0) });
    let bytes = |amount: i64| format!("{} bytes", grouped(u64::try_from(amount).unwrap_or(0)));
    let max_items = match stats.max_entries {
        u64::MAX if extended => "no limit".to_owned(),
        limit => count(limit, stats.max_items),
    };
    let mut rows = Vec::new();
    if extended {
        rows.push(("policy", stats.policy.clone()));
        rows.push(("store", format!("{} (shards: {})", stats.store, stats.shards)));
    }
    rows.extend([
        ("entries", count(stats.entries, stats.size)),
        ("max entries", max_items),
        ("memory", bytes(stats.memory_usage_bytes)),
        ("max memory", bytes(stats.max_memory_bytes)),
        ("max value", bytes(stats.max_value_bytes)),
        ("hits", count(stats.hits_total, stats.hits)),
        ("misses", count(stats.misses_total, stats.misses)),
        ("hit rate", format!("{:.4}", stats.hit_rate)),
        ("evictions", count(stats.evictions_total, stats.evictions)),
        ("expired", count(stats.expired_removals_total, stats.expired_removals)),
        ("rejected, too large", count(stats.rejected_oversize_total, stats.rejected_oversize)),
        ("rejected, no room", count(stats.rejected_capacity_total, stats.rejected_capacity)),
    ]);
    if extended {
        rows.push(("rejected by policy", grouped(stats.rejected_admission_total)));
    }
    output::table(&rows)
}

fn as_json(stats: &CacheStats) -> Value {
    json!({
        "size": stats.size,
        "hits": stats.hits,
        "misses": stats.misses,
        "evictions": stats.evictions,
        "hit_rate": stats.hit_rate,
        "memory_usage_bytes": stats.memory_usage_bytes,
        "max_memory_bytes": stats.max_memory_bytes,
        "max_items": stats.max_items,
        "max_value_bytes": stats.max_value_bytes,
        "lru_evictions": stats.lru_evictions,
        "expired_removals": stats.expired_removals,
        "rejected_oversize": stats.rejected_oversize,
        "rejected_capacity": stats.rejected_capacity,
        "entries": stats.entries,
        "hits_total": stats.hits_total,
        "misses_total": stats.misses_total,
        "evictions_total": stats.evictions_total,
        "expired_removals_total": stats.expired_removals_total,
        "rejected_oversize_total": stats.rejected_oversize_total,
        "rejected_capacity_total": stats.rejected_capacity_total,
        "rejected_admission_total": stats.rejected_admission_total,
        "max_entries": stats.max_entries,
        "policy": stats.policy,
        "store": stats.store,
        "shards": stats.shards,
    })
}
