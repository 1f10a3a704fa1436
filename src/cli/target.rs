//! Where a server is: `--target`, parsed once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// The port where none is given, whatever the scheme.
const DEFAULT_PORT: u16 = 50051;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `host:port`, `http://…`, `https://…`. The authority always has a port.
    Tcp {
        /// Host and port.
        authority: String,
        /// Whether the scheme asks for TLS.
        https: bool,
    },
    /// `unix:/path`, always absolute or relative to the working directory.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{why}; expected host:port, http://host:port, https://host:port or unix:/path")
        };
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.is_empty() { Err(wrong("no path")) } else { Ok(Self::Unix(path.into())) };
        }
        let (https, address) = match text.split_once("://") {
            None => (false, text),
            Some(("http", address)) => (false, address),
            Some(("https", address)) => (true, address),
            Some(_) => return Err(wrong("unknown scheme")),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let parsed: Authority = address.parse().map_err(|_| wrong("not an address"))?;
        if parsed.host().is_empty() || address.contains('@') {
            return Err(wrong("not an address"));
        }
        let authority = match address.strip_prefix(parsed.host()) {
            Some("") => format!("{address}:{DEFAULT_PORT}"),
            Some(port) if port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()) => {
                address.to_owned()
            }
            _ => return Err(wrong("not a port")),
        };
        Ok(Self::Tcp { authority, https })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, .. } => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_address_is_understood() {
        for (text, authority, https) in [
            ("127.0.0.1:1", "127.0.0.1:1", false),
            ("http://127.0.0.1:50051", "127.0.0.1:50051", false),
            ("http://cache:1/", "cache:1", false),
            ("https://cache", "cache:50051", true),
            ("[::1]:7", "[::1]:7", false),
            ("localhost", "localhost:50051", false),
        ] {
            assert_eq!(text.parse(), Ok(Target::Tcp { authority: authority.to_owned(), https }), "{text}");
        }
        for text in ["unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(text.parse(), Ok(Target::Unix("/run/x.sock".into())), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "unix:", "ftp://x", "http://", "host:port", "host:99999", "a b", "host/path", "u@h:1"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
