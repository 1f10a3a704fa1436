//! `grpc.health.v1.Health`: serving until a shutdown begins.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Names that have a health of their own: the server as a whole, and its one service.
const NAMES: [&str; 2] = ["", "cache.CacheService"];

/// Answers from a signal that turns true once the server stops.
pub(super) struct HealthRpc {
    draining: watch::Receiver<bool>,
}

impl HealthRpc {
    pub(super) const fn new(draining: watch::Receiver<bool>) -> Self {
        Self { draining }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

const fn serving(draining: bool) -> ServingStatus {
    if draining { ServingStatus::NotServing } else { ServingStatus::Serving }
}

#[tonic::async_trait]
impl Health for HealthRpc {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if NAMES.contains(&request.get_ref().service.as_str()) {
            Ok(Response::new(response(serving(*self.draining.borrow()))))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Sends the status now and when it changes. The stream ends with the shutdown, so that a
    /// watcher does not hold the drain up.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = NAMES.contains(&request.get_ref().service.as_str());
        let status = move |draining| if known { serving(draining) } else { ServingStatus::ServiceUnknown };
        let mut draining = self.draining.clone();
        let first = status(*draining.borrow_and_update());
        let changes = stream::unfold(Some((draining, first)), move |state| async move {
            let (mut draining, last) = state?;
            if last == ServingStatus::NotServing || draining.wait_for(|draining| *draining).await.is_err() {
                return None;
            }
            let status = status(true);
            (status != last).then(|| (Ok(response(status)), None))
        });
        let now = stream::once(async move { Ok(response(first)) });
        Ok(Response::new(Box::pin(stream::StreamExt::chain(now, changes))))
    }
}
