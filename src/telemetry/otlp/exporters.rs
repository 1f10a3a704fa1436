//! The exporters of the SDK, made as the configuration says: over gRPC or HTTP, with or without TLS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::{OtlpProtocol, OtlpTarget};

/// Why telemetry could not be set up. What goes wrong later is no error but counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A file with certificates or a key cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use the certificates for {endpoint}: {cause}")]
    Tls {
        /// The collector.
        endpoint: String,
        /// Why.
        cause: String,
    },
    /// The exporter refuses its configuration.
    #[error("cannot export to {endpoint}: {cause}")]
    Exporter {
        /// The collector.
        endpoint: String,
        /// Why.
        #[source]
        cause: ExporterBuildError,
    },
    /// The thread that exports cannot be started.
    #[error("cannot start a thread for telemetry: {0}")]
    Thread(#[source] io::Error),
}

/// Makes the exporter of one signal: the three have the same builder, but not the same type.
macro_rules! exporter {
    ($exporter:ident, $target:expr) => {{
        let target: &OtlpTarget = $target;
        let built = match target.protocol {
            OtlpProtocol::Grpc => {
                let mut builder = $exporter::builder()
                    .with_tonic()
                    .with_endpoint(&target.endpoint)
                    .with_timeout(target.timeout)
                    .with_metadata(MetadataMap::from_headers(headers(target)));
                if is_secure(target) {
                    builder = builder.with_tls_config(grpc_tls(target)?);
                }
                if target.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
            OtlpProtocol::Http => {
                let mut builder = $exporter::builder()
                    .with_http()
                    .with_protocol(Protocol::HttpBinary)
                    .with_endpoint(&target.endpoint)
                    .with_timeout(target.timeout)
                    .with_headers(target.headers.iter().cloned().collect())
                    .with_shared_http_client(http_client(target)?);
                if target.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
        };
        built.map_err(|cause| OtlpError::Exporter { endpoint: target.endpoint.clone(), cause })
    }};
}

pub(super) fn metrics(target: &OtlpTarget) -> Result<MetricExporter, OtlpError> {
    exporter!(MetricExporter, target)
}

pub(super) fn spans(target: &OtlpTarget) -> Result<SpanExporter, OtlpError> {
    exporter!(SpanExporter, target)
}

pub(super) fn logs(target: &OtlpTarget) -> Result<LogExporter, OtlpError> {
    exporter!(LogExporter, target)
}

fn is_secure(target: &OtlpTarget) -> bool {
    target.endpoint.starts_with("https:")
}

fn headers(target: &OtlpTarget) -> HeaderMap {
    let pairs = target.headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    pairs.collect()
}

fn read(path: &Path) -> Result<Vec<u8>, OtlpError> {
    fs::read(path).map_err(|cause| OtlpError::File { path: path.to_owned(), cause })
}

fn grpc_tls(target: &OtlpTarget) -> Result<ClientTlsConfig, OtlpError> {
    let mut tls = match &target.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &target.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

type HttpClient = Arc<dyn opentelemetry_http::HttpClient>;

fn http_client(target: &OtlpTarget) -> Result<HttpClient, OtlpError> {
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(http_tls(target)?).https_or_http().enable_http1();
    Ok(Arc::new(HyperClient::new(connector.build(), target.timeout, None)))
}

fn http_tls(target: &OtlpTarget) -> Result<ClientConfig, OtlpError> {
    let unusable = |cause: &dyn std::fmt::Display| OtlpError::Tls {
        endpoint: target.endpoint.clone(),
        cause: cause.to_string(),
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, OtlpError> {
        let pem = read(path)?;
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| unusable(&error))
    };
    let is_secure = is_secure(target);
    let mut roots = RootCertStore::empty();
    match &target.ca {
        // Nothing is read that nobody needs.
        _ if !is_secure => {}
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots);
    match target.identity.as_ref().filter(|_| is_secure) {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| unusable(&error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| unusable(&error))
        }
    }
}
