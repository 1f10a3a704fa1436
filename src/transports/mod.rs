//! How clients reach the cache: one component per protocol, above a listener that they share.

pub mod access;
pub mod grpc;
pub mod http;
pub mod in_flight;
mod lasting;
pub mod listener;
pub mod peer;
pub mod refused;
pub mod request_id;
pub mod served;
pub mod stats;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Tokens;
use crate::tls::ServerTls;
use listener::{BoundAddress, ConnectionCounters};

/// How a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because they took longer than the grace.
    pub aborted_connections: usize,
}

/// A way in for clients, bound and ready to serve.
///
/// Binding is what can fail, so it comes first and for all transports, before any of them serves.
pub trait Transport: Send {
    /// The name under `transport.kind`.
    fn kind(&self) -> &'static str;

    /// Where it listens, with the real ports. Never empty.
    fn addresses(&self) -> &[BoundAddress];

    /// The certificates it uses, to be read again on demand.
    fn tls(&self) -> Option<&Arc<ServerTls>>;

    /// The bearer tokens it asks for, to be read again on demand.
    fn tokens(&self) -> Option<&Arc<Tokens>> {
        None
    }

    /// Whether all there is to ask for is how the server is.
    fn serves_only_probes(&self) -> bool {
        false
    }

    /// The figures of its connections.
    fn connections(&self) -> &Arc<ConnectionCounters>;

    /// Whether it goes on until the others have drained: what answers probes and scrapes does, so
    /// that a server that is stopping can be watched doing so.
    fn drains_last(&self) -> bool {
        false
    }

    /// Serves until `shutdown`, then lets requests in flight finish for at most `grace`.
    fn serve(
        self: Box<Self>,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> Pin<Box<dyn Future<Output = Drained> + Send>>;
}
