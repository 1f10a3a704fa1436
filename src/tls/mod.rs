//! TLS for listeners: certificates from PEM files, read again when they change.
//!
//! TLS 1.2 and 1.3 only, with rustls' suites on ring: every one has forward secrecy and authenticated encryption.

mod clients;
mod files;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

pub use self::clients::{is_listed, is_unlisted_client};
pub use self::files::PemFiles;
use crate::config::TlsConfig;
use crate::rotated::{Files, Rotated};

/// Why certificates cannot be used. Every message is one line that names the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The file is not PEM, or one of its certificates is damaged.
    #[error("{}: not a valid PEM certificate: {cause}", path.display())]
    BadCertificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The file has no certificate.
    #[error("{}: no certificate found in it (a PEM block \"CERTIFICATE\" is needed)", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The file has no private key, or an encrypted one.
    #[error("{}: no private key found in it (an unencrypted PEM block \"PRIVATE KEY\" is needed)", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The private key is damaged or of a kind that is not supported.
    #[error("{}: the private key cannot be used: {cause}", path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Certificate and key do not belong together.
    #[error("the private key in {} does not match the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The bundle cannot verify clients.
    #[error("{}: cannot be used to verify clients: {cause}", path.display())]
    BadClientCa {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The pieces are fine, but rustls refuses to serve with them.
    #[error("{}: TLS cannot be set up: {cause}", cert.display())]
    Setup {
        /// The certificate's file.
        cert: PathBuf,
        /// What rustls says.
        cause: String,
    },
}

/// What a handshake offers to speak next (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// "h2"
    Http2,
    /// "http/1.1"
    Http1,
}

/// The same certificates, once for each protocol that a listener may speak.
pub struct Configs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
    /// In Unix seconds; `None` where the certificate does not say it in a way that can be read.
    expiry: Option<u64>,
}

/// The certificates in force for a listener, and where to find newer ones.
///
/// A reload never touches an established connection: it only decides what the next handshake uses.
pub type ServerTls = Rotated<TlsConfig>;

impl Files for TlsConfig {
    type Contents = PemFiles;
    type Value = Configs;
    type Error = TlsError;
    const WHAT: &'static str = "TLS certificates";

    fn read(&self) -> Result<PemFiles, TlsError> {
        PemFiles::read(self)
    }

    fn load(&self, files: PemFiles) -> Result<Configs, TlsError> {
        files.into_server_config(self).map(Configs::new)
    }

    fn path(&self) -> &Path {
        &self.cert
    }

    fn reload_interval(&self) -> Duration {
        self.reload_interval
    }
}

impl ServerTls {
    /// What the next handshake is to use.
    pub fn server_config(&self, alpn: Alpn) -> Arc<ServerConfig> {
        let current = self.current();
        match alpn {
            Alpn::Http2 => Arc::clone(&current.http2),
            Alpn::Http1 => Arc::clone(&current.http1),
        }
    }

    /// When the certificate in use expires, in Unix seconds, where that is known.
    pub fn expiry(&self) -> Option<u64> {
        self.current().expiry
    }
}

impl Configs {
    fn new((config, expiry): (ServerConfig, Option<u64>)) -> Self {
        let with_alpn = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Self { http2: with_alpn(b"h2"), http1: with_alpn(b"http/1.1"), expiry }
    }
}
