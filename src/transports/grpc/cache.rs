//! The nine calls: from messages to use-cases and back.

use std::sync::Arc;

use engine::{CompareAndSet, SetIfAbsent, StoreError};
use http::{HeaderMap, Request};
use tonic::Status;
use tonic::body::Body;

use super::RequestBody;
use super::call::{Handler, RequestId};
use super::message::{self, Message};
use super::reply::{Batch, ItemOutcome, Reply};
use super::room::Room;
use super::view::{self, View};
use crate::config::GrpcConfig;
use crate::pace;
use crate::proto::{self, CacheStatus, ConditionalCacheResponse, ConditionalCacheStatus as Conditional};
use crate::service::{CacheService, Item, ItemResult, Namespace, SLICE_KEYS, ServiceError, ttl_from_seconds};
use crate::transports::in_flight::InFlight;
use crate::transports::refused::RequestRefusal;
use crate::transports::stats::cache_stats;

/// The metadata key of the caller's namespace.
pub(super) const NAMESPACE: &str = "x-cache-namespace";

/// What an item of a batch takes from when it is read until it is answered, beside its own bytes: 130 to 215 bytes, of
/// which some are buffers that grow. A batch of [`SLICE_KEYS`] is done in one go, so that few are there at a time.
const ITEM_BYTES: usize = 128;

/// `cache.CacheService` over the use-cases. Cloned per call.
#[derive(Clone)]
pub(super) struct CacheRpc {
    service: Arc<CacheService>,
    max_message_bytes: usize,
    max_batch: usize,
    in_flight: Arc<InFlight>,
}

/// What can be called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Get,
    MultiGet,
    Set,
    SetIfAbsent,
    CompareAndSet,
    MultiSet,
    Delete,
    MultiDelete,
    Stats,
}

impl Method {
    fn of_path(path: &str) -> Option<Self> {
        Self::of_name(path.strip_prefix('/')?)
    }

    /// By its full name, such as `cache.CacheService/Get`.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(CacheRpc::NAME)?.strip_prefix('/')? {
            "Get" => Self::Get,
            "MultiGet" => Self::MultiGet,
            "Set" => Self::Set,
            "SetIfAbsent" => Self::SetIfAbsent,
            "CompareAndSet" => Self::CompareAndSet,
            "MultiSet" => Self::MultiSet,
            "Delete" => Self::Delete,
            "MultiDelete" => Self::MultiDelete,
            "Stats" => Self::Stats,
            _ => return None,
        })
    }

    /// Whether it stores values.
    pub(super) const fn is_write(self) -> bool {
        matches!(self, Self::Set | Self::SetIfAbsent | Self::CompareAndSet | Self::MultiSet)
    }

    const fn is_batch(self) -> bool {
        matches!(self, Self::MultiGet | Self::MultiSet | Self::MultiDelete)
    }
}

impl CacheRpc {
    /// The service's name in paths.
    pub(super) const NAME: &str = "cache.CacheService";

    pub(super) const fn new(
        service: Arc<CacheService>,
        config: &GrpcConfig,
        in_flight: Arc<InFlight>,
    ) -> Self {
        let GrpcConfig { max_message_bytes, max_batch, .. } = *config;
        Self { service, max_message_bytes, max_batch, in_flight }
    }

    /// Answers a call.
    pub(super) fn call(&self, request: Request<impl RequestBody>, id: &RequestId) -> Handler {
        let (rpc, id) = (self.clone(), id.clone());
        Box::pin(async move {
            let answer = rpc.answer(request, &id).await;
            Ok(answer.map_or_else(Status::into_http::<Body>, Reply::into_response))
        })
    }

    /// Looks at how many items there are, and whether there is room for them, before any of them is looked at.
    async fn check_batch(&self, message: &mut Message) -> Result<(), Status> {
        let limit = self.max_batch;
        if view::most_items(message.bytes.len()) <= limit.min(SLICE_KEYS) {
            return Ok(());
        }
        let items = view::count_items(&message.bytes, limit).await;
        if items > limit {
            self.in_flight.count_refused(RequestRefusal::BatchTooLarge);
            return Err(Status::resource_exhausted(format!(
                "batch too large: at most {limit} items are allowed"
            )));
        }
        if items > SLICE_KEYS { message.charge(items * ITEM_BYTES, &self.in_flight) } else { Ok(()) }
    }

    async fn answer(&self, request: Request<impl RequestBody>, id: &RequestId) -> Result<Reply, Status> {
        let (head, body) = request.into_parts();
        let Some(method) = Method::of_path(head.uri.path()) else {
            return Err(Status::unimplemented("unknown method"));
        };
        let mut message =
            message::read((&head.uri, &head.headers), body, self.max_message_bytes, &self.in_flight).await?;
        if method.is_batch() {
            self.check_batch(&mut message).await?;
        }
        let message = &message.bytes[..];
        let call = Call { service: &self.service, headers: &head.headers, id, in_flight: &self.in_flight };
        match method {
            Method::Get => call.get(View::read(message)?).await,
            Method::MultiGet => call.multi_get(view::Keys::read_in_slices(message).await?).await,
            Method::Set => call.set(View::read(message)?).await,
            Method::SetIfAbsent => call.set_if_absent(View::read(message)?).await,
            Method::CompareAndSet => call.compare_and_set(View::read(message)?).await,
            Method::MultiSet => call.multi_set(view::Items::read_in_slices(message).await?).await,
            Method::Delete => call.delete(View::read(message)?).await,
            Method::MultiDelete => call.multi_delete(view::Keys::read_in_slices(message).await?).await,
            Method::Stats => call.stats(View::read(message)?).await,
        }
    }
}

/// One call, its message read.
struct Call<'a> {
    service: &'a CacheService,
    headers: &'a HeaderMap,
    id: &'a RequestId,
    in_flight: &'a Arc<InFlight>,
}

fn item<'a>(key: &'a str, value: &'a [u8], ttl: i32) -> Item<'a> {
    Item { key, value, ttl: ttl_from_seconds(ttl) }
}

impl<'a> Call<'a> {
    /// The checked namespace of a call.
    fn namespace(&self) -> Result<Namespace<'a>, Status> {
        let Some(raw) = self.headers.get(NAMESPACE) else {
            return Ok(Namespace::default());
        };
        let namespace = match raw.to_str() {
            Ok(raw) => Namespace::parse(raw).map_err(|error| self.status(error)),
            Err(_) => Err(Status::invalid_argument("invalid namespace: not ASCII")),
        };
        namespace.inspect_err(|_| self.in_flight.count_refused(RequestRefusal::InvalidNamespace))
    }

    /// A failure of the whole call.
    fn status(&self, error: ServiceError) -> Status {
        match error {
            ServiceError::InvalidArgument(text) => Status::invalid_argument(text),
            ServiceError::AnswerTooLarge => message::no_room(),
            ServiceError::Store(
                error @ (StoreError::ValueTooLarge { .. } | StoreError::CapacityExhausted { .. }),
            ) => Status::resource_exhausted(error.to_string()),
            ServiceError::Store(error) => {
                let id = self.id;
                tracing::error!(request_id = %id, error = &error as &dyn std::error::Error, "the store failed");
                match error {
                    StoreError::Unavailable(_) => {
                        Status::unavailable(format!("store unavailable, request_id={id}"))
                    }
                    _ => Status::internal(format!("internal error, request_id={id}")),
                }
            }
        }
    }

    fn ok(&self) -> Result<Reply, Status> {
        let message = proto::CacheResponse { status: CacheStatus::Ok.into() };
        Reply::message(&message, Room::due(self.in_flight))
    }

    fn conditional(&self, status: Conditional) -> Result<Reply, Status> {
        let message = ConditionalCacheResponse { status: status.into() };
        Reply::message(&message, Room::due(self.in_flight))
    }

    /// A failure of one item of a batch: a text, as the call itself goes on.
    fn item_error(&self, error: ServiceError) -> String {
        self.status(error).message().to_owned()
    }

    /// One answer per item of a batch of writes or deletions.
    async fn operation_results<'k, T>(
        &self,
        keys: impl Iterator<Item = &'k str>,
        results: Vec<ItemResult<T>>,
    ) -> Result<Reply, Status> {
        let outcomes = keys.zip(results).map(|(key, result)| {
            let (status, error) = match result {
                Ok(_) => (CacheStatus::Ok, String::new()),
                Err(error) => (CacheStatus::Error, self.item_error(error)),
            };
            ItemOutcome { key, number: status as u8, value: None, error }
        });
        Reply::batch(Batch::Operations, pace::collect(outcomes).await, Room::due(self.in_flight)).await
    }

    async fn get(&self, request: view::Key<'_>) -> Result<Reply, Status> {
        let value = self.service.get(self.namespace()?, request.key).await;
        Reply::value(value.map_err(|error| self.status(error))?, Room::new(self.in_flight))
    }

    async fn multi_get(&self, request: view::Keys<'_>) -> Result<Reply, Status> {
        let mut room = Room::new(self.in_flight);
        let results = self.service.get_many(self.namespace()?, &request.keys, |bytes| room.grow(bytes)).await;
        let results = results.map_err(|error| self.status(error))?;
        let outcomes = request.keys.into_iter().zip(results).map(|(key, result)| {
            let (value, error) = match result {
                Ok(value) => (value, String::new()),
                Err(error) => (None, self.item_error(error)),
            };
            ItemOutcome { key, number: value.is_some().into(), value, error }
        });
        Reply::batch(Batch::Lookups, pace::collect(outcomes).await, room).await
    }

    async fn set(&self, request: view::Item<'_>) -> Result<Reply, Status> {
        let view::Item { key, value, ttl } = request;
        let stored = self.service.set(self.namespace()?, item(key, value, ttl)).await;
        stored.map_err(|error| self.status(error))?;
        self.ok()
    }

    async fn set_if_absent(&self, request: view::Item<'_>) -> Result<Reply, Status> {
        let view::Item { key, value, ttl } = request;
        let result = self.service.set_if_absent(self.namespace()?, item(key, value, ttl)).await;
        self.conditional(match result.map_err(|error| self.status(error))? {
            SetIfAbsent::Stored => Conditional::Stored,
            SetIfAbsent::Exists => Conditional::Exists,
        })
    }

    async fn compare_and_set(&self, request: view::Comparison<'_>) -> Result<Reply, Status> {
        let view::Comparison { key, expected, value, ttl } = request;
        let result = self.service.compare_and_set(self.namespace()?, expected, item(key, value, ttl)).await;
        self.conditional(match result.map_err(|error| self.status(error))? {
            CompareAndSet::Stored => Conditional::Stored,
            CompareAndSet::NotFound => Conditional::NotFound,
            CompareAndSet::Mismatch => Conditional::Mismatch,
        })
    }

    async fn multi_set(&self, request: view::Items<'_>) -> Result<Reply, Status> {
        let items = request.items.iter().map(|entry| item(entry.key, entry.value, entry.ttl));
        let results = self.service.set_many(self.namespace()?, items).await;
        let results = results.map_err(|error| self.status(error))?;
        self.operation_results(request.items.iter().map(|item| item.key), results).await
    }

    async fn delete(&self, request: view::Key<'_>) -> Result<Reply, Status> {
        let deleted = self.service.delete(self.namespace()?, request.key).await;
        deleted.map_err(|error| self.status(error))?;
        self.ok()
    }

    async fn multi_delete(&self, request: view::Keys<'_>) -> Result<Reply, Status> {
        let results = self.service.delete_many(self.namespace()?, &request.keys).await;
        let results = results.map_err(|error| self.status(error))?;
        self.operation_results(request.keys.into_iter(), results).await
    }

    async fn stats(&self, (): ()) -> Result<Reply, Status> {
        let stats = self.service.stats().await.map_err(|error| self.status(error))?;
        Reply::message(&cache_stats(&stats), Room::new(self.in_flight))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::telemetry::metrics::RpcMethod;

    #[test]
    fn every_call_of_the_api_is_answered_as_what_it_is_and_told_by_its_name() {
        let descriptors = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).expect("it is one");
        let services =
            descriptors.file.iter().flat_map(|file| file.service.iter().map(move |it| (file.package(), it)));
        let (mut calls, mut writes) = (0, Vec::new());
        for (package, service) in services {
            for call in &service.method {
                let name = format!("{package}.{}/{}", service.name(), call.name());
                let path = format!("/{name}");
                let method = Method::of_path(&path).unwrap_or_else(|| panic!("{path} is not answered"));
                assert_eq!(format!("{method:?}"), call.name());
                assert_eq!(RpcMethod::of_path(&path).name(), name, "{path} is told by its name");
                calls += 1;
                if Method::of_name(&name).is_some_and(Method::is_write) {
                    writes.push(call.name());
                }
            }
        }
        assert_eq!(calls, 9);
        assert_eq!(writes, ["Set", "SetIfAbsent", "CompareAndSet", "MultiSet"]);
    }
}
