//! What the span of a request tells of its client, whatever the transport.

use http::Extensions;
use opentelemetry::KeyValue;
use opentelemetry_semantic_conventions::attribute::{
    NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT, NETWORK_TRANSPORT,
};

use super::listener::{ConnectInfo, Peer};

/// The client of a request, as its span tells it.
#[must_use]
pub fn peer_attributes(extensions: &Extensions) -> Vec<KeyValue> {
    match extensions.get::<ConnectInfo>().map(|info| info.peer) {
        Some(Peer::Tcp(address)) => vec![
            KeyValue::new(NETWORK_TRANSPORT, "tcp"),
            KeyValue::new(NETWORK_PEER_ADDRESS, address.ip().to_string()),
            KeyValue::new(NETWORK_PEER_PORT, i64::from(address.port())),
        ],
        Some(Peer::Unix) => vec![KeyValue::new(NETWORK_TRANSPORT, "unix")],
        None => Vec::new(),
    }
}
