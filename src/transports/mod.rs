//! How clients reach the cache: one component per protocol, and what they share.

pub mod grpc;
pub mod http;
pub mod request_id;
pub mod stats;
