//! A transport made of a listener and an HTTP service: what gRPC and HTTP are both.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::listener::{BoundAddress, ConnectionCounters, HttpService, Listener, Protocol};
use super::{Drained, Transport};
use crate::auth::Tokens;
use crate::tls::ServerTls;

/// A bound listener with the service it will serve.
pub struct Served<S> {
    kind: &'static str,
    protocol: Protocol,
    tls: Option<Arc<ServerTls>>,
    tokens: Option<Arc<Tokens>>,
    only_probes: bool,
    listener: Listener,
    service: S,
}

impl<S: HttpService> Served<S> {
    /// Puts a service behind a listener. `tls` is what the listener was bound with.
    pub fn new(
        kind: &'static str,
        protocol: Protocol,
        listener: Listener,
        tls: Option<Arc<ServerTls>>,
        service: S,
    ) -> Self {
        Self { kind, protocol, tls, tokens: None, only_probes: false, listener, service }
    }

    /// Tells what the service asks of its clients, and whether it has nothing but probes for them.
    #[must_use]
    pub fn restricted(self, tokens: Option<Arc<Tokens>>, only_probes: bool) -> Self {
        Self { tokens, only_probes, ..self }
    }
}

impl<S: HttpService + Sync> Transport for Served<S> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn addresses(&self) -> &[BoundAddress] {
        self.listener.local_addresses()
    }

    fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }

    fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    fn serves_only_probes(&self) -> bool {
        self.only_probes
    }

    fn connections(&self) -> &Arc<ConnectionCounters> {
        self.listener.counters()
    }

    fn drains_last(&self) -> bool {
        self.only_probes || self.protocol == Protocol::Http1
    }

    fn serve(
        self: Box<Self>,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> Pin<Box<dyn Future<Output = Drained> + Send>> {
        Box::pin(async move {
            let aborted_connections = self.listener.serve(self.service, self.protocol, shutdown, grace).await;
            Drained { aborted_connections }
        })
    }
}
