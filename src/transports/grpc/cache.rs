//! The nine calls: from messages to use-cases and back.

use std::sync::Arc;

use bytes::Bytes;
use engine::{CompareAndSet, SetIfAbsent, StoreError, Value};
use tonic::{Request, Response, Status};

use crate::proto;
use crate::proto::cache_service_server::CacheService as Rpc;
use crate::service::{CacheService, Item, ItemResult, Namespace, ServiceError, ttl_from_seconds};
use crate::transports::grpc::call::RequestId;
use crate::transports::stats::cache_stats;

/// The metadata key of the caller's namespace.
const NAMESPACE: &str = "x-cache-namespace";

/// `cache.CacheService` over the use-cases.
pub(super) struct CacheRpc {
    service: Arc<CacheService>,
}

impl CacheRpc {
    pub(super) const fn new(service: Arc<CacheService>) -> Self {
        Self { service }
    }
}

/// The checked namespace of a call.
fn namespace<T>(request: &Request<T>) -> Result<Namespace<'_>, Status> {
    let Some(raw) = request.metadata().get(NAMESPACE) else {
        return Ok(Namespace::default());
    };
    let raw = raw.to_str().map_err(|_| Status::invalid_argument("invalid namespace: not ASCII"))?;
    Namespace::parse(raw).map_err(|error| status(error, request))
}

/// A failure of the whole call.
fn status<T>(error: ServiceError, request: &Request<T>) -> Status {
    match error {
        ServiceError::InvalidArgument(text) => Status::invalid_argument(text),
        ServiceError::Store(
            error @ (StoreError::ValueTooLarge { .. } | StoreError::CapacityExhausted { .. }),
        ) => Status::resource_exhausted(error.to_string()),
        ServiceError::Store(error) => {
            let id = RequestId::of(request.extensions());
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
fn item_error<T>(error: ServiceError, request: &Request<T>) -> String {
    status(error, request).message().to_owned()
}

fn item<'a>(key: &'a str, value: &'a Bytes, ttl: i32) -> Item<'a> {
    Item { key, value, ttl: ttl_from_seconds(ttl) }
}

fn ok() -> Response<proto::CacheResponse> {
    Response::new(proto::CacheResponse { status: proto::CacheStatus::Ok.into() })
}

fn conditional(status: proto::ConditionalCacheStatus) -> Response<proto::ConditionalCacheResponse> {
    Response::new(proto::ConditionalCacheResponse { status: status.into() })
}

/// One answer per item of a batch of writes or deletions.
fn operation_results<T, U>(
    keys: impl Iterator<Item = String>,
    results: Vec<ItemResult<T>>,
    request: &Request<U>,
) -> Response<proto::MultiCacheResponse> {
    let items = keys
        .zip(results)
        .map(|(key, result)| match result {
            Ok(_) => proto::CacheOperationResult {
                key,
                status: proto::CacheStatus::Ok.into(),
                error: String::new(),
            },
            Err(error) => proto::CacheOperationResult {
                key,
                status: proto::CacheStatus::Error.into(),
                error: item_error(error, request),
            },
        })
        .collect();
    Response::new(proto::MultiCacheResponse { items })
}

fn lookup<T>(key: String, result: ItemResult<Option<Value>>, request: &Request<T>) -> proto::CacheLookup {
    match result {
        Ok(Some(value)) => proto::CacheLookup { key, found: true, value: value.into(), error: String::new() },
        Ok(None) => proto::CacheLookup { key, ..Default::default() },
        Err(error) => proto::CacheLookup { key, error: item_error(error, request), ..Default::default() },
    }
}

#[tonic::async_trait]
impl Rpc for CacheRpc {
    async fn get(&self, request: Request<proto::CacheKey>) -> Result<Response<proto::CacheValue>, Status> {
        let namespace = namespace(&request)?;
        let value = self.service.get(namespace, &request.get_ref().key).await;
        let value = value.map_err(|error| status(error, &request))?;
        Ok(Response::new(match value {
            Some(value) => proto::CacheValue { found: true, value: value.into() },
            None => proto::CacheValue::default(),
        }))
    }

    async fn multi_get(
        &self,
        mut request: Request<proto::MultiCacheKeyRequest>,
    ) -> Result<Response<proto::MultiCacheValueResponse>, Status> {
        let keys = std::mem::take(&mut request.get_mut().keys);
        let results = self.service.get_many(namespace(&request)?, &keys).await;
        let results = results.map_err(|error| status(error, &request))?;
        let items =
            keys.into_iter().zip(results).map(|(key, result)| lookup(key, result, &request)).collect();
        Ok(Response::new(proto::MultiCacheValueResponse { items }))
    }

    async fn set(
        &self,
        request: Request<proto::CacheItem>,
    ) -> Result<Response<proto::CacheResponse>, Status> {
        let namespace = namespace(&request)?;
        let proto::CacheItem { key, value, ttl } = request.get_ref();
        let stored = self.service.set(namespace, item(key, value, *ttl)).await;
        stored.map_err(|error| status(error, &request))?;
        Ok(ok())
    }

    async fn set_if_absent(
        &self,
        request: Request<proto::CacheItem>,
    ) -> Result<Response<proto::ConditionalCacheResponse>, Status> {
        let namespace = namespace(&request)?;
        let proto::CacheItem { key, value, ttl } = request.get_ref();
        let result = self.service.set_if_absent(namespace, item(key, value, *ttl)).await;
        Ok(conditional(match result.map_err(|error| status(error, &request))? {
            SetIfAbsent::Stored => proto::ConditionalCacheStatus::Stored,
            SetIfAbsent::Exists => proto::ConditionalCacheStatus::Exists,
        }))
    }

    async fn compare_and_set(
        &self,
        request: Request<proto::CompareAndSetRequest>,
    ) -> Result<Response<proto::ConditionalCacheResponse>, Status> {
        let namespace = namespace(&request)?;
        let proto::CompareAndSetRequest { key, expected_value, value, ttl } = request.get_ref();
        let result = self.service.compare_and_set(namespace, expected_value, item(key, value, *ttl)).await;
        Ok(conditional(match result.map_err(|error| status(error, &request))? {
            CompareAndSet::Stored => proto::ConditionalCacheStatus::Stored,
            CompareAndSet::NotFound => proto::ConditionalCacheStatus::NotFound,
            CompareAndSet::Mismatch => proto::ConditionalCacheStatus::Mismatch,
        }))
    }

    async fn multi_set(
        &self,
        mut request: Request<proto::MultiCacheItemRequest>,
    ) -> Result<Response<proto::MultiCacheResponse>, Status> {
        let items = std::mem::take(&mut request.get_mut().items);
        let views = items.iter().map(|entry| item(&entry.key, &entry.value, entry.ttl));
        let results = self.service.set_many(namespace(&request)?, views).await;
        let results = results.map_err(|error| status(error, &request))?;
        Ok(operation_results(items.into_iter().map(|item| item.key), results, &request))
    }

    async fn delete(
        &self,
        request: Request<proto::CacheKey>,
    ) -> Result<Response<proto::CacheResponse>, Status> {
        let namespace = namespace(&request)?;
        let deleted = self.service.delete(namespace, &request.get_ref().key).await;
        deleted.map_err(|error| status(error, &request))?;
        Ok(ok())
    }

    async fn multi_delete(
        &self,
        mut request: Request<proto::MultiCacheKeyRequest>,
    ) -> Result<Response<proto::MultiCacheResponse>, Status> {
        let keys = std::mem::take(&mut request.get_mut().keys);
        let results = self.service.delete_many(namespace(&request)?, &keys).await;
        let results = results.map_err(|error| status(error, &request))?;
        Ok(operation_results(keys.into_iter(), results, &request))
    }

    async fn stats(&self, request: Request<proto::Empty>) -> Result<Response<proto::CacheStats>, Status> {
        let stats = self.service.stats().await.map_err(|error| status(error, &request))?;
        Ok(Response::new(cache_stats(&stats)))
    }
}
