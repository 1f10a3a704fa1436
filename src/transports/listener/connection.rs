//! The life of one connection, from accepted to closed.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2::Reason;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Protocol;
use super::counted::Counted;
use super::counters::{ConnectionRefusal, OpenConnection};
use super::first_bytes::FirstBytes;
use super::frames::Flooded;
use super::http2::{Http2, Inbox};
use super::paced::{Paced, Schedule};
use super::service::{ConnectInfo, ForConnection, HttpService, Peer};
use super::socket::Stream;
use super::untaken::MOST_REQUESTS;
use crate::config::ConnectionConfig;
use crate::line::Line;
use crate::telemetry::throttle::Throttle;
use crate::tls::{ServerTls, is_unlisted_client};
use crate::transports::refused::RequestRefusal;

/// What a client which had connected, but said nothing yet, has left to do so once a shutdown begins.
const LATE_START: Duration = Duration::from_secs(1);

/// Length of the bytes that open every HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// How much a client may send on one HTTP/2 stream, and on all of a connection, before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// How much more of a request's head is read than is allowed, so that the service can say that it is too large, and
/// count it. Of more than that only HTTP/2 itself tells the client.
const HEAD_MARGIN_BYTES: u32 = 16 << 10;

type Wire = Counted<Stream>;

pub(super) type Io = FirstBytes<Either<Wire, Box<TlsStream<Wire>>>>;

/// What all connections of a listener have in common.
pub(super) struct Shared {
    pub(super) protocol: Protocol,
    pub(super) config: ConnectionConfig,
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Of the log's lines about handshakes that fail.
    pub(super) handshakes: Throttle,
    /// Finish what is in flight, then close.
    pub(super) shutdown: CancellationToken,
    /// Of connections over HTTP/2 that always have more to do.
    pub(super) line: Arc<Line>,
    /// Of those over HTTP/1.
    pub(super) schedule: Arc<Schedule>,
}

impl Shared {
    /// Serves one connection until either side ends it. Dropping the future closes it at once.
    pub(super) async fn serve<S: HttpService>(
        &self,
        stream: Stream,
        peer: Peer,
        service: S,
        place: &OpenConnection,
    ) {
        let one_by_one = self.protocol == Protocol::Http1;
        let stream =
            Counted::new(stream, Arc::clone(place.counters()), self.config.request_timeout, one_by_one);
        let Some(stream) = self.secure(stream, peer, place).await else { return };
        let service = ForConnection { service, info: ConnectInfo { peer, tls: self.tls.is_some() } };
        let unanswered = Arc::new(AtomicBool::new(false));
        let ended = match self.protocol {
            Protocol::Http1 => {
                let (io, begun) = self.watch_start(stream, 1);
                let io = io.noting(Arc::clone(&unanswered));
                let connection = self.http1().serve_connection(TokioIo::new(io), service);
                self.drive(Paced::new(connection, &self.schedule), begun, place).await
            }
            Protocol::Http2 => {
                let (io, begun) = self.watch_start(stream, PREFACE_BYTES);
                let patience = self.config.request_timeout.saturating_mul(2);
                let (counters, line) = (place.counters(), &self.line);
                let connection =
                    Http2::new(io, service, counters, line, patience, |builder| self.http2(builder));
                self.drive(connection, begun, place).await
            }
        };
        if let Err(error) = ended {
            if let Some(reason) = self.refusal(&error, unanswered.load(Ordering::Relaxed)) {
                place.counters().refused_requests().count(reason);
            }
            // Clients vanish and send garbage; that is theirs to explain.
            tracing::debug!(?peer, error = %Chain(&error), "connection ended");
        }
    }

    /// The TLS handshake, where there is TLS.
    async fn secure(
        &self,
        stream: Wire,
        peer: Peer,
        place: &OpenConnection,
    ) -> Option<Either<Wire, Box<TlsStream<Wire>>>> {
        let Some(tls) = &self.tls else { return Some(Either::Left(stream)) };
        let acceptor = TlsAcceptor::from(tls.server_config(self.protocol.alpn()));
        // Whoever looks at the client's certificate does not know where the client is.
        let handshake = acceptor.accept(stream).instrument(tracing::error_span!("tls_handshake", ?peer));
        let handshake = timeout(self.config.handshake_timeout, handshake);
        let result = tokio::select! {
            result = handshake => result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = self.past_late_start() => return None,
        };
        match result {
            Ok(stream) => Some(Either::Right(Box::new(stream))),
            Err(error) => {
                place.counters().tls_handshake_failed();
                if is_unlisted_client(&error) {
                    place.counters().refuse(ConnectionRefusal::ClientNotListed);
                }
                // Who comes without a certificate, or with one of nobody known, is told apart here alone.
                if let Some(not_logged) = self.handshakes.pass() {
                    tracing::info!(?peer, %error, not_logged, "TLS handshake failed");
                }
                None
            }
        }
    }

    fn watch_start(
        &self,
        stream: Either<Wire, Box<TlsStream<Wire>>>,
        bytes: usize,
    ) -> (Io, oneshot::Receiver<()>) {
        FirstBytes::new(stream, bytes, self.config.handshake_timeout)
    }

    /// Runs `connection` to its end, and sees to it that there is one.
    async fn drive<C: Connection>(
        &self,
        connection: C,
        begun: oneshot::Receiver<()>,
        place: &OpenConnection,
    ) -> hyper::Result<()> {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            has_begun = self.asked_to_stop(begun) => {
                if !has_begun {
                    return Ok(());
                }
                connection.as_mut().graceful_shutdown();
                return connection.await;
            }
            () = sleep_or_forever(self.config.max_connection_age.map(jittered)) => {}
        }
        place.counters().closed_for_age();
        connection.as_mut().graceful_shutdown();
        timeout(self.config.max_connection_age_grace, connection).await.unwrap_or(Ok(()))
    }

    /// Ends when a shutdown is on and the client had its chance to send a first request, and tells whether it took it:
    /// one that connected in time and is about to ask is answered, and one that says nothing holds nobody up.
    async fn asked_to_stop(&self, begun: oneshot::Receiver<()>) -> bool {
        self.shutdown.cancelled().await;
        matches!(timeout(LATE_START, begun).await, Ok(Ok(())))
    }

    /// Why a connection ended before a request was one; `None` where it ended otherwise. `unanswered`: its client has said
    /// something since the last answer.
    fn refusal(&self, error: &hyper::Error, unanswered: bool) -> Option<RequestRefusal> {
        if error.is_parse_too_large() {
            return Some(RequestRefusal::HeadTooLarge);
        }
        if error.is_parse() {
            return Some(RequestRefusal::Malformed);
        }
        // Over HTTP/2 it is a ping that was not answered.
        if self.protocol == Protocol::Http1 && error.is_timeout() {
            // Who was answered and is silent since has asked for nothing.
            return unanswered.then_some(RequestRefusal::TooSlow);
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return match error.get_io() {
                    Some(error) => refusal_by_io(error),
                    None if !error.is_library() => None,
                    None if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => Some(RequestRefusal::Flood),
                    None => Some(RequestRefusal::Malformed),
                };
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return refusal_by_io(error);
            }
            cause = error.source();
        }
        None
    }

    async fn past_late_start(&self) {
        self.shutdown.cancelled().await;
        sleep(LATE_START).await;
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        // Who has said all there is to say still wants the answer.
        builder.half_close(true);
        builder.max_buf_size(self.config.max_metadata_bytes as usize);
        builder.timer(TokioTimer::new()).header_read_timeout(self.config.handshake_timeout);
        builder
    }

    fn http2(&self, builder: &mut http2::Builder<Inbox>) {
        builder
            .timer(TokioTimer::new())
            .auto_date_header(false)
            // As many as are read at a time: calls of one client that are all given up at once are no flood.
            .max_pending_accept_reset_streams(MOST_REQUESTS)
            .max_concurrent_streams(self.config.max_concurrent_streams)
            .keep_alive_interval(self.config.keepalive_interval)
            .keep_alive_timeout(self.config.keepalive_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(self.config.max_metadata_bytes + HEAD_MARGIN_BYTES);
    }
}

/// Why a connection ended by what our side of it failed with.
fn refusal_by_io(error: &io::Error) -> Option<RequestRefusal> {
    match error.kind() {
        io::ErrorKind::TimedOut => Some(RequestRefusal::TooSlow),
        Flooded::KIND => Some(RequestRefusal::Flood),
        _ => None,
    }
}

/// What connections of both versions can do.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Takes no new requests, finishes those in flight, then ends.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S: HttpService> Connection for Paced<http1::Connection<TokioIo<Io>, ForConnection<S>>> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Pin::new(self.get_mut().hurried()).graceful_shutdown();
    }
}

impl<S: HttpService> Connection for Http2<S> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.get_mut().graceful_shutdown();
    }
}

async fn sleep_or_forever(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// `age`, give or take 10 %, so that clients which came together do not come back together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// An error with everything behind it, on one line.
struct Chain<'a>(&'a dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
