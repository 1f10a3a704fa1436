//! The gRPC service without a network: calls in, what came of them out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use engine::{Clock, Limits, ManualClock, MemoryStore, MemoryStoreOptions, Store, WeighBy};
use http::{HeaderMap, HeaderValue, Request};
use http_body::{Body, Frame};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use policies::REGISTRY;
use tiny_cache::config::{Config, GrpcConfig, Loader, Part, Sampling, Sources, TransportKind};
use tiny_cache::service::CacheService;
use tiny_cache::telemetry::traces::Tracing;
use tiny_cache::transports::access::Access;
use tiny_cache::transports::grpc::GrpcService;
use tiny_cache::transports::listener::ConnectionCounters;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use tower::Service;

/// Bytes of a value at the most: above what an answer copies.
pub const MAX_VALUE_BYTES: u64 = 40_000;
/// Bytes of a message at the most.
pub const MAX_MESSAGE_BYTES: usize = 100_000;

/// A service and what is behind it.
pub struct Served {
    /// Where it keeps what it is given. Has room for all of it.
    pub store: Arc<MemoryStore>,
    /// The store's time.
    pub clock: Arc<ManualClock>,
    /// The use-cases.
    pub service: Arc<CacheService>,
    grpc: GrpcService,
    runtime: Runtime,
}

/// Spans of requests whose callers say so.
#[must_use]
pub fn tracing() -> Arc<Tracing> {
    let provider = SdkTracerProvider::builder().build();
    Arc::new(Tracing::new(provider.tracer("fuzz"), Sampling { parent_based: true, ratio: 0.0 }, true))
}

impl Served {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let lru = (policies::find("lru").expect("registered").with_defaults)();
        let bytes = lru.bytes_per_entry(WeighBy::Bytes);
        let limits =
            Limits { max_items: None, max_memory_bytes: 256 << 20, max_value_bytes: MAX_VALUE_BYTES };
        let build = Arc::new(move |capacity, seed| lru.build(capacity, seed));
        let clock = Arc::new(ManualClock::default());
        let mut options = MemoryStoreOptions::new(limits, "lru", bytes, build);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = Arc::new(MemoryStore::new(options));
        let service = Arc::new(CacheService::new(Arc::clone(&store) as Arc<dyn Store>));
        let loader = Loader { policies: REGISTRY, stores: &["memory"] };
        let Config { transports, .. } =
            loader.load(&Sources::nothing()).expect("the defaults are good").config;
        let transport = transports.first().expect("one of the defaults");
        let TransportKind::Grpc(defaults) = &transport.kind else { panic!("the first is gRPC's") };
        let config =
            GrpcConfig { max_message_bytes: MAX_MESSAGE_BYTES, reflection: false, ..defaults.clone() };
        let (_, draining) = tokio::sync::watch::channel(false);
        let served = Arc::clone(&service);
        let counters = ConnectionCounters::new(&transport.connections);
        let access = Access::new(&[Part::Cache, Part::Probes], None, Arc::clone(counters.refused_requests()));
        let config = (&transport.connections, &config);
        let in_flight = Arc::clone(counters.in_flight());
        let grpc = GrpcService::new(served, config, draining, None, in_flight, access, Some(tracing()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { store, clock, service, grpc, runtime }
    }

    /// Calls a method.
    pub fn call(&mut self, request: Request<Frames>) -> Answer {
        let mut cx = Context::from_waker(Waker::noop());
        // Only what is packed is waited for: it is unpacked on another thread.
        let Ok(response) = self.runtime.block_on(async { self.grpc.call(request).await });
        let (head, body) = response.into_parts();
        let mut body = std::pin::pin!(body);
        let mut answer = Answer { headers: head.headers, data: Vec::new(), trailers: None };
        // Only the health of a service is watched for good.
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(status) => panic!("the answer's body failed: {status}"),
            };
            assert!(answer.trailers.is_none(), "trailers come last");
            match frame.into_data() {
                Ok(data) => answer.data.extend_from_slice(&data),
                Err(frame) => answer.trailers = frame.into_trailers().ok(),
            }
        }
        answer
    }
}

impl Default for Served {
    fn default() -> Self {
        Self::new()
    }
}

/// What a call was answered.
pub struct Answer {
    /// The initial metadata.
    pub headers: HeaderMap,
    /// The frames of messages.
    pub data: Vec<u8>,
    /// `None`: the answer goes on.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// What the trailers say.
    #[must_use]
    pub fn status(&self) -> Status {
        let trailers = self.trailers.as_ref().expect("a call that is over has trailers");
        Status::from_header_map(trailers).expect("trailers have a status")
    }

    /// The only message, where it went well.
    #[must_use]
    pub fn message(&self) -> Result<&[u8], Status> {
        let status = self.status();
        if status.code() != Code::Ok {
            assert!(self.data.is_empty(), "a failure has no message");
            return Err(status);
        }
        let (prefix, message) = self.data.split_first_chunk::<5>().expect("a prefix");
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        assert_eq!((prefix[0], &prefix[1..]), (0, &length[..]), "one message, not compressed");
        Ok(message)
    }
}

/// The body of a request: frames that are there already.
#[derive(Default)]
pub struct Frames(pub VecDeque<Frame<Bytes>>);

impl Frames {
    /// Data in pieces of this size.
    #[must_use]
    pub fn of(data: &[u8], piece: usize) -> Self {
        Self(data.chunks(piece.max(1)).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect())
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks the id that an answer carries: the caller's where it is one, or else one that was made here.
///
/// # Panics
///
/// Where it is neither.
pub fn check_request_id(asked: Option<&HeaderValue>, answered: &HeaderMap) {
    let id = answered.get("x-request-id").expect("every answer has an id").as_bytes();
    let is_sound =
        |id: &[u8]| (1..=128).contains(&id.len()) && id.iter().all(|byte| (33..=126).contains(byte));
    match asked.map(HeaderValue::as_bytes).filter(|asked| is_sound(asked)) {
        Some(asked) => assert_eq!(id, asked, "a sound id is taken over"),
        None => {
            let is_ours = id.len() == 32 && id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(is_ours, "another is replaced: {}", id.escape_ascii());
        }
    }
}
