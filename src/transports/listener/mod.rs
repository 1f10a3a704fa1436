//! The serving path that every transport shares: sockets, TLS, HTTP connections, limits and draining.
//!
//! A [`Listener`] is bound first, which is when everything that can be wrong with an address shows, and serves
//! later. It speaks HTTP/1 or HTTP/2 to whatever comes and hands each request to a `tower::Service`. What it
//! guarantees about connections:
//!
//! - There are never more than `max_connections`; one more is accepted and closed at once.
//! - No more than `max_in_flight` requests wait over HTTP/2, beside one for each connection, and none for long for a client
//!   that does not take its answer: see [`InFlight`](super::in_flight::InFlight).
//! - None is held by a client that takes nothing of what it was sent for `request_timeout`, or by one whose machine does not say that
//!   it got what it was sent (on Linux) for as long or for `keepalive_timeout`, whichever is more.
//! - None is held by a client that does not speak: a TLS handshake and the first bytes after it are due within
//!   `handshake_timeout` each, and so is every HTTP/1 request head.
//! - One that is older than `max_connection_age`, give or take 10 %, is asked to go away, finishes what it has
//!   in flight, and is closed after `max_connection_age_grace` at the latest.
//! - At a shutdown, everyone who had connected by then is answered; see [`Listener::serve`].
//! - Nothing that goes wrong on a connection, and no failing `accept`, ends the loop.

mod accept;
mod address;
mod connection;
mod corked;
mod cost;
mod counted;
mod counters;
mod first_bytes;
mod frames;
mod http2;
mod paced;
mod refusals;
mod scan;
mod service;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod untaken;
mod written;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket::ListeningSocket;

pub use self::address::BoundAddress;
pub use self::counters::{ConnectionCounters, ConnectionRefusal};
pub use self::service::{ConnectInfo, HttpService, Peer};
use crate::config::{ConnectionConfig, ListenAddress};
use crate::tls::{Alpn, ServerTls};

/// Which version of HTTP a listener speaks; it speaks no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN over TLS.
    Http2,
}

impl Protocol {
    fn alpn(self) -> Alpn {
        match self {
            Self::Http1 => Alpn::Http1,
            Self::Http2 => Alpn::Http2,
        }
    }
}

/// Why an address cannot be listened on. Every message is one line that names the address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name resolved to nothing.
    #[error("cannot listen: no address given")]
    NoAddress,
    /// Somebody listens there.
    #[error("cannot listen on {address}: the address is already in use")]
    InUse {
        /// Where.
        address: BoundAddress,
    },
    /// The path exists and is not a socket. It is never removed.
    #[error("cannot listen on unix:{}: the file exists and is not a socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The directory for the socket does not exist.
    #[error("cannot listen on unix:{}: the directory {} does not exist", path.display(), directory.display())]
    NoDirectory {
        /// Where.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// Anything else that the system refuses.
    #[error("cannot listen on {address}: {cause}")]
    Refused {
        /// Where.
        address: BoundAddress,
        /// What the system says.
        cause: io::Error,
    },
}

/// Bound sockets: clients can connect, but nobody answers until [`serve`](Self::serve).
pub struct Listener {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<BoundAddress>,
    tls: Option<Arc<ServerTls>>,
    config: ConnectionConfig,
    counters: Arc<ConnectionCounters>,
}

impl Listener {
    /// Binds every address of `address` and starts to listen. Must run within a tokio runtime.
    ///
    /// Of several addresses (a name with an IPv4 and an IPv6 address), those that this machine does not have are
    /// passed over so long as one remains. Where the first has port 0, all get the port that it was given.
    /// `[::]` takes IPv4 connections too. A Unix socket that nobody listens on is replaced.
    pub fn bind(
        address: &ListenAddress,
        tls: Option<Arc<ServerTls>>,
        config: &ConnectionConfig,
    ) -> Result<Self, BindError> {
        let sockets = match address {
            ListenAddress::Tcp(addresses) => bind_tcp(addresses, patience(config))?,
            ListenAddress::Unix(path) => vec![ListeningSocket::bind_unix(path)?],
        };
        let addresses = sockets.iter().map(|socket| socket.address().clone()).collect();
        Ok(Self {
            sockets,
            addresses,
            tls,
            config: config.clone(),
            counters: Arc::new(ConnectionCounters::new(config)),
        })
    }

    /// Where it listens, with the real port. The first one, where there are several.
    #[must_use]
    pub fn local_address(&self) -> &BoundAddress {
        &self.addresses[0]
    }

    /// Everywhere it listens. Never empty.
    #[must_use]
    pub fn local_addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The counters of this listener's connections, which outlive it.
    #[must_use]
    pub fn counters(&self) -> &Arc<ConnectionCounters> {
        &self.counters
    }
}

/// The most that systems take (24 days).
const MOST_PATIENCE: Duration = Duration::from_millis(i32::MAX as u64);

/// How long what was sent may go unacknowledged. Requests alone may be given less time than it takes to repair a loss.
fn patience(config: &ConnectionConfig) -> Duration {
    config.request_timeout.max(config.keepalive_timeout).min(MOST_PATIENCE)
}

fn bind_tcp(addresses: &[SocketAddr], patience: Duration) -> Result<Vec<ListeningSocket>, BindError> {
    let mut sockets: Vec<ListeningSocket> = Vec::with_capacity(addresses.len());
    let mut absent = None;
    for &wanted in addresses {
        let mut wanted = wanted;
        if let (0, Some(BoundAddress::Tcp(first))) =
            (wanted.port(), sockets.first().map(ListeningSocket::address))
        {
            wanted.set_port(first.port());
        }
        match ListeningSocket::bind_tcp(wanted, patience) {
            Ok(socket) => sockets.push(socket),
            Err(BindError::Refused { address, cause }) if socket::is_absent(&cause) => {
                absent = absent.or(Some(BindError::Refused { address, cause }));
            }
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() { Err(absent.unwrap_or(BindError::NoAddress)) } else { Ok(sockets) }
}
