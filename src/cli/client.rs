//! The client side of a connection: its options, and calls with their metadata and deadline.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use super::error::{CliError, root_reason};
use super::parse;
use super::target::Target;
use crate::proto::cache_service_client::CacheServiceClient;

/// What every client command can be told about its connection.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientArgs {
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "The server: host:port, http://host:port, https://host:port or unix:/path",
        env = "TINY_CACHE_TARGET",
        default_value = "http://127.0.0.1:50051",
        help_heading = "Connection"
    )]
    target: Target,
    /// How long connecting may take, and each request (250ms, 5s, 1m)
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = parse::timeout,
        help_heading = "Connection"
    )]
    timeout: Duration,
    /// Keep to the keys of this namespace
    #[arg(long, value_name = "NAME", value_parser = metadata_value, help_heading = "Connection")]
    namespace: Option<AsciiMetadataValue>,
    /// The id under which the server logs the request; the server makes one if there is none
    #[arg(long, value_name = "ID", value_parser = metadata_value, help_heading = "Connection")]
    request_id: Option<AsciiMetadataValue>,
    #[command(flatten)]
    tls: TlsArgs,
    #[arg(
        long,
        value_name = "FILE",
        help = "Send the bearer token in this file. Without TLS it can be read on the way",
        env = "TINY_CACHE_TOKEN_FILE",
        help_heading = "Connection"
    )]
    token_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct TlsArgs {
    /// Use TLS; https:// and each of the following options imply it
    #[arg(long, help_heading = "TLS")]
    tls: bool,
    /// Trust the certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// Show the server this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// The name to expect in the server's certificate, if it is not the target's
    #[arg(long, value_name = "NAME", help_heading = "TLS")]
    tls_server_name: Option<String>,
}

fn metadata_value(text: &str) -> Result<AsciiMetadataValue, String> {
    text.parse().map_err(|_| "only printable ASCII characters are allowed".to_owned())
}

impl TlsArgs {
    fn is_wanted(&self) -> bool {
        self.tls || self.tls_ca.is_some() || self.tls_cert.is_some() || self.tls_server_name.is_some()
    }

    fn client_config(&self) -> Result<ClientTlsConfig, CliError> {
        let mut config = match &self.tls_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &self.tls_server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(CliError::read(path))
}

impl ClientArgs {
    /// Runs a command that talks to one server, one request after the other.
    pub(super) fn run<T, F: Future<Output = Result<T, CliError>>>(
        &self,
        command: impl FnOnce(Connection) -> F,
    ) -> Result<T, CliError> {
        single_threaded()?.block_on(async { command(self.connect().await?).await })
    }

    /// Opens a connection, within the timeout.
    pub(super) async fn connect(&self) -> Result<Connection, CliError> {
        let endpoint = self.endpoint()?;
        let failed = |reason| CliError::Connect { target: self.target.to_string(), reason };
        let channel = tokio::time::timeout(self.timeout, endpoint.connect())
            .await
            .map_err(|_| failed(format!("no answer within {:?}", self.timeout)))?
            .map_err(|error| failed(root_reason(&error)))?;
        Ok(Connection { channel, authorization: self.authorization()?, args: self.clone() })
    }

    /// What tells the server that we may.
    fn authorization(&self) -> Result<Option<AsciiMetadataValue>, CliError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(CliError::read(path))?;
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = Some(text.trim()).filter(|text| is_token(text));
        let value = value.and_then(|token| AsciiMetadataValue::try_from(format!("Bearer {token}")).ok());
        let mut value = value.ok_or_else(|| CliError::TokenFile(path.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn endpoint(&self) -> Result<Endpoint, CliError> {
        let wants_tls = self.tls.is_wanted();
        let (uri, tls) = match &self.target {
            Target::Unix(_) if wants_tls => {
                return Err(CliError::Usage("TLS is for TCP, not for a Unix socket".to_owned()));
            }
            Target::Unix(path) => (format!("unix://{}", path.display()), false),
            Target::Tcp { authority, https } => {
                let tls = *https || wants_tls;
                (format!("{}://{authority}", if tls { "https" } else { "http" }), tls)
            }
        };
        let failed = |error: tonic::transport::Error| CliError::Connect {
            target: self.target.to_string(),
            reason: root_reason(&error),
        };
        let endpoint = Endpoint::from_shared(uri).map_err(failed)?;
        if tls { endpoint.tls_config(self.tls.client_config()?).map_err(failed) } else { Ok(endpoint) }
    }
}

/// An open connection. Cheap to clone: clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    channel: Channel,
    authorization: Option<AsciiMetadataValue>,
    args: ClientArgs,
}

impl Connection {
    /// The cache service, with no limit of ours on the size of a message.
    pub(super) fn cache(&self) -> CacheServiceClient<Channel> {
        CacheServiceClient::new(self.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// The connection itself, for services other than the cache.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn target(&self) -> &Target {
        &self.args.target
    }

    /// A request with this connection's metadata and deadline.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.args.timeout);
        let metadata = request.metadata_mut();
        if let Some(namespace) = &self.args.namespace {
            metadata.insert("x-cache-namespace", namespace.clone());
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        if let Some(id) = &self.args.request_id {
            metadata.insert("x-request-id", id.clone());
        }
        request
    }

    /// Waits for a call and tells a missing answer from a refusal.
    pub(super) async fn finish<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        let started = Instant::now();
        match call.await {
            Ok(response) => Ok(response.into_inner()),
            // The client's own timer reports as a cancellation.
            Err(status)
                if started.elapsed() >= self.args.timeout
                    && matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) =>
            {
                Err(CliError::Timeout { target: self.args.target.to_string(), timeout: self.args.timeout })
            }
            Err(status) => Err(CliError::Call(Box::new(status))),
        }
    }
}

/// A runtime for one thing at a time.
pub(super) fn single_threaded() -> Result<Runtime, CliError> {
    Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}
