//! The nine calls: from messages to use-cases and back.

use std::sync::Arc;

use engine::{CompareAndSet, SetIfAbsent, StoreError};
use http::{HeaderMap, Request};
use tonic::Status;
use tonic::body::Body;

use super::RequestBody;
use super::call::{Handler, RequestId};
use super::message;
use super::reply::{Batch, ItemOutcome, Reply};
use super::view::{self, View};
use crate::proto::{self, CacheStatus, ConditionalCacheResponse, ConditionalCacheStatus as Conditional};
use crate::service::{CacheService, Item, ItemResult, Namespace, ServiceError, ttl_from_seconds};
use crate::transports::stats::cache_stats;

/// The metadata key of the caller's namespace.
const NAMESPACE: &str = "x-cache-namespace";

/// `cache.CacheService` over the use-cases. Cloned per call.
#[derive(Clone)]
pub(super) struct CacheRpc {
    service: Arc<CacheService>,
    max_message_bytes: usize,
}

/// What can be called.
#[derive(Clone, Copy)]
enum Method {
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
        Some(match path.strip_prefix('/')?.strip_prefix(CacheRpc::NAME)?.strip_prefix('/')? {
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
}

impl CacheRpc {
    /// The service's name in paths.
    pub(super) const NAME: &str = "cache.CacheService";

    pub(super) const fn new(service: Arc<CacheService>, max_message_bytes: usize) -> Self {
        Self { service, max_message_bytes }
    }

    /// Answers a call.
    pub(super) fn call(&self, request: Request<impl RequestBody>, id: &RequestId) -> Handler {
        let (rpc, id) = (self.clone(), id.clone());
        Box::pin(async move {
            let answer = rpc.answer(request, &id).await;
            Ok(answer.map_or_else(Status::into_http::<Body>, Reply::into_response))
        })
    }

    async fn answer(&self, request: Request<impl RequestBody>, id: &RequestId) -> Result<Reply, Status> {
        let (head, body) = request.into_parts();
        let Some(method) = Method::of_path(head.uri.path()) else {
            return Err(Status::unimplemented("unknown method"));
        };
        let message = message::read(&head.headers, body, self.max_message_bytes).await?;
        let call = Call { service: &self.service, headers: &head.headers, id };
        match method {
            Method::Get => call.get(View::read(&message)?).await,
            Method::MultiGet => call.multi_get(View::read(&message)?).await,
            Method::Set => call.set(View::read(&message)?).await,
            Method::SetIfAbsent => call.set_if_absent(View::read(&message)?).await,
            Method::CompareAndSet => call.compare_and_set(View::read(&message)?).await,
            Method::MultiSet => call.multi_set(View::read(&message)?).await,
            Method::Delete => call.delete(View::read(&message)?).await,
            Method::MultiDelete => call.multi_delete(View::read(&message)?).await,
            Method::Stats => call.stats(View::read(&message)?).await,
        }
    }
}

/// One call, its message read.
struct Call<'a> {
    service: &'a CacheService,
    headers: &'a HeaderMap,
    id: &'a RequestId,
}

fn item<'a>(key: &'a str, value: &'a [u8], ttl: i32) -> Item<'a> {
    Item { key, value, ttl: ttl_from_seconds(ttl) }
}

fn ok() -> Result<Reply, Status> {
    Reply::message(&proto::CacheResponse { status: CacheStatus::Ok.into() })
}

fn conditional(status: Conditional) -> Result<Reply, Status> {
    Reply::message(&ConditionalCacheResponse { status: status.into() })
}

impl<'a> Call<'a> {
    /// The checked namespace of a call.
    fn namespace(&self) -> Result<Namespace<'a>, Status> {
        let Some(raw) = self.headers.get(NAMESPACE) else {
            return Ok(Namespace::default());
        };
        let raw = raw.to_str().map_err(|_| Status::invalid_argument("invalid namespace: not ASCII"))?;
        Namespace::parse(raw).map_err(|error| self.status(error))
    }

    /// A failure of the whole call.
    fn status(&self, error: ServiceError) -> Status {
        match error {
            ServiceError::InvalidArgument(text) => Status::invalid_argument(text),
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

    /// A failure of one item of a batch: a text, as the call itself goes on.
    fn item_error(&self, error: ServiceError) -> String {
        self.status(error).message().to_owned()
    }

    /// One answer per item of a batch of writes or deletions.
    fn operation_results<'k, T>(
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
        Reply::batch(Batch::Operations, outcomes.collect())
    }

    async fn get(&self, request: view::Key<'_>) -> Result<Reply, Status> {
        let value = self.service.get(self.namespace()?, request.key).await;
        Reply::value(value.map_err(|error| self.status(error))?)
    }

    async fn multi_get(&self, request: view::Keys<'_>) -> Result<Reply, Status> {
        let results = self.service.get_many(self.namespace()?, &request.keys).await;
        let results = results.map_err(|error| self.status(error))?;
        let outcomes = request.keys.into_iter().zip(results).map(|(key, result)| {
            let (value, error) = match result {
                Ok(value) => (value, String::new()),
                Err(error) => (None, self.item_error(error)),
            };
            ItemOutcome { key, number: value.is_some().into(), value, error }
        });
        Reply::batch(Batch::Lookups, outcomes.collect())
    }

    async fn set(&self, request: view::Item<'_>) -> Result<Reply, Status> {
        let view::Item { key, value, ttl } = request;
        let stored = self.service.set(self.namespace()?, item(key, value, ttl)).await;
        stored.map_err(|error| self.status(error))?;
        ok()
    }

    async fn set_if_absent(&self, request: view::Item<'_>) -> Result<Reply, Status> {
        let view::Item { key, value, ttl } = request;
        let result = self.service.set_if_absent(self.namespace()?, item(key, value, ttl)).await;
        conditional(match result.map_err(|error| self.status(error))? {
            SetIfAbsent::Stored => Conditional::Stored,
            SetIfAbsent::Exists => Conditional::Exists,
        })
    }

    async fn compare_and_set(&self, request: view::Comparison<'_>) -> Result<Reply, Status> {
        let view::Comparison { key, expected, value, ttl } = request;
        let result = self.service.compare_and_set(self.namespace()?, expected, item(key, value, ttl)).await;
        conditional(match result.map_err(|error| self.status(error))? {
            CompareAndSet::Stored => Conditional::Stored,
            CompareAndSet::NotFound => Conditional::NotFound,
            CompareAndSet::Mismatch => Conditional::Mismatch,
        })
    }

    async fn multi_set(&self, request: view::Items<'_>) -> Result<Reply, Status> {
        let items = request.items.iter().map(|entry| item(entry.key, entry.value, entry.ttl));
        let results = self.service.set_many(self.namespace()?, items).await;
        let results = results.map_err(|error| self.status(error))?;
        self.operation_results(request.items.iter().map(|item| item.key), results)
    }

    async fn delete(&self, request: view::Key<'_>) -> Result<Reply, Status> {
        let deleted = self.service.delete(self.namespace()?, request.key).await;
        deleted.map_err(|error| self.status(error))?;
        ok()
    }

    async fn multi_delete(&self, request: view::Keys<'_>) -> Result<Reply, Status> {
        let results = self.service.delete_many(self.namespace()?, &request.keys).await;
        let results = results.map_err(|error| self.status(error))?;
        self.operation_results(request.keys.into_iter(), results)
    }

    async fn stats(&self, (): ()) -> Result<Reply, Status> {
        let stats = self.service.stats().await.map_err(|error| self.status(error))?;
        Reply::message(&cache_stats(&stats))
    }
}
