//! What the listeners of each kind allow, as metrics tell it. None of it changes without a restart.

use std::collections::BTreeMap;

use crate::config::{ConnectionConfig, TransportConfig, TransportKind};

/// Limits by the names of their keys.
pub(super) type Limits = BTreeMap<&'static str, u64>;

/// The limits of each kind of transport. Its figures are those of all its listeners, so what each listener has is added up.
/// Of what each connection or request has, it is the least: so much gets through wherever it comes.
pub(super) fn by_kind(transports: &[TransportConfig]) -> BTreeMap<&'static str, Limits> {
    let mut kinds = BTreeMap::<_, Limits>::new();
    for TransportConfig { kind, connections, .. } in transports {
        let ConnectionConfig { max_connections, max_in_flight, max_in_flight_bytes, .. } = *connections;
        let mut of_all = vec![("max_connections", max_connections as u64), ("max_in_flight", max_in_flight)];
        let mut of_each = vec![("max_metadata", connections.max_metadata_bytes.into())];
        let name = match kind {
            TransportKind::Grpc(grpc) => {
                of_all.push(("max_in_flight_bytes", max_in_flight_bytes));
                of_each.extend([
                    ("max_concurrent_streams", connections.max_concurrent_streams.into()),
                    ("max_message", grpc.max_message_bytes as u64),
                    ("max_batch", grpc.max_batch as u64),
                ]);
                "grpc"
            }
            TransportKind::Http => "http",
        };
        let limits = kinds.entry(name).or_default();
        for (limit, value) in of_all {
            let sum = limits.entry(limit).or_default();
            *sum = sum.saturating_add(value);
        }
        for (limit, value) in of_each {
            limits.entry(limit).and_modify(|least| *least = value.min(*least)).or_insert(value);
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loader, Sources};
    use crate::registry::Registry;

    #[test]
    fn what_listeners_have_is_added_up_and_what_each_request_has_is_the_least() {
        let registry = Registry::default();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = "[[transport]]\nkind = \"grpc\"\nmax_connections = 10\nmax_batch = 5\nmax_in_flight_bytes = \"2MiB\"\n\
                    max_message = \"1MiB\"\n\
                    [[transport]]\nkind = \"grpc\"\nlisten = \"unix:/x\"\nmax_connections = 7\nmax_batch = 3\n\
                    max_in_flight_bytes = \"3MiB\"\nmax_message = \"2MiB\"\nmax_concurrent_streams = 9\n\
                    [[transport]]\nkind = \"http\"\nmax_connections = 4\nmax_metadata = \"8KiB\"\n";
        let config =
            loader.load_text("test.toml", text, &Sources::nothing()).expect("a configuration").config;
        let limits = by_kind(&config.transports);
        let expected = [
            ("max_batch", 3),
            ("max_concurrent_streams", 9),
            ("max_connections", 17),
            ("max_in_flight", 2 * 16_384),
            ("max_in_flight_bytes", 5 << 20),
            ("max_message", 1 << 20),
            ("max_metadata", 16 << 10),
        ];
        assert_eq!(limits["grpc"], expected.into());
        let expected = [("max_connections", 4), ("max_in_flight", 64), ("max_metadata", 8 << 10)];
        assert_eq!(limits["http"], expected.into());
    }
}
