//! How clients come in: one folder per transport, above a listener that they share.

pub mod grpc;
pub mod request_id;
pub mod stats;
