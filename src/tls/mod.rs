//! TLS for listeners: certificates from PEM files, read again when they change.
//!
//! A reload never touches an established connection: it only decides what the next handshake uses. Files that
//! cannot be used leave the certificates in force as they are, so a bad rotation is a log line and a counter,
//! not an outage.

mod files;
#[cfg(test)]
pub(crate) mod tests;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::files::PemFiles;
use crate::config::TlsConfig;

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
struct Configs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
    /// In Unix seconds; `None` where the certificate does not say it in a way that can be read.
    expiry: Option<u64>,
}

/// What the last attempt to load saw and how it ended.
struct Attempt {
    fingerprint: u64,
    failure: Option<TlsError>,
}

/// The certificates in force for a listener, and where to find newer ones.
pub struct ServerTls {
    files: TlsConfig,
    current: RwLock<Configs>,
    last_attempt: Mutex<Attempt>,
    hasher: RandomState,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
}

impl ServerTls {
    /// Reads and checks the files.
    pub fn load(files: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let hasher = RandomState::new();
        let read = PemFiles::read(files);
        let fingerprint = hasher.hash_one(&read);
        let current = Configs::new(read?.into_server_config(files)?);
        Ok(Arc::new(Self {
            files: files.clone(),
            current: RwLock::new(current),
            last_attempt: Mutex::new(Attempt { fingerprint, failure: None }),
            hasher,
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        }))
    }

    /// What the next handshake is to use.
    pub fn server_config(&self, alpn: Alpn) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match alpn {
            Alpn::Http2 => Arc::clone(&current.http2),
            Alpn::Http1 => Arc::clone(&current.http1),
        }
    }

    /// Reads the files again, whether or not they changed, and uses them from the next handshake on.
    ///
    /// Where they cannot be used everything stays as it is. That is logged when the failure is another one than
    /// the last time, and counted always. Blocks on file I/O.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = PemFiles::read(&self.files);
        let mut last = self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        self.attempt(read, &mut last)
    }

    /// As [`reload`](Self::reload), but only where the files differ from those of the last attempt.
    fn reload_if_changed(&self) {
        let read = PemFiles::read(&self.files);
        let mut last = self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if self.hasher.hash_one(&read) != last.fingerprint {
            // A failure has been logged and counted, and the next change is another chance.
            drop(self.attempt(read, &mut last));
        }
    }

    fn attempt(&self, read: Result<PemFiles, TlsError>, last: &mut Attempt) -> Result<(), TlsError> {
        last.fingerprint = self.hasher.hash_one(&read);
        match read.and_then(|files| files.into_server_config(&self.files)) {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Configs::new(loaded);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                last.failure = None;
                tracing::info!(cert = %self.files.cert.display(), "TLS certificates reloaded");
                Ok(())
            }
            Err(error) => {
                self.reload_failures.fetch_add(1, Ordering::Relaxed);
                if last.failure.as_ref() != Some(&error) {
                    tracing::error!(%error, "TLS certificates not reloaded, the previous ones stay in use");
                    last.failure = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Looks at the files every `interval` and reloads what changed, until `shutdown`.
    ///
    /// It compares contents, not file times or inodes: that is what works where a directory is swapped under the
    /// files by a symbolic link, as Kubernetes does, or where a file system has coarse times.
    pub async fn watch(self: Arc<Self>, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let tls = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await {
                tracing::error!(%error, "checking the TLS certificates for changes failed");
            }
        }
    }

    /// The files this was loaded from, and how often to look at them.
    pub fn files(&self) -> &TlsConfig {
        &self.files
    }

    /// When the certificate in use expires, in Unix seconds, where that is known.
    pub fn expiry(&self) -> Option<u64> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).expiry
    }

    /// How often newer certificates were taken into use.
    pub fn reloads_total(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often newer files could not be used.
    pub fn reload_failures_total(&self) -> u64 {
        self.reload_failures.load(Ordering::Relaxed)
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

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}
