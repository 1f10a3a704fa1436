//! The composition root: from a configuration to a server that runs and drains.
//!
//! The order is the promise: everything is built and every socket bound before anything is served,
//! so that what can be wrong shows at once and nothing is half up. At a shutdown, health turns to
//! "not serving" first, then the traffic drains, then what answers probes.

mod exposure;
mod figures;
mod heap;
mod limits;
mod probes;
pub mod reload;
mod sampling;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::{Limits, SystemClock};
use futures_util::FutureExt;
use policies::PolicyEntry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::figures::Figures;
use self::probes::ProbeRuntime;
use self::sampling::Sampler;
use crate::auth::{Tokens, TokensError};
use crate::config::{Config, Part, TelemetryConfig, TransportConfig, TransportKind};
use crate::registry::{Registry, StoreEntry};
use crate::service::CacheService;
use crate::telemetry::access_log::{AccessLog, AccessLogError};
use crate::telemetry::history::History;
use crate::telemetry::metrics::{ConfigReloads, Metrics, MetricsError, Sources};
use crate::telemetry::operations::{Counting, Operations};
use crate::telemetry::otlp::{Otlp, OtlpError};
use crate::telemetry::traces::{SpanAttributes, Tracing};
use crate::tls::{ServerTls, TlsError};
use crate::transports::access::Access;
use crate::transports::grpc::GrpcService;
use crate::transports::http;
use crate::transports::listener::{BindError, BoundAddress, Listener, Protocol};
use crate::transports::served::Served;
use crate::transports::{Drained, Transport};

/// How long telemetry that is left may take to leave at a shutdown: what the drain has left of its grace, but so much at
/// least and at most.
const MIN_FLUSH: Duration = Duration::from_millis(500);
const MAX_FLUSH: Duration = Duration::from_secs(5);

/// Why a server could not start. Every message is one line that names what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names a store or policy that is not in the registry.
    #[error("unknown {what} {name:?}")]
    Unknown {
        /// "store" or "policy".
        what: &'static str,
        /// As configured.
        name: String,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Bearer tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// An address cannot be listened on.
    #[error("{error}{hint}")]
    Bind {
        /// Why.
        error: BindError,
        /// What sets another address, where that helps.
        hint: &'static str,
    },
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// Metrics could not be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Telemetry could not be set up.
    #[error(transparent)]
    Telemetry(#[from] OtlpError),
    /// There is no thread for what answers probes.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// A transport that was added to the builder could not be bound.
    #[error("cannot bind a transport")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How long the access log may take for what is queued, even where connections used up the grace.
const LEAST_FLUSH: Duration = Duration::from_secs(1);
/// Between looks for what the store could do that can wait, and between steps of it.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
const TIDY_PAUSE: Duration = Duration::from_millis(1);

/// What a transport of one's own is bound with.
#[derive(Clone)]
pub struct TransportContext {
    /// The use-cases to serve.
    pub service: Arc<CacheService>,
    /// The figures, ready to be rendered.
    pub metrics: Arc<Metrics>,
    /// The figures of the last hours.
    pub history: Arc<History>,
    /// What makes spans, where requests are traced.
    pub tracing: Option<Arc<Tracing>>,
    /// Turns true when a shutdown begins.
    pub draining: watch::Receiver<bool>,
}

/// Binds a transport of one's own.
pub type BindTransport = dyn Fn(&TransportContext) -> Result<Box<dyn Transport>, Box<dyn std::error::Error + Send + Sync>>
    + Send
    + Sync;

/// A server with its plug-ins, before it has a configuration.
#[derive(Clone, Default)]
pub struct Server {
    registry: Registry,
    transports: Vec<Arc<BindTransport>>,
}

impl Server {
    /// A server with the built-in stores, policies and transports, to be extended.
    #[must_use]
    pub fn builder() -> Self {
        Self::default()
    }

    /// Adds a policy that configurations may name.
    #[must_use]
    pub fn policy(mut self, entry: PolicyEntry) -> Self {
        self.registry.policies.push(entry);
        self
    }

    /// Adds a store that configurations may name.
    #[must_use]
    pub fn store(mut self, entry: StoreEntry) -> Self {
        self.registry.stores.push(entry);
        self
    }

    /// Adds a transport beside the configured ones.
    #[must_use]
    pub fn transport(mut self, bind: Arc<BindTransport>) -> Self {
        self.transports.push(bind);
        self
    }

    /// What a configuration may name.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Builds everything and binds every socket. Must run within a tokio runtime.
    pub fn bind(&self, config: &Config) -> Result<BoundServer, StartError> {
        self.bind_exporting(config, Arc::new(Otlp::start(&config.telemetry.otlp)?))
    }

    /// As [`bind`](Self::bind), with exports that were started before, so that the log could be among them.
    pub fn bind_exporting(&self, config: &Config, otlp: Arc<Otlp>) -> Result<BoundServer, StartError> {
        let unknown = |what, name: &str| StartError::Unknown { what, name: name.to_owned() };
        let store = self.registry.store(&config.store.kind);
        let store = store.ok_or_else(|| unknown("store", &config.store.kind))?;
        let policy = self.registry.policy(&config.eviction.policy);
        let policy = policy.ok_or_else(|| unknown("policy", &config.eviction.policy))?;
        let store = (store.build)(&config.store, &config.eviction, policy, Arc::new(SystemClock::default()));
        let telemetry = &config.telemetry;
        let access_log = telemetry.access_log.as_ref();
        let access_log =
            access_log.map(|config| AccessLog::open(config, Arc::clone(otlp.exports()))).transpose()?;
        let access_log = access_log.map(Arc::new);
        let tracing = otlp.tracing().map(Arc::new);
        let mut operations = operations(telemetry, access_log.as_ref());
        if tracing.is_some() {
            operations = operations.listening(Box::new(SpanAttributes::new(policy.name)));
        }
        let service = Arc::new(CacheService::observed(store, operations));
        // `GET /` tells where gRPC is, so its port must be known before HTTP is made.
        let probes = ProbeRuntime::start().map_err(StartError::Threads)?;
        let listeners = config.transports.iter().map(|transport| {
            let _entered = transport.is_for_watchers().then(|| probes.enter());
            bind_listener(transport)
        });
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let grpc_port = listeners.iter().find_map(|bound| match &bound.config.kind {
            TransportKind::Grpc(_) if bound.config.serve.contains(&Part::Cache) => port(&bound.listener),
            _ => None,
        });
        let config_reloads = Arc::new(ConfigReloads::default());
        let exports = Arc::clone(otlp.exports());
        let limits = limits::by_kind(&config.transports);
        let figures = Figures::new(Arc::clone(&service), exports, Arc::clone(&config_reloads), limits);
        let figures = Arc::new(figures);
        let sources = Arc::clone(&figures) as Arc<dyn Sources>;
        let metrics = Metrics::with_readers(sources, telemetry.metrics, |builder| otlp.read_by(builder))
            .map(Arc::new)?;
        if let Some(metrics) = metrics.store() {
            service.record_in(Arc::clone(metrics));
        }
        let (drain, draining) = watch::channel(false);
        let history = Arc::new(History::default());
        let context = TransportContext {
            service: Arc::clone(&service),
            metrics: Arc::clone(&metrics),
            history: Arc::clone(&history),
            tracing,
            draining,
        };
        let mut transports: Vec<Box<dyn Transport>> =
            listeners.into_iter().map(|bound| transport(bound, &context, grpc_port)).collect();
        for bind in &self.transports {
            transports.push(bind(&context).map_err(StartError::Transport)?);
        }
        figures.watch(&transports);
        for transport in &transports {
            exposure::warn(&**transport);
        }
        Ok(BoundServer {
            transports,
            probes,
            service,
            otlp,
            metrics,
            history,
            access_log,
            config_reloads,
            drain,
            policy: policy.name,
            sweep_interval: config.store.sweep_interval,
            shutdown_grace: config.server.shutdown_grace,
        })
    }
}

/// Counts operations where metrics are wanted, and tells them to who wants to hear of them.
fn operations(telemetry: &TelemetryConfig, access_log: Option<&Arc<AccessLog>>) -> Operations {
    let counting = if telemetry.metrics {
        Counting::On { namespaces: telemetry.namespaces.clone() }
    } else {
        Counting::Off
    };
    let operations = Operations::new(counting);
    match access_log {
        Some(log) => operations.listening(Box::new(Arc::clone(log))),
        None => operations,
    }
}

/// A transport that lacks only its service.
struct BoundListener<'a> {
    config: &'a TransportConfig,
    listener: Listener,
    tls: Option<Arc<ServerTls>>,
    tokens: Option<Arc<Tokens>>,
}

fn bind_listener(config: &TransportConfig) -> Result<BoundListener<'_>, StartError> {
    let tls = config.tls.as_ref().map(ServerTls::load).transpose()?;
    let tokens = config.auth.as_ref().map(Tokens::load).transpose()?;
    let listener = Listener::bind(&config.listen, tls.clone(), &config.connections).map_err(|error| {
        let hint = match (&error, &config.kind) {
            (BindError::InUse { .. }, TransportKind::Grpc(_)) => {
                "; choose another with --listen, CACHE_PORT or listen in its [[transport]]"
            }
            (BindError::InUse { .. }, TransportKind::Http) => {
                "; choose another with --http-listen, CACHE_HEALTH_PORT or listen in its [[transport]]"
            }
            _ => "",
        };
        StartError::Bind { error, hint }
    })?;
    Ok(BoundListener { config, listener, tls, tokens })
}

fn port(listener: &Listener) -> Option<u16> {
    match listener.local_address() {
        BoundAddress::Tcp(address) => Some(address.port()),
        BoundAddress::Unix(_) => None,
    }
}

fn transport(
    BoundListener { config, listener, tls, tokens }: BoundListener<'_>,
    context: &TransportContext,
    grpc_port: Option<u16>,
) -> Box<dyn Transport> {
    let TransportContext { service, metrics, history, tracing, draining } = context.clone();
    let refused = Arc::clone(listener.counters().refused_requests());
    let access = Access::new(&config.serve, tokens.clone(), refused);
    let only_probes = config.serves_only_probes();
    let connections = &config.connections;
    match &config.kind {
        TransportKind::Grpc(config) => {
            let in_flight = Arc::clone(listener.counters().in_flight());
            let (config, rpc) = ((connections, config), metrics.rpc().cloned());
            let service = GrpcService::new(service, config, draining, rpc, in_flight, access, tracing);
            let served = Served::new("grpc", Protocol::Http2, listener, tls, service);
            Box::new(served.restricted(tokens, only_probes))
        }
        TransportKind::Http => {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let router = http::router(service, metrics, history, grpc_port, scheme, tracing, &access);
            let router = http::limited(
                router,
                Arc::clone(listener.counters().in_flight()),
                connections.request_timeout,
            );
            let served = Served::new("http", Protocol::Http1, listener, tls, router);
            Box::new(served.restricted(tokens, only_probes))
        }
    }
}

/// A server whose sockets are bound: clients can connect, and are answered once it runs.
pub struct BoundServer {
    transports: Vec<Box<dyn Transport>>,
    probes: ProbeRuntime,
    service: Arc<CacheService>,
    otlp: Arc<Otlp>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    access_log: Option<Arc<AccessLog>>,
    config_reloads: Arc<ConfigReloads>,
    drain: watch::Sender<bool>,
    policy: &'static str,
    sweep_interval: Duration,
    shutdown_grace: Duration,
}

impl BoundServer {
    /// The addresses of all transports of a kind ("grpc", "http"), with their real ports.
    #[must_use]
    pub fn addresses(&self, kind: &str) -> Vec<BoundAddress> {
        let of_kind = self.transports.iter().filter(|transport| transport.kind() == kind);
        of_kind.flat_map(|transport| transport.addresses().iter().cloned()).collect()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.service.limits()
    }

    /// The name of the policy in force.
    #[must_use]
    pub const fn policy(&self) -> &'static str {
        self.policy
    }

    /// The certificates in use, to be read again on demand.
    #[must_use]
    pub fn certificates(&self) -> Vec<Arc<ServerTls>> {
        self.transports.iter().filter_map(|transport| transport.tls().cloned()).collect()
    }

    /// The bearer tokens in use, to be read again on demand.
    #[must_use]
    pub fn tokens(&self) -> Vec<Arc<Tokens>> {
        self.transports.iter().filter_map(|transport| transport.tokens().cloned()).collect()
    }

    /// The access log, if there is one, to be opened anew on demand.
    #[must_use]
    pub const fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.access_log.as_ref()
    }

    /// Serves until `shutdown`, then drains.
    pub async fn run(self, shutdown: CancellationToken) -> Drained {
        let background = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(
            background
                .clone()
                .run_until_cancelled_owned(sweep(Arc::clone(&self.service), self.sweep_interval)),
        );
        tasks.spawn(background.clone().run_until_cancelled_owned(tidy(Arc::clone(&self.service))));
        tasks
            .spawn(background.clone().run_until_cancelled_owned(heap::keep_small(Arc::clone(&self.service))));
        let (service, metrics) = (Arc::clone(&self.service), Arc::clone(&self.metrics));
        let sampler = Sampler { service, metrics, history: Arc::clone(&self.history) };
        // Before anything is served, so that the history begins at nothing.
        sampler.take().await;
        tasks.spawn(background.clone().run_until_cancelled_owned(sampler.run()));
        let certificates = self.certificates().into_iter().map(|tls| tls.watch(background.clone()).boxed());
        let tokens = self.tokens().into_iter().map(|tokens| tokens.watch(background.clone()).boxed());
        for watched in certificates.chain(tokens) {
            tasks.spawn(async move {
                let _: () = watched.await;
                Some(())
            });
        }

        let (traffic_stop, probes_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut traffic, mut probes) = (JoinSet::new(), JoinSet::new());
        for transport in self.transports {
            if transport.drains_last() {
                let serving = transport.serve(probes_stop.clone(), self.shutdown_grace);
                probes.spawn_on(serving, self.probes.handle());
            } else {
                traffic.spawn(transport.serve(traffic_stop.clone(), self.shutdown_grace));
            }
        }

        self.otlp.run(self.metrics);
        shutdown.cancelled().await;
        let grace_ends = Instant::now() + self.shutdown_grace;
        self.service.begin_drain();
        self.drain.send_replace(true);
        traffic_stop.cancel();
        let mut aborted_connections = join(&mut traffic).await;
        probes_stop.cancel();
        aborted_connections += join(&mut probes).await;
        background.cancel();
        while tasks.join_next().await.is_some() {}
        if let Some(log) = self.access_log {
            log.close(grace_ends.saturating_duration_since(Instant::now()).max(LEAST_FLUSH)).await;
        }
        // Before what is left of telemetry leaves, which this line is part of.
        tracing::info!(aborted_connections, "stopped");
        let left = grace_ends.saturating_duration_since(Instant::now());
        self.otlp.shut_down(left.clamp(MIN_FLUSH, MAX_FLUSH)).await;
        Drained { aborted_connections }
    }
}

async fn join(transports: &mut JoinSet<Drained>) -> usize {
    let mut aborted_connections = 0;
    while let Some(drained) = transports.join_next().await {
        if let Ok(drained) = drained {
            aborted_connections += drained.aborted_connections;
        } else {
            // The panic itself has been told.
            tracing::error!("a transport has ended before its time");
        }
    }
    aborted_connections
}

/// Removes what has expired, again and again.
async fn sweep(service: Arc<CacheService>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match service.own_sweep().await {
            Ok(Some(removed)) => tracing::debug!(removed, "swept expired entries"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot sweep expired entries"),
        }
    }
}

/// Has the store do what can wait, whenever there is something. With pauses, for requests on a machine without an idle processor.
async fn tidy(service: Arc<CacheService>) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while service.own_tidy().await {
            tokio::time::sleep(TIDY_PAUSE).await;
        }
    }
}
