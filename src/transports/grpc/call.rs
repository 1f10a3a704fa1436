//! What every gRPC call gets around its handler: a request id, a deadline, a place in the count of
//! requests in flight and among the durations, and a wall against panics.
//!
//! This is on the path of every request, so it is one future by hand: no layer allocates, and a
//! timer is made only for a call that has a deadline and did not finish at once.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use super::cache::{Method, NAMESPACE};
use super::message::{ACCEPT_ENCODING, ENCODING};
use super::span::{self, CallSpan};
use super::streamed::Streamed;
use super::view::MALFORMED;
use super::{Shared, failure};
use crate::service::ActiveRequest;
use crate::telemetry::metrics::RpcMethod;
use crate::telemetry::panics::caught;
use crate::telemetry::request_scope::RequestScope;
use crate::transports::in_flight::may_wait;
use crate::transports::lasting::answer_lasts;
use crate::transports::refused::RequestRefusal;
use crate::transports::request_id::{REQUEST_ID, request_id};

/// Of how many fields a head is kept as it is while its call waits: more than a client of good will sends.
const KEPT_FIELDS: usize = 48;

/// What is looked at after a call has begun, of a head of more fields than that. Of none do more than two values matter.
const NEEDED: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static(NAMESPACE),
    HeaderName::from_static(ENCODING),
    HeaderName::from_static(ACCEPT_ENCODING),
];
const NEEDED_VALUES: usize = 2;

/// The id of the request in hand.
#[derive(Clone, Debug)]
pub(super) struct RequestId(HeaderValue);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("unknown"))
    }
}

/// What makes the answer of a call.
pub(super) type Handler = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A call in flight.
pub(super) struct Call {
    handler: Handler,
    id: RequestId,
    timeout: Option<Duration>,
    /// Runs as soon as the call has to wait.
    timer: Option<Pin<Box<Sleep>>>,
    span: Option<CallSpan>,
    shared: ActiveRequest<Arc<Shared>>,
    method: RpcMethod,
    /// `None`: it is not timed, or has been recorded.
    began: Option<Instant>,
}

impl Call {
    /// Reads the metadata that concerns every call, then lets `handle` make the handler's future.
    pub(super) fn start<B>(
        shared: &Arc<Shared>,
        mut request: Request<B>,
        handle: impl FnOnce(Request<B>, &RequestId) -> Handler,
    ) -> Self {
        let began = shared.rpc.is_some().then(Instant::now);
        let shared = ActiveRequest::begin(Arc::clone(shared));
        let id = RequestId(request_id(request.headers(), shared.access.refused()));
        let timeout = timeout(request.headers());
        let method = RpcMethod::of_path(request.uri().path());
        let span = shared.tracing.as_ref().and_then(|tracing| span::begin(tracing, method, &request));
        tracing::debug!(request_id = %id, method = request.uri().path(), "gRPC request");
        let handler = if head_bytes(request.uri(), request.headers()) > shared.max_metadata_bytes {
            shared.access.refused().count(RequestRefusal::HeadTooLarge);
            let limit = shared.max_metadata_bytes;
            let text = format!("metadata too large: at most {limit} bytes are allowed");
            Box::pin(ready(Ok(Status::resource_exhausted(text).into_http())))
        } else if !is_grpc(request.headers()) {
            let text = format!("{MALFORMED}: the content type has to be application/grpc");
            let mut response = Status::invalid_argument(text).into_http();
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Box::pin(ready(Ok(response)))
        } else {
            shed(request.headers_mut());
            handle(request, &id)
        };
        Self { handler, id, timeout, timer: None, span, shared, method, began }
    }

    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        if self.timeout == Some(Duration::ZERO) {
            return Poll::Ready(self.too_late());
        }
        let operations = self.shared.service.operations();
        let _scope = operations.wants_request_id().then(|| RequestScope::enter(self.id.0.clone()));
        let _current = self.span.as_ref().map(CallSpan::enter);
        // The handler is not polled again after a panic, so nobody sees its broken state.
        match caught(|| self.handler.as_mut().poll(cx)) {
            Ok(Poll::Ready(Ok(response))) => return Poll::Ready(self.told_as_ours(response)),
            Ok(Poll::Pending) => {}
            Err(panic) => {
                self.shared.service.tell_panic("a request's handler", Some(&self.id), &panic);
                let text = format!("internal error, request_id={}", self.id);
                return Poll::Ready(Status::internal(text).into_http());
            }
        }
        self.poll_deadline(cx)
    }

    /// For a call that has to wait: whether it may, and no longer than its deadline or ours.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let Shared { in_flight, request_timeout, .. } = &**self.shared;
        if !may_wait() {
            in_flight.count_turned_away();
            let limit = in_flight.max_requests();
            let text = format!("too many requests in flight: at most {limit} may wait at a time");
            return Poll::Ready(Status::unavailable(text).into_http());
        }
        let timeout = self.timeout.map_or(*request_timeout, |timeout| timeout.min(*request_timeout));
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| self.too_late())
    }

    fn too_late(&self) -> Response<Body> {
        let limit = self.shared.request_timeout;
        if self.timeout.is_some_and(|timeout| timeout <= limit) {
            self.shared.access.refused().count(RequestRefusal::DeadlineExceeded);
            return Status::deadline_exceeded("deadline exceeded").into_http();
        }
        self.shared.access.refused().count(RequestRefusal::TimedOut);
        Status::deadline_exceeded(format!("a request may take {limit:?}")).into_http()
    }

    /// Records the call and ends its span, or leaves both to the end of its stream where the answer is one.
    fn record(&mut self, mut response: Response<Body>) -> Response<Body> {
        // A success says so in its trailers, which are not made yet.
        let code = response.headers().get(Status::GRPC_STATUS);
        let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        let lasts = code == Code::Ok && self.method.is_streaming();
        if lasts {
            answer_lasts();
        }
        let (began, span) = (self.began.take(), self.span.take());
        if began.is_none() && span.is_none() {
            return response;
        }
        if let Some(span) = &span {
            span.tell(&mut response);
        }
        if lasts {
            let shared = Arc::clone(&self.shared);
            let (method, body) = (self.method, std::mem::take(response.body_mut()));
            *response.body_mut() = Body::new(Streamed::new(body, shared, method, began, span));
        } else {
            self.shared.record(self.method, code, began, span);
        }
        response
    }

    /// What tonic says by itself, in the words of our contract. Nothing of ours answers `OUT_OF_RANGE`,
    /// and an `INTERNAL` of ours names the request id already.
    fn told_as_ours(&self, response: Response<Body>) -> Response<Body> {
        let code = response.headers().get(Status::GRPC_STATUS).map(HeaderValue::as_bytes);
        if !matches!(code, Some(b"3" | b"11" | b"12" | b"13")) {
            return response;
        }
        let Some(status) = Status::from_header_map(response.headers()) else { return response };
        let detail = status.message();
        match status.code() {
            // A message over the size limit: `RESOURCE_EXHAUSTED` everywhere but in tonic.
            Code::OutOfRange => {
                self.shared.access.refused().count(RequestRefusal::MessageTooLarge);
                let detail = detail.trim_start_matches("Error, ");
                let text = if Method::of_name(self.method.name()).is_some_and(Method::is_write) {
                    self.shared.service.count_refused_message();
                    let limit = self.shared.service.limits().max_value_bytes;
                    format!("message too large: {detail}; a value may have {limit} bytes")
                } else {
                    format!("message too large: {detail}")
                };
                Status::resource_exhausted(text).into_http()
            }
            // A message that ends too early, is missing, or does not unpack.
            Code::Internal if !detail.contains("request_id=") => {
                self.shared.access.refused().count(RequestRefusal::Malformed);
                Status::internal(format!("malformed request: {detail}, request_id={}", self.id)).into_http()
            }
            Code::InvalidArgument if detail.starts_with(MALFORMED) => {
                self.shared.access.refused().count(RequestRefusal::Malformed);
                response
            }
            Code::Unimplemented => {
                self.shared.access.refused().count(RequestRefusal::Unimplemented);
                response
            }
            _ => response,
        }
    }
}

/// A client that goes away before there is an answer ends the call.
impl Drop for Call {
    fn drop(&mut self) {
        self.shared.record(self.method, Code::Cancelled, self.began.take(), self.span.take());
    }
}

impl Future for Call {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(response) = self.poll_handler(cx) else {
            return Poll::Pending;
        };
        let mut response = self.record(response);
        if failure::is_trailers_only(&response) {
            response = failure::with_initial_metadata(response, &self.id.0);
        }
        response.headers_mut().insert(REQUEST_ID, self.id.0.clone());
        Poll::Ready(Ok(response))
    }
}

/// Whether a request says that it is gRPC. A page in somebody's browser can send a text or a form to any server, but not
/// this.
fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|content_type| content_type.strip_prefix(GRPC));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Lets go of the fields that nobody needs any more where there are very many: a place for a field takes a hundred bytes beside its
/// text, which is 32 by the count of [`head_bytes`] and one on the wire.
fn shed(headers: &mut HeaderMap) {
    if headers.len() <= KEPT_FIELDS {
        return;
    }
    let mut kept = HeaderMap::new();
    for name in NEEDED {
        for value in headers.get_all(&name).iter().take(NEEDED_VALUES) {
            kept.append(&name, value.clone());
        }
    }
    *headers = kept;
}

/// Size of a request's head as HTTP/2 counts it (RFC 9113, section 6.5.2), of the four fields that every one has only the texts that
/// a client chooses.
pub(super) fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    path + authority + fields.sum::<usize>()
}

/// The caller's deadline: at most eight digits and a unit, as the gRPC protocol over HTTP/2 says.
/// What is not of that form is as good as none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let raw = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = raw.split_at_checked(raw.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_calls_itself_grpc_is() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is_grpc(&headers), expected, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn of_very_many_fields_those_are_kept_that_are_needed() {
        let field = |name: &str, value: &str| {
            (HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"))
        };
        let needed = [
            ("authorization", "Bearer a"),
            ("authorization", "Bearer b"),
            ("grpc-accept-encoding", "gzip"),
            ("grpc-encoding", "zstd"),
            ("x-cache-namespace", "n"),
        ];
        let told = |headers: &HeaderMap| {
            let mut fields: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()))
                .collect();
            fields.sort();
            fields
        };
        let expected = needed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (name, others, is_kept) in [
            ("x-1", KEPT_FIELDS - needed.len(), true),
            ("x-1", KEPT_FIELDS, false),
            ("authorization", KEPT_FIELDS, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in needed.into_iter().chain(std::iter::repeat_n((name, "x"), others)) {
                let (name, value) = field(name, value);
                headers.append(name, value);
            }
            shed(&mut headers);
            if is_kept {
                assert_eq!(headers.len(), KEPT_FIELDS);
            } else {
                assert_eq!(told(&headers), expected, "{others} of {name}");
                assert!(headers.capacity() <= KEPT_FIELDS);
            }
        }
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (raw, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("n", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("100000000S", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(raw));
            assert_eq!(timeout(&headers), expected, "{raw}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
