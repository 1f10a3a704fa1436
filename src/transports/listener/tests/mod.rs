//! Real sockets, real clients. What the tests share: a server with a service whose requests can be held, and clients.

mod bind;
mod drain;
mod limits;
mod serving;
mod sharing;
mod tls;
mod untaken;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BoundAddress, ConnectInfo, ConnectionCounters, Listener, Protocol};
use crate::config::{ConnectionConfig, ListenAddress};
use crate::tls::ServerTls;

/// Longer than anything here takes, short enough to see a test hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A grace that no test waits for.
const AMPLE: Duration = Duration::from_secs(60);

pub(super) fn config() -> ConnectionConfig {
    ConnectionConfig {
        max_connections: 100,
        max_connection_age: None,
        max_connection_age_grace: AMPLE,
        max_concurrent_streams: 100,
        keepalive_interval: None,
        keepalive_timeout: Duration::from_secs(20),
        handshake_timeout: AMPLE,
        request_timeout: AMPLE,
        max_in_flight: 1000,
        max_in_flight_bytes: 1 << 30,
        max_metadata_bytes: 16 << 10,
    }
}

fn any_port() -> ListenAddress {
    ListenAddress::Tcp(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("should not take so long")
}

async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Holds requests for `/held` until the test lets them go.
#[derive(Clone)]
struct Gate {
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
    answered: Arc<AtomicU64>,
}

impl Gate {
    fn new() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
            answered: Arc::default(),
        }
    }

    async fn arrival(&self) {
        within(self.arrived.acquire()).await.unwrap().forget();
    }

    fn release(&self) {
        self.released.add_permits(1);
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        match request.uri().path() {
            "/held" => {
                self.arrived.add_permits(1);
                self.released.acquire().await.unwrap().forget();
            }
            "/panic" => panic!("asked for"),
            // A thread that is busy is not to be had by anybody else.
            "/busy" => std::thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        let info = request.extensions().get::<ConnectInfo>().expect("every request has it");
        let answer = Response::builder().header("x-request-id", fastrand::u64(..));
        Ok(answer.body(Full::from(format!("{info:?}"))).expect("a good header"))
    }
}

struct Running {
    address: BoundAddress,
    counters: Arc<ConnectionCounters>,
    gate: Gate,
    shutdown: CancellationToken,
    server: JoinHandle<usize>,
}

impl Running {
    fn start(protocol: Protocol, config: &ConnectionConfig) -> Self {
        Self::start_at(&any_port(), protocol, config, None, AMPLE)
    }

    fn start_at(
        address: &ListenAddress,
        protocol: Protocol,
        config: &ConnectionConfig,
        tls: Option<Arc<ServerTls>>,
        grace: Duration,
    ) -> Self {
        let listener = Listener::bind(address, tls, config).unwrap();
        Self::serve(listener, protocol, grace, CancellationToken::new())
    }

    fn serve(listener: Listener, protocol: Protocol, grace: Duration, shutdown: CancellationToken) -> Self {
        let address = listener.local_address().clone();
        let counters = Arc::clone(listener.counters());
        let gate = Gate::new();
        let service = tower::service_fn({
            let gate = gate.clone();
            move |request| gate.clone().answer(request)
        });
        let server = tokio::spawn(listener.serve(service, protocol, shutdown.clone(), grace));
        Self { address, counters, gate, shutdown, server }
    }

    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(tcp(&self.address))).await.unwrap()
    }

    async fn client(&self, protocol: Protocol) -> Client {
        Client::over(self.connect().await, protocol).await
    }

    /// Ends it and returns how many connections were cut off.
    async fn stop(self) -> usize {
        self.shutdown.cancel();
        within(self.server).await.unwrap()
    }
}

fn tcp(address: &BoundAddress) -> SocketAddr {
    match address {
        BoundAddress::Tcp(address) => *address,
        BoundAddress::Unix(path) => panic!("{} is not a TCP address", path.display()),
    }
}

type Answer = Pin<Box<dyn Future<Output = hyper::Result<String>> + Send>>;

/// One connection of a client.
enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn over<S>(stream: S, protocol: Protocol) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = within(http1::handshake(io)).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = within(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        }
    }

    /// Sends a request; the answer's body comes later.
    fn send(&mut self, path: &str) -> Answer {
        let request = Request::get(format!("http://localhost{path}")).body(Empty::new()).unwrap();
        match self {
            Self::Http1(sender) => Box::pin(body(sender.send_request(request))),
            Self::Http2(sender) => Box::pin(body(sender.send_request(request))),
        }
    }

    async fn get(&mut self, path: &str) -> hyper::Result<String> {
        within(self.send(path)).await
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

async fn body(response: impl Future<Output = hyper::Result<Response<Incoming>>>) -> hyper::Result<String> {
    let body = response.await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}
