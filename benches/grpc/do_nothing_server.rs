//! The peer of the gRPC benchmark: tonic's own server over the same API, whose handlers do nothing.
//!
//! Reads answer a constant value of 100 bytes, or of as many as the first argument says, writes say OK. What it costs is what tonic, hyper and the kernel cost;
//! what tiny-cache costs beyond that is tiny-cache's. It runs on the same runtime, with the same settings of the
//! HTTP/2 connection, and with the code that tonic generates as it comes.
//!
//! Prints the address that it listens on and serves until it is killed: see `scripts/bench-grpc`.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::pedantic,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/stock/cache.rs"));
}

use proto::cache_service_server::{CacheService, CacheServiceServer};

/// What every read answers.
struct DoNothing(Bytes);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl CacheService for DoNothing {
    async fn get(&self, _: Request<proto::CacheKey>) -> Answer<proto::CacheValue> {
        Ok(Response::new(proto::CacheValue { found: true, value: self.0.clone() }))
    }

    async fn multi_get(
        &self,
        request: Request<proto::MultiCacheKeyRequest>,
    ) -> Answer<proto::MultiCacheValueResponse> {
        let found =
            |key| proto::CacheLookup { key, found: true, value: self.0.clone(), error: String::new() };
        let items = request.into_inner().keys.into_iter().map(found).collect();
        Ok(Response::new(proto::MultiCacheValueResponse { items }))
    }

    async fn set(&self, _: Request<proto::CacheItem>) -> Answer<proto::CacheResponse> {
        Ok(Response::new(proto::CacheResponse { status: proto::CacheStatus::Ok.into() }))
    }

    async fn set_if_absent(&self, _: Request<proto::CacheItem>) -> Answer<proto::ConditionalCacheResponse> {
        let status = proto::ConditionalCacheStatus::Stored.into();
        Ok(Response::new(proto::ConditionalCacheResponse { status }))
    }

    async fn compare_and_set(
        &self,
        _: Request<proto::CompareAndSetRequest>,
    ) -> Answer<proto::ConditionalCacheResponse> {
        let status = proto::ConditionalCacheStatus::Stored.into();
        Ok(Response::new(proto::ConditionalCacheResponse { status }))
    }

    async fn multi_set(
        &self,
        request: Request<proto::MultiCacheItemRequest>,
    ) -> Answer<proto::MultiCacheResponse> {
        let keys = request.into_inner().items.into_iter().map(|item| item.key);
        Ok(Response::new(proto::MultiCacheResponse { items: keys.map(done).collect() }))
    }

    async fn delete(&self, _: Request<proto::CacheKey>) -> Answer<proto::CacheResponse> {
        Ok(Response::new(proto::CacheResponse { status: proto::CacheStatus::Ok.into() }))
    }

    async fn multi_delete(
        &self,
        request: Request<proto::MultiCacheKeyRequest>,
    ) -> Answer<proto::MultiCacheResponse> {
        let keys = request.into_inner().keys.into_iter();
        Ok(Response::new(proto::MultiCacheResponse { items: keys.map(done).collect() }))
    }

    async fn stats(&self, _: Request<proto::Empty>) -> Answer<proto::CacheStats> {
        Ok(Response::new(proto::CacheStats::default()))
    }
}

fn done(key: String) -> proto::CacheOperationResult {
    proto::CacheOperationResult { key, status: proto::CacheStatus::Ok.into(), error: String::new() }
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let bytes = std::env::args().nth(1).map_or(Ok(100), |bytes| bytes.parse())?;
    let value = Bytes::from_static(vec![b'v'; bytes].leak());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    Server::builder()
        .max_concurrent_streams(1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(16 << 10)
        .add_service(
            CacheServiceServer::new(DoNothing(value))
                .max_decoding_message_size(1 << 30)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd),
        )
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
