//! `[[transport]]`: the listeners, what the environment and the flags change about them, and whether
//! they get along.

use std::time::Duration;

use super::access::{Clients, GRPC_PARTS, HTTP_PARTS, auth};
use super::document::{Raw, Setting, Table};
use super::duration::Span;
use super::error::Complaint;
use super::format::{Choice, Count, FilePath, Listen, OrWord, Switch};
use super::layers::{Endpoint, Layers, Tls};
use super::model::{ConnectionConfig, GrpcConfig, ListenAddress, TlsConfig, TransportConfig, TransportKind};
use super::origin::Origin;
use super::section::{Chosen, Report, Section};
use super::size::Size;

const MIB: u64 = 1 << 20;
const METADATA: Size = Size { min: 8 << 10, max: 16 << 20 };
const MESSAGE: Size = Size { min: 1024, max: u32::MAX as u64 };
const KIND: Choice<Kind> = Choice(&[("grpc", Kind::Grpc), ("http", Kind::Http)]);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Grpc,
    Http,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    const fn default_listen(self) -> &'static str {
        match self {
            Self::Grpc => "127.0.0.1:50051",
            Self::Http => "127.0.0.1:8080",
        }
    }
}

/// A transport that is to be read: its table, where it stands, its kind where nobody has to say it.
struct Pending {
    table: Table,
    place: Origin,
    implied: Option<Kind>,
}

impl Pending {
    fn implied(kind: Kind, place: Origin) -> Self {
        Self { table: Table::new(), place, implied: Some(kind) }
    }

    fn is(&self, kind: Kind) -> bool {
        let says = |setting: &Setting| matches!(&setting.raw, Raw::Text(text) if text == kind.name());
        self.implied == Some(kind) || self.table.get("kind").is_some_and(says)
    }
}

type Listener = (Chosen<(String, ListenAddress)>, Origin);

pub(super) fn read(
    file: Option<Setting>,
    layers: &mut Layers,
    (max_memory_bytes, max_value_bytes): (u64, u64),
    report: &mut Report,
) -> Vec<TransportConfig> {
    let mut pending = tables(file, report);
    let mut endpoints =
        [(Kind::Grpc, std::mem::take(&mut layers.grpc)), (Kind::Http, std::mem::take(&mut layers.http))].map(
            |(kind, endpoint)| {
                if let (Some(origin), false) =
                    (endpoint.origin(), pending.iter().any(|transport| transport.is(kind)))
                {
                    pending.push(Pending::implied(kind, origin));
                }
                (kind, Some(endpoint))
            },
        );
    let mut tls = Some(std::mem::take(&mut layers.tls));
    let mut listeners: Vec<Listener> = Vec::new();
    let mut transports = Vec::new();
    for transport in pending {
        let endpoint = endpoints
            .iter_mut()
            .find(|(kind, _)| transport.is(*kind))
            .and_then(|(_, endpoint)| endpoint.take())
            .unwrap_or_default();
        let tls = if transport.is(Kind::Grpc) { tls.take() } else { None };
        let (config, listener) = read_one(
            transport,
            endpoint,
            tls.unwrap_or_default(),
            (max_memory_bytes, max_value_bytes),
            report,
        );
        check_duplicate(&listener, &listeners, report);
        listeners.push(listener);
        transports.push(config);
    }
    if tls.is_some_and(|tls| tls.enabled == Some(true)) {
        let complaint = Complaint::Missing("there is no grpc transport that it could apply to".to_owned());
        report.problem(&Origin::Variable("CACHE_TLS_ENABLED".to_owned()), "", complaint);
    }
    transports
}

/// The file's transports; where it has none, one of each kind.
fn tables(file: Option<Setting>, report: &mut Report) -> Vec<Pending> {
    const ALLOWED: &str = "one or more [[transport]] tables";
    let defaults = || [Kind::Grpc, Kind::Http].map(|kind| Pending::implied(kind, Origin::Default)).into();
    match file {
        None => defaults(),
        Some(Setting { raw: Raw::Array(items), .. }) if !items.is_empty() => items
            .into_iter()
            .map(|item| Pending {
                place: item.origin.clone(),
                table: report.expect_table("transport", Some(item)),
                implied: None,
            })
            .collect(),
        Some(mut other) => {
            if matches!(other.raw, Raw::Array(_)) {
                "an empty array".clone_into(&mut other.shown);
            }
            report.rejected("transport", &other, ALLOWED.to_owned(), &[]);
            defaults()
        }
    }
}

fn read_one(
    transport: Pending,
    endpoint: Endpoint,
    variables: Tls,
    store_limits: (u64, u64),
    report: &mut Report,
) -> (TransportConfig, Listener) {
    let Pending { mut table, place, implied } = transport;
    if implied.is_none() && !table.contains_key("kind") {
        let complaint = Complaint::Missing("a transport needs a kind: \"grpc\" or \"http\"".to_owned());
        report.problem(&place, "transport.kind", complaint);
    }
    if let Some(kind) = implied {
        let raw = Raw::Text(kind.name().to_owned());
        table.insert(
            "kind".to_owned(),
            Setting { raw, shown: String::new(), origin: place.clone(), allowed: None },
        );
    }
    let known_kind = table.get("kind").and_then(|setting| super::format::Format::parse(&KIND, &setting.raw));
    let kind = known_kind.unwrap_or(Kind::Grpc);
    let base = match table.get("listen").map(|setting| &setting.raw) {
        Some(Raw::Text(text)) => text.clone(),
        _ => kind.default_listen().to_owned(),
    };
    let overrides = endpoint.settings(&base, kind.default_listen());

    let mut section = Section::begin("transport", "[[transport]]", table, overrides, report);
    section.take("kind", &KIND, kind);
    let listen = section.take("listen", &Listen, default_listen(kind));
    let parts = match kind {
        Kind::Grpc => GRPC_PARTS,
        Kind::Http => HTTP_PARTS,
    };
    let all_parts = parts.all();
    let serve = section.take("serve", &OrWord("all", parts), None).value.unwrap_or(all_parts);
    let mut connections = connections(&mut section, kind);
    let config = match kind {
        Kind::Grpc => TransportKind::Grpc(grpc(&mut section, store_limits, &mut connections)),
        Kind::Http => TransportKind::Http,
    };
    let tls_table = section.take_table("tls");
    let auth_table = section.take_table("auth");
    // Of a kind that nobody knows it cannot be said which keys it has.
    if known_kind.is_some() {
        section.end();
    }
    let tls = tls(tls_table, variables, report);
    let auth = auth(auth_table, report);
    let address = listen.value.1.clone();
    (TransportConfig { listen: address, serve, tls, auth, connections, kind: config }, (listen, place))
}

fn default_listen(kind: Kind) -> (String, ListenAddress) {
    let text = kind.default_listen();
    let address = text.parse().expect("a default is an address");
    (text.to_owned(), ListenAddress::Tcp(vec![address]))
}

fn connections(section: &mut Section<'_>, kind: Kind) -> ConnectionConfig {
    let seconds = Duration::from_secs;
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let (max_connections, max_in_flight, max_metadata) = match kind {
        Kind::Grpc => (10_000, 16 << 10, 16 << 10),
        Kind::Http => (1_000, 64, 64 << 10),
    };
    ConnectionConfig {
        max_connections: count(section.take("max_connections", &Count::at_least(1), max_connections).value),
        max_connection_age: section
            .take("max_connection_age", &OrWord("unlimited", Span::SECOND), None)
            .value,
        max_connection_age_grace: section.take("max_connection_age_grace", &Span::ZERO, seconds(30)).value,
        max_concurrent_streams: section
            .take("max_concurrent_streams", &Count { min: 1, max: (1 << 31) - 1 }, 1024)
            .value
            .try_into()
            .expect("the format's limit fits"),
        keepalive_interval: section
            .take("keepalive_interval", &OrWord("off", Span::MILLISECOND), Some(seconds(30)))
            .value,
        keepalive_timeout: section.take("keepalive_timeout", &Span::MILLISECOND, seconds(20)).value,
        handshake_timeout: section.take("handshake_timeout", &Span::MILLISECOND, seconds(10)).value,
        request_timeout: section.take("request_timeout", &Span::MILLISECOND, seconds(30)).value,
        max_in_flight_bytes: u64::MAX,
        max_in_flight: section.take("max_in_flight", &Count::at_least(1), max_in_flight).value,
        max_metadata_bytes: section
            .take("max_metadata", &METADATA, max_metadata)
            .value
            .try_into()
            .expect("the format's limit fits"),
    }
}

fn grpc(
    section: &mut Section<'_>,
    (max_memory_bytes, max_value_bytes): (u64, u64),
    connections: &mut ConnectionConfig,
) -> GrpcConfig {
    // Of two values both of which there cannot be at a time, nobody exchanges one for the other.
    let automatic = max_value_bytes.saturating_mul(2).min(max_memory_bytes);
    let automatic = automatic.max(max_value_bytes).saturating_add(MIB).min(MESSAGE.max);
    let max_message = section.take("max_message", &OrWord("auto", MESSAGE), None).value.unwrap_or(automatic);
    // A part of what entries may take, as the rule of thumb for the process has it; but one message has seven eighths.
    let largest = max_message.saturating_mul(8) / 7 + MIB / 16;
    let automatic = (max_memory_bytes / 4).max(largest).max(64 * MIB);
    let max_in_flight_bytes = section.take("max_in_flight_bytes", &OrWord("auto", Size::at_least(MIB)), None);
    connections.max_in_flight_bytes = max_in_flight_bytes.value.unwrap_or(automatic);
    GrpcConfig {
        max_message_bytes: usize::try_from(max_message).unwrap_or(usize::MAX),
        max_batch: usize::try_from(section.take("max_batch", &Count::at_least(1), 100_000).value)
            .unwrap_or(usize::MAX),
        reflection: section.take("reflection", &Switch, true).value,
    }
}

/// The file's table with the variables on top. They can switch TLS on and off; their paths count
/// only where it is on.
fn tls(file: Option<Setting>, variables: Tls, report: &mut Report) -> Option<TlsConfig> {
    let place = match &file {
        Some(setting) => setting.origin.clone(),
        None => Origin::Variable("CACHE_TLS_ENABLED".to_owned()),
    };
    let in_file = file.is_some();
    let mut table = report.expect_table("transport.tls", file);
    let mut scratch = Report::default();
    // A table that is switched off is checked all the same, but it is not in effect.
    let on = variables.enabled.unwrap_or(in_file);
    if !on && !in_file {
        return None;
    }
    let asks_for_client_auth = variables.require_client_auth.unwrap_or(table.contains_key("client_ca"));
    if !asks_for_client_auth {
        table.remove("client_ca");
    }
    let client_ca = variables.client_ca.filter(|_| asks_for_client_auth);
    let overrides = [("cert", variables.cert), ("key", variables.key), ("client_ca", client_ca)]
        .into_iter()
        .filter_map(|(key, setting)| Some((key, setting?)))
        .collect();
    let target = if on { &mut *report } else { &mut scratch };
    let problems_before = target.problems.len();
    let mut section = Section::begin("transport.tls", "[transport.tls]", table, overrides, target);
    let cert = section.take_optional("cert", &FilePath).map(|chosen| chosen.value);
    let key = section.take_optional("key", &FilePath).map(|chosen| chosen.value);
    let client_ca = section.take_optional("client_ca", &FilePath).map(|chosen| chosen.value);
    let clients = section.take("clients", &OrWord("any", Clients), None);
    let reload_interval = section.take("reload_interval", &Span::SECOND, Duration::from_secs(10)).value;
    section.end();
    if let (Some(_), Some(setting), None) = (&clients.value, clients.blamable(), &client_ca) {
        let conflict = "which needs client_ca: without it nobody shows a certificate".to_owned();
        target.conflict("transport.tls.clients", setting, conflict);
    }

    let wrong_already = |problems: &[super::error::Problem], key: &str| {
        problems.iter().any(|problem| problem.key.ends_with(key))
    };
    let needed = [
        ("transport.tls.cert", "CACHE_TLS_CERT_PATH", cert.is_none()),
        ("transport.tls.key", "CACHE_TLS_KEY_PATH", key.is_none()),
    ];
    for (key, variable, is_missing) in needed {
        if is_missing && !wrong_already(&target.problems[problems_before..], key) {
            let complaint =
                Complaint::Missing(format!("TLS needs both a certificate and its key (or {variable})"));
            target.problem(&place, key, complaint);
        }
    }
    if asks_for_client_auth
        && client_ca.is_none()
        && !wrong_already(&target.problems[problems_before..], "client_ca")
    {
        let complaint = Complaint::Missing(
            "client certificates need a bundle to check them with: CACHE_TLS_CLIENT_CA_PATH or client_ca"
                .to_owned(),
        );
        target.problem(&Origin::Variable("CACHE_TLS_REQUIRE_CLIENT_AUTH".to_owned()), "", complaint);
    }
    report.problems.append(&mut scratch.problems);
    let clients = clients.value;
    let tls = TlsConfig { cert: cert?, key: key?, client_ca, clients, reload_interval };
    on.then_some(tls)
}

fn check_duplicate((listen, place): &Listener, earlier: &[Listener], report: &mut Report) {
    let (text, address) = &listen.value;
    for (other, other_place) in earlier {
        if !overlap(address, &other.value.1) {
            continue;
        }
        // Blame the one that somebody wrote.
        let (setting, at) = match (&listen.setting, &other.setting) {
            (Some(setting), _) => (Some(setting), other_place),
            (None, setting) => (setting.as_ref(), place),
        };
        let conflict = match at {
            Origin::Default => "where a default transport listens already".to_owned(),
            at => format!("where the transport of {at} listens already"),
        };
        let complaint = Complaint::Conflict { found: format!("{text:?}"), conflict };
        report.problem(setting.map_or(place, |setting| &setting.origin), "transport.listen", complaint);
    }
}

fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        // Port 0 is another one each time.
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => a.iter().any(|x| x.port() != 0 && b.contains(x)),
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        _ => false,
    }
}
