//! How the values of keys are written: one small type per kind of value, which reads it, says what is
//! allowed, and writes it back.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::document::Raw;
use super::model::ListenAddress;
use crate::namespace::{MAX_NAMESPACE_CHARS, is_namespace};

/// The way in which a key's value is written.
pub(super) trait Format {
    /// What is read.
    type Value;

    /// The value, or `None` where it is not allowed.
    fn parse(&self, raw: &Raw) -> Option<Self::Value>;

    /// What is allowed, in words that follow "allowed: ".
    fn allowed(&self) -> String;

    /// As TOML. [`Self::parse`] reads it back as the same value.
    fn render(&self, value: &Self::Value) -> String;

    /// As [`Self::render`], without what is secret in it: for `config show`, messages and the log.
    fn show(&self, value: &Self::Value) -> String {
        self.render(value)
    }

    /// Whether what was written may be secret even where it is not allowed.
    fn is_secret(&self) -> bool {
        false
    }

    /// The names among which a misspelt one may be found.
    fn names(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// A text without the user, the password and the query that a URL in it may have.
pub(super) fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (place, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let authority = place.find('/').unwrap_or(place.len());
    let (user, place) = match place[..authority].rfind('@') {
        Some(at) => (HIDDEN, &place[at..]),
        None => ("", place),
    };
    let query = query.get(..1).map(|mark| format!("{mark}{HIDDEN}")).unwrap_or_default();
    format!("{scheme}://{user}{place}{query}")
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// A whole number, `min` to `max`.
pub(super) struct Count {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Count {
    pub(super) const fn at_least(min: u64) -> Self {
        Self { min, max: i64::MAX as u64 }
    }
}

impl Format for Count {
    type Value = u64;

    fn parse(&self, raw: &Raw) -> Option<u64> {
        let Raw::Integer(integer) = raw else { return None };
        u64::try_from(*integer).ok().filter(|count| (self.min..=self.max).contains(count))
    }

    fn allowed(&self) -> String {
        if self.max == i64::MAX as u64 {
            format!("a whole number, at least {}", self.min)
        } else {
            format!("a whole number from {} to {}", self.min, self.max)
        }
    }

    fn render(&self, count: &u64) -> String {
        count.to_string()
    }
}

/// A power of two, 1 to `max`.
pub(super) struct PowerOfTwo {
    pub(super) max: u64,
}

impl Format for PowerOfTwo {
    type Value = u64;

    fn parse(&self, raw: &Raw) -> Option<u64> {
        Count { min: 1, max: self.max }.parse(raw).filter(|count| count.is_power_of_two())
    }

    fn allowed(&self) -> String {
        format!("a power of two from 1 to {}", self.max)
    }

    fn render(&self, count: &u64) -> String {
        count.to_string()
    }
}

/// A share of a whole, up to 1 and, unless it may be `zero`, over 0.
pub(super) struct Fraction {
    pub(super) zero: bool,
}

impl Format for Fraction {
    type Value = f64;

    fn parse(&self, raw: &Raw) -> Option<f64> {
        let fraction = match raw {
            Raw::Float(fraction) => *fraction,
            Raw::Integer(0) => 0.0,
            Raw::Integer(1) => 1.0,
            _ => return None,
        };
        let is_enough = if self.zero { fraction >= 0.0 } else { fraction > 0.0 };
        (is_enough && fraction <= 1.0).then_some(fraction)
    }

    fn allowed(&self) -> String {
        let allowed = if self.zero { "a number from 0.0 to 1.0" } else { "a number over 0 and up to 1" };
        allowed.to_owned()
    }

    fn render(&self, fraction: &f64) -> String {
        toml::Value::Float(*fraction).to_string()
    }
}

/// What the inner format allows, or a word such as "unlimited" that stands for `None`.
pub(super) struct OrWord<F>(pub(super) &'static str, pub(super) F);

impl<F: Format> Format for OrWord<F> {
    type Value = Option<F::Value>;

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        match raw {
            Raw::Text(text) if text == self.0 => Some(None),
            raw => self.1.parse(raw).map(Some),
        }
    }

    fn allowed(&self) -> String {
        format!("{}, or {:?}", self.1.allowed(), self.0)
    }

    fn render(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| quoted(self.0), |value| self.1.render(value))
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| quoted(self.0), |value| self.1.show(value))
    }

    fn is_secret(&self) -> bool {
        self.1.is_secret()
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names = self.1.names();
        names.push(self.0);
        names
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Format for Switch {
    type Value = bool;

    fn parse(&self, raw: &Raw) -> Option<bool> {
        if let Raw::Boolean(on) = raw { Some(*on) } else { None }
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn render(&self, on: &bool) -> String {
        on.to_string()
    }
}

/// One of a few words, each with its meaning.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Format for Choice<T> {
    type Value = T;

    fn parse(&self, raw: &Raw) -> Option<T> {
        let Raw::Text(text) = raw else { return None };
        self.0.iter().find(|(name, _)| name == text).map(|(_, value)| *value)
    }

    fn allowed(&self) -> String {
        list(&self.names())
    }

    fn render(&self, value: &T) -> String {
        let name = self.0.iter().find(|(_, candidate)| candidate == value).map_or("", |(name, _)| *name);
        quoted(name)
    }

    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

/// A name out of a registry.
pub(super) struct Name(pub(super) Vec<&'static str>);

impl Format for Name {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Option<String> {
        let Raw::Text(text) = raw else { return None };
        self.0.contains(&text.as_str()).then(|| text.clone())
    }

    fn allowed(&self) -> String {
        list(&self.0)
    }

    fn render(&self, name: &String) -> String {
        quoted(name)
    }

    fn names(&self) -> Vec<&'static str> {
        self.0.clone()
    }
}

/// A list of namespaces.
pub(super) struct Namespaces;

impl Namespaces {
    /// Each of them is a label of metrics, which are kept for as long as the server runs.
    const MAX: usize = 100;
}

impl Format for Namespaces {
    type Value = Vec<String>;

    fn parse(&self, raw: &Raw) -> Option<Vec<String>> {
        let Raw::Array(items) = raw else { return None };
        let names = items.iter().map(|item| match &item.raw {
            Raw::Text(name) if !name.is_empty() && is_namespace(name) => Some(name.clone()),
            _ => None,
        });
        names.collect::<Option<Vec<_>>>().filter(|names| names.len() <= Self::MAX)
    }

    fn allowed(&self) -> String {
        format!(
            "a list of at most {} namespaces such as [\"sessions\"], each of at most {MAX_NAMESPACE_CHARS} characters, \
             first a letter or digit, then letters, digits, '.', '_' or '-'",
            Self::MAX
        )
    }

    fn render(&self, names: &Vec<String>) -> String {
        format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
    }
}

/// The path of a file.
pub(super) struct FilePath;

impl Format for FilePath {
    type Value = PathBuf;

    fn parse(&self, raw: &Raw) -> Option<PathBuf> {
        let Raw::Text(text) = raw else { return None };
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    }

    fn allowed(&self) -> String {
        "the path of a file".to_owned()
    }

    fn render(&self, path: &PathBuf) -> String {
        quoted(&path.to_string_lossy())
    }
}

/// Where to listen, together with how it was written: a name's addresses may change, it does not.
pub(super) struct Listen;

impl Format for Listen {
    type Value = (String, ListenAddress);

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        let Raw::Text(text) = raw else { return None };
        let address = if let Some(path) = text.strip_prefix("unix:") {
            (!path.is_empty() && !path.contains('\0')).then(|| ListenAddress::Unix(PathBuf::from(path)))?
        } else {
            ListenAddress::Tcp(resolve(text)?)
        };
        Some((text.clone(), address))
    }

    fn allowed(&self) -> String {
        "an address such as \"127.0.0.1:50051\", \"[::]:50051\" or \"unix:/run/tiny-cache.sock\", \
         or a host name that resolves, with a port"
            .to_owned()
    }

    fn render(&self, (text, _): &Self::Value) -> String {
        quoted(text)
    }
}

fn resolve(text: &str) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = text.parse() {
        return Some(vec![address]);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())??;
    // A fuzz target asks no name server: what it makes up is nobody's business.
    if !is_host_name(host) || (cfg!(fuzzing) && host != "localhost") {
        return None;
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs().ok()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    (!addresses.is_empty()).then_some(addresses)
}

/// Whether it is worth asking a resolver about. One with only digits and dots is a misspelt address.
pub(super) fn is_host_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}
