//! What a listener asks of the service behind it, and what it tells it about the client.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower::Service;
use tower::util::{Oneshot, ServiceExt};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client over TCP.
    Tcp(SocketAddr),
    /// A client on this machine, over a Unix socket; it has no address.
    Unix,
}

/// About the connection of a request. Every request has one among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Who sent it.
    pub peer: Peer,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// A service that a listener can serve. Implemented for everything that fits; not to be implemented by hand.
///
/// Each request is answered by a clone of its own, so `clone` should be cheap. An error has no place to go here: what
/// goes wrong is a response.
pub trait HttpService:
    Service<Request<Incoming>, Response = Response<Self::ResponseBody>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of a response.
    type ResponseBody: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type ResponseBody = B;
}

/// A service as one connection's hyper sees it.
pub(super) struct ForConnection<S> {
    pub(super) service: S,
    pub(super) info: ConnectInfo,
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for ForConnection<S> {
    type Response = Response<S::ResponseBody>;
    type Error = Infallible;
    type Future = Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.info);
        self.service.clone().oneshot(request)
    }
}
