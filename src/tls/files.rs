//! From PEM files to a rustls configuration, with errors that name the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, version};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::clients::ListedClients;
use crate::config::TlsConfig;
use crate::pem;
use crate::rotated::SecretFile;

/// The bytes of the files. Hashable, so that a change is noticed without keeping a private key around.
#[derive(Hash)]
pub struct PemFiles {
    cert: Vec<u8>,
    key: SecretFile,
    client_ca: Option<Vec<u8>>,
}

impl PemFiles {
    pub(super) fn read(paths: &TlsConfig) -> Result<Self, TlsError> {
        let unreadable = |path: &PathBuf| {
            let path = path.clone();
            |error: io::Error| TlsError::Unreadable { path, cause: error.to_string() }
        };
        let read = |path: &PathBuf| std::fs::read(path).map_err(unreadable(path));
        Ok(Self {
            cert: read(&paths.cert)?,
            key: SecretFile::read(&paths.key, u64::MAX).map_err(unreadable(&paths.key))?,
            client_ca: paths.client_ca.as_ref().map(read).transpose()?,
        })
    }

    /// Checks everything. `paths` is for the error messages. Also tells when the certificate expires.
    pub(super) fn into_server_config(
        self,
        paths: &TlsConfig,
    ) -> Result<(ServerConfig, Option<u64>), TlsError> {
        let provider = Arc::new(ring::default_provider());
        let identity = identity(&self.cert, &self.key.bytes, paths, &provider)?;
        self.key.warn_if_exposed(&paths.key, "the private key");
        let expiry = identity.end_entity_cert().ok().and_then(expiry);
        let setup =
            |error: rustls::Error| TlsError::Setup { cert: paths.cert.clone(), cause: error.to_string() };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(setup)?;
        let asks_for_clients = self.client_ca.is_some();
        let builder = match (self.client_ca, &paths.client_ca) {
            (Some(bundle), Some(path)) => {
                let roots = Arc::new(client_roots(&bundle, path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| bad_client_ca(path, &error))?;
                builder.with_client_cert_verifier(match &paths.clients {
                    Some(clients) => Arc::new(ListedClients::new(verifier, clients.clone())),
                    None => verifier,
                })
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        if asks_for_clients {
            // A session that is resumed shows no certificate, which may have expired or be unwanted by now.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok((config, expiry))
    }
}

/// In Unix seconds. rustls has read the certificate already; what it accepts and we cannot read has no expiry.
fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

fn identity(
    cert: &[u8],
    key: &[u8],
    paths: &TlsConfig,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert, &paths.cert)?;
    let bad_key = |cause: String| TlsError::BadKey { path: paths.key.clone(), cause };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey { path: paths.key.clone() },
        error => bad_key(pem::damage(&error)),
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| bad_key(error.to_string()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        // Some keys cannot tell their public half; then the first handshake has to.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { key: paths.key.clone(), cert: paths.cert.clone() })
        }
        Err(error) => Err(TlsError::BadCertificate { path: paths.cert.clone(), cause: error.to_string() }),
    }
}

fn client_roots(bundle: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bundle, path)? {
        roots.add(certificate).map_err(|error| bad_client_ca(path, &error))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::BadCertificate { path: path.to_owned(), cause: pem::damage(&error) })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

fn bad_client_ca(path: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::BadClientCa { path: path.to_owned(), cause: error.to_string() }
}
