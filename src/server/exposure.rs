//! What is said at the start of a transport that others than this machine can reach in the clear.

use crate::telemetry::logs::ALWAYS;
use crate::transports::Transport;
use crate::transports::listener::BoundAddress;

/// Warns of a transport without TLS that is reached from beyond this machine, unless all it has is probes. Whatever the
/// log level: who asks for errors only has not said that everybody may come.
pub(super) fn warn(transport: &dyn Transport) {
    if transport.tls().is_some() || transport.serves_only_probes() {
        return;
    }
    let exposed: Vec<String> =
        transport.addresses().iter().filter(|address| is_beyond(address)).map(ToString::to_string).collect();
    if exposed.is_empty() {
        return;
    }
    let (kind, listen) = (transport.kind(), exposed.join(", "));
    if transport.tokens().is_some() {
        tracing::warn!(
            target: ALWAYS,
            transport = kind,
            listen,
            "bearer tokens without TLS beyond this machine: who sees the traffic has them. Configure [transport.tls], or \
             listen on 127.0.0.1 or a Unix socket"
        );
    } else {
        tracing::warn!(
            target: ALWAYS,
            transport = kind,
            listen,
            "listening beyond this machine without TLS: the network alone decides who may ask, and who may read along. \
             Configure [transport.tls] with client_ca, or listen on 127.0.0.1 or a Unix socket"
        );
    }
}

fn is_beyond(address: &BoundAddress) -> bool {
    match address {
        BoundAddress::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        BoundAddress::Unix(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_and_unix_sockets_stay_on_this_machine() {
        for (address, expected) in [
            ("127.0.0.1:1", false),
            ("127.8.8.8:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("[::ffff:10.0.0.1]:1", true),
            ("10.0.0.1:1", true),
            ("[fe80::1]:1", true),
        ] {
            assert_eq!(is_beyond(&BoundAddress::Tcp(address.parse().expect(address))), expected, "{address}");
        }
        assert!(!is_beyond(&BoundAddress::Unix("/run/x".into())));
    }
}
