//! How a failed call is answered: headers first, the status in the trailers.
//!
//! tonic puts the status of a failure among the headers, gRPC's "Trailers-Only" form, and client
//! libraries then take all of it for trailing metadata. But the request id is promised in the
//! initial metadata of every call, so a failure gets headers and trailers like a success does.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

use crate::transports::request_id::REQUEST_ID;

/// What belongs into the trailers, wherever else it is looked for.
const STATUS_HEADERS: [HeaderName; 3] =
    [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS];

/// Whether a response is in the Trailers-Only form.
pub(super) fn is_trailers_only(response: &Response<Body>) -> bool {
    response.headers().contains_key(Status::GRPC_STATUS)
}

/// Turns a Trailers-Only response into one of headers and trailers. The request id is in the
/// trailers as well, for the clients that show nothing else of a failed call.
pub(super) fn with_initial_metadata(mut response: Response<Body>, id: &HeaderValue) -> Response<Body> {
    let headers = response.headers_mut();
    let mut trailers = HeaderMap::with_capacity(STATUS_HEADERS.len() + 1);
    for name in STATUS_HEADERS {
        if let Some(value) = headers.remove(&name) {
            trailers.insert(name, value);
        }
    }
    trailers.insert(REQUEST_ID, id.clone());
    let frame = Frame::<Bytes>::trailers(trailers);
    *response.body_mut() = Body::new(StreamBody::new(stream::once(ready(Ok::<_, Infallible>(frame)))));
    response
}
