//! Compiles the API definition: Rust code for client and server, and the descriptor set that
//! reflection serves. No protoc needs to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["cache.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("cache.descriptor.bin"), descriptors.encode_to_vec())?;
    // tonic as it comes, for the peer in the benchmarks.
    let stock = out.join("stock");
    std::fs::create_dir_all(&stock)?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .out_dir(stock)
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::transports::grpc::CacheCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
