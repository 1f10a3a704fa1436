//! The gRPC transport's services: the cache, health and reflection, dispatched by path.

mod cache;
mod call;
mod failure;
mod health;
mod message;
mod reply;
mod span;
mod streamed;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use crate::config::GrpcConfig;
use crate::proto;
use crate::service::CacheService;
use crate::telemetry::metrics::{RpcMethod, RpcMetrics};
use crate::telemetry::traces::Tracing;
use crate::transports::refused::RefusedRequests;

use cache::CacheRpc;
use call::Call;
use health::HealthRpc;

/// The largest message that a gRPC frame's 32-bit length can express.
pub const MAX_MESSAGE_BYTES: usize = u32::MAX as usize;

/// The body of a request: a connection's, or bytes at hand.
pub trait RequestBody:
    http_body::Body<Data = Bytes, Error: Into<BoxError> + Send + Unpin> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send + Unpin> + Send + Unpin + 'static
{
}

type SideService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Everything that is served over gRPC, as one HTTP service. Cloned per connection.
#[derive(Clone)]
pub struct GrpcService {
    shared: Arc<Shared>,
    cache: CacheRpc,
    /// Health and reflection: path prefix and service, few and rarely called.
    others: Arc<[(&'static str, SideService)]>,
}

/// What every call needs.
struct Shared {
    service: Arc<CacheService>,
    /// `None`: calls are not timed.
    rpc: Option<Arc<RpcMetrics>>,
    refused: Arc<RefusedRequests>,
    /// `None`: calls have no spans.
    tracing: Option<Arc<Tracing>>,
}

impl Shared {
    fn record(&self, method: RpcMethod, code: Code, began: Instant) {
        if let Some(rpc) = &self.rpc {
            rpc.record(method, code.into(), began.elapsed());
        }
    }
}

impl AsRef<CacheService> for Shared {
    fn as_ref(&self) -> &CacheService {
        &self.service
    }
}

impl GrpcService {
    /// The services. `draining` turns true when a shutdown begins; `rpc` is where calls are recorded, if anywhere;
    /// `refused` is where is counted what came to nothing; `tracing` makes spans, if anything does.
    ///
    /// # Panics
    ///
    /// If the embedded descriptor sets are no descriptor sets.
    #[must_use]
    pub fn new(
        service: Arc<CacheService>,
        config: &GrpcConfig,
        draining: watch::Receiver<bool>,
        rpc: Option<Arc<RpcMetrics>>,
        refused: Arc<RefusedRequests>,
        tracing: Option<Arc<Tracing>>,
    ) -> Self {
        let cache = CacheRpc::new(Arc::clone(&service), config.max_message_bytes);
        let mut others = vec![side(HealthServer::new(HealthRpc::new(draining)))];
        if config.reflection {
            let descriptors = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                    // By itself each version tells of itself only.
                    .include_reflection_service(false)
                    .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
            };
            let valid = "the embedded descriptor sets are valid";
            others.push(side(descriptors().build_v1().expect(valid)));
            others.push(side(descriptors().build_v1alpha().expect(valid)));
        }
        Self { shared: Arc::new(Shared { service, rpc, refused, tracing }), cache, others: others.into() }
    }
}

fn side<S>(service: S) -> (&'static str, SideService)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    (S::NAME, BoxCloneSyncService::new(service))
}

/// The service part of a path like `/cache.CacheService/Get`.
fn service_name(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').map_or(path, |(service, _)| service)
}

impl<B: RequestBody> Service<Request<B>> for GrpcService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CallFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> CallFuture {
        let Self { shared, cache, others } = self;
        CallFuture(Call::start(shared, request, |request, id| {
            let name = service_name(request.uri().path());
            if name == CacheRpc::NAME {
                return cache.call(request, id);
            }
            match others.iter().find(|(other, _)| *other == name) {
                Some((_, other)) => Box::pin(other.clone().call(request.map(Body::new))),
                None => Box::pin(async { Ok(Status::unimplemented("unknown service").into_http()) }),
            }
        }))
    }
}

/// A call in flight.
pub struct CallFuture(Call);

impl Future for CallFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}
