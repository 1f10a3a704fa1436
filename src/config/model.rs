//! The configuration as the rest of the server sees it: typed, checked, complete.
//!
//! Nothing here is a string that still has to be understood, and nothing here can be out of range:
//! the loader has seen to that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::WeighBy;
use policies::PolicyFactory;

use super::access::{AuthConfig, ClientIdentity, Part};
use super::access_log::AccessLogConfig;
use super::otlp::OtlpConfig;

/// Everything there is to configure.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[store]`
    pub store: StoreConfig,
    /// `[eviction]`
    pub eviction: EvictionConfig,
    /// `[[transport]]`, in the order of the file.
    pub transports: Vec<TransportConfig>,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[server]`
    pub server: ServerConfig,
}

/// `[store]`: where entries live and how much there may be.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `kind`: the store's name in the registry. Default "memory".
    pub kind: String,
    /// `max_items`: an integer of at least 1, or "unlimited" (`None`). Default 1000.
    pub max_items: Option<u64>,
    /// `max_memory`: at least 1 MiB. Default 100 MiB.
    pub max_memory_bytes: u64,
    /// `max_value`: 1 byte up to `max_memory`, which is the default.
    pub max_value_bytes: u64,
    /// `sweep_interval`: time between sweeps of expired entries, at least 1 s (contract: 10 s default).
    pub sweep_interval: Duration,
    /// `shards`: a power of two from 1 to 1024, or "auto" (`None`, the default).
    pub shards: Option<usize>,
}

/// `[eviction]`: which entry goes.
#[derive(Clone, Debug)]
pub struct EvictionConfig {
    /// `policy`: its name in the registry. Default "lru".
    pub policy: String,
    /// What the policy weighs: `weigh_by` = "items", "bytes" or "auto" (the default: items where
    /// `max_items` is limited, bytes where it is not).
    pub weigh_by: WeighBy,
    /// `seed`: where the randomness of sampled policies starts. Default 0.
    pub seed: u64,
    /// The policy with its options from `[eviction.<policy>]`.
    pub factory: Arc<dyn PolicyFactory>,
}

/// One `[[transport]]`.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// `listen`: where.
    pub listen: ListenAddress,
    /// `serve`: which parts there are to ask for. Default: all that its kind has.
    pub serve: Vec<Part>,
    /// `[transport.tls]`; `None`: plaintext.
    pub tls: Option<TlsConfig>,
    /// `[transport.auth]`; `None`: nobody needs a token.
    pub auth: Option<AuthConfig>,
    /// Limits on connections.
    pub connections: ConnectionConfig,
    /// `kind` and what only that kind has.
    pub kind: TransportKind,
}

impl TransportConfig {
    /// Whether it is there for probes alone.
    #[must_use]
    pub fn serves_only_probes(&self) -> bool {
        self.serve == [Part::Probes]
    }

    /// Whether it answers to who watches the server, rather than to who uses the cache.
    #[must_use]
    pub fn is_for_watchers(&self) -> bool {
        matches!(self.kind, TransportKind::Http) || self.serves_only_probes()
    }
}

/// What a transport speaks.
#[derive(Clone, Debug)]
pub enum TransportKind {
    /// `kind = "grpc"`
    Grpc(GrpcConfig),
    /// `kind = "http"`
    Http,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:50051`, `[::]:50051`, `localhost:50051` (resolved at start-up).
    Tcp(Vec<SocketAddr>),
    /// "<unix:/run/tiny-cache.sock>".
    Unix(PathBuf),
}

/// Limits on the connections of a listener. Same keys for every kind of transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// `max_connections`: at least 1. Default 10000, for HTTP 1000. One more is closed at once.
    pub max_connections: usize,
    /// `max_connection_age`: after this (plus or minus 10 % jitter) a connection is asked to go
    /// away; `None` ("unlimited"): never. Default unlimited.
    pub max_connection_age: Option<Duration>,
    /// `max_connection_age_grace`: how long its requests may still take. Default 30 s.
    pub max_connection_age_grace: Duration,
    /// `max_concurrent_streams` per HTTP/2 connection. Default 1024.
    pub max_concurrent_streams: u32,
    /// `keepalive_interval`: HTTP/2 pings on a silent connection; `None` ("off"): none. Default 30 s.
    pub keepalive_interval: Option<Duration>,
    /// `keepalive_timeout`: a connection whose ping is not answered within this is closed. Default 20 s.
    pub keepalive_timeout: Duration,
    /// `handshake_timeout`: for TLS and the first bytes of a request. Default 10 s.
    pub handshake_timeout: Duration,
    /// `request_timeout`: from a request's head to its answer, and as long again for the client to take it. Default 30 s.
    pub request_timeout: Duration,
    /// `max_in_flight`: requests that wait at a time, over all connections. Default 16384, for HTTP 64.
    pub max_in_flight: u64,
    /// `max_in_flight_bytes`, gRPC only: bytes of messages being gathered and of answers being sent, over all
    /// connections. Default ("auto"): a quarter of `max_memory`, or a seventh more than `max_message`, and 64 MiB at least.
    pub max_in_flight_bytes: u64,
    /// `max_metadata`: bytes of a request's head. Default 16 KiB, for HTTP 64 KiB.
    pub max_metadata_bytes: u32,
}

/// `[transport.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// `cert`: PEM file with the certificate chain.
    pub cert: PathBuf,
    /// `key`: PEM file with the private key.
    pub key: PathBuf,
    /// `client_ca`: PEM bundle; with it, clients must show a certificate that it signed (mTLS).
    pub client_ca: Option<PathBuf>,
    /// `clients`: of those that `client_ca` vouches for, who is let in; `None` ("any"): all of them. Not empty.
    pub clients: Option<Vec<ClientIdentity>>,
    /// `reload_interval`: how often the files are looked at for changes. Default 10 s.
    pub reload_interval: Duration,
}

/// What only a gRPC transport has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// `max_message`: bytes of one request message. Default ("auto"): twice `max_value` (a
    /// CompareAndSet carries two values), at most `max_memory`, plus 1 MiB, at most 4 GiB - 1.
    pub max_message_bytes: usize,
    /// `max_batch`: items of one call. Default 100000.
    pub max_batch: usize,
    /// `reflection`: whether tools may ask what there is. Default true.
    pub reflection: bool,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// `log_level`. Default info.
    pub log_level: LogLevel,
    /// `log_format`. Default text.
    pub log_format: LogFormat,
    /// `metrics`: whether operations are counted and requests timed. What the store counts anyway is always told.
    /// Default true.
    pub metrics: bool,
    /// `namespaces`: those that operations are told apart by. Default none.
    pub namespaces: Vec<String>,
    /// `[telemetry.access_log]`; `None`: there is none.
    pub access_log: Option<AccessLogConfig>,
    /// `[telemetry.otlp]`
    pub otlp: OtlpConfig,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            metrics: true,
            namespaces: Vec::new(),
            access_log: None,
            otlp: OtlpConfig::default(),
        }
    }
}

/// How much is logged: the later, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing but what ends the process.
    Critical,
    /// Failures.
    Error,
    /// What may need attention.
    Warning,
    /// Start, stop, and what changes.
    Info,
    /// Every request.
    Debug,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// `shutdown_grace`: how long requests in flight may take once a stop was asked for. Default 30 s.
    pub shutdown_grace: Duration,
    /// `worker_threads`: threads that serve requests; `None` ("auto"): one per core.
    pub worker_threads: Option<usize>,
}
