//! The accept loop, and the shutdown that ends it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Shared;
use super::paced::Schedule;
use super::service::{HttpService, Peer};
use super::socket::{ListeningSocket, Stream, is_of_connection};
use super::{ConnectionCounters, ConnectionRefusal, Listener, Protocol};
use crate::line::Line;
use crate::telemetry::throttle::Throttle;

/// How long to wait when `accept` fails for want of resources: long enough for some to come free, and short
/// enough that nobody notices.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The least time between two log lines about failing accepts, about connections that are too many, or about handshakes that fail: each may
/// go on for long.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Listener {
    /// Serves clients with `service` until `shutdown`, then for at most `grace` until the last of them is gone.
    /// Returns the number of connections that had to be cut off.
    ///
    /// At `shutdown` the sockets are closed at once, and a Unix socket's file is removed. Clients whose connection
    /// was complete by then, accepted or not, are still served: each is told to go away (GOAWAY, or
    /// `connection: close`), finishes what it has in flight, and is closed then.
    pub async fn serve<S: HttpService>(
        self,
        service: S,
        protocol: Protocol,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> usize {
        let Self { sockets, addresses: _, tls, config, counters } = self;
        let connections = Connections {
            max: config.max_connections,
            shared: Arc::new(Shared {
                protocol,
                config,
                tls,
                handshakes: Throttle::new(LOG_INTERVAL),
                shutdown: shutdown.clone(),
                line: Arc::new(Line::new(Handle::current().metrics().num_workers())),
                schedule: Arc::new(Schedule::new()),
            }),
            counters,
            service,
            tasks: TaskTracker::new(),
            refusals: Throttle::new(LOG_INTERVAL),
            abort: CancellationToken::new(),
        };
        shutdown.run_until_cancelled(connections.accept_forever(&sockets)).await;
        for (stream, peer) in sockets.into_iter().flat_map(ListeningSocket::close) {
            connections.take(stream, peer);
        }
        connections.drain(grace).await
    }
}

/// The connections of a listener, and what it takes to serve one more.
struct Connections<S> {
    max: usize,
    shared: Arc<Shared>,
    counters: Arc<ConnectionCounters>,
    service: S,
    tasks: TaskTracker,
    /// Of the log's lines about connections that are too many.
    refusals: Throttle,
    /// Close at once, whatever is in flight.
    abort: CancellationToken,
}

impl<S: HttpService> Connections<S> {
    async fn accept_forever(&self, sockets: &[ListeningSocket]) {
        let failures = Throttle::new(LOG_INTERVAL);
        // Where there are several sockets, none can keep the others waiting.
        let mut first = 0;
        loop {
            first = (first + 1) % sockets.len();
            match accept(sockets, first).await {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    self.counters.refuse(ConnectionRefusal::AcceptFailed);
                    if let Some(not_logged) = failures.pass() {
                        tracing::error!(%error, not_logged, "accepting a connection failed, will try again");
                    }
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Serves a connection in a task of its own, or closes it where there are too many.
    fn take(&self, stream: Stream, peer: Peer) {
        let Some(place) = self.counters.admit(self.max) else {
            if let Some(not_logged) = self.refusals.pass() {
                let limit = self.max;
                tracing::warn!(?peer, limit, not_logged, "connection refused: max_connections are open");
            }
            return;
        };
        let shared = Arc::clone(&self.shared);
        let service = self.service.clone();
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            abort.run_until_cancelled(shared.serve(stream, peer, service, &place)).await;
        });
    }

    async fn drain(self, grace: Duration) -> usize {
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.abort.cancel();
        self.tasks.wait().await;
        left
    }
}

/// The next connection of any socket, asking `first` first.
async fn accept(sockets: &[ListeningSocket], first: usize) -> io::Result<(Stream, Peer)> {
    let (before, after) = sockets.split_at(first);
    poll_fn(|cx| {
        for socket in after.iter().chain(before) {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}
