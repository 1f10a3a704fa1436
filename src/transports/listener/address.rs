//! Where a listener is, in the form that people read and type.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// Shown as `127.0.0.1:50051`.
    Tcp(SocketAddr),
    /// Shown as `unix:/run/tiny-cache.sock`.
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
