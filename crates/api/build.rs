//! Compiles the gRPC services of `proto/`.

#![allow(clippy::disallowed_methods, reason = "Cargo talks to build scripts by environment variables")]

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message;

/// The top of what the files import.
const PROTO: &str = "../../proto";

/// What is served over gRPC, relative to it.
const SERVICES: [&str; 2] = ["canet/v1/recommender.proto", "inference/open_inference.proto"];

/// Compiles in this process: no protoc is needed.
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let services = protox::compile(SERVICES, [PROTO])?;
    // What the reflection service tells.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("services.bin");
    std::fs::write(descriptors, services.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::grpc::codec::CountedCodec")
        .compile_fds(services)?;
    Ok(())
}
