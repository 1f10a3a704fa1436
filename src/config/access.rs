//! Who may come to a transport, and what for: the names of clients, the parts that are served, bearer tokens.

use std::path::PathBuf;
use std::time::Duration;

use super::document::{Raw, Setting};
use super::duration::Span;
use super::error::Complaint;
use super::format::{Choice, FilePath, Format, is_host_name, quoted};
use super::section::{Report, Section};

/// A client by a name in its certificate, as `[transport.tls] clients` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdentity {
    /// `dns:NAME`, in lower case.
    Dns(String),
    /// `uri:URI`, to the letter.
    Uri(String),
    /// `uri:URI/*`: every URI below this one. Kept with its last slash.
    Below(String),
}

impl ClientIdentity {
    /// As it stands in a configuration; `None` where it names nobody.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("dns:") {
            return is_host_name(name).then(|| Self::Dns(name.to_ascii_lowercase()));
        }
        let uri = text.strip_prefix("uri:")?;
        let (uri, is_tree) = uri.strip_suffix('*').map_or((uri, false), |tree| (tree, true));
        let (scheme, rest) = uri.split_once("://")?;
        let is_plain = uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !scheme.is_empty();
        let has_host = !rest.is_empty() && !rest.starts_with('/');
        if !is_plain || !is_scheme || !has_host {
            return None;
        }
        if is_tree {
            return uri.ends_with('/').then(|| Self::Below(uri.to_owned()));
        }
        Some(Self::Uri(uri.to_owned()))
    }

    /// Whether it is meant by a DNS name in a certificate. One with a wildcard names nobody.
    #[must_use]
    pub fn is_dns(&self, name: &str) -> bool {
        matches!(self, Self::Dns(own) if own.eq_ignore_ascii_case(name))
    }

    /// Whether it is meant by a URI in a certificate.
    #[must_use]
    pub fn is_uri(&self, uri: &str) -> bool {
        match self {
            Self::Dns(_) => false,
            Self::Uri(own) => own == uri,
            Self::Below(tree) => uri.strip_prefix(tree.as_str()).is_some_and(is_path),
        }
    }
}

/// Segments as SPIFFE allows them: nothing in them leads up, or means something else once it is decoded.
fn is_path(rest: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    rest.split('/').all(is_segment)
}

/// A list of clients.
pub(super) struct Clients;

impl Clients {
    const MAX: usize = 1000;
}

impl Format for Clients {
    type Value = Vec<ClientIdentity>;

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        let Raw::Array(items) = raw else { return None };
        let clients = items.iter().map(|item| match &item.raw {
            Raw::Text(text) => ClientIdentity::parse(text),
            _ => None,
        });
        clients.collect::<Option<Vec<_>>>().filter(|clients| (1..=Self::MAX).contains(&clients.len()))
    }

    fn allowed(&self) -> String {
        format!(
            "a list of 1 to {} names in client certificates such as [\"dns:app.internal\", \
             \"uri:spiffe://example.org/app\", \"uri:spiffe://example.org/jobs/*\"]",
            Self::MAX
        )
    }

    fn render(&self, clients: &Self::Value) -> String {
        let names: Vec<String> = clients
            .iter()
            .map(|client| match client {
                ClientIdentity::Dns(name) => quoted(&format!("dns:{name}")),
                ClientIdentity::Uri(uri) => quoted(&format!("uri:{uri}")),
                ClientIdentity::Below(uri) => quoted(&format!("uri:{uri}*")),
            })
            .collect();
        format!("[{}]", names.join(", "))
    }
}

/// A part of what there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The cache itself, over gRPC.
    Cache,
    /// Health: `grpc.health.v1.Health`; `/health`, `/ready` and `/live`.
    Probes,
    /// `/metrics`
    Metrics,
    /// `/`, `/history` and `/stats`.
    Status,
}

/// Parts, each once.
pub(super) struct Parts(pub(super) Choice<Part>);

pub(super) const GRPC_PARTS: Parts = Parts(Choice(&[("cache", Part::Cache), ("probes", Part::Probes)]));
pub(super) const HTTP_PARTS: Parts =
    Parts(Choice(&[("probes", Part::Probes), ("metrics", Part::Metrics), ("status", Part::Status)]));

impl Parts {
    pub(super) fn all(&self) -> Vec<Part> {
        self.0.0.iter().map(|(_, part)| *part).collect()
    }
}

impl Format for Parts {
    type Value = Vec<Part>;

    fn parse(&self, raw: &Raw) -> Option<Vec<Part>> {
        let Raw::Array(items) = raw else { return None };
        let mut parts = Vec::new();
        for item in items {
            let part = self.0.parse(&item.raw)?;
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        (!parts.is_empty()).then_some(parts)
    }

    fn allowed(&self) -> String {
        format!("a list of one or more of {}", self.0.allowed())
    }

    fn render(&self, parts: &Vec<Part>) -> String {
        format!("[{}]", parts.iter().map(|part| self.0.render(part)).collect::<Vec<_>>().join(", "))
    }
}

/// `[transport.auth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// `tokens_file`: the bearer tokens that are accepted, one a line.
    pub tokens_file: PathBuf,
    /// `reload_interval`: how often the file is looked at for changes. Default 10 s.
    pub reload_interval: Duration,
}

pub(super) fn auth(file: Option<Setting>, report: &mut Report) -> Option<AuthConfig> {
    let setting = file?;
    let place = setting.origin.clone();
    let table = report.expect_table("transport.auth", Some(setting));
    let says_something = table.contains_key("tokens_file");
    let mut section = Section::begin("transport.auth", "[transport.auth]", table, Vec::new(), report);
    let tokens_file = section.take_optional("tokens_file", &FilePath).map(|chosen| chosen.value);
    let reload_interval = section.take("reload_interval", &Span::SECOND, Duration::from_secs(10)).value;
    section.end();
    if !says_something {
        let complaint = Complaint::Missing("bearer tokens come from a file".to_owned());
        report.problem(&place, "transport.auth.tokens_file", complaint);
    }
    Some(AuthConfig { tokens_file: tokens_file?, reload_interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loader, Sources, TransportConfig};

    /// What a transport of these lines is, or what is said of it.
    fn transport(kind: &str, lines: &str) -> Result<TransportConfig, String> {
        let text = format!("[[transport]]\nkind = \"{kind}\"\n{lines}");
        let loader = Loader { policies: policies::REGISTRY, stores: &["memory"] };
        let read = loader.load_text("file", &text, &Sources::nothing());
        read.map(|read| read.config.transports[0].clone()).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_listener_has_all_parts_of_its_kind_or_those_it_lists() {
        use Part::{Cache, Metrics, Probes, Status};
        for (kind, serve, expected) in [
            ("grpc", "\"all\"", Some(&[Cache, Probes][..])),
            ("http", "\"all\"", Some(&[Probes, Metrics, Status])),
            ("grpc", "[\"probes\"]", Some(&[Probes])),
            ("http", "[\"status\", \"probes\", \"status\"]", Some(&[Status, Probes])),
            ("grpc", "[]", None),
            ("grpc", "[\"metrics\"]", None),
            ("http", "[\"cache\"]", None),
            ("http", "\"probes\"", None),
        ] {
            let found = transport(kind, &format!("serve = {serve}")).map(|config| config.serve);
            assert_eq!(found.as_deref().ok(), expected, "{kind} {serve}");
        }
        assert_eq!(transport("http", "").map(|config| config.serve), Ok(vec![Probes, Metrics, Status]));
    }

    #[test]
    fn clients_and_tokens_are_checked_at_the_start() {
        const TLS: &str = "[transport.tls]\ncert = \"c\"\nkey = \"k\"\n";
        for (lines, says) in [
            (
                format!("{TLS}clients = [\"dns:a\"]"),
                "file:6: transport.tls.clients: found an array, which needs client_ca",
            ),
            (
                format!("{TLS}client_ca = \"a\"\nclients = []"),
                "file:7: transport.tls.clients: found an empty array, allowed: a list of 1 to 1000 names",
            ),
            (
                format!("{TLS}client_ca = \"a\"\nclients = [\"dns:a\",\n\"b\"]"),
                "file:8: transport.tls.clients: found \"b\" in an array, allowed: a list of 1 to 1000 names",
            ),
            (
                "serve = [\"probes\", \"cahe\"]\n".to_owned(),
                "file:3: transport.serve: found \"cahe\" in an array, allowed: a list of one or more of",
            ),
            (
                "[transport.auth]\n".to_owned(),
                "file:3: transport.auth.tokens_file: missing; bearer tokens come from a file",
            ),
            (
                "[transport.auth]\ntokens_file = 7\n".to_owned(),
                "file:4: transport.auth.tokens_file: found 7, allowed: the path of a file",
            ),
            (
                "[transport.auth]\ntokens_file = \"t\"\ntoken = \"secret\"\n".to_owned(),
                "file:5: transport.auth.token: unknown key",
            ),
        ] {
            let told = transport("grpc", &lines).expect_err(&lines);
            assert!(told.starts_with(says) && !told.contains('\n') && !told.contains("secret"), "{told}");
        }
        let good =
            transport("grpc", &format!("{TLS}client_ca = \"a\"\nclients = [\"dns:A.b\", \"uri:s://t/*\"]"));
        let expected = [ClientIdentity::Dns("a.b".to_owned()), ClientIdentity::Below("s://t/".to_owned())];
        assert_eq!(good.expect("good").tls.expect("TLS").clients.as_deref(), Some(&expected[..]));
    }

    #[test]
    fn an_identity_is_a_dns_name_a_uri_or_all_below_one() {
        for (text, is_good) in [
            ("dns:app.internal", true),
            ("dns:App.Internal", true),
            ("uri:spiffe://td/ns/x/sa/y", true),
            ("uri:https://example.org/app?x=1", true),
            ("uri:spiffe://td/*", true),
            ("uri:spiffe://td/ns/x/*", true),
            ("", false),
            ("app.internal", false),
            ("dns:", false),
            ("dns:*.internal", false),
            ("dns:a b", false),
            ("cn:app", false),
            ("uri:", false),
            ("uri:app", false),
            ("uri:spiffe://", false),
            ("uri:spiffe:///x", false),
            ("uri:spiffe://*", false),
            ("uri:spiffe://td*", false),
            ("uri:spiffe://td/x*", false),
            ("uri:spiffe://td/*/x", false),
            ("uri:spiffe://td/a b", false),
        ] {
            assert_eq!(ClientIdentity::parse(text).is_some(), is_good, "{text}");
        }
    }

    #[test]
    fn an_identity_means_nobody_but_whom_it_names() {
        for (listed, name, is_meant) in [
            ("dns:app.internal", "dns:app.internal", true),
            ("dns:app.internal", "dns:APP.internal", true),
            ("dns:app.internal", "dns:app.internal.", false),
            ("dns:app.internal", "dns:app.internal.evil", false),
            ("dns:app.internal", "dns:x.app.internal", false),
            ("dns:app.internal", "dns:*.internal", false),
            ("dns:app.internal", "dns:app.internal\0.evil", false),
            ("dns:app.internal", "uri:app.internal", false),
            ("uri:spiffe://td/a", "uri:spiffe://td/a", true),
            ("uri:spiffe://td/a", "uri:spiffe://td/a/", false),
            ("uri:spiffe://td/a", "uri:spiffe://td/A", false),
            ("uri:spiffe://td/a", "uri:spiffe://td/a/b", false),
            ("uri:spiffe://td/a", "dns:spiffe://td/a", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/b", true),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/b/c", true),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/ab", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/../b", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/%2e%2e/b", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a//b", false),
            ("uri:spiffe://td/a/*", "uri:spiffe://td/a/b?c", false),
            ("uri:spiffe://td/*", "uri:spiffe://td.evil/a", false),
        ] {
            let identity = ClientIdentity::parse(listed).expect(listed);
            let found = match name.split_once(':').expect("a kind") {
                ("dns", name) => identity.is_dns(name),
                (_, uri) => identity.is_uri(uri),
            };
            assert_eq!(found, is_meant, "{listed} and {name}");
        }
    }
}
