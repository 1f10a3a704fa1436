//! The API, generated from `proto/cache.proto`.

#![expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; its documentation is the proto file's"
)]

tonic::include_proto!("cache");

/// The descriptor set of [`crate::proto`], for reflection.
pub const DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("cache.descriptor");
