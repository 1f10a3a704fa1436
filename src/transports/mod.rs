//! How clients reach the service: one component per protocol, on a shared serving path.

pub mod listener;
