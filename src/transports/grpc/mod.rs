//! The gRPC transport's services: the cache, health and reflection, dispatched by path.

mod cache;
mod call;
mod drained;
mod failure;
mod health;
mod message;
mod packed;
mod reply;
mod room;
mod span;
mod streamed;
mod view;

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use crate::config::{ConnectionConfig, GrpcConfig, Part};
use crate::proto;
use crate::service::CacheService;
use crate::telemetry::metrics::{RpcMethod, RpcMetrics};
use crate::telemetry::traces::Tracing;
use crate::transports::access::{Access, Denied};
use crate::transports::in_flight::InFlight;

use cache::CacheRpc;
use call::{Call, Handler, RequestId};
use drained::Drained;
use health::HealthRpc;
use span::CallSpan;

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

/// The largest message to health and reflection, which gather it without being charged: far more than a name takes.
const MAX_SIDE_MESSAGE_BYTES: usize = 4 << 10;

/// How many places of a listener's streams that last a stream of reflection takes, which holds up to 96 KiB where its client
/// does not read the answers; a watch of health takes one, and 7 KiB.
const REFLECTION_PLACES: u64 = 4;

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
    access: Access,
    in_flight: Arc<InFlight>,
    max_metadata_bytes: usize,
    request_timeout: Duration,
    /// `None`: calls have no spans.
    tracing: Option<Arc<Tracing>>,
}

impl Shared {
    /// A call has ended: it is recorded where it is timed, and so is its span where it has one.
    fn record(&self, method: RpcMethod, code: Code, began: Option<Instant>, span: Option<CallSpan>) {
        if let (Some(rpc), Some(began)) = (&self.rpc, began) {
            rpc.record(method, code.into(), began.elapsed());
        }
        if let Some(span) = span {
            span.end(code);
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
    /// `in_flight` is what the listener in front bounds; `access` says which parts are there and who may ask for them;
    /// `tracing` makes spans, if anything does. Reflection is there with the cache, if it is wanted.
    ///
    /// # Panics
    ///
    /// If the embedded descriptor sets are no descriptor sets.
    #[must_use]
    pub fn new(
        service: Arc<CacheService>,
        (connections, config): (&ConnectionConfig, &GrpcConfig),
        draining: watch::Receiver<bool>,
        rpc: Option<Arc<RpcMetrics>>,
        in_flight: Arc<InFlight>,
        access: Access,
        tracing: Option<Arc<Tracing>>,
    ) -> Self {
        let cache = CacheRpc::new(Arc::clone(&service), config, Arc::clone(&in_flight));
        let mut others = Vec::new();
        if access.serves(Part::Probes) {
            let health = HealthServer::new(HealthRpc::new(draining));
            others.push(side(health.max_decoding_message_size(MAX_SIDE_MESSAGE_BYTES)));
        }
        if config.reflection && access.serves(Part::Cache) {
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
            let v1 = descriptors().build_v1().expect(valid);
            let v1alpha = descriptors().build_v1alpha().expect(valid);
            others.push(side(v1.max_decoding_message_size(MAX_SIDE_MESSAGE_BYTES)));
            others.push(side(v1alpha.max_decoding_message_size(MAX_SIDE_MESSAGE_BYTES)));
        }
        let shared = Shared {
            service,
            rpc,
            access,
            in_flight,
            max_metadata_bytes: connections.max_metadata_bytes as usize,
            request_timeout: connections.request_timeout,
            tracing,
        };
        Self { shared: Arc::new(shared), cache, others: others.into() }
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
            if shared.access.needs_token()
                && name != HEALTH
                && let Err(denied) = authorize(shared, &request, id)
            {
                return Box::pin(ready(Ok(denied.into_http())));
            }
            if name == CacheRpc::NAME && shared.access.serves(Part::Cache) {
                return cache.call(request, id);
            }
            match others.iter().find(|(other, _)| *other == name) {
                Some((_, other)) => call_side(other, request, &shared.in_flight),
                None => Box::pin(async { Ok(Status::unimplemented("unknown service").into_http()) }),
            }
        }))
    }
}

/// Calls health or reflection: where the answer is a stream, it has a place for as long as it is there.
fn call_side(
    service: &SideService,
    request: Request<impl RequestBody>,
    in_flight: &Arc<InFlight>,
) -> Handler {
    let path = request.uri().path();
    let places = if service_name(path) == HEALTH { 1 } else { REFLECTION_PLACES };
    if !RpcMethod::of_path(path).is_streaming() {
        return Box::pin(service.clone().call(request.map(Body::new)));
    }
    let Some(place) = in_flight.enter_lasting(places) else {
        let limit = in_flight.max_requests();
        let text = format!("too many streams that last: they have {limit} places together");
        return Box::pin(ready(Ok(Status::resource_exhausted(text).into_http())));
    };
    let holding = |body: Body| {
        Body::new(body.map_frame(move |frame| {
            let _place = &place;
            frame
        }))
    };
    let answer =
        service.clone().call(request.map(|body| Body::new(Drained::new(body, Arc::clone(in_flight)))));
    Box::pin(answer.map(|answer| answer.map(|response| response.map(holding))))
}

/// The service that nobody needs a token for.
const HEALTH: &str = <HealthServer<HealthRpc> as NamedService>::NAME;

/// Whether a call may be answered, by its token.
fn authorize<B>(shared: &Shared, request: &Request<B>, id: &RequestId) -> Result<(), Status> {
    let span = tracing::error_span!("grpc_request", request_id = %id);
    span.in_scope(|| shared.access.check(request)).map_err(|denied| {
        Status::unauthenticated(match denied {
            Denied::NoToken => "a bearer token is needed",
            Denied::WrongToken => "the bearer token is not known",
        })
    })
}

/// A call in flight.
pub struct CallFuture(Call);

impl Future for CallFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}
