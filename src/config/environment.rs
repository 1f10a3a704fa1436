//! Variables that begin as ours do and are none of ours: misspelt ones, and those that Kubernetes puts into a pod for each
//! service beside it, which for one named "cache" are `CACHE_PORT` and more.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use super::error::nearest;
use super::layers;

const PREFIXES: [&str; 2] = ["CACHE_", "TINY_CACHE_"];

/// What is read elsewhere than in the layers.
const OTHERS: [&str; 3] = ["TINY_CACHE_CONFIG", "TINY_CACHE_TARGET", "TINY_CACHE_TOKEN_FILE"];

const SERVICE_HOST: &str = "_SERVICE_HOST";

/// What of an environment begins as our variables do, and is not read. Names alone: a value may be anybody's secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnreadVariables {
    /// Each with the name that may have been meant.
    pub unknown: Vec<String>,
    /// Services of Kubernetes, as the names of their variables begin.
    pub services: Vec<String>,
}

impl UnreadVariables {
    /// Looks through the names of an environment.
    #[must_use]
    pub fn among(names: impl IntoIterator<Item = OsString>) -> Self {
        let ours: BTreeSet<String> = names
            .into_iter()
            .map(|name| name.to_string_lossy().escape_debug().to_string())
            .filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        let services: Vec<&str> = ours.iter().filter_map(|name| name.strip_suffix(SERVICE_HOST)).collect();
        let is_service_s =
            |name: &str| services.iter().any(|service| is_of_service(name.strip_prefix(service)));
        let mut known = layers::variables();
        known.extend(OTHERS.map(str::to_owned));
        let unknown = ours.iter().filter(|name| !known.contains(*name) && !is_service_s(name));
        let spellings: Vec<String> = known.iter().map(|name| name.to_lowercase()).collect();
        let told = unknown.map(|name| match nearest(name, spellings.iter().map(String::as_str)) {
            Some(meant) => format!("{name} (did you mean {}?)", meant.to_uppercase()),
            None => name.clone(),
        });
        Self {
            unknown: told.collect(),
            services: services.into_iter().map(|service| format!("{service}_*")).collect(),
        }
    }
}

/// Whether Kubernetes gives a variable with this ending to each service, or to each of its ports.
fn is_of_service(ending: Option<&str>) -> bool {
    let Some(ending) = ending.and_then(|ending| ending.strip_prefix('_')) else { return false };
    let is_of_port = |port: &str| {
        let mut parts = port.split('_');
        let is_number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        let has_protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        is_number && has_protocol && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
    };
    matches!(ending, "SERVICE_HOST" | "SERVICE_PORT" | "PORT")
        || ending.starts_with("SERVICE_PORT_")
        || ending.strip_prefix("PORT_").is_some_and(is_of_port)
}

/// Whether the variable for a port is of Kubernetes' making: `CACHE_PORT=tcp://10.0.0.1:80`, beside `CACHE_SERVICE_HOST`.
/// Nobody has configured anything by it.
pub(super) fn is_service_link(environment: &dyn Fn(&str) -> Option<OsString>, port: &str) -> bool {
    let is_url = |text: &OsStr| {
        let text = text.to_string_lossy();
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
    };
    environment(port).is_some_and(|text| is_url(&text))
        && port
            .strip_suffix("_PORT")
            .is_some_and(|service| environment(&format!("{service}{SERVICE_HOST}")).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(names: &[&str]) -> UnreadVariables {
        UnreadVariables::among(names.iter().map(OsString::from))
    }

    #[test]
    fn what_is_read_and_what_is_not_ours_is_no_matter() {
        let names = [
            "CACHE_PORT",
            "CACHE_TLS_KEY_PATH",
            "TINY_CACHE_CONFIG",
            "TINY_CACHE_TARGET",
            "PATH",
            "XCACHE_X",
        ];
        assert_eq!(among(&names), UnreadVariables::default());
        assert!(layers::variables().len() > 15);
    }

    #[test]
    fn what_nobody_reads_is_named_with_what_may_have_been_meant() {
        let unread = among(&["CACHE_MAX_ITEM", "CACHE_REDIS_URL_OF_OURS", "TINY_CACHE_CONFG", "CACHE_\n"]);
        let expected = [
            "CACHE_MAX_ITEM (did you mean CACHE_MAX_ITEMS?)",
            "CACHE_REDIS_URL_OF_OURS",
            "CACHE_\\n",
            "TINY_CACHE_CONFG (did you mean TINY_CACHE_CONFIG?)",
        ];
        let mut expected = expected.map(str::to_owned);
        expected.sort_unstable();
        let mut unknown = unread.unknown;
        unknown.sort_unstable();
        assert_eq!((&unknown[..], &unread.services[..]), (&expected[..], &[][..]));
    }

    #[test]
    fn variables_of_a_service_are_told_as_one() {
        let of_service = [
            "CACHE_SERVICE_HOST",
            "CACHE_SERVICE_PORT",
            "CACHE_SERVICE_PORT_GRPC",
            "CACHE_PORT",
            "CACHE_PORT_80_TCP",
            "CACHE_PORT_80_TCP_PROTO",
            "CACHE_PORT_80_TCP_PORT",
            "CACHE_PORT_80_TCP_ADDR",
            "TINY_CACHE_SERVICE_HOST",
            "TINY_CACHE_PORT_53_UDP",
        ];
        let mut names = of_service.to_vec();
        names.extend(["CACHE_PORT_80_TCP_X", "CACHE_PORTS", "CACHE_OTHER_SERVICE_PORT"]);
        let unread = among(&names);
        assert_eq!(unread.services, ["CACHE_*", "TINY_CACHE_*"]);
        let unknown =
            ["CACHE_OTHER_SERVICE_PORT", "CACHE_PORTS (did you mean CACHE_PORT?)", "CACHE_PORT_80_TCP_X"];
        assert_eq!(unread.unknown, unknown);
    }

    #[test]
    fn a_port_is_of_a_service_where_it_says_so_and_the_service_is_there() {
        for (port, host, expected) in [
            ("tcp://10.0.0.1:80", true, true),
            ("udp://[::1]:53", true, true),
            ("tcp://10.0.0.1:80", false, false),
            ("50051", true, false),
            ("http://10.0.0.1", true, false),
        ] {
            let environment = |name: &str| match name {
                "CACHE_PORT" => Some(port.into()),
                "CACHE_SERVICE_HOST" if host => Some("10.0.0.1".into()),
                _ => None,
            };
            assert_eq!(is_service_link(&environment, "CACHE_PORT"), expected, "{port} {host}");
            assert!(!is_service_link(&environment, "CACHE_HEALTH_PORT"));
        }
    }
}
