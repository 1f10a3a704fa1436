//! `tiny-cache serve`: runs the server.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::runtime::Builder;

use super::output;
use crate::config::{Config, EX_CONFIG, Loaded, Loader, Override, Sources, UnreadVariables};
use crate::lifecycle::{self, Signals};
use crate::server::reload::{ConfigSource, Reloader};
use crate::server::{Server, StartError};
use crate::telemetry::logs::{self, LogError};
use crate::telemetry::otlp::{Otlp, OtlpError};

/// Run the server (the default command)
///
/// Settings come from the configuration file, then from the CACHE_* variables, then from these options; a later
/// one wins.
//
// The options are text here: the configuration reads them by the rules that it has for the file.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  \
                  tiny-cache serve\n  \
                  tiny-cache serve --config /etc/tiny-cache.toml\n  \
                  tiny-cache serve --listen unix:/run/tiny-cache.sock --policy sieve --max-memory 512MiB")]
pub struct ServeArgs {
    /// `--config`
    #[arg(
        long,
        value_name = "FILE",
        help = "The configuration file [default: $TINY_CACHE_CONFIG, else the built-in defaults]"
    )]
    pub config: Option<PathBuf>,
    /// `--listen`
    #[arg(long, value_name = "ADDRESS", help = "Where to serve gRPC: host:port or unix:/path")]
    pub listen: Option<String>,
    /// `--http-listen`
    #[arg(long, value_name = "ADDRESS", help = "Where to serve HTTP: host:port or unix:/path")]
    pub http_listen: Option<String>,
    /// The eviction policy: one that the command "policies" lists
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// The most entries to hold: a number or "unlimited"
    #[arg(long, value_name = "COUNT")]
    pub max_items: Option<String>,
    /// The most memory to use for entries, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// How much to log: debug, info, warning, error or critical
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How to log: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ServeArgs {
    fn overrides(&self) -> Vec<Override> {
        let given = |option: &Option<String>, layer: fn(String) -> Override| option.clone().map(layer);
        [
            given(&self.listen, Override::Listen),
            given(&self.http_listen, Override::HttpListen),
            given(&self.policy, Override::Policy),
            given(&self.max_items, Override::MaxItems),
            given(&self.max_memory, Override::MaxMemory),
            given(&self.log_level, Override::LogLevel),
            given(&self.log_format, Override::LogFormat),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The configuration that these options, the environment and the file amount to. What is wrong
    /// with it is told on standard error.
    pub(super) fn load(&self, server: &Server) -> Result<Loaded, ExitCode> {
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let sources = Sources {
            file: self.config.clone(),
            environment: &|name| env::var_os(name),
            overrides: &self.overrides(),
        };
        loader.load(&sources).map_err(|errors| {
            output::complain_all(&errors);
            ExitCode::from(EX_CONFIG)
        })
    }
}

/// Runs the server until it is told to stop.
#[must_use]
pub fn run(server: &Server, args: &ServeArgs) -> ExitCode {
    let loaded = match args.load(server) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    match start(server, args, loaded) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Why the process could not begin to serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot set up logging: {0}")]
    Log(#[from] LogError),
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Telemetry(#[from] OtlpError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Files that are open beside connections: listeners, standard streams, certificates, the runtime's own.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit on open files as far as the hard one allows: it is often 1024, for the sake of
/// programs that use `select(2)`. Where that is still too little for the connections configured, whoever
/// looks after the server is told.
fn allow_connections(config: &Config) {
    let of_each = config.transports.iter().map(|transport| transport.connections.max_connections as u64);
    let wanted = of_each.fold(OTHER_FILES, u64::saturating_add);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(allowed) if allowed < wanted => {
            tracing::warn!(
                allowed,
                wanted,
                "fewer open files are allowed than max_connections of all transports may need"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
}

/// Tells which variables have no effect, though they begin as those that have one.
fn warn_of_unread_variables() {
    let UnreadVariables { unknown, services } = UnreadVariables::among(env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        let variables = unknown.join(", ");
        tracing::warn!(variables, "variables that set nothing: there are none of these names");
    }
    if !services.is_empty() {
        let variables = services.join(", ");
        tracing::info!(
            variables,
            "variables that Kubernetes makes for services of these names are passed over; \
             \"enableServiceLinks: false\" in the pod's specification leaves them out"
        );
    }
}

/// How many tasks a thread that has enough to do polls before it asks the system for news, such as a new connection. Each may
/// take as long as a large batch; asking costs less than a microsecond.
const EVENT_INTERVAL: u32 = 16;

/// How many threads there may be beside those that serve: for sweeps, for messages that are unpacked, and for writes that many
/// entries have to leave for, which wait for each other. tokio would have 512, and the memory for their stacks is nobody's.
const BLOCKING_THREADS: usize = 64;

fn start(server: &Server, args: &ServeArgs, loaded: Loaded) -> Result<ExitCode, ServeError> {
    let config = &loaded.config.clone();
    let otlp = Arc::new(Otlp::start(&config.telemetry.otlp)?);
    let exports = Arc::clone(otlp.exports());
    // To the end, which may be one for want of threads or ports.
    let (log, _flush_at_end) = logs::init(&config.telemetry, otlp.log_bridge(), exports)?;
    warn_of_unread_variables();
    let mut runtime = Builder::new_multi_thread();
    if let Some(threads) = config.server.worker_threads {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().event_interval(EVENT_INTERVAL).max_blocking_threads(BLOCKING_THREADS);
    let runtime = runtime.build().map_err(ServeError::Threads)?;
    let code = runtime.block_on(async {
        // Before anything is bound: a signal that comes early is not to be lost.
        let signals = Signals::listen().map_err(ServeError::Signals)?;
        let bound = server.bind_exporting(config, otlp)?;
        allow_connections(config);
        let source = loaded.file.clone().map(|file| ConfigSource { file, overrides: args.overrides() });
        let reloader = source.map(|source| Reloader::new(server, source, loaded, &bound, log));
        let configuration = reloader.map(Reloader::watch).transpose().map_err(ServeError::Threads)?;
        Ok(lifecycle::run(bound, signals, configuration).await)
    });
    // A sweep that still runs is not worth waiting for.
    runtime.shutdown_background();
    code
}
