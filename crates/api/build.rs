//! Compiles the gRPC services of `proto/`.

#![allow(clippy::disallowed_methods, reason = "Cargo talks to build scripts by environment variables")]

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message;

/// The directory that imports are relative to.
const PROTO: &str = "../../proto";

/// The files with services.
const SERVICES: [&str; 2] = ["canet/v1/recommender.proto", "inference/open_inference.proto"];

/// Compiles in this process, so that no protoc is needed.
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let services = protox::compile(SERVICES, [PROTO])?;
    // For the reflection service.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("services.bin");
    std::fs::write(descriptors, services.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(services)?;
    Ok(())
}
